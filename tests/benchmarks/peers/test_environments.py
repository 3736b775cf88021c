"""The table of peers: each has a script, and an environment that is made once."""

import sys
from pathlib import Path

import pytest

from benchmarks.peers.environments import OURS, PEERS, Peer, interpreter, version
from benchmarks.peers.results import PeerError

SCRIPTS = Path(__file__).parents[3] / "benchmarks" / "peers"


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_script_and_something_to_install(name: str) -> None:
    assert (SCRIPTS / f"{PEERS[name].module}.py").exists()
    assert PEERS[name].requirements


def test_this_project_runs_where_the_benchmark_does(tmp_path: Path) -> None:
    assert interpreter("batchllm", OURS, tmp_path) == sys.executable
    assert not list(tmp_path.iterdir())
    assert version(sys.executable, OURS)


def test_an_environment_that_is_there_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "installed").touch()
    assert interpreter("openai", PEERS["openai"], tmp_path) == str(tmp_path / "openai" / "bin" / "python")


def test_a_distribution_that_is_missing_is_said() -> None:
    peer = Peer("nobody", "nobody", ("absent-here",))
    with pytest.raises(PeerError, match=r"was not installed: .*absent-here"):
        version(sys.executable, peer)
