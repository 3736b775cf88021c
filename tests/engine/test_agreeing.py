"""What a run's answers agree on, end to end over simulated lanes."""

import json
from pathlib import Path
from typing import Any

import job_rig
import polars as pl
import pytest
import voting_rig as rig
from server_rig import Say, Seen, refusal, scripted

from batchllm.errors import ExitCode, InputMissingError, JobError
from batchllm.journal import read_manifest
from batchllm.report.summary import trouble

THREE = [rig.letters("swift", 0), rig.letters("wide", 1), rig.letters("deep", 2)]
TEXTS = {"all": "+++", "two": "++-", "none": "---", "hole": "+-?", "holes": "+??"}


def run(folder: Path, consensus: dict[str, Any], lanes: Any = THREE, texts: Any = None, **more: Any) -> Any:
    rig.rows(folder, texts or TEXTS)
    return job_rig.run(folder, rig.job(folder, lanes, consensus, **more))


def test_majority_decides_with_its_reasons(tmp_path: Path) -> None:
    summary = run(tmp_path, {})
    assert summary.exit_code == ExitCode.ROWS_FAILED
    assert rig.by_id(tmp_path, "consensus") == {
        "all": "pos",
        "two": "pos",
        "none": "neg",
        "hole": None,
        "holes": None,
    }
    assert rig.by_id(tmp_path, "status") == {
        "all": "decided",
        "two": "decided",
        "none": "decided",
        "hole": "tied",
        "holes": "too_few",
    }
    reasons = rig.by_id(tmp_path, "reason")
    assert reasons["two"] == "2 of 3 votes for pos"
    assert reasons["hole"] == "of 2 votes 1 for pos, 1 for neg; deep failed (schema_mismatch)"
    assert reasons["holes"].startswith("1 of 3 votes where 2 are needed; wide failed (schema_mismatch)")
    assert rig.told(tmp_path)["counts"] == {
        "decided": 3,
        "tied": 1,
        "undecided": 0,
        "too_few": 1,
        "pending": 0,
    }
    assert (tmp_path / "out" / "report.html").is_file()
    assert summary.agreement[0] == ("consensus", "3 of 5 rows decided, 1 tied, 1 with too few votes")


def test_the_table_has_each_vote_with_its_state_and_what_the_row_cost(tmp_path: Path) -> None:
    run(tmp_path, {})
    lines = rig.table(tmp_path).rows(named=True)
    assert [line["row"] for line in lines] == list(range(5))
    assert lines[3]["votes"] == [
        {"voter": "swift", "value": "pos", "state": "cast"},
        {"voter": "wide", "value": "neg", "state": "cast"},
        {"voter": "deep", "value": None, "state": "failed"},
    ]
    assert lines[3]["leading"] == ["pos", "neg"]
    usage = job_rig.table(tmp_path, "usage").group_by("row").agg(pl.col("cost_usd").sum()).sort("row")
    assert [line["cost_usd"] for line in lines] == pytest.approx(usage.get_column("cost_usd").to_list())


@pytest.mark.parametrize(
    ("rule", "two", "hole"),
    [
        ({"rule": "plurality"}, "pos", None),
        ({"rule": "unanimous"}, None, None),
        ({"rule": {"at_least": 2}}, "pos", None),
        ({"rule": "weighted", "weights": {"swift": 1, "wide": 1, "deep": 3}}, "neg", None),
        ({"ties": "first", "priority": ["wide"]}, "pos", "neg"),
    ],
)
def test_each_rule_decides_as_it_says(
    tmp_path: Path, rule: dict[str, Any], two: str | None, hole: str | None
) -> None:
    run(tmp_path, rule)
    found = rig.by_id(tmp_path, "consensus")
    assert (found["two"], found["hole"]) == (two, hole)


