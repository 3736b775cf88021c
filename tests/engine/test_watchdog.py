"""The pulse decides with times that are handed in; one real loop is held up to see what is printed."""

import asyncio
import time
from pathlib import Path

from batchllm.engine.watchdog import Pulse, watching_loop


def looks(pulse: Pulse, start: int, end: int) -> list[bool]:
    return [pulse.look(float(second)) for second in range(start, end)]


def test_a_loop_that_beats_is_never_told() -> None:
    pulse = Pulse(0.0, 60.0)
    for second in range(1, 200):
        pulse.beat(second)
        assert not pulse.look(second)


def test_a_loop_that_stands_still_is_told_once() -> None:
    pulse = Pulse(0.0, 60.0)
    told = looks(pulse, 1, 200)
    assert told.index(True) == 59
    assert sum(told) == 1


def test_a_process_that_was_stopped_is_no_loop_that_stands_still() -> None:
    pulse = Pulse(0.0, 60.0)
    assert not any(looks(pulse, 1, 3))
    assert not pulse.look(3600.0)
    assert not any(looks(pulse, 3601, 3650))
    assert any(looks(pulse, 3650, 3670))


async def test_what_holds_the_loop_up_is_printed_by_name(tmp_path: Path) -> None:
    said: list[str] = []

    def the_culprit() -> None:
        while not said:
            time.sleep(0.05)  # on the loop, which is the point
        time.sleep(0.3)

    with (tmp_path / "log").open("w+") as log:
        with watching_loop(asyncio.get_running_loop(), say=said.append, stuck_s=0.2, file=log):
            the_culprit()
        log.seek(0)
        text = log.read()
    assert "nothing has moved for" in said[0]
    assert "the_culprit" in text
    assert len(said) == 1
