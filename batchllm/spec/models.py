"""The job file as types. What a key means stands in its description, which `batchllm schema` prints.

Strict and closed: no coercion (a port is not a string), no unknown key, nothing mutable. Text of the form
`${NAME}` is read from the environment in `api_key`, `base_url`, `headers` and paths only.
"""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter, model_validator

from batchllm.spec.consensus import Consensus
from batchllm.spec.extras import CalledTool, Extra, Images, Tool, repeated_name
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.strict import Positive, Strict, Text

ColumnType = Literal["string", "int64", "float64", "bool"]


class Input(Strict):
    path: Text | Annotated[list[Text], Field(min_length=1)] = Field(
        description="File, glob or folder, relative to the job file; several are read one after the other."
    )
    format: Literal["jsonl", "csv", "parquet"] | None = Field(
        None, description="Only when the file's ending does not tell."
    )
    key: Text | None = Field(
        None, description="Column that names a row, unique. Without it a row is known by its position."
    )
    columns: dict[str, ColumnType] = Field(
        default_factory=dict,
        description="Types of carried JSONL and CSV columns in the output (default: string). Parquet has its own.",
    )


class Params(Strict):
    """Sampling parameters, in OpenAI's names; each provider's dialect is spoken for you."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = Field(None, description="Most tokens of an answer.")
    stop: Text | Annotated[list[Text], Field(min_length=1, max_length=16)] | None = None
    seed: int | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: Text | None = None
    verbosity: Text | None = None
    service_tier: Text | None = None
    user: Text | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = Field(
        None,
        description="Answers to each row. With more than one all of them stand in a column contents;"
        " content and the schema's columns are of the first.",
    )
    logprobs: bool | None = Field(None, description="Log probabilities of the answer's tokens, as a column.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="With logprobs: so many of the likeliest tokens at each place."
    )

    @model_validator(mode="after")
    def _top_of_something(self) -> "Params":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true")
        return self


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str = Field(description="A template: {{ column }}")


OnTruncated = Annotated[
    Literal["fail", "keep", "grow"] | None,
    Field(
        description="What becomes of an answer that the token limit cut. fail: its row goes to failures/ with the text;"
        " keep: it is an answer if it fits the schema; finish_reason tells; grow: it is asked once more with twice"
        " max_tokens, then as fail (default: fail with a schema, else keep)."
    ),
]
OnFiltered = Annotated[
    Literal["fail", "keep"] | None,
    Field(
        description="What becomes of an answer that the provider's content filter ended. fail: its row goes to"
        " failures/ with the text; keep: the text so far is an answer, if there is one and it fits the schema"
        " (default: fail)."
    ),
]


class ChatTask(Strict):
    type: Literal["chat"]
    system: Text | None = Field(None, description="A template, sent as the system message.")
    prompt: Text | None = Field(None, description="A template, sent as the user message.")
    messages: Annotated[list[Message], Field(min_length=1)] | None = Field(
        None, description="Templates, in place of prompt."
    )
    messages_column: Text | None = Field(
        None, description="A column that holds the list of messages (a list, or its JSON text)."
    )
    params: Params = Params()
    answer_schema: dict[str, JsonValue] | None = Field(
        None,
        alias="schema",
        description="JSON Schema (an object) of the answer; each property becomes a column.",
    )
    repair: bool | None = Field(
        None,
        description="With a schema or tools: an answer that breaks it, or a call that cannot be carried out, is sent"
        " back once, with what is wrong (default: true); false: the row is asked again as it was.",
    )
    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)] | None = Field(
        None,
        description="Functions that the model may ask for; what it asks for stands in a column tool_calls.",
    )
    tool_choice: Literal["auto", "none", "required"] | CalledTool | None = None
    parallel_tool_calls: bool | None = Field(None, description="Whether one answer may hold several calls.")
    images: Images | None = Field(None, description="Images of each row, sent with the last user message.")
    include: Annotated[list[Extra], Field(min_length=1)] | None = Field(
        None, description="What else of a reply becomes a column, where the provider tells it."
    )
    truncated: OnTruncated = None
    filtered: OnFiltered = None

    @model_validator(mode="after")
    def _parts_fit(self) -> "ChatTask":
        if self.tools is None and (self.tool_choice is not None or self.parallel_tool_calls is not None):
            raise ValueError("tool_choice and parallel_tool_calls go with tools")
        names = [tool.function.name for tool in self.tools or ()]
        if twice := repeated_name(names):
            raise ValueError(f"two tools are called {twice}")
        if isinstance(self.tool_choice, CalledTool) and self.tool_choice.function.name not in names:
            raise ValueError(
                f"tool_choice names {self.tool_choice.function.name}, which is not among the tools"
            )
        if self.repair is not None and self.answer_schema is None and self.tools is None:
            raise ValueError("repair goes with schema or tools: without them there is nothing to mend")
        if self.images is not None and self.messages_column is not None:
            raise ValueError(
                "images go with prompt or messages; put them into the messages of messages_column"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> "ChatTask":
        given = [
            name for name in ("prompt", "messages", "messages_column") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise ValueError(f"give one of prompt, messages, messages_column (here: {said})")
        if self.system is not None and self.prompt is None:
            raise ValueError(f"system goes with prompt; put a system message into {given[0]}")
        return self


class CompletionTask(Strict):
    type: Literal["completion"]
    prompt: Text = Field(description="A template.")
    params: Params = Params()
    truncated: OnTruncated = None
    filtered: OnFiltered = None


class EmbeddingTask(Strict):
    type: Literal["embedding"]
    text: Text = Field(description='A template, such as "{{ title }}\\n{{ body }}".')
    dimensions: Annotated[int, Field(gt=0, le=65536)] | None = Field(
        None, description="Width of the vectors; needed when the model's own is not in the catalogue."
    )
    inputs_per_request: Annotated[int, Field(gt=0, le=2048)] | None = Field(
        None,
        description="Most rows packed into one request (default: what the models document, as far as the reply fits"
        " into memory; 64 where nothing is documented).",
    )


class ModerationTask(Strict):
    type: Literal["moderation"]
    text: Text = Field(description="A template.")
    images: Images | None = Field(
        None, description="Images judged with the text; each row is then a request."
    )
    inputs_per_request: Annotated[int, Field(gt=0, le=2048)] | None = Field(
        None, description="Most rows packed into one request (default: what all lanes take, at most 32)."
    )

    @model_validator(mode="after")
    def _one_pack(self) -> "ModerationTask":
        if self.images is not None and self.inputs_per_request is not None:
            raise ValueError("with images each row is a request of its own: leave inputs_per_request out")
        return self


TaskSpec = Annotated[ChatTask | CompletionTask | EmbeddingTask | ModerationTask, Field(discriminator="type")]


def parse_task(text: str) -> TaskSpec:
    """A task as the fingerprint keeps it, which is JSON. Raises pydantic's ValidationError."""
    task: TaskSpec = TypeAdapter(TaskSpec).validate_json(text)
    return task


