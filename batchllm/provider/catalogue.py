"""The providers that are known by name, as data.

What a provider offers changes every month, what we do with it does not: the first stands in `catalogue.toml`, with
a grade and a source for each group of facts, the second in `dialect`. Nothing here reaches the network. A user's own
file and a lane's `catalogue` are laid over it (see `overlay`).

The file is packaged, so a fault in it is a fault of ours: it raises InvariantError, never a JobError.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from batchllm.errors import InvariantError
from batchllm.spec.env import address_faults

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
    "azure",
    "gemini",
    "anthropic",
    "vllm",
    "ollama",
    "tgi",
    "custom",
]
LimitHeaders: TypeAlias = Literal[
    "none", "openai", "azure", "groq", "mistral", "together", "fireworks", "openrouter"
]
Api: TypeAlias = Literal["chat", "responses"]
SchemaMode: TypeAlias = Literal["json_schema", "json_object", "prompt"]
#: How vectors come: numbers as text, base64 of little-endian float32, base64 of signed bytes.
VectorForm: TypeAlias = Literal["float", "base64", "base64_int8"]
FactGroup: TypeAlias = Literal["address", "endpoints", "models", "embeddings", "params", "schema", "limits"]

TASK_KINDS: tuple[TaskKind, ...] = ("chat", "completion", "embedding", "moderation")
TIERS: tuple[Tier, ...] = ("fast", "balanced", "powerful")
PATHS: Mapping[TaskKind, str] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "embedding": "/embeddings",
    "moderation": "/moderations",
}
RESPONSES_PATH = "/responses"
VECTOR_FORMS: tuple[VectorForm, ...] = get_args(VectorForm)
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
    """Vectors may be asked for from `min_dimensions` to `max_dimensions` wide; None: no wider than the native width.

    A limit that is None is not documented.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    name: str
    dimensions: int
    max_inputs: int
    sends_dimensions: bool
    aliases: tuple[str, ...] = ()
    min_dimensions: int = 1
    max_dimensions: int | None = None
    max_tokens_per_input: int | None = None
    max_tokens_per_request: int | None = None
    guess: bool = False


@dataclass(frozen=True, slots=True)
class SchemaSupport:
    """How answers can be held to a JSON Schema; the lists are patterns of models that differ from the default.

    `prompt`: the server has no way to enforce any JSON; the schema is an instruction and nothing more.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    default: SchemaMode = "json_schema"
    json_schema: tuple[str, ...] = ()
    json_object: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """One provider. `env` names the key variables in the order in which they are looked up.

    `apis` are those that answer a chat task, the first unless a lane names another.
    `hosts` are patterns of further hosts that are the same service, so that its key may go there. Where there is no
    `base_url`, `base_url_env` names the variables that may hold one, and `base_url_path` is added to an address
    without a path. `retired` maps patterns of models that are gone to what to do about it. `overlaid` holds the keys
    that a user's file (`overlaid_by`) has set.
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
    apis: Annotated[tuple[Api, ...], Field(min_length=1)] = ("chat",)
    vector_form: VectorForm = "float"
    base_url: str | None = None
    base_url_note: str = ""
    base_url_env: tuple[str, ...] = ()
    base_url_path: str = ""
    allow_http: bool = False
    hosts: tuple[str, ...] = ()
    key_prefixes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    endpoint_notes: Mapping[TaskKind, str] = field(default_factory=dict)
    tiers: Mapping[TaskKind, Mapping[Tier, ModelChoice]] = field(default_factory=dict)
    default_model: str | None = None
    embeddings: tuple[EmbeddingModel, ...] = ()
    moderation_models: tuple[str, ...] = ()
    reasoning_models: tuple[str, ...] = ()
    plain_models: tuple[str, ...] = ()
    retired: Mapping[str, str] = field(default_factory=dict)
    schema: SchemaSupport = SchemaSupport()
    price_provider: str | None = None
    notes: tuple[str, ...] = ()
    grades: Mapping[FactGroup, Grade] = field(default_factory=dict)
    overlaid: tuple[str, ...] = ()
    overlaid_by: str = ""

    def supports(self, kind: TaskKind) -> bool:
        return self.endpoints[kind] is not False

    def path(self, kind: TaskKind, api: Api | None = None) -> str:
        """The path under base_url, of the first API where none is named. Raises NotFound for what is not offered."""
        offered = self.endpoints[kind]
        if offered is False:
            raise NotFound(kind, [other for other in TASK_KINDS if self.supports(other)])
        if kind == "chat" and (api or self.apis[0]) == "responses":
            return RESPONSES_PATH
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

    def kinds_of(self, model: str) -> list[TaskKind]:
        """The kinds of task that a model is known for; empty for one that the catalogue does not know."""
        return [kind for kind in TASK_KINDS if model in self.models(kind)]

    def retirement(self, model: str) -> str | None:
        """What to do instead, when the model is gone."""
        return next((told for gone, told in self.retired.items() if _matches(model, (gone,))), None)

    def owns_host(self, host: str) -> bool:
        """Whether its key may be sent to this host; `host` may hold a port."""
        host = host.lower()
        home = None if self.base_url is None else urlsplit(self.base_url).netloc.lower()
        return host == home or _matches(host, self.hosts)

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
        vector_form="base64",
        checked=checked,
        apis=("chat", "responses"),
        base_url_note="the simulator is started by the run, on loopback",
        default_model="simulated",
        notes=("Real HTTP on loopback, free; what it does is set under simulate.",),
    )


