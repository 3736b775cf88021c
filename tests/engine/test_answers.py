"""What a chat's answer may hold beside text, over real sockets: asked for, kept, read back, read again."""

import json
from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from process_rig import killed
from script_rig import Reply, reply, scripted

from batchllm.engine.repair import Tools, reparse_job
from batchllm.errors import ExitCode, JobError
from batchllm.journal.audit import audit
from batchllm.plan import digest_of
from batchllm.spec.loading import load_mapping

ROOT = Path(__file__).parents[2]
ROWS = 24
FAST = {"latency": {"median_s": 0.001}}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
}
TOOLS = [
    {"function": {"name": "get_weather", "description": "Weather of a city", "parameters": WEATHER}},
    {"function": {"name": "get_time"}},
]
LABEL = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
PRICE = {"input": 1.0, "output": 2.0}


def chat(**more: Any) -> dict[str, Any]:
    return {"type": "chat", "prompt": "{{ text }}", **more}


def job(folder: Path, url: str, task: dict[str, Any], **more: Any) -> dict[str, Any]:
    return rig.job(folder, [rig.lane(url, "one", price=PRICE)], task=task, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    return tmp_path


def output(folder: Path) -> pl.DataFrame:
    return rig.table(folder, "output").sort("row")


def test_calls_of_tools_are_a_typed_column(folder: Path) -> None:
    with rig.served(FAST) as (urls, books):
        spec = job(folder, urls[0], chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False))
        rig.run(folder, spec, limit=10)
        done = rig.run(folder, spec)
        assert books[0].ledger.accepted == ROWS
    assert (done.exit_code, done.reused, done.is_complete) == (ExitCode.OK, 10, True)
    table = output(folder)
    assert set(table["content"]) == {None}
    assert set(table["finish_reason"]) == {"tool_calls"}
    for (call,) in table["tool_calls"].to_list():
        assert call["name"] == "get_weather"
        assert call["id"].startswith("call_")
        assert 1 <= json.loads(call["arguments"])["days"] <= 7
    flat = table.select("row", "tool_calls").explode("tool_calls").unnest("tool_calls")
    assert (
        flat["arguments"]
        .str.json_decode(pl.Struct({"days": pl.Int64}))
        .struct.field("days")
        .is_not_null()
        .all()
    )
    schema = pq.read_table(folder / "out" / "output").schema
    assert schema.field("tool_calls").type.value_type.field("arguments").type == pa.string()
    assert audit(folder / "out").is_whole


def test_calls_that_were_kept_survive_a_kill(folder: Path) -> None:
    with rig.served({"latency": {"median_s": 0.02}}) as (urls, books):
        spec = job(folder, urls[0], chat(tools=TOOLS, tool_choice="required", params={"n": 2}))
        spec["providers"][0]["limits"] = {"concurrency": 2}
        (folder / "job.yaml").write_text(json.dumps(spec), "utf-8")
        assert killed(folder / "job.yaml", lambda: books[0].ledger.answered >= 8) is None
        done = rig.run(folder, spec)
        bought = books[0].ledger.accepted
    assert done.is_complete
    assert done.reused >= 4
    assert bought <= ROWS + 2
    table = output(folder)
    assert table["row"].to_list() == list(range(ROWS))
    assert all(len(calls) == 1 for calls in table["tool_calls"].to_list())
    assert all(texts == [None, None] for texts in table["contents"].to_list())
    assert audit(folder / "out").is_whole


