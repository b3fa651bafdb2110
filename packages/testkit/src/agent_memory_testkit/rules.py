"""The manifest: every rule of the contract, and which of them bind only some backends.

A test of the suite names its rule in its own name: ``test_add_3_...`` is a test of ``ADD-3``.
How the rules are tested is not here: see `agent_memory_testkit.suite`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent_memory import Capability

GROUPS: Mapping[str, str] = {
    "REC": "Records",
    "ADD": "add_memories",
    "UPD": "update_memories",
    "DEL": "delete_memories",
    "GET": "get_memories",
    "CNT": "count_memories",
    "LST": "list_memories, iter_memories",
    "SRCH": "search_memories",
    "RCY": "Recency",
    "FLT": "Filters",
    "ISO": "Isolation",
    "LIFE": "Life of a handle",
    "CONC": "Concurrency",
    "ERR": "Errors",
}
"""What the rules of a group are about, by how their ids begin; in the order of the contract."""

Level = Literal["core", "capability", "network"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the contract."""

    id: str
    """As in the contract: ``ADD-3``."""
    says: str
    """The rule in one sentence, for messages."""
    capabilities: tuple[Capability, ...] = ()
    """Binds only a backend that declares one of them; another one must refuse, never ignore."""
    network: bool = False
    """Binds only a backend that reaches its engine over a network."""

    @property
    def level(self) -> Level:
        """Whom the rule binds: everybody (core), or those with a capability or a network."""
        if self.network:
            return "network"
        return "capability" if self.capabilities else "core"

    @property
    def group(self) -> str:
        """How the ids of its group begin: ``ADD``."""
        return self.id.partition("-")[0]


def _rules(*rules: Rule) -> Mapping[str, Rule]:
    return {each.id: each for each in rules}


