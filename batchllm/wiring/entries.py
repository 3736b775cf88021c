"""Which catalogue entry a lane goes by: the named one, a simulated one, with the lane's `catalogue` laid over it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batchllm.provider.catalogue import TIERS, Catalogue, ProviderEntry
from batchllm.provider.overlay import LaneEntry, for_lane, semantic_overlay
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.loading import LoadedJob

if TYPE_CHECKING:
    from batchllm.wiring.lanes import LanePlan

SIMULATOR = "simulator"


def entry_of(spec: LaneSpec, catalogue: Catalogue) -> LaneEntry:
    """Raises NotFound."""
    entry = catalogue.get(spec.provider)
    if entry.name == SIMULATOR and spec.simulate is not None and spec.simulate.profile is not None:
        entry = _simulated(catalogue.get(spec.simulate.profile), entry)
    return for_lane(entry, spec.catalogue)


def _simulated(real: ProviderEntry, simulator: ProviderEntry) -> ProviderEntry:
    """The dialect, models and prices of `real` without its address and keys."""
    return replace(
        real,
        name=simulator.name,
        title=f"simulated {real.title}",
        env=(),
        base_url=None,
        base_url_note=simulator.base_url_note,
        base_url_env=(),
        hosts=(),
        key_prefixes=(),
        overlaid=(),
        overlaid_by="",
    )


def pinned(loaded: LoadedJob, lanes: Sequence["LanePlan"]) -> LoadedJob:
    """The job with what a user's file decides written into its lanes: it is part of the fingerprint."""
    specs = list(loaded.job.providers)
    for lane in lanes:
        overlay = _unsaid(lane, loaded.job.task.type)
        if overlay:
            update = {"catalogue": {**overlay, **lane.spec.catalogue}}
            specs[lane.index] = specs[lane.index].model_copy(update=update)
    if specs == loaded.job.providers:
        return loaded
    return replace(loaded, job=loaded.job.model_copy(update={"providers": specs}))


def _unsaid(lane: "LanePlan", kind: str) -> dict[str, object]:
    if not lane.entry.overlaid:
        return {}
    told = semantic_overlay(lane.entry, kind, lane.info.model, names_tier=lane.spec.model in TIERS)
    if lane.spec.base_url is not None:
        told.pop("base_url", None)
    return told
