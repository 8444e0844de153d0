"""Look-ups of one event-loop tick share a fetch; failures and cancellations reach whom they concern."""

import asyncio

import pytest

from featurestore.online.coalesce import Coalescer


class Source:
    """Doubles numbers, remembers what it was asked, and can be held back."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, keys: list[int]) -> list[int]:
        self.asked.append(keys)
        await self.gate.wait()
        if 13 in keys:
            raise ValueError("thirteen")
        return [2 * key for key in keys]


def test_one_tick_one_fetch_and_each_key_once():
    async def main():
        source = Source()
        loader = Coalescer(source.fetch)
        found = await asyncio.gather(*[loader.load([number, number + 1, number]) for number in range(5)])
        assert found == [[2 * number, 2 * number + 2, 2 * number] for number in range(5)]
        assert source.asked == [[0, 1, 2, 3, 4, 5]]
        assert await loader.load([]) == []
        assert await loader.load([7]) == [14]
        assert source.asked[1:] == [[7]]

    asyncio.run(main())


def test_look_ups_made_while_fetches_are_under_way_share_the_next_one():
    async def main():
        source = Source()
        source.gate.clear()
        loader = Coalescer(source.fetch, flights=2)
        waiting = []
        for number in range(6):
            waiting.append(asyncio.create_task(loader.load([number])))
            for _ in range(3):
                await asyncio.sleep(0)
        assert source.asked == [[0], [1]]
        source.gate.set()
        assert [await each for each in waiting] == [[2 * number] for number in range(6)]
        assert source.asked == [[0], [1], [2, 3, 4, 5]]

    asyncio.run(main())


def test_large_ticks_are_cut():
    async def main():
        source = Source()
        loader = Coalescer(source.fetch, limit=10, flights=1)
        found = await asyncio.gather(*[loader.load([number, 100 + number]) for number in range(12)])
        assert found == [[2 * number, 200 + 2 * number] for number in range(12)]
        assert [len(keys) for keys in source.asked] == [10, 10, 4]

    asyncio.run(main())


def test_a_failed_fetch_fails_its_callers_and_no_others():
    async def main():
        source = Source()
        loader = Coalescer(source.fetch)
        together = await asyncio.gather(loader.load([13]), loader.load([1]), return_exceptions=True)
        assert [type(each) for each in together] == [ValueError, ValueError]
        assert await loader.load([1]) == [2]

    asyncio.run(main())


def test_a_caller_who_leaves_takes_nobody_along():
    async def main():
        source = Source()
        source.gate.clear()
        loader = Coalescer(source.fetch)
        leaving, staying = asyncio.create_task(loader.load([1])), asyncio.create_task(loader.load([1, 2]))
        await asyncio.sleep(0.01)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        source.gate.set()
        assert await staying == [2, 4]

    asyncio.run(main())


def test_callers_who_left_before_the_fetch_are_not_fetched_for():
    async def main():
        source = Source()
        loader = Coalescer(source.fetch)
        leaving = asyncio.create_task(loader.load([1]))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await loader.load([2]) == [4]
        assert source.asked == [[2]]

    asyncio.run(main())
