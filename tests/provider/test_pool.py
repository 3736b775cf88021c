"""Who gets which connection, with connections that are names."""

import asyncio

import pytest
from timers_rig import MovedTimers

from batchllm.provider.pool import KEEP_ALIVE_S, Pool


class Named:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.idle_since_s = 0.0
        self.is_fit = True
        self.is_aborted = False

    def release(self) -> bool:
        return self.is_fit

    def abort(self) -> None:
        self.is_aborted = True
        self.is_fit = False


class Rig:
    def __init__(self, limit: int = 0) -> None:
        self.timers = MovedTimers()
        self.pool: Pool[Named] = Pool(self.timers, limit)

    async def opened(self, name: str = "") -> Named:
        assert await self.pool.place() is None
        return Named(name)


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


class TestIdle:
    async def test_newest_is_taken_first(self) -> None:
        rig = Rig()
        for name in "abc":
            rig.pool.put(await rig.opened(name))
        assert [taken.name for _ in range(3) if (taken := rig.pool.take())] == ["c", "b", "a"]
        assert rig.pool.take() is None

    async def test_unfit_ones_are_not_given_out(self) -> None:
        rig = Rig()
        good, dead = await rig.opened(), await rig.opened()
        rig.pool.put(good)
        rig.pool.put(dead)
        dead.is_fit = False
        assert rig.pool.take() is good
        assert dead.is_aborted

    async def test_one_that_is_used_up_does_not_come_back(self) -> None:
        rig = Rig(limit=1)
        used = await rig.opened()
        used.is_fit = False
        rig.pool.put(used)
        assert (rig.pool.take(), used.is_aborted) == (None, True)
        assert await rig.pool.place() is None

    async def test_lost_one_is_dropped_at_once_and_leaves_its_place(self) -> None:
        rig = Rig(limit=1)
        one = await rig.opened()
        rig.pool.put(one)
        rig.pool.lost(one)
        assert (rig.pool.idle_count, rig.pool.take()) == (0, None)
        assert await rig.pool.place() is None

    async def test_each_expires_at_its_own_time(self) -> None:
        rig = Rig()
        old, young = await rig.opened(), await rig.opened()
        rig.pool.put(old)
        rig.timers.advance(10.0)
        rig.pool.put(young)
        rig.timers.advance(KEEP_ALIVE_S - 9.9)
        assert (old.is_aborted, young.is_aborted) == (True, False)
        rig.timers.advance(10.0)
        assert young.is_aborted
        assert rig.timers.waiting == []

    async def test_one_that_expired_while_the_process_stood_still_is_not_taken(self) -> None:
        rig = Rig()
        one = await rig.opened()
        rig.pool.put(one)
        rig.timers.now_s += KEEP_ALIVE_S + 1
        assert rig.pool.take() is None
        assert one.is_aborted

    async def test_use_starts_the_time_anew(self) -> None:
        rig = Rig()
        one = await rig.opened()
        for _ in range(5):
            rig.pool.put(one)
            rig.timers.advance(KEEP_ALIVE_S - 1)
            assert rig.pool.take() is one

    async def test_idle_ones_can_be_dropped(self) -> None:
        rig = Rig(limit=2)
        idle, busy = await rig.opened(), await rig.opened()
        rig.pool.put(idle)
        rig.pool.drop_idle()
        assert (idle.is_aborted, busy.is_aborted, rig.pool.idle_count) == (True, False, 0)
        assert await rig.pool.place() is None


class TestLine:
    async def test_first_in_line_gets_what_comes_back(self) -> None:
        rig = Rig(limit=1)
        one = await rig.opened()
        first, second = (asyncio.create_task(rig.pool.place()) for _ in range(2))
        await _turn()
        rig.pool.put(one)
        assert rig.pool.take() is None  # not for one who comes by
        assert await first is one
        assert not second.done()
        rig.pool.put(one)
        assert await second is one

    async def test_place_of_a_broken_one_goes_to_the_line(self) -> None:
        rig = Rig(limit=1)
        one = await rig.opened()
        waiting = asyncio.create_task(rig.pool.place())
        await _turn()
        one.is_fit = False
        rig.pool.put(one)
        assert await waiting is None

    @pytest.mark.parametrize("is_given", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("comes_back", [False, True], ids=["place", "connection"])
    async def test_who_is_cancelled_in_line_takes_nothing_along(
        self, is_given: bool, comes_back: bool
    ) -> None:
        rig = Rig(limit=1)
        one = await rig.opened()
        one.is_fit = comes_back
        leaving, staying = (asyncio.create_task(rig.pool.place()) for _ in range(2))
        await _turn()
        if is_given:
            rig.pool.put(one)
            leaving.cancel()
        else:
            leaving.cancel()
            await _turn()
            rig.pool.put(one)
        assert await staying is (one if comes_back else None)
        assert leaving.cancelled()

    async def test_places_are_neither_lost_nor_made_up(self) -> None:
        rig = Rig(limit=3)
        held = [await rig.opened() for _ in range(3)]
        waiting = [asyncio.create_task(rig.pool.place()) for _ in range(9)]
        await _turn()
        for task in waiting[::2]:
            task.cancel()
        for one in held:
            one.is_fit = False
            rig.pool.put(one)
        await _turn()
        assert sum(task.done() and not task.cancelled() for task in waiting) == 3
        rig.pool.free()
        await _turn()
        assert all(task.done() for task in waiting)

    async def test_close_ends_the_wait(self) -> None:
        rig = Rig(limit=1)
        await rig.opened()
        waiting = asyncio.create_task(rig.pool.place())
        await _turn()
        rig.pool.close(ConnectionError("closed"))
        with pytest.raises(ConnectionError):
            await waiting
        assert rig.timers.waiting == []
