"""The constant server's configuration, and the job that is sent to it."""

import json
import re
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from batchllm.spec.loading import load_job
from benchmarks.servers import (
    SCHEMA,
    UNIQUE,
    chat_reply,
    constant_server,
    nginx_config,
    write_job,
    write_rows,
)


def config(reply: str = "{}", *, core: int | None = None, is_tls: bool = False) -> str:
    return nginx_config(8123, core=core, is_tls=is_tls, replies={"/v1/chat/completions": reply})


def test_one_worker_listens_on_loopback_only() -> None:
    text = config()
    assert "worker_processes 1;" in text
    assert re.findall(r"listen (\S+)", text) == ["127.0.0.1:8123"]


@pytest.mark.parametrize(("core", "mask"), [(0, "1"), (1, "10"), (3, "1000")])
def test_the_worker_s_core_is_a_mask_of_bits(core: int, mask: str) -> None:
    assert f"worker_cpu_affinity {mask};" in config(core=core)


def test_tls_is_off_unless_asked_for() -> None:
    assert "ssl" not in config()
    assert "127.0.0.1:8123 ssl" in config(is_tls=True)


def test_a_reply_is_quoted() -> None:
    assert r"""return 200 '{"text": "it\'s \\n"}';""" in config('{"text": "it\'s \\n"}')


def test_a_reply_that_nginx_would_change_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no way to write a \$"):
        config("costs $5")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_a_reply_of_any_length_is_answered_to_a_post() -> None:
    replies = {
        "/short/v1/embeddings": '{"a": 1}',
        "/long/v1/embeddings": '{"cost": "$' + "x" * 100_000 + '"}',
    }
    with constant_server(replies=replies) as server:
        for path, reply in replies.items():
            request = Request(server.url + path, data=b"{}", method="POST")  # noqa: S310 - loopback, http
            with urlopen(request, timeout=10) as answer:  # noqa: S310
                assert (answer.status, answer.read().decode()) == (200, reply)
                assert answer.headers["content-type"] == "application/json"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_what_is_unique_differs_in_each_answer() -> None:
    with constant_server(replies={"/v1": f"<{UNIQUE}>"}) as server:
        said = {urlopen(server.url + "/v1", timeout=10).read() for _ in range(3)}  # noqa: S310 - loopback
    assert len(said) == 3
    assert all(re.fullmatch(rb"<[0-9a-f]{32}>", one) for one in said)


def test_the_answer_is_a_chat_completion_with_usage() -> None:
    reply = json.loads(chat_reply("yes"))
    assert reply["choices"][0]["message"]["content"] == "yes"
    assert (
        reply["usage"]["total_tokens"]
        == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
    )


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_the_job_is_valid(tmp_path: Path, schema: dict[str, object] | None) -> None:
    write_rows(tmp_path / "rows.jsonl", 3)
    limits = {"rpm": 6000.0, "concurrency": 64}
    write_job(tmp_path / "job.yaml", "http://127.0.0.1:1/v1", limits=limits, schema=schema)
    job = load_job(tmp_path / "job.yaml", environ={}).job
    assert job.providers[0].limits.rpm == 6000.0
    assert job.providers[0].limits.concurrency == 64
    assert getattr(job.task, "answer_schema", None) == schema
