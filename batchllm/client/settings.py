"""What `connect` was given → what a call needs: address, key, model, body.

The words are those of a lane in a job, and they are read by the very same code, so that a call from Python and a row
of a run are the same request, and a key goes to the host that it was given for and to no other.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from batchllm.errors import CredentialsError, Fault, JobError, SettingsError
from batchllm.provider.catalogue import Catalogue, NotFound, ProviderEntry, TaskKind
from batchllm.provider.dialect import Asked
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.loading import LoadedJob, load_mapping
from batchllm.spec.models import Job, Params
from batchllm.wiring.lanes import LanePlan, LanePlanner

#: The one type of the older form of configuration.
OLD_TYPE = "openai_compatible"
#: Fields of a chat's body about tools, which the dialects know.
TOOL_FIELDS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
#: Fields of a chat's body that go as they are, beside the parameters that a job knows.
PLAIN_FIELDS = frozenset(
    {
        *TOOL_FIELDS,
        "response_format",
        "metadata",
        "store",
        "prediction",
        "prompt_cache_key",
        "safety_identifier",
        "web_search_options",
    }
)
_OWN_KEYS = ("retries", "max_wait_s", "default_model")
#: What a lane says that a connection does not: how an answer comes, each call says for itself.
_OF_LANES = frozenset({"name", "model", "provider", "limits", "stream", "stall_timeout_s"})
_LANE_KEYS = tuple(sorted(LaneSpec.model_fields.keys() - _OF_LANES))
#: Remedies are written for jobs.
_IN_A_CALL = {
    "give the lane an api_key": "give api_key",
    "take this lane out, or choose": "choose",
    "name it in this lane's omit": "name it in omit",
    "the lane's own value in its extra_body": "it in extra_body",
}
_TASKS: Mapping[TaskKind, Mapping[str, object]] = {
    "chat": {"type": "chat", "prompt": "-"},
    "completion": {"type": "completion", "prompt": "-"},
    "embedding": {"type": "embedding", "text": "-"},
    "moderation": {"type": "moderation", "text": "-"},
}


@dataclass(frozen=True, slots=True)
class Settings:
    """A connection's configuration, checked as far as it can be without a call.

    `retries`: further attempts after one that may succeed later; `max_wait_s`: the longest wait before one.
    """

    entry: ProviderEntry
    lane: Mapping[str, object] = field(repr=False)
    default_model: str | None
    retries: int
    max_wait_s: float
    catalogue: Catalogue = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Planned:
    """One kind of call, ready to be sent; `notes` are for the user's eyes."""

    plan: LanePlan
    notes: tuple[str, ...]


def read_settings(
    provider: str | Mapping[str, object],
    config: Mapping[str, object],
    *,
    catalogue: Catalogue,
    environ: Mapping[str, str],
) -> Settings:
    """Raises SettingsError."""
    given = _merged(provider, config)
    name = given.pop("provider", None)
    if not isinstance(name, str) or not name:
        raise SettingsError("no provider is named", remedy=f"name one: {', '.join(catalogue.names)}")
    try:
        entry = catalogue.get(name)
    except NotFound as unknown:
        raise unknown_provider(unknown, catalogue) from None
    _refuse_unknown(given)
    default_model = given.pop("default_model", None)
    if "model" in given:
        default_model = given.pop("model")
    if default_model is not None and (not isinstance(default_model, str) or not default_model):
        raise SettingsError("default_model is no text", remedy="name a model, or fast, balanced, powerful")
    retries, max_wait_s = given.pop("retries", 4), given.pop("max_wait_s", 60.0)
    if type(retries) is not int or not 0 <= retries <= 20:
        raise SettingsError("retries must be a whole number from 0 to 20")
    if type(max_wait_s) not in (int, float) or not 0 <= float(str(max_wait_s)) <= 3600:
        raise SettingsError("max_wait_s must be a number of seconds from 0 to 3600")
    return Settings(
        entry,
        {**given, "provider": entry.name},
        default_model,
        retries,
        float(str(max_wait_s)),
        catalogue,
        environ,
    )


def unknown_provider(unknown: NotFound, catalogue: Catalogue) -> SettingsError:
    meant = f"did you mean {' or '.join(unknown.nearest)}? " if unknown.nearest else ""
    return SettingsError(
        f"there is no provider {unknown.name!r}",
        remedy=f"{meant}known: {', '.join(catalogue.names)}; `custom` takes any base_url",
    )


