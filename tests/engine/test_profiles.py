"""Whole jobs over real sockets against each provider's profile: the dialect that a lane speaks is what it takes."""

from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pytest

from batchllm.errors import ExitCode, JobError
from batchllm.simulate.call import Kind
from batchllm.simulate.profiles import PROFILES

ROWS = 6
CHATTING = [name for name in PROFILES if Kind.CHAT in PROFILES[name].kinds]
EMBEDDING = [name for name in PROFILES if PROFILES[name].widths]
LABEL = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
MODELS = {
    "xai": "grok-4.7",
    "azure": "gpt-5-nano",
    "openai": "gpt-5-nano",
    "fireworks": "accounts/fireworks/models/gpt-oss-20b",
    "together": "openai/gpt-oss-20b",
}


def lane(profile: str, model: str, **more: Any) -> dict[str, Any]:
    simulate = {"profile": profile, "latency": {"median_s": 0}, **more}
    return {"provider": "simulator", "name": profile, "model": model, "simulate": simulate}


def model_of(profile: str) -> str:
    return MODELS.get(
        profile, "m" if profile in {"vllm", "sglang", "llamacpp", "lmstudio", "ollama", "tgi"} else "fast"
    )


def run(folder: Path, task: dict[str, Any], lanes: list[dict[str, Any]], **more: Any) -> Any:
    rig.write_rows(folder / "rows.jsonl", ROWS)
    return rig.run(folder, rig.job(folder, lanes, task=task, **more))


@pytest.mark.parametrize("profile", CHATTING)
def test_a_chat_job_runs_against_each(profile: str, tmp_path: Path) -> None:
    params = {"max_tokens": 40, "seed": 7, "user": "u", "temperature": 1}
    task = {"type": "chat", "prompt": "{{ text }}", "params": params}
    summary = run(tmp_path, task, [lane(profile, model_of(profile))])
    assert (summary.exit_code, summary.ok, summary.is_simulated) == (ExitCode.OK, ROWS, True)
    usage = rig.table(tmp_path, "usage")
    thought = PROFILES[profile].thought_tokens if PROFILES[profile].usage != "plain" else 0
    assert usage["completion_tokens"].min() > thought
    if thought:
        assert usage["reasoning_tokens"].unique().to_list() == [thought]
    if PROFILES[profile].usage in {"xai", "openrouter"}:
        assert usage["cost_usd"].min() > 0
    contents = rig.table(tmp_path, "output").sort("row")["content"].to_list()
    assert [content.partition(": ")[2] for content in contents] == [f"text number {n}" for n in range(ROWS)]


@pytest.mark.parametrize(
    "profile", ["openai", "groq", "mistral", "deepseek", "openrouter", "anthropic", "tgi"]
)
def test_a_schema_is_asked_for_as_each_can_hold_to_it(profile: str, tmp_path: Path) -> None:
    task = {"type": "chat", "prompt": "{{ text }}", "schema": LABEL}
    answers = [{"pattern": "text number", "reply": {"label": "a"}}]
    summary = run(tmp_path, task, [lane(profile, model_of(profile), answers=answers)])
    assert summary.ok == ROWS
    assert rig.table(tmp_path, "output")["label"].unique().to_list() == ["a"]


TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("profile", "task"),
    [
        ("openai", {"params": {"n": 2, "logprobs": True, "top_logprobs": 2}}),
        ("together", {"params": {"n": 2, "logprobs": True, "top_logprobs": 2}}),
        ("fireworks", {"params": {"n": 2, "logprobs": True}}),
        ("mistral", {"params": {"n": 2}, "tools": [TOOL], "tool_choice": "required"}),
        ("groq", {"tools": [TOOL], "tool_choice": "required"}),
        ("deepseek", {"params": {"reasoning_effort": "none", "logprobs": True}}),
    ],
)
def test_choices_probabilities_and_tools_are_asked_for_in_each_one_s_words(
    profile: str, task: dict[str, Any], tmp_path: Path
) -> None:
    model = "gpt-4.1-nano" if profile == "openai" else model_of(profile)
    summary = run(tmp_path, {"type": "chat", "prompt": "{{ text }}", **task}, [lane(profile, model)])
    assert (summary.ok, summary.failed) == (ROWS, 0)
    output = rig.table(tmp_path, "output")
    params = task.get("params", {})
    if "n" in params:
        assert output["contents"].list.len().to_list() == [2] * ROWS
    if "logprobs" in params:
        assert output["logprobs"].list.len().min() > 0
    if "tools" in task:
        assert output["tool_calls"].list.len().min() > 0


@pytest.mark.parametrize("profile", EMBEDDING)
def test_an_embedding_job_runs_against_each(profile: str, tmp_path: Path) -> None:
    model, width = next(iter(PROFILES[profile].widths.items()))
    summary = run(tmp_path, {"type": "embedding", "text": "{{ text }}"}, [lane(profile, model)])
    assert (summary.exit_code, summary.ok) == (ExitCode.OK, ROWS)
    vectors = rig.table(tmp_path, "output")["embedding"]
    assert vectors.dtype == pl.Array(pl.Float32, width)
    assert len({tuple(vector) for vector in vectors.to_list()}) == ROWS


