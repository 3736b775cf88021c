"""`batchllm consensus`, and jobs that bring their votes along: nothing is asked."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import job_rig
import polars as pl
import pytest
import voting_rig as rig

from batchllm.cli.main import invoke
from batchllm.errors import ExitCode
from batchllm.journal import OutputLock

VOTES = {"k1": "pos pos neg", "k2": "neg neg neg", "k3": "pos neg pos"}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHLLM_STATE_DIR", str(tmp_path / "state"))


def wide(folder: Path, voters: Sequence[str] = ("a", "b", "c"), **columns: Sequence[object]) -> None:
    """A file for each voter."""
    for at, voter in enumerate(voters):
        votes = [said.split()[at] for said in VOTES.values()]
        pl.DataFrame({"id": list(VOTES), "label": votes, **columns}).write_parquet(
            folder / f"{voter}.parquet"
        )


def offline(folder: Path, votes: Sequence[str], **consensus: Any) -> Path:
    data = {
        "name": "offline",
        "input": {"key": "id"},
        "consensus": {"votes": list(votes), **consensus},
        "output": {"path": "out"},
    }
    path = folder / "votes.yaml"
    path.write_text(json.dumps(data), "utf-8")
    return path


def consensus(folder: Path) -> dict[str, str | None]:
    return rig.by_id(folder, "consensus")


def test_a_job_that_brings_its_votes_needs_no_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path, gold=["pos", "neg", "neg"])
    path = offline(tmp_path, ["a.parquet", "b.parquet", "c.parquet"], gold="gold")
    assert invoke(["run", str(path), "-v"]) == ExitCode.OK
    assert consensus(tmp_path) == {"k1": "pos", "k2": "neg", "k3": "pos"}
    said = capsys.readouterr().out
    assert "consensus 3 of 3 rows decided" in said
    assert "of 3 decided rows with gold" in said
    assert "tokens" not in said
    assert rig.by_id(tmp_path, "correct") == {"k1": True, "k2": True, "k3": False}
    assert [vote["voter"] for vote in rig.by_id(tmp_path, "votes")["k1"]] == ["a", "b", "c"]


def test_other_rules_are_tried_on_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide(tmp_path)
    path = offline(tmp_path, ["a.parquet", "b.parquet", "c.parquet"])
    assert invoke(["consensus", str(path)]) == ExitCode.OK
    assert invoke(["consensus", "out", "--set", "consensus.rule=unanimous"]) == ExitCode.OK
    assert consensus(tmp_path) == {"k1": None, "k2": "neg", "k3": None}
    assert invoke(["consensus", "out", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["type"], told["rows"], told["counts"]["decided"]) == ("consensus", 3, 1)


def test_a_long_file_has_a_column_of_voters(tmp_path: Path) -> None:
    lines = [
        {"id": key, "voter": voter, "label": vote}
        for key, said in VOTES.items()
        for voter, vote in zip("abc", said.split(), strict=True)
    ]
    pl.DataFrame(lines).write_parquet(tmp_path / "long.parquet")
    assert invoke(["run", str(offline(tmp_path, ["long.parquet"])), "-q"]) == ExitCode.OK
    assert consensus(tmp_path) == {"k1": "pos", "k2": "neg", "k3": "pos"}


def test_ids_that_do_not_match_are_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path, ("a", "b"))
    pl.DataFrame({"id": ["k1", "k9"], "label": ["pos", "pos"]}).write_parquet(tmp_path / "c.parquet")
    path = offline(tmp_path, ["a.parquet", "b.parquet", "c.parquet"])
    assert invoke(["run", str(path), "-q"]) == ExitCode.OK
    assert "c.parquet has no vote for 2 of 4 rows: k2, k3" in capsys.readouterr().err
    assert rig.by_id(tmp_path, "status")["k9"] == "too_few"


def test_the_input_of_a_job_says_which_rows_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path)
    rig.rows(tmp_path, {"k1": "one", "k2": "two", "k5": "five"}, gold=["pos", "neg", "pos"])
    path = offline(tmp_path, ["a.parquet", "b.parquet", "c.parquet"], gold="gold")
    data = json.loads(path.read_text())
    data["input"]["path"] = "rows.jsonl"
    data["output"]["carry"] = ["text"]
    path.write_text(json.dumps(data))
    assert invoke(["run", str(path), "-q"]) == ExitCode.OK
    assert "a.parquet: 1 value of 'id' is no row of the input: k3" in capsys.readouterr().err
    assert rig.table(tmp_path).select("id", "row", "text", "consensus", "gold").rows() == [
        ("k1", 0, "one", "pos", "pos"),
        ("k2", 1, "two", "neg", "neg"),
        ("k5", 2, "five", None, "pos"),
    ]


def test_reasons_say_what_is_so_where_nobody_is_asked(tmp_path: Path) -> None:
    """Sets are decided label by label: how many voted for the very set that leads says nothing."""
    sets: dict[str, list[list[str] | None]] = {
        "a": [["x", "y"], ["x"], [], ["x"], ["x", "z"], [*"abcdef"]],
        "b": [["x"], ["y"], [], None, ["x"], [*"abcdefg"]],
        "c": [["x"], ["z"], [], ["x"], ["x", "y"], [*"abcdef"]],
    }
    keys = ["two", "apart", "empty", "hole", "one", "many"]
    for name, votes in sets.items():
        frame = pl.DataFrame(
            {"id": keys, "label": votes}, schema={"id": pl.String, "label": pl.List(pl.String)}
        )
        frame.write_parquet(tmp_path / f"{name}.parquet")
    path = offline(tmp_path, [f"{name}.parquet" for name in sets], min_votes=2)
    assert invoke(["run", str(path), "-q"]) == ExitCode.OK
    assert rig.by_id(tmp_path, "reason") == {
        "two": "of 3 votes, label by label, 3 for x",
        "apart": "no label has enough of 3 votes",
        "empty": "3 of 3 votes for no label",
        "hole": '2 of 2 votes for ["x"]; b has no vote',
        "one": "of 3 votes, label by label, 3 for x",
        "many": "of 3 votes, label by label, 3 for a, 3 for b, 3 for c, 3 for d, 2 more labels",
    }
    pl.DataFrame({"id": ["apart"], "label": [["y"]]}).write_parquet(tmp_path / "d.parquet")
    assert invoke(["consensus", "out", "--votes", "d.parquet"]) == ExitCode.OK
    reasons = rig.by_id(tmp_path, "reason")
    assert reasons["apart"] == "of 4 votes, label by label, 2 for y"
    assert reasons["empty"] == "3 of 3 votes for no label; d has no vote"
    assert rig.by_id(tmp_path, "votes")["empty"][3]["state"] == "absent"


@pytest.mark.parametrize("has_input", [False, True])
def test_without_a_key_files_are_joined_by_their_rows(tmp_path: Path, *, has_input: bool) -> None:
    pl.DataFrame({"row": [0, 1, 3], "label": ["pos", "neg", "pos"]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"row": [0, 1, 2], "label": ["pos", "pos", "pos"]}).write_parquet(tmp_path / "b.parquet")
    path = offline(tmp_path, ["a.parquet", "b.parquet"])
    data = json.loads(path.read_text())
    data["input"] = {"path": "rows.jsonl"} if has_input else {}
    path.write_text(json.dumps(data))
    rig.rows(tmp_path, {"k1": "one", "k2": "two", "k3": "three", "k4": "four"})
    assert invoke(["run", str(path), "-q"]) == ExitCode.OK
    found = rig.table(tmp_path).select("row", "status", "consensus").rows()
    assert found == [(0, "decided", "pos"), (1, "tied", None), (2, "too_few", None), (3, "too_few", None)]


def test_options_that_say_what_to_ask_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide(tmp_path, ("a", "b"))
    path = offline(tmp_path, ["a.parquet", "b.parquet"])
    assert invoke(["run", str(path), "--limit", "1"]) == ExitCode.USAGE
    assert "--limit: a job with consensus.votes asks nothing" in capsys.readouterr().err


def test_two_files_of_one_name_are_two_voters(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    wide(tmp_path / "x", ("a",))
    pl.DataFrame({"id": list(VOTES), "label": ["neg"] * 3}).write_parquet(tmp_path / "y" / "a.parquet")
    assert invoke(["run", str(offline(tmp_path, ["x/a.parquet", "y/a.parquet"])), "-q"]) == ExitCode.OK
    assert consensus(tmp_path) == {"k1": None, "k2": "neg", "k3": None}
    assert [vote["voter"] for vote in rig.by_id(tmp_path, "votes")["k1"]] == ["x/a", "y/a"]


def voters(folder: Path) -> list[str]:
    return [voter["name"] for voter in rig.told(folder)["voters"]]


@pytest.mark.parametrize(
    ("files", "pattern", "named"),
    [
        (["v/a.parquet", "v/b.parquet", "v/c.txt"], "v/*.parquet", ["a", "b"]),
        (["r/a/p0.parquet", "r/b/p0.parquet", "r/b/x.txt"], "r/*/*.parquet", ["a", "b"]),
        (["r/a/in/p0.parquet", "r/b/in/p0.parquet"], "r/*/in", ["a", "b"]),
        (["r/a/p0.parquet", "r/b/p0.parquet"], "r/*", ["a", "b"]),
        (["r/a/p0.parquet", "r/b/c/p0.parquet"], "r/**/*.parquet", ["a", "c"]),
        (["r[1]/a.parquet", "r[1]/b.parquet"], "r[[]1]/?.parquet", ["a", "b"]),
        (["r[1]/a.parquet", "r[1]/b.parquet"], "r[1]", ["r[1]"]),
    ],
)
def test_a_pattern_has_a_voter_for_each_match_of_its_first_wildcard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], pattern: str, named: list[str]
) -> None:
    """Also in a folder whose own name looks like a pattern."""
    here = tmp_path / "[x]*"
    here.mkdir()
    monkeypatch.chdir(here)
    for at, file in enumerate(files):
        path = here / file
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = [f"k{at}"] if len(named) == 1 else ["k0", "k1"]
        labels = ["pos"] * len(keys)
        pl.DataFrame({"id": keys, "label": labels, "gold": labels}).write_parquet(path)
    assert invoke(["run", str(offline(here, [pattern], gold="gold")), "-q"]) == ExitCode.OK
    assert voters(here) == named
    assert rig.told(here)["counts"]["decided"] == 2
    assert invoke(["consensus", "out"]) == ExitCode.OK
    assert voters(here) == named


def test_parts_of_one_folder_are_one_voter(tmp_path: Path) -> None:
    for at, key in enumerate(VOTES):
        for name in "ab":
            (tmp_path / "r" / name).mkdir(parents=True, exist_ok=True)
            part = pl.DataFrame({"id": [key], "label": ["pos"]})
            part.write_parquet(tmp_path / "r" / name / f"part-{at}.parquet")
    for votes in (["r/*/*.parquet"], ["r/a", "r/b"]):
        assert invoke(["run", str(offline(tmp_path, votes)), "-q"]) == ExitCode.OK
        assert voters(tmp_path) == ["a", "b"]
        assert rig.by_id(tmp_path, "votes_cast") == dict.fromkeys(VOTES, 2)


def test_a_pattern_over_outputs_has_what_their_manifests_list(tmp_path: Path) -> None:
    """One that was spread over two lanes is one voter; a part of nobody's is no vote."""
    rig.rows(tmp_path, {"r1": "+", "r2": "-"})
    for name in ("one", "two"):
        out = tmp_path / "runs" / name
        lanes = [rig.letters("x", 0), rig.letters("y", 0)]
        spec = rig.job(tmp_path, lanes, {}, routing="spread", output={"path": str(out)})
        del spec["consensus"]
        job_rig.run(tmp_path, spec)
        stray = pl.DataFrame({"id": ["r1"], "label": ["neg"]})
        stray.write_parquet(out / "output" / "part-stray.parquet")
    for votes in (
        ["runs/*/output/*.parquet"],
        ["runs/*/output"],
        ["runs/*"],
        ["runs/one/output/*.parquet", "runs/two/output"],
    ):
        assert invoke(["run", str(offline(tmp_path, votes)), "-q"]) == ExitCode.OK
        assert voters(tmp_path) == ["one", "two"]
        assert consensus(tmp_path) == {"r1": "pos", "r2": "neg"}


