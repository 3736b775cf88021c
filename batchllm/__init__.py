"""Run a table of prompts through LLM providers: nothing lost, nothing paid twice, every provider at its limit.

    result = batchllm.run("jobs/classify.yaml")
    result.output.collect()                        # polars; also .failures, .usage, .summary

    with batchllm.connect("groq") as client:
        print(client.chat("Name a fruit."))        # also complete, embed, moderate, stream, models, count_tokens

`run` takes a job file, a `Job`, or a mapping; errors are subclasses of `BatchllmError`, each with an `exit_code`.
`batchllm.testing` has fakes for tests of your own, `batchllm.simulate` simulated providers over HTTP.

The map: `spec` the job file · `source` rows in · `plan` what is new · `task` row → request, reply → columns ·
`dispatch` which lane, when, again? · `limit` may it go now? · `provider` one HTTP call and its verdict ·
`journal` the record, Parquet parts and manifest · `report` what a run says · `engine` where it is carried out ·
`client` one provider from Python · `checkup` what can be known of a job's lanes before it runs.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchllm.client import AsyncClient, Client, connect, connect_async
    from batchllm.engine.result import Result, run
    from batchllm.errors import BatchllmError
    from batchllm.spec.models import Job
    from batchllm.tokens import TokenCount, count_tokens

__all__ = [
    "AsyncClient",
    "BatchllmError",
    "Client",
    "Job",
    "Result",
    "TokenCount",
    "connect",
    "connect_async",
    "count_tokens",
    "run",
]

_HOMES = {
    "AsyncClient": "batchllm.client",
    "Client": "batchllm.client",
    "TokenCount": "batchllm.tokens",
    "connect": "batchllm.client",
    "connect_async": "batchllm.client",
    "count_tokens": "batchllm.tokens",
    "BatchllmError": "batchllm.errors",
    "Job": "batchllm.spec.models",
    "Result": "batchllm.engine.result",
    "run": "batchllm.engine.result",
}


def __getattr__(name: str) -> object:
    """Loaded when asked for: importing batchllm costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'batchllm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
