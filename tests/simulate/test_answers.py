import math
from base64 import b64decode
from collections.abc import Callable, Mapping
from struct import unpack

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.simulate.answers import (
    CATEGORIES,
    Model,
    ModelAnswer,
    first_words,
    rule_faults,
    vector_base64,
    vector_json,
)
from batchllm.simulate.call import Call, Kind, Offer, count_tokens
from batchllm.simulate.fields import CallError
from batchllm.spec.lanes import AnswerRule, Simulation


def model(*rules: tuple[str, str | Mapping[str, object]], seed: int = 0) -> Model:
    return Model(
        Simulation(
            seed=seed, answers=[AnswerRule.model_validate({"pattern": p, "reply": r}) for p, r in rules]
        )
    )


def call(text: str = "How are you?", kind: Kind = Kind.CHAT, /, **fields: object) -> Call:
    return Call(kind, "m", text, (text,), count_tokens(text))._replace(**fields)


def said(text: str = "How are you?", made_by: Model | None = None, /, **fields: object) -> ModelAnswer:
    (answer,) = (made_by or model()).text_answers(call(text, **fields))
    return answer


def test_an_echo_names_its_row_and_repeats_its_first_words() -> None:
    answer = said("one two three four five six seven eight nine ten")
    words = answer.text.split()
    assert (words[0], len(words[1]), words[1][-1]) == ("echo", 13, ":")
    assert words[2:] == ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    assert (answer.finish_reason, answer.tokens) == ("stop", count_tokens(answer.text))


def test_the_same_row_gets_the_same_answer() -> None:
    assert said("a") == said("a")


@pytest.mark.parametrize(
    "other",
    [
        lambda: said("b"),
        lambda: said("a", model="n"),
        lambda: said("a", extras=b"[1]"),
        lambda: said("a", model(seed=1)),
        lambda: said("a", text="a system text\na"),
    ],
)
def test_whatever_was_asked_otherwise_is_answered_otherwise(other: Callable[[], ModelAnswer]) -> None:
    assert other().text.split()[1] != said("a").text.split()[1]


def test_each_choice_and_each_prompt_has_its_own_answer_in_order() -> None:
    both = model().text_answers(call("a\nb", Kind.COMPLETION, subjects=("a", "b"), choices=2))
    assert len({answer.text for answer in both}) == 4
    assert [answer.text.split()[-1] for answer in both] == ["a", "a", "b", "b"]
    assert both[0] == said("a", kind=Kind.COMPLETION)


def test_the_first_rule_that_is_found_answers() -> None:
    rules = model(("never", "0"), (r"gr(ea|a)t", "positive"), ("great", "unreached"))
    assert said("It was great!", rules).text == "positive"
    assert said("It was bad.", rules).text.startswith("echo")


def test_a_rule_is_searched_in_all_messages() -> None:
    assert said("x", model(("label", "yes")), text="Please label.\nx").text == "yes"


def test_a_mapping_is_sent_as_json_and_wins_over_the_schema() -> None:
    answer = said("great", model(("great", {"label": "positive", "sure": True})), schema={"type": "integer"})
    assert orjson.loads(answer.text) == {"label": "positive", "sure": True}


def test_a_schema_shapes_the_answer() -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
    assert orjson.loads(said(schema=schema, wants_json=True).text)["label"] in ("a", "b")


def test_json_without_schema_is_an_object() -> None:
    assert orjson.loads(said(wants_json=True).text)["answer"].startswith("echo")


def test_a_tool_is_called_with_arguments_of_its_schema() -> None:
    answer = said(tool="f", schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    assert answer.finish_reason == "tool_calls"
    assert isinstance(orjson.loads(answer.text)["n"], int)


def test_of_offered_tools_one_is_called_for_some_texts() -> None:
    offers = (Offer("f", {"type": "object"}), Offer("g", {"type": "object"}))
    answers = [said(f"text {number}", offered=offers) for number in range(60)]
    assert {answer.tool for answer in answers} == {None, "f", "g"}
    assert all((answer.finish_reason == "tool_calls") == (answer.tool is not None) for answer in answers)
    assert said("x", model(("x", "words")), offered=offers).tool is None


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 9])
def test_a_thought_counts_and_leaves_room_for_the_answer(max_tokens: int) -> None:
    answer = said("x", model(("x", "12345678")), reasons=True, max_tokens=max_tokens)
    assert answer.tokens <= max_tokens
    assert answer.text
    assert said("x", reasons=True).thought == "I think of: x"


@pytest.mark.parametrize(("tool", "field"), [(None, "response_format"), ("f", "tools")])
def test_a_schema_that_nothing_fits_is_the_requests_fault(tool: str | None, field: str) -> None:
    with pytest.raises(CallError, match="enum is empty") as raised:
        said(schema={"enum": []}, tool=tool)
    assert raised.value.param == field