def test_votes_that_no_pattern_matches_and_such_as_two_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path, ("a", "b"))
    assert invoke(["run", str(offline(tmp_path, ["a.parquet", "x/*.parquet"]))]) == ExitCode.NO_INPUT
    said = capsys.readouterr().err
    assert "x/*.parquet matches no file or folder" in said
    assert f"there is no folder {tmp_path / 'x'}" in said
    assert invoke(["run", str(offline(tmp_path, ["a*.csv"]))]) == ExitCode.NO_INPUT
    assert "there is: a.parquet, b.parquet" in capsys.readouterr().err
    assert invoke(["run", str(offline(tmp_path, ["a.parquet", "*.parquet"]))]) == ExitCode.DATA
    assert "a.parquet is named twice in consensus.votes" in capsys.readouterr().err


def test_ids_are_the_same_whichever_type_holds_them(tmp_path: Path) -> None:
    for name, ids in {"a": [1, 2, 3], "b": ["1", "2", "x"], "c": [1.0, None, 3.0]}.items():
        pl.DataFrame({"id": ids, "label": ["pos"] * 3}).write_parquet(tmp_path / f"{name}.parquet")
    path = offline(tmp_path, ["a.parquet", "b.parquet", "c.parquet"])
    assert invoke(["run", str(path), "-q"]) == ExitCode.OK
    assert rig.by_id(tmp_path, "votes_cast") == {"1": 3, "2": 2, "3": 2, "x": 1}


