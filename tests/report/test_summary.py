from dataclasses import replace

from batchllm.report.summary import LaneSummary, RunSummary, as_mapping, line, money, page

LANE = LaneSummary(
    "swift", "simulator", "swift-1", True, 270, 260, 3, 7, 31_204, 2_080, 0.0052, 0.142, "running", ""
)
DONE = RunSummary(
    job="classify",
    exit_code=0,
    ending="",
    remedy="",
    is_complete=True,
    is_simulated=True,
    rows=260,
    units=260,
    ok=260,
    failed=0,
    reused=0,
    failed_before=0,
    pending=0,
    prompt_tokens=31_204,
    completion_tokens=2_080,
    cost_usd=0.0052,
    spent_usd=0.0052,
    seconds=14.2,
    output="out/classify",
    python=".venv/bin/python",
    lanes=(LANE,),
)


def test_the_page_says_counts_tokens_cost_and_how_to_read_it() -> None:
    text = page(DONE)
    for part in (
        "answers of simulated providers",
        "260 of 260 answered, 0 failed",
        "31,204 in, 2,080 out",
        "$0.005200 (simulated)",
        "14.2 s, 18.3 a second",
        ".venv/bin/python -c \"import polars; print(polars.read_parquet('out/classify/output/*.parquet'))\"",
        "duckdb -c \"FROM 'out/classify/output/*.parquet'\"",
    ):
        assert part in text


def test_the_line_is_one_line() -> None:
    assert "\n" not in line(DONE)
    assert "260 of 260 answered" in line(DONE)


def test_an_unknown_cost_is_never_zero() -> None:
    assert money(None) == "unknown"
    assert "unknown" in page(replace(DONE, cost_usd=None))
    assert as_mapping(replace(DONE, cost_usd=None))["cost_usd"] is None


def test_money_shows_as_many_places_as_it_needs() -> None:
    assert [money(usd) for usd in (0, 0.000012, 0.0123, 1.5, 1234.567)] == [
        "$0.00",
        "$0.000012",
        "$0.0123",
        "$1.50",
        "$1,234.57",
    ]


def test_reused_answers_and_spending_over_all_runs_are_said() -> None:
    text = page(replace(DONE, ok=60, reused=200, spent_usd=0.05))
    assert "260 of 260 answered (200 of them by an earlier run)" in text
    assert "$0.0500 over all runs" in text


def test_failures_come_with_their_classes_and_the_last_messages() -> None:
    stopped = replace(
        DONE,
        exit_code=3,
        ok=258,
        failed=2,
        failures_by_class={"input": 1, "truncated": 1},
        last_failures=("row 7: not JSON",),
    )
    assert "1 input, 1 truncated" in page(stopped)
    assert "row 7: not JSON" in page(stopped)


def test_a_stop_says_why_and_what_to_do() -> None:
    stopped = replace(
        DONE, exit_code=4, is_complete=False, pending=100, ending="the budget is spent", remedy="raise it"
    )
    assert "stopped: the budget is spent" in page(stopped)
    assert "raise it" in page(stopped)
    assert "100 not asked yet" in page(stopped)
    assert as_mapping(stopped)["resumable"] is True


def test_foreign_text_cannot_steer_the_terminal() -> None:
    evil = "a\x1b[2J\x07\u202eb\nc"
    lane = replace(LANE, name=evil, model=evil, state="dead", reason=evil)
    shown = page(
        replace(
            DONE, lanes=(lane,), ending=evil, remedy=evil, notes=(evil,), last_failures=(evil,), output=evil
        )
    )
    assert all(row.isprintable() for row in shown.split("\n"))
    assert len(shown.splitlines()) == len(page(replace(DONE, remedy="x", notes=("x",))).splitlines())
    assert line(replace(DONE, output=evil)).isprintable()
    assert "日本語　ok" in line(replace(DONE, output="日本語　ok"))


def test_long_names_and_many_lanes_keep_the_table_in_shape() -> None:
    lanes = tuple(replace(LANE, name=f"{n}-{'n' * 500}", model="m" * 500) for n in range(64))
    rows = page(replace(DONE, lanes=lanes)).splitlines()
    assert max(len(row) for row in rows) < 160
    assert sum("-nnn" in row for row in rows) == 64


def test_no_rows_at_all_is_a_summary_too() -> None:
    empty = replace(
        DONE, rows=0, units=0, ok=0, lanes=(), prompt_tokens=0, completion_tokens=0, cost_usd=0.0, seconds=0.0
    )
    assert "0 of 0 answered" in line(empty)
    assert "0 of 0 answered" in page(empty)


def test_what_is_not_complete_can_be_resumed() -> None:
    assert as_mapping(replace(DONE, is_complete=False))["resumable"] is True
    assert as_mapping(DONE)["resumable"] is False


def test_the_time_to_the_first_token_is_told_where_answers_came_as_streams() -> None:
    streamed = replace(LANE, ttft_s={0.5: 0.312, 0.95: 0.9, 0.99: 1.234})
    summary = replace(DONE, lanes=(streamed, replace(LANE, name="whole")))
    told = as_mapping(summary)["lanes"]
    assert [lane["ttft_s"] for lane in told] == [{"p50": 0.312, "p95": 0.9, "p99": 1.234}, None]  # type: ignore[attr-defined]
    rows = page(summary).splitlines()
    (head, first, second) = next(rows[at : at + 3] for at, row in enumerate(rows) if "first token" in row)
    assert first.split()[-3:] == ["0.31", "1.23", "$0.005200"]
    assert second.split()[-3:] == ["-", "-", "$0.005200"]
    assert len(head.rpartition("cost")[0]) == len(first.rpartition("$")[0])
    assert "first token" not in page(DONE)
