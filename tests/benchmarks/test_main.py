"""The list of benchmarks, and which of them run."""

from importlib.util import find_spec

import pytest

from benchmarks.__main__ import BENCHMARKS, plan
from benchmarks.harness import BenchmarkError


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_there(name: str) -> None:
    assert find_spec(BENCHMARKS[name][0]) is not None


def test_without_a_name_all_run_but_nothing_is_installed_unasked() -> None:
    every = [module for module, _ in BENCHMARKS.values()]
    assert [module for module, _ in plan([], [])] == [one for one in every if "peers" not in one]
    assert [module for module, _ in plan([], ["openai"])] == every


def test_peers_are_handed_to_the_benchmark_of_peers_only() -> None:
    own = {module: arguments for module, arguments in plan([], ["openai", "curator"]) if arguments}
    assert own == {"benchmarks.peers.__main__": ["openai", "curator"]}


def test_a_named_benchmark_runs_alone() -> None:
    assert plan(["peers"], []) == [("benchmarks.peers.__main__", [])]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BenchmarkError, match="no benchmark thruput; there are: throughput, stages, client"):
        plan(["thruput"], [])