@cache
def load_catalogue() -> Catalogue:
    """The packaged file, read and checked once (20 ms)."""
    return parse_catalogue(shipped_text())


def shipped_text() -> str:
    return resources.files(__package__).joinpath("catalogue.toml").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    checked: date
    providers: dict[str, ProviderEntry]


def parse_catalogue(text: str) -> Catalogue:
    try:
        raw = tables(text)
        read = TypeAdapter(_File).validate_json(json.dumps(raw, default=str), strict=True)
    except (tomllib.TOMLDecodeError, ValidationError, AttributeError) as error:
        raise _broken(str(error)) from error
    faults = [
        f"{name}: {fault}" for name, entry in read.providers.items() for fault in entry_faults(name, entry)
    ]
    faults += [f"{name}: {fault}" for name, fault in shared_names(read.providers)]
    if faults:
        raise _broken("; ".join(faults))
    return Catalogue(read.checked, {**read.providers, "simulator": simulator(read.checked)})


def tables(text: str) -> dict[str, Any]:
    """The file as it is written, each provider with its name and date."""
    raw = tomllib.loads(text)
    for name, table in raw.get("providers", {}).items():
        table.setdefault("name", name)
        table.setdefault("checked", raw.get("checked"))
    return raw


def _broken(what: str) -> InvariantError:
    return InvariantError(f"batchllm/provider/catalogue.toml: {what}", remedy="Install batchllm again.")


def entry_faults(name: str, entry: ProviderEntry) -> Iterator[str]:
    """What the types cannot say."""
    if entry.name != name:
        yield f"called {entry.name} inside"
    if set(entry.endpoints) != set(TASK_KINDS):
        yield f"endpoints must say yes or no to each of {', '.join(TASK_KINDS)}"
    for path in entry.endpoints.values():
        if isinstance(path, str) and not path.startswith("/"):
            yield f"endpoints: a path begins with /, and {path!r} does not"
    yield from _address_faults(entry)
    if entry.concurrency < 1:
        yield "concurrency must be at least 1"
    for kind, tiers in entry.tiers.items():
        if set(tiers) != set(TIERS):
            yield f"tiers.{kind} must hold {', '.join(TIERS)}"
    for model in entry.embeddings:
        widest = model.max_dimensions or model.dimensions
        if model.max_inputs < 1 or not 1 <= model.min_dimensions <= model.dimensions <= widest:
            yield (
                f"{model.name}: widths and counts must be positive, and dimensions between the least and the most"
            )


def _address_faults(entry: ProviderEntry) -> Iterator[str]:
    if not entry.base_url and not entry.base_url_note:
        yield "no base_url"
    if entry.base_url:
        for fault in address_faults("base_url", entry.base_url, allows_http=entry.allow_http):
            yield f"base_url: {fault.message}" + (f" ({fault.remedy})" if fault.remedy else "")
        if entry.base_url.endswith("/"):
            yield "base_url must not end in /"


def shared_names(entries: Mapping[str, ProviderEntry]) -> Iterator[tuple[str, str]]:
    """Entries whose names clash, each with what is wrong."""
    owners: dict[str, str] = {"simulator": "simulator"}
    for entry in entries.values():
        for name in (entry.name, *entry.aliases):
            if name != name.lower():
                yield entry.name, f"{name!r} must be lower-case"
            if owners.setdefault(name, entry.name) != entry.name:
                yield entry.name, f"the name {name!r} belongs to {owners[name]}"
