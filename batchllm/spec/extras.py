"""What a task may ask for beside text: functions to call, images, and parts of the reply as columns."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from batchllm.spec.strict import Strict, Text

FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Function(Strict):
    name: FunctionName
    description: Text | None = None
    parameters: dict[str, JsonValue] | None = Field(
        None, description="JSON Schema (an object) of the arguments."
    )
    strict: bool | None = Field(None, description="Hold the arguments to the schema, where the provider can.")


class Tool(Strict):
    """A function that the model may ask for, in OpenAI's form."""

    type: Literal["function"] = "function"
    function: Function


class CalledFunction(Strict):
    name: FunctionName


class CalledTool(Strict):
    """The one function that must be called."""

    type: Literal["function"] = "function"
    function: CalledFunction


class Image(Strict):
    """An image of each row, sent behind the prompt's text: one of url, path, column says where it is."""

    url: Text | None = Field(None, description="A template of an address that the provider fetches itself.")
    path: Text | None = Field(
        None, description="A template of a file's path, relative to the job file: PNG, JPEG, GIF or WebP."
    )
    column: Text | None = Field(
        None, description="A column that holds the image: bytes (Parquet), or their base64 as text."
    )
    detail: Literal["auto", "low", "high"] | None = Field(None, description="How closely it is looked at.")
    max_mb: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="A larger file or column fails its row before anything is spent (default: 20)."
    )
    tokens: Annotated[int, Field(gt=0, le=1_000_000)] | None = Field(
        None,
        description="What it counts as in limits and budgets before the provider has counted it (default: by its size"
        " and the model's rule).",
    )

    @model_validator(mode="after")
    def _one_place(self) -> "Image":
        if sum(place is not None for place in (self.url, self.path, self.column)) != 1:
            raise ValueError("give one of url, path, column")
        return self


Images = Annotated[list[Image], Field(min_length=1, max_length=16)]
Extra = Literal["reasoning", "citations", "search_results", "annotations"]


def repeated_name(names: Sequence[str]) -> str | None:
    """The first that stands there twice."""
    return next((name for name in names if names.count(name) > 1), None)
