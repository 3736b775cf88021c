"""What is printed and written of outcomes."""

from benchmarks.outcomes import Check, Outcome
from benchmarks.saturation import figure, line, report
from benchmarks.scenarios import SCENARIOS
from benchmarks.tables import as_json, from_json

MET = Check("share", 0.99, low=0.98)
MISSED = Check("refused", 0.2, high=0.001)
NEVER = Check("up, s", None, high=10.0)
BARE = Check("share while slow", 0.5)


def outcome(*checks: Check) -> Outcome:
    return Outcome(3000, 2999, 0.985, 0.0004, 1.02, 0.99, checks)


def test_a_missed_figure_is_marked_with_its_bound() -> None:
    assert figure(MET) == "share 0.99 (≥ 0.98)"
    assert figure(MISSED) == "!refused 0.2 (≤ 0.001)"
    assert figure(NEVER) == "!up, s never (≤ 10)"
    assert figure(BARE) == "share while slow 0.5"


def test_an_outcome_is_one_line_marked_when_a_figure_is_missed() -> None:
    assert line("rpm_told", outcome(MET)).split()[:4] == ["rpm_told", "2,999/3,000", "0.985", "0.040%"]
    assert line("rpm_told", outcome(MET, MISSED)).startswith("!rpm_told")


def test_the_report_has_a_line_for_each_scenario_and_says_what_was_missed() -> None:
    made = report({"a": outcome(MET, NEVER), "b": outcome(MET)}, is_quick=True)
    assert [(row["scenario"], row["met"]) for row in made.rows] == [("a", False), ("b", True)]
    assert made.rows[0]["figures"] == "share 0.99 (≥ 0.98); !up, s never (≤ 10)"
    assert from_json(as_json(made)).rows[1]["answered"] == "2,999 of 3,000"
    assert "A third of the usual time." in made.notes


def test_every_scenario_says_what_it_is() -> None:
    assert [name for name, play in SCENARIOS.items() if not play.__doc__] == []