def test_a_column_that_tells_rows_apart_does_not_say_who_votes(tmp_path: Path) -> None:
    for name in "ab":
        pl.DataFrame({"voter": ["k1", "k2"], "label": ["pos", name]}).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    path = offline(tmp_path, ["a.parquet", "b.parquet"])
    path.write_text(path.read_text().replace('"id"', '"voter"'))
    assert invoke(["run", str(path), "-q"]) == ExitCode.OK
    assert rig.table(tmp_path).select("voter", "consensus").rows() == [("k1", "pos"), ("k2", None)]


@pytest.mark.parametrize(
    ("files", "section", "code", "said"),
    [
        (
            {"b": {"id": ["x"], "label": ["pos"]}},
            {},
            65,
            "a votes on k1, k2, k3, b votes on x\n  join by a column",
        ),
        ({"b": {"id": ["x"], "label": ["pos"]}}, {"labels": ["pos", "neg"], "gold": "label"}, 0, ""),
        (
            {"b": {"id": ["k1"], "label": [None]}},
            {"kind": "label"},
            65,
            "is null, which holds no label votes",
        ),
        ({"b": {"id": ["k1"], "lable": ["pos"]}}, {}, 65, "b.parquet has no column 'label' (consensus.over)"),
        ({}, {"votes": ["a.parquet"]}, 78, "consensus: a is the only voter: nothing to agree on"),
        (
            {"b": {"id": ["k1"], "lable": ["pos"]}},
            {"over": "label"},
            65,
            "no column 'label' (consensus.over)",
        ),
        ({"b": {"key": ["k1"], "label": ["pos"]}}, {}, 65, "no column 'id' (input.key)"),
        ({"b": {"id": ["k1"], "label": [1.5]}}, {}, 65, "is double, which holds no label votes"),
        ({"b": {"id": ["k1", "k1"], "label": ["pos", "neg"]}}, {}, 65, "2 votes of b for 'k1'"),
        ({"b": {"id": [["k1"]], "label": ["pos"]}}, {}, 65, "which names nothing"),
        ({"b": {"id": ["k1"], "label": ["pos"], "voter": [["x"]]}}, {}, 65, "which names nothing"),
        ({}, {"votes": ["a.parquet", "./a.parquet"]}, 65, "a.parquet is named twice"),
        ({}, {"gold": "truth"}, 65, "no file of votes has a column 'truth'"),
        (
            {},
            {"kind": "number"},
            65,
            "a.parquet: the column 'label' holds no number votes: its first value is 'pos'\n  mend consensus.kind, or",
        ),
        (
            {},
            {"labels": ["yes", "no"]},
            65,
            "holds no label votes: its first value is 'pos'\n  mend consensus.labels",
        ),
        ({}, {"priority": ["zz"]}, 78, "nobody called zz votes"),
        ({}, {"min_votes": 9}, 78, "9 of 2 votes"),
        ({}, {"rule": "median"}, 78, "it is of numbers"),
    ],
)
def test_bad_files_and_settings_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, dict[str, list[object]]],
    section: dict[str, Any],
    code: int,
    said: str,
) -> None:
    wide(tmp_path, ("a", "b"))
    for name, columns in files.items():
        pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    path = offline(tmp_path, section.pop("votes", ["a.parquet", "b.parquet"]), **section)
    assert invoke(["run", str(path), "-q"]) == code
    assert said in capsys.readouterr().err


