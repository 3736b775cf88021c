"""The jobs of the lanes that a consensus asks beside the voters: each an ordinary job, with a record of its own.

    OUT/consensus/embedded     similarity.embed: each different text of the votes, once
    OUT/consensus/escalated    ties: escalate: the rows that the votes leave open, asked as the voters were
    OUT/consensus/judged       judge: the same rows with their candidates, twice each, in both orders

So nothing is paid twice there, retries, limits and backfills hold, and the start after a kill goes on.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from batchllm.errors import Fault
from batchllm.prompt import Template, TemplateError
from batchllm.spec.consensus import Consensus, Escalation, Judge, Similarity
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.loading import LoadedJob
from batchllm.spec.models import ChatTask, EmbeddingTask, Input, Output, Params, TaskSpec

Role = Literal["embedded", "escalated", "judged"]

#: The column of a nested input that says what a row is about: a row's key or place, or a text's digest.
KEY = "of"
#: Texts of an embedding job; what a judge sees beside the row's own columns.
TEXT, CANDIDATES, PROMPT = "text", "candidates", "prompt"
LETTERS = "ABCDEFGH"
#: Where the choice of a judge stands in its answer: after the reasons, so that these come first.
CHOICE = "choice"
_JUDGE_TOKENS = 1_000
_MOST_NAME_CHARS = 80

_JUDGE_SYSTEM = (
    "You decide between candidate answers. The candidates are lettered A, B, C and so on, in the order in which"
    " they are shown; the order means nothing, nor does length. First give your reasons in a few sentences, then the"
    " letter of the best candidate."
)
_JUDGE_PROMPT = """\
This was asked:

{{ prompt }}

These are the candidates:
{% for candidate in candidates %}
{{ "ABCDEFGH"[loop.index0] }}: {{ candidate }}
{% endfor %}
Which one is the best answer to what was asked?"""


@dataclass(frozen=True, slots=True)
class Beside:
    """A lane that is asked beside the voters. `place`: of it in the job file; `out`: where its record is."""

    role: Role
    place: str
    lane: LaneSpec
    out: Path

    @property
    def name(self) -> str:
        return self.lane.name or self.lane.provider


@dataclass(frozen=True, slots=True)
class Nested(Beside):
    """With its job."""

    loaded: LoadedJob

    def within(self, usd: float | None) -> LoadedJob:
        """The job with what is left of the budget; None where there is none."""
        job = self.loaded.job
        if job.budget is None or usd is None:
            return self.loaded
        left = job.budget.model_copy(update={"usd": max(usd, 1e-9)})
        return replace(self.loaded, job=job.model_copy(update={"budget": left}))

    def at_home(self, fault: Fault, of: LoadedJob) -> Fault:
        """A fault of this job as one of the job file that it is made from."""
        path = fault.path
        if path == "providers.0" or path.startswith("providers.0."):
            path = self.place + path.removeprefix("providers.0")
        elif self.role == "judged" and path.startswith("task"):
            path = "consensus.judge.prompt"
        elif self.role == "embedded" and path == "task.dimensions":
            name = "consensus.similarity.dimensions"
            return of.fault(name, fault.message, fault.remedy.replace(path, name))
        elif self.role == "embedded" and path.startswith("task"):
            path = f"{self.place}.model"
        return of.fault(path, fault.message, fault.remedy)


def nested_jobs(loaded: LoadedJob) -> list[Nested]:
    """In the order in which they are asked."""
    section, out = loaded.job.consensus, Path(str(loaded.job.output.path))
    return [] if section is None else [_nested(loaded, section, one) for one in lanes_beside(section, out)]


def lanes_beside(section: Consensus, out: Path) -> list[Beside]:
    """The lanes without their jobs, which nobody needs who asks nothing."""
    folder = out / "consensus"
    found: list[Beside] = []
    if section.similarity is not None and section.similarity.embed is not None:
        lane = section.similarity.embed
        found.append(Beside("embedded", "consensus.similarity.embed", lane, folder / "embedded"))
    if isinstance(section.ties, Escalation):
        lane = section.ties.escalate
        found.append(Beside("escalated", "consensus.ties.escalate", lane, folder / "escalated"))
    if section.judge is not None:
        found.append(Beside("judged", "consensus.judge.lane", section.judge.lane, folder / "judged"))
    return found


def judge_columns(section: Consensus | None) -> frozenset[str]:
    """What the judge's template reads of the input."""
    if section is None or section.judge is None or section.judge.prompt is None:
        return frozenset()
    try:
        return Template(section.judge.prompt, where="consensus.judge.prompt").columns - {CANDIDATES, PROMPT}
    except TemplateError:  # told where the judge's own job is checked
        return frozenset()


def _nested(loaded: LoadedJob, section: Consensus, beside: Beside) -> Nested:
    job, role = loaded.job, beside.role
    task: TaskSpec = job.task
    if role == "embedded" and section.similarity is not None:
        task = _embedding(section.similarity)
    elif role == "judged" and section.judge is not None:
        task = judge_task(section.judge)
    update: dict[str, object] = {
        "name": f"{job.name[:_MOST_NAME_CHARS]}-{role}",
        "input": Input(path=role, key=KEY),
        "task": task,
        "providers": [beside.lane],
        "routing": "spread",
        "samples": 1,
        "consensus": None,
        "dedupe": False,
        "output": Output(path=str(beside.out), carry=[CANDIDATES] if role == "judged" else []),
    }
    if role != "escalated":
        update |= {"params_unsupported": "drop", "stream": False}
    made = replace(loaded, job=job.model_copy(update=update))
    return Nested(role, beside.place, beside.lane, beside.out, made)


def _embedding(similarity: Similarity) -> EmbeddingTask:
    return EmbeddingTask(type="embedding", text="{{ " + TEXT + " }}", dimensions=similarity.dimensions)


def judge_task(judge: Judge) -> ChatTask:
    """Reasons before the choice: a choice that is made first is only defended afterwards."""
    schema = {
        "type": "object",
        "properties": {"rationale": {"type": "string"}, CHOICE: {"type": "string", "enum": list(LETTERS)}},
        "required": ["rationale", CHOICE],
        "additionalProperties": False,
    }
    return ChatTask(
        type="chat",
        system=_JUDGE_SYSTEM,
        prompt=judge.prompt or _JUDGE_PROMPT,
        params=Params(temperature=0.0, max_tokens=_JUDGE_TOKENS),
        answer_schema=schema,  # type: ignore[arg-type]
        truncated="grow",
    )
