from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.provider.verdict import CONTENT_CHARS, judge
from batchllm.records import (
    Action,
    Answer,
    AnswerValue,
    Billed,
    Failure,
    FailureCode,
    Reading,
    Request,
    Response,
    Row,
    RowRef,
    Usage,
)

KEY = "topsecret-0123456789"
CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "gpt-x-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}
READING = Reading((Answer("yes", "stop"),), Usage(10, 2))


class FakeTask:
    """Reads what it is told to, and keeps what it was shown."""

    kind = "chat"
    path = "/chat/completions"
    content_field = "messages"
    is_packed = False
    answer_fields: tuple[pa.Field, ...] = ()
    template_columns: frozenset[str] = frozenset()

    def __init__(self, verdict: Reading | Failure | Exception = READING) -> None:
        self.verdict = verdict
        self.replies: list[object] = []

    def content(self, row: Row) -> object:
        raise NotImplementedError

    def texts(self, content: object) -> Sequence[str]:
        raise NotImplementedError

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        raise NotImplementedError

    def read(self, reply: object, request: Request) -> Reading | Failure:
        self.replies.append(reply)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def request(rows: int = 1) -> Request:
    refs = tuple(RowRef(ordinal, None, b"[]") for ordinal in range(rows))
    return Request(refs, ["x"] * rows, (10,) * rows, (b"d" * 16,) * rows)


def seen(
    body: bytes | Mapping[str, object],
    task: FakeTask | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    dialect: str = "openai",
    rows: int = 1,
) -> Reading | Failure:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    response = Response(status, headers or {}, raw, 0.1)
    return judge(response, request(rows), task or FakeTask(), dialect=dialect, secrets=[KEY])


def accepted(*args: Any, **options: Any) -> Reading:
    verdict = seen(*args, **options)
    assert isinstance(verdict, Reading), verdict
    return verdict


def refused(*args: Any, **options: Any) -> Failure:
    verdict = seen(*args, **options)
    assert isinstance(verdict, Failure), verdict
    assert KEY not in verdict.message
    assert KEY not in (verdict.content or "")
    return verdict


class TestAnswer:
    def test_task_reads_the_parsed_reply(self) -> None:
        task = FakeTask()
        assert accepted(CHAT, task).answers == READING.answers
        assert task.replies == [CHAT]

    @pytest.mark.parametrize("status", [200, 201, 206])
    def test_every_success_is_read(self, status: int) -> None:
        assert accepted(CHAT, status=status).answers == READING.answers

    def test_echoed_model_is_kept(self) -> None:
        assert accepted(CHAT).model == "gpt-x-2026"

    @pytest.mark.parametrize("model", [None, 3, "", []])
    def test_strange_model_is_left_out(self, model: object) -> None:
        assert accepted({**CHAT, "model": model}).model is None

    def test_model_that_the_task_read_stays(self) -> None:
        assert accepted(CHAT, FakeTask(READING._replace(model="mine"))).model == "mine"

    @pytest.mark.parametrize(
        ("headers", "body_id", "expected"),
        [
            ({"x-request-id": "a", "request-id": "b", "cf-ray": "c"}, "d", "a"),
            ({"request-id": "b", "cf-ray": "c"}, "d", "b"),
            ({"apim-request-id": "z"}, "d", "z"),
            ({"cf-ray": "c"}, "d", "d"),
            ({"cf-ray": "c"}, None, "c"),
            ({}, 17, None),
            ({"x-request-id": ""}, "d", "d"),
            ({"x-request-id": "a\udcffb\tc"}, None, r"a\udcffb c"),
        ],
    )
    def test_request_id_is_the_provider_s_own_name_for_the_call(
        self, headers: Mapping[str, str], body_id: object, expected: str | None
    ) -> None:
        assert accepted({**CHAT, "id": body_id}, headers=headers).request_id == expected

    def test_endless_request_id_is_cut(self) -> None:
        assert len(accepted(CHAT, headers={"x-request-id": "x" * 9_000}).request_id or "") == 200

    def test_cached_tokens_of_fireworks_are_in_a_header(self) -> None:
        headers = {"fireworks-cached-prompt-tokens": "7"}
        assert accepted(CHAT, headers=headers, dialect="fireworks").usage.cached_tokens == 7
        assert accepted(CHAT, headers=headers, dialect="openai").usage.cached_tokens is None

    @pytest.mark.parametrize("value", ["", "-1", "x", "٣x", "1e9", "9" * 50])
    def test_strange_count_in_a_header_is_left_out(self, value: str) -> None:
        headers = {"fireworks-cached-prompt-tokens": value}
        assert accepted(CHAT, headers=headers, dialect="fireworks").usage.cached_tokens is None

    def test_null_error_is_no_error(self) -> None:
        assert accepted({**CHAT, "error": None}).answers == READING.answers


