"""Jobs that ask by the Responses API."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from job_rig import job, lane, run, served, table, write_rows

from batchllm.client import connect
from batchllm.errors import ChangedJobError, JobError

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
QUICK = {"latency": {"median_s": 0.001}}
#: What Perplexity's SDK sends; everything else is answered with 400.
KNOWN = frozenset(
    [
        "background",
        "input",
        "instructions",
        "language_preference",
        "max_output_tokens",
        "max_steps",
        "model",
        "models",
        "preset",
        "reasoning",
        "response_format",
        "stream",
        "tools",
    ]
)


class Perplexity(BaseHTTPRequestHandler):
    """As strict as the real one, and as it spells its replies."""

    protocol_version = "HTTP/1.1"
    bodies: list[dict[str, Any]] = []  # noqa: RUF012 - each test has a class of its own

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.bodies.append(body)
        unknown = sorted(body.keys() - KNOWN)
        if self.path != "/v1/responses":
            self._send(404, {"error": {"message": f"no route {self.path}"}})
        elif unknown:
            self._send(
                400, {"error": {"message": f"unknown field {unknown[0]!r}", "type": "invalid_request"}}
            )
        elif body.get("stream"):
            self._stream(self._answer(body))
        else:
            self._send(200, self._answer(body))

    def _answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        text = f"You asked: {body['input'][-1]['content']} [1]"
        found = [{"id": 1, "url": "https://example.com/one", "title": "One", "snippet": "..."}]
        return {
            "id": "resp_1",
            "created_at": 1,
            "object": "response",
            "model": body.get("model", "preset's own"),
            "status": "completed",
            "output": [
                {"type": "search_results", "queries": ["q"], "results": found},
                {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}],
                },
            ],
            "usage": {
                "input_tokens": 9,
                "output_tokens": 5,
                "total_tokens": 14,
                "cost": {"currency": "USD", "input_cost": 0.0, "output_cost": 0.0, "total_cost": 0.0053},
            },
        }

    def _stream(self, whole: dict[str, Any]) -> None:
        """The last event leaves the response out, which is optional there."""
        search, message = whole.pop("output")
        opened = {**whole, "status": "in_progress", "output": []}
        usage = opened.pop("usage")
        text = message["content"][0]["text"]
        events = [
            {"type": "response.created", "response": opened},
            {"type": "response.reasoning.search_results", "results": search["results"], "usage": None},
            *({"type": "response.output_text.delta", "output_index": 0, "delta": word} for word in text),
            {"type": "response.output_item.done", "output_index": 0, "item": message},
            {"type": "response.in_progress", "response": {"usage": usage}},
            {"type": "response.completed"},
        ]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for event in events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    def _send(self, status: int, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def perplexity() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """A lane to it, and the bodies that it got."""
    bodies: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Perplexity,), {"bodies": bodies}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield {"provider": "perplexity", "base_url": url, "api_key": "pplx-canary"}, bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("streams", [False, True])
def test_perplexity_answers_a_chat_job(streams: bool, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 2)
    task = {
        "type": "chat",
        "system": "Be brief.",
        "prompt": "{{ text }}",
        "params": {"max_tokens": 50, "seed": 1},
    }
    with perplexity() as (one, bodies):
        lanes = [{**one, "model": "perplexity/sonar", "extra_body": {"tools": [{"type": "web_search"}]}}]
        summary = run(tmp_path, job(tmp_path, lanes, task=task, stream=streams))
    assert summary.exit_code == 0
    rows = table(tmp_path, "output").sort("row").to_dicts()
    assert [row["content"] for row in rows] == [f"You asked: text number {n} [1]" for n in range(2)]
    assert {row["cost_usd"] for row in rows} == {0.0053}
    assert {(row["prompt_tokens"], row["completion_tokens"], row["model"]) for row in rows} == {
        (9, 5, "perplexity/sonar")
    }
    assert bodies[0] == {
        "model": "perplexity/sonar",
        "input": [{"type": "message", "role": "user", "content": bodies[0]["input"][0]["content"]}],
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "tools": [{"type": "web_search"}],
        **({"stream": True} if streams else {}),
    }


def test_a_preset_is_named_like_a_model(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    with perplexity() as (one, bodies):
        assert run(tmp_path, job(tmp_path, [{**one, "model": "low"}])).exit_code == 0
    assert bodies[0]["preset"] == "low"
    assert "model" not in bodies[0]


def test_what_the_api_cannot_do_is_told_before_the_first_call(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"stop": "x", "presence_penalty": 1.0}}
    with served(QUICK) as (urls, books):
        with pytest.raises(JobError) as caught:
            run(tmp_path, job(tmp_path, [lane(urls[0], "one", api="responses")], task=task))
        assert books[0].ledger.accepted == 0
    assert {fault.path for fault in caught.value.faults} == {
        "task.params.stop",
        "task.params.presence_penalty",
    }


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"task": {"type": "completion", "prompt": "{{ text }}"}}, "providers.0.api", "completion"),
        (
            {"providers": [{"provider": "groq", "model": "fast", "api_key": "k", "api": "responses"}]},
            "providers.0.api",
            "catalogue: {apis: [responses]}",
        ),
        (
            {"providers": [{"provider": "perplexity", "model": "fast", "api_key": "k", "api": "chat"}]},
            "providers.0.api",
            "responses",
        ),
        ({"task": {"type": "moderation", "text": "{{ text }}"}, "stream": True}, "stream", "whole"),
    ],
)
def test_an_api_that_is_not_there_is_a_fault_of_the_job(
    tmp_path: Path, changes: dict[str, Any], path: str, words: str
) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    lanes = [lane("http://127.0.0.1:9/v1", "one", api="responses")]
    if "stream" in changes:
        lanes = [lane("http://127.0.0.1:9/v1", "one")]
    with pytest.raises(JobError) as caught:
        run(tmp_path, {**job(tmp_path, lanes), **changes})
    (fault,) = caught.value.faults
    assert fault.path == path
    assert words in f"{fault.message} {fault.remedy}"


def test_a_schema_is_kept_to(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 5)
    task = {"type": "chat", "prompt": "{{ text }}", "schema": SCHEMA}
    with served(QUICK) as (urls, _):
        assert run(tmp_path, job(tmp_path, [lane(urls[0], "one", api="responses")], task=task)).exit_code == 0
    assert set(table(tmp_path, "output")["label"]) <= {"a", "b"}


def test_an_answer_that_the_cap_cut_says_so(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 2}}
    with served(QUICK) as (urls, _):
        run(tmp_path, job(tmp_path, [lane(urls[0], "one", api="responses")], task=task))
    assert table(tmp_path, "output")["finish_reason"].to_list() == ["length"]


def test_both_apis_of_one_server_give_the_same_answers(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 5)
    with served(QUICK) as (urls, _):
        lanes = [lane(urls[0], "chat"), lane(urls[0], "responses", api="responses")]
        run(tmp_path, job(tmp_path, lanes, routing="all"))
    answers = table(tmp_path, "output").partition_by("lane", as_dict=True)
    assert answers["chat",]["content"].to_list() == answers["responses",]["content"].to_list()


def test_another_api_is_another_question(tmp_path: Path) -> None:
    """Finished rows are not reused without consent."""
    write_rows(tmp_path / "rows.jsonl", 1)
    with served(QUICK) as (urls, _):
        run(tmp_path, job(tmp_path, [lane(urls[0], "one")]))
        run(tmp_path, job(tmp_path, [lane(urls[0], "one", api="chat")]))  # says what was meant anyway
        with pytest.raises(ChangedJobError, match=r"api"):
            run(tmp_path, job(tmp_path, [lane(urls[0], "one", api="responses")]))


def test_the_client_asks_perplexity_too() -> None:
    """What it streams elsewhere comes whole."""
    with perplexity() as (one, bodies), connect(**one) as client:
        answer = client.chat("Why?", model="perplexity/sonar")
        pieces = list(client.chat("Why?", model="perplexity/sonar", stream=True))
    assert answer.content == "You asked: Why? [1]"
    assert answer.cost_usd == 0.0053
    assert "".join(pieces) == answer.content
    assert bodies[0]["model"] == "perplexity/sonar"
