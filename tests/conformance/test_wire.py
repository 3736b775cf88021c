"""What runs put on the wire is what OpenAI's SDK puts there, and OpenAI's own document finds no fault with either.

Deviations on purpose are listed here, each with its reason; one that no case shows any more is a fault as well.
"""

import asyncio
import json
import tempfile
import urllib.error
import urllib.request
from array import array
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import openai
import polars as pl
import pytest
from conformance_cases import CASES, CLOSED, IMAGE, TEXT, WIDTH, Case, chat, json_schema, messages, user
from hypothesis import given, settings
from hypothesis import strategies as st
from job_rig import run, served, table
from openapi_rig import Document, openai_document
from tap_rig import Exchange, Tap, tapped

KEY = "sk-conformance"
#: Headers in which the two differ, and why. `x-stainless-` stands for all that begin with it.
HEADERS: Mapping[str, str] = {
    "user-agent": "says who really calls",
    "accept-encoding": "what each of them can unpack",
    "connection": "keep-alive is what HTTP/1.1 does without it",
    "x-stainless-": "telemetry of the SDK: platform, versions, retries, timeout",
}
#: What the SDK says of its own accord in `parse`, and every server assumes.
DEFAULTS: Mapping[str, object] = {"stream": False}
#: Numbers of a job are floats where OpenAI's document says number; JSON knows one kind only.
FLOATS = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})


class Oracle:
    """OpenAI's SDK, told to call the server behind the tap."""

    def __init__(self, stack: ExitStack, base_url: str) -> None:
        self._runner = stack.enter_context(asyncio.Runner())
        self._client = openai.AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0)
        stack.callback(lambda: self._runner.run(self._client.close()))

    def ask(self, case: Case) -> Any:
        """Its reading of the reply, of a stream its events; None for a refusal of a case that is not read."""
        try:
            return self._runner.run(self._asked(case))
        except openai.APIStatusError:
            if case.is_read:
                raise
            return None

    async def _asked(self, case: Case) -> Any:
        reply = await self._method(case)(model=case.model, **case.ask)
        return [event async for event in reply] if case.streams else reply

    def _method(self, case: Case) -> Callable[..., Awaitable[Any]]:
        client = self._client
        if isinstance(case.ask.get("response_format"), type):
            return client.chat.completions.parse
        return {
            "chat": client.chat.completions.create,
            "completion": client.completions.create,
            "embedding": client.embeddings.create,
            "moderation": client.moderations.create,
            "responses": client.responses.create,
        }[case.api]


@pytest.fixture(scope="module")
def tap() -> Iterator[Tap]:
    with served({"dimensions": WIDTH}) as (urls, _), tapped(urls[0]) as tap:
        yield tap


@pytest.fixture(scope="module")
def oracle(tap: Tap) -> Iterator[Oracle]:
    with ExitStack() as stack:
        yield Oracle(stack, f"{tap.url}/v1")


@pytest.fixture(scope="module")
def document() -> Document:
    return openai_document()


def ask_by_job(
    case: Case,
    tap: Tap,
    folder: Path,
    path: str = "/v1",
    *,
    input_name: str = "rows.jsonl",
    attempts: int = 1,
) -> pl.DataFrame:
    """Run the case as a job, and return its output. Its rows are written, unless their file is there already."""
    if not (folder / input_name).exists():
        lines = [json.dumps({"id": str(at), **row}) for at, row in enumerate(case.rows)]
        (folder / input_name).write_text("\n".join(lines))
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    lane = {
        "provider": "custom",
        "model": case.model,
        "base_url": f"{tap.url}{path}",
        "api_key": KEY,
        **case.lane,
    }
    job = {
        "name": "conformance",
        "input": {"path": input_name, "key": "id"},
        "task": dict(case.task),
        "providers": [lane],
        "retry": {"max_attempts": attempts, "backoff_s": 0.01},
        "output": {"path": str(folder / "out")},
    }
    run(folder, job, say=lambda _: None)
    return table(folder, "output")


class Call(NamedTuple):
    """One case, asked both ways: what went over the wire, our output and the SDK's reading of the reply."""

    ours: Exchange
    theirs: Exchange
    output: pl.DataFrame
    read: Any


class Bench:
    """Each case is asked once, whatever is tested of it."""

    def __init__(self, tap: Tap, oracle: Oracle, folder: Path) -> None:
        self._tap, self._oracle, self._folder = tap, oracle, folder
        self._calls: dict[str, Call] = {}

    def call(self, case: Case) -> Call:
        if case.name not in self._calls:
            folder = self._folder / str(len(self._calls))
            folder.mkdir()
            output = ask_by_job(case, self._tap, folder)
            (ours,) = self._tap.take()
            read = self._oracle.ask(case)
            (theirs,) = self._tap.take()
            self._calls[case.name] = Call(ours, theirs, output, read)
        return self._calls[case.name]