def test_gold_measures_voters_and_consensus(tmp_path: Path) -> None:
    rig.rows(tmp_path, TEXTS, gold=["pos", "neg", "neg", "pos", "meh"])
    job_rig.run(
        tmp_path,
        rig.job(
            tmp_path,
            THREE,
            {"gold": "gold", "resamples": 0},
            output={"path": str(tmp_path / "out"), "carry": ["gold"]},
        ),
    )
    told = rig.told(tmp_path)
    assert told["consensus"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert told["gold"] == {"known": 4, "missing": 0, "outside": 1}
    assert told["notes"] == ["gold: 1 value is none that a vote can have: 'meh'"]
    assert rig.by_id(tmp_path, "correct") == {
        "all": True,
        "two": False,
        "none": True,
        "hole": None,
        "holes": None,
    }
    assert rig.by_id(tmp_path, "gold")["two"] == "neg"


def test_numbers_have_a_median(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"stars": {"type": "number"}}, "required": ["stars"]}
    lanes = [rig.lane(name, (".", {"stars": stars})) for name, stars in (("a", 1), ("b", 4), ("c", 10))]
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 30}, "schema": schema}
    run(tmp_path, {"rule": "median"}, lanes, {"x": "x"}, task=task)
    assert rig.table(tmp_path).select("consensus", "leading", "reason").rows() == [
        (4.0, [4.0], "the median of 3 votes is 4")
    ]
    run(tmp_path, {"rule": {"trimmed_mean": 0.0}}, lanes, {"x": "x"}, task=task)
    assert rig.by_id(tmp_path, "consensus") == {"x": 5.0}


def test_answers_of_which_none_is_a_vote_are_kept_and_told(tmp_path: Path) -> None:
    """What the schema tells is told before; of free texts it is known once they are there, and paid for."""
    lanes = [rig.lane(name, (".", "many stars")) for name in "ab"]
    for _ in range(2):
        task = {"type": "chat", "prompt": "{{ text }}"}
        summary = run(tmp_path, {"kind": "number"}, lanes, {"x": "x"}, task=task)
        told = "consensus: the column 'content' holds no number votes: its first value is 'many stars'"
        assert summary.notes[0].startswith(told)
    assert rig.by_id(tmp_path, "status") == {"x": "too_few"}


def test_truth_values_and_sets_of_labels_keep_their_types(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["ok", "tags"],
    }
    replies = [
        {"ok": True, "tags": ["b", "a"]},
        {"ok": False, "tags": ["a"]},
        {"ok": True, "tags": ["a", "c"]},
    ]
    lanes = [rig.lane(f"l{at}", (".", reply)) for at, reply in enumerate(replies)]
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 60}, "schema": schema}
    run(tmp_path, {"over": "ok"}, lanes, {"x": "x"}, task=task)
    assert rig.by_id(tmp_path, "consensus") == {"x": True}
    run(tmp_path, {"over": "tags"}, lanes, {"x": "x"}, task=task)
    assert rig.by_id(tmp_path, "consensus") == {"x": ["a"]}


def test_samples_of_one_lane_vote_one_by_one(tmp_path: Path) -> None:
    task = {"type": "chat", "prompt": "{{ text }}"}
    lanes = [rig.lane("one", ("x", "  Yes "))]
    run(
        tmp_path,
        {"normalise": "{{ value | trim | lower }}"},
        lanes,
        {"x": "x"},
        task=task,
        samples=3,
        routing="spread",
    )
    assert rig.by_id(tmp_path, "consensus") == {"x": "yes"}
    assert [vote["voter"] for vote in rig.by_id(tmp_path, "votes")["x"]] == ["#1", "#2", "#3"]


def test_a_second_start_costs_nothing_and_leaves_the_files_alone(tmp_path: Path) -> None:
    run(tmp_path, {})
    before = (tmp_path / "out" / "consensus" / "agreement.json").stat().st_mtime_ns
    summary = run(tmp_path, {})
    assert (tmp_path / "out" / "consensus" / "agreement.json").stat().st_mtime_ns == before
    assert summary.cost_usd == 0
    assert summary.agreement
    run(tmp_path, {"rule": "unanimous"})
    assert rig.by_id(tmp_path, "status")["two"] == "undecided"


def test_the_rows_that_a_limit_left_are_pending(tmp_path: Path) -> None:
    rig.rows(tmp_path, TEXTS)
    job_rig.run(tmp_path, rig.job(tmp_path, THREE, {}), limit=2)
    status = rig.table(tmp_path).get_column("status").to_list()
    assert status == ["decided", "decided", "pending", "pending", "pending"]


ASKED = {"hole": "+-?+", "even": "+-?-", "lost": "+-??", "all": "++++"}
ESCALATE = {"ties": {"escalate": rig.letters("arbiter", 3)}}