class TestText:
    def test_blank_lines_before_the_json_are_legal(self) -> None:
        assert accepted(b"\n\n  \r\n" + orjson.dumps(CHAT)).answers == READING.answers

    def test_byte_order_mark_is_passed_over(self) -> None:
        assert accepted(b"\xef\xbb\xbf" + orjson.dumps(CHAT)).answers == READING.answers

    @pytest.mark.parametrize(
        ("raw", "text"),
        [
            (rb"cut \ud83d", "cut \ufffd"),
            (rb"\udc00 cut", "\ufffd cut"),
            (rb"\ud83d\ude00 whole", "\U0001f600 whole"),
            (rb"\ud83d\u0041", "\ufffdA"),
            (rb"\\ud83d said", r"\ud83d said"),
            (b"broken \xff\xfe", "broken \ufffd\ufffd"),
            (rb"nul \u0000", "nul \x00"),
        ],
    )
    def test_answer_with_damaged_characters_is_kept(self, raw: bytes, text: str) -> None:
        task = FakeTask()
        accepted(b'{"choices":[{"message":{"content":"' + raw + b'"}}], "z": "\xff"}', task)
        reply: Any = task.replies[0]
        assert reply["choices"][0]["message"]["content"] == text

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"  \n ",
            b"{",
            b'{"a":NaN}',
            b'{"a":Infinity}',
            b"ok",
            b'{"a":1}{"b":2}',
            b"\x00\x01",
            b"[" * 3_000,
        ],
    )
    def test_what_is_no_json_is_malformed(self, body: bytes) -> None:
        failure = refused(body)
        assert (failure.action, failure.code, failure.billed) == (
            Action.AGAIN,
            FailureCode.MALFORMED,
            Billed.UNKNOWN,
        )
        assert failure.status == 200

    @pytest.mark.parametrize(
        "page",
        [
            b"<!DOCTYPE html><html></html>",
            b"\n <html lang='en'>",
            b"\xef\xbb\xbf<HTML>",
            b"<?xml version='1'?>",
        ],
    )
    def test_web_page_asks_after_the_base_url(self, page: bytes) -> None:
        failure = refused(page)
        assert (failure.code, failure.action) == (FailureCode.MALFORMED, Action.AGAIN)
        assert "is /v1 missing in base_url?" in failure.message

    def test_snippet_of_what_came_is_short_and_without_keys(self) -> None:
        message = refused(f"not json {KEY} ".encode() * 100).message
        assert "not json [key]" in message
        assert len(message) <= 300


