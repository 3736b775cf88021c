"""What jobs ask, and what OpenAI's SDK is told to ask the same: one line a case."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pydantic

TEXT = 'Is "naïve" ok?\n\tÅ 😀 \\ {{ not a template }} \x7f'
MODEL = "sim"
#: Of the vectors of the server behind the tap: what the models of these cases have by themselves.
WIDTH = 1536


@dataclass(frozen=True, slots=True)
class Case:
    """`task` and `lane` are the job's, `ask` what the SDK's method is told beside the model.

    `foreign` are fields of the provider's dialect, which OpenAI's document does not describe. `is_read` is false where
    the server's reply is not what the dialect's own server would send. `files` lie beside the job.
    """

    name: str
    task: Mapping[str, Any]
    ask: Mapping[str, Any]
    lane: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ({"text": TEXT},)
    foreign: frozenset[str] = frozenset()
    is_read: bool = True
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def api(self) -> str:
        """What is asked: the task's kind, or responses."""
        return "responses" if self.lane.get("api") == "responses" else self.kind

    @property
    def streams(self) -> bool:
        return bool(self.ask.get("stream"))

    @property
    def kind(self) -> str:
        return str(self.task["type"])

    @property
    def model(self) -> str:
        return str(self.lane.get("model", MODEL))

    @property
    def is_openai(self) -> bool:
        """Whether it is OpenAI that is asked, and not a server or provider of another kind."""
        return self.lane.get("provider") == "openai"


def user(text: str = TEXT) -> dict[str, Any]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def chat(name: str, params: Mapping[str, Any], ask: Mapping[str, Any] | None = None, **more: Any) -> Case:
    """One message of the user. Without `ask` the SDK is told the parameters by the same names."""
    task = {"type": "chat", "prompt": "{{ text }}", "params": params, **more.pop("task", {})}
    told = {"messages": [user()], **(params if ask is None else ask)}
    return Case(f"chat: {name}", task, told, **_own(more))


def messages(name: str, given: Sequence[Mapping[str, Any]], **more: Any) -> Case:
    """Whole conversations, out of a column."""
    task = {"type": "chat", "messages_column": "talk"}
    return Case(f"chat: {name}", task, {"messages": list(given)}, rows=({"talk": given},), **_own(more))


def completion(
    name: str, params: Mapping[str, Any], ask: Mapping[str, Any] | None = None, **more: Any
) -> Case:
    task = {"type": "completion", "prompt": "{{ text }}", "params": params}
    told = {"prompt": TEXT, **(params if ask is None else ask)}
    return Case(f"completion: {name}", task, told, **_own(more))


def embedding(name: str, ask: Mapping[str, Any], texts: Sequence[str] = (TEXT,), **more: Any) -> Case:
    task = {"type": "embedding", "text": "{{ text }}", **more.pop("task", {})}
    rows = [{"text": text} for text in texts]
    return Case(f"embedding: {name}", task, {"input": list(texts), **ask}, rows=rows, **_own(more))


def moderation(name: str, texts: Sequence[str] = (TEXT,), **more: Any) -> Case:
    task = {"type": "moderation", "text": "{{ text }}"}
    rows = [{"text": text} for text in texts]
    return Case(f"moderation: {name}", task, {"input": list(texts)}, rows=rows, **_own(more))


def streamed(case: Case) -> Case:
    """The same, answered by events."""
    usage = {} if case.api == "responses" else {"stream_options": {"include_usage": True}}
    lane = {**case.lane, "stream": True}
    return replace(case, name=f"{case.name}, streamed", ask={**case.ask, "stream": True, **usage}, lane=lane)


def response(name: str, params: Mapping[str, Any], ask: Mapping[str, Any] | None = None, **more: Any) -> Case:
    """A chat by the Responses API, of a lane that says so."""
    task = {"type": "chat", "prompt": "{{ text }}", "params": params, **more.pop("task", {})}
    lane = {"api": "responses", **more.pop("lane", {})}
    told = {"input": [item("user", TEXT)], "store": False, **(params if ask is None else ask)}
    return Case(f"responses: {name}", task, told, **_own({**more, "lane": lane}))


