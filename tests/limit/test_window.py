import asyncio

from batchllm.limit.window import FIRST_CALLS, Window
from batchllm.testing import run_virtual


def test_a_window_lets_in_what_it_has_room_for() -> None:
    async def main() -> list[int]:
        window, seen = Window(3), []

        async def call() -> None:
            seen.append(window.in_flight)
            await asyncio.sleep(1)
            window.land()
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


def answer(window: Window, now_s: float) -> None:
    """One call goes and comes back while the window is as full as it gets."""
    while window.has_room:
        window.enter()
    window.land()
    window.leave()
    window.note_answer(now_s)


def test_a_window_that_knows_nothing_doubles_with_each_round_of_answers() -> None:
    window = Window(1_000, usual=64, first=FIRST_CALLS)
    sizes = []
    for round_s in range(4):
        for _ in range(window.size):
            answer(window, float(round_s))
        sizes.append(window.size)
    assert sizes == [8, 16, 32, 64]


def test_it_opens_when_the_rate_is_known() -> None:
    window = Window(1_000, usual=64, first=4)
    window.open_up()
    assert window.size == 1_000


def serve(window: Window, *, most_a_second: float, seconds: int) -> None:
    """A server that queues what it is sent: more at once brings no more answers."""
    for second in range(seconds):
        rate = min(most_a_second, float(window.size))
        for number in range(int(rate)):
            answer(window, second + number / rate)


def test_beyond_what_is_usual_it_grows_only_while_that_brings_more_answers() -> None:
    queueing, scaling = Window(1_000, usual=64, first=64), Window(1_000, usual=64, first=64)
    serve(queueing, most_a_second=64.0, seconds=120)
    serve(scaling, most_a_second=1e9, seconds=120)
    assert queueing.size <= 64 * 1.3
    assert scaling.size > 300


def test_what_the_provider_takes_at_once_is_learned_and_tried_again_now_and_then() -> None:
    window = Window(1_000, usual=64, first=64)
    window.note_refused(21, 0.0)
    assert window.learned == 20
    answer(window, 1.0)
    assert window.learned == 20
    answer(window, 3.0)
    assert window.learned == 21
    window.note_refused(21, 3.1)
    answer(window, 6.0)
    assert (window.learned, window.stands) == (20, 20), "a number that stands is held longer"
    answer(window, 8.0)
    assert window.learned == 21


def test_calls_that_hang_do_not_hold_the_places_for_ever() -> None:
    async def main() -> bool:
        window = Window(10, usual=10)
        window.enter()
        window.enter()
        window.note_refused(3, 0.0)
        await window.room()
        return window.has_room

    assert run_virtual(main())


def test_a_window_that_hears_nothing_grows_by_itself() -> None:
    """The first answers of a provider may take many seconds; a refusal would come at once."""

    async def main() -> tuple[float, int]:
        window = Window(1_000, usual=64, first=4)
        while window.in_flight < 64:
            await window.room()
            window.enter()
        return asyncio.get_running_loop().time() - 1_000.0, window.size

    took_s, size = run_virtual(main())
    assert size == 64
    assert took_s < 5.0
