from collections.abc import Mapping

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.simulate.call import DEFAULT_ANSWER_TOKENS, Call, Kind, LogprobsAsked, count_tokens
from batchllm.simulate.calls import parse_call
from batchllm.simulate.fields import CallError

USER = {"role": "user", "content": "How are you?"}
ROLE = "messages[0].role"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    "model", "messages", "prompt", "input", "max_tokens", "n", "stop", "stream", "stream_options", "response_format",
    "tools", "tool_choice", "encoding_format", "dimensions", "logprobs", "top_logprobs", "reasoning_effort",
    "web_search_options",
)  # fmt: skip


def chat(**fields: object) -> Call:
    return parse_call(Kind.CHAT, orjson.dumps({"model": "m", "messages": [USER], **fields}))


def parsed(kind: Kind, **fields: object) -> Call:
    return parse_call(kind, orjson.dumps({"model": "m", **fields}))


def fault_of(kind: Kind, body: object) -> CallError:
    with pytest.raises(CallError) as raised:
        parse_call(kind, body if isinstance(body, bytes) else orjson.dumps(body))
    return raised.value


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), ("ä", 1), ("äää", 2), ("😀😀", 2)]
)
def test_a_token_is_four_bytes(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_the_text_of_a_chat_is_all_contents_and_its_subject_the_last_of_the_user() -> None:
    call = chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": None},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": "so:"},
        ]
    )
    assert call.text == "Be brief.\nfirst\n\none\ntwo\nso:"
    assert call.subjects == ("one\ntwo",)
    assert call.prompt_tokens == count_tokens(call.text)


def test_what_is_no_text_is_kept_apart() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    call = chat(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}])
    assert call.text == "what?"
    assert orjson.loads(call.extras) == [image]


def test_unknown_parameters_pass() -> None:
    assert chat(top_k=5, guided_json={}, metadata=None).model == "m"


def test_nulls_are_as_good_as_absent() -> None:
    nothing = dict.fromkeys(FIELDS[4:])
    assert chat(**nothing) == chat()


@pytest.mark.parametrize(
    ("fields", "reserved"),
    [
        ({}, 3 + DEFAULT_ANSWER_TOKENS),
        ({"max_tokens": 100}, 103),
        ({"max_completion_tokens": 50, "max_tokens": 100}, 53),
        ({"max_tokens": 10, "n": 3}, 33),
    ],
)
def test_prompt_and_the_most_that_may_be_answered_are_reserved(
    fields: Mapping[str, object], reserved: int
) -> None:
    assert chat(**fields).reserved_tokens == reserved


def test_several_prompts_reserve_an_answer_each() -> None:
    call = parsed(Kind.COMPLETION, prompt=["abcd", "efgh"], max_tokens=5, n=2)
    assert call.reserved_tokens == 2 + 4 * 5


def test_embeddings_and_moderations_reserve_their_texts_only() -> None:
    assert parsed(Kind.EMBEDDING, input=["abcd", "efghi"]).reserved_tokens == 3
    assert parsed(Kind.MODERATION, input="abcdefgh").reserved_tokens == 2


@pytest.mark.parametrize(
    ("given", "subjects", "tokens"),
    [
        ("abcde", ("abcde",), 2),
        (["a", "b"], ("a", "b"), 2),
        ([15, 16, 17], ("15 16 17",), 3),
        ([[1, 2], [3]], ("1 2", "3"), 3),
    ],
)
def test_texts_come_as_text_or_tokens_one_or_many(
    given: object, subjects: tuple[str, ...], tokens: int
) -> None:
    for kind, name in ((Kind.EMBEDDING, "input"), (Kind.COMPLETION, "prompt")):
        call = parsed(kind, **{name: given})
        assert (call.subjects, call.prompt_tokens) == (subjects, tokens)


def test_a_moderation_needs_no_model_and_takes_parts() -> None:
    parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    call = parse_call(Kind.MODERATION, orjson.dumps({"input": parts}))
    assert (call.model, call.subjects) == ("omni-moderation-latest", ("hi",))


def test_a_schema_and_a_forced_tool_shape_the_answer() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}
    assert chat(response_format=form).schema == {"type": "integer"}
    assert chat(response_format={"type": "json_object"}).wants_json
    assert not chat(response_format={"type": "text"}).wants_json
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"title": name}}} for name in ("f", "g")
    ]
    assert chat(tools=tools, tool_choice="required").tool == "f"
    named = chat(tools=tools, tool_choice={"type": "function", "function": {"name": "g"}})
    assert (named.tool, named.schema) == ("g", {"title": "g"})
    assert chat(tools=tools).tool is None
    assert chat(tools=tools, tool_choice="auto").tool is None


def test_tools_that_need_not_be_called_are_offered() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}]
    assert [offer.name for offer in chat(tools=tools).offered] == ["f", "g"]
    assert chat(tools=tools, tool_choice="none").offered == ()
    assert chat(tools=tools, tool_choice="required").offered == ()