@given(st.text(min_size=1, max_size=60), st.integers(1, 10))
def test_no_answer_is_longer_than_asked_for(text: str, max_tokens: int) -> None:
    whole = said(text, model(("never^", "")))
    answer = said(text, max_tokens=max_tokens)
    assert answer.tokens <= max_tokens
    assert whole.text.startswith(answer.text)
    assert (answer.finish_reason == "length") == (answer.text != whole.text)


def test_an_answer_of_just_the_right_length_is_whole() -> None:
    assert said("x", model(("x", "12345678")), max_tokens=2) == ModelAnswer("12345678", "stop", 2)
    assert said("x", model(("x", "123456789")), max_tokens=2) == ModelAnswer("12345678", "length", 2)


def test_an_answer_ends_before_a_stop() -> None:
    rules = model(("x", "one two three"))
    assert said("x", rules, stop=("three", " two")) == ModelAnswer("one", "stop", 1)
    assert said("x", rules, stop=("one",)) == ModelAnswer("", "stop", 0)


@pytest.mark.parametrize(("text", "words"), [("", ""), ("  a\n b ", "a b"), ("x" * 500, "x" * 80)])
def test_first_words_are_short(text: str, words: str) -> None:
    assert first_words(text) == words


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?<=a+)b", "*"])
def test_a_pattern_that_is_none_is_a_fault_with_its_place(pattern: str) -> None:
    simulation = Simulation(
        answers=[AnswerRule(pattern="fine", reply=""), AnswerRule(pattern=pattern, reply="")]
    )
    (fault,) = rule_faults(simulation)
    assert fault.path == "answers.1.pattern"
    assert "no regular expression" in fault.message


def numbers_of(digest: bytes, dimensions: int) -> list[float]:
    return orjson.loads(vector_json(digest, dimensions))


@given(st.binary(min_size=16, max_size=16), st.integers(1, 300))
def test_a_vector_has_its_width_and_length_one(digest: bytes, dimensions: int) -> None:
    numbers = numbers_of(digest, dimensions)
    assert len(numbers) == dimensions
    assert all(isinstance(number, float) for number in numbers)
    assert math.hypot(*numbers) == pytest.approx(1, abs=1e-6)


@given(st.binary(min_size=16, max_size=16), st.integers(1, 300))
def test_both_encodings_hold_the_same_numbers(digest: bytes, dimensions: int) -> None:
    packed = b64decode(orjson.loads(vector_base64(digest, dimensions)))
    expected = unpack(f"<{dimensions}f", packed)
    read = unpack(f"<{dimensions}f", b"".join(float32(number) for number in numbers_of(digest, dimensions)))
    assert read == expected


def float32(number: float) -> bytes:
    from struct import pack

    return pack("<f", number)


@pytest.mark.parametrize("dimensions", [3, 8, 1536])
def test_ten_thousand_texts_have_ten_thousand_vectors(dimensions: int) -> None:
    count = 10_000 if dimensions < 100 else 500
    digests = [number.to_bytes(16, "big") for number in range(count)]
    assert len({vector_base64(digest, dimensions) for digest in digests}) == count


def test_vectors_of_different_texts_are_nearly_at_right_angles() -> None:
    one, other = (numbers_of(bytes([number]) * 16, 1536) for number in (1, 2))
    assert abs(sum(a * b for a, b in zip(one, other, strict=True))) < 0.15


def test_each_text_has_its_vector_whatever_it_is_packed_with() -> None:
    packed = model().vectors(call("a\nb", Kind.EMBEDDING, subjects=("a", "b")))
    alone = [model().vectors(call(text, Kind.EMBEDDING))[0] for text in ("a", "b")]
    assert packed == alone
    assert packed[0] != packed[1]


def test_the_width_that_the_request_asks_for_wins() -> None:
    made = Model(Simulation(dimensions=5))
    assert len(orjson.loads(made.vectors(call("x", Kind.EMBEDDING))[0])) == 5
    assert len(orjson.loads(made.vectors(call("x", Kind.EMBEDDING, dimensions=7))[0])) == 7


def test_what_no_rule_knows_is_harmless() -> None:
    (scores,) = model().scores(call("x", Kind.MODERATION))
    assert tuple(scores) == CATEGORIES
    assert all(0 <= score < 0.02 for score in scores.values())


def test_a_rule_sets_scores_and_its_other_keys_are_passed_over() -> None:
    rules = model(
        ("kill", {"violence": 0.9, "hate": 1, "pii": 0.5, "label": "x", "sexual": True, "illicit": 7})
    )
    (scores,) = rules.scores(call("kill", Kind.MODERATION))
    assert (scores["violence"], scores["hate"], scores["pii"]) == (0.9, 1.0, 0.5)
    assert "label" not in scores
    assert scores["sexual"] < 0.02
    assert scores["illicit"] < 0.02


def test_a_rule_of_text_leaves_scores_alone() -> None:
    assert model(("x", "yes")).scores(call("x", Kind.MODERATION)) == model().scores(
        call("x", Kind.MODERATION)
    )
