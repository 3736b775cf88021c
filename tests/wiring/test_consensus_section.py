"""What is wrong with a consensus section before anything is spent."""

from pathlib import Path
from typing import Any

import pytest
import voting_rig as rig

from batchllm.clock import SystemClock
from batchllm.errors import JobError
from batchllm.provider.overlay import open_catalogue
from batchllm.spec.loading import load_mapping
from batchllm.wiring import CheckedJob, check

ABC = [rig.letters(name, at) for at, name in enumerate("abc")]


def checked(folder: Path, consensus: dict[str, Any], lanes: Any = ABC, **more: Any) -> CheckedJob:
    rig.rows(folder, {"r1": "+++"}, gold=["pos"], status=["x"], votes=["y"])
    loaded = load_mapping(rig.job(folder, lanes, consensus, **more), folder=folder, environ={})
    return check(loaded, catalogue=open_catalogue({}), environ={}, clock=SystemClock())


@pytest.mark.parametrize(
    ("section", "more", "said"),
    [
        ({"over": "lable"}, {}, "consensus.over: the answers have no column 'lable' (did you mean label?"),
        (
            {"kind": "number"},
            {},
            "consensus.kind: the column 'label' holds no number votes: the schema allows no value but 'pos', 'neg'",
        ),
        ({"kind": "boolean"}, {}, "the column 'label' holds no boolean votes"),
        ({"kind": "labels"}, {}, "the column 'label' holds no labels votes"),
        ({"kind": "vector"}, {}, "consensus.kind: the column label is string, which holds no vector votes"),
        ({"labels": ["pos", "meh"]}, {}, "consensus.labels: the schema allows 'neg', which would be no vote"),
        ({"labels": ["pos", "neg", "meh"]}, {}, "consensus.labels: the schema allows no 'meh'"),
        ({"labels": ["pos", "neg", "pos"]}, {}, "'pos' is listed twice"),
        ({"gold": "gold"}, {}, "consensus.gold: gold is not carried (add it: output: {carry: [gold]})"),
        (
            {},
            {"carry": ["status"]},
            "output.carry: the column 'status' has the name of a column of the consensus",
        ),
        (
            {},
            {"key": "votes"},
            "input.key: the column 'votes' has the name of a column of the consensus table (rename it in the",
        ),
        ({}, {"key": "status"}, "input.key: the key column 'status' has the name of a column of failures/"),
        ({"normalise": "{{ valu }}"}, {}, "it reads 'valu', and there is only value"),
        ({"rule": "median"}, {}, "consensus.rule: it is of numbers, and the votes are labels"),
        ({"scale": "interval"}, {}, "consensus.scale: votes that are labels have no distances"),
        ({"kind": "text", "scale": "ordinal", "normalise": "{{ value }}"}, {}, "none are named"),
        (
            {"similarity": {"threshold": 0.9}},
            {},
            "consensus.similarity.embed: texts are compared by their vectors",
        ),
        (
            {
                "kind": "text",
                "similarity": {"threshold": 0.9, "embed": {"provider": "simulator", "model": "m"}},
                "ties": {"escalate": {"provider": "simulator", "model": "n", "name": "d"}},
            },
            {},
            "consensus.ties.escalate: another text would be paid for and decide nothing",
        ),
        ({"min_votes": 4}, {}, "consensus.min_votes: 4 of 3 votes"),
        ({"rule": {"at_least": 4}}, {}, "consensus.rule.at_least: 4 of 3 votes can never be"),
        ({"priority": ["A"]}, {}, "nobody called A votes"),
        ({"rule": "weighted", "weights": {"a": 1, "b": 1}}, {}, "consensus.weights: no weight for c"),
        ({}, {"routing": "spread"}, "one answer to a row has nothing to agree with (say routing: all"),
        ({}, {"lanes": ABC[:1]}, "there is one voter: nothing to agree on"),
        ({"ties": {"escalate": ABC[0]}}, {}, "consensus.ties.escalate.name: a is a voter as well"),
        ({"ties": {"escalate": {**ABC[0], "name": "d"}}}, {}, "this is a once more, which has voted already"),
        (
            {"ties": {"escalate": {"provider": "groq", "model": "fast"}}},
            {},
            "consensus.ties.escalate.api_key: Groq needs a key",
        ),
        (
            {"judge": {"lane": {"provider": "openai", "model": "text-embedding-3-small", "api_key": "k"}}},
            {},
            "consensus.judge.lane.model: text-embedding-3-small is made for embedding",
        ),
        (
            {"judge": {"lane": {**rig.lane("j"), "price": None}}},
            {"budget": {"usd": 1}},
            "consensus.judge.lane.model: no price is known for j",
        ),
        (
            {"judge": {"lane": rig.lane("j"), "prompt": "{{ txt }}: {{ candidates }}"}},
            {},
            "consensus.judge.prompt: the input has no column 'txt' (did you mean text?",
        ),
        (
            {"judge": {"lane": rig.lane("j"), "prompt": "{{ candidates"}},
            {},
            "consensus.judge.prompt: the template is wrong",
        ),
        (
            {"judge": {"lane": {"provider": "custom", "model": "m"}}},
            {},
            "consensus.judge.lane.base_url: provider: custom needs a base_url",
        ),
        (
            {"ties": {"escalate": {"provider": "custom", "model": "m", "base_url": "http://example.com/v1"}}},
            {},
            "consensus.ties.escalate.base_url: http:// sends the key",
        ),
    ],
)
def test_faults_are_named_at_their_place(
    tmp_path: Path, section: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    more = dict(more)
    if "key" in more:
        more["input"] = {"path": "rows.jsonl", "key": more.pop("key")}
    if "carry" in more:
        more["output"] = {"path": str(tmp_path / "out"), "carry": more.pop("carry")}
    with pytest.raises(JobError) as error:
        checked(tmp_path, section, more.pop("lanes", ABC), **more)
    assert said in str(error.value)


def test_defaults_come_from_the_task(tmp_path: Path) -> None:
    motion = checked(tmp_path, {}).motion
    assert motion is not None
    assert (motion.over, motion.kind, motion.labels, motion.voters) == (
        "label",
        "label",
        ("pos", "neg"),
        ("a", "b", "c"),
    )
    assert (motion.terms.min_votes, motion.scale) == (2, "nominal")


def test_several_columns_leave_no_default(tmp_path: Path) -> None:
    two = {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "number"}}}
    task = {"type": "chat", "prompt": "{{ text }}", "schema": two}
    with pytest.raises(JobError, match="which column holds the votes"):
        checked(tmp_path, {}, task=task)
    motion = checked(tmp_path, {"over": "y"}, task=task).motion
    assert motion is not None
    assert (motion.kind, motion.scale) == ("number", "interval")