def test_log_probabilities_are_asked_for_by_word_or_by_number() -> None:
    assert chat(logprobs=True, top_logprobs=3).logprobs == LogprobsAsked(3, False)
    assert chat(logprobs=5).logprobs == LogprobsAsked(5, True)
    assert chat(logprobs=False).logprobs is None
    assert chat(logprobs=0).logprobs is None
    assert fault_of(Kind.CHAT, {"model": "m", "messages": [USER], "top_logprobs": 3}).param == "top_logprobs"


def test_thoughts_and_sources_are_asked_for() -> None:
    assert chat(reasoning_effort="low").reasons
    assert not chat(reasoning_effort="none").reasons
    assert chat(web_search_options={}).searches


def test_stop_is_one_text_or_several() -> None:
    assert chat(stop="x").stop == ("x",)
    assert chat(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize("data", [b"", b"{", b"nonsense", b"\xff", b'{"a": NaN}', b'{"a": "\\ud800"}'])
def test_what_is_no_json_is_said_to_be_none(data: bytes) -> None:
    error = fault_of(Kind.CHAT, data)
    assert (error.status, error.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("kind", "body", "param", "code"),
    [
        (Kind.CHAT, [], None, "invalid_type"),
        (Kind.CHAT, {"messages": [USER]}, "model", "missing_required_parameter"),
        (Kind.CHAT, {"model": "", "messages": [USER]}, "model", "missing_required_parameter"),
        (Kind.CHAT, {"model": 5, "messages": [USER]}, "model", "invalid_type"),
        (Kind.CHAT, {"model": "m"}, "messages", "missing_required_parameter"),
        (Kind.CHAT, {"model": "m", "messages": "hi"}, "messages", "invalid_type"),
        (Kind.CHAT, {"model": "m", "messages": []}, "messages", "empty_array"),
        (Kind.CHAT, {"model": "m", "messages": ["hi"]}, "messages[0]", "invalid_type"),
        (
            Kind.CHAT,
            {"model": "m", "messages": [USER, {"content": "x"}]},
            "messages[1].role",
            "missing_required_parameter",
        ),
        (Kind.CHAT, {"model": "m", "messages": [{"role": "boss", "content": "x"}]}, ROLE, "invalid_value"),
        (Kind.CHAT, {"model": "m", "messages": [{"role": [], "content": "x"}]}, ROLE, "invalid_value"),
        (Kind.CHAT, {"model": "m", "messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
        (
            Kind.CHAT,
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "video"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            Kind.CHAT,
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "invalid_type",
        ),
        (Kind.COMPLETION, {"model": "m"}, "prompt", "missing_required_parameter"),
        (Kind.COMPLETION, {"model": "m", "prompt": 5}, "prompt", "invalid_type"),
        (Kind.EMBEDDING, {"model": "m", "input": []}, "input", "empty_array"),
        (Kind.EMBEDDING, {"model": "m", "input": ["a", 1]}, "input[0]", "invalid_type"),
        (Kind.EMBEDDING, {"model": "m", "input": [[]]}, "input[0]", "invalid_type"),
        (Kind.EMBEDDING, {"model": "m", "input": ["a"] * 2049}, "input", "array_above_max_length"),
        (
            Kind.EMBEDDING,
            {"model": "m", "input": "a", "encoding_format": "int8"},
            "encoding_format",
            "invalid_value",
        ),
        (
            Kind.EMBEDDING,
            {"model": "m", "input": "a", "dimensions": 0},
            "dimensions",
            "integer_below_min_value",
        ),
        (Kind.MODERATION, {}, "input", "missing_required_parameter"),
        (Kind.MODERATION, {"input": [{"type": "song"}]}, "input[0].type", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(kind: Kind, body: object, param: str | None, code: str) -> None:
    error = fault_of(kind, body)
    assert (error.status, error.param, error.code) == (400, param, code)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": ["a", 5]}, "stop", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": 5}, "stream_options", "invalid_type"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": {}}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
        ({"tools": [], "tool_choice": {"function": {"name": "f"}}}, "tool_choice", "invalid_value"),
    ],
)
def test_a_wrong_option_is_named(fields: Mapping[str, object], param: str, code: str) -> None:
    error = fault_of(Kind.CHAT, {"model": "m", "messages": [USER], **fields})
    assert (error.param, error.code) == (param, code)


def test_parts_that_are_nested_without_end_are_a_fault() -> None:
    deep = b"[" * 900 + b"]" * 900
    body = b'{"model": "m", "messages": [{"role": "assistant", "content": "", "tool_calls": [%b]}]}' % deep
    assert fault_of(Kind.CHAT, body).code == "invalid_json"
    assert fault_of(Kind.CHAT, b"[" * 100_000).code == "invalid_json"


def test_a_wrong_value_is_not_repeated_at_length() -> None:
    error = fault_of(Kind.CHAT, {"model": "m", "messages": [{"role": "x" * 10_000, "content": ""}]})
    assert len(error.message) < 500


@given(kind=st.sampled_from(Kind), body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_any_body_is_a_call_or_a_fault(kind: Kind, body: dict[str, object]) -> None:
    try:
        call = parse_call(kind, orjson.dumps(body))
    except CallError as error:
        assert (error.status, bool(error.message)) == (400, True)  # noqa: PT017 - either way is right
    else:
        assert call.prompt_tokens >= 1
        assert call.reserved_tokens >= call.prompt_tokens
