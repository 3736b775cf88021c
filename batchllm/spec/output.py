"""Where a job's output lies, from as little of the job file as that takes.

Whoever asks how a run is may have none of its keys, and should not wait for all that a run loads. What is not plain is
left to `loading`, which says what is wrong with it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_MOST_BYTES = 1 << 20


def output_of(job: Path, environ: Mapping[str, str]) -> Path:
    """The folder. Raises InputMissingError where no file can be read, and JobError for one that is wrong."""
    found = _plain(job)
    if found is None:
        from batchllm.spec.loading import load_any

        return Path(str(load_any(job, environ=environ).job.output.path))
    if "${" in found:
        from batchllm.spec.env import expand

        found = expand(found, environ)
    if found == "~" or found.startswith("~/"):
        found = environ.get("HOME", "~") + found[1:]
    return Path(os.path.normpath(job.parent.resolve() / found))


def _plain(job: Path) -> str | None:
    """What a job file of the usual form says; None for any other."""
    import yaml

    try:
        with job.open("rb") as file:
            data = yaml.load(file.read(_MOST_BYTES), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    if not isinstance(data, dict):
        return None
    output, name = data.get("output"), data.get("name")
    path = output.get("path") if isinstance(output, dict) else None
    if isinstance(path, str) and "://" not in path:
        return path
    is_default = path is None and (output is None or isinstance(output, dict))
    return f"out/{name}" if is_default and isinstance(name, str) and name and "/" not in name else None
