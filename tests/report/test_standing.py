"""Lock, heartbeat and manifest → how an output stands."""

from dataclasses import replace
from typing import Any

import pytest

from batchllm.errors import ExitCode
from batchllm.journal.heartbeat import Beat, LaneBeat
from batchllm.journal.lock import Holder
from batchllm.journal.manifest import Manifest
from batchllm.report.standing import Now, Seen, Standing, age_of, standing
from batchllm.report.status import as_mapping, as_text, span

STARTED, WRITTEN = 1_700_000_000.5, 1_700_000_100.0
BEAT = Beat(
    job="classify",
    version="0.1.0",
    pid=7,
    host="here",
    boot="boot",
    started=STARTED,
    state="running",
    since=STARTED,
    written=WRITTEN,
    written_s=500.0,
    turned_s=499.5,
    total=1_000,
    ok=200,
    failed=3,
    rate=2.0,
    left_s=398.5,
    cost_usd=0.01,
    spent_usd=0.5,
    in_flight=4,
)
HELD = Holder(7, "here", STARTED)
MANIFEST = Manifest(
    job_name="classify", version="0.1.0", complete=True, simulated=False, slots=1, rows=1_000, ok=1_000,
    failed=0, pending=0, attempts=1_000, uncertain=0, prompt_tokens=1, completion_tokens=1, cost_usd=0.5,
    fingerprint="f", sections={}, input_digest=None, lanes=(), parts={}, created="c", updated="2026-01-01T00:00:00Z",
)  # fmt: skip
PARTIAL = replace(MANIFEST, complete=False, ok=200, failed=3, pending=797)


def now(seconds: float, **other: Any) -> Now:
    """So long after the heartbeat."""
    return Now(WRITTEN + seconds, 500.0 + seconds, "boot", "here")._replace(**other)


def found(
    beat: Beat | None = BEAT,
    holder: Holder | None = HELD,
    manifest: Manifest | None = None,
    *,
    after_s: float = 2.0,
    **seen: Any,
) -> Standing:
    return standing(Seen("out", holder, beat, manifest, **seen), now(after_s))


def ended(code: ExitCode, state: str, **more: Any) -> Beat:
    return replace(BEAT, state=state, code=int(code), **more)


@pytest.mark.parametrize(
    "state", ["starting", "running", "waiting", "paused", "draining", "writing", "agreeing"]
)
def test_a_run_with_a_young_heartbeat_is_well_whatever_it_does(state: str) -> None:
    until = WRITTEN + 3_600
    one = found(replace(BEAT, state=state, until=until, reason="r"))
    assert (one.state, one.code, one.is_active, one.until, one.reason) == (state, 0, True, until, "r")
    assert one.age_s == 2.0


def test_a_heartbeat_that_is_too_old_of_a_holder_is_a_stall() -> None:
    assert found(after_s=59).state == "running"
    one = found(after_s=61)
    assert (one.state, one.code, one.is_active) == ("stalled", 1, True)
    assert one.since == WRITTEN
    assert "kill -QUIT 7" in one.remedy


@pytest.mark.parametrize(
    ("letter", "says"), [("T", "kill -CONT 7"), ("D", "the disk of the output"), ("S", "-QUIT")]
)
def test_a_stall_says_what_the_system_knows_of_the_process(letter: str, says: str) -> None:
    assert says in found(after_s=61, process=letter).remedy


def test_a_loop_that_does_not_turn_is_a_stall_although_the_heart_beats() -> None:
    one = found(replace(BEAT, turned_s=440.0))
    assert (one.state, one.code) == ("stalled", 1)
    assert "has not turned for 62 s" in one.reason
    assert one.since == WRITTEN - 60
    assert found(replace(BEAT, turned_s=445.0)).state == "running"
    assert found(replace(BEAT, turned_s=None)).state == "running"


def test_outcomes_that_nobody_commits_are_a_stall() -> None:
    one = found(replace(BEAT, unsaved=12, unsaved_s=61.0))
    assert (one.state, one.code) == ("stalled", 1)
    assert "12 outcomes" in one.reason
    assert found(replace(BEAT, unsaved=12, unsaved_s=59.0)).state == "running"


@pytest.mark.parametrize("after_s", [0.0, 5.0, 1e6])
def test_a_free_lock_under_a_run_that_has_not_ended_is_a_kill(after_s: float) -> None:
    one = found(holder=None, manifest=PARTIAL, after_s=after_s)
    assert (one.state, one.code, one.is_active, one.is_complete) == ("killed", 75, False, False)
    assert one.counts.ok == 200
    assert "pid 7" in one.reason
    assert "goes on" in one.remedy