def test_a_lane_asked_in_ties_decides_them(tmp_path: Path) -> None:
    summary = run(tmp_path, ESCALATE, texts=ASKED)
    assert rig.by_id(tmp_path, "consensus") == {"hole": "pos", "even": "neg", "lost": None, "all": "pos"}
    assert rig.by_id(tmp_path, "rule")["hole"] == "escalated"
    assert rig.by_id(tmp_path, "reason")["lost"].endswith("arbiter failed (schema_mismatch)")
    assert rig.by_id(tmp_path, "votes")["all"][3] == {"voter": "arbiter", "value": None, "state": "not_asked"}
    nested = read_manifest(tmp_path / "out" / "consensus" / "escalated")
    assert nested is not None
    assert (nested.ok, nested.failed) == (2, 1)
    assert [lane.name for lane in summary.lanes] == ["swift", "wide", "deep", "arbiter"]
    again = run(tmp_path, ESCALATE, texts=ASKED)
    assert again.cost_usd == 0


def test_a_row_that_is_not_open_any_more_keeps_what_was_paid_for_it(tmp_path: Path) -> None:
    run(tmp_path, ESCALATE, texts=ASKED)
    run(tmp_path, {**ESCALATE, "min_votes": 3}, texts=ASKED)
    run(tmp_path, ESCALATE, texts=ASKED)
    nested = read_manifest(tmp_path / "out" / "consensus" / "escalated")
    assert nested is not None
    assert nested.attempts == 4  # two answers, and two calls for the row that has none
    assert rig.by_id(tmp_path, "consensus")["hole"] == "pos"


def test_a_judge_decides_what_it_says_in_both_orders(tmp_path: Path) -> None:
    right = rig.lane(
        "judge",
        (r"A: pos", {"rationale": "r", "choice": "A"}),
        (r"B: pos", {"rationale": "r", "choice": "B"}),
    )
    run(tmp_path, {"judge": {"lane": right}}, texts={"hole": "+-?", "all": "+++"})
    assert rig.by_id(tmp_path, "consensus") == {"hole": "pos", "all": "pos"}
    assert rig.by_id(tmp_path, "rule")["hole"] == "judge"
    judge = rig.told(tmp_path)["judge"]
    assert (judge["asked"], judge["agreed"], judge["first_slot_wins"]) == (1, 1, 0.5)
    assert judge["cost_usd"] > 0


def test_a_judge_that_goes_by_the_order_leaves_a_tie(tmp_path: Path) -> None:
    first = rig.lane("judge", (r".", {"rationale": "r", "choice": "A"}))
    run(tmp_path, {"judge": {"lane": first}}, texts={"hole": "+-?", "all": "+++"})
    assert rig.by_id(tmp_path, "status") == {"hole": "tied", "all": "decided"}
    assert "judge is no vote (the verdict hangs on the order)" in rig.by_id(tmp_path, "reason")["hole"]
    judge = rig.told(tmp_path)["judge"]
    assert (judge["asked"], judge["agreed"], judge["first_slot_wins"]) == (1, 0, 1.0)


def test_a_judge_that_chooses_what_is_not_there_has_no_vote(tmp_path: Path) -> None:
    judge = rig.lane("judge", (".", {"rationale": "none is good", "choice": "H"}))
    run(tmp_path, {"judge": {"lane": judge}}, texts={"hole": "+-?"})
    line = rig.table(tmp_path).row(0, named=True)
    assert line["votes"][-1] == {"voter": "judge", "value": None, "state": "unreadable"}
    assert line["reason"].endswith("judge is no vote (it chose no candidate)")
    assert rig.told(tmp_path)["judge"]["agreed"] == 0


def test_rows_that_a_judge_gave_up_are_told_at_each_start(tmp_path: Path) -> None:
    lanes = [rig.letters("swift", 0), rig.letters("wide", 1)]
    for _ in range(2):
        judge = rig.lane("judge", (".", "no idea"))
        summary = run(tmp_path, {"judge": {"lane": judge}}, lanes, texts={"hole": "+-"})
        assert summary.exit_code == ExitCode.ROWS_FAILED
        assert "judged: 2 rows failed, see" in trouble(summary)
        assert summary.spent_usd == pytest.approx(rig.told(tmp_path)["cost"]["usd"])


def test_a_judge_may_be_asked_about_each_row_with_different_votes(tmp_path: Path) -> None:
    negative = rig.lane(
        "judge",
        (r"A: neg", {"rationale": "r", "choice": "A"}),
        (r"B: neg", {"rationale": "r", "choice": "B"}),
    )
    run(tmp_path, {"judge": {"lane": negative, "asks": "all"}}, texts={"two": "++-", "all": "+++"})
    assert rig.by_id(tmp_path, "consensus") == {"two": "neg", "all": "pos"}


