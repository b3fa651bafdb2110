"""Where a space lies on the server: its names and keys, its index, and what it remembers.

The index is described by RedisVL's schema. A second one over the same keys has no field that any of
them holds: it is there to be asked how many they are, which the engine knows of any index, and of
this one says at once. (Not on a cluster, whose FT.INFO leaves out nodes that fail.) A string key
beside them holds the stamp: model, dimensions and metric of the vectors, the version of the form of
the records, and what tells this space from one of the same name that was made before or after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote, unquote_to_bytes
from uuid import uuid4

from agent_memory import BackendError
from agent_memory.backend import Fingerprint, Metric
from agent_memory.filters import TIME_FIELDS
from agent_memory_redis.records import HASH_START, ORDER, TAGS, VECTOR, WORDS

SCHEMA_VERSION = 1

Algorithm = Literal["hnsw", "flat"]


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How vectors are indexed. ``None`` leaves a parameter of HNSW as the index has it."""

    algorithm: Algorithm = "hnsw"
    m: int | None = None
    ef_construction: int | None = None

    DEFAULT_M = 16
    DEFAULT_EF_CONSTRUCTION = 200


_SPECIAL = re.compile(r"[%{\x00-\x1f\x7f]")
"""What a key does not hold as it is: braces have a meaning to a cluster, which puts keys with the
same text between them into one slot, and the engine does not read beyond a NUL."""


@dataclass(frozen=True)
class Layout:
    """The names of one space.

    Every name that ends up in a key is encoded such that ``/`` and ``!`` do not occur in it. So no
    key of one space begins like those of another, whatever the names are, and no name holds braces,
    by which a cluster would put all its keys into one slot.
    """

    index: str
    prefix: str

    @classmethod
    def of(cls, index_name: str, prefix: str) -> Layout:
        return cls(_encoded(index_name), f"{_encoded(prefix)}/")

    @property
    def counting_index(self) -> str:
        """The name of the index that counts the records."""
        return f"{self.index}!count"

    @property
    def fingerprint_key(self) -> str:
        return f"{self.prefix[:-1]}!fingerprint"

    def key(self, memory_id: str) -> str:
        """Return the key of the hash of a record."""
        if _SPECIAL.search(memory_id):
            memory_id = _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", memory_id)
        return self.prefix + memory_id

    def memory_id(self, key: bytes) -> str:
        """Return the id of the record under ``key``."""
        rest = key[self.prefix_bytes :]
        return (unquote_to_bytes(rest) if b"%" in rest else rest).decode()

    @cached_property
    def prefix_bytes(self) -> int:
        return len(self.prefix)


def _encoded(name: str) -> str:
    return quote(name, safe=":")


# --- the index ---------------------------------------------------------------------------------


def create_command(
    layout: Layout, fingerprint: Fingerprint, vectors: VectorIndex, *, scan: bool
) -> list[str | int | float]:
    """Return the command that makes the index of a space, of the records there if it is to scan."""
    # Late: it takes half a second, which a process that finds its index there can spare.
    from redisvl.schema import IndexSchema

    vector: dict[str, Any] = {
        "algorithm": vectors.algorithm,
        "dims": fingerprint.dimensions,
        "distance_metric": fingerprint.metric.value,
        "datatype": "float32",
    }
    if vectors.algorithm == "hnsw":
        vector["m"] = vectors.m or VectorIndex.DEFAULT_M
        vector["ef_construction"] = vectors.ef_construction or VectorIndex.DEFAULT_EF_CONSTRUCTION
    sorting = {"sortable": True, "unf": True, "no_index": True, "no_stem": True}
    schema = IndexSchema.from_dict(
        {
            "index": {
                "name": layout.index,
                "prefix": layout.prefix,
                "storage_type": "hash",
                "stopwords": [],
            },
            "fields": [
                {
                    "name": TAGS,
                    "type": "tag",
                    "attrs": {"separator": ",", "case_sensitive": True},
                },
                *({"name": name, "type": "numeric"} for name in (*TIME_FIELDS, HASH_START)),
                {"name": WORDS, "type": "text", "attrs": {"no_stem": True}},
                {"name": ORDER, "type": "text", "attrs": sorting},
                {"name": VECTOR, "type": "vector", "attrs": vector},
            ],
        }
    )
    command = _create(layout.index, layout, scan=scan)
    for field in schema.redis_fields:
        command += field.redis_args()
    return command


def create_counting_command(layout: Layout, *, scan: bool) -> list[str | int | float]:
    """Return the command that makes the index which counts; a field it must have."""
    return [*_create(layout.counting_index, layout, scan=scan), "none", "NUMERIC", "NOINDEX"]