def test_a_key_with_the_name_of_a_column_of_the_table_is_blamed_on_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        frame = pl.DataFrame({"votes": ["k1"], "reason": ["x"], "label": ["pos"]})
        frame.write_parquet(tmp_path / f"{name}.parquet")
    path = offline(tmp_path, ["a.parquet", "b.parquet"])
    data = json.loads(path.read_text())
    data["input"]["key"] = "votes"
    data["output"]["carry"] = ["reason"]
    path.write_text(json.dumps(data))
    assert invoke(["run", str(path)]) == ExitCode.CONFIG
    said = capsys.readouterr().err
    assert "input.key: the column 'votes' has the name of a column of the consensus table" in said
    assert "output.carry: the column 'reason' has the name of a column of the consensus table" in said


def test_files_that_share_no_row_with_the_input_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path)
    rig.rows(tmp_path, {"q1": "one"})
    path = offline(tmp_path, ["a.parquet"])
    data = json.loads(path.read_text())
    data["input"]["path"] = "rows.jsonl"
    path.write_text(json.dumps(data))
    assert invoke(["run", str(path)]) == ExitCode.DATA
    assert "3 values of 'id' are no row of the input: k1, k2, k3" in capsys.readouterr().err


def test_files_that_are_not_there_or_no_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", str(offline(tmp_path, ["none.parquet"]))]) == ExitCode.NO_INPUT
    (tmp_path / "text.parquet").write_text("id,label\n", "utf-8")
    assert invoke(["run", str(offline(tmp_path, ["text.parquet"]))]) == ExitCode.DATA
    assert "cannot be read as Parquet" in capsys.readouterr().err


