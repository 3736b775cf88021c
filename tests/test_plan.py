from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.plan import Planner, digest_of, halves, narrow
from batchllm.ports import Task
from batchllm.records import BadRow, FailureCode, Request, Row, RowFailed, RowRef
from batchllm.spec import models
from batchllm.task import build_task
from batchllm.tokens import InputCap, Ruler, TokenCounter, estimate


class WordCounter:
    """One token a word; keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def count_many(self, texts: Sequence[str]) -> list[int]:
        self.calls.append(list(texts))
        return [len(text.split()) for text in texts]


CHAT = build_task(
    models.ChatTask.model_validate({"type": "chat", "system": "be brief", "prompt": "{{ text }}"}),
    dimensions=None,
)
TALK = build_task(
    models.ChatTask.model_validate({"type": "chat", "messages_column": "talk"}), dimensions=None
)
EMBEDDING = build_task(models.EmbeddingTask(type="embedding", text="{{ text }}"), dimensions=2)


def planner(task: Task = CHAT, **how: Any) -> Planner:
    settings = {
        "counter": WordCounter(),
        "max_inputs": 4,
        "max_tokens": None,
        "max_request_tokens": None,
        "is_finished": lambda ordinal: False,
        **how,
    }
    return Planner(task, settings.pop("counter"), **settings)


def row(ordinal: int, text: object = "a b", **values: object) -> Row:
    return Row(ordinal, f"k{ordinal}", {"text": text, **values}, b'["c"]')


def only(planned: Sequence[Request | RowFailed]) -> Request | RowFailed:
    assert len(planned) == 1
    return planned[0]


def request(planned: Sequence[Request | RowFailed]) -> Request:
    item = only(planned)
    assert isinstance(item, Request)
    return item


def failed(planned: Sequence[Request | RowFailed]) -> RowFailed:
    item = only(planned)
    assert isinstance(item, RowFailed)
    assert item.lane is None
    assert item.attempts == 0
    assert item.status is None
    return item


def test_a_chat_row_is_one_request() -> None:
    asked = request(planner().requests([row(3)]))
    assert asked.rows == (RowRef(3, "k3", b'["c"]'),)
    assert asked.content == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a b"}]
    assert asked.digests == (digest_of("chat", asked.content),)
    assert len(asked.digests[0]) == 16


def test_a_chat_pays_for_the_frame_of_its_messages() -> None:
    assert request(planner().requests([row(0)])).tokens == (4 + 2 * 3 + 3,)


def test_without_a_counter_bytes_are_the_measure() -> None:
    text = "ä" * 100
    asked = request(planner(counter=None).requests([row(0, text)]))
    assert asked.prompt_tokens == estimate("be brief") + estimate(text) + 9


def test_all_texts_of_a_batch_are_counted_in_one_call_and_each_once() -> None:
    counter = WordCounter()
    planner(counter=counter).requests([row(0, "x"), row(1, None), row(2, "y")])
    assert counter.calls == [["be brief", "x", "y"]]


def test_parts_of_a_message_all_count() -> None:
    talk = [{"role": "user", "content": [{"type": "text", "text": "a b c"}, {"type": "text", "text": "d"}]}]
    assert request(planner(TALK).requests([row(0, talk=talk)])).prompt_tokens == 4 + 3 + 3


def test_finished_rows_are_not_even_rendered() -> None:
    done = {0, 2}
    planned = planner(is_finished=done.__contains__).requests([row(0, None), row(1), row(2)])
    assert request(planned).rows[0].ordinal == 1


def test_a_finished_bad_row_is_not_reported_again() -> None:
    assert planner(is_finished=lambda _: True).requests([BadRow(0, "f:1", "no JSON")]) == []


def test_a_line_that_cannot_be_read_fails_with_its_place() -> None:
    item = failed(planner().requests([BadRow(7, "reviews.jsonl:8 (byte 120)", "no JSON")]))
    assert item.code == FailureCode.INPUT
    assert item.row == RowRef(7, None, b"[]")
    assert item.message == "reviews.jsonl:8 (byte 120): no JSON"
    assert item.digest == b""


def test_a_row_that_cannot_be_rendered_fails_alone_and_in_its_place() -> None:
    planned = planner().requests([row(0), row(1, None), row(2)])
    assert [type(item) for item in planned] == [Request, RowFailed, Request]
    item = failed(planned[1:2])
    assert item.code == FailureCode.TEMPLATE
    assert item.row == RowRef(1, "k1", b'["c"]')
    assert "is null in this row" in item.message


@pytest.mark.parametrize("value", [2**80, object()])
def test_a_message_that_json_cannot_hold_fails_its_row(value: object) -> None:
    talk = [{"role": "user", "content": "x", "extra": value}]
    item = failed(planner(TALK).requests([row(0, talk=talk)]))
    assert item.code == FailureCode.TEMPLATE
    assert "cannot be sent" in item.message


def test_a_row_too_large_for_any_request_is_refused_with_both_numbers() -> None:
    text = "w " * 5_000
    item = failed(planner(max_request_tokens=2_000).requests([row(0, text)]))
    assert item.code == FailureCode.TOO_LARGE
    assert "5,011" in item.message
    assert "2,000" in item.message
    assert len(item.digest) == 16


def test_a_row_exactly_at_the_limit_is_asked() -> None:
    assert request(planner(max_request_tokens=13).requests([row(0)])).prompt_tokens == 13
    assert failed(planner(max_request_tokens=12).requests([row(0)])).code == FailureCode.TOO_LARGE


def test_messages_are_at_most_500_characters() -> None:
    long = {f"column_{at:090}": 1 for at in range(50)}
    item = failed(planner().requests([Row(0, None, long, b"[]")]))
    assert len(item.message) == 500
    assert len(failed(planner().requests([BadRow(0, "f:1", "x" * 9_000)])).message) == 500


def test_packed_rows_wait_until_the_pack_is_full() -> None:
    pack = planner(EMBEDDING, max_inputs=3)
    assert pack.requests([row(0), row(1)]) == []
    asked = request(pack.requests([row(2), row(3)]))
    assert [ref.ordinal for ref in asked.rows] == [0, 1, 2]
    assert asked.content == ["a b"] * 3
    assert asked.tokens == (2, 2, 2)
    assert asked.digests == (digest_of("embedding", "a b"),) * 3
    assert [ref.ordinal for ref in request(pack.flush()).rows] == [3]
    assert pack.flush() == []


def test_a_pack_ends_before_it_has_too_many_tokens() -> None:
    pack = planner(EMBEDDING, max_tokens=5)
    planned = pack.requests([row(at) for at in range(5)]) + pack.flush()
    assert [len(item.rows) for item in planned if isinstance(item, Request)] == [2, 2, 1]


def test_a_lane_s_budget_bounds_a_pack_too() -> None:
    pack = planner(EMBEDDING, max_tokens=100, max_request_tokens=5)
    planned = pack.requests([row(at) for at in range(5)]) + pack.flush()
    assert [len(item.rows) for item in planned if isinstance(item, Request)] == [2, 2, 1]


def test_a_row_over_the_pack_s_tokens_goes_alone() -> None:
    pack = planner(EMBEDDING, max_tokens=5)
    planned = pack.requests([row(0), row(1, "w " * 9), row(2)]) + pack.flush()
    assert [[ref.ordinal for ref in item.rows] for item in planned if isinstance(item, Request)] == [
        [0],
        [1],
        [2],
    ]


def test_a_bad_row_leaves_no_gap_in_a_pack() -> None:
    pack = planner(EMBEDDING)
    assert failed(pack.requests([row(0), row(1, ""), row(2)])).row.ordinal == 1
    assert [ref.ordinal for ref in request(pack.flush()).rows] == [0, 2]


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=6),
    st.integers(1, 5),
    st.none() | st.integers(1, 20),
    st.sets(st.integers(0, 36)),
)
def test_packs_hold_each_row_once_in_order_within_the_caps(
    batches: list[list[int]], max_inputs: int, max_tokens: int | None, done: set[int]
) -> None:
    pack = planner(EMBEDDING, max_inputs=max_inputs, max_tokens=max_tokens, is_finished=done.__contains__)
    planned: list[Request | RowFailed] = []
    ordinal, words = 0, {}
    for batch in batches:
        rows = []
        for count in batch:
            words[ordinal] = count
            rows.append(row(ordinal, "w " * count))
            ordinal += 1
        planned += pack.requests(rows)
    planned += pack.flush()
    requests = [item for item in planned if isinstance(item, Request)]
    assert [ref.ordinal for item in requests for ref in item.rows] == [at for at in words if at not in done]
    for item in requests:
        assert len(item.rows) == len(item.tokens) == len(item.content) <= max_inputs  # type: ignore[arg-type]
        assert item.tokens == tuple(words[ref.ordinal] for ref in item.rows)
        assert max_tokens is None or item.prompt_tokens <= max_tokens or len(item.rows) == 1


def test_equal_content_has_equal_digests_and_other_content_others() -> None:
    first, second, other = planner().requests([row(0, "x"), row(1, "x"), row(2, "y")])
    assert first.digests == second.digests != other.digests
    assert digest_of("chat", ["x"]) != digest_of("embedding", ["x"])


@given(st.integers(2, 40))
def test_halves_hold_all_rows_in_order(rows: int) -> None:
    whole = Request(
        tuple(RowRef(at, None, b"[]") for at in range(rows)),
        [f"t{at}" for at in range(rows)],
        tuple(range(rows)),
        tuple(bytes([at]) * 16 for at in range(rows)),
    )
    left, right = halves(whole)
    assert left.rows + right.rows == whole.rows
    assert left.content + right.content == whole.content  # type: ignore[operator]
    assert left.tokens + right.tokens == whole.tokens
    assert 0 <= len(left.rows) - len(right.rows) <= 1
    assert left.digests + right.digests == whole.digests


@pytest.mark.parametrize(
    "content", [["a"], "a", [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]]
)
def test_a_single_row_has_no_halves(content: object) -> None:
    with pytest.raises(ValueError, match="several rows"):
        halves(Request((RowRef(0, None, b"[]"),), content, (1,), (b"d" * 16,)))


def test_a_request_is_narrowed_to_some_of_its_rows() -> None:
    whole = Request(
        tuple(RowRef(at, None, b"[]") for at in range(3)), ["a", "b", "c"], (1, 2, 3), (b"a", b"b", b"c")
    )
    part = narrow(whole, [0, 2])
    assert (part.rows, part.content, part.tokens) == ((whole.rows[0], whole.rows[2]), ["a", "c"], (1, 3))
    assert part.digests == (b"a", b"c")
    assert narrow(whole, [0, 1, 2]) is whole
    assert narrow(whole, range(2)) == halves(whole)[0]
    with pytest.raises(ValueError, match="some of its several rows"):
        narrow(whole, [])


PICTURE = {"images": [{"column": "picture", "tokens": 100}]}


def test_an_image_counts_and_what_is_none_is_the_input_s_fault() -> None:
    spec = {"type": "chat", "prompt": "{{ text }}", **PICTURE}
    task = build_task(models.ChatTask.model_validate(spec), dimensions=None)
    seen = request(planner(task).requests([row(0, picture=b"GIF89a...")]))
    blind = request(planner(CHAT).requests([row(0)]))
    assert seen.prompt_tokens == 100 + 2 + 3 + 3  # words, the message, the reply
    assert blind.size > 0
    refused = failed(planner(task).requests([row(0, picture=None)]))
    assert refused.code == FailureCode.INPUT
    assert "it is null" in refused.message


def test_a_request_knows_its_size() -> None:
    small, large = (request(planner().requests([row(0, text)])).size for text in ("a", "a" * 1000))
    assert large == small + 999


def test_pictures_and_calls_in_a_conversation_count() -> None:
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (128).to_bytes(4) + (64).to_bytes(4)
    url = f"data:image/png;base64,{b64encode(head).decode()}"
    words = {"type": "text", "text": "a b"}
    picture = {"type": "image_url", "image_url": {"url": url}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}" * 50}}

    def tokens(*messages: dict[str, object]) -> int:
        made = planner(TALK, ruler=Ruler(("gpt-4o",)))
        return request(
            made.requests([row(0, talk=[*messages, {"role": "user", "content": [words]}])])
        ).prompt_tokens

    plain = tokens({"role": "user", "content": [words]})
    assert tokens({"role": "user", "content": [words, picture]}) == plain + 255
    called = tokens({"role": "assistant", "content": "a b", "tool_calls": [call]})
    assert plain + 30 < called < plain + 120


def test_a_text_that_no_model_reads_is_not_asked() -> None:
    cap = InputCap("e", 3, lambda: TokenCounter("bytes/3.5"))
    made = planner(EMBEDDING, ruler=Ruler(cap=cap))
    long, short = [*made.requests([row(0, "internationalisation a b c"), row(1, "a b c")]), *made.flush()]
    assert isinstance(long, RowFailed)
    assert (long.code, long.message) == (FailureCode.CONTEXT_LENGTH, "the text has 4 words; e reads 3 tokens")
    assert isinstance(short, Request)
    assert [ref.ordinal for ref in short.rows] == [1]
