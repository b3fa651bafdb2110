"""What a backend's author declares about it: its name, its metric, what it can and cannot do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agent_memory import Capability, InvalidArgumentError

METRICS = ("cosine", "l2", "ip")


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why a backend does not have a capability. The reason goes into the report."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise InvalidArgumentError("Unsupported(...): say why, in a few words")


@dataclass(frozen=True, slots=True)
class Network:
    """How a backend reaches its engine, so that the suite can come between the two.

    Args:
        host: where the engine listens.
        port: where the engine listens.
        timeout: in seconds: a handle of ``open_through`` gives a call up after this time, its
            retries included. A second or less keeps the suite fast.
        password: the engine's, which no message may print; ``None`` if it has none.

    Raises:
        InvalidArgumentError: the port or the timeout is out of range.
    """

    host: str
    port: int
    timeout: float
    password: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise InvalidArgumentError(f"Network(port={self.port!r}): expected 1 to 65535")
        if not 0 < self.timeout <= 60:
            raise InvalidArgumentError(
                f"Network(timeout={self.timeout!r}): expected seconds, above 0 and at most 60"
            )


@dataclass(frozen=True, slots=True)
class Profile:
    """What the conformance suite expects of a backend.

    Every capability is expected unless ``off`` says why not, so that none goes missing in
    silence. ``approximate`` alone must be switched on: it allows more, it does not promise more.

    Args:
        name: the backend's name, for messages and reports.
        on: capabilities to expect; only ``approximate`` needs to be named.
        off: capabilities that the backend does not have, each with its reason.
        metric: how the spaces that the suite opens measure distance: cosine, l2 or ip.
        network: how the backend reaches its engine; ``None`` for one without a network, which
            the suite then watches: it must not connect to anything.

    Raises:
        InvalidArgumentError: a capability or the metric is unknown, or one is both on and off.
            Raised where the profile is written, so pytest reports it while collecting.
    """

    name: str
    on: Collection[str] = ()
    off: Mapping[str, Unsupported] = field(default_factory=dict)
    metric: str = "cosine"
    network: Network | None = None

    def __post_init__(self) -> None:
        for name in (*self.on, *self.off):
            _require_known(name, [each.value for each in Capability], "capability")
        _require_known(self.metric, METRICS, "metric")
        for name, reason in self.off.items():
            if name in self.on:
                raise InvalidArgumentError(f"{name!r} is both on and off: choose one")
            if not isinstance(reason, Unsupported):
                raise InvalidArgumentError(
                    f"off={{{name!r}: ...}}: say why, as Unsupported('...'), not {reason!r}"
                )

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What a handle of this backend must declare, no more and no less."""
        promised = frozenset(Capability) - {Capability.APPROXIMATE}
        declared = promised | {Capability(name) for name in self.on}
        return declared - {Capability(name) for name in self.off}


def _require_known(name: str, known: Collection[str], kind: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise InvalidArgumentError(f"{name!r} is no {kind}: {hint}")
