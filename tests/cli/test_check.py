"""`batchllm check`: each lane is asked before a run depends on it, and each failure names its remedy."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from job_rig import job, lane, write_rows
from rich.console import Console
from server_rig import Say, Script, Seen, chat_reply, refusal, scripted

from batchllm.checkup import Finding, LaneReport, State, Step, overall
from batchllm.cli.check import as_table
from batchllm.cli.main import invoke
from batchllm.errors import ExitCode

KEY = "sk-canary-0123456789abcdef"
LIMITS = {
    "x-ratelimit-limit-requests": "600",
    "x-ratelimit-remaining-requests": "599",
    "x-ratelimit-reset-requests": "100ms",
}
MODELS = Say(body={"data": [{"id": "sim"}, {"id": "other"}]}, headers=LIMITS)


def listing(post: Say | None = None, get: Say = MODELS) -> Script:
    return lambda seen, _: get if seen.method == "GET" else post or Say(body=chat_reply("fine"))


def checked(
    folder: Path, lanes: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], *args: str, **more: Any
) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, a line a lane, and stderr."""
    if not (folder / "rows.jsonl").exists():
        write_rows(folder / "rows.jsonl", 3)
    (folder / "job.yaml").write_text(json.dumps(job(folder, lanes, **more)), "utf-8")
    code = invoke(["check", str(folder / "job.yaml"), *args])
    out, err = capsys.readouterr()
    assert KEY not in out + err
    return code, [json.loads(line) for line in out.splitlines()], err


def state(line: dict[str, Any], step: str) -> str:
    return line["findings"][step]["state"]


def test_a_lane_that_would_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(otherwise=listing()) as server:
        code, (line,), err = checked(tmp_path, [lane(server.base_url, "one", api_key=KEY)], capsys)
    assert (code, err) == (0, "")
    assert (line["lane"], line["ok"], line["code"]) == ("one", True, 0)
    assert line["findings"]["key"]["text"] == "accepted"
    assert line["findings"]["model"]["text"] == "listed among 2"
    assert line["findings"]["limits"]["text"] == "600 requests a minute"
    assert [seen.path for seen in server.seen] == ["/healthz", "/v1/models"]
    assert not (tmp_path / "out").exists()


def test_with_spend_the_first_row_is_asked_as_a_run_would_with_a_short_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 900, "temperature": 0}}
    lanes = [{"provider": "openai", "model": "sim", "api_key": KEY, "price": {"input": 1, "output": 2}}]
    with scripted(otherwise=listing()) as server:
        lanes[0]["base_url"] = server.base_url
        code, (line,), _ = checked(tmp_path, lanes, capsys, "--spend", task=task)
    assert code == 0
    assert line["findings"]["call"]["text"].startswith("answered in ")
    assert "$0.000020" in line["findings"]["call"]["text"]
    (body,) = server.bodies()
    assert body["messages"] == [{"role": "user", "content": "text number 0"}]
    assert (body["max_completion_tokens"], body["temperature"]) == (16, 0)


@pytest.mark.parametrize(("params", "cap"), [({}, 16), ({"max_tokens": 5}, 5)])
def test_a_cap_is_never_raised_and_always_there(
    params: dict[str, int], cap: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"type": "chat", "prompt": "{{ text }}", "params": params}
    with scripted(otherwise=listing()) as server:
        assert checked(tmp_path, [lane(server.base_url, "one")], capsys, "--spend", task=task)[0] == 0
    assert server.bodies()[0]["max_tokens"] == cap


def test_by_the_responses_api_the_short_answer_has_its_own_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = {"type": "output_text", "text": "hi"}
    reply = {"status": "completed", "output": [{"type": "message", "content": [part]}], "model": "sim"}
    with scripted(otherwise=listing(Say(body=reply))) as server:
        spec = [lane(server.base_url, "one", api="responses")]
        code, (line,), _ = checked(tmp_path, spec, capsys, "--spend")
    assert (code, state(line, "call")) == (0, "ok")
    (body,) = server.bodies()
    assert body["max_output_tokens"] == 16
    assert "max_tokens" not in body


