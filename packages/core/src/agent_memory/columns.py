"""The fields of many records, column by column: what goes into a store at the least cost.

To look at one field of a thousand records takes a fraction of looking at a thousand records, and
most engines store columns anyhow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from agent_memory.models import MemoryRecord

FIELDS = tuple(MemoryRecord.model_fields)
OBJECTS = ("metadata", "extraction_strategy_config")
_values_of = itemgetter(*FIELDS)


class Columns(Mapping[str, Sequence[Any]]):
    """Valid records by column: ``columns["text"]`` are their texts, in the order of the records.

    Read them, do not change them: records may share a value. Values are those of the fields of
    `MemoryRecord`.

    Attributes:
        count: how many records there are.
    """

    __slots__ = ("_values", "count")

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        """Take over ``values``, those of all of `FIELDS`, as many of each."""
        self._values = values
        self.count = len(values["id"])

    @classmethod
    def of(cls, records: Iterable[MemoryRecord]) -> Columns:
        """Return the fields of ``records``; lists and objects in them are still theirs."""
        return cls(transposed(each.__dict__ for each in records))

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def part(self, start: int, stop: int) -> Columns:
        """Return the records from ``start`` to before ``stop``."""
        return Columns({name: values[start:stop] for name, values in self._values.items()})

    def take(self, positions: Sequence[int]) -> Columns:
        """Return the records at ``positions``, in that order."""
        return Columns(
            {name: [values[each] for each in positions] for name, values in self._values.items()}
        )

    def to_records(self) -> list[MemoryRecord]:
        """Return a record for each, which takes over its lists and objects."""
        columns = [
            # The empty ones may be one and the same.
            [each or {} for each in self._values[name]] if name in OBJECTS else self._values[name]
            for name in FIELDS
        ]
        rows = zip(*columns, strict=True)
        return MemoryRecord.all_from_trusted(dict(zip(FIELDS, each, strict=True)) for each in rows)


def transposed(fields: Iterable[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    """Return the values of `FIELDS` of each of ``fields``, by field.

    Raises:
        KeyError: one has not got them all.
    """
    columns = [*zip(*map(_values_of, fields), strict=True)]
    return dict(zip(FIELDS, columns or [()] * len(FIELDS), strict=True))