def test_samples_are_voters_by_number_and_a_lane_s_name_stands_for_its_own(tmp_path: Path) -> None:
    section = {"rule": "weighted", "weights": {"a": 1, "b": 2, "c": 3}, "priority": ["b"]}
    motion = checked(tmp_path, section, samples=2).motion
    assert motion is not None
    assert motion.voters == ("a#1", "a#2", "b#1", "b#2", "c#1", "c#2")
    assert motion.terms.priority == (2, 3)


def test_a_judge_that_votes_is_noted(tmp_path: Path) -> None:
    notes = checked(tmp_path, {"judge": {"lane": {**ABC[0], "name": "judge"}}}).notes
    assert "consensus: the judge is a, which votes: it may favour its own" in notes


def test_strange_gold_is_noted_where_some_of_it_is_known(tmp_path: Path) -> None:
    rig.rows(tmp_path, {"r1": "+++", "r2": "+++"}, gold=["pos", "meh"])
    output = {"path": str(tmp_path / "out"), "carry": ["gold"]}
    loaded = load_mapping(
        rig.job(tmp_path, ABC, {"gold": "gold"}, output=output), folder=tmp_path, environ={}
    )
    found = check(loaded, catalogue=open_catalogue({}), environ={}, clock=SystemClock())
    assert found.notes == ("consensus: 1 of the first 2 values of gold are none that a vote can have: 'meh'",)
