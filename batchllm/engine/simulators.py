"""The simulated providers that a job starts itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from batchllm.spec.lanes import Simulation
from batchllm.wiring.lanes import LanePlan


@contextmanager
def simulators_of(plans: Sequence[LanePlan]) -> Iterator[dict[int, str]]:
    """While the block runs, their addresses by the lane's index."""
    lanes = [lane for lane in plans if lane.is_embedded]
    if not lanes:
        yield {}
        return
    from batchllm.simulate import EmbeddedProviders

    specs = [lane.spec.simulate or Simulation() for lane in lanes]
    with EmbeddedProviders(specs) as providers:
        yield {lane.index: url for lane, url in zip(lanes, providers.base_urls, strict=True)}
