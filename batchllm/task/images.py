"""Images of a row → parts of a message: an address as it is, a file or a column as a data URL.

What an image is, its first bytes tell, and not its name. Of what is no image nothing is sent.
"""

import binascii
from collections.abc import Mapping, Sequence

from batchllm.errors import InvariantError, RowInputError
from batchllm.ports import ImageFiles, Ruler
from batchllm.prompt import Template, missing_column
from batchllm.spec.extras import Image

#: Our choice: what providers document for one image lies around it (a guess).
MAX_MB = 20.0
_ADDRESSES = ("http://", "https://", "data:image/")
#: The first bytes of each format that vision models take.
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_RIFF, _WEBP = b"RIFF", b"WEBP"
_PICTURES = ("image_url", "input_image")


class RowImages:
    """The images of each row. `files` reads those that are named by path. Raises TemplateError."""

    def __init__(self, specs: Sequence[Image], files: ImageFiles | None) -> None:
        self._images = [_Image(spec, f"task.images.{at}", files) for at, spec in enumerate(specs)]
        self.columns = frozenset[str]().union(*(image.columns for image in self._images))

    def parts(self, values: Mapping[str, object]) -> list[dict[str, object]]:
        """One part of a message for each. Raises RowError."""
        return [image.part(values) for image in self._images]

    def tokens(self, content: object, ruler: Ruler) -> int:
        """What those in a content count: what the job says of each, else what their sizes tell."""
        shown = pictures(content)
        told = [image.tokens for image in self._images]
        return sum(
            picture_tokens(part, ruler) if tokens is None else tokens
            for part, tokens in zip(shown, told, strict=True)
        )


class _Image:
    def __init__(self, spec: Image, where: str, files: ImageFiles | None) -> None:
        self._where = where
        self._files = files
        self._column = spec.column
        self._is_path = spec.path is not None
        text = spec.url if spec.path is None else spec.path
        place = f"{where}.{'path' if self._is_path else 'url'}"
        self._template = None if text is None else Template(text, where=place)
        self._detail = {} if spec.detail is None else {"detail": spec.detail}
        self._most_bytes = int((spec.max_mb or MAX_MB) * 1e6)
        self.tokens = spec.tokens
        self.columns = frozenset(
            {spec.column} if spec.column is not None else self._template.columns if self._template else ()
        )

    def part(self, values: Mapping[str, object]) -> dict[str, object]:
        return {"type": "image_url", "image_url": {"url": self._address(values), **self._detail}}

    def _address(self, values: Mapping[str, object]) -> str:
        if self._column is not None:
            return self._data_url(self._bytes(self._column, values), f"column {self._column!r}")
        named = "" if self._template is None else self._template.render(values).strip()
        if not named:
            raise RowInputError(f"{self._where}: there is no image for this row")
        if self._is_path:
            if self._files is None:
                raise InvariantError("a task that reads images was built without their files")
            return self._data_url(self._files.read(named, self._most_bytes), f"the image {named!r}")
        if not named.lower().startswith(_ADDRESSES):
            raise RowInputError(
                f"{self._where}: an address begins with http:// or https:// (here: {named[:60]!r})"
            )
        return named

    def _bytes(self, column: str, values: Mapping[str, object]) -> bytes:
        if column not in values:
            raise RowInputError(f"{self._where}: {missing_column(column, values)}")
        given = values[column]
        if isinstance(given, dict):  # how Hugging Face's data sets hold images
            given = given.get("bytes")
        if isinstance(given, str):
            given = _decoded(given, column)
        if isinstance(given, bytearray | memoryview):
            given = bytes(given)
        if not isinstance(given, bytes):
            raise RowInputError(
                f"column {column!r} holds no image in this row: "
                + ("it is null" if given is None else f"a {type(given).__name__}, neither bytes nor base64")
            )
        if len(given) > self._most_bytes:
            raise RowInputError(
                f"the image in column {column!r} is larger than {self._most_bytes / 1e6:g} MB"
            )
        return given

    def _data_url(self, data: bytes, what: str) -> str:
        kind = media_type(data)
        if kind is None:
            raise RowInputError(f"{what} is no PNG, JPEG, GIF or WebP image")
        return f"data:{kind};base64,{binascii.b2a_base64(data, newline=False).decode()}"


def pictures(content: object) -> list[Mapping[str, object]]:
    """The pictures among the parts of a message, or of a list of messages, in their order."""
    found: list[Mapping[str, object]] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            found += [part] if part.get("type") in _PICTURES else pictures(part.get("content"))
    return found


def picture_tokens(part: Mapping[str, object], ruler: Ruler) -> int:
    shown = part.get("image_url")
    told = shown if isinstance(shown, Mapping) else {**part, "url": shown}
    url = told.get("url")
    return ruler.picture(
        url if isinstance(url, str) else "", "low" if told.get("detail") == "low" else "auto"
    )


def media_type(data: bytes) -> str | None:
    """By the first bytes; None for what is no image that vision models take."""
    if data[:4] == _RIFF and data[8:12] == _WEBP:
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def _decoded(text: str, column: str) -> bytes:
    """Base64, or a data URL of it."""
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return binascii.a2b_base64("".join(body.split()), strict_mode=True)
    except (ValueError, binascii.Error):
        raise RowInputError(f"column {column!r} holds text that is no base64 of an image") from None
