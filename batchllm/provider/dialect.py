"""What a job asks, in the words of one provider.

A job names its parameters once, as OpenAI does. Providers differ in four ways:

- another name for the same thing: renamed (seed is random_seed at Mistral);
- a hint that does not change what an answer means (seed, user): left out, with a note;
- a parameter that shapes the answer and that the provider does not take: the job is refused before anything is spent,
  since silently different answers are worse than none, unless the job says to leave such parameters out
  (`params_unsupported: drop`); what is taken but may do nothing is sent, with a note;
- no way to enforce a JSON Schema: the schema goes into the prompt, as an instruction.

What the lane itself says wins: a name in `omit` is not sent and not judged, and `extra_body` is merged last, as it
is. Both are the way out where this table is behind the times.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from batchllm.provider.catalogue import VECTOR_FORMS, Catalogue, Dialect, ProviderEntry, TaskKind
from batchllm.provider.dialect_rules import (
    NEUTRAL,
    NEVER_DROPPED,
    REQUIRED_UPSTREAM,
    THINKING,
    Rule,
    Rules,
    rules_for,
)
from batchllm.provider.strict_schema import OpenSchemaError, closed_schema
from batchllm.spec.models import Params

REMEDY = "leave it out, name it in this lane's omit, or set the lane's own value in its extra_body"
_DROP_REMEDY = (
    "leave it out, name it in this lane's omit, set the lane's own value in its extra_body,"
    " or say params_unsupported: drop"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the job asks of all its lanes alike. `tools`: the body's fields about tools, as OpenAI has them."""

    task_kind: TaskKind
    params: Params = field(default_factory=Params)
    schema: Mapping[str, object] | None = None
    schema_name: str = "answer"
    dimensions: int | None = None
    tools: Mapping[str, object] = field(default_factory=dict)
    has_images: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A part of the job that this lane cannot do; `param` is a parameter, or `task.type` for the whole task."""

    param: str
    reason: str
    remedy: str = REMEDY


@dataclass(frozen=True, slots=True)
class Translation:
    """The body fields beside model and content, the same for each request of the lane.

    `instruction`, when not empty, must be added to the system message. `unsupported` refuses the job; `notes` are
    for the user's eyes.
    """

    fields: Mapping[str, object]
    instruction: str = ""
    unsupported: tuple[Unsupported, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def max_output_tokens(self) -> int | None:
        """The output cap that the body really carries, wherever it came from; None when there is none."""
        caps = [self.fields.get(name) for name in CAPS]
        return max((cap for cap in caps if isinstance(cap, int)), default=None)

    @property
    def choices(self) -> int:
        """How many answers a request is asked for; each may be as long as the cap."""
        choices = self.fields.get("n")
        return choices if isinstance(choices, int) else 1


#: The names of the output cap, the last one of the Responses API; no server takes two in one request.
CAPS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
DIMENSIONS_FIELD: Mapping[Dialect, str] = {"mistral": "output_dimension"}
#: Fields that decide what is sent and how the reply is read.
RESERVED: Mapping[str, str] = {
    "model": "set the lane's model",
    "messages": "it is made from the row",
    "prompt": "it is made from the row",
    "input": "it is made from the row",
}


class _Draft:
    """What has been decided so far, and what the lane has taken into its own hands."""

    def __init__(self, omit: Sequence[str], extra_body: Mapping[str, object], *, drops: bool) -> None:
        self.omit = frozenset(omit)
        self.extra_body = extra_body
        self.drops = drops
        self.fields: dict[str, object] = {}
        self.instruction = ""
        self.unsupported: list[Unsupported] = []
        self.notes: list[str] = []

    def is_taken(self, *names: str) -> bool:
        return any(name in self.omit or name in self.extra_body for name in names)

    def put(self, name: str, value: object) -> None:
        if not self.is_taken(name):
            self.fields[name] = value

    def refuse(self, param: str, reason: str, remedy: str = REMEDY) -> None:
        self.unsupported.append(Unsupported(param, reason, remedy))

    def turn_down(self, param: str, reason: str) -> None:
        """A parameter that the provider does not take: left out where the job says so, else refused."""
        if param in NEVER_DROPPED:
            self.refuse(param, reason)
        elif self.drops:
            self.notes.append(f"{param} is not sent: {reason}")
        else:
            self.refuse(param, reason, _DROP_REMEDY)

    def result(self) -> Translation:
        return Translation(
            {**self.fields, **self.extra_body},
            self.instruction,
            tuple(self.unsupported),
            tuple(self.notes),
        )


def translate(
    asked: Asked,
    *,
    entry: ProviderEntry,
    model: str,
    omit: Sequence[str] = (),
    extra_body: Mapping[str, object] | None = None,
    drops: bool = False,
) -> Translation:
    """The body that one lane sends. `model` is the real one, not a tier.

    `drops`: parameters that the provider does not take are left out, with a note, and do not refuse the job.
    """
    draft = _Draft(omit, extra_body or {}, drops=drops)
    if not entry.supports(asked.task_kind):
        draft.refuse(
            "task.type", entry.refusal(asked.task_kind), "take this lane out, or choose another provider"
        )
    _judge_extra_body(draft, asked.task_kind)
    if asked.task_kind in ("chat", "completion"):
        rules = _rules(draft, asked, entry, model)
        for name, value in asked.params.model_dump(exclude_none=True).items():
            _put_param(draft, name, value, rules.get(name, Rule()))
        if (asked.params.n or 1) > 1 and "n" in draft.omit:
            draft.refuse(
                "n", "this lane leaves it out, and would give one answer", "take it out of the lane's omit"
            )
        if asked.task_kind == "completion" or entry.dialect == "together":
            _count_logprobs(draft, asked.params)
    if asked.task_kind == "chat":
        _put_chat(draft, asked, entry, model)
    if entry.dialect == "openrouter" and not REQUIRED_UPSTREAM.isdisjoint(draft.fields):
        draft.put("provider", {"require_parameters": True})
    if asked.has_images and asked.task_kind == "moderation" and entry.dialect == "mistral":
        draft.refuse("task.images", f"{entry.title} judges texts only", "take this lane out, or the images")
    if asked.task_kind == "embedding":
        draft.put("encoding_format", entry.vector_form)
        _put_dimensions(draft, asked.dimensions, entry, model)
    return draft.result()


def takers(asked: Asked, param: str, catalogue: Catalogue) -> list[str]:
    """The hosted providers of the catalogue that could do what `param` asks, or the whole kind of task."""
    if param != "task.type":
        wanted = asked.params.model_dump(include={param}, exclude_none=True)
        if not wanted:
            return []
        asked = replace(asked, params=asked.params.model_construct(**wanted), schema=None)
    return [entry.name for entry in catalogue if _can(entry, asked)]


def _can(entry: ProviderEntry, asked: Asked) -> bool:
    models = entry.models(asked.task_kind)
    if not entry.env or not entry.supports(asked.task_kind) or not models:
        return False
    asked = replace(asked, dimensions=None)
    return any(not translate(asked, entry=entry, model=model).unsupported for model in models)


def _judge_extra_body(draft: _Draft, kind: TaskKind) -> None:
    for name, reason in RESERVED.items():
        if name in draft.extra_body:
            draft.refuse(f"extra_body.{name}", f"not here: {reason}", "take it out of extra_body")
    if draft.extra_body.get("stream", False) is not False:
        draft.refuse(
            "extra_body.stream",
            "not here: it says how replies are read",
            "say stream: true on the job or the lane",
        )
    if draft.extra_body.get("n", 1) != 1:
        draft.refuse("extra_body.n", "all lanes give as many answers to a row", "say it in task.params.n")
    if kind == "embedding" and draft.extra_body.get("encoding_format", "float") not in VECTOR_FORMS:
        draft.refuse(
            "extra_body.encoding_format",
            f"vectors are read as {' or '.join(VECTOR_FORMS)}",
            "say one of them, or take it out of extra_body",
        )


def _rules(draft: _Draft, asked: Asked, entry: ProviderEntry, model: str) -> Rules:
    rules = rules_for(entry, asked.task_kind, model)
    if entry.dialect == "deepseek" and asked.task_kind == "chat" and _is_thinking(draft, asked.params):
        return {**rules, **THINKING}
    return rules


def _is_thinking(draft: _Draft, params: Params) -> bool:
    thinking = draft.extra_body.get("thinking")
    if isinstance(thinking, Mapping):
        return thinking.get("type") != "disabled"
    return params.reasoning_effort != "none" or "reasoning_effort" in draft.omit


def _put_param(draft: _Draft, name: str, value: object, rule: Rule) -> None:
    wire = rule.wire or name
    if draft.is_taken(name, wire) or (name == "max_tokens" and CAPS & draft.extra_body.keys()):
        return
    if isinstance(value, str | bool) and value in rule.instead:
        field_name, other = rule.instead[value]
        if field_name not in draft.fields:
            draft.put(field_name, other)
        return
    if rule.refused:
        if value != NEUTRAL.get(name):
            draft.turn_down(name, rule.refused)
        return
    if rule.dropped:
        draft.notes.append(f"{name} is not sent: {rule.dropped}")
        return
    fault = _fault(value, rule)
    if fault and not rule.note:
        draft.turn_down(name, fault)
        return
    if rule.note and (fault or (rule.highest is None and value != NEUTRAL.get(name))):
        draft.notes.append(f"{name}: {rule.note}")
    draft.put(wire, _whole(value) if name == "logit_bias" else value)


def _put_chat(draft: _Draft, asked: Asked, entry: ProviderEntry, model: str) -> None:
    rules = _rules(draft, asked, entry, model)
    for name, value in asked.tools.items():
        _put_param(draft, name, value, rules.get(name, Rule()))
    if asked.schema is not None:
        _put_schema(draft, asked, entry, model)


def _count_logprobs(draft: _Draft, params: Params) -> None:
    """A number here, of how many tokens; 0 would be none at all to Together, and false is no number."""
    if "logprobs" in draft.fields:
        del draft.fields["logprobs"]
        if params.logprobs:
            draft.put("logprobs", max(1, params.top_logprobs or 0))


def _fault(value: object, rule: Rule) -> str:
    if rule.highest is not None and isinstance(value, int | float) and value > rule.highest:
        return f"at most {rule.highest:g} here"
    if rule.most is not None and isinstance(value, list) and len(value) > rule.most:
        return f"at most {rule.most} here"
    if rule.allowed and value not in rule.allowed:
        names = [*rule.allowed, *map(str, rule.instead)]
        return f"must be one of {', '.join(dict.fromkeys(names))} here"
    return ""


def _whole(biases: object) -> object:
    """Biases are whole numbers in OpenAI's own description, and 5.0 is none to a strict server."""
    if not isinstance(biases, Mapping):
        return biases
    return {token: int(bias) if float(bias).is_integer() else bias for token, bias in biases.items()}


