import orjson
import pytest

from batchllm.simulate import replies
from batchllm.simulate.answers import ModelAnswer
from batchllm.simulate.call import Call, Kind
from batchllm.simulate.replies import Stamp

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
    body = orjson.loads(replies.text_body(call(tool="f"), [ModelAnswer("{}", "tool_calls", 1, "f")], STAMP))
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
    events = events_of(call(tool="f"), ModelAnswer('{"a": 1}', "tool_calls", 2, "f"))
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
