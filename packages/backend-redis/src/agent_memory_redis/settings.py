"""How to reach the server: the options, their environment variables, and the URL taken apart.

Everything is checked here, before anything connects. No text that leaves this module holds a URL,
because a URL may hold a password.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url

from agent_memory import InvalidArgumentError

__all__ = ["ConnectionSettings", "Target", "address", "bad_url"]

DEFAULT_URL = "redis://localhost:6379"
VARIABLES = {
    "url": "REDIS_URL",
    "max_connections": "REDIS_MAX_CONNECTIONS",
    "timeout": "REDIS_TIMEOUT",
    "connect_timeout": "REDIS_CONNECT_TIMEOUT",
    "retries": "REDIS_RETRIES",
    "pool_timeout": "REDIS_POOL_TIMEOUT",
}
"""Option → the environment variable that holds its value where the option is not given."""


@dataclass(frozen=True)
class ConnectionSettings:
    """How to reach the server. All times are in seconds.

    A timeout is never retried, so one command takes at most ``pool_timeout`` + ``connect_timeout``
    + ``timeout``, and the pauses between retries (below two seconds with the default).

    Raises:
        InvalidArgumentError: a value is out of its range, or the URL cannot be understood. The
            text never holds the URL, because the URL may hold a password.
    """

    url: str = field(default=DEFAULT_URL, repr=False)
    """``redis://``, ``rediss://``, ``unix://``; ``redis+cluster://`` and ``rediss+cluster://``, or
    ``?cluster=true``; ``redis+sentinel://host,host/service/database`` and ``rediss+sentinel://``."""
    max_connections: int = 32
    """At most so many connections (in a cluster: calls at once); more calls wait for their turn."""
    timeout: float = 10.0
    """How long the server may take to answer a command."""
    connect_timeout: float = 5.0
    retries: int = 3
    """How often to try again, with growing pauses, to connect, and to read after a lost
    connection. A write is not repeated once it was sent: nobody knows whether it was done."""
    pool_timeout: float = 30.0
    """How long a call waits for a connection while all are in use."""

    def __post_init__(self) -> None:
        for name, least in (("max_connections", 1), ("retries", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise _invalid(name, value, f"expected a whole number, at least {least}")
        for name in ("timeout", "connect_timeout", "pool_timeout"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise _invalid(name, value, "expected a number of seconds above 0")
        Target.of(self.url)

    @classmethod
    def resolved(cls, **options: Any) -> Self:
        """Return the settings of ``options``, of the environment for those that are ``None``."""
        values: dict[str, Any] = {}
        for name, variable in VARIABLES.items():
            value = options.pop(name, None)
            given = os.environ.get(variable)
            if value is not None:
                values[name] = value
            elif given:
                values[name] = given if name == "url" else _number(name, given)
        return cls(**values, **options)


def _number(name: str, text: str) -> float:
    try:
        return int(text) if name in ("max_connections", "retries") else float(text)
    except ValueError:
        raise _invalid(name, text, "expected a number") from None


def _invalid(name: str, value: object, expected: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{name}={value!r} ({VARIABLES[name]}): {expected}")


# --- URLs ----------------------------------------------------------------------------------------

_SCHEMES = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
}
_DEFAULT_PORTS = {"server": 6379, "cluster": 6379, "sentinel": 26379}
_ENCODE = (
    "In a user name or a password, write special characters percent-encoded (@ is %40, / is %2F, "
    "? is %3F, # is %23)"
)
_OURS = {"protocol", "decode_responses", "encoding", "encoding_errors", "retry_on_timeout"}
"""What the backend itself relies on; a URL must not change it."""


@dataclass(frozen=True)
class Target:
    """A URL, taken apart."""

    kind: str
    """``server``, ``cluster`` or ``sentinel``."""
    hosts: tuple[tuple[str, int], ...]
    """Empty for a unix socket."""
    service: str
    tls: bool
    options: dict[str, Any] = field(repr=False)
    """What redis-py makes of the rest: user, password, database, query parameters."""

    @classmethod
    def of(cls, url: str) -> Self:
        if not isinstance(url, str):
            raise InvalidArgumentError(
                f"url (REDIS_URL): expected a string, got {type(url).__name__}"
            )
        try:
            return cls._parsed(url)
        except InvalidArgumentError:
            raise
        except ValueError as error:
            # redis-py names the query parameter; anything else may quote a part of a password.
            known = re.fullmatch(r"Invalid value for '\w+' in connection URL\.", str(error))
            reason = str(error) if known else f"its host or port cannot be understood. {_ENCODE}"
            raise bad_url(reason) from None

    @classmethod
    def _parsed(cls, url: str) -> Self:
        parts = urlsplit(url)
        kind = _SCHEMES.get(parts.scheme)
        if kind is None:
            raise bad_url(f"it must begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
        if parts.fragment or "@" in parts.path + parts.query:
            raise bad_url(f"it has a '#', or an '@' behind the host. {_ENCODE}")
        query = parse_qs(parts.query, keep_blank_values=True)
        if ours := sorted(_OURS & query.keys()):
            raise bad_url(f"leave out {', '.join(ours)}: this backend decides it")
        wants_cluster = query.pop("cluster", ["false"])[0].lower() in ("true", "1", "yes")
        hosts = _hosts(parts, _DEFAULT_PORTS[kind])
        # As RedisVL does, several hosts are understood as a cluster.
        if kind == "server" and (wants_cluster or len(hosts) > 1):
            kind = "cluster"
        tls = parts.scheme.startswith("rediss")
        service, database = "", parts.path
        if kind == "sentinel":
            service, database = _service(parts.path)
        scheme = parts.scheme.partition("+")[0]
        login, at, _ = parts.netloc.rpartition("@")
        place = "" if scheme == "unix" else _joined(hosts[:1])
        plain = f"{scheme}://{login}{at}{place}{database}?{urlencode(query, doseq=True)}"
        options: dict[str, Any] = dict(parse_url(plain))
        if scheme == "unix" and (not options.get("path") or parts.netloc != f"{login}{at}"):
            raise bad_url("a unix socket needs its path: unix:///run/redis/redis.sock")
        if kind == "cluster" and (scheme == "unix" or options.pop("db", 0)):
            raise bad_url("a cluster has neither unix sockets nor databases other than 0")
        if scheme != "unix" and kind != "sentinel" and not re.fullmatch(r"/?\d*", database):
            raise bad_url("the path must be the number of a database, such as /0")
        for name in ("host", "port", "connection_class"):
            if kind != "server":
                options.pop(name, None)
        return cls(kind, () if scheme == "unix" else hosts, service, tls, options)


def _hosts(parts: SplitResult, default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for each in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{each}")
        found.append((unquote(one.hostname or "localhost"), one.port or default_port))
    return tuple(found)


def _joined(hosts: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)


def _service(path: str) -> tuple[str, str]:
    """Return service and database of ``/service/database``, both optional."""
    service, _, database = path.strip("/").partition("/")
    if not re.fullmatch(r"\d*", database):
        raise bad_url("after the service comes the number of a database: /mymaster/0")
    return unquote(service) or "mymaster", f"/{database}"


def bad_url(reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"url (REDIS_URL): {reason}")


def address(url: str) -> str:
    """Return what a URL leads to, for messages: hosts, ports, database; no user, no password."""
    target = Target.of(url)
    database = target.options.get("db", 0)
    where = _joined(target.hosts)
    if target.kind == "cluster":
        return f"the Redis cluster at {where}"
    if target.kind == "sentinel":
        return f"Redis {target.service!r} (by the Sentinels at {where}), database {database}"
    if not target.hosts:
        where = str(target.options["path"])
    return f"Redis at {where}, database {database}"
