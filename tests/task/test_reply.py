import pytest

from batchllm.errors import InvariantError
from batchllm.records import Action, Billed, Failure, FailureCode, Reading, Usage
from batchllm.task.answer_schema import AnswerSchema
from batchllm.task.reply import (
    Acceptance,
    Envelope,
    Generated,
    first_choice,
    judge,
    judge_kept,
    kept_texts,
    open_envelope,
)

SCHEMA = AnswerSchema(
    {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
)
ANY = Acceptance.by(None, None)
COUNTED = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}, "model": "m-1"}


def envelope(**body: object) -> Envelope:
    opened = open_envelope({**COUNTED, **body})
    assert isinstance(opened, Envelope)
    return opened


def turned_down(generated: Generated, schema: AnswerSchema | None = None) -> Failure:
    verdict = judge(generated, envelope(), Acceptance.by(schema, None))
    assert isinstance(verdict, Failure)
    return verdict


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (None, "null"),
        ("<html>", "text"),
        ([], "a list"),
        (3, "a number"),
        (1.5, "a number"),
        (True, "a truth value"),
    ],
)
def test_a_reply_that_is_no_object_is_malformed(reply: object, said: str) -> None:
    failure = open_envelope(reply)
    assert isinstance(failure, Failure)
    assert (failure.action, failure.code, failure.billed) == (
        Action.AGAIN,
        FailureCode.MALFORMED,
        Billed.UNKNOWN,
    )
    assert said in failure.message
    assert "/v1" in failure.message


@pytest.mark.parametrize("model", [None, "", 5, ["m"]])
def test_a_model_that_is_not_named_is_unknown(model: object) -> None:
    assert envelope(model=model).model is None


@pytest.mark.parametrize("choices", [None, [], "no", {}, [None], ["text"], [[]]])
def test_a_reply_without_a_choice_is_malformed(choices: object) -> None:
    failure = first_choice(envelope(choices=choices))
    assert isinstance(failure, Failure)
    assert (failure.action, failure.code, failure.billed) == (Action.AGAIN, FailureCode.MALFORMED, Billed.YES)


def test_an_error_beside_missing_choices_is_passed_on() -> None:
    failure = first_choice(envelope(choices=None, error={"code": 429, "message": "slow down"}))
    assert isinstance(failure, Failure)
    assert "slow down" in failure.message


def test_further_choices_are_left_out() -> None:
    assert first_choice(envelope(choices=[{"text": "a"}, {"text": "b"}])) == {"text": "a"}


def test_what_is_turned_down_keeps_text_tokens_and_model() -> None:
    failure = turned_down(Generated("half an ans", "content_filter"))
    assert failure.content == "half an ans"
    assert failure.usage == Usage(3, 2)
    assert failure.model == "m-1"
    assert failure.billed is Billed.YES


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1}, "many"])
def test_without_counted_tokens_nobody_knows_whether_it_was_billed(usage: object) -> None:
    verdict = judge(Generated("", "stop"), envelope(usage=usage), ANY)
    assert isinstance(verdict, Failure)
    assert verdict.billed is Billed.UNKNOWN


@pytest.mark.parametrize("reason", ["stop", "eos", "end_turn", "stop_sequence", None, "something new"])
def test_a_text_that_ended_by_itself_is_an_answer(reason: str | None) -> None:
    verdict = judge(Generated("yes", reason), envelope(), ANY)
    assert isinstance(verdict, Reading)
    assert verdict.answers[0].value == "yes"
    assert verdict.answers[0].finish_reason == reason
    assert verdict.usage == Usage(3, 2)
    assert verdict.model == "m-1"


@pytest.mark.parametrize("reason", ["length", "max_tokens", "model_length"])
def test_a_text_cut_at_the_limit_is_an_answer_that_says_so(reason: str) -> None:
    verdict = judge(Generated("yes and", reason), envelope(), ANY)
    assert isinstance(verdict, Reading)
    assert verdict.answers[0].finish_reason == reason


@pytest.mark.parametrize("reason", ["length", "max_tokens", "model_length"])
@pytest.mark.parametrize("text", ['{"label": "a', '{"label": "a"}'])
def test_with_a_schema_a_cut_text_is_given_up_and_kept(reason: str, text: str) -> None:
    failure = turned_down(Generated(text, reason), SCHEMA)
    assert (failure.action, failure.code) == (Action.GIVE_UP, FailureCode.TRUNCATED)
    assert failure.content == text
    assert "max_tokens" in failure.message


@pytest.mark.parametrize("schema", [None, SCHEMA])
@pytest.mark.parametrize("text", ["", " \n"])
def test_tokens_spent_before_any_text_are_truncation(schema: AnswerSchema | None, text: str) -> None:
    failure = turned_down(Generated(text, "length"), schema)
    assert (failure.action, failure.code) == (Action.GIVE_UP, FailureCode.TRUNCATED)
    assert "spent before any text" in failure.message


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
@pytest.mark.parametrize("reason", ["stop", None])
def test_an_empty_answer_is_no_answer(text: str, reason: str | None) -> None:
    failure = turned_down(Generated(text, reason))
    assert (failure.action, failure.code) == (Action.AGAIN, FailureCode.MALFORMED)


@pytest.mark.parametrize("reason", ["content_filter", "content_filter: VIOLENCE", "CONTENT_FILTER", "safety"])
def test_a_filtered_answer_is_given_up(reason: str) -> None:
    failure = turned_down(Generated("some", reason))
    assert (failure.action, failure.code) == (Action.GIVE_UP, FailureCode.CONTENT_FILTER)