def test_a_model_may_call_or_answer_and_only_answers_are_judged(folder: Path) -> None:
    task = chat(tools=TOOLS, schema=LABEL)
    with rig.served(FAST) as (urls, books):
        rig.run(folder, job(folder, urls[0], task))
        table = output(folder)
        asked = books[0].ledger.accepted
        called = table.filter(pl.col("tool_calls").list.len() > 0)
        answered = table.filter(pl.col("tool_calls").list.len() == 0)
        assert 0 < called.height < ROWS
        assert called["label"].is_null().all()
        assert called["content"].is_null().all()
        assert set(answered["label"]) == {"a", "b"}
        changed = {**LABEL, "properties": {"label": {"enum": ["b", "c"]}}}
        spec = job(folder, urls[0], chat(tools=TOOLS, schema=changed))
        done = reparse_job(load_mapping(spec, folder=folder, environ={}), Tools(environ={}))
        assert done.turned_down == answered.filter(pl.col("label") == "a").height
        assert done.answers == ROWS - done.turned_down
        assert output(folder).filter(pl.col("tool_calls").list.len() > 0).equals(called)
        back = job(folder, urls[0], task)
        again = reparse_job(load_mapping(back, folder=folder, environ={}), Tools(environ={}))
        assert again.became_answers == done.turned_down
        assert books[0].ledger.accepted == asked
    recovered = output(folder)
    assert recovered["label"].equals(table["label"])
    # That a tool was not called is not told in failures/.
    assert recovered["tool_calls"].null_count() == done.turned_down
    assert audit(folder / "out").is_whole


def test_arguments_that_are_no_json_are_sent_back_and_asked_for_anew(folder: Path) -> None:
    bad = [{"pattern": r"number [0-4]\b", "reply": "{days: soon"}]
    task = chat(tools=TOOLS, tool_choice="required")
    with rig.served({**FAST, "answers": bad}) as (urls, books):
        done = rig.run(folder, job(folder, urls[0], task))
        assert books[0].ledger.accepted == ROWS + 10
        rig.run(folder, job(folder, urls[0], task), retries_failed=True)
        assert books[0].ledger.accepted == ROWS + 25
    assert (done.ok, done.failed) == (ROWS - 5, 5)
    failures = rig.table(folder, "failures")
    assert set(failures["class"]) == {"malformed_tool_call"}
    for text in failures["content"]:
        (call,) = json.loads(text)
        assert (call["name"], call["arguments"]) == ("get_weather", "{days: soon")
    usage = rig.table(folder, "usage").filter(pl.col("row") == 0)
    assert set(usage["class"]) == {"malformed_tool_call"}
    assert set(usage["billed"]) == {"yes"}


def test_arguments_that_break_the_parameters_are_mended(folder: Path) -> None:
    rules = [
        {
            "pattern": "What you called cannot be used: .*days: 9 is greater",
            "reply": '{"city": "Rome", "days": 2}',
        },
        {"pattern": r"number [0-4]\b", "reply": '{"city": "Rome", "days": 9}'},
    ]
    task = chat(tools=TOOLS, tool_choice={"function": {"name": "get_weather"}})
    with rig.served({**FAST, "answers": rules}) as (urls, books):
        done = rig.run(folder, job(folder, urls[0], task))
        assert books[0].ledger.accepted == ROWS + 5
    assert (done.ok, done.failed) == (ROWS, 0)
    assert [json.loads(calls[0]["arguments"])["days"] for calls in output(folder)["tool_calls"].head(5)] == [
        2
    ] * 5


def test_several_answers_to_a_row_are_paid_once_and_stand_together(folder: Path) -> None:
    task = chat(params={"n": 3, "max_tokens": 40})
    with rig.served(FAST) as (urls, books):
        done = rig.run(folder, job(folder, urls[0], task, budget={"usd": 1.0}))
        assert books[0].ledger.accepted == ROWS
        told = books[0].ledger.completion_tokens
    assert done.is_complete
    table = output(folder)
    assert all(len(set(texts)) == 3 for texts in table["contents"].to_list())
    assert [texts[0] for texts in table["contents"].to_list()] == table["content"].to_list()
    assert table["completion_tokens"].sum() == told
    assert rig.table(folder, "usage").height == ROWS