RULES: Mapping[str, Rule] = _rules(
    Rule("REC-1", "every field reads back equal through search, list and get"),
    Rule("REC-2", "tag values are exact: never trimmed, split, folded or normalised"),
    Rule("REC-3", "invalid records cannot be built; a naive datetime is read as UTC"),
    Rule("REC-4", "memory_hash is derived and right after every write"),
    Rule("ADD-1", "add_memories returns the ids in order; an empty list embeds nothing"),
    Rule("ADD-2", "a record whose id exists is replaced as a whole"),
    Rule("ADD-3", "of an id given twice in one call the last record is stored, once"),
    Rule("ADD-4", "the caller's records are not changed"),
    Rule("ADD-5", "texts are embedded in batches, never one call a record"),
    Rule("ADD-6", "if embedding fails the call raises and nothing of it is stored"),
    Rule("ADD-7", "what was written is seen by the next call on the handle"),
    Rule("ADD-8", "10,000 records can be added in one call"),
    Rule("UPD-1", "update_memories replaces whole records and returns how many there were"),
    Rule("UPD-2", "unknown ids are neither created nor counted; a repeated id counts once"),
    Rule("UPD-3", "a changed text has its new meaning only; an unchanged one is not embedded"),
    Rule("DEL-1", "delete_memories returns how many records existed and are now gone"),
    Rule("DEL-2", "deleted records are gone everywhere at once; all others stay"),
    Rule("DEL-3", "10,000 ids can be deleted in one call; a deleted id can be added again"),
    Rule("GET-1", "get_memories follows the order of the ids, without the missing ones"),
    Rule("CNT-1", "count_memories is exact, above 10,000 too, and transfers no records"),
    Rule("CNT-2", "a failing count raises; it is never reported as 0"),
    Rule("LST-1", "list_memories embeds nothing; created_at newest first, then id ascending"),
    Rule("LST-2", "total is exact on every page; pages neither overlap nor miss"),
    Rule("LST-3", "any depth: an offset of 50,000 works at the cost of a page"),
    Rule("LST-4", "limit < 1 or offset < 0 raises InvalidArgumentError"),
    Rule("LST-5", "iter_memories yields each record that exists throughout exactly once"),
    Rule("SRCH-1", "nearest first by the metric, ties by id; dist is right to 1e-4"),
    Rule("SRCH-2", "filters select first, ranking follows, however rare the matches"),
    Rule("SRCH-3", "total is exact and all pages of a query follow one order, ties included"),
    Rule("SRCH-4", "distance_threshold is inclusive and needs no limit to be right"),
    Rule("SRCH-5", "a blank query raises InvalidArgumentError; one query embeds once"),
    Rule("SRCH-6", "recall@10 is 1.0, or 0.95 and more where approximate is declared"),
    Rule(
        "SRCH-7",
        "keyword search finds only records that hold a term, and every quoted phrase",
        capabilities=(Capability.KEYWORD_SEARCH,),
    ),
    Rule(
        "SRCH-8",
        "hybrid_alpha weighs meaning against words over the union of both",
        capabilities=(Capability.HYBRID_SEARCH,),
    ),
    Rule("RCY-1", "recency ranks by semantic_weight * score + recency_weight * recency"),
    Rule("RCY-2", "the nearest candidates are ranked by recency before paging"),
    Rule("FLT-1", "eq, any, all and startswith accept exactly what they name"),
    Rule("FLT-2", "ne and none accept exactly what eq and any refuse"),
    Rule("FLT-3", "exists tells whether the field has a value; an empty list has none"),
    Rule("FLT-4", "time filters are exact to the microsecond"),
    Rule("FLT-5", "operators and filters are ANDed; where takes any tree of &, | and ~"),
    Rule("FLT-6", "plain values are shorthand for eq and any"),
    Rule("FLT-7", "a filter that cannot be honoured is an error, never ignored"),
    Rule("FLT-8", "no value changes the meaning of a query, whatever characters it holds"),
    Rule("FLT-9", "the laws of logic hold, and count, list and pages agree"),
    Rule("ISO-1", "two spaces never see, count, change or delete each other's records"),
    Rule("ISO-2", "near-colliding tenants never see each other through any method"),
    Rule("ISO-3", "a scoped handle stamps what it adds and acts only inside its scope"),
    Rule("ISO-4", "a scoped add of an id that another tenant holds changes nothing"),
    Rule("LIFE-1", "creating a handle does no I/O; many first calls prepare the space once"),
    Rule("LIFE-2", "aclose may be called twice; afterwards every call raises"),
    Rule(
        "LIFE-3",
        "what was acknowledged is there after reopening and for other handles",
        capabilities=(Capability.PERSISTENT, Capability.SHARED),
    ),
    Rule("LIFE-4", "a space remembers its model, dimensions and metric and refuses others"),
    Rule("CONC-1", "1,000 searches and 1,000 writes at once on one handle all succeed"),
    Rule("CONC-2", "concurrent writes to one id leave one of the versions, whole"),
    Rule("CONC-3", "a cancelled call leaves the handle usable; no call blocks the event loop"),
    Rule("ERR-1", "an engine that does not answer raises within the timeout", network=True),
    Rule("ERR-2", "when the engine is back the same handle works again", network=True),
    Rule("ERR-3", "a write whose acknowledgement was lost can be repeated", network=True),
    Rule("ERR-4", "what is not supported raises and names the capability"),
    Rule("ERR-5", "every error is an AgentMemoryError, keeps its cause and says what to do"),
)
"""Every rule by its id, in the order of the contract."""

WHOLE: Mapping[str, Rule] = _rules(
    Rule("MODEL", "any sequence of calls gives what a plain dict of records would give"),
    Rule(
        "CLEAN",
        "no record is left in any space after it was cleaned up",
        capabilities=(Capability.PERSISTENT, Capability.SHARED),
    ),
)
"""What the kit checks besides: it stands for no single rule of the contract."""

_TESTS_OF_THE_WHOLE = {
    "test_all_methods_agree_with_the_model": "MODEL",
    "test_nothing_is_left_behind": "CLEAN",
}
_TEST_NAME = re.compile(r"test_([a-z]+)_(\d+)_")


def rule_of_test(test_name: str) -> str | None:
    """Return the id of the rule that a test's name carries; ``None`` if it carries none."""
    found = _TEST_NAME.match(test_name)
    return f"{found[1].upper()}-{found[2]}" if found else None


def checked_by(test_name: str) -> str | None:
    """Return the id of the rule of `RULES` or `WHOLE` that a test of the suite checks."""
    return _TESTS_OF_THE_WHOLE.get(test_name) or rule_of_test(test_name)