class TestErrorWithStatus200:
    def test_error_with_a_status_in_it_is_that_status(self) -> None:
        body = {"error": {"code": 429, "message": "slow"}, "choices": None}
        failure = refused(body, headers={"retry-after": "5"})
        assert (failure.action, failure.code, failure.retry_after_s) == (
            Action.AGAIN,
            FailureCode.RATE_LIMIT,
            5.0,
        )
        assert failure.status == 200
        assert failure.billed is Billed.NO

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            ({"code": 402, "message": "x"}, FailureCode.QUOTA),
            ({"code": "502", "message": "x"}, FailureCode.SERVER),
            ({"code": "insufficient_quota", "message": "x"}, FailureCode.QUOTA),
            ({"code": "context_length_exceeded", "message": "x"}, FailureCode.CONTEXT_LENGTH),
            ({"code": "rate_limit_exceeded", "message": "x"}, FailureCode.RATE_LIMIT),
            ({"message": "The model `x` does not exist"}, FailureCode.MODEL_MISSING),
            ({"message": "something"}, FailureCode.SERVER),
            ("Incorrect API key provided: abc", FailureCode.CREDENTIALS),
            ("something", FailureCode.SERVER),
            (True, FailureCode.SERVER),
        ],
    )
    def test_error_without_a_status_is_told_by_its_names(self, error: object, code: FailureCode) -> None:
        assert refused({"error": error}).code is code

    def test_error_in_the_choice_keeps_what_was_written(self) -> None:
        choice = {
            "finish_reason": "error",
            "error": {"code": 502, "message": "upstream died"},
            "message": {"content": f"half an answer {KEY}"},
        }
        failure = refused({**CHAT, "choices": [choice]}, dialect="openrouter", headers={"x-request-id": "r"})
        assert (failure.action, failure.code, failure.billed) == (
            Action.AGAIN,
            FailureCode.SERVER,
            Billed.YES,
        )
        assert "upstream died" in failure.message
        assert failure.content == "half an answer [key]"
        assert failure.usage == Usage(10, 2)
        assert (failure.model, failure.request_id) == ("gpt-x-2026", "r")

    def test_finish_without_words_is_an_error_too(self) -> None:
        body = {"choices": [{"finish_reason": "error", "message": {"content": None}}]}
        failure = refused(body, dialect="mistral")
        assert (failure.action, failure.code, failure.billed) == (
            Action.AGAIN,
            FailureCode.SERVER,
            Billed.UNKNOWN,
        )

    def test_deepseek_without_resources_is_tried_again(self) -> None:
        body = {"choices": [{"finish_reason": "insufficient_system_resource", "message": {"content": "ha"}}]}
        failure = refused(body, dialect="deepseek")
        assert (failure.action, failure.code, failure.content) == (Action.AGAIN, FailureCode.SERVER, "ha")

    def test_task_is_not_asked(self) -> None:
        task = FakeTask()
        refused({"error": {"message": "x"}}, task)
        assert task.replies == []


class TestRefusalByTheTask:
    REFUSAL = Failure(Action.GIVE_UP, FailureCode.TRUNCATED, f"cut\n off {KEY}", content=f"text {KEY}")

    def test_refusal_is_paid_for(self) -> None:
        failure = refused(CHAT, FakeTask(self.REFUSAL))
        assert (failure.billed, failure.usage) == (Billed.YES, Usage(10, 2))

    def test_refusal_without_counted_tokens_may_be_billed(self) -> None:
        assert refused({"choices": []}, FakeTask(self.REFUSAL)).billed is Billed.UNKNOWN

    def test_word_of_the_task_stays(self) -> None:
        own = self.REFUSAL._replace(usage=Usage(1), billed=Billed.UNKNOWN, status=299)
        failure = refused(CHAT, FakeTask(own))
        assert (failure.usage, failure.billed, failure.status) == (Usage(1), Billed.UNKNOWN, 299)

    def test_reply_s_own_words_are_added(self) -> None:
        failure = refused(CHAT, FakeTask(self.REFUSAL), headers={"x-request-id": "r"})
        assert (failure.status, failure.model, failure.request_id) == (200, "gpt-x-2026", "r")
        assert failure.message == "cut off [key]"
        assert failure.content == "text [key]"

    @pytest.mark.parametrize("reply", [b"[]", b'"text"', b"3", b"null"])
    def test_json_that_is_no_object_is_the_task_s_to_refuse(self, reply: bytes) -> None:
        assert refused(reply, FakeTask(self.REFUSAL)).code is FailureCode.TRUNCATED