def test_a_judge_s_own_prompt_sees_the_row(tmp_path: Path) -> None:
    judge = {
        "lane": rig.lane(
            "judge",
            (r"of \+-\?: pos or neg", {"rationale": "r", "choice": "A"}),
            (".", {"rationale": "r", "choice": "B"}),
        ),
        "prompt": "of {{ text }}: {{ candidates | join(' or ') }}",
    }
    run(tmp_path, {"judge": judge}, texts={"hole": "+-?"})
    assert rig.by_id(tmp_path, "consensus") == {"hole": "pos"}


def test_texts_that_mean_the_same_are_one_vote(tmp_path: Path) -> None:
    lanes = [rig.lane(name, (".", text)) for name, text in (("a", "a dog"), ("b", "a dog!"), ("c", "a cat"))]
    embed = rig.lane("vectors", dimensions=4)
    similarity = {"threshold": 0.0, "embed": embed}
    task = {"type": "chat", "prompt": "{{ text }}"}
    run(tmp_path, {"similarity": similarity, "rule": "unanimous"}, lanes, {"x": "x"}, task=task)
    nested = read_manifest(tmp_path / "out" / "consensus" / "embedded")
    assert nested is not None
    assert nested.ok == 3
    assert rig.told(tmp_path)["settings"]["kind"] == "text"


def test_a_lane_that_refuses_every_text_is_asked_at_most_twice_for_each(tmp_path: Path) -> None:
    """Packs are halved until the texts at fault stand alone; when all of the first ones are, the job is."""

    def script(seen: Seen, _: int) -> Say:
        del seen
        return Say(400, refusal("bad input"))

    texts, lanes = 15, [rig.lane(name, seed=seed) for seed, name in enumerate("abc")]
    with scripted(otherwise=script) as server:
        embed = {**job_rig.lane(server.base_url, "vectors"), "price": {"input": 1.0}}
        similarity = {"threshold": 0.9, "embed": embed, "dimensions": 2}
        summary = run(
            tmp_path,
            {"similarity": similarity},
            lanes,
            {f"r{n}": f"text {n}" for n in range(texts)},
            task={"type": "chat", "prompt": "{{ text }}"},
        )
        sizes = [len(body["input"]) for body in server.bodies()]
    assert summary.exit_code == ExitCode.CONFIG
    assert (
        summary.ending == "test-embedded: the first 20 rows were all refused as invalid: HTTP 400: bad input"
    )
    assert sizes[0] == 3 * texts
    assert 20 <= sizes.count(1) <= len(sizes) < 2 * 3 * texts
    assert summary.cost_usd == pytest.approx(read_cost(tmp_path))
    assert not (tmp_path / "out" / "consensus" / "agreement.json").exists()


def read_cost(folder: Path) -> float:
    """Of the voters alone."""
    return float(job_rig.table(folder, "usage").get_column("cost_usd").sum())


def test_the_width_of_vectors_that_no_catalogue_knows_is_the_section_s(tmp_path: Path) -> None:
    own = {"provider": "custom", "name": "own", "base_url": "http://127.0.0.1:9/v1", "model": "mine"}
    similarity = {"threshold": 0.9, "embed": own}
    task = {"type": "chat", "prompt": "{{ text }}"}
    with pytest.raises(JobError) as error:
        run(tmp_path, {"similarity": similarity}, [rig.lane("a"), rig.lane("b")], {"x": "x"}, task=task)
    assert "set consensus.similarity.dimensions to it" in str(error.value)
    lanes = [rig.lane(name, (".", name)) for name in "ab"]
    similarity = {"threshold": 0.9, "embed": rig.lane("vectors", dimensions=4), "dimensions": 4}
    run(tmp_path, {"similarity": similarity}, lanes, {"x": "x"}, task=task)
    assert job_rig.table(tmp_path, "consensus/embedded/output").get_column("embedding").dtype.shape == (4,)


