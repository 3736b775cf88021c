"""The list of benchmarks."""

from importlib.util import find_spec

import pytest

from benchmarks.__main__ import BENCHMARKS, main


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_there(name: str) -> None:
    assert find_spec(BENCHMARKS[name][0]) is not None


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["thruput"])
    assert "no benchmark thruput; there are: throughput" in capsys.readouterr().err
