"""Which memories a call is about: typed filters, and the expressions that they build.

Two layers: a *filter* is one field with operators, as callers write it (``UserId(eq="ada")``), and
an *expression* combines filters (``UserId(eq="ada") & ~Topics(any=["travel"])``). Both are checked
as they are built, and written and read as JSON. What they mean for a record is in
`agent_memory.predicates`; no engine is known here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent_memory.errors import InvalidArgumentError
from agent_memory.models import UtcDatetime, ensure_encodable, ensure_utc

MAX_DEPTH = 100
"""How many levels of ``&``, ``|`` and ``~`` may be nested; wide is free, deep is not."""

SCALAR_TAG_FIELDS = (
    "id",
    "session_id",
    "user_id",
    "namespace",
    "memory_type",
    "memory_hash",
    "discrete_memory_extracted",
    "extraction_strategy",
)
LIST_TAG_FIELDS = ("topics", "entities", "extracted_from")
TAG_FIELDS = SCALAR_TAG_FIELDS + LIST_TAG_FIELDS
TIME_FIELDS = ("created_at", "last_accessed", "updated_at", "persisted_at", "event_date")

Inclusive = Literal["both", "neither", "left", "right"]
_UTC_DATETIME: TypeAdapter[datetime] = TypeAdapter(UtcDatetime, config=ConfigDict(defer_build=True))
_LONGEST_SHOWN = 60
_SHORT = reprlib.Repr()  # a refused value may be huge, or nested too deep for repr
_SHORT.maxstring = _SHORT.maxother = _LONGEST_SHOWN


# --- expressions: what callers combine -------------------------------------------------------


class Expression:
    """A condition on memories. Combine with ``&`` (and), ``|`` (or) and ``~`` (not).

    Raises:
        InvalidArgumentError: more than 100 levels are nested.
    """

    __slots__ = ()

    def __and__(self, other: Expression) -> Expression:
        return _combined(And, self, other)

    def __or__(self, other: Expression) -> Expression:
        return _combined(Or, self, other)

    def __invert__(self) -> Expression:
        return self.operand if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        # `a and b` would silently be `b`, which drops a condition.
        raise InvalidArgumentError(
            "a filter expression has no truth value: combine with &, | and ~, not and, or, not"
        )

    @property
    def depth(self) -> int:
        """Levels of ``&``, ``|`` and ``~``; 0 for a single filter."""
        return 0

    def to_json_value(self) -> dict[str, Any]:
        """Return plain JSON data that `expression_from_json` reads back as an equal expression."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Return the expression as JSON text."""
        return json.dumps(self.to_json_value(), ensure_ascii=False)


def _combined(kind: type[And] | type[Or], left: Expression, right: Expression) -> Expression:
    _require_expression(right)
    # `a & b & c` stays one level, however long the chain gets.
    head = left.operands if isinstance(left, kind) else (left,)
    tail = right.operands if isinstance(right, kind) else (right,)
    return kind(head + tail)


def _checked_depth(inner: Iterable[Expression]) -> int:
    depth = 1 + max((each.depth for each in inner), default=0)
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"a filter expression may be nested {MAX_DEPTH} levels deep")
    return depth


@dataclass(frozen=True, slots=True)
class _Combination(Expression):
    operands: tuple[Expression, ...]
    _depth: int = dataclasses.field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", tuple(self.operands))
        if not self.operands:
            raise InvalidArgumentError(f"{type(self).__name__} of nothing: give an expression")
        for operand in self.operands:
            _require_expression(operand)
        object.__setattr__(self, "_depth", _checked_depth(self.operands))

    @property
    def depth(self) -> int:
        return self._depth


class And(_Combination):
    """Every operand holds. Usually written ``a & b``."""

    __slots__ = ()

    def to_json_value(self) -> dict[str, Any]:
        return {"and": [each.to_json_value() for each in self.operands]}