def test_a_budget_reserves_for_each_of_several_answers(folder: Path) -> None:
    """One answer of 1,000 tokens costs at most 0.002 USD: three of them do not fit into 0.005."""
    with rig.served(FAST) as (urls, books):
        one = job(folder, urls[0], chat(params={"n": 1, "max_tokens": 1000}), budget={"usd": 0.005})
        assert rig.run(folder, one, limit=1).ok == 1
        three = chat(params={"n": 3, "max_tokens": 1000})
        spec = job(folder, urls[0], three, budget={"usd": 0.005}, output={"path": str(folder / "three")})
        assert rig.run(folder, spec, limit=1).exit_code == ExitCode.LIMIT_STOPPED
        assert books[0].ledger.accepted == 1


def test_a_server_that_ignores_n_fails_its_rows_with_what_it_said(folder: Path) -> None:
    with scripted(lambda _body, _number: reply({"content": "only one"})) as server:
        done = rig.run(folder, job(folder, server.url, chat(params={"n": 2})), limit=3)
        assert len(server.bodies) == 3
        assert server.bodies[0]["n"] == 2
    assert done.failed == 3
    failures = rig.table(folder, "failures")
    assert set(failures["class"]) == {"capability_missing"}
    assert set(failures["content"]) == {"only one"}
    assert all("params.n" in text for text in failures["message"])


@pytest.mark.parametrize("provider", ["custom", "together"])
def test_log_probabilities_are_typed_whichever_form_they_come_in(folder: Path, provider: str) -> None:
    task = chat(params={"logprobs": True, "top_logprobs": 2})
    with rig.served(FAST) as (urls, _):
        lane = rig.lane(urls[0], "one", provider=provider)
        rig.run(folder, rig.job(folder, [lane], task=task), limit=4)
    table = output(folder)
    for content, tokens in table.select("content", "logprobs").iter_rows():
        assert "".join(token["token"] for token in tokens) == content
        assert all(token["logprob"] == -0.125 * len(token["token"]) for token in tokens)
        assert all(
            [top["token"] for top in token["top"]] == [token["token"], token["token"] + "?"]
            for token in tokens
        )
    means = table.select(pl.col("logprobs").list.eval(pl.element().struct.field("logprob")).list.mean())
    assert (means.to_series() < 0).all()


def test_thoughts_and_sources_are_columns_when_asked_for(folder: Path) -> None:
    task = chat(
        params={"reasoning_effort": "low"},
        include=["reasoning", "citations", "search_results", "annotations"],
    )
    with rig.served(FAST) as (urls, _):
        lane = rig.lane(urls[0], "one", extra_body={"web_search_options": {}})
        rig.run(folder, rig.job(folder, [lane], task=task), limit=4)
    table = output(folder)
    assert table["reasoning"].to_list() == [f"I think of: text number {row}" for row in range(4)]
    assert (rig.table(folder, "usage")["reasoning_tokens"] > 0).all()
    assert table["citations"].to_list() == [["https://example.com/simulated"]] * 4
    assert table["search_results"].to_list()[0][0]["date"] == "2026-01-01"
    assert table["annotations"].to_list()[0][0]["end_index"] == len(table["content"][0])


def test_what_is_not_told_is_null_and_costs_no_answer(folder: Path) -> None:
    task = chat(
        params={"logprobs": True}, include=["reasoning", "citations", "search_results", "annotations"]
    )
    with rig.served(FAST) as (urls, _):
        lane = rig.lane(urls[0], "one", omit=["logprobs"])
        assert rig.run(folder, rig.job(folder, [lane], task=task), limit=3).ok == 3
    table = output(folder)
    for name in ("logprobs", "reasoning", "citations", "search_results", "annotations"):
        assert table[name].null_count() == 3


