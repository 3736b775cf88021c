"""The providers that are known by name, as data.

What a provider offers changes every month, what we do with it does not: the first stands in `catalogue.toml`, with
a grade and a source for each group of facts, the second in `dialect`. Nothing here reaches the network, and a job
may override all of it (base_url, model, limits, price, omit, extra_body).

The file is packaged, so a fault in it is a fault of ours: it raises InvariantError, never a JobError.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from importlib import resources
from typing import ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError

from batchllm.errors import InvariantError

TaskKind: TypeAlias = Literal["chat", "completion", "embedding", "moderation"]
Tier: TypeAlias = Literal["fast", "balanced", "powerful"]
Dialect: TypeAlias = Literal[
    "openai",
    "together",
    "perplexity",
    "groq",
    "mistral",
    "deepseek",
    "xai",
    "fireworks",
    "openrouter",
    "custom",
]
LimitHeaders: TypeAlias = Literal["none", "openai", "groq", "mistral", "together", "fireworks", "openrouter"]
SchemaMode: TypeAlias = Literal["json_schema", "json_object"]
FactGroup: TypeAlias = Literal["address", "endpoints", "models", "embeddings", "params", "schema", "limits"]

TASK_KINDS: tuple[TaskKind, ...] = ("chat", "completion", "embedding", "moderation")
TIERS: tuple[Tier, ...] = ("fast", "balanced", "powerful")
PATHS: Mapping[TaskKind, str] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "embedding": "/embeddings",
    "moderation": "/moderations",
}
CLOSED = ConfigDict(extra="forbid")


class NotFound(LookupError):  # noqa: N818 - an answer to a look-up; the caller makes the JobError with its place
    """`name` is not known; `nearest` holds what may have been meant, best first."""

    def __init__(self, name: str, nearest: list[str]) -> None:
        self.name = name
        self.nearest = nearest
        super().__init__(name)


@dataclass(frozen=True, slots=True)
class Grade:
    """How sure a group of facts is (A the provider's own word ... D a guess), and where it comes from."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    grade: Literal["A", "B", "C", "D"]
    source: str


@dataclass(frozen=True, slots=True)
class ModelChoice:
    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    model: str
    guess: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """`max_dimensions` is the widest vector that may be asked for; None: no wider than the native width.

    A limit that is None is not documented.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    name: str
    dimensions: int
    max_inputs: int
    sends_dimensions: bool
    aliases: tuple[str, ...] = ()
    max_dimensions: int | None = None
    max_tokens_per_input: int | None = None
    max_tokens_per_request: int | None = None
    guess: bool = False


@dataclass(frozen=True, slots=True)
class SchemaSupport:
    """How answers can be held to a JSON Schema; the lists are patterns of models that differ from the default."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    default: SchemaMode = "json_schema"
    json_schema: tuple[str, ...] = ()
    json_object: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """One provider. `env` names the key variables in the order in which they are looked up.

    `sends_base64`: vectors may be asked for as base64 of float32, a quarter of their size as text.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    name: str
    title: str
    env: tuple[str, ...]
    endpoints: Mapping[TaskKind, bool | str]
    dialect: Dialect
    limit_headers: LimitHeaders
    concurrency: int
    sends_dimensions: bool
    checked: date
    sends_base64: bool = False
    base_url: str | None = None
    base_url_note: str = ""
    aliases: tuple[str, ...] = ()
    endpoint_notes: Mapping[TaskKind, str] = field(default_factory=dict)
    tiers: Mapping[TaskKind, Mapping[Tier, ModelChoice]] = field(default_factory=dict)
    default_model: str | None = None
    embeddings: tuple[EmbeddingModel, ...] = ()
    moderation_models: tuple[str, ...] = ()
    reasoning_models: tuple[str, ...] = ()
    plain_models: tuple[str, ...] = ()
    schema: SchemaSupport = SchemaSupport()
    price_provider: str | None = None
    notes: tuple[str, ...] = ()
    grades: Mapping[FactGroup, Grade] = field(default_factory=dict)

    def supports(self, kind: TaskKind) -> bool:
        return self.endpoints[kind] is not False

    def path(self, kind: TaskKind) -> str:
        """The path under base_url. Raises NotFound for what is not offered."""
        offered = self.endpoints[kind]
        if offered is False:
            raise NotFound(kind, [other for other in TASK_KINDS if self.supports(other)])
        return offered if isinstance(offered, str) else PATHS[kind]

    def refusal(self, kind: TaskKind) -> str:
        """Why a task of this kind is not offered, for the user; empty when it is."""
        if self.supports(kind):
            return ""
        return self.endpoint_notes.get(kind) or f"{self.title} has no {kind} endpoint"

    def resolve_model(self, model: str, kind: TaskKind = "chat") -> str:
        """A tier's name becomes a model's; any other name is taken as it is.

        Raises NotFound when a tier is asked for that this provider does not have for this kind of task. Where no
        tiers are known at all (custom servers) the word is a model's name like any other.
        """
        if model not in TIERS or not self.tiers:
            return model
        choice = self.tiers.get(kind, {}).get(model)
        if choice is not None:
            return choice.model
        if kind == "moderation" and self.moderation_models:
            return self.moderation_models[0]
        raise NotFound(model, self.models(kind))

    def models(self, kind: TaskKind) -> list[str]:
        """The models that are known for a kind of task, each once."""
        chosen = [choice.model for choice in self.tiers.get(kind, {}).values()]
        if kind == "embedding":
            chosen += [model.name for model in self.embeddings]
        if kind == "moderation":
            chosen += self.moderation_models
        return list(dict.fromkeys(chosen))

    def embedding_model(self, model: str) -> EmbeddingModel | None:
        return next((known for known in self.embeddings if model in (known.name, *known.aliases)), None)

    def is_reasoning(self, model: str) -> bool:
        """Whether the model takes no sampling parameters."""
        return _matches(model, self.reasoning_models) and not _matches(model, self.plain_models)

    def schema_mode(self, model: str) -> SchemaMode:
        if _matches(model, self.schema.json_schema):
            return "json_schema"
        return "json_object" if _matches(model, self.schema.json_object) else self.schema.default


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model.lower(), pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries by name, in the file's order, and the simulator, which is built in."""

    checked: date
    entries: Mapping[str, ProviderEntry]

    def __iter__(self) -> Iterator[ProviderEntry]:
        return iter(self.entries.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.entries)

    def get(self, name: str) -> ProviderEntry:
        """By name or alias, in any case. Raises NotFound."""
        wanted = name.strip().lower()
        for entry in self:
            if wanted in (entry.name, *entry.aliases):
                return entry
        raise NotFound(name, self.nearest(name))

    def nearest(self, name: str) -> list[str]:
        """Up to three names that look alike, best first; what resembles an alias counts for its provider."""
        owner = {alias: entry.name for entry in self for alias in (entry.name, *entry.aliases)}
        alike = difflib.get_close_matches(name.strip().lower(), owner, n=9, cutoff=0.6)
        return list(dict.fromkeys(owner[alias] for alias in alike))[:3]


def simulator(checked: date) -> ProviderEntry:
    """The provider that answers without a network; its address is found when it starts."""
    return ProviderEntry(
        name="simulator",
        title="Simulated provider",
        env=(),
        endpoints=dict.fromkeys(TASK_KINDS, True),
        dialect="custom",
        limit_headers="openai",
        concurrency=64,
        sends_dimensions=True,
        sends_base64=True,
        checked=checked,
        base_url_note="the simulator is started by the run, on loopback",
        default_model="simulated",
        notes=("Real HTTP on loopback, free; what it does is set under simulate.",),
    )


def load_catalogue() -> Catalogue:
    """Read and check the packaged file; call once and keep the result."""
    return parse_catalogue(resources.files(__package__).joinpath("catalogue.toml").read_text("utf-8"))


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    checked: date
    providers: dict[str, ProviderEntry]


def parse_catalogue(text: str) -> Catalogue:
    try:
        raw = tomllib.loads(text)
        for name, table in raw.get("providers", {}).items():
            table.setdefault("name", name)
            table.setdefault("checked", raw.get("checked"))
        read = TypeAdapter(_File).validate_json(json.dumps(raw, default=str), strict=True)
    except (tomllib.TOMLDecodeError, ValidationError, AttributeError) as error:
        raise _broken(str(error)) from error
    faults = [fault for name, entry in read.providers.items() for fault in _faults(name, entry)]
    faults += _shared_names(read.providers)
    if faults:
        raise _broken("; ".join(faults))
    return Catalogue(read.checked, {**read.providers, "simulator": simulator(read.checked)})


def _broken(what: str) -> InvariantError:
    return InvariantError(f"batchllm/provider/catalogue.toml: {what}", remedy="Install batchllm again.")


def _faults(name: str, entry: ProviderEntry) -> Iterator[str]:
    """What the types cannot say."""
    if entry.name != name:
        yield f"{name}: called {entry.name} inside"
    if set(entry.endpoints) != set(TASK_KINDS):
        yield f"{name}: endpoints must say yes or no to each of {', '.join(TASK_KINDS)}"
    if not entry.base_url and not entry.base_url_note:
        yield f"{name}: no base_url, and no base_url_note that says why"
    if entry.base_url and (not entry.base_url.startswith("https://") or entry.base_url.endswith("/")):
        yield f"{name}: base_url must begin with https:// and not end in /"
    if entry.concurrency < 1:
        yield f"{name}: concurrency must be at least 1"
    for kind, tiers in entry.tiers.items():
        if set(tiers) != set(TIERS):
            yield f"{name}: tiers.{kind} must hold {', '.join(TIERS)}"
    for model in entry.embeddings:
        if (
            min(model.dimensions, model.max_inputs) < 1
            or (model.max_dimensions or model.dimensions) < model.dimensions
        ):
            yield f"{name}: {model.name}: widths and counts must be positive, max_dimensions no less than dimensions"


def _shared_names(entries: Mapping[str, ProviderEntry]) -> Iterator[str]:
    owners: dict[str, str] = {"simulator": "simulator"}
    for entry in entries.values():
        for name in (entry.name, *entry.aliases):
            if name != name.lower():
                yield f"{entry.name}: {name!r} must be lower-case"
            if owners.setdefault(name, entry.name) != entry.name:
                yield f"{entry.name}: the name {name!r} belongs to {owners[name]}"
