import io
import threading

from rich.console import Console

from batchllm.cli.progress import Rates, _View, panel, remaining_time
from batchllm.events import LaneStats, RunStats


def drawn(stats: RunStats, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(_View(stats, "classify").draw(10.0))
    return capture.get()


def test_the_panel_shows_each_lane_with_its_state() -> None:
    lane = LaneStats(
        "swift", "groq", "gpt-oss", answered=12, in_flight=4, state="resting", reason="HTTP [500]", rpm=900
    )
    text = drawn(RunStats(total=100, ok=12, lanes=[lane], phase="running"))
    assert "12 of 100" in text
    assert any(row.split()[:2] == ["lane", "model"] for row in text.splitlines())
    assert "swift" in text
    assert "900" in text
    assert "resting: HTTP [500]" in text


def test_eighty_columns_are_enough() -> None:
    lane = LaneStats(
        "a-rather-long-lane-name", "openai", "gpt-4.1-nano-2025-04-14", answered=1_000_000, rpm=30_000
    )
    text = drawn(RunStats(total=10_000_000, ok=1_000_000, lanes=[lane], phase="running"), width=80)
    assert all(len(row) <= 80 for row in text.splitlines())
    assert "1,000,000 of 10,000,000" in text


def test_rates_are_those_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.note(0.0, 0) == 0.0
    assert rates.note(1.0, 50) == 50.0
    for second in range(2, 40):
        rate = rates.note(float(second), 50)
    assert rate == 0.0


def test_time_left_is_said_as_people_say_it() -> None:
    assert [
        remaining_time(*case) for case in ((0, 5.0), (10, 0.0), (50, 1.0), (600, 1.0), (72_000, 5.0))
    ] == [
        "done",
        "waiting",
        "50 s left",
        "10 min left",
        "4.0 h left",
    ]


def test_sixty_four_lanes_no_rows_and_evil_names_are_drawn() -> None:
    lanes = [LaneStats(f"l{n}\x1b[2J", "p", "m\u202e" * 200, reason="\x07\n") for n in range(64)]
    stats = RunStats(lanes=lanes, last_failures=["row 0: \x1b]0;title\x07 bad\nline"])
    text = drawn(stats)
    assert sum(row.startswith("l") for row in text.splitlines()) == 64 + 1
    assert all(row.isprintable() for row in text.splitlines())
    assert "0 of 0" in text


class HungUp(io.StringIO):
    """A terminal that is gone."""

    def write(self, _text: str) -> int:
        raise OSError(5, "Input/output error")

    flush = close = lambda self: None  # type: ignore[assignment] # nothing is left to do


def test_a_terminal_that_hangs_up_does_not_end_the_run_that_it_shows() -> None:
    console = Console(file=HungUp(), force_terminal=True, width=80)
    with panel(RunStats(total=5), "classify", console=console, refresh_s=0.001):
        threads = [thread for thread in threading.enumerate() if thread.name == "batchllm-panel"]
        for thread in threads:
            thread.join(10)
    assert [thread.is_alive() for thread in threads] in ([], [False])


def test_a_line_that_is_said_stands_above_the_panel() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with panel(RunStats(total=5), "classify", console=console, refresh_s=0.001) as say:
        say("waiting for 3 calls [in flight]")
    assert "waiting for 3 calls [in flight]" in out.getvalue()