def test_a_budget_holds_for_all_that_is_asked(tmp_path: Path) -> None:
    texts = {f"r{n}": "+-?+" for n in range(24)}
    whole = run(tmp_path, ESCALATE, texts=texts)
    escalated = read_manifest(tmp_path / "out" / "consensus" / "escalated")
    assert escalated is not None
    assert escalated.cost_usd is not None
    assert whole.spent_usd is not None
    folder = tmp_path / "again"
    folder.mkdir()
    budget = whole.spent_usd - escalated.cost_usd / 2
    stopped = run(folder, ESCALATE, texts=texts, budget={"usd": budget})
    assert stopped.exit_code == ExitCode.LIMIT_STOPPED
    assert stopped.ending.startswith(
        f"the budget of {budget:g} USD is spent: the next call of test-escalated"
    )
    assert not (folder / "out" / "consensus" / "agreement.json").exists()
    assert stopped.spent_usd is not None
    assert stopped.spent_usd <= budget
    done = run(folder, ESCALATE, texts=texts, budget={"usd": 1.0})
    assert done.exit_code == ExitCode.ROWS_FAILED
    assert done.spent_usd == pytest.approx(whole.spent_usd)


def test_what_is_asked_about_ties_is_asked_to_its_end_also_when_failures_are_asked_again(
    tmp_path: Path,
) -> None:
    """Nobody sees which of these rows had failed and which were not reached: they are no rows of the input."""
    texts = {f"r{n}": "+-?+" for n in range(12)}
    whole = run(tmp_path, ESCALATE, texts=texts)
    folder = tmp_path / "again"
    folder.mkdir()
    assert whole.spent_usd is not None
    nested = read_manifest(tmp_path / "out" / "consensus" / "escalated")
    assert nested is not None
    assert nested.cost_usd is not None
    budget = {"usd": whole.spent_usd - nested.cost_usd / 2}
    assert run(folder, ESCALATE, texts=texts, budget=budget).exit_code == ExitCode.LIMIT_STOPPED
    job_rig.run(folder, rig.job(folder, THREE, ESCALATE), retries_failed=True)
    again = read_manifest(folder / "out" / "consensus" / "escalated")
    assert again is not None
    assert (again.complete, again.pending) == (True, 0)
    assert again.ok > nested.ok // 2


def test_what_is_wrong_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        run(tmp_path, {"over": "labels", "priority": ["swft"], "min_votes": 4})
    text = str(error.value)
    assert "consensus.over: the answers have no column 'labels' (did you mean label?" in text
    assert "consensus.priority.0: nobody called swft votes (did you mean swift?" in text
    assert "consensus.min_votes: 4 of 3 votes" in text
    assert not (tmp_path / "out").exists()


def test_python_reads_the_consensus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import batchllm

    monkeypatch.setenv("BATCHLLM_STATE_DIR", str(tmp_path / "state"))
    rig.rows(tmp_path, TEXTS)
    result = batchllm.run(rig.job(tmp_path, THREE, {}), folder=tmp_path)
    assert result.consensus.select("consensus").collect().height == 5
    assert result.agreement["rows"] == 5
    assert json.loads(json.dumps(result.to_dict()))["consensus"]["counts"]["decided"] == 3