class TestBugInTheReading:
    @pytest.mark.parametrize(
        "bug", [KeyError(f"choices {KEY}"), RecursionError("deep"), ValueError("\n\x1b")]
    )
    def test_paid_answer_is_kept(self, bug: Exception) -> None:
        failure = refused(CHAT, FakeTask(bug))
        assert (failure.action, failure.code, failure.billed) == (
            Action.GIVE_UP,
            FailureCode.INTERNAL,
            Billed.YES,
        )
        assert failure.content == orjson.dumps(CHAT).decode()
        assert type(bug).__name__ in failure.message
        assert (failure.usage, failure.model) == (Usage(10, 2), "gpt-x-2026")

    def test_kept_answer_is_bounded_and_without_keys(self) -> None:
        body = orjson.dumps({"x": f"{KEY} é" + "é" * 3_000_000})
        failure = refused(body, FakeTask(ValueError("x")))
        assert failure.content is not None
        assert len(failure.content) == CONTENT_CHARS
        assert "[key] é" in failure.content


class TestOtherStatuses:
    def test_refusal_is_classified(self) -> None:
        body = {"error": {"message": f"Rate limit with {KEY}", "code": "rate_limit_exceeded"}}
        failure = refused(body, status=429, headers={"retry-after": "3", "x-request-id": "r"})
        assert (failure.code, failure.retry_after_s, failure.request_id) == (FailureCode.RATE_LIMIT, 3.0, "r")

    def test_own_estimate_tells_a_request_that_never_fits(self) -> None:
        body = {"error": {"message": "Limit 5 tokens per minute"}}
        assert refused(body, status=429).code is FailureCode.TOO_LARGE

    def test_redirect_ends_the_lane(self) -> None:
        failure = refused(b"", status=308, headers={"location": "https://elsewhere.example/v1/x"})
        assert (failure.action, failure.lane_is_dead) == (Action.ELSEWHERE, True)
        assert "elsewhere.example" in failure.message

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "context_length_exceeded"),
            (400, "content_filter"),
            (400, "invalid_value"),
            (412, "x"),
            (413, "x"),
        ],
    )
    def test_one_bad_row_does_not_take_its_neighbours_along(self, status: int, code: str) -> None:
        body = {"error": {"message": "x", "code": code}}
        assert refused(body, status=status, rows=8).action is Action.SPLIT
        assert refused(body, status=status).action in (Action.GIVE_UP, Action.SPLIT)

    def test_row_alone_may_go_elsewhere(self) -> None:
        page = b"<html><title>Blocked</title></html>"
        assert refused(page, status=403).action is Action.ELSEWHERE
        assert refused(page, status=403, rows=2).action is Action.SPLIT

    def test_packed_error_with_status_200_is_split_too(self) -> None:
        body = {"error": {"message": "x", "code": "context_length_exceeded"}}
        assert refused(body, rows=2).action is Action.SPLIT

    @pytest.mark.parametrize(
        ("status", "action"), [(401, Action.ELSEWHERE), (429, Action.AGAIN), (500, Action.AGAIN)]
    )
    def test_fault_of_the_lane_splits_nothing(self, status: int, action: Action) -> None:
        assert refused(b"", status=status, rows=8).action is action


READERS: list[Callable[[], FakeTask]] = [
    FakeTask,
    lambda: FakeTask(KeyError("x")),
    lambda: FakeTask(TestRefusalByTheTask.REFUSAL),
]


@given(
    status=st.integers(100, 999),
    body=st.binary(max_size=100)
    | st.sampled_from(
        [b'{"choices":[{"finish_reason":"error"}]}', b'{"choices":[3]}', b'{"error":[1]}', b'{"usage":{}}']
    ),
    make=st.sampled_from(READERS),
    headers=st.dictionaries(
        st.sampled_from(["x-request-id", "cf-ray", "retry-after", "fireworks-cached-prompt-tokens"]),
        st.text(max_size=9),
    ),
)
def test_no_reply_is_too_strange(
    status: int, body: bytes, make: Callable[[], FakeTask], headers: dict[str, str]
) -> None:
    verdict = seen(body, make(), status=status, headers=headers, dialect="fireworks")
    assert verdict.request_id is None or verdict.request_id.isprintable()
    if isinstance(verdict, Failure):
        assert verdict.message.isprintable()
        assert verdict.status is not None
