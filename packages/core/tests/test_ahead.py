"""Reading one part ahead: in order, once each, and nothing goes on after the reader has left."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from agent_memory.ahead import read_ahead


class Source:
    """Reads parts, and remembers what was begun, ended and cancelled."""

    def __init__(self, failing: int | None = None) -> None:
        self.failing = failing
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.third_ended = asyncio.Event()

    async def read(self, part: int) -> str:
        self.begun.append(part)
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled.append(part)
            raise
        if part == self.failing:
            raise ValueError(f"part {part}")
        self.ended.append(part)
        if part == 2:
            self.third_ended.set()
        return f"<{part}>"


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_each_part_comes_once_in_order(size: int) -> None:
    async def scenario() -> None:
        source = Source()
        async with aclosing(read_ahead(range(size), source.read)) as parts:
            found = [each async for each in parts]
        assert found == [(part, f"<{part}>") for part in range(size)]
        assert source.begun == source.ended == list(range(size))

    asyncio.run(scenario())


def test_the_next_part_is_read_while_the_caller_is_busy() -> None:
    async def scenario() -> None:
        source = Source()
        async with aclosing(read_ahead(range(3), source.read)) as parts:
            async for part, _ in parts:
                if part == 1:
                    await asyncio.wait_for(source.third_ended.wait(), 10)
                assert len(source.begun) <= part + 2

    asyncio.run(scenario())


def test_what_reading_raises_comes_in_its_turn() -> None:
    async def scenario() -> None:
        source = Source(failing=2)
        found = []

        async def reader() -> None:
            async with aclosing(read_ahead(range(5), source.read)) as parts:
                async for part, _ in parts:
                    found.append(part)
                    await asyncio.sleep(0.01)

        with pytest.raises(ValueError, match="part 2"):
            await reader()
        assert found == [0, 1]
        assert source.begun == [0, 1, 2]

    asyncio.run(scenario())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("failing", [None, 1])
def test_nothing_goes_on_once_the_reader_has_left(failing: int | None) -> None:
    async def scenario() -> None:
        source = Source(failing)
        async with aclosing(read_ahead(range(5), source.read)) as parts:
            async for _ in parts:
                await asyncio.sleep(0 if failing is None else 0.01)
                break
        assert source.begun == [0, 1]
        assert source.cancelled == ([1] if failing is None else [])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_a_reader_that_is_cancelled_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        source = Source()

        async def reader() -> None:
            async with aclosing(read_ahead(range(1_000), source.read)) as parts:
                async for _ in parts:
                    pass

        task = asyncio.create_task(reader())
        await source.third_ended.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(source.begun) == len(source.ended) + len(source.cancelled)

    asyncio.run(scenario())