def _merged(provider: str | Mapping[str, object], config: Mapping[str, object]) -> dict[str, object]:
    if isinstance(provider, str):
        return {**config, "provider": provider}
    given = dict(provider)
    if "config" in given or "type" in given:
        kind, inner = given.pop("type", OLD_TYPE), given.pop("config", {})
        if kind != OLD_TYPE:
            raise SettingsError(
                f"there is no type {kind!r} of provider", remedy=f"the one type is {OLD_TYPE}"
            )
        if not isinstance(inner, Mapping):
            raise SettingsError("config is no mapping", remedy='write {"provider": ..., "api_key": ...}')
        given |= dict(inner)
    return {**given, **config}


def _refuse_unknown(given: Mapping[str, object]) -> None:
    known = (*_LANE_KEYS, *_OWN_KEYS, "model")
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SettingsError(f"{key!r} is no setting", remedy=f"{hint}there are {', '.join(known)}")


def plan_call(
    settings: Settings,
    kind: TaskKind,
    *,
    wall_s: float,
    model: str | None = None,
    params: Mapping[str, object] | None = None,
    dimensions: int | None = None,
) -> Planned:
    """Raises SettingsError with all that is wrong, CredentialsError where nothing but the key is missing."""
    own, plain = _divided(kind, params or {})
    tools = {name: plain.pop(name) for name in TOOL_FIELDS & plain.keys()} if kind == "chat" else {}
    lane = {**settings.lane, "model": chosen_model(settings, kind, model)}
    if plain:
        body = lane.get("extra_body")
        lane["extra_body"] = {**(body if isinstance(body, Mapping) else {}), **plain}
    task = {**_TASKS[kind], **({"params": own} if own else {})}
    loaded = _loaded({"task": task, "providers": [lane]}, settings.environ)
    planner = LanePlanner(loaded, catalogue=settings.catalogue, environ=settings.environ, wall_s=wall_s)
    asked = Asked(kind, _params_of(loaded.job), dimensions=dimensions, tools=tools)
    plan = planner.plan(0, asked)
    if plan is None:
        raise _wrong(planner.faults, settings.entry.name)
    return Planned(plan, tuple(note.removeprefix(f"lane {plan.info.name}: ") for note in planner.notes))


def _params_of(job: Job) -> Params:
    params = getattr(job.task, "params", None)
    return params if isinstance(params, Params) else Params()


def chosen_model(settings: Settings, kind: TaskKind, model: str | None) -> str:
    """What the call says, else what `connect` was told, else the catalogue's choice. Raises SettingsError."""
    entry = settings.entry
    wanted = model or settings.default_model
    if wanted is None and kind == "chat":
        wanted = entry.default_model
    if wanted is None and (entry.tiers.get(kind) or (kind == "moderation" and entry.moderation_models)):
        wanted = "fast"
    wanted = wanted or entry.default_model
    if wanted is None:
        raise SettingsError(f"{entry.title} has no model of its own choice", remedy="name one: model=...")
    return wanted


def _divided(kind: TaskKind, params: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Parameters that the dialects translate, and body fields that go as they are."""
    given = {name: value for name, value in params.items() if value is not None}
    more = given.pop("extra_body", {})
    if not isinstance(more, Mapping):
        raise SettingsError("extra_body is no mapping of body fields")
    own, plain = {}, {}
    for name, value in given.items():
        if name in Params.model_fields:
            own[name] = value
        elif name in PLAIN_FIELDS:
            plain[name] = value
        else:
            known = [*Params.model_fields, *PLAIN_FIELDS]
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SettingsError(
                f"{name!r} is no parameter of a {kind} call",
                remedy=f"{hint}a field of the provider's own goes into extra_body={{...}}",
            )
    return own, {**plain, **more}


def _loaded(parts: Mapping[str, object], environ: Mapping[str, str]) -> LoadedJob:
    job = {"name": "connect", "input": {"path": "-"}, **parts}
    try:
        return load_mapping(job, folder=Path("/"), environ=environ, file="connect")
    except JobError as error:
        raise _wrong(error.faults, "") from None


def _wrong(faults: list[Fault], lane: str) -> SettingsError | CredentialsError:
    """The faults without their places in a job, which nobody wrote."""
    said = [(_place(fault.path), fault) for fault in faults]
    lines = [f"{place}: {fault.message.removeprefix(f'lane {lane}: ')}" for place, fault in said]
    text = "\n".join(line.removeprefix(": ") for line in lines)
    remedy = "; ".join(dict.fromkeys(fault.remedy for _, fault in said if fault.remedy))
    for of_a_job, of_a_call in _IN_A_CALL.items():
        remedy = remedy.replace(of_a_job, of_a_call)
    is_key = all(place == "api_key" for place, _ in said)
    return CredentialsError(text, remedy=remedy) if is_key else SettingsError(text, remedy=remedy)


def _place(path: str) -> str:
    if path == "task.type":
        return ""
    for prefix in ("providers.0.", "task.params.", "task."):
        if path.startswith(prefix):
            return path.removeprefix(prefix)
    return path
