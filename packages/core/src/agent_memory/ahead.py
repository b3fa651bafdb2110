"""Reading one part ahead: while the caller works with a part, the next one is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


async def read_ahead(
    parts: Iterable[_In], read: Callable[[_In], Awaitable[_Out]]
) -> AsyncGenerator[tuple[_In, _Out], None]:
    """Yield each part with what ``read`` returns for it, reading one part ahead.

    What reading raises is raised in its turn, after all the parts before. Close the iterator
    (`contextlib.aclosing`), or what is being read when it is left goes on.
    """

    async def reading(part: _In) -> _Out:
        return await read(part)

    rest = iter(parts)
    ahead: asyncio.Task[_Out] | None = None
    part = next(rest, None)
    try:
        while part is not None:
            result = await (read(part) if ahead is None else ahead)
            following = next(rest, None)
            ahead = None if following is None else asyncio.create_task(reading(following))
            yield part, result
            part = following
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)  # nobody waits for it any more