def test_keys_that_ask_have_no_place_beside_votes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = offline(tmp_path, ["a.parquet"])
    data = json.loads(path.read_text())
    data["samples"] = 3
    path.write_text(json.dumps(data))
    assert invoke(["run", str(path)]) == ExitCode.CONFIG
    assert "samples: nothing is asked with consensus.votes" in capsys.readouterr().err
    assert invoke(["check", str(offline(tmp_path, ["a.parquet"]))]) == ExitCode.CONFIG


def ran(folder: Path, section: dict[str, Any] | None = None) -> None:
    rig.rows(folder, {"r1": "++-", "r2": "-+-"}, gold=["pos", "neg"])
    lanes = [rig.letters(name, at) for at, name in enumerate(("one", "two", "three"))]
    output = {"path": str(folder / "out"), "carry": ["gold"]}
    spec = rig.job(folder, lanes, section or {}, output=output)
    if section is None:
        del spec["consensus"]
    job_rig.run(folder, spec)


def test_an_output_that_had_no_consensus_gets_one(tmp_path: Path) -> None:
    ran(tmp_path)
    assert not (tmp_path / "out" / "consensus").exists()
    assert invoke(["consensus", "out", "--set", "consensus.gold=gold"]) == ExitCode.OK
    assert consensus(tmp_path) == {"r1": "pos", "r2": "neg"}
    told = rig.told(tmp_path)
    assert [voter["name"] for voter in told["voters"]] == ["one", "two", "three"]
    assert told["consensus"]["accuracy"]["value"] == 1.0