def test_signed_bytes_become_whole_numbers_that_point_the_same_way(tmp_path: Path) -> None:
    task = {"type": "embedding", "text": "{{ text }}", "dimensions": 256}
    for name, profile, model in (
        ("int8", "perplexity", "pplx-embed-v1-4b"),
        ("float", None, "pplx-embed-v1-4b"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        simulate = {"latency": {"median_s": 0}, **({"profile": profile} if profile else {})}
        run(folder, task, [{"provider": "simulator", "model": model, "simulate": simulate}])
    rows = zip(
        *(
            rig.table(tmp_path / name, "output").sort("row")["embedding"].to_list()
            for name in ("int8", "float")
        ),
        strict=True,
    )
    for coarse, fine in rows:
        assert all(number.is_integer() and -128 <= number <= 127 for number in coarse)
        assert (
            sum(a * b for a, b in zip(coarse, fine, strict=True)) / sum(a * a for a in coarse) ** 0.5 > 0.99
        )


@pytest.mark.parametrize("profile", ["openai", "mistral"])
def test_a_moderation_job_runs_against_each(profile: str, tmp_path: Path) -> None:
    run(tmp_path, {"type": "moderation", "text": "{{ text }}"}, [lane(profile, "fast")])
    assert rig.table(tmp_path, "output")["flagged"].to_list() == [False] * ROWS


def test_another_dialect_is_refused_by_a_strict_profile(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"seed": 7}}
    with rig.served({"profile": "mistral", "latency": {"median_s": 0}}) as (urls, _):
        strange, own = (
            rig.run(folder, rig.job(folder, [{**rig.lane(urls[0], "one"), **more}], task=task))
            for folder, more in (
                (made(tmp_path, "strange"), {}),
                (made(tmp_path, "own"), {"catalogue": {"dialect": "mistral"}}),
            )
        )
    assert (strange.ok, strange.exit_code) == (0, ExitCode.UNAVAILABLE)
    assert "Extra inputs are not permitted" in strange.ending + strange.remedy + str(strange.lanes)
    assert (own.ok, own.exit_code) == (ROWS, ExitCode.OK)


def made(folder: Path, name: str) -> Path:
    rig.write_rows(path_in(folder / name), ROWS)
    return folder / name


def path_in(folder: Path) -> Path:
    folder.mkdir()
    return folder / "rows.jsonl"


def test_a_job_keeps_to_a_profile_s_limits_by_its_own_words(tmp_path: Path) -> None:
    task = {"type": "chat", "prompt": "{{ text }}"}
    limits = {"concurrency": 2}
    lanes = [lane("deepseek", "fast", limits=limits), lane("together", "fast"), lane("openrouter", "fast")]
    summary = run(tmp_path, task, lanes, routing="spread")
    assert (summary.ok, summary.exit_code) == (ROWS, ExitCode.OK)


def test_what_a_profile_cannot_do_refuses_the_job_or_is_left_out(tmp_path: Path) -> None:
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"presence_penalty": 0.5}}
    with pytest.raises(JobError, match="mistral"):
        run(tmp_path, task, [lane("groq", "fast")])
    said: list[str] = []
    spec = rig.job(tmp_path, [lane("groq", "fast")], task=task, params_unsupported="drop")
    summary = rig.run(tmp_path, spec, say=said.append)
    assert summary.ok == ROWS
    assert sum("presence_penalty is not sent" in note for note in summary.notes) == 1


def test_a_users_file_that_moves_a_provider_makes_another_job(tmp_path: Path) -> None:
    """The same YAML, but other servers: the answers of one must not pass for the other's."""
    from batchllm.engine.local import execute
    from batchllm.engine.options import Options
    from batchllm.errors import ChangedJobError
    from batchllm.spec.loading import load_mapping

    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    spec = rig.job(tmp_path, [{"provider": "mine", "model": "m"}])
    file = tmp_path / "providers.toml"
    environ = {"BATCHLLM_STATE_DIR": str(tmp_path / "state"), "BATCHLLM_PROVIDERS": str(file)}
    quick = {"latency": {"median_s": 0}}
    with rig.served(quick, quick) as (urls, _):
        for url in urls:
            file.write_text(f'[providers.mine]\nextends = "custom"\nbase_url = "{url}"\n', "utf-8")
            loaded = load_mapping(spec, folder=tmp_path, environ=environ)
            options = Options(environ=environ)
            if url == urls[0]:
                assert execute(loaded, options).ok == ROWS
            else:
                with pytest.raises(ChangedJobError, match=r"lanes\.mine\.catalogue\.base_url"):
                    execute(loaded, options)


def test_another_model_that_answers_is_told_once(tmp_path: Path) -> None:
    """A gateway in a named provider's place, which answers with a model of its own."""
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    said: list[str] = []
    server = EchoServer("gpt-4.1-nano")
    with server as url:
        one = {"provider": "openai", "model": "gpt-4.1", "base_url": url, "api_key": "k"}
        summary = rig.run(tmp_path, rig.job(tmp_path, [one]), say=said.append)
    assert summary.ok == ROWS
    assert [line for line in said if "gpt-4.1-nano answers" in line] == [
        "openai: gpt-4.1 was asked for, and gpt-4.1-nano answers; the output's model column tells which"
    ]


class EchoServer:
    """Answers every chat with one model's name."""

    def __init__(self, model: str) -> None:
        import json
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                choice = {
                    "index": 0,
                    "message": {"role": "assistant", "content": "x"},
                    "finish_reason": "stop",
                }
                body = json.dumps({"model": model, "choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self.send_error(404)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> str:
        from threading import Thread

        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
