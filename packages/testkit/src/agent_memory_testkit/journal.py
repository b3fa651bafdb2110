"""What was called on a backend and what came back, and how failures are told.

`Recorded` wraps a handle and writes every call into a `Journal`; `ConformanceFailure` tells the
rule, the calls, what came back and what should have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import groupby
from types import TracebackType
from typing import Any, cast

from agent_memory import MemoryRecord, MemoryRecordResult, MemoryRecordResults, MemoryVectorDatabase
from agent_memory_testkit.model import FIELDS, Found, differing_fields, same
from agent_memory_testkit.rules import RULES, WHOLE
from agent_memory_testkit.samples import NOW

_REMEMBERED = 12
_SAYS = {rule.id: rule.says for rule in (*RULES.values(), *WHOLE.values())}
_PENDING: Any = object()


class ConformanceFailure(AssertionError):
    """The backend broke a rule of the contract."""


@dataclass
class Call:
    """One call of a method, with what it returned or raised."""

    method: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outcome: Any = _PENDING

    def __str__(self) -> str:
        arguments = [brief(each) for each in self.args]
        arguments += [f"{name}={brief(value)}" for name, value in self.kwargs.items()]
        said = f"{self.method}({', '.join(arguments)})"
        if self.outcome is _PENDING:
            answer = "did not return"
        elif isinstance(self.outcome, BaseException):
            said_why = f": {self.outcome}" if str(self.outcome) else ""
            answer = f"raised {type(self.outcome).__name__}{said_why}"
        else:
            answer = brief(self.outcome)
        return f"{_cut(said)} -> {_cut(answer)}"


class Journal:
    """The last calls of one run of a rule."""

    def __init__(self) -> None:
        self.count = 0
        self._calls: deque[Call] = deque(maxlen=_REMEMBERED)

    def begin(self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        call = Call(method, args, kwargs)
        self.count += 1
        self._calls.append(call)
        return call

    def __str__(self) -> str:
        shown = "\n".join(
            f"    {line}{f' ({len(repeated)} times)' if len(repeated) > 1 else ''}"
            for line, same_lines in groupby(map(str, self._calls))
            if (repeated := list(same_lines))
        )
        return f"  calls (the last {len(self._calls)} of {self.count}):\n{shown or '    none'}"


class Recorded:
    """A handle that writes into a journal; otherwise it is the handle."""

    def __init__(self, handle: MemoryVectorDatabase, journal: Journal, name: str) -> None:
        self._handle = handle
        self._journal = journal
        self._name = name

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._handle, name)
        if name == "scoped":
            return self._scoped
        if name == "iter_memories":
            return self._iter_memories
        if name.endswith("_memories") or name in ("ping", "aclose"):
            return self._recorded(name, attribute)
        return attribute

    def _recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            entry = self._journal.begin(f"{self._name}.{name}", args, kwargs)
            try:
                entry.outcome = await method(*args, **kwargs)
            except Exception as error:
                entry.outcome = error
                raise
            return entry.outcome

        return call

    def _scoped(self, **fields: Any) -> MemoryVectorDatabase:
        said = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return recorded(
            self._handle.scoped(**fields), self._journal, f"{self._name}.scoped({said})"
        )

    async def _iter_memories(self, **kwargs: Any) -> AsyncIterator[MemoryRecord]:
        entry = self._journal.begin(f"{self._name}.iter_memories", (), kwargs)
        given: list[MemoryRecord] = []
        try:
            async for each in self._handle.iter_memories(**kwargs):
                given.append(each)
                yield each
        except Exception as error:
            entry.outcome = error
            raise
        entry.outcome = given

    async def __aenter__(self) -> Any:
        self._journal.begin(f"{self._name}.__aenter__", (), {}).outcome = None
        await self._handle.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._journal.begin(f"{self._name}.__aexit__", (), {}).outcome = None
        await self._handle.__aexit__(exc_type, exc, traceback)


def recorded(handle: MemoryVectorDatabase, journal: Journal, name: str) -> MemoryVectorDatabase:
    """Return ``handle`` such that its calls are written into ``journal``."""
    return cast(MemoryVectorDatabase, Recorded(handle, journal, name))


# --- how values are shown --------------------------------------------------------------------

_SHOWN = 6
_LENGTH = 90
_LINE = 500
_LEFT_OUT = ("memory_hash", "last_accessed", "updated_at")
_USUAL: Mapping[str, Any] = {
    "created_at": NOW,
    "memory_type": "message",
    "metadata": {},
    "extraction_strategy_config": {},
    "pinned": False,
    "access_count": 0,
    "discrete_memory_extracted": "f",
    "extraction_strategy": "discrete",
}


def brief(value: Any) -> str:
    """Return a readable form of ``value`` that stays short however large it is."""
    if isinstance(value, Found):
        return f"{value.id!r} at {value.dist:.6g}"
    if isinstance(value, MemoryRecord):
        return _brief_record(value)
    if isinstance(value, MemoryRecordResults):
        return (
            f"Page(total={value.total}, next_offset={value.next_offset}, "
            f"memories={brief(value.memories)})"
        )
    if isinstance(value, (list, tuple, set, frozenset)):
        shown = [brief(each) for _, each in zip(range(_SHOWN), value, strict=False)]
        more = [f"... {len(value) - _SHOWN} more"] if len(value) > _SHOWN else []
        return f"[{', '.join(shown + more)}]"
    text = repr(value.value if isinstance(value, Enum) else value)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 20]}... {len(text)} characters"


def _cut(line: str) -> str:
    return line if len(line) <= _LINE else f"{line[:_LINE]} ..."


def _brief_record(record: MemoryRecord) -> str:
    said = [f"{name}={brief(getattr(record, name, '<missing>'))}" for name in ("id", "text")]
    for name in FIELDS[2:]:
        value = getattr(record, name, "<missing>")
        if name in _LEFT_OUT or value == _USUAL.get(name):
            continue
        said.append(f"{name}={value.isoformat() if isinstance(value, datetime) else brief(value)}")
    if isinstance(record, MemoryRecordResult) and record.dist is not None:
        said.append(f"dist={record.dist:.6g}")
    if isinstance(record, MemoryRecordResult) and record.score is not None:
        said.append(f"score={record.score:.6g}")
    return f"Record({', '.join(said)})"


def story_of_failure(
    rule: str | None, what: str, *, got: Any, should: Any, profile: str, journal: Journal
) -> str:
    """Return the message of a failed check."""
    lines = [
        f"{rule} broken by {profile}: {_SAYS[rule]}" if rule else f"broken by {profile}",
        f"  checked:   {what}",
        f"  came back: {got if isinstance(got, Words) else brief(got)}",
        f"  should be: {should if isinstance(should, Words) else brief(should)}",
        *_difference(got, should),
        str(journal),
    ]
    return "\n".join(lines)


class Words(str):
    """What came back, or should have, where words say it better than a value."""

    __slots__ = ()


def _difference(got: Any, should: Any) -> Sequence[str]:
    if isinstance(got, MemoryRecord) and isinstance(should, MemoryRecord):
        return [
            f"  differs:   {name}: {brief(one)} should be {brief(other)}"
            for name, (one, other) in differing_fields(got, should).items()
        ]
    if isinstance(got, (list, tuple)) and isinstance(should, (list, tuple)):
        for position, (one, other) in enumerate(zip(got, should, strict=False)):
            if isinstance(one, MemoryRecord) and isinstance(other, MemoryRecord):
                if differing_fields(one, other):
                    return [f"  first at:  position {position}", *_difference(one, other)]
            elif not same(one, other):
                return [f"  first at:  position {position}: {brief(one)} should be {brief(other)}"]
        if len(got) != len(should):
            return [f"  lengths:   {len(got)} should be {len(should)}"]
    return []