def test_python_says_that_there_is_no_consensus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder whose name looks like a pattern."""
    import batchllm

    monkeypatch.setenv("BATCHLLM_STATE_DIR", str(tmp_path / "state"))
    rig.rows(tmp_path, {"a": "++"})
    spec = rig.job(tmp_path, THREE[:2], {}, output={"path": "out[1]"})
    del spec["consensus"]
    result = batchllm.run(spec, folder=tmp_path)
    assert result.output.collect().height == 2
    assert result.failures.collect().height == 0
    for read in (lambda: result.consensus, lambda: result.agreement):
        with pytest.raises(InputMissingError, match="give the job a consensus section"):
            read()


def test_no_row_and_no_vote_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("", "utf-8")
    summary = job_rig.run(tmp_path, rig.job(tmp_path, THREE, {}, input={"path": "rows.jsonl"}))
    assert summary.exit_code == ExitCode.OK
    assert rig.table(tmp_path).height == 0
    assert rig.told(tmp_path)["agreement"]["alpha"]["value"] is None
    folder = tmp_path / "none"
    folder.mkdir()
    run(folder, {}, texts={"a": "???", "b": "???"})
    assert rig.by_id(folder, "status") == {"a": "too_few", "b": "too_few"}
    assert rig.told(folder)["consensus"]["accuracy"] is None


def test_one_voter_is_measured_by_gold_and_refused_without(tmp_path: Path) -> None:
    rig.rows(tmp_path, {"a": "+", "b": "-"}, gold=["pos", "pos"])
    output = {"path": str(tmp_path / "out"), "carry": ["gold"]}
    summary = job_rig.run(tmp_path, rig.job(tmp_path, THREE[:1], {"gold": "gold"}, output=output))
    assert rig.told(tmp_path)["voters"][0]["accuracy"]["value"] == 0.5
    assert any("one voter" in note for note in summary.notes)
    with pytest.raises(JobError, match="there is one voter: nothing to agree on"):
        run(tmp_path, {}, THREE[:1])


def test_vectors_agree_where_they_are_close(tmp_path: Path) -> None:
    rig.rows(tmp_path, {"a": "a dog", "b": "a cat"})
    lanes = [
        {**rig.lane(name, dimensions=4, seed=seed), "model": "vectors"}
        for name, seed in (("one", 1), ("two", 1), ("three", 2))
    ]
    task = {"type": "embedding", "text": "{{ text }}"}
    job_rig.run(tmp_path, rig.job(tmp_path, lanes, {"similarity": {"threshold": 0.999}}, task=task))
    lines = rig.table(tmp_path).rows(named=True)
    assert [line["status"] for line in lines] == ["decided", "decided"]
    assert all(line["votes_cast"] == 3 for line in lines)
    assert {line["consensus"] for line in lines} <= {"one", "two", "three"}


def test_gold_of_which_nothing_could_be_a_vote_is_another_column(tmp_path: Path) -> None:
    rig.rows(tmp_path, {"a": "+++", "b": "---"}, gold=["4 stars", "1 star"])
    output = {"path": str(tmp_path / "out"), "carry": ["gold"]}
    with pytest.raises(
        JobError, match="2 of the first 2 values of gold are none that a vote can have: '4 stars'"
    ):
        job_rig.run(tmp_path, rig.job(tmp_path, THREE, {"gold": "gold"}, output=output))


def test_new_run_puts_the_consensus_aside_with_its_record(tmp_path: Path) -> None:
    run(tmp_path, ESCALATE, texts=ASKED)
    rig.rows(tmp_path, ASKED)
    job_rig.run(tmp_path, rig.job(tmp_path, THREE, ESCALATE), new_run=True)
    nested = read_manifest(tmp_path / "out" / "consensus" / "escalated")
    assert nested is not None
    assert nested.attempts == 4
    (earlier,) = (tmp_path / "out" / ".batchllm" / "earlier").iterdir()
    assert (earlier / "consensus" / "agreement.json").is_file()
    assert (earlier / "report.html").is_file()


def test_another_judge_is_asked_anew_and_the_old_answers_are_put_aside(tmp_path: Path) -> None:
    choice = {"rationale": "r", "choice": "A"}
    texts = {"hole": "+-?"}
    run(tmp_path, {"judge": {"lane": rig.lane("judge", (".", choice))}}, texts=texts)
    run(tmp_path, {"judge": {"lane": rig.lane("other", (".", choice))}}, texts=texts)
    assert (tmp_path / "out" / "consensus" / "judged" / ".batchllm" / "earlier").is_dir()
    assert rig.told(tmp_path)["voters"][3]["name"] == "other"


def test_a_stopped_run_leaves_the_consensus_as_it_was(tmp_path: Path) -> None:
    run(tmp_path, {}, texts={"a": "+++"}, budget={"usd": 1.0})
    before = rig.told(tmp_path)
    more = {"a": "+++", "b": "++-"}
    stopped = run(tmp_path, {}, texts=more, budget={"usd": 1e-6})
    assert stopped.exit_code == ExitCode.LIMIT_STOPPED
    assert rig.told(tmp_path) == before
    assert any("`batchllm consensus" in note for note in stopped.notes)


def test_a_budget_is_each_input_s_own_once_the_one_before_has_its_consensus(tmp_path: Path) -> None:
    """A scheduled backfill must not run dry by what lanes in ties cost on earlier days."""
    first = {f"r{n}": "+-?+" for n in range(40)}
    run(tmp_path, ESCALATE, texts=first)
    escalated = read_manifest(tmp_path / "out" / "consensus" / "escalated")
    assert escalated is not None
    assert escalated.cost_usd is not None
    texts = first | {f"new{n}": "+-?+" for n in range(3)}
    summary = run(tmp_path, ESCALATE, texts=texts, budget={"usd": escalated.cost_usd})
    assert summary.exit_code == ExitCode.ROWS_FAILED, summary.ending
    assert rig.by_id(tmp_path, "consensus")["new2"] == "pos"
