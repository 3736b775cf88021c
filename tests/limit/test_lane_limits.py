import asyncio

from batchllm.limit.lane_limits import LaneLimits, Window
from batchllm.testing import LoopClock, run_virtual


def test_requests_come_at_the_told_rate_without_a_burst() -> None:
    async def main() -> list[float]:
        limits = LaneLimits(clock=LoopClock(), rpm=3_000)
        times = []
        for _ in range(500):
            await limits.admit()
            times.append(asyncio.get_running_loop().time())
        return times

    times = run_virtual(main())
    assert 9.8 <= times[-1] - times[0] <= 10.2
    assert max(sum(1 for t in times if start <= t < start + 1) for start in times) <= 53


def test_a_slow_rate_below_one_a_second_works() -> None:
    async def main() -> float:
        limits = LaneLimits(clock=LoopClock(), rpm=2)
        start_s = asyncio.get_running_loop().time()
        for _ in range(4):
            await limits.admit()
        return asyncio.get_running_loop().time() - start_s

    assert 89 <= run_virtual(main()) <= 91


def test_silence_is_the_longest_that_was_asked_for() -> None:
    async def main() -> tuple[float, float]:
        limits = LaneLimits(clock=LoopClock())
        limits.quiet(10.0)
        limits.quiet(3.0)
        before = limits.quiet_s
        await asyncio.sleep(10.0)
        return before, limits.quiet_s

    assert run_virtual(main()) == (10.0, 0.0)


def test_a_window_lets_in_what_it_has_room_for() -> None:
    async def main() -> list[int]:
        window, seen = Window(3), []

        async def call() -> None:
            seen.append(window.in_flight)
            await asyncio.sleep(1)
            window.leave()

        calls = []
        for _ in range(9):
            await window.room()
            window.enter()
            calls.append(asyncio.create_task(call()))
        await asyncio.gather(*calls)
        return seen

    seen = run_virtual(main())
    assert max(seen) == 3
    assert len(seen) == 9