def item(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _own(more: dict[str, Any]) -> dict[str, Any]:
    """`at="openai/gpt-5-nano"` is short for a lane of that provider and model."""
    if "at" in more:
        provider, _, model = more.pop("at").partition("/")
        more["lane"] = {"provider": provider, "model": model, **more.get("lane", {})}
    if "foreign" in more:
        more["foreign"] = frozenset(more["foreign"])
    return more


class Part(pydantic.BaseModel):
    number: int
    note: str | None


class answer(pydantic.BaseModel):  # noqa: N801 - the SDK sends a class's name as the schema's, and ours is this
    label: Literal["yes", "no"]
    why: str
    parts: list[Part]


CLOSED = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["label"],
    "additionalProperties": False,
}
#: `note` is optional and may not be null: strict mode has no words for that.
OPEN = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "note": {"type": "string"}},
    "required": ["label"],
}


def json_schema(schema: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    shape = {"name": "answer", "schema": schema, "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": shape}}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"id": 1}'}}
SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["\n\n", "END"],
    "seed": 7,
    "presence_penalty": -0.5,
    "frequency_penalty": 2,
    "logit_bias": {"50256": -100, "11": 5},
    "user": "u-1",
}
CHAT_PARAMS: Mapping[str, Any] = {
    **SAMPLING,
    "max_tokens": 40,
    "reasoning_effort": "low",
    "verbosity": "high",
    "service_tier": "flex",
}
INSTRUCTION = (
    "Be brief.\n\nAnswer with one JSON object and nothing else. It must be valid under this JSON Schema:\n"
    '{"type":"object","properties":{"label":{"type":"string","enum":["yes","no"]}},"required":["label"],'
    '"additionalProperties":false}'
)

