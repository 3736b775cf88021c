"""What a server is installed from, and where: a folder each, made once and kept."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import BenchmarkError
from benchmarks.peers.results import problem

_INSTALL_S = 3_600.0
_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


class NotInstalledError(BenchmarkError):
    """The message says why."""


@dataclass(frozen=True, slots=True)
class Packages:
    """What pip or npm is asked for; the first names the server, whose version is the table's.

    `environ` is for what is built from source.
    """

    folder: str
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the first, without what is said of its version and its extras."""
        first = (*self.pip, *self.npm)[0]
        return first[0] + re.split(r"[@=\[]", first[1:], maxsplit=1)[0]


def is_installed(packages: Packages, environments: Path) -> bool:
    return (environments / packages.folder / "installed").exists()


def install(packages: Packages, environments: Path) -> Path:
    """The environment's folder, made unless it is there. Raises NotInstalledError."""
    place = environments / packages.folder
    if is_installed(packages, environments):
        return place
    place.mkdir(parents=True, exist_ok=True)
    if packages.pip:
        _checked([sys.executable, "-m", "venv", "--clear", str(place)])
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages.pip]
        _checked(pip, packages.environ)
    if packages.npm:
        _checked(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *packages.npm])
    (place / "installed").touch()
    return place


def version(packages: Packages, environment: Path) -> str:
    """Raises NotInstalledError, OSError."""
    if packages.npm:
        package = environment / "node_modules" / packages.name / "package.json"
        return str(json.loads(package.read_text("utf-8"))["version"])
    python = environment / "bin" / "python"
    return _checked([str(python), "-c", _VERSION, packages.name]).strip()


def _checked(command: list[str], environ: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalledError(f"not within {_INSTALL_S:.0f} s") from error
    except FileNotFoundError as error:
        raise NotInstalledError(f"there is no {command[0]} here") from error
    if done.returncode:
        raise NotInstalledError(_reason(done.stderr or done.stdout))
    return done.stdout


def _reason(said: str) -> str:
    """The last line that an installer calls an error, otherwise its last line."""
    lines = [line for line in said.splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if "error" in line.lower()]
    return problem((errors or lines)[-1])
