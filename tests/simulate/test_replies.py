import orjson
import pytest

from batchllm.simulate import replies
from batchllm.simulate.answers import ModelAnswer
from batchllm.simulate.calls import Call, Kind
from batchllm.simulate.limits import Gate, Refusal, Scope
from batchllm.simulate.replies import Stamp
from batchllm.spec.models import Limits

STAMP = Stamp("7", 1_700_000_000)
ANSWER = ModelAnswer("one two", "stop", 2)


def call(kind: Kind = Kind.CHAT, **fields: object) -> Call:
    return Call(kind, "m", "hi", ("hi",), 1)._replace(**fields)


def events_of(made: Call, *answers: ModelAnswer) -> list[object]:
    lines = b"".join(replies.text_events(made, answers, STAMP)).decode().strip().split("\n\n")
    assert lines.pop() == "data: [DONE]"
    return [orjson.loads(line.removeprefix("data: ")) for line in lines]


def test_a_chat_reply_has_openais_shape() -> None:
    assert orjson.loads(replies.text_body(call(), [ANSWER], STAMP)) == {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "system_fingerprint": "fp_simulated",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "one two", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "total_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_a_completion_reply_has_openais_shape() -> None:
    body = orjson.loads(replies.text_body(call(Kind.COMPLETION), [ANSWER, ANSWER], STAMP))
    assert (body["object"], body["id"]) == ("text_completion", "cmpl-7")
    assert body["choices"][1] == {"index": 1, "text": "one two", "logprobs": None, "finish_reason": "stop"}
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}


def test_a_tool_call_has_no_content() -> None:
    body = orjson.loads(replies.text_body(call(tool="f"), [ModelAnswer("{}", "tool_calls", 1)], STAMP))
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "call_7_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_the_pieces_of_a_stream_are_the_answer() -> None:
    events = events_of(call(), ANSWER)
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert [delta.get("content") for delta in deltas[1:-1]] == ["one ", "two"]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, None, "stop"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert "usage" not in events[0]


def test_a_long_answer_is_streamed_in_few_pieces() -> None:
    text = " ".join(map(str, range(1000)))
    events = events_of(call(), ModelAnswer(text, "stop", 1000))
    assert len(events) <= replies.MOST_PIECES + 2
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == text


def test_usage_comes_last_in_a_stream_when_asked_for() -> None:
    events = events_of(call(includes_usage=True), ANSWER)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == 3
    assert events[0]["usage"] is None


def test_a_streamed_tool_call_gives_its_name_first_and_then_its_arguments() -> None:
    events = events_of(call(tool="f"), ModelAnswer('{"a": 1}', "tool_calls", 2))
    calls = [event["choices"][0]["delta"].get("tool_calls", [{}])[0] for event in events]
    assert calls[0]["function"] == {"name": "f", "arguments": ""}
    assert "".join(part.get("function", {}).get("arguments", "") for part in calls) == '{"a": 1}'


def test_a_streamed_completion_ends_with_its_reason() -> None:
    events = events_of(call(Kind.COMPLETION), ANSWER)
    assert [event["choices"][0]["text"] for event in events] == ["one ", "two", ""]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, "stop"]


def test_embeddings_have_their_index_and_no_completion_tokens() -> None:
    body = orjson.loads(replies.embedding_body(call(Kind.EMBEDDING), [b"[1.0]", b'"AAAA"']))
    assert [(item["index"], item["embedding"]) for item in body["data"]] == [(0, [1.0]), (1, "AAAA")]
    assert body["usage"] == {"prompt_tokens": 1, "total_tokens": 1}


@pytest.mark.parametrize(("score", "is_flagged"), [(0.49, False), (0.5, True)])
def test_half_is_flagged(score: float, is_flagged: bool) -> None:
    body = orjson.loads(
        replies.moderation_body(call(Kind.MODERATION), [{"hate": score, "sexual": 0.0}], STAMP)
    )
    (result,) = body["results"]
    assert (result["flagged"], result["categories"]) == (is_flagged, {"hate": is_flagged, "sexual": False})
    assert result["category_scores"] == {"hate": score, "sexual": 0.0}


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        (
            Refusal(Scope.TOKENS, 200_000, 162_960, 42_288, 1.5744),
            "tokens",
            (
                "Rate limit reached for m in organization org-simulated on tokens per min (TPM): "
                "Limit 200000, Used 162960, Requested 42288. Please try again in 1.575s."
            ),
        ),
        (
            Refusal(Scope.REQUESTS, 3000, 3000, 1, 0.02),
            "requests",
            (
                "Rate limit reached for m in organization org-simulated on requests per min (RPM): "
                "Limit 3000, Used 3000, Requested 1. Please try again in 20ms."
            ),
        ),
        (
            Refusal(Scope.TOKENS, 1000, 0, 2000, None, is_too_large=True),
            "tokens",
            (
                "Request too large for m in organization org-simulated on tokens per min (TPM): Limit 1000, "
                "Requested 2000. The input or output tokens must be reduced in order to run successfully."
            ),
        ),
        (
            Refusal(Scope.CONCURRENCY, 8, 8, 1, None),
            "requests",
            (
                "Rate limit reached for m in organization org-simulated on concurrent requests: "
                "Limit 8, Used 8, Requested 1. Please try again later."
            ),
        ),
    ],
)
def test_a_refusal_is_said_as_openai_says_it(refusal: Refusal, kind: str, message: str) -> None:
    assert orjson.loads(replies.refusal_body(refusal, "m")) == {
        "error": {"message": message, "type": kind, "param": None, "code": "rate_limit_exceeded"}
    }


def test_waits_are_rounded_up_in_both_units() -> None:
    assert replies.retry_headers(1.2001) == [("retry-after", "2"), ("retry-after-ms", "1201")]
    assert replies.retry_headers(None) == []


def test_limit_headers_are_those_of_openai() -> None:
    gate = Gate(Limits(rpm=500, tpm=200_000))
    gate.admit(1000, 0.0)
    assert dict(replies.limit_headers(gate, 0.0)) == {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "199000",
        "x-ratelimit-reset-tokens": "300ms",
    }


def test_only_limits_that_are_set_are_told() -> None:
    assert replies.limit_headers(Gate(Limits(concurrency=3)), 0.0) == []
    assert [name for name, _ in replies.limit_headers(Gate(Limits(tpm=5)), 0.0)] == [
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ]
