"""What is voted on and by whom: the consensus section with its defaults filled in by what the task gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from batchllm.consensus.kinds import kind_of
from batchllm.consensus.terms import Rule, Terms, Ties, least_votes
from batchllm.spec.consensus import AtLeast, Consensus, Escalation, TrimmedMean, VoteKind
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.models import ChatTask, TaskSpec

Scale = Literal["nominal", "ordinal", "interval"]

#: Columns of answers to tasks without a schema, the usual one first.
_USUAL = ("content", "flagged", "embedding")


@dataclass(frozen=True, slots=True)
class Motion:
    """`voters` in their order; `labels` are all that there may be, in theirs; empty: any."""

    section: Consensus
    over: str
    kind: VoteKind
    labels: tuple[str, ...]
    voters: tuple[str, ...]

    @property
    def scale(self) -> Scale:
        return self.section.scale or ("interval" if self.kind == "number" else "nominal")

    @property
    def terms(self) -> Terms:
        return terms_of(self.section, self.voters)

    def on(self, section: Consensus) -> "Motion":
        return replace(self, section=section)


def usual_column(names: Sequence[str], task: TaskSpec | None) -> str | None:
    """The column of answers that is voted on where the job names none; None where it has to."""
    schema = task.answer_schema if isinstance(task, ChatTask) else None
    if schema is not None:
        columns = [name for name in names if name not in ("content", "contents")]
        own = [name for name in columns if name in _properties(schema)]
        return own[0] if len(own) == 1 else None
    return next((name for name in _USUAL if name in names), None)


def allowed_labels(task: TaskSpec | None, over: str) -> tuple[str, ...] | None:
    """Texts that the answer's schema allows in this column, in its order; None where it allows any."""
    schema = task.answer_schema if isinstance(task, ChatTask) else None
    part = None if schema is None else _properties(schema).get(over)
    if isinstance(part, Mapping) and isinstance(part.get("items"), Mapping):
        part = part["items"]
    listed = part.get("enum") if isinstance(part, Mapping) else None
    if not isinstance(listed, list):
        return None
    texts = [value for value in listed if value is not None]
    return tuple(texts) if all(isinstance(value, str) for value in texts) else None


def motion_of(
    section: Consensus, column: pa.Field, voters: Sequence[str], labels: Sequence[str] | None
) -> Motion | None:
    """Of the votes in `column`; None where its type holds no votes. `labels`: those that the task allows."""
    kind = section.kind or _kind(section, column.type)
    if kind is None:
        return None
    chosen = section.labels or labels or ()
    if kind not in ("label", "labels", "text") or (section.normalise is not None and not section.labels):
        chosen = ()
    return Motion(section, column.name, kind, tuple(chosen), tuple(voters))


def _kind(section: Consensus, column: pa.DataType) -> VoteKind | None:
    found = kind_of(column)
    return "text" if found == "label" and section.similarity is not None else found


def terms_of(section: Consensus, voters: Sequence[str]) -> Terms:
    """Raises ValueError where they do not go together."""
    rule, at_least, trim = _rule(section)
    wanted = len(voters)
    places = {name: at for at, name in reversed(list(enumerate(voters)))}
    named = [at for name in section.priority for at in _places(name, places, voters)]
    ties: Ties = "escalate" if isinstance(section.ties, Escalation) else section.ties
    return Terms(
        rule=rule,
        voters=wanted,
        min_votes=section.min_votes or least_votes(wanted),
        at_least=at_least,
        trim=trim,
        ties=ties,
        priority=tuple(dict.fromkeys(named)),
    )


def _rule(section: Consensus) -> tuple[Rule, int | None, float]:
    match section.rule:
        case AtLeast():
            return "at_least", section.rule.at_least, 0.0
        case TrimmedMean():
            return "trimmed_mean", None, section.rule.trimmed_mean
        case _:
            return section.rule, None, 0.0


def _places(name: str, places: Mapping[str, int], voters: Sequence[str]) -> list[int]:
    """A lane's name stands for all its samples."""
    if name in places:
        return [places[name]]
    return [at for at, voter in enumerate(voters) if lane_of(voter) == name]


def voter_names(lanes: Sequence[str], samples: int) -> tuple[str, ...]:
    """`lanes`: those that each answer each row; none where any one of several does."""
    if samples == 1:
        return tuple(lanes)
    numbers = range(1, samples + 1)
    return tuple(f"{lane}#{number}" for lane in lanes or ("",) for number in numbers)


def lane_of(voter: str) -> str:
    """The lane whose sample it is (`swift#2`); a lane is its own."""
    return voter.rpartition("#")[0] or voter


def settings_of(motion: Motion) -> dict[str, object]:
    """The section as agreement.json keeps it: defaults filled in, and of lanes no more than who they are."""
    kept = motion.section.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    told: dict[str, object] = {
        **kept,
        "over": motion.over,
        "kind": motion.kind,
        "scale": motion.scale,
        "min_votes": motion.terms.min_votes,
        "rule": kept.get("rule", "majority"),
        "ties": kept.get("ties", "fail"),
    }
    if motion.labels:
        told["labels"] = list(motion.labels)
    for holder, key, lane in consensus_lanes(motion.section):
        shown = {name: getattr(lane, name) for name in ("name", "provider", "model")}
        held = told[holder]
        if isinstance(held, dict):
            told[holder] = {**held, key: {name: text for name, text in shown.items() if text is not None}}
    return told


def consensus_lanes(section: Consensus) -> list[tuple[str, str, LaneSpec]]:
    """Lanes that are asked beside the voters, each with its place in the section."""
    found: list[tuple[str, str, LaneSpec]] = []
    if section.similarity is not None and section.similarity.embed is not None:
        found.append(("similarity", "embed", section.similarity.embed))
    if isinstance(section.ties, Escalation):
        found.append(("ties", "escalate", section.ties.escalate))
    if section.judge is not None:
        found.append(("judge", "lane", section.judge.lane))
    return found


def _properties(schema: Mapping[str, object]) -> Mapping[str, object]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}