@pytest.mark.parametrize(
    "generated",
    [
        Generated("", "stop", "I will not"),
        Generated("I will not", "refusal"),
        Generated("x", "content_filter", "I will not"),
    ],
)
def test_a_refusal_is_given_up_with_its_words(generated: Generated) -> None:
    failure = turned_down(generated, SCHEMA)
    assert (failure.action, failure.code) == (Action.GIVE_UP, FailureCode.REFUSAL)
    assert "I will not" in failure.message
    assert failure.content == "I will not"


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
def test_an_answer_that_the_provider_broke_off_is_asked_again(reason: str) -> None:
    failure = turned_down(Generated("half", reason))
    assert (failure.action, failure.code) == (Action.AGAIN, FailureCode.SERVER)
    assert failure.content == "half"


@pytest.mark.parametrize(
    "generated",
    [
        Generated("", "tool_calls", calls_tools=True),
        Generated("let me look", "tool_calls", calls_tools=True),
        Generated("", "function_call", calls_tools=True),
        Generated("", "stop", calls_tools=True),
    ],
)
def test_a_wish_for_a_tool_is_no_answer(generated: Generated) -> None:
    failure = turned_down(generated)
    assert (failure.action, failure.code) == (Action.GIVE_UP, FailureCode.CAPABILITY)
    assert "tool" in failure.message


def test_a_text_beside_a_tool_call_that_was_not_waited_for_is_an_answer() -> None:
    assert isinstance(judge(Generated("yes", "stop", calls_tools=True), envelope(), ANY), Reading)


def test_an_answer_against_the_schema_is_asked_again_and_kept() -> None:
    failure = turned_down(Generated('{"label": "c"}', "stop"), SCHEMA)
    assert (failure.action, failure.code) == (Action.AGAIN, FailureCode.SCHEMA_MISMATCH)
    assert 'label: "c" is not one of "a" or "b"' in failure.message
    assert failure.content == '{"label": "c"}'


def test_an_answer_by_the_schema_is_kept_as_it_was_written() -> None:
    text = ' ```json\n{"label": "a"}\n``` '
    verdict = judge(Generated(text, "stop"), envelope(), Acceptance.by(SCHEMA, None))
    assert isinstance(verdict, Reading)
    assert verdict.answers[0].value == text


def test_a_text_that_no_encoding_carries_is_mended() -> None:
    verdict = judge(Generated("a\ud800b\x00", "stop"), envelope(), ANY)
    assert isinstance(verdict, Reading)
    assert verdict.answers[0].value == "a\ufffdb\x00"
    assert turned_down(Generated("", "stop", "no\ud800")).content == "no\ufffd"


def test_messages_are_short_whatever_came() -> None:
    for generated in (
        Generated("x" * 10_000, "refusal"),
        Generated('{"label": "' + "x" * 10_000 + '"}', "stop"),
    ):
        assert len(turned_down(generated, SCHEMA).message) <= 500


def test_bytes_are_no_kept_text() -> None:
    assert kept_texts(["a", "b"]) == ["a", "b"]
    with pytest.raises(InvariantError):
        kept_texts(["a", b"b"])


@pytest.mark.parametrize("reason", ["length", "max_tokens", "model_length"])
def test_a_job_may_take_whole_texts_only(reason: str) -> None:
    verdict = judge(Generated("yes and", reason), envelope(), Acceptance.by(None, "fail"))
    assert isinstance(verdict, Failure)
    assert (verdict.action, verdict.code, verdict.content) == (
        Action.GIVE_UP,
        FailureCode.TRUNCATED,
        "yes and",
    )
    assert "task.truncated" in verdict.message


def test_a_cut_text_that_fits_its_schema_is_an_answer_where_the_job_keeps_cut_ones() -> None:
    keeping = Acceptance.by(SCHEMA, "keep")
    assert isinstance(judge(Generated('{"label": "a"}', "length"), envelope(), keeping), Reading)
    cut = judge(Generated('{"label": "a', "length"), envelope(), keeping)
    assert isinstance(cut, Failure)
    assert cut.code is FailureCode.SCHEMA_MISMATCH


@pytest.mark.parametrize(
    ("text", "reason", "acceptance", "code"),
    [
        ('{"label": "a"}', "stop", Acceptance.by(SCHEMA, None), None),
        ('{"label": "c"}', "stop", Acceptance.by(SCHEMA, None), FailureCode.SCHEMA_MISMATCH),
        ('{"label": "a"}', "length", Acceptance.by(SCHEMA, None), FailureCode.TRUNCATED),
        ('{"label": "a"}', "length", Acceptance.by(SCHEMA, "keep"), None),
        ("half", "length", ANY, None),
        ("half", "length", Acceptance.by(None, "fail"), FailureCode.TRUNCATED),
        (" ", None, ANY, FailureCode.MALFORMED),
        ("whole", None, Acceptance.by(None, "fail"), None),
    ],
)
def test_a_kept_text_is_judged_like_a_fresh_one(
    text: str, reason: str | None, acceptance: Acceptance, code: FailureCode | None
) -> None:
    verdict = judge_kept(text, reason, acceptance)
    fresh = judge(Generated(text, reason), envelope(), acceptance)
    assert (None if verdict is None else verdict[0]) is code
    assert (fresh.code if isinstance(fresh, Failure) else None) is code
    if verdict is not None and isinstance(fresh, Failure):
        assert verdict[1] == fresh.message