def test_votes_from_elsewhere_stand_beside_those_of_an_output(tmp_path: Path) -> None:
    ran(tmp_path)
    for name in ("four", "five"):
        pl.DataFrame({"id": ["r1", "r2"], "label": ["neg", "neg"]}).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    assert invoke(["consensus", "out", "--votes", "four.parquet", "--votes", "five.parquet"]) == ExitCode.OK
    assert consensus(tmp_path) == {"r1": "neg", "r2": "neg"}
    voters = [voter["name"] for voter in rig.told(tmp_path)["voters"]]
    assert voters == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["nowhere"], ExitCode.NO_INPUT, "no job file nowhere"),
        (["out", "--set", "consensus.rul=x"], ExitCode.CONFIG, "did you mean rule?"),
        (["out", "--set", "task.prompt=x"], ExitCode.CONFIG, "only consensus can be changed here"),
        (["out", "--set", "consensus.over=labels"], ExitCode.CONFIG, "there is no column 'labels'"),
        (["out", "--set", "consensus.gold=truth"], ExitCode.CONFIG, "truth was not carried"),
        (["out", "--set", "consensus.votes=[a.parquet]"], ExitCode.CONFIG, "--votes PATH puts others beside"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, said: str
) -> None:
    ran(tmp_path)
    assert invoke(["consensus", *args]) == code
    assert said in capsys.readouterr().err


def test_a_setting_by_which_nothing_is_a_vote_leaves_the_consensus_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(tmp_path, {})
    before = consensus(tmp_path)
    assert invoke(["consensus", "out", "--set", "consensus.kind=number"]) == ExitCode.DATA
    assert (
        "out: the column 'label' holds no number votes: its first value is 'pos'" in capsys.readouterr().err
    )
    assert invoke(["consensus", "out"]) == ExitCode.OK
    assert consensus(tmp_path) == before


def test_an_output_made_with_a_name_of_the_table_s_own_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.rows(tmp_path, {"r1": "++-"}, margin=["x"])
    lanes = [rig.letters(name, at) for at, name in enumerate(("one", "two", "three"))]
    output = {"path": str(tmp_path / "out"), "carry": ["margin"]}
    spec = rig.job(tmp_path, lanes, {}, output=output)
    del spec["consensus"]
    job_rig.run(tmp_path, spec)
    assert invoke(["consensus", "out"]) == ExitCode.CONFIG
    said = capsys.readouterr().err
    assert "output.carry: the column 'margin' has the name of a column of the consensus table" in said
    assert "start the job with --new-run" in said


def test_an_empty_folder_has_nothing_to_agree_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert invoke(["consensus", "empty"]) == ExitCode.NO_INPUT
    assert "no run has come to an end there" in capsys.readouterr().err


def test_another_job_s_section_may_hold_for_an_output(tmp_path: Path) -> None:
    ran(tmp_path)
    rig.rows(tmp_path, {"r1": "++-", "r2": "-+-"}, gold=["pos", "neg"])
    lanes = [rig.letters(name, at) for at, name in enumerate(("one", "two", "three"))]
    spec = rig.job(tmp_path, lanes, {"rule": "unanimous"})
    (tmp_path / "other.yaml").write_text(json.dumps(spec), "utf-8")
    assert invoke(["consensus", "out", "--job", "other.yaml"]) == ExitCode.OK
    assert consensus(tmp_path) == {"r1": None, "r2": None}


def test_a_judge_that_answered_is_used_again(tmp_path: Path) -> None:
    judge = rig.lane(
        "judge",
        ("A: pos", {"rationale": "r", "choice": "A"}),
        ("B: pos", {"rationale": "r", "choice": "B"}),
    )
    rig.rows(tmp_path, {"r1": "+-"})
    lanes = [rig.letters("one", 0), rig.letters("two", 1)]
    job_rig.run(tmp_path, rig.job(tmp_path, lanes, {"judge": {"lane": judge}}))
    assert invoke(["consensus", "out"]) == ExitCode.OK
    assert rig.by_id(tmp_path, "rule") == {"r1": "judge"}


TEXT = {"type": "chat", "prompt": "{{ text }}"}
DOGS = [rig.lane(name, (".", text)) for name, text in (("a", "a dog"), ("b", "a dog!"), ("c", "a cat"))]
VECTORS = [
    {**rig.lane(name, dimensions=4, seed=seed), "model": "v"}
    for name, seed in (("one", 1), ("two", 1), ("three", 2))
]