@pytest.fixture(scope="module")
def bench(tap: Tap, oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tap, oracle, tmp_path_factory.mktemp("cases"))


def differences(ours: Any, theirs: Any, place: str = "body") -> list[str]:
    """Kinds count as well as values: 40.0 is no whole number to a strict server."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = [f"{place}.{name}: only one of them sends it" for name in sorted(ours.keys() ^ theirs.keys())]
        for name in ours.keys() & theirs.keys():
            found += differences(ours[name], theirs[name], f"{place}.{name}")
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [text for at, pair in pairs for text in differences(*pair, f"{place}.{at}")]
    is_float = place.removeprefix("body.") in FLOATS
    if ours != theirs or (type(ours) is not type(theirs) and not is_float):
        return [f"{place}: {ours!r} is not {theirs!r}"]
    return []


def without_defaults(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in DEFAULTS or value != DEFAULTS[name]}


def header_differences(ours: Exchange, theirs: Exchange) -> set[str]:
    """Names of headers that only one of them sends, or sends with another value; families by what they begin with."""
    names = ours.headers.keys() | theirs.headers.keys()
    other = {name for name in names if ours.headers.get(name) != theirs.headers.get(name)}
    # Its value follows from the body, which is compared for itself.
    other.discard("content-length")
    return {next((known for known in HEADERS if name.startswith(known)), name) for name in other}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_job_s_call_is_the_sdk_s_call(case: Case, bench: Bench) -> None:
    call = bench.call(case)
    assert call.ours.target == call.theirs.target
    assert differences(call.ours.sent, without_defaults(call.theirs.sent)) == []
    assert header_differences(call.ours, call.theirs) <= HEADERS.keys()


@pytest.mark.parametrize("case", [case for case in CASES if case.is_read], ids=lambda case: case.name)
def test_what_a_job_reads_of_a_reply_is_what_the_sdk_reads(case: Case, bench: Bench) -> None:
    call = bench.call(case)
    assert call.output.height == len(case.rows)
    theirs = THEIR_STREAMS if case.streams else THEIR_READINGS
    assert READINGS[case.kind](call) == theirs[case.api](call)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_openai_s_document_finds_no_fault_with_a_call(case: Case, bench: Bench, document: Document) -> None:
    call = bench.call(case)
    path = call.ours.target.removeprefix("/v1")
    sent = call.ours.sent
    assert case.foreign <= sent.keys()
    described = {name: value for name, value in sent.items() if name not in case.foreign}
    assert document.request_faults(path, described) == []
    if call.ours.status != 200:
        assert not case.is_read
        return
    if case.streams and case.kind == "completion":  # the document describes whole ones only
        return
    if case.streams:
        media = "text/event-stream"
        assert [
            fault for one in events(call) for fault in document.reply_faults(path, one, media=media)
        ] == []
        return
    faults = document.reply_faults(path, call.ours.got)
    if sent.get("encoding_format") == "base64":  # the document describes vectors as lists of numbers only
        assert len(faults) == len(case.rows)
    else:
        assert faults == []


def test_an_answer_that_is_sent_back_is_the_conversation_that_it_says(oracle: Oracle, tmp_path: Path) -> None:
    """The second call of a repair, as the SDK sends the same conversation."""
    rules = [
        {"pattern": "Answer the same question again", "reply": '{"label": "yes"}'},
        {"pattern": ".", "reply": '{"label": "maybe"}'},
    ]
    case = chat("repair", {}, task={"schema": CLOSED})
    with served({"answers": rules}) as (urls, _), tapped(urls[0]) as tap:
        output = ask_by_job(case, tap, tmp_path, attempts=2)
        first, second = tap.take()
    assert output["label"].to_list() == ["yes"]
    assert 'label: "maybe" is not one of "yes" or "no"' in second.sent["messages"][2]["content"]
    turns = [{"role": "assistant", "content": '{"label": "maybe"}'}, second.sent["messages"][2]]
    assert second.sent == {**first.sent, "messages": [user(), *turns]}
    with served({"dimensions": WIDTH}) as (urls, _), tapped(urls[0]) as tap, ExitStack() as stack:
        told = {"messages": [user(), *turns], **json_schema(CLOSED, strict=True)}
        Oracle(stack, f"{tap.url}/v1").ask(chat("repair", {}, told))
        (theirs,) = tap.take()
    assert differences(second.sent, without_defaults(theirs.sent)) == []


@pytest.mark.parametrize("path", ["/v1/", "/openai/v1", "/a%20b/v1"])
def test_the_address_is_the_sdk_s_for_any_base_url(path: str, tap: Tap, tmp_path: Path) -> None:
    case = chat("base_url", {})
    ask_by_job(case, tap, tmp_path, path)
    (ours,) = tap.take()
    with ExitStack() as stack:
        Oracle(stack, f"{tap.url}{path}").ask(case)
    (theirs,) = tap.take()
    assert ours.target == theirs.target


@settings(max_examples=6)
@given(st.lists(st.text(st.characters(categories=(*"LMNPSZ", "Cc", "Cs", "Co")), min_size=1), min_size=1))
def test_any_text_arrives_as_the_sdk_s_does(tap: Tap, oracle: Oracle, texts: list[str]) -> None:
    """Half a surrogate pair is no text: it arrives as U+FFFD, where the SDK raises UnicodeEncodeError."""
    texts = [text for text in texts if text.strip()] or [TEXT]
    with tempfile.TemporaryDirectory() as name:
        case = replace(chat("texts", {}), rows=[{"text": text} for text in texts])
        ask_by_job(case, tap, Path(name))
    ours = [exchange.sent["messages"] for exchange in tap.take()]
    for text in texts:
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        oracle.ask(chat("text", {}, {"messages": [user(whole)]}))
    theirs = [exchange.sent["messages"] for exchange in tap.take()]
    assert sorted(ours, key=str) == sorted(theirs, key=str)


def test_conversations_of_parquet_have_no_nulls_that_nobody_wrote(
    tap: Tap, oracle: Oracle, tmp_path: Path
) -> None:
    """A struct of Parquet has each field in each row, at every depth."""
    link = {"type": "image_url", "image_url": {"url": "https://a.test/b"}}
    contents = [[{"type": "text", "text": TEXT}, link], [IMAGE]]
    talks = [[{"role": "user", "content": content}] for content in contents]
    image = pl.Struct({"url": pl.String, "detail": pl.String})
    part = pl.Struct({"type": pl.String, "text": pl.String, "image_url": image})
    talk = pl.List(pl.Struct({"role": pl.String, "content": pl.List(part)}))
    rows = [{"id": str(at), "talk": talk} for at, talk in enumerate(talks)]
    pl.DataFrame(rows, {"id": pl.String, "talk": talk}).write_parquet(tmp_path / "rows.parquet")
    ask_by_job(messages("parquet", []), tap, tmp_path, input_name="rows.parquet")
    ours = [exchange.sent for exchange in tap.take()]
    for given_messages in talks:
        oracle.ask(messages("parquet", given_messages))
    theirs = [exchange.sent for exchange in tap.take()]
    assert sorted(ours, key=str) == sorted(theirs, key=str)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", b"{"),
        ("/chat/completions", b'{"model": "m"}'),
        ("/embeddings", b'{"model": "m", "input": []}'),
        ("/nowhere", b"{}"),
    ],
)
def test_openai_s_document_finds_no_fault_with_a_refusal_of_the_simulator(
    path: str, body: bytes, tap: Tap, document: Document
) -> None:
    request = urllib.request.Request(f"{tap.url}/v1{path}", body, {"content-type": "application/json"})  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)  # noqa: S310
    refused.value.close()
    (exchange,) = tap.take()
    assert exchange.status in (400, 404)
    assert document.faults("ErrorResponse", exchange.got) == []


def test_the_document_finds_what_is_wrong(document: Document) -> None:
    """What it must not let pass, so that its silence means something."""
    good = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    assert document.request_faults("/chat/completions", good) == []
    for bad in (
        {"max_token": 4},
        {"max_tokens": 4.5},
        {"temperature": "0"},
        {"logit_bias": {"5": 0.5}},
        {"messages": []},
        {"messages": [{"role": "robot", "content": "a"}]},
        {"stop": ["a"] * 5},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
    ):
        assert document.request_faults("/chat/completions", {**good, **bad}), bad
    assert document.request_faults("/embeddings", {"input": "a"})
    assert document.reply_faults("/moderations", {"id": "1", "model": "m", "results": [{}]})


def _generated(call: Call) -> dict[str, object]:
    names = ("content", "finish_reason", "model", "prompt_tokens", "completion_tokens", *BESIDE)
    (row,) = call.output.select([name for name in names if name in call.output.columns]).to_dicts()
    for called in row.get("tool_calls", ()):
        assert called.pop("id") in call.ours.reply.decode()  # each reply has its own
    return row


def _sdk_generated(call: Call, text: str | None) -> dict[str, object]:
    reply, choice = call.read, call.read.choices[0]
    return {
        "content": text,
        "finish_reason": choice.finish_reason,
        "model": reply.model,
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        **{name: read(reply) for name, read in BESIDE.items() if name in call.output.columns},
    }


def _sdk_response(call: Call) -> dict[str, object]:
    """As a chat completion would have said it."""
    return _of_response(call.read, call)


def _of_response(reply: Any, call: Call) -> dict[str, object]:
    called = [item for item in reply.output if item.type == "function_call"]
    functions = [{"name": item.name, "arguments": item.arguments} for item in called]
    return {
        "content": None if called else reply.output_text,
        "finish_reason": "tool_calls" if called else "stop",
        "model": reply.model,
        "prompt_tokens": reply.usage.input_tokens,
        "completion_tokens": reply.usage.output_tokens,
        **({"tool_calls": functions} if "tool_calls" in call.output.columns else {}),
    }


def events(call: Call) -> list[Any]:
    """Of a stream that came."""
    lines = call.ours.reply.decode().splitlines()
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(data) for data in told if data != "[DONE]"]


def _sdk_chunks(call: Call) -> dict[str, object]:
    """What the pieces of a chat or a completion add up to."""
    chunks = call.read
    texts: dict[int, str] = {}
    called: dict[int, dict[str, str]] = {}
    reason = None
    for choice in [choice for chunk in chunks for choice in chunk.choices]:
        delta = getattr(choice, "delta", None)
        piece = choice.text if delta is None else delta.content
        texts[choice.index] = texts.get(choice.index, "") + (piece or "")
        for part in getattr(delta, "tool_calls", None) or ():
            kept = called.setdefault(part.index, {"name": "", "arguments": ""})
            kept["name"] += part.function.name or ""
            kept["arguments"] += part.function.arguments or ""
        reason = choice.finish_reason or reason
    beside = {
        "contents": [texts[index] for index in sorted(texts)],
        "tool_calls": [called[index] for index in sorted(called)],
    }
    return {
        "content": None if called else texts[0],
        "finish_reason": reason,
        "model": chunks[0].model,
        "prompt_tokens": chunks[-1].usage.prompt_tokens,
        "completion_tokens": chunks[-1].usage.completion_tokens,
        **{name: value for name, value in beside.items() if name in call.output.columns},
    }


def _calls(reply: Any) -> list[dict[str, str]]:
    functions = [call.function for call in reply.choices[0].message.tool_calls or ()]
    return [{"name": function.name, "arguments": function.arguments} for function in functions]


def _text_of(choice: Any) -> object:
    return choice.message.content if hasattr(choice, "message") else choice.text


#: Columns that only some jobs have.
BESIDE: Mapping[str, Callable[[Any], object]] = {
    "contents": lambda reply: [_text_of(choice) for choice in reply.choices],
    "tool_calls": _calls,
}


def _flags(call: Call) -> list[object]:
    rows = call.output.select("flagged", "categories", "scores").rows()
    return [(flagged, names, dict(scores)) for flagged, names, scores in rows]


def _float32(given: list[float] | str) -> list[float]:
    """What a vector's numbers are; as text they have more digits. base64 that was asked for is left to the caller."""
    numbers = array("f", b64decode(given)) if isinstance(given, str) else array("f", given)
    return numbers.tolist()


def _sdk_flags(call: Call) -> list[object]:
    found: list[object] = []
    for result in call.read.results:
        flags = result.categories.model_dump(by_alias=True)
        names = sorted(name for name, is_true in flags.items() if is_true)
        found.append((result.flagged, names, result.category_scores.model_dump(by_alias=True)))
    return found


READINGS: Mapping[str, Callable[[Call], object]] = {
    "chat": _generated,
    "completion": _generated,
    "embedding": lambda call: call.output["embedding"].to_list(),
    "moderation": _flags,
}
THEIR_READINGS: Mapping[str, Callable[[Call], object]] = {
    "chat": lambda call: _sdk_generated(call, call.read.choices[0].message.content),
    "completion": lambda call: _sdk_generated(call, call.read.choices[0].text),
    "embedding": lambda call: [_float32(item.embedding) for item in call.read.data],
    "moderation": _sdk_flags,
    "responses": _sdk_response,
}
THEIR_STREAMS: Mapping[str, Callable[[Call], object]] = {
    "chat": _sdk_chunks,
    "completion": _sdk_chunks,
    "responses": lambda call: _of_response(call.read[-1].response, call),
}