def test_each_lane_s_calls_stand_in_its_own_line(folder: Path) -> None:
    with rig.served({**FAST, "seed": 1}, {**FAST, "seed": 2}) as (urls, _):
        lanes = [rig.lane(url, name) for url, name in zip(urls, ("one", "two"), strict=True)]
        spec = rig.job(folder, lanes, task=chat(tools=TOOLS, tool_choice="required"), routing="all")
        assert rig.run(folder, spec).is_complete
    table = rig.table(folder, "output")
    assert table.select("row", "lane").rows() == [
        (row, lane) for row in range(ROWS) for lane in ("one", "two")
    ]
    pivoted = table.pivot("lane", index="row", values="tool_calls")
    assert pivoted.height == ROWS
    assert all(one != two for one, two in pivoted.select("one", "two").iter_rows())


def test_a_row_that_asks_the_same_has_the_same_calls(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{n}", "text": f"text number {n % 4}"}) for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    with rig.served(FAST) as (urls, books):
        task = chat(tools=TOOLS, tool_choice="required", params={"n": 2})
        rig.run(tmp_path, job(tmp_path, urls[0], task, dedupe=True))
        assert books[0].ledger.accepted == 4
    table = output(tmp_path)
    assert table["tool_calls"][0].to_list() == table["tool_calls"][8].to_list()
    assert table["contents"][1].to_list() == table["contents"][5].to_list()


def test_an_answer_that_breaks_the_schema_is_sent_back_once(folder: Path) -> None:
    answers = [
        {"pattern": "not by the schema: label", "reply": {"label": "a"}},
        {"pattern": ".", "reply": {"label": "z"}},
    ]
    with rig.served({**FAST, "answers": answers}) as (urls, books):
        spec = job(folder, urls[0], chat(schema=LABEL, params={"max_tokens": 40}), budget={"usd": 1.0})
        done = rig.run(folder, spec)
        assert books[0].ledger.accepted == 2 * ROWS
    assert (done.ok, done.failed) == (ROWS, 0)
    table = output(folder)
    assert set(table["label"]) == {"a"}
    assert set(table["attempts"]) == {2}
    first = digest_of("chat", [{"role": "user", "content": "text number 0"}]).hex()
    assert table["request_hash"][0] == first
    usage = rig.table(folder, "usage").filter(pl.col("row") == 0).sort("started_at")
    assert usage["class"].to_list() == ["schema_mismatch", None]
    assert usage["prompt_tokens"][1] > usage["prompt_tokens"][0]


def test_the_turn_back_holds_the_answer_and_what_is_wrong(folder: Path) -> None:
    def script(_body: Reply, _number: int) -> Reply:
        return reply({"content": '{"label": "z"}'})

    with scripted(script) as server:
        rig.run(folder, job(folder, server.url, chat(schema=LABEL)), limit=1)
        asked = [body["messages"] for body in server.bodies]
    question = {"role": "user", "content": "text number 0"}
    assert asked[0] == asked[2] == [question]  # the last time as at first
    assert asked[1][:2] == [question, {"role": "assistant", "content": '{"label": "z"}'}]
    assert 'not by the schema: label: "z" is not one of' in asked[1][2]["content"]
    assert len(asked) == 3  # paid questions after the first one are two at most
    assert rig.table(folder, "failures")["class"].to_list() == ["schema_mismatch"]


def test_without_repair_a_row_is_asked_as_it_was(folder: Path) -> None:
    with scripted(lambda _body, _number: reply({"content": "no"})) as server:
        rig.run(folder, job(folder, server.url, chat(schema=LABEL, repair=False)), limit=1)
        asked = [body["messages"] for body in server.bodies]
    assert asked[0] == asked[1] == asked[2]


LONG = "one two three four five six"  # 27 bytes are 7 tokens


@pytest.mark.parametrize(("cap", "finish", "ok"), [(4, "stop", 1), (2, "length", 0)])
def test_a_cut_answer_is_asked_once_more_with_twice_the_limit(
    folder: Path, cap: int, finish: str, ok: int
) -> None:
    task = chat(params={"max_tokens": cap}, truncated="grow")
    with rig.served({**FAST, "answers": [{"pattern": ".", "reply": LONG}]}) as (urls, books):
        done = rig.run(folder, job(folder, urls[0], task), limit=1)
        assert books[0].ledger.accepted == 2
    assert (done.ok, done.failed) == (ok, 1 - ok)
    if ok:
        assert output(folder).select("content", "finish_reason").rows() == [(LONG, finish)]
    else:
        assert rig.table(folder, "failures").select("class", "content").rows() == [("truncated", LONG[:16])]
    usage = rig.table(folder, "usage").sort("started_at")
    assert usage["class"][0] == "truncated"
    assert usage["completion_tokens"].to_list() == [cap, 7 if ok else 2 * cap]


def test_a_budget_reserves_for_the_larger_answer(folder: Path) -> None:
    """The first call costs at most 0.0022 USD and the second 0.0042; 0.004 is enough for the first one only."""
    task = chat(params={"max_tokens": 1000}, truncated="grow")
    cut = lambda _body, _number: reply({"content": "so"}, finish="length")  # noqa: E731
    with scripted(cut) as server:
        spec = job(folder, server.url, task, budget={"usd": 0.004})
        done = rig.run(folder, spec, limit=1)
        assert [body["max_tokens"] for body in server.bodies] == [1000]
    assert done.exit_code == ExitCode.LIMIT_STOPPED


def test_to_grow_there_must_be_a_limit(folder: Path) -> None:
    with pytest.raises(JobError, match=r"task\.truncated: grow doubles the output cap"):
        rig.run(folder, job(folder, "http://127.0.0.1:9/v1", chat(truncated="grow")))


@pytest.mark.parametrize(("filtered", "ok"), [("keep", 2), ("fail", 0)])
def test_what_a_content_filter_left_is_an_answer_or_is_not(folder: Path, filtered: str, ok: int) -> None:
    def script(body: Reply, _number: int) -> Reply:
        text = "so far" if "number 2" not in body["messages"][0]["content"] else ""
        return reply({"content": text}, finish="content_filter")

    with scripted(script) as server:
        first = job(folder, server.url, chat(filtered=filtered))
        done = rig.run(folder, first, limit=3)
        other = job(folder, server.url, chat(filtered="fail" if ok else "keep"))
        again = reparse_job(load_mapping(other, folder=folder, environ={}), Tools(environ={}))
        assert len(server.bodies) == 3
    assert (done.ok, done.failed) == (ok, 3 - ok)
    assert (again.turned_down, again.became_answers) == ((2, 0) if ok else (0, 2))
    reasons = rig.table(folder, "output")["finish_reason"].to_list()
    assert reasons == ([] if ok else ["content_filter"] * 2)
    assert set(rig.table(folder, "failures")["class"]) == {"content_filter"}


def test_a_refusal_is_no_answer_and_its_words_are_kept(folder: Path) -> None:
    said = {"content": None, "refusal": "I will not."}
    with scripted(lambda _body, _number: reply(said)) as server:
        rig.run(folder, job(folder, server.url, chat(include=["reasoning"])), limit=1)
        assert len(server.bodies) == 1
    assert rig.table(folder, "failures").select("class", "content").rows() == [("refusal", "I will not.")]


def test_what_was_paid_for_is_kept_when_the_next_call_brings_nothing(folder: Path) -> None:
    def script(_body: Reply, number: int) -> Reply:
        if number == 0:
            return reply({"content": "paid for"})
        return {"error": {"message": "no such thing", "type": "invalid_request_error", "code": None}}

    with scripted(script) as server:
        spec = job(folder, server.url, chat(schema=LABEL))
        rig.run(folder, {**spec, "retry": {"max_attempts": 2, "backoff_s": 0.01}}, limit=1)
        assert len(server.bodies) == 2
    assert rig.table(folder, "failures")["content"].to_list() == ["paid for"]