@pytest.mark.parametrize(
    ("lanes", "section", "more"),
    [
        (DOGS, {"similarity": {"threshold": 0.0, "embed": rig.lane("v", dimensions=4)}}, {"task": TEXT}),
        (
            VECTORS,
            {"similarity": {"threshold": 0.999}},
            {"task": {"type": "embedding", "text": "{{ text }}"}},
        ),
        (DOGS[:2], {}, {"task": TEXT, "samples": 3, "routing": "spread"}),
        (DOGS[:2], {"rule": "weighted", "weights": "dawid_skene"}, {"task": TEXT, "samples": 2}),
        (DOGS[:1], {}, {"task": TEXT, "samples": 3}),
    ],
    ids=["texts", "vectors", "samples of any lane", "samples of each lane", "samples of one lane"],
)
def test_what_is_computed_again_is_the_same(
    tmp_path: Path, lanes: Any, section: dict[str, Any], more: dict[str, Any]
) -> None:
    rig.rows(tmp_path, {"x": "x"})
    job_rig.run(tmp_path, rig.job(tmp_path, lanes, section, **more))
    before = rig.table(tmp_path)
    assert invoke(["consensus", "out"]) == ExitCode.OK
    assert rig.table(tmp_path).equals(before)
    assert rig.told(tmp_path)["voters"][0]["votes"] == 1


TEXT = pl.Series([None, None, None], dtype=pl.String)


def test_files_without_any_vote_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, votes in {"a": TEXT, "b": TEXT, "c": ["pos", "neg", "pos"]}.items():
        pl.DataFrame({"id": list(VOTES), "label": votes}).write_parquet(tmp_path / f"{name}.parquet")
    for files, said in ((["a", "b"], "there are no votes"), (["a", "c"], "c alone has votes on any row")):
        path = offline(tmp_path, [f"{name}.parquet" for name in files])
        assert invoke(["consensus", str(path)]) == ExitCode.DATA
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": ["P", "N", "P"]}, "b ('N', 'P') have no value in common"),
        (
            {"label": ["pos", "Neg", "pos "]},
            "'Neg' and 'neg' are different values, and 1 more such; normalise:",
        ),
        ({"label": TEXT}, "b has no vote on any row"),
        ({"id": ["k1", None, None]}, "b.parquet: 2 lines without a 'id', left out"),
        (
            {"gold": ["pos", "pos", "neg"]},
            "the gold of 1 line is not that of a file before it, which counts: k2",
        ),
        ({"id": ["k1", "k8", "k9"]}, "b.parquet has no vote for 2 of 5 rows: k2, k3"),
    ],
)
def test_what_looks_wrong_in_a_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, Any], said: str
) -> None:
    """On stderr, in agreement.json, and on the page."""
    wide(tmp_path, ("a", "c"), gold=["pos", "neg", "neg"])
    frame = {"id": list(VOTES), "label": ["pos", "neg", "pos"], **columns}
    pl.DataFrame(frame).write_parquet(tmp_path / "b.parquet")
    files = ["a.parquet", "b.parquet"] + (["c.parquet"] if said.startswith("b has") else [])
    assert invoke(["consensus", str(offline(tmp_path, files, gold="gold"))]) == ExitCode.OK
    assert said in capsys.readouterr().err
    assert any(said in note for note in rig.told(tmp_path)["notes"])
    assert said in html.unescape((tmp_path / "out" / "report.html").read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("votes.jsonl", '{"id": "k1", "label": "pos"}', "polars.read_ndjson("),
        ("votes.parquet", "no votes", "votes.parquet cannot be read as Parquet"),
    ],
)
def test_what_is_no_parquet_is_named_with_what_makes_it_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    wide(tmp_path, ("a",))
    (tmp_path / name).write_text(text)
    assert invoke(["consensus", str(offline(tmp_path, ["a.parquet", name]))]) == ExitCode.DATA
    assert said in capsys.readouterr().err


def test_a_part_that_is_unlike_the_others_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path, ("a",))
    (tmp_path / "b").mkdir()
    pl.DataFrame({"id": ["k1"], "label": ["pos"]}).write_parquet(tmp_path / "b" / "p1.parquet")
    pl.DataFrame({"id": ["k2"], "vote": ["pos"]}).write_parquet(tmp_path / "b" / "p2.parquet")
    assert invoke(["consensus", str(offline(tmp_path, ["a.parquet", "b"]))]) == ExitCode.DATA
    assert "b/p2.parquet has no column 'label', which p1.parquet beside it has" in capsys.readouterr().err