def _put_dimensions(draft: _Draft, dimensions: int | None, entry: ProviderEntry, model: str) -> None:
    """The width is sent only when it changes something: many servers refuse the field for any value.

    For a model that the catalogue does not know, the job must say the width in any case, so where the provider has
    no such field it is a statement and not a wish.
    """
    wire = DIMENSIONS_FIELD.get(entry.dialect, "dimensions")
    known = entry.embedding_model(model)
    if dimensions is None or draft.is_taken("dimensions", wire):
        return
    if known is None:
        if entry.sends_dimensions:
            draft.put(wire, dimensions)
        if entry.sends_dimensions and entry.name != "simulator":
            draft.notes.append(
                f"dimensions: {dimensions} is sent, since {model} is not in the catalogue; if the server refuses the"
                " field, add omit: [dimensions] to the lane"
            )
        return
    if dimensions == known.dimensions:
        return
    if not known.sends_dimensions:
        draft.refuse(
            "dimensions", f"{model} always answers with {known.dimensions}", f"say {known.dimensions}"
        )
    elif dimensions > (known.max_dimensions or known.dimensions):
        most = known.max_dimensions or known.dimensions
        draft.refuse("dimensions", f"{model} has at most {most}", f"say {most} or less")
    elif dimensions < known.min_dimensions:
        least = known.min_dimensions
        draft.refuse("dimensions", f"{model} has at least {least}", f"say {least} or more")
    else:
        draft.put(wire, dimensions)


def _put_schema(draft: _Draft, asked: Asked, entry: ProviderEntry, model: str) -> None:
    schema = dict(asked.schema or {})
    if "response_format" in draft.extra_body:
        return
    mode = entry.schema_mode(model)
    if mode != "json_schema" or "response_format" in draft.omit:
        if mode == "json_object":
            draft.put("response_format", {"type": "json_object"})
        draft.instruction = (
            "Answer with one JSON object and nothing else. It must be valid under this JSON Schema:\n"
            + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        )
        return
    shape: dict[str, object] = {"name": _schema_name(asked.schema_name)}
    try:
        shape |= {"schema": closed_schema(schema), "strict": True}
    except OpenSchemaError as open_schema:
        shape |= {"schema": schema, "strict": False}
        draft.notes.append(f"the schema is sent with strict: false, because {open_schema}")
    draft.put("response_format", {"type": "json_schema", "json_schema": shape})
    if entry.dialect == "openrouter":
        draft.put("provider", {"require_parameters": True})


def _schema_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:64] or "answer"