def test_a_machine_that_was_started_anew_is_named() -> None:
    seen = Seen("out", None, BEAT, None)
    assert "started anew" in standing(seen, now(5, boot="other")).reason


def test_on_a_shared_disk_whose_lock_does_not_travel_a_young_heartbeat_of_another_machine_is_one() -> None:
    seen = Seen("out", None, BEAT, None)
    there = {"boot": "other", "host": "there", "monotonic_s": 3.0}
    assert standing(seen, now(5, **there)).state == "running"
    assert standing(seen, now(61, **there)).state == "killed"


def test_a_clock_that_was_set_ages_no_heartbeat_of_this_machine() -> None:
    assert age_of(BEAT, now(5, wall=WRITTEN + 86_400)) == 5
    assert age_of(BEAT, now(5, wall=0.0)) == 5
    assert age_of(BEAT, now(5, boot="other")) == 5
    assert age_of(BEAT, now(5, boot="other", wall=0.0)) == 0
    assert age_of(replace(BEAT, boot=""), now(5, boot="", monotonic_s=9e9)) == 5


@pytest.mark.parametrize("holder", [Holder(8, "here", STARTED), Holder(7, "here", STARTED + 1), Holder()])
def test_another_holder_than_who_wrote_the_heartbeat_is_another_command(holder: Holder) -> None:
    one = found(holder=holder, manifest=MANIFEST, after_s=1e6)
    assert (one.state, one.code, one.is_active) == ("busy", 0, True)
    assert one.pid == holder.pid


def test_a_holder_without_any_heartbeat_is_another_command() -> None:
    assert found(beat=None).state == "busy"


def test_a_run_that_is_done_has_the_counts_of_the_manifest() -> None:
    one = found(ended(ExitCode.OK, "done", total=0, ok=0), None, MANIFEST)
    assert (one.state, one.code, one.is_complete, one.counts.ok) == ("done", 0, True, 1_000)
    assert (one.remedy, one.lanes, one.in_flight) == ("", (), 0)


def test_failed_rows_are_told_and_are_no_illness() -> None:
    manifest = replace(MANIFEST, ok=990, failed=10)
    one = found(ended(ExitCode.ROWS_FAILED, "done"), None, manifest)
    assert (one.code, one.ended_code, one.reason) == (0, 3, "10 rows failed")
    assert "--retry-failed" in one.remedy


def test_a_run_of_the_first_rows_leaves_others() -> None:
    one = found(ended(ExitCode.OK, "done", total=203), None, PARTIAL)
    assert (one.state, one.code, one.is_complete) == ("done", 75, False)
    assert "more rows" in one.reason


@pytest.mark.parametrize(
    ("ending", "state", "code"),
    [
        (ExitCode.LIMIT_STOPPED, "stopped", 75),
        (ExitCode.INTERRUPTED, "stopped", 75),
        (ExitCode.TERMINATED, "stopped", 75),
        (ExitCode.HANGUP, "stopped", 75),
        (ExitCode.UNAVAILABLE, "failed", 75),
        (ExitCode.NO_PERMISSION, "failed", 75),
        (ExitCode.IO, "failed", 75),
        (ExitCode.CONFIG, "failed", 1),
        (ExitCode.DATA, "failed", 1),
        (ExitCode.NO_INPUT, "failed", 1),
        (ExitCode.CANT_CREATE, "failed", 1),
        (ExitCode.SOFTWARE, "failed", 1),
        (ExitCode.BUG, "failed", 1),
    ],
)
def test_an_end_that_the_same_command_mends_is_no_fault(ending: ExitCode, state: str, code: int) -> None:
    one = found(ended(ending, state), None, PARTIAL)
    assert (one.state, one.code, one.ended_code, one.is_active) == (state, code, int(ending), False)
    assert one.reason
    assert one.remedy


def test_a_run_that_failed_in_the_middle_has_its_own_counts_and_one_that_failed_at_once_the_manifest_s() -> (
    None
):
    assert found(ended(ExitCode.IO, "failed", ok=500), None, PARTIAL).counts.ok == 500
    assert found(ended(ExitCode.CONFIG, "failed", ok=0, failed=0, total=0), None, PARTIAL).counts.ok == 200


