"""A virtual environment for each peer: they want different versions of the same packages."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.results import PeerError, problem

_INSTALL_S = 900.0


@dataclass(frozen=True, slots=True)
class Peer:
    """`module` is its script; `requirements` what pip is asked for (none: what runs this); the first names it.

    `times` as many rows as asked for are what it takes to be told from starting up.
    """

    shown: str
    module: str
    requirements: tuple[str, ...] = ()
    times: int = 1


PEERS = {
    "openai": Peer("openai SDK, 10 retries", "openai_sdk", ("openai",)),
    "litellm": Peer("LiteLLM Router", "litellm_router", ("litellm",)),
    "langchain": Peer("LangChain abatch", "langchain_abatch", ("langchain-openai",)),
    "curator": Peer("Curator", "curator_llm", ("bespokelabs-curator",)),
    "saturate": Peer("saturate (adaptive)", "saturate_pump", ("saturate",)),
    "async-batch-llm": Peer("async-batch-llm, tuned", "async_batch", ("async-batch-llm[openai]",)),
}
OURS = Peer("batchllm", "batchllm_run", times=5)


def interpreter(name: str, peer: Peer, folder: Path) -> str:
    """The peer's interpreter, its environment made in `folder` unless it is there. Raises PeerError."""
    if not peer.requirements:
        return sys.executable
    place = folder / name
    python = place / "bin" / "python"
    if (place / "installed").exists():
        return str(python)
    _checked([sys.executable, "-m", "venv", "--clear", str(place)])
    _checked([str(python), "-m", "pip", "install", "--quiet", *peer.requirements])
    (place / "installed").touch()
    return str(python)


def version(python: str, peer: Peer) -> str:
    """Of the distribution that names the peer. Raises PeerError."""
    name = peer.requirements[0].partition("[")[0] if peer.requirements else "batchllm"
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return _checked([python, "-c", code, name]).strip()


def _checked(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"was not installed within {_INSTALL_S:.0f} s") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise PeerError(problem(f"was not installed: {lines[-1]}"))
    return done.stdout
