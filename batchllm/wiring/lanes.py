"""Lanes: from the job's words, the catalogue and the environment to plans of them, checked."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from batchllm.errors import Fault
from batchllm.limit.pool import Pool
from batchllm.pricing import Price, find_price
from batchllm.provider.catalogue import Api, Catalogue, NotFound, ProviderEntry, TaskKind
from batchllm.provider.dialect import Asked, Translation, takers
from batchllm.provider.responses_body import form_of, model_field
from batchllm.provider.simulated import is_simulator
from batchllm.records import LaneInfo
from batchllm.spec.env import ExpansionError, expand
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.loading import LoadedJob
from batchllm.wiring.addresses import Addresses
from batchllm.wiring.bodies import translated
from batchllm.wiring.entries import SIMULATOR, entry_of

#: What of a body stands beside `params` in the job.
_TASK_KEYS = frozenset({"dimensions", "parallel_tool_calls", "tool_choice", "tools"})
_PARTS = re.compile(r"[/?&=]")


@dataclass(frozen=True, slots=True)
class LanePlan:
    """One lane, checked. `place`: in the job. `base_url` is empty for a simulated provider before it has started."""

    index: int
    place: str
    spec: LaneSpec
    info: LaneInfo
    entry: ProviderEntry
    path: str
    base_url: str = field(repr=False)  # gateways take tokens in the path
    translation: Translation
    price: Price | None
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    window: int  # most packed requests in flight, by what their replies take in memory
    api: Api = "chat"
    streams: bool = False

    @property
    def pool(self) -> Pool:
        """What the provider limits as a whole: all that ask this model with these keys."""
        return Pool(self.base_url, self.info.model, "\n".join(self.secrets))

    @property
    def model_field(self) -> str:
        """Of the body; a preset chooses a model that nobody named."""
        return (
            model_field(self.info.model, form_of(self.entry.dialect)) if self.api == "responses" else "model"
        )

    @property
    def is_simulated(self) -> bool:
        return self.info.is_simulated

    @property
    def is_embedded(self) -> bool:
        """The run itself starts its provider."""
        return self.entry.name == SIMULATOR


class LanePlanner:
    """Plans one lane after the other and gathers what is wrong with them."""

    def __init__(
        self, loaded: LoadedJob, *, catalogue: Catalogue, environ: Mapping[str, str], wall_s: float
    ) -> None:
        self._loaded = loaded
        self._catalogue = catalogue
        self._environ = environ
        self._wall_s = wall_s
        self._entries: dict[int, ProviderEntry | None] = {}
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self._addresses = Addresses(catalogue, environ, fault=self._fault, note=self.notes.append)

    def plan(self, index: int, asked: Asked) -> LanePlan | None:
        """None when something is wrong with the lane; what it is stands in `faults`."""
        spec = self._loaded.job.providers[index]
        entry = self.entry(index)
        model = None if entry is None else self.model(index, entry, asked.task_kind)
        if entry is None or model is None:
            return None
        before = len(self.faults)
        name = spec.name or spec.provider
        base_url = self._addresses.base_url(index, spec, entry)
        key = self._addresses.key(index, spec, entry, base_url)
        headers = self._headers(index, spec, key)
        api = self._api(index, spec, entry, asked.task_kind)
        streams = self._streams(index, spec, asked.task_kind)
        drops = self._loaded.job.params_unsupported == "drop"
        translation = translated(asked, spec, entry, model, api, streams=streams, drops=drops)
        self._note_translation(index, name, translation, asked)
        price = find_price(
            spec, model, entry.price_provider, wall_s=self._wall_s, service_tier=asked.params.service_tier
        )
        if price is None and entry.price_provider is not None:
            self._note_spelling(name, model, entry, asked.task_kind)
        if price is not None and asked.task_kind in ("embedding", "moderation"):
            price = price.without_output()
        if len(self.faults) > before:
            return None
        return LanePlan(
            index=index,
            place=f"providers.{index}",
            spec=spec,
            info=LaneInfo(name, entry.name, model, entry.name == SIMULATOR),
            entry=entry,
            path=entry.path(asked.task_kind, api),
            base_url=base_url,
            translation=translation,
            price=price,
            headers=headers,
            secrets=_secrets(key, headers, spec.base_url or "", base_url),
            window=spec.limits.concurrency or entry.concurrency,
            api=api,
            streams=streams,
        )

    def entry(self, index: int) -> ProviderEntry | None:
        if index not in self._entries:
            self._entries[index] = self._found_entry(index)
        return self._entries[index]

    def _found_entry(self, index: int) -> ProviderEntry | None:
        spec = self._loaded.job.providers[index]
        try:
            found = entry_of(spec, self._catalogue)
        except NotFound as unknown:
            near = f"did you mean {' or '.join(unknown.nearest)}? " if unknown.nearest else ""
            self._fault(
                index,
                "provider",
                f"there is no provider {spec.provider!r}",
                f"{near}known: {', '.join(self._catalogue.names)}; `custom` takes any base_url",
            )
            return None
        for fault in found.faults:
            self._fault(index, f"catalogue.{fault.path}".rstrip("."), fault.message, fault.remedy)
        return None if found.faults else found.entry

    def model(self, index: int, entry: ProviderEntry, kind: TaskKind) -> str | None:
        spec = self._loaded.job.providers[index]
        wanted = spec.model
        try:
            model = entry.resolve_model(wanted, kind)
        except NotFound as unknown:
            known = ", ".join(unknown.nearest) or "none is known"
            self._fault(
                index, "model", f"{entry.title} has no {wanted} model for {kind}", f"name one: {known}"
            )
            return None
        gone = entry.retirement(model) if spec.base_url is None else None
        if gone is not None:
            self._fault(index, "model", f"{entry.title} has no {model} any more", gone)
            return None
        made_for = entry.kinds_of(model)
        if made_for and entry.supports(kind) and _group(kind) not in map(_group, made_for):
            known = ", ".join(entry.models(kind)) or "none is known"
            self._fault(
                index,
                "model",
                f"{model} is made for {' and '.join(made_for)}, not for {kind}",
                f"name one: {known}",
            )
            return None
        return model

    def _api(self, index: int, spec: LaneSpec, entry: ProviderEntry, kind: TaskKind) -> Api:
        """Of a task that is no chat there is one only."""
        wanted = spec.api
        if kind != "chat":
            if wanted == "responses":
                self._fault(index, "api", f"the Responses API has no {kind} task", "take api out")
            return "chat"
        if wanted is None or wanted in entry.apis:
            return wanted or entry.apis[0]
        self._fault(
            index,
            "api",
            f"{entry.title} is not known to have the {wanted} API",
            f"say api: {' or '.join(entry.apis)}, or catalogue: {{apis: [{wanted}]}} on the lane if it has it by now",
        )
        return entry.apis[0]

    def _streams(self, index: int, spec: LaneSpec, kind: TaskKind) -> bool:
        wanted = self._loaded.job.stream if spec.stream is None else spec.stream
        if wanted and kind not in ("chat", "completion"):
            place = "stream" if spec.stream is None else f"providers.{index}.stream"
            self.faults.append(
                self._loaded.fault(place, f"replies to {kind} tasks come whole", "take stream out")
            )
        return wanted

    def _headers(self, index: int, spec: LaneSpec, key: str | None) -> dict[str, str]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        for name, text in spec.headers.items():
            try:
                headers[name] = expand(text, self._environ)
            except ExpansionError as error:
                self._fault(index, f"headers.{name}", error.message, error.remedy)
        return headers

    def _note_translation(self, index: int, name: str, translation: Translation, asked: Asked) -> None:
        for item in translation.unsupported:
            path = item.param if item.param.startswith("task.") else f"task.params.{item.param}"
            if item.param in _TASK_KEYS:
                path = f"task.{item.param}"
            if item.param.startswith("extra_body."):
                path = f"providers.{index}.{item.param}"
            remedy = item.remedy + self._others(item.param, asked)
            self.faults.append(self._loaded.fault(path, f"lane {name}: {item.reason}", remedy))
        self.notes += [f"lane {name}: {note}" for note in translation.notes]

    def _note_spelling(self, name: str, model: str, entry: ProviderEntry, kind: TaskKind) -> None:
        """A model that neither list knows may be new; one that is nearly another's name is rather misspelt."""
        known = entry.models(kind)
        near = [] if model in known else difflib.get_close_matches(model, known, 1, 0.8)
        if near:
            self.notes.append(
                f"lane {name}: {model} is in neither the catalogue nor the price list; is {near[0]} meant?"
            )

    def _others(self, param: str, asked: Asked) -> str:
        able = takers(asked, param, self._catalogue)
        return f"; {', '.join(able)} can" if able else ""

    def _fault(self, index: int, key: str, message: str, remedy: str = "") -> None:
        self.faults.append(self._loaded.fault(f"providers.{index}.{key}", message, remedy))


def mark_simulated(plans: Sequence[LanePlan]) -> tuple[LanePlan, ...]:
    """Lanes whose address turns out to be a simulator's are marked as such, so that nothing passes for real."""
    asked = {plan.base_url for plan in plans if plan.base_url}
    simulated = {url for url in asked if is_simulator(url)}
    return tuple(
        replace(plan, info=plan.info._replace(is_simulated=True)) if plan.base_url in simulated else plan
        for plan in plans
    )


def _secrets(key: str | None, headers: Mapping[str, str], template: str, base_url: str) -> tuple[str, ...]:
    """What must not be seen again: servers repeat a key without its scheme, and a path as it was asked for."""
    values = [value for value in (key, *headers.values()) if value]
    values += [value.split()[-1] for value in headers.values() if len(value.split()) > 1]
    if "${" in template:
        url = urlsplit(base_url)
        told = set(_PARTS.split(template))
        values += [part for part in _PARTS.split(f"{url.path}?{url.query}") if part and part not in told]
    return tuple(dict.fromkeys(values))


def _group(kind: TaskKind) -> str:
    """Models that write serve chat and completion alike, as far as anybody can tell."""
    return "text" if kind in ("chat", "completion") else kind