def test_without_a_heartbeat_the_manifest_tells() -> None:
    done, rest, none = found(None, None, MANIFEST), found(None, None, PARTIAL), found(None, None, None)
    assert (done.state, done.code, done.job) == ("done", 0, "classify")
    assert (rest.state, rest.code) == ("idle", 75)
    assert (none.state, none.code) == ("new", 75)


def nested(beat: Beat | None, holder: Holder | None) -> Seen:
    return Seen("out/consensus/judged", holder, beat, None)


def test_a_stall_of_a_nested_run_is_one_of_the_whole() -> None:
    judged = nested(replace(BEAT, turned_s=400.0, job="classify-judged"), HELD)
    one = found(replace(BEAT, state="agreeing", turned_s=None), nested=(judged,))
    assert (one.state, one.code) == ("stalled", 1)
    assert [each.job for each in one.nested] == ["classify-judged"]


def test_of_nested_runs_those_at_work_are_told_and_none_that_has_ended() -> None:
    done = nested(ended(ExitCode.OK, "done"), None)
    work = nested(BEAT, HELD)
    one = found(replace(BEAT, state="agreeing"), nested=(done, work))
    assert [each.state for each in one.nested] == ["running"]
    assert found(ended(ExitCode.OK, "done"), None, MANIFEST, nested=(done,)).nested == ()


LANES = (
    LaneBeat("swift", "running", in_flight=24, at_once=1_000, rpm=3_000, answered=265),
    LaneBeat(
        "slow", "waiting", "the provider asked for silence", WRITTEN + 3_602, 0, 4, None, None, 15, 1, 5
    ),
)


def page(one: Standing) -> str:
    return as_text(one, now(2))


def test_the_page_tells_state_rows_rate_money_and_each_lane() -> None:
    text = page(found(replace(BEAT, lanes=LANES, budget_usd=3.0, reserved_usd=0.25, more_lanes=2)))
    assert text.startswith("classify: running for 2 min\n")
    assert "203 of 1,000 (20.3%): 200 answered, 3 failed" in text
    assert "2.0/s in the last minute, 7 min left; 4 calls in flight" in text
    assert "$0.5000 of $3.00 spent, $0.2500 reserved" in text
    assert "last heartbeat 2 s ago" in text
    assert "waiting: the provider asked for silence, until 23:15:02 UTC, in 60 min" in text
    assert "and 2 more lanes" in text
    assert len(text.encode()) < 2_000


def test_the_page_of_a_kill_tells_why_and_what_to_do_and_no_lane() -> None:
    text = page(found(replace(BEAT, lanes=LANES, budget_usd=3.0, reserved_usd=0.25), None))
    assert text.startswith("classify: was killed at most 2 s ago")
    assert "goes on where it was" in text
    assert "swift" not in text
    assert "in flight" not in text


def test_the_page_of_what_is_complete_is_short() -> None:
    text = page(found(ended(ExitCode.OK, "done"), None, MANIFEST))
    assert text.startswith("classify: complete")
    assert "1,000 of 1,000 (100.0%): 1,000 answered" in text
    assert len(text.splitlines()) == 4


def test_nothing_in_the_page_moves_a_cursor() -> None:
    text = page(found(replace(BEAT, job="a\x1b[2J", lanes=(replace(LANES[0], name="b\x1b[2J"),)), HELD))
    assert "\x1b" not in text


def test_machines_get_one_object_with_nulls_for_what_is_not_known() -> None:
    said = as_mapping(found(replace(BEAT, lanes=LANES)), now(2))
    assert (said["type"], said["state"], said["healthy"], said["code"]) == ("status", "running", True, 0)
    assert said["rows"] == {
        "total": 1_000, "done": 203, "ok": 200, "failed": 3, "skipped": 0, "answers_per_row": 1
    }  # fmt: skip
    assert said["cost_usd"] == {"this_run": 0.01, "spent": 0.5, "budget": None, "reserved": None}
    lanes = said["lanes"]
    assert isinstance(lanes, list)
    assert (lanes[1]["until"], lanes[1]["rpm"]) == ("2023-11-14T23:15:02.000Z", None)
    assert as_mapping(found(after_s=61), now(61))["healthy"] is False


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5_399, "90 min"),
        (7_200, "2.0 h"),
        (200_000, "2 days"),
        (-3, "0 s"),
    ],
)
def test_spans_are_told_as_people_tell_them(seconds: float, text: str) -> None:
    assert span(seconds) == text