def test_files_are_not_put_beside_votes_while_a_run_is_at_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path)
    path = offline(tmp_path, ["a.parquet", "b.parquet"])
    assert invoke(["consensus", str(path)]) == ExitCode.OK
    before = rig.told(tmp_path)
    with OutputLock.acquire(tmp_path / "out", about={}, tables=()):
        for command in (["consensus", "out", "--votes", "c.parquet"], ["consensus", str(path)]):
            assert invoke(command) == ExitCode.TEMPFAIL
    assert "is in use: held by" in capsys.readouterr().err
    assert rig.told(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".batchllm",
        "consensus",
        "report.html",
    ]


def test_options_that_go_with_an_output_are_refused_with_a_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide(tmp_path)
    path = offline(tmp_path, ["a.parquet", "b.parquet"])
    assert invoke(["consensus", str(path), "--votes", "c.parquet"]) == ExitCode.CONFIG
    assert "--votes puts files beside the votes of an output, and this is a job" in capsys.readouterr().err
    assert invoke(["consensus", str(path), "--job", str(path)]) == ExitCode.USAGE
    assert "--job gives an output other settings" in capsys.readouterr().err


@pytest.mark.parametrize("offline_part", [5, {"consensus": 3}])
def test_an_agreement_that_somebody_has_edited_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], offline_part: object
) -> None:
    wide(tmp_path)
    assert invoke(["consensus", str(offline(tmp_path, ["a.parquet", "b.parquet"]))]) == ExitCode.OK
    told = rig.told(tmp_path)
    file = tmp_path / "out" / "consensus" / "agreement.json"
    file.write_text(json.dumps({**told, "offline": offline_part}))
    assert invoke(["consensus", "out"]) == ExitCode.IO
    assert "agreement.json is damaged" in capsys.readouterr().err


def stopped_early(folder: Path) -> dict[str, Any]:
    """Three lanes, of which the third is asked about r2 and r4 alone."""
    rig.rows(folder, {"r1": "+++", "r2": "+-+", "r3": "--+", "r4": "-+-"}, gold=["pos", "pos", "neg", "neg"])
    lanes = [rig.letters(name, at) for at, name in enumerate(("one", "two", "three"))]
    output = {"path": "out", "carry": ["gold"]}
    spec = rig.job(folder, lanes, {"stop_early": True, "gold": "gold"}, output=output)
    (folder / "job.yaml").write_text(json.dumps(spec))
    return spec


def test_rows_that_stopped_early_are_told_of_where_other_terms_could_decide_them_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_early(tmp_path)
    assert invoke(["run", "job.yaml", "-q"]) == ExitCode.OK
    assert rig.told(tmp_path)["notes"] == []
    for rule, rows in (("unanimous", 2), ("plurality", 0), ("{at_least: 3}", 2), ("{at_least: 1}", 0)):
        assert invoke(["consensus", "out", "--set", f"consensus.rule={rule}"]) == ExitCode.OK
        said = capsys.readouterr().out
        assert (f"note: {rows} rows were settled early by other terms" in said) == bool(rows), rule


def test_an_output_that_stopped_early_is_so_among_files_of_votes(tmp_path: Path) -> None:
    """Its third lane has seen the rows on which the others differ: it is compared with nobody."""
    stopped_early(tmp_path)
    assert invoke(["run", "job.yaml", "-q"]) == ExitCode.OK
    pl.DataFrame({"id": ["r1", "r2"], "label": ["pos", "pos"]}).write_parquet(tmp_path / "a.parquet")
    assert (
        invoke(["consensus", "out", "--votes", "a.parquet", "--set", "consensus.stop_early=false"])
        == ExitCode.OK
    )
    told = rig.told(tmp_path)
    assert {voter["name"]: voter["not_asked"] for voter in told["voters"]} == {
        "one": 0,
        "two": 0,
        "three": 2,
        "a": 0,
    }
    why = "three was asked only about rows that the votes before had left open"
    assert {pair["difference"].get("why") for pair in told["comparisons"] if pair["b"] == "three"} == {why}
    states = rig.by_id(tmp_path, "votes")["r1"]
    assert [vote["state"] for vote in states] == ["cast", "cast", "not_asked", "cast"]