class Or(_Combination):
    """At least one operand holds. Usually written ``a | b``."""

    __slots__ = ()

    def to_json_value(self) -> dict[str, Any]:
        return {"or": [each.to_json_value() for each in self.operands]}


@dataclass(frozen=True, slots=True)
class Not(Expression):
    """The operand does not hold. Usually written ``~a``."""

    operand: Expression
    _depth: int = dataclasses.field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        _require_expression(self.operand)
        object.__setattr__(self, "_depth", _checked_depth([self.operand]))

    @property
    def depth(self) -> int:
        return self._depth

    def to_json_value(self) -> dict[str, Any]:
        return {"not": self.operand.to_json_value()}


def _require_expression(value: object) -> None:
    if not isinstance(value, Expression):
        raise InvalidArgumentError(
            f"expected a filter such as UserId(eq='ada') or an expression of them, "
            f"got {type(value).__name__}"
        )


# --- filters: what callers write -------------------------------------------------------------


class _Unset:
    """The default of every operator: an explicit ``None`` is a mistake, not an absent operator."""

    def __repr__(self) -> str:
        return "<unset>"


_UNSET: Any = _Unset()


class Filter(Expression):
    """Operators on one field, all of which must hold. The field belongs to the class."""

    __slots__ = ()
    field: ClassVar[str]
    """The field of a `MemoryRecord` that the filter is about."""

    if not TYPE_CHECKING:  # the dataclasses below give type checkers the exact signature

        def __new__(cls, /, *args, **operators):
            if not hasattr(cls, "field"):
                raise InvalidArgumentError(
                    f"{cls.__name__} has no field: use the filter of one, such as UserId"
                )
            if args:
                raise InvalidArgumentError(f"name the operator: {cls.__name__}(eq=...)")
            for name in operators:
                _require_known(name, cls.operators(), f"operator of {cls.__name__}")
            return super().__new__(cls)

    @classmethod
    def operators(cls) -> tuple[str, ...]:
        """Return the names of the operators that this filter has."""
        return tuple(cls.__dataclass_fields__)  # type: ignore[attr-defined]

    def given(self) -> dict[str, Any]:
        """Return the operators that were given, with their values."""
        values = ((name, getattr(self, name)) for name in self.operators())
        return {name: value for name, value in values if value is not None}

    def to_json_value(self) -> dict[str, Any]:
        return {self.field: {name: _plain(value) for name, value in self.given().items()}}

    def __repr__(self) -> str:
        operators = ", ".join(f"{name}={value!r}" for name, value in self.given().items())
        return f"{type(self).__name__}({operators})"

    def _fail(self, operator: str, problem: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"{type(self).__name__}({operator}=...): {problem}")

    def _forget_the_unset(self) -> None:
        # From here on an operator that was not given reads as None, as backends expect it.
        for name in self.operators():
            if getattr(self, name) is _UNSET:
                object.__setattr__(self, name, None)
        if not self.given():
            raise InvalidArgumentError(
                f"{type(self).__name__}() filters nothing: give one of "
                f"{', '.join(self.operators())}"
            )

    def _check_exists(self, value: object) -> None:
        if value is not _UNSET and not isinstance(value, bool):
            raise self._fail("exists", f"expected True or False, got {_described(value)}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TagFilter(Filter):
    """Exact conditions on a field of one string."""

    eq: str = _UNSET
    """Equal to this value."""
    ne: str = _UNSET
    """Not equal to this value, or without one: exactly what ``eq`` refuses."""
    any: Sequence[str] = _UNSET
    """Equal to one of these values."""
    none: Sequence[str] = _UNSET
    """Equal to none of these values, or without one: exactly what ``any`` refuses."""
    startswith: str = _UNSET
    """Starts with this prefix, of one character or more."""
    exists: bool = _UNSET
    """Has a value (``True``) or has none (``False``)."""

    def __post_init__(self) -> None:
        for name in ("eq", "ne", "startswith"):
            if getattr(self, name) is not _UNSET:
                object.__setattr__(self, name, self._checked_tag(name, getattr(self, name)))
        for name in ("any", "none", "all"):
            if getattr(self, name, _UNSET) is not _UNSET:
                object.__setattr__(self, name, self._checked_tags(name, getattr(self, name)))
        self._check_exists(self.exists)
        self._forget_the_unset()

    def _checked_tag(self, operator: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._fail(operator, f"expected a string, got {_described(value)}")
        if not value:
            raise self._fail(operator, "an empty string is the value of no record")
        try:
            # Members of an enumeration become the string that is stored.
            return ensure_encodable(str.__str__(value))
        except ValueError as error:
            raise self._fail(operator, str(error)) from None

    def _checked_tags(self, operator: str, values: object) -> tuple[str, ...]:
        if not isinstance(values, (list, tuple, set, frozenset)):
            raise self._fail(operator, f"expected a list of strings, got {_described(values)}")
        if not values:
            raise self._fail(operator, "an empty list; leave the filter out, or give a value")
        checked = tuple(self._checked_tag(operator, value) for value in values)
        return tuple(sorted(checked)) if isinstance(values, (set, frozenset)) else checked


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ListTagFilter(TagFilter):
    """Exact conditions on a field of many strings: one element must meet an operator."""

    all: Sequence[str] = _UNSET
    """Holds each of these values."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TimeFilter(Filter):
    """Conditions on a moment, exact to the microsecond. Naive datetimes are read as UTC."""

    eq: datetime | str = _UNSET
    """At this moment."""
    ne: datetime | str = _UNSET
    """Not at this moment, or without one: exactly what ``eq`` refuses."""
    gt: datetime | str = _UNSET
    """After this moment."""
    gte: datetime | str = _UNSET
    """At this moment or after it."""
    lt: datetime | str = _UNSET
    """Before this moment."""
    lte: datetime | str = _UNSET
    """At this moment or before it."""
    between: Sequence[datetime | str] = _UNSET
    """From the first of two moments to the second; ``inclusive`` tells which of them count."""
    inclusive: Inclusive = _UNSET
    """Which ends of ``between`` count: ``both`` (the default), ``neither``, ``left``, ``right``."""
    exists: bool = _UNSET
    """Has a time (``True``) or has none (``False``)."""

    def __post_init__(self) -> None:
        for name in ("eq", "ne", "gt", "gte", "lt", "lte"):
            if getattr(self, name) is not _UNSET:
                object.__setattr__(self, name, self._checked_moment(name, getattr(self, name)))
        if self.between is not _UNSET:
            object.__setattr__(self, "between", self._checked_between(self.between))
        if self.inclusive is not _UNSET:
            if self.inclusive not in ("both", "neither", "left", "right"):
                raise self._fail("inclusive", "expected 'both', 'neither', 'left' or 'right'")
            if self.between is _UNSET:
                raise self._fail("inclusive", "belongs to between=(start, end), which is missing")
        self._check_exists(self.exists)
        self._forget_the_unset()

    def _checked_moment(self, operator: str, value: object) -> datetime:
        if type(value) is datetime:
            try:
                return ensure_utc(value)
            except ValueError as error:
                raise self._fail(operator, str(error)) from None
        if not isinstance(value, (date, str)):
            raise self._fail(
                operator, f"expected a datetime or an ISO 8601 string, got {_described(value)}"
            )
        try:
            return _UTC_DATETIME.validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise self._fail(operator, f"{_shown(value)} is not a time: {problem}") from None

    def _checked_between(self, value: object) -> tuple[datetime, datetime]:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise self._fail("between", f"expected (start, end), got {_described(value)}")
        start, end = (self._checked_moment("between", each) for each in value)
        if start > end:
            raise self._fail(
                "between", f"reversed: {start.isoformat()} is after {end.isoformat()}; swap them"
            )
        return start, end


class Id(TagFilter):
    """Filter by ``id``."""

    __slots__ = ()
    field = "id"


class SessionId(TagFilter):
    """Filter by ``session_id``."""

    __slots__ = ()
    field = "session_id"


class UserId(TagFilter):
    """Filter by ``user_id``."""

    __slots__ = ()
    field = "user_id"


class Namespace(TagFilter):
    """Filter by ``namespace``."""

    __slots__ = ()
    field = "namespace"


class MemoryType(TagFilter):
    """Filter by ``memory_type``."""

    __slots__ = ()
    field = "memory_type"


class MemoryHash(TagFilter):
    """Filter by ``memory_hash``."""

    __slots__ = ()
    field = "memory_hash"


class DiscreteMemoryExtracted(TagFilter):
    """Filter by ``discrete_memory_extracted``."""

    __slots__ = ()
    field = "discrete_memory_extracted"


class ExtractionStrategy(TagFilter):
    """Filter by ``extraction_strategy``."""

    __slots__ = ()
    field = "extraction_strategy"


class Topics(ListTagFilter):
    """Filter by the elements of ``topics``."""

    __slots__ = ()
    field = "topics"


class Entities(ListTagFilter):
    """Filter by the elements of ``entities``."""

    __slots__ = ()
    field = "entities"


class ExtractedFrom(ListTagFilter):
    """Filter by the elements of ``extracted_from``."""

    __slots__ = ()
    field = "extracted_from"


class CreatedAt(TimeFilter):
    """Filter by ``created_at``."""

    __slots__ = ()
    field = "created_at"


class LastAccessed(TimeFilter):
    """Filter by ``last_accessed``."""

    __slots__ = ()
    field = "last_accessed"


class UpdatedAt(TimeFilter):
    """Filter by ``updated_at``."""

    __slots__ = ()
    field = "updated_at"


class PersistedAt(TimeFilter):
    """Filter by ``persisted_at``."""

    __slots__ = ()
    field = "persisted_at"


class EventDate(TimeFilter):
    """Filter by ``event_date``."""

    __slots__ = ()
    field = "event_date"


FILTERS: Mapping[str, type[TagFilter] | type[TimeFilter]] = {
    kind.field: kind
    for kind in (
        Id,
        SessionId,
        UserId,
        Namespace,
        MemoryType,
        MemoryHash,
        DiscreteMemoryExtracted,
        ExtractionStrategy,
        Topics,
        Entities,
        ExtractedFrom,
        CreatedAt,
        LastAccessed,
        UpdatedAt,
        PersistedAt,
        EventDate,
    )
}
"""The filter of each field that can be filtered by; its keys are the keywords of every method."""


class FilterArguments(TypedDict, total=False):
    """The filter keywords of every method, with the plain values that stand for a filter.

    A string is ``eq``, a list of strings is ``any``, a datetime is ``eq``.
    """

    id: Id | str | Sequence[str]
    session_id: SessionId | str | Sequence[str]
    user_id: UserId | str | Sequence[str]
    namespace: Namespace | str | Sequence[str]
    memory_type: MemoryType | str | Sequence[str]
    memory_hash: MemoryHash | str | Sequence[str]
    discrete_memory_extracted: DiscreteMemoryExtracted | str | Sequence[str]
    extraction_strategy: ExtractionStrategy | str | Sequence[str]
    topics: Topics | str | Sequence[str]
    entities: Entities | str | Sequence[str]
    extracted_from: ExtractedFrom | str | Sequence[str]
    created_at: CreatedAt | datetime | str
    last_accessed: LastAccessed | datetime | str
    updated_at: UpdatedAt | datetime | str
    persisted_at: PersistedAt | datetime | str
    event_date: EventDate | datetime | str


# --- reading filters from keywords and from JSON ---------------------------------------------


def as_filter(field: str, value: object) -> Filter:
    """Return the filter that a keyword argument stands for.

    Args:
        field: the keyword, which is the name of a field.
        value: a filter of that field, or a plain value: a string or a datetime means ``eq``,
            a list, tuple or set of strings means ``any``.

    Raises:
        InvalidArgumentError: the field cannot be filtered by, or the value does not fit it.
    """
    _require_known(field, tuple(FILTERS), "filter")
    kind = FILTERS[field]
    if isinstance(value, Filter):
        if not isinstance(value, kind):
            raise InvalidArgumentError(
                f"{field}={_shown(value)} filters by {value.field}: use {kind.__name__}(...)"
            )
        return value
    if isinstance(value, Expression):
        raise InvalidArgumentError(f"{field}=...: an expression of filters; pass it as where=")
    if value is None:
        raise InvalidArgumentError(
            f"{field}=None: leave {field} out to accept every value, "
            f"or use {kind.__name__}(exists=False) for the memories without one"
        )
    if isinstance(value, (list, tuple, set, frozenset)) and issubclass(kind, TagFilter):
        return kind(any=value)  # type: ignore[arg-type]
    return kind(eq=value)  # type: ignore[arg-type]


def combined(where: object, filters: Mapping[str, object]) -> Expression | None:
    """Return one expression for ``where`` and all keyword filters; ``None`` if nothing is asked.

    Raises:
        InvalidArgumentError: a keyword or a value cannot be honoured.
    """
    parts: list[Expression] = [as_filter(field, value) for field, value in filters.items()]
    if where is not None:
        _require_expression(where)
        parts.append(where)  # type: ignore[arg-type]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def expression_from_json(value: object) -> Expression:
    """Read an expression from JSON text, or from the data that such text holds.

    A filter is ``{"user_id": {"eq": "ada"}}``, or ``{"user_id": "ada"}`` for short; expressions
    are combined as ``{"and": [...]}``, ``{"or": [...]}`` and ``{"not": {...}}``.

    Raises:
        InvalidArgumentError: the text is not JSON, or not such an expression.
    """
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"the filter is not JSON: {error}") from None
    return _from_json_value(value, 0)


def _from_json_value(value: object, depth: int) -> Expression:
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"a filter expression may be nested {MAX_DEPTH} levels deep")
    if not isinstance(value, dict) or len(value) != 1:
        raise InvalidArgumentError(
            'expected one filter such as {"user_id": {"eq": "ada"}} or one of '
            f'{{"and": [...]}}, {{"or": [...]}}, {{"not": ...}}, got {_described(value)}'
        )
    ((key, inner),) = value.items()
    if key == "not":
        return Not(_from_json_value(inner, depth + 1))
    if key in ("and", "or"):
        if not isinstance(inner, list):
            raise InvalidArgumentError(f'"{key}" takes a list, got {_described(inner)}')
        operands = tuple(_from_json_value(each, depth + 1) for each in inner)
        return And(operands) if key == "and" else Or(operands)
    _require_known(key, (*FILTERS, "and", "or", "not"), "filter")
    if isinstance(inner, dict):
        for name in inner:
            _require_known(name, FILTERS[key].operators(), f"operator of {FILTERS[key].__name__}")
        make: Callable[..., Filter] = FILTERS[key]
        return make(**inner)
    return as_filter(key, inner)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of a key given twice, the json module keeps the last: a condition would silently be gone.
    kept: dict[str, Any] = {}
    for name, value in pairs:
        if name in kept:
            raise InvalidArgumentError(
                f'{_shown(name)} is given twice: combine conditions with "and" or "or"'
            )
        kept[name] = value
    return kept


def _require_known(name: str, known: Sequence[str], kind: str) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(str(name)[:_LONGEST_SHOWN], known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    raise InvalidArgumentError(f"{_shown(name)} is no {kind}: {hint}")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _described(value: object) -> str:
    return f"{_shown(value)} ({type(value).__name__})"


def _shown(value: object) -> str:
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
