"""The client's exceptions in our terms: what happened, where, and what to do about it."""

from __future__ import annotations

import ast
import re

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from agent_memory import AgentMemoryError, BackendError, BackendUnavailableError
from agent_memory_redis.settings import address

__all__ = ["AccessDeniedError", "NotConnectedError", "UnsuitableServerError", "translated"]


class AccessDeniedError(BackendError, PermissionError):
    """The server refuses the user, the password, or a command or key to this user."""


class UnsuitableServerError(BackendError, RuntimeError):
    """The server answers, but lacks what this backend needs, or is not what the URL says."""


class NotConnectedError(exceptions.ConnectionError):
    """No connection came about, after all retries."""


def translated(error: Exception, *, url: str) -> AgentMemoryError | None:
    """Return our error for one that the client raised; ``None`` for one that is not about Redis.

    The text says where, what, and what to do. It holds no user name and no password of the URL.
    """
    if not isinstance(error, (exceptions.RedisError, exceptions.RedisClusterException, OSError)):
        return None
    if isinstance(error, NotConnectedError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    where = address(url)
    said = _said(error)
    for pattern, ours, text in _BY_TEXT:
        if re.search(pattern, said):
            return ours(text.format(where=where, said=said))
    for kinds, ours, text in _BY_CLASS:
        if isinstance(error, kinds):
            return ours(text.format(where=where, said=said))
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        return BackendUnavailableError(
            f"cannot reach {where}: {said}. Is the server running, and does REDIS_URL (or "
            f"the option url) name it? A server that speaks TLS needs rediss://"
        )
    if isinstance(error, exceptions.RedisClusterException):
        return BackendError(f"{where}: {said}")
    return None


def _said(error: Exception) -> str:
    """Return the server's own words, without what redis-py puts around them in a pipeline."""
    text = str(error) or type(error).__name__
    piped = re.fullmatch(r"Command # \d+ \(.*\) of pipeline caused error: (.*)", text, re.DOTALL)
    if piped:
        text = piped[1]
        if re.fullmatch(r"""\((['"]).*\1,\)""", text, re.DOTALL):
            text = str(ast.literal_eval(text)[0])
    return text.rstrip(". ")


_LATER = BackendUnavailableError
_NOT_PERMITTED = (
    "{where} does not permit this to the user: {said}. Extend the user's ACL; the operators' page "
    "of the documentation lists what the backend needs"
)
_BY_TEXT: list[tuple[str, type[BackendError], str]] = [
    (
        r"(?i)unknown command '?`?(FT|_FT)\.",
        UnsuitableServerError,
        "{where} has no query engine: {said}. Use Redis 8 or newer, in a build that includes it "
        "(the official packages and images do, Debian's do not), or load the module redisearch",
    ),
    (
        r"(?i)cluster mode is not enabled",
        UnsuitableServerError,
        "{where} is a single server. Use redis:// without cluster",
    ),
    (
        r"^ACL failure in script: ",
        AccessDeniedError,
        _NOT_PERMITTED,
    ),
    (
        r"^MISCONF",
        _LATER,
        "{where} cannot save to disk and therefore refuses writes. Free the disk, or see the "
        "server's log ({said})",
    ),
    (
        r"^NOREPLICAS",
        _LATER,
        "{where} has too few replicas that keep up (min-replicas-to-write), and refuses writes",
    ),
    (
        r"previous master is now a slave|that Sentinel names is a replica",
        _LATER,
        "{where}: the primary has just changed ({said}). Try again in a moment",
    ),
    (
        r"^BUSY ",
        _LATER,
        "{where} is busy with a script. Try again in a moment",
    ),
    (
        r"^Timeout connecting",
        _LATER,
        "{where} could not be reached in time. Check REDIS_URL (a firewall, or rediss:// to a "
        "server without TLS, looks like this, too), or raise connect_timeout",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        UnsuitableServerError,
        "{where} shows a certificate that is not trusted here: {said}. Name the authority that "
        "signed it in REDIS_URL: ?ssl_ca_certs=/path/to/ca.pem",
    ),
    (
        r"\[SSL: ",
        UnsuitableServerError,
        "{where} and this client cannot agree on TLS: {said}. A server without TLS needs redis://",
    ),
    (
        r"(?i)max number of clients",
        _LATER,
        "{where} has no connection left: {said}. Raise its maxclients, or lower max_connections",
    ),
    (
        r"(?i)cluster cannot be connected",
        _LATER,
        "cannot reach {where}: none of the nodes answers. Is it running, and does REDIS_URL "
        "name a node of it?",
    ),
    (
        r"(?i)^timeout limit was reached",
        _LATER,
        "the query took longer than {where} allows (its search-timeout). Narrow the filter, or "
        "raise that setting",
    ),
]
_BY_CLASS: list[tuple[tuple[type[Exception], ...], type[BackendError], str]] = [
    (
        (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError),
        AccessDeniedError,
        "{where} refuses the user or the password: {said}. Give both in REDIS_URL "
        "(redis://user:password@host), special characters percent-encoded",
    ),
    (
        (exceptions.NoPermissionError,),
        AccessDeniedError,
        _NOT_PERMITTED,
    ),
    (
        (exceptions.MaxConnectionsError,),
        _LATER,
        "no connection to {where} became free: {said}. Make fewer calls at once, or raise "
        "max_connections or pool_timeout",
    ),
    (
        (exceptions.BusyLoadingError,),
        _LATER,
        "{where} has just started and is still loading its data. Try again in a moment",
    ),
    (
        (MasterNotFoundError,),
        _LATER,
        "{where}: no Sentinel that answers knows a primary by that name. Check hosts and service "
        "in REDIS_URL; during a failover, try again in a moment",
    ),
    (
        (exceptions.TimeoutError, TimeoutError),
        _LATER,
        "{where} did not answer in time: {said}. A write may have been done all the same, and can "
        "be repeated. If the server is healthy, raise timeout",
    ),
    (
        (exceptions.ReadOnlyError,),
        _LATER,
        "{where} is a read-only replica and refuses writes. Let REDIS_URL name the primary, or the "
        "Sentinels (redis+sentinel://host/service), which always know it",
    ),
    (
        (exceptions.OutOfMemoryError,),
        _LATER,
        "{where} has reached its maxmemory and refuses writes. Raise maxmemory, or delete "
        "memories; an eviction policy would delete them at random. Of this call a part may be "
        "stored: it can be repeated",
    ),
    (
        (exceptions.MasterDownError,),
        _LATER,
        "{where} is a replica that has lost its primary. Try again in a moment",
    ),
    (
        (exceptions.ClusterDownError, exceptions.ClusterError, exceptions.SlotNotCoveredError),
        _LATER,
        "{where}: the cluster does not serve all its slots: {said}. Try again in a moment; "
        "`redis-cli --cluster check` shows what is missing",
    ),
    (
        (exceptions.AskError,),  # MovedError is one
        UnsuitableServerError,
        "{where} is a node of a cluster ({said}). Use redis+cluster:// or ?cluster=true",
    ),
]
