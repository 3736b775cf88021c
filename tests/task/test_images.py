import base64
from typing import Any

import pytest

from batchllm.errors import InvariantError, RowError, RowInputError
from batchllm.records import Row
from batchllm.spec import models
from batchllm.task import ChatTask, build_task
from batchllm.task.images import media_type
from batchllm.testing import MemoryImages
from batchllm.tokens import Ruler

PNG = b"\x89PNG\r\n\x1a\n..."
#: 128 × 64 pixels, as far as its head says.
SIZED = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x80\x00\x00\x00\x40"
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "
FILES = MemoryImages({"a.png": PNG, "text.png": b"hello"})


def task(*images: dict[str, Any], **spec: Any) -> ChatTask:
    given = {"type": "chat", "prompt": "What? {{ text }}", "images": list(images), **spec}
    if "messages" in given:
        del given["prompt"]
    built = build_task(models.ChatTask.model_validate(given), dimensions=None, files=FILES)
    assert isinstance(built, ChatTask)
    return built


def row(**values: object) -> Row:
    return Row(0, "k", {"text": "t", **values}, b"[]")


def messages(asked: ChatTask, **values: object) -> list[dict[str, Any]]:
    content = asked.content(row(**values))
    assert isinstance(content, list)
    return content


def refusal(image: dict[str, Any], **values: object) -> str:
    with pytest.raises(RowInputError) as caught:
        task(image).content(row(**values))
    return caught.value.message


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"GIF87a", "image/gif"),
        (WEBP, "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", None),
        (b"<svg>", None),
        (b"\x89PNG", None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_what_it_is(data: bytes, kind: str | None) -> None:
    assert media_type(data) == kind


def test_images_follow_the_text_of_the_last_user_message() -> None:
    asked = task(
        {"path": "{{ file }}"},
        {"url": "https://x/y.png", "detail": "high"},
        messages=[
            {"role": "user", "content": "first"},
            {"role": "user", "content": "{{ text }}"},
            {"role": "assistant", "content": "I see"},
        ],
    )
    first, second, third = messages(asked, file="a.png")
    assert first["content"] == "first"
    assert third["content"] == "I see"
    encoded = base64.b64encode(PNG).decode()
    assert second["content"] == [
        {"type": "text", "text": "t"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "high"}},
    ]
    assert asked.template_columns == {"text", "file"}
    assert asked.texts(asked.content(row(file="a.png"))) == ["first", "t", "I see"]


@pytest.mark.parametrize(
    "given",
    [PNG, bytearray(PNG), memoryview(PNG), {"bytes": PNG, "path": None}, base64.b64encode(PNG).decode()],
)
def test_a_column_may_hold_it_in_several_forms(given: object) -> None:
    (message,) = messages(task({"column": "picture"}), picture=given)
    assert message["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "it is null"),
        (5, "a int, neither bytes nor base64"),
        ({"path": "x"}, "it is null"),
        ("!!", "no base64"),
        ("", "no PNG"),
        (b"text", "no PNG"),
    ],
)
def test_a_column_that_holds_none_is_said(given: object, words: str) -> None:
    assert words in refusal({"column": "picture"}, picture=given)


def test_a_row_without_the_column_is_said() -> None:
    assert "the row has no column 'picture'" in refusal({"column": "picture"})


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"path": "missing.png"}, "cannot be opened"),
        ({"path": "text.png"}, "'text.png' is no PNG"),
        ({"path": "a.png", "max_mb": 1e-6}, "larger than"),
        ({"path": "{{ text[:0] }}"}, "no image for this row"),
        ({"url": "ftp://x/y.png"}, "begins with http"),
        ({"column": "text", "max_mb": 1e-6}, "no base64"),
    ],
)
def test_what_cannot_be_sent_is_said(image: dict[str, Any], words: str) -> None:
    assert words in refusal(image)


def test_a_template_that_fails_is_the_template_s_fault() -> None:
    with pytest.raises(RowError, match=r"task\.images\.0\.path") as caught:
        task({"path": "{{ nothing }}"}).content(row())
    assert not isinstance(caught.value, RowInputError)


def test_images_count_by_their_size_or_what_the_job_says() -> None:
    ruler = Ruler(("gpt-4o",))

    def tokens(*images: dict[str, Any]) -> int:
        asked = task(*images)
        return asked.other_tokens(asked.content(row(file="a.png", picture=SIZED)), ruler)

    assert tokens({"url": "https://x"}) == 765
    assert tokens({"column": "picture"}) == 255
    assert tokens({"url": "https://x", "detail": "low"}, {"url": "https://y", "tokens": 900}) == 85 + 900
    assert ChatTask(models.ChatTask(type="chat", prompt="x")).other_tokens([], ruler) == 0


def test_a_task_without_files_reads_none() -> None:
    spec = models.ChatTask.model_validate({"type": "chat", "prompt": "x", "images": [{"path": "a.png"}]})
    with pytest.raises(InvariantError):
        build_task(spec, dimensions=None).content(row())