def test_words_in_place_of_a_call_are_an_answer_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {
        "type": "chat",
        "prompt": "{{ text }}",
        "tools": [{"function": {"name": "f"}}],
        "tool_choice": "required",
    }
    with scripted(otherwise=listing()) as server:
        code, (line,), _ = checked(tmp_path, [lane(server.base_url, "one")], capsys, "--spend", task=task)
    assert (code, state(line, "call")) == (0, "ok")
    assert "no tool was called" in line["findings"]["call"]["text"]


def test_an_embedding_job_embeds_one_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector = Say(body={"data": [{"index": 0, "embedding": [1.0, 2.0]}], "usage": {"prompt_tokens": 3}})
    task = {"type": "embedding", "text": "{{ text }}", "dimensions": 2}
    with scripted(otherwise=listing(vector)) as server:
        code, (line,), _ = checked(tmp_path, [lane(server.base_url, "one")], capsys, "--spend", task=task)
    assert (code, state(line, "call")) == (0, "ok")
    assert server.bodies()[0]["input"] == ["text number 0"]


@pytest.mark.parametrize(
    ("get", "post", "code", "step", "said"),
    [
        (Say(401, refusal(f"Incorrect API key provided: {KEY}")), None, 77, "key", "api_key: check"),
        (Say(body={"data": [{"id": "simple"}]}), None, 69, "model", "did you mean simple?"),
        (Say(500, refusal("down"), {"retry-after": "0"}), None, 69, "key", "try again later"),
        (MODELS, Say(404, refusal("gone", code="model_not_found")), 69, "call", "name another model"),
        (MODELS, Say(429, refusal("no credit", code="insufficient_quota")), 69, "call", "spending limit"),
        (MODELS, Say(400, refusal("no", code="unsupported_parameter")), 69, "call", "omit"),
        (MODELS, Say(401, refusal("bad key", code="invalid_api_key")), 77, "call", "api_key: check"),
    ],
)
def test_each_failure_names_its_remedy(
    get: Say,
    post: Say | None,
    code: int,
    step: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with scripted(otherwise=listing(post, get)) as server:
        spec = [lane(server.base_url, "one", api_key=KEY)]
        found, (line,), _ = checked(tmp_path, spec, capsys, *(["--spend"] if post else []))
    assert found == code
    assert (line["ok"], line["code"]) == (False, code)
    assert state(line, step) == "failed"
    assert said in line["findings"][step]["remedy"]


def test_azure_lists_models_and_a_lane_names_a_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(otherwise=listing()) as server:
        spec = [{"provider": "azure", "model": "mine", "base_url": server.base_url, "api_key": KEY}]
        code, (line,), _ = checked(tmp_path, spec, capsys)
    assert (code, state(line, "key"), state(line, "model")) == (0, "ok", "unknown")


def test_after_a_refused_key_nothing_is_bought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(otherwise=listing(get=Say(401, refusal("bad")))) as server:
        checked(tmp_path, [lane(server.base_url, "one", api_key=KEY)], capsys, "--spend")
    assert server.bodies() == []


def test_nobody_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(MODELS) as server:
        pass
    code, (line,), _ = checked(tmp_path, [lane(server.base_url, "one")], capsys)
    assert code == 69
    assert "Connection refused" in line["findings"]["key"]["text"]
    assert "base_url" in line["findings"]["key"]["remedy"]


@pytest.mark.parametrize(
    "get",
    [
        Say(404, {}),
        Say(body={"hello": 1}),
        Say(body=b"<html>hi</html>"),
        Say(429, refusal("slow"), {"retry-after": "99"}),
    ],
)
def test_what_cannot_be_found_out_is_no_failure(
    get: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(otherwise=listing(get=get)) as server:
        code, (line,), _ = checked(tmp_path, [lane(server.base_url, "one")], capsys)
    assert code == 0
    assert (state(line, "key"), state(line, "model")) == ("unknown", "unknown")


CUT = {**chat_reply(), "choices": [{"message": {"content": ""}, "finish_reason": "length"}]}


@pytest.mark.parametrize("answer", [chat_reply("{"), CUT])
def test_an_answer_that_is_too_short_to_be_kept_is_an_answer_here(
    answer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    task = {"type": "chat", "prompt": "{{ text }}", "schema": schema}
    with scripted(otherwise=listing(Say(body=answer))) as server:
        code, (line,), _ = checked(tmp_path, [lane(server.base_url, "one")], capsys, "--spend", task=task)
    assert (code, state(line, "call")) == (0, "ok")


def test_a_row_that_cannot_be_asked_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": " "}\n', "utf-8")
    with scripted(otherwise=listing()) as server:
        code, (line,), _ = checked(tmp_path, [lane(server.base_url, "one")], capsys, "--spend")
    assert code == 65
    assert "row 0 cannot be asked" in line["findings"]["call"]["text"]


def test_an_input_without_rows_has_nothing_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text("", "utf-8")
    with scripted(otherwise=listing()) as server:
        code, (line,), _ = checked(tmp_path, [lane(server.base_url, "one")], capsys, "--spend")
    assert (code, state(line, "call")) == (0, "unknown")


def test_every_lane_is_asked_and_a_key_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(seen: Seen, _: int) -> Say:
        return (
            Say(401, refusal("bad"))
            if KEY in seen.headers.get("authorization", "")
            else Say(body={"data": []})
        )

    with scripted(otherwise=script) as server:
        lanes = [lane(server.base_url, "one"), lane(server.base_url, "two", api_key=KEY)]
        code, lines, _ = checked(tmp_path, lanes, capsys)
    assert code == 77
    assert [(line["lane"], line["code"]) for line in lines] == [("one", 69), ("two", 77)]


def test_simulated_lanes_are_started_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lanes = [
        {
            "provider": "simulator",
            "model": "any",
            "simulate": {"latency": {"median_s": 0}, "limits": {"rpm": 90}},
        }
    ]
    code, (line,), _ = checked(tmp_path, lanes, capsys, "--spend")
    assert code == 0
    assert {step: state(line, step) for step in line["findings"]} == dict.fromkeys(
        ("key", "model", "call", "limits"), "ok"
    )
    assert line["findings"]["limits"]["text"] == "90 requests a minute"


def test_a_missing_key_is_77_and_a_wrong_job_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = [{"provider": "openai", "model": "m", "api_key": "${NOT_SET_ANYWHERE}"}]
    code, _, err = checked(tmp_path, missing, capsys)
    assert code == 77
    assert "job.yaml:1:" in err
    assert "export NOT_SET_ANYWHERE=" in err
    code, _, err = checked(tmp_path, missing, capsys, "--set", "routing=sideways")
    assert code == 78
    assert "NOT_SET_ANYWHERE" in err
    assert "routing" in err
    assert invoke(["check", str(tmp_path / "none.yaml")]) == 66


def test_what_goes_wrong_before_the_lanes_is_told_to_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    (tmp_path / "job.yaml").write_text(
        json.dumps(job(tmp_path, [{"provider": "grok", "model": "m"}])), "utf-8"
    )
    assert invoke(["check", str(tmp_path / "job.yaml"), "--json"]) == 78
    assert json.loads(capsys.readouterr().out)["code"] == 78


def test_lanes_asked_beside_the_voters_are_checked_as_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --spend each gets the request that it would get, about answers that nobody has given yet."""

    def script(seen: Seen, _: int) -> Say:
        if seen.method == "GET":
            return MODELS
        if seen.path.endswith("/embeddings"):
            vector = {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}
            return Say(
                body={"data": [vector], "model": "sim", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
            )
        return Say(body=chat_reply("fine"))

    with scripted(otherwise=script) as server:
        names = ("a", "b", "judge", "vectors")
        lanes = {name: lane(server.base_url, name, api_key=KEY) for name in names}
        section = {
            "kind": "text",
            "judge": {
                "lane": {**lanes["judge"], "model": "gone"},
                "prompt": "{{ prompt }}: {{ candidates }}",
            },
            "similarity": {"threshold": 0.9, "embed": lanes["vectors"], "dimensions": 2},
        }
        more = {"routing": "all", "consensus": section}
        code, lines, _ = checked(tmp_path, [lanes["a"], lanes["b"]], capsys, "--spend", **more)
        bodies = {seen.path: seen for seen in server.seen if seen.method == "POST"}
        texts = [body["messages"][-1]["content"] for body in server.bodies() if "messages" in body]
    assert code == ExitCode.UNAVAILABLE
    assert [(line["lane"], line["place"]) for line in lines] == [
        ("a", "providers.0"),
        ("b", "providers.1"),
        ("vectors", "consensus.similarity.embed"),
        ("judge", "consensus.judge.lane"),
    ]
    assert state(lines[-1], "model") == "failed"
    assert [line["ok"] for line in lines] == [True, True, True, False]
    assert [state(line, "call") for line in lines] == ["ok"] * 4
    assert "/v1/embeddings" in bodies
    assert sorted(texts) == ["text number 0"] * 2 + ['text number 0: ["one answer", "another answer"]']


def test_a_refused_key_of_a_lane_beside_the_voters_is_named_at_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Say(401, refusal("no", code="invalid_api_key"))
    with scripted(otherwise=listing()) as server, scripted(otherwise=listing(get=refused)) as other:
        voters = [lane(server.base_url, name, api_key=KEY) for name in "ab"]
        section = {"ties": {"escalate": lane(other.base_url, "c", api_key=KEY)}}
        code, lines, _ = checked(tmp_path, voters, capsys, routing="all", consensus=section)
    assert code == ExitCode.NO_PERMISSION
    assert lines[2]["findings"]["key"]["remedy"].startswith("consensus.ties.escalate.api_key: check")


def test_a_lane_that_is_asked_in_ties_gets_the_request_that_the_voters_get(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(seen: Seen, _: int) -> Say:
        return MODELS if seen.method == "GET" else Say(body=chat_reply("fine"))

    with scripted(otherwise=script) as server:
        lanes = {name: lane(server.base_url, name, api_key=KEY) for name in ("a", "b", "arbiter")}
        section = {"kind": "text", "ties": {"escalate": {**lanes["arbiter"], "model": "other"}}}
        more = {"routing": "all", "consensus": section}
        code, lines, _ = checked(tmp_path, [lanes["a"], lanes["b"]], capsys, "--spend", **more)
        texts = [body["messages"][-1]["content"] for body in server.bodies() if "messages" in body]
    assert code == ExitCode.OK
    assert (lines[-1]["lane"], lines[-1]["place"]) == ("arbiter", "consensus.ties.escalate")
    assert state(lines[-1], "call") == "ok"
    assert texts == ["text number 0"] * 3


@pytest.mark.parametrize("width", [60, 100])
def test_the_table_fits_a_terminal_and_cuts_nothing(width: int) -> None:
    refused = Finding(
        Step.KEY, State.FAILED, "HTTP 401: [bold]no[/bold]", "check GROQ_API_KEY", ExitCode.NO_PERMISSION
    )
    report = LaneReport(
        "providers.0",
        "groq",
        "groq",
        "openai/gpt-oss-120b",
        (refused, Finding(Step.LIMITS, State.OK, "x " * 60)),
    )
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(as_table((report,)))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text.getvalue()
    assert "[bold]no[/bold]" in text.getvalue()
    assert "→ check GROQ_API_KEY" in text.getvalue()
    assert overall((report,)) == 77