CHAT = [
    chat("prompt alone", {}),
    *(chat(name, {name: value}) for name, value in CHAT_PARAMS.items()),
    chat("temperature 0", {"temperature": 0}),
    chat("temperature 1.5", {"temperature": 1.5}),
    chat("one stop", {"stop": "END"}),
    chat("every parameter", CHAT_PARAMS),
    chat("system", {}, {"messages": [system("Be brief."), user()]}, task={"system": "Be brief."}),
    Case(
        "chat: messages of a job, with a developer's",
        {
            "type": "chat",
            "messages": [
                {"role": "developer", "content": "Be brief."},
                user("1+1?"),
                {"role": "assistant", "content": "2"},
                user("{{ text }}"),
            ],
        },
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                user("1+1?"),
                {"role": "assistant", "content": "2"},
                user(),
            ]
        },
    ),
    messages("messages of a row", [system("Be brief."), user()]),
    messages("parts, one an image", [{"role": "user", "content": [{"type": "text", "text": TEXT}, IMAGE]}]),
    messages(
        "a tool's answer",
        [
            user(),
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "[1]"},
        ],
    ),
    chat("closed schema", {}, json_schema(CLOSED, strict=True), task={"schema": CLOSED}),
    chat("open schema", {}, json_schema(OPEN, strict=False), task={"schema": OPEN}),
    chat("schema of a class", {}, {"response_format": answer}, task={"schema": answer.model_json_schema()}),
    chat(
        "field of the server's own",
        {},
        {"extra_body": {"top_k": 20}},
        lane={"extra_body": {"top_k": 20}},
        foreign=["top_k"],
    ),
    chat(
        "header of the lane's own",
        {},
        {"extra_headers": {"HTTP-Referer": "https://a.test"}},
        lane={"headers": {"HTTP-Referer": "https://a.test"}},
    ),
    chat("field left out", {"seed": 1, "top_p": 0.5}, {"top_p": 0.5}, lane={"omit": ["seed"]}),
]
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a number up.",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
        "strict": False,
    },
}
NAMED = {"type": "function", "function": {"name": "look_up"}}
LINK = "https://a.test/b.png"
SHOWN = {"type": "image_url", "image_url": {"url": LINK, "detail": "low"}}
EXTRAS = [
    chat("two choices", {"n": 2}),
    chat("log probabilities", {"logprobs": True, "top_logprobs": 3}),
    *(
        chat(f"tools, {name}", {}, {"tools": [TOOL], **more}, task={"tools": [TOOL], **more})
        for name, more in {
            "as it likes": {},
            "auto": {"tool_choice": "auto"},
            "none": {"tool_choice": "none"},
            "required": {"tool_choice": "required"},
            "one named": {"tool_choice": NAMED},
            "one at a time": {"parallel_tool_calls": False},
        }.items()
    ),
    chat(
        "image",
        {},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}, SHOWN]}]},
        task={"images": [{"url": LINK, "detail": "low"}]},
    ),
    Case(
        "moderation: image",
        {"type": "moderation", "text": "{{ text }}", "images": [{"url": LINK}]},
        {"input": [{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": LINK}}]},
    ),
]
OPENAI = [
    chat(
        "OpenAI, a plain model",
        {**SAMPLING, "max_tokens": 40, "service_tier": "flex"},
        {**SAMPLING, "max_completion_tokens": 40, "service_tier": "flex"},
        at="openai/gpt-4.1-nano",
    ),
    chat(
        "OpenAI, a reasoning model",
        {"max_tokens": 40, "seed": 7, "reasoning_effort": "minimal", "verbosity": "low"},
        {"max_completion_tokens": 40, "seed": 7, "reasoning_effort": "minimal", "verbosity": "low"},
        at="openai/gpt-5-nano",
    ),
    chat(
        "OpenAI, a schema",
        {},
        {"response_format": answer},
        task={"schema": answer.model_json_schema()},
        at="openai/gpt-4.1-nano",
    ),
    completion("OpenAI", {**SAMPLING, "max_tokens": 40}, at="openai/gpt-3.5-turbo-instruct"),
    embedding(
        "OpenAI, as the SDK asks by itself",
        {},
        at="openai/text-embedding-3-small",
        task={"dimensions": WIDTH},
    ),
    embedding(
        "OpenAI, narrower", {"dimensions": 256}, at="openai/text-embedding-3-small", task={"dimensions": 256}
    ),
    embedding(
        "OpenAI, as floats",
        {"encoding_format": "float", "dimensions": 256},
        at="openai/text-embedding-3-large",
        task={"dimensions": 256},
        lane={"extra_body": {"encoding_format": "float"}},
    ),
    moderation("OpenAI", at="openai/omni-moderation-latest"),
]
COMPLETION = [
    completion("prompt alone", {}),
    completion("every parameter", {**SAMPLING, "max_tokens": 40}),
    completion("two choices", {"n": 2}),
    completion("log probabilities", {"logprobs": True}, {"logprobs": 1}),
    completion("log probabilities, five", {"logprobs": True, "top_logprobs": 5}, {"logprobs": 5}),
]
EMBEDDING = [
    embedding("one text", {"encoding_format": "float", "dimensions": WIDTH}, task={"dimensions": WIDTH}),
    embedding(
        "many texts",
        {"encoding_format": "float", "dimensions": WIDTH},
        ["a", "b", TEXT],
        task={"dimensions": WIDTH},
    ),
    embedding(
        "width not sent",
        {"encoding_format": "float"},
        task={"dimensions": WIDTH},
        lane={"omit": ["dimensions"]},
    ),
    embedding(
        "base64",
        {"encoding_format": "base64", "dimensions": WIDTH},
        task={"dimensions": WIDTH},
        lane={"extra_body": {"encoding_format": "base64"}},
    ),
]
MODERATION = [moderation("one text"), moderation("many texts", ["a", "b", TEXT])]
DIALECTS = [
    chat(
        "Groq",
        {"max_tokens": 40, "seed": 7},
        {"max_completion_tokens": 40, "seed": 7},
        at="groq/openai/gpt-oss-20b",
    ),
    chat(
        "Mistral",
        {"max_tokens": 40, "seed": 7, "user": "u-1"},
        {"max_tokens": 40, "extra_body": {"random_seed": 7}},
        at="mistral/ministral-8b-latest",
        foreign=["random_seed"],
    ),
    chat(
        "DeepSeek",
        {"max_tokens": 40, "seed": 7, "user": "u-1"},
        {"max_tokens": 40, "extra_body": {"user_id": "u-1"}},
        at="deepseek/deepseek-flash",
        foreign=["user_id"],
    ),
    chat(
        "DeepSeek, not thinking",
        {"temperature": 0, "reasoning_effort": "none"},
        {"temperature": 0, "extra_body": {"thinking": {"type": "disabled"}}},
        at="deepseek/deepseek-flash",
        foreign=["thinking"],
    ),
    chat(
        "DeepSeek, a schema",
        {},
        {"messages": [system(INSTRUCTION), user()], "response_format": {"type": "json_object"}},
        task={"system": "Be brief.", "schema": CLOSED},
        at="deepseek/deepseek-flash",
        is_read=False,
    ),
    chat(
        "Together",
        {"max_tokens": 40, "seed": 7, "user": "u-1"},
        {"max_tokens": 40, "seed": 7},
        at="together/openai/gpt-oss-20b",
    ),
    chat("xAI", {"max_tokens": 40, "seed": 7}, at="xai/grok-4.20-0309-non-reasoning"),
    chat(
        "Fireworks",
        {"max_tokens": 40, "stop": ["a", "b"]},
        at="fireworks/accounts/fireworks/models/gpt-oss-20b",
    ),
    chat(
        "OpenRouter, a schema",
        {},
        {**json_schema(CLOSED, strict=True), "extra_body": {"provider": {"require_parameters": True}}},
        task={"schema": CLOSED},
        at="openrouter/openai/gpt-oss-20b",
        foreign=["provider"],
    ),
    embedding(
        "Mistral",
        {"encoding_format": "float", "extra_body": {"output_dimension": 256}},
        task={"dimensions": 256},
        at="mistral/codestral-embed",
        foreign=["output_dimension"],
        is_read=False,
    ),
    embedding(
        "Perplexity",
        {"encoding_format": "base64_int8"},
        task={"dimensions": 1024},
        at="perplexity/pplx-embed-v1-0.6b",
        foreign=["encoding_format"],
        is_read=False,
    ),
    chat(
        "Azure",
        {"max_tokens": 40, "seed": 7, "user": "u-1"},
        {"max_completion_tokens": 40, "seed": 7, "user": "u-1"},
        at="azure/gpt-4.1-nano",
    ),
    chat(
        "Gemini",
        {"max_tokens": 40, "seed": 7, "user": "u-1"},
        {"max_tokens": 40},
        at="gemini/gemini-3.5-flash",
    ),
    chat(
        "Anthropic",
        {"max_tokens": 40, "seed": 7, "user": "u-1"},
        {"max_tokens": 40},
        at="anthropic/claude-haiku-4-5",
    ),
    chat("vLLM", CHAT_PARAMS, at="vllm/sim"),
    chat(
        "Ollama", {"max_tokens": 40, "seed": 7, "user": "u-1"}, {"max_tokens": 40, "seed": 7}, at="ollama/sim"
    ),
    moderation("Mistral", at="mistral/mistral-moderation-2603"),
]
FLAT = {"type": "function", **TOOL["function"]}
TEXT_PART = {"type": "input_text", "text": TEXT}
RESPONSES = [
    response("prompt alone", {}),
    response(
        "system",
        {},
        {"input": [item("system", "Be brief."), item("user", TEXT)]},
        task={"system": "Be brief."},
    ),
    response(
        "every parameter",
        {"temperature": 0.5, "top_p": 0.9, "max_tokens": 40, "service_tier": "flex", "user": "u-1"},
        {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 40, "service_tier": "flex", "user": "u-1"},
    ),
    response(
        "OpenAI, a reasoning model and a schema",
        {"reasoning_effort": "low", "verbosity": "high"},
        {
            "reasoning": {"effort": "low"},
            "text": {
                "verbosity": "high",
                "format": {"type": "json_schema", "name": "answer", "schema": CLOSED, "strict": True},
            },
        },
        task={"schema": CLOSED},
        at="openai/gpt-5-nano",
    ),
    response(
        "a tool that must be called",
        {},
        {"tools": [FLAT], "tool_choice": {"type": "function", "name": "look_up"}},
        task={"tools": [TOOL], "tool_choice": NAMED},
    ),
    response(
        "image",
        {},
        {"input": [item("user", [TEXT_PART, {"type": "input_image", "image_url": LINK, "detail": "low"}])]},
        task={"images": [{"url": LINK, "detail": "low"}]},
    ),
    response(
        "log probabilities",
        {"logprobs": True, "top_logprobs": 3},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
    ),
]
STREAMS = [
    streamed(chat("prompt alone", {})),
    streamed(chat("two choices", {"n": 2})),
    streamed(chat("tools", {}, {"tools": [TOOL]}, task={"tools": [TOOL]})),
    streamed(completion("prompt alone", {})),
    streamed(response("prompt alone", {})),
]
#: One pixel.
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU"
    b"\x00\x00\x00\nIDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND\xaeB`\x82"
)
SENT = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(PNG).decode()}"}}
FILES = [
    chat(
        "image by path",
        {},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}, SENT]}]},
        task={"images": [{"path": "a.png"}]},
        files={"a.png": PNG},
    )
]
CASES = [
    *CHAT,
    *EXTRAS,
    *OPENAI,
    *COMPLETION,
    *EMBEDDING,
    *MODERATION,
    *DIALECTS,
    *RESPONSES,
    *STREAMS,
    *FILES,
]
