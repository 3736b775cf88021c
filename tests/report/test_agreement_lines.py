"""agreement.json in words."""

from typing import Any

from batchllm.report.agreement import agreement_lines, agreement_page

TOLD: dict[str, Any] = {
    "job": "labels",
    "rows": 1200,
    "counts": {"decided": 1000, "tied": 150, "undecided": 0, "too_few": 50, "pending": 0},
    "voters": [
        {
            "name": "swift\x1b[2J",
            "votes": 1200,
            "missing": 0,
            "against": "gold",
            "accuracy": {"value": 0.75, "low": 0.7, "high": 0.8, "n": 100},
            "macro_f1": {"value": None, "why": "no"},
            "cost_usd": None,
        }
    ],
    "agreement": {
        "percent": {"value": 0.5, "low": None, "high": None, "n": 1200},
        "alpha": {"value": 0.25, "low": 0.2, "high": 0.3, "n": 1200},
        "cohen": [],
    },
    "consensus": {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 100}},
    "cost": {"usd": 2.0, "per_decided_usd": 0.002},
    "calls": {"made": 2400, "saved": 1200, "saved_share": 1 / 3},
    "simulated": True,
}


def test_a_summary_has_what_is_known() -> None:
    assert agreement_lines(TOLD) == (
        ("consensus", "1,000 of 1,200 rows decided, 150 tied, 50 with too few votes"),
        ("agreement", "percent 50.0%, alpha 0.250 (0.200 to 0.300)"),
        (
            "accuracy",
            "90.0% (80.0% to 100.0%) of 100 decided rows with gold; the best voter, swift\x1b[2J: 75.0% of 100",
        ),
        ("a label", "$0.002000 (simulated) for each row decided"),
    )


def test_what_has_no_value_says_why_or_nothing() -> None:
    empty = {"rows": 0, "counts": {}, "agreement": {"alpha": {"value": None, "why": "there are no votes"}}}
    assert agreement_lines(empty) == (
        ("consensus", "0 of 0 rows decided"),
        ("agreement", "none: there are no votes"),
    )


def test_the_page_lists_voters_and_files_and_moves_no_cursor() -> None:
    page = agreement_page(TOLD, "out/labels")
    assert "\x1b" not in page
    assert "calls     1,200 saved (33.3%)" in page
    assert "1,200" in page
    assert "75.0%" in page
    assert "out/labels/report.html" in page


def test_the_best_voter_is_one_that_had_all_rows() -> None:
    """A judge that is right on the two rows that it saw is not better than a lane that is right on 75 of 100."""
    swift = TOLD["voters"][0]
    sure = {"accuracy": {"value": 1.0, "low": None, "high": None, "n": 2}}
    late, skipped = {**swift, "name": "judge", "is_late": True, **sure}, {**swift, "not_asked": 9, **sure}
    for other in (late, skipped):
        lines = dict(agreement_lines({**TOLD, "voters": [other, swift]}))
        assert lines["accuracy"].endswith(
            "the best voter of those asked about every row, swift\x1b[2J: 75.0% of 100"
        )
        assert "(open rows only)" in agreement_page({**TOLD, "voters": [other, swift]}, "out")


def test_what_agreement_is_to_be_read_with_is_said() -> None:
    told = {**TOLD, "agreement": {**TOLD["agreement"], "note": "so it reads lower than it is"}}
    assert "  note: so it reads lower than it is" in agreement_page(told, "out").splitlines()


def test_votes_that_were_there_already_have_no_cost() -> None:
    page = agreement_page({**TOLD, "calls": None}, "out")
    assert "cost" not in page
    assert "macro F1  cost" in agreement_page(TOLD, "out")
