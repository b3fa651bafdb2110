"""Failures of Qdrant and of the way to it, in the terms of agent-memory."""

from __future__ import annotations

import sqlite3
from typing import Final

import grpc
import httpx
from agent_memory import AgentMemoryError, BackendError, BackendUnavailableError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

_PASSING_STATUS: Final = {408, 425, 429, 500, 502, 503, 504}
_PASSING_CODE: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
}
_REFUSED_STATUS: Final = {401, 403}
_REFUSED_CODE: Final = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def passes(error: Exception) -> bool:
    """Tell whether the same request may succeed later."""
    match error:
        case ResponseHandlingException(source=source):
            return isinstance(source, httpx.TransportError)
        case UnexpectedResponse(status_code=status):
            return status in _PASSING_STATUS
        case grpc.aio.AioRpcError():
            return error.code() in _PASSING_CODE
        case ResourceExhaustedResponse() | TimeoutError():
            return True
    return False


def translated(error: Exception, where: str) -> AgentMemoryError | None:
    """Return our error for one of Qdrant's; ``None`` if it is none of them.

    ``where`` is the place that was asked, without anything secret.
    """
    reason = _reason(error)
    if passes(error):
        return BackendUnavailableError(
            f"Qdrant at {where} did not do what it was asked: {reason}. Check that it runs and can "
            "be reached from here, then call again: repeating a call does no harm"
        )
    match error:
        case UnexpectedResponse(status_code=status) if status in _REFUSED_STATUS:
            return BackendError(_refusal(where, reason))
        case grpc.aio.AioRpcError() if error.code() in _REFUSED_CODE:
            return BackendError(_refusal(where, reason))
        case UnexpectedResponse() | ResponseHandlingException() | grpc.aio.AioRpcError():
            return BackendError(f"Qdrant at {where} refused a request: {reason}")
        case sqlite3.OperationalError() | OSError():
            return BackendUnavailableError(
                f"The folder {where} cannot be read or written: {reason}. Check its permissions "
                "and the space that is left on the disk"
            )
    return None


def _refusal(where: str, reason: str) -> str:
    return (
        f"Qdrant at {where} does not let this client in: {reason}. Check the option api_key or the "
        "environment variable QDRANT_API_KEY"
    )


def _reason(error: Exception) -> str:
    match error:
        case ResponseHandlingException(source=source):
            return f"{type(source).__name__} {source}".strip()
        case UnexpectedResponse(status_code=status, content=content):
            return f"status {status}, {content[:300].decode(errors='replace')}"
        case grpc.aio.AioRpcError():
            return f"{error.code().name}, {error.details()}"
        case TimeoutError():
            return "no answer within the timeout"
    return f"{type(error).__name__} {error}".strip()
