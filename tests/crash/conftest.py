"""A job that was carried out once without a break, with its provider in a process of its own; one for each worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from process_rig import launched

from benchmarks.durability import matrix, tracing
from benchmarks.durability.matrix import Bench


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with matrix.bench(tmp_path_factory.mktemp("crash") / "bench", launch=launched) as made:
        yield made


@pytest.fixture(scope="session")
def bench(finished: Bench) -> Bench:
    """The same where strace can break its runs."""
    reason = tracing.why_not()
    if reason is not None:
        pytest.skip(reason)
    return finished


@pytest.fixture
def out(finished: Bench) -> Path:
    """A finished output to tamper with."""
    finished.site.reset("all")
    return finished.site.out
