import orjson
import pytest

from batchllm.provider.error_body import ErrorBody, error_in, is_page, read_error


def body(value: object) -> ErrorBody:
    return read_error(orjson.dumps(value))


def test_code_type_and_their_kin_are_names_in_lower_case() -> None:
    error = body(
        {
            "error": {
                "message": "m",
                "code": "Content_Filter",
                "type": "T",
                "error_type": "E",
                "status": "RESOURCE_EXHAUSTED",
                "metadata": {"error_type": "Meta"},
                "innererror": {"code": "Inner"},
            }
        }
    )
    assert error.names == {"content_filter", "t", "e", "resource_exhausted", "meta", "inner"}
    assert error.code == "content_filter"


def test_number_is_a_code_too() -> None:
    assert body({"error": {"code": 429}}).code == "429"
    assert body({"object": "error", "code": "1300", "message": "m"}).names == {"1300"}


@pytest.mark.parametrize(
    ("code", "status"), [(429, 429), ("503", 503), (1300, None), ("x", None), (200, None), (True, None)]
)
def test_code_may_be_a_status(code: object, status: int | None) -> None:
    assert body({"error": {"code": code}}).status == status


def test_names_beside_an_error_that_is_text_count() -> None:
    error = body({"code": "invalid-argument", "error": "Incorrect API key", "error_type": "x"})
    assert (error.message, error.code) == ("Incorrect API key", "invalid-argument")
    assert error.names == {"invalid-argument", "x"}


def test_upstream_s_words_count_but_not_its_codes() -> None:
    """An upstream that is out of credit is OpenRouter's trouble, not the user's."""
    raw = orjson.dumps({"error": {"message": "inner", "code": "insufficient_quota"}}).decode()
    error = body({"error": {"message": "outer", "code": 502, "metadata": {"raw": raw}}})
    assert error.message == "outer: inner"
    assert error.names == {"502"}


def test_field_that_is_complained_of_is_the_param() -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "messages", 0, "foo"], "msg": "no"}]
    for shape in ({"message": {"detail": detail}}, {"detail": detail}):
        error = body(shape)
        assert (error.param, error.message) == ("messages.0.foo", "messages.0.foo: no")
        assert "extra_forbidden" in error.names


def test_param_of_openai_is_kept() -> None:
    assert body({"error": {"param": "temperature", "message": "m"}}).param == "temperature"


@pytest.mark.parametrize(("said", "told"), [(True, True), (False, False), ("yes", None), (None, None)])
def test_word_on_retrying_is_read_when_it_is_one(said: object, told: bool | None) -> None:
    assert body({"error": {"availability": {"retryable": said}}}).is_retryable is told


def test_failed_generation_is_kept_when_it_is_text() -> None:
    assert body({"error": {"failed_generation": "{"}}).generated == "{"
    assert body({"error": {"failed_generation": 3}}).generated is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("<!DOCTYPE html>", True),
        ("\ufeff\n<html>", True),
        ("<head>", True),
        ("<htmlx>", False),
        ("a <html>", False),
        ("<think>", False),
        ("", False),
    ],
)
def test_page_is_known_by_its_first_tag(text: str, is_one: bool) -> None:
    assert is_page(text) is is_one


def test_page_is_told_by_its_title() -> None:
    error = read_error(b"<html><head><title lang='en'> Bad gateway </title>")
    assert (error.message, error.is_page) == ("a web page: Bad gateway", True)
    assert read_error(b"<html>").message == "a web page"


@pytest.mark.parametrize(
    "value", [None, 3, 1.5, True, "x", [], [[]], {}, {"error": []}, {"error": [1]}, [None]]
)
def test_other_json_is_an_error_without_names(value: object) -> None:
    assert error_in(value).names == frozenset()


def test_long_messages_are_cut() -> None:
    assert len(body({"error": {"message": "x" * 100_000}}).message) == 4_000
    assert len(read_error(b"x" * 100_000).message) == 4_000
    assert len(error_in({"a": "x" * 100_000}).message) <= 4_000
