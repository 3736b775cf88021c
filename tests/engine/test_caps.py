"""Answers that may not be as long as a job wants them."""

from pathlib import Path
from typing import Any

from job_rig import job, lane, run, table, write_rows
from server_rig import Say, Seen, chat_reply, refusal, scripted

CAP = 8192


def capped(seen: Seen, number: int) -> Say:
    asked = seen.body["max_tokens"]
    if asked <= CAP:
        return Say(body=chat_reply("fine"))
    said = f"max_tokens is too large: {asked}. This model supports at most {CAP} completion tokens."
    return Say(400, refusal(said))


def spec(folder: Path, url: str, **params: Any) -> dict[str, Any]:
    task = {"type": "chat", "prompt": "{{ text }}", "params": params, "truncated": "grow"}
    return job(folder, [lane(url, "one", limits={"concurrency": 4})], task=task)


def test_a_cap_above_the_provider_s_is_lowered_once_for_the_lane(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 12)
    said: list[str] = []
    with scripted(otherwise=capped) as server:
        summary = run(tmp_path, spec(tmp_path, server.base_url, max_tokens=100_000), say=said.append)
        caps = [body["max_tokens"] for body in server.bodies()]
    assert summary.exit_code == 0
    assert caps.count(100_000) <= 4
    assert caps.count(CAP) == 12
    assert [text for text in said if "at most 8,192 tokens here, not 100,000" in text] == [
        "one: answers have at most 8,192 tokens here, not 100,000: that is asked for from now on"
    ]
    assert set(table(tmp_path, "usage")["class"].drop_nulls()) == {"capability_missing"}


def test_what_was_cut_grows_up_to_the_provider_s_cap(tmp_path: Path) -> None:
    def cut(seen: Seen, number: int) -> Say:
        reply = capped(seen, number)
        if seen.body["max_tokens"] < CAP and reply.status == 200:
            body = chat_reply("so fa")
            body["choices"][0]["finish_reason"] = "length"
            return Say(body=body)
        return reply

    write_rows(tmp_path / "rows.jsonl", 1)
    with scripted(otherwise=cut) as server:
        summary = run(tmp_path, spec(tmp_path, server.base_url, max_tokens=5000))
        caps = [body["max_tokens"] for body in server.bodies()]
    assert (summary.exit_code, caps) == (0, [5000, 10_000, CAP])


def test_a_server_that_refuses_what_it_named_itself_is_given_up(tmp_path: Path) -> None:
    said = refusal(
        f"max_tokens is too large. This model supports at most {CAP} completion tokens: max_tokens at most {CAP} tokens"
    )
    write_rows(tmp_path / "rows.jsonl", 30)
    with scripted(Say(400, said)) as server:
        summary = run(tmp_path, spec(tmp_path, server.base_url, max_tokens=100_000))
        assert len(server.bodies()) < 30
    assert summary.exit_code == 69
    assert table(tmp_path, "output").height == 0