def _create(name: str, layout: Layout, *, scan: bool) -> list[str | int | float]:
    command: list[str | int | float] = ["FT.CREATE", name, "ON", "HASH"]
    command += ["PREFIX", 1, layout.prefix, "STOPWORDS", 0]
    if not scan:  # to scan, the server looks at all its keys, those of others included
        command.append("SKIPINITIALSCAN")
    return [*command, "SCHEMA"]


def fields_of(info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the fields of an index by name, each with its attributes in lower case."""
    found = {}
    for attributes in info["attributes"]:
        pairs = as_mapping(attributes)
        found[str(pairs["identifier"])] = pairs
    return found


def is_built(info: Mapping[str, Any]) -> bool:
    """Tell whether an index has looked at all records that were there before it."""
    return _is_whole(info["percent_indexed"], info["indexing"])


def indexed_records(reply: Sequence[Any]) -> int | None:
    """Return how many records an index holds, by FT.INFO; ``None`` if it is still being built."""
    # Not by `as_mapping`: this stands in the way of every search with a total.
    info = dict(zip(reply[::2], reply[1::2], strict=True))
    whole = _is_whole(info[b"percent_indexed"], info[b"indexing"])
    return int(info[b"num_docs"]) if whole else None


def _is_whole(done: bytes | str, indexing: bytes | str | int) -> bool:
    return float(done) >= 1 and not int(indexing)


def check_keys(layout: Layout, name: str, info: Mapping[str, Any]) -> None:
    """Check that an index is one over the records of this space.

    Raises:
        BackendError: it is not.
    """
    definition = as_mapping(info["index_definition"])
    if [*map(_text, definition["prefixes"])] != [layout.prefix]:
        raise _other_index(
            name, "it indexes other keys", "choose another index_name or space, or drop that index"
        )


def check_index(
    layout: Layout, info: Mapping[str, Any], fingerprint: Fingerprint, vectors: VectorIndex
) -> None:
    """Check that the index is the one that this handle would make.

    Raises:
        BackendError: it is another one; the text says how it differs.
    """
    check_keys(layout, layout.index, info)
    fields = fields_of(info)
    expected = {TAGS, *TIME_FIELDS, HASH_START, WORDS, ORDER, VECTOR}
    if fields.keys() != expected:
        raise _other_index(
            layout.index,
            "it has other fields",
            "choose another index_name or space, or drop that index",
        )
    vector = fields[VECTOR]
    wanted: dict[str, object] = {
        "algorithm": vectors.algorithm,
        "dim": fingerprint.dimensions,
        "distance_metric": fingerprint.metric.value,
    }
    if vectors.algorithm == "hnsw":
        wanted |= {"m": vectors.m, "ef_construction": vectors.ef_construction}
    for name, value in wanted.items():
        stored = str(vector.get(name)).lower()
        if value is not None and stored != str(value):
            raise _other_index(
                layout.index,
                f"its vectors have {name}={stored}, this handle wants {value}",
                "open it as it is, or drop the index alone (FT.DROPINDEX without DD keeps the "
                "memories) while no other handle is in use, and the next search makes it anew",
            )


def _other_index(name: str, difference: str, remedy: str) -> BackendError:
    return BackendError(
        f"the index {name!r} is not as this handle needs it: {difference}; {remedy}"
    )


def as_mapping(pairs: Sequence[Any]) -> dict[str, Any]:
    """Return a flat reply of names and values as a mapping; names in lower case."""
    return {
        _text(name).lower(): _text(value) if isinstance(value, bytes) else value
        for name, value in zip(pairs[::2], pairs[1::2], strict=False)
    }


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


# --- the stamp ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is stored beside the indexes of a space: whose vectors they hold, and which space it is.

    A space that was emptied and made anew has another stamp, even if its vectors are of the same
    kind. So who finds the stamp unchanged after writing knows that the indexes saw the writing, or
    will when they are made anew of the records.
    """

    text: str
    """As it is stored."""
    fingerprint: Fingerprint
    version: int
    is_finished: bool
    """Whether all indexes are there; until then nobody has written, or who did will tell them."""

    @classmethod
    def new(cls, fingerprint: Fingerprint) -> Stamp:
        """Return the stamp of a space whose indexes are about to be made."""
        values = {"schema": SCHEMA_VERSION, **asdict(fingerprint), "made": uuid4().hex}
        return cls.read(json.dumps({**values, _UNFINISHED: True}))

    @classmethod
    def read(cls, text: str) -> Stamp:
        """Return what is stored as a stamp."""
        values = json.loads(text)
        fingerprint = Fingerprint(values["model"], values["dimensions"], Metric(values["metric"]))
        return cls(text, fingerprint, values["schema"], _UNFINISHED not in values)

    def finished(self) -> Stamp:
        """Return the stamp of the same space once its indexes are there."""
        if self.is_finished:
            return self
        values = json.loads(self.text)
        del values[_UNFINISHED]
        return Stamp.read(json.dumps(values))


_UNFINISHED = "unfinished"