class Retry(Strict):
    max_attempts: Annotated[int, Field(gt=0, le=100)] = Field(
        8, description="Most calls for one row; refusals by a rate limit do not count."
    )
    backoff_s: Positive = Field(0.5, description="First wait; doubles with each attempt, with jitter.")
    max_backoff_s: Positive = 60.0
    patience_s: Positive = Field(
        21_600.0, description="How long a provider that has answered before may be down until it is given up."
    )


class Budget(Strict):
    usd: Positive = Field(
        description="Reserved before each call, over all runs of this output; calls that a kill cut off count with the"
        " most that they can have cost."
    )


class Output(Strict):
    path: Text | None = Field(None, description="Folder (default: out/<name> beside the job file).")
    carry: Literal["all"] | list[Text] = Field(
        default_factory=list, description="Input columns that travel to the output; the key always does."
    )
    keep: Literal["content", "bodies"] = Field(
        "content",
        description="bodies: each whole reply as it was received, in a column `body` beside the answer or failure;"
        " of a packed request it stands at its first row.",
    )


class Job(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    input: Input
    task: TaskSpec
    providers: Annotated[list[LaneSpec], Field(min_length=1, max_length=64)]
    routing: Literal["spread", "fallback", "all"] = Field(
        "spread",
        description="spread: each row to the lane with room; fallback: in order; all: each row to every lane.",
    )
    samples: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Answers to each row from the same lane (with routing: all, from each lane)."
    )
    consensus: Consensus | None = Field(
        None,
        description="What the answers to a row agree on, and how well: OUT/consensus/ and OUT/report.html.",
    )
    params_unsupported: Literal["refuse", "drop"] = Field(
        "refuse",
        description="A parameter that a lane's provider does not take. refuse: the job; drop: it is not sent there,"
        " which is said once.",
    )
    retry: Retry = Retry()
    stream: bool = Field(
        False,
        description="Answers (chat, completion) come as they are written: one that stalls is given up early, and"
        " usage/ tells the time to the first token. What is answered is the same.",
    )
    budget: Budget | None = None
    dedupe: bool | None = Field(
        None,
        description="Rows that ask the same are asked once, and each gets the answer (default: yes for embeddings).",
    )
    output: Output = Output()
    disk_wait_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1800.0, description="How long a run waits for space on a full disk before it ends; 0: not at all."
    )
    drain_timeout_s: Positive = Field(
        60.0, description="How long a stop waits for calls in flight, and for parts to be put in order."
    )

    @model_validator(mode="after")
    def _answers_fit(self) -> "Job":
        if self.samples > 1 and self.task.type == "embedding":
            raise ValueError("samples of an embedding would be the same vector: leave samples out")
        if self.consensus is not None and self.consensus.stop_early:
            if self.task.type in ("embedding", "moderation"):
                raise ValueError("stop_early asks row by row: it goes with type: chat or completion")
            if self.samples == 1 and (self.routing != "all" or len(self.providers) == 1):
                raise ValueError("stop_early needs several answers to a row: routing: all, or samples")
            if self.consensus.judge is not None and self.consensus.judge.asks == "all":
                raise ValueError("a judge that asks: all needs all votes of a row: leave stop_early out")
        return self
