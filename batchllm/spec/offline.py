"""A job whose votes are there already: nothing is asked, so it has neither task nor providers."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from batchllm.spec.consensus import Consensus, Escalation
from batchllm.spec.models import ColumnType, Job, Output
from batchllm.spec.strict import Strict, Text

_KEPT = ("name", "input", "consensus", "output")
#: Keys of a job that say what is asked, and how.
ASKING_KEYS = tuple(name for name in Job.model_fields if name not in _KEPT)


class VotedInput(Strict):
    """Which rows there are, and what is known of them; without a path the rows are those that were voted on."""

    path: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    format: Literal["jsonl", "csv", "parquet"] | None = None
    key: Text | None = None
    columns: dict[str, ColumnType] = Field(default_factory=dict)


class VotesJob(Strict):
    """What `batchllm run` and `batchllm consensus` carry out without a call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    input: VotedInput = VotedInput()
    consensus: Consensus
    output: Output = Output()

    @model_validator(mode="after")
    def _nobody_is_asked(self) -> "VotesJob":
        wanted = self.consensus
        asks = {
            "judge": wanted.judge is not None,
            "ties: escalate": isinstance(wanted.ties, Escalation),
            "similarity.embed": wanted.similarity is not None and wanted.similarity.embed is not None,
            "stop_early": wanted.stop_early,
        }
        told = [name for name, is_there in asks.items() if is_there]
        if told:
            raise ValueError(f"with consensus.votes nothing is asked: leave {' and '.join(told)} out")
        return self
