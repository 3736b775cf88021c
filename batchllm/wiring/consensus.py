"""What is wrong with a consensus section, as far as job, task and input's columns tell, before anything is spent."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import pyarrow as pa

from batchllm.carry import CarryCodec, is_text
from batchllm.consensus.kinds import column_words, fits
from batchllm.consensus.motion import (
    Motion,
    allowed_labels,
    consensus_lanes,
    lane_of,
    motion_of,
    usual_column,
    voter_names,
)
from batchllm.consensus.normalising import Vocabulary, vocabulary
from batchllm.consensus.table import COLUMNS
from batchllm.consensus.voteless import voteless
from batchllm.errors import Fault
from batchllm.ports import Shape, Source
from batchllm.prompt import TemplateError
from batchllm.spec.consensus import AtLeast, Consensus, Escalation, TrimmedMean, VoteKind
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.loading import LoadedJob
from batchllm.spec.models import Job

#: Rows whose right values are looked at before anything is spent.
GOLD_ROWS = 1_000
#: Path below consensus, what is wrong, what to do.
Told = tuple[str, str, str]


@dataclass(slots=True)
class ConsensusCheck:
    """`motion` is None where something is wrong with it; `notes` are no faults."""

    motion: Motion | None = None
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def voters_of(job: Job) -> tuple[str, ...]:
    """Who votes, by name: lanes, their samples, or samples of whichever lane has room."""
    names = [lane.name or lane.provider for lane in job.providers]
    return voter_names(names if job.routing == "all" else (), job.samples)


def check_consensus(loaded: LoadedJob, fields: Sequence[pa.Field], source: Source) -> ConsensusCheck:
    """`fields`: the columns of the task's answers. All faults at once."""
    section = loaded.job.consensus
    found = ConsensusCheck()
    if section is None:
        return found
    _Check(loaded, section, tuple(fields), source, found).run()
    return found


@dataclass(slots=True)
class _Check:
    loaded: LoadedJob
    section: Consensus
    fields: tuple[pa.Field, ...]
    source: Source
    found: ConsensusCheck

    @property
    def shape(self) -> Shape:
        return self.source.shape

    def run(self) -> None:
        job = self.loaded.job
        voters = voters_of(job)
        if job.routing != "all" and job.samples == 1:
            self._fault(
                "", "one answer to a row has nothing to agree with", "say routing: all, or samples: 3"
            )
            return
        if len(voters) == 1:
            self._check_one_voter()
        self._tell(voter_faults(self.section, voters))
        self._check_lanes(job)
        column = self._column()
        if column is None:
            return
        allowed = allowed_labels(job.task, column.name)
        motion = motion_of(self.section, column, voters, allowed)
        if motion is None or not fits(motion.kind, column.type):
            self._misfit(column, motion)
            return
        self._check_labels(motion, allowed)
        self._check_kind(motion, column, allowed)
        self._tell(kind_faults(self.section, motion))
        self._check_gold(motion)
        key = None if self.shape.key is None else self.shape.key.name
        for path, message in name_faults(self.section, key, [one.name for one in self.shape.carry]):
            self.found.faults.append(self.loaded.fault(path, message, "rename it in the input"))
        self.found.motion = motion

    def _column(self) -> pa.Field | None:
        names = [field.name for field in self.fields]
        wanted = self.section.over or usual_column(names, self.loaded.job.task)
        if wanted is None:
            self._fault("over", "which column holds the votes?", f"say one of {', '.join(names)}")
            return None
        for one in self.fields:
            if one.name == wanted:
                return one
        self._fault("over", f"the answers have no column {wanted!r}", _nearest(wanted, names))
        return None

    def _misfit(self, column: pa.Field, motion: Motion | None) -> None:
        if motion is None:
            message = f"the column {column.name} is {column.type}, which holds no votes"
            self._fault("over", message, "take a column of text, numbers, truth values, or lists of text")
        else:
            message = f"the column {column.name} is {column.type}, which holds no {motion.kind} votes"
            self._fault("kind", message, f"those are {column_words(motion.kind)}")

    def _check_one_voter(self) -> None:
        if self.section.stop_early:
            self._fault("stop_early", "with one voter there is nobody to leave out", "take it out")
        if self.section.gold is None:
            message = "there is one voter: nothing to agree on"
            self._fault("", message, "add a lane, or samples; or name gold, to measure that voter by it")
        else:
            self.found.notes.append(
                "consensus: one voter, so all that is measured is how it does against gold"
            )

    def _check_lanes(self, job: Job) -> None:
        """Of those asked beside the voters."""
        taken = {lane.name or lane.provider: "a voter" for lane in job.providers}
        for holder, key, lane in consensus_lanes(self.section):
            name = lane.name or lane.provider
            path = f"{holder}.{key}"
            if name in taken and holder != "similarity":
                self._fault(
                    f"{path}.name", f"{name} is {taken[name]} as well", "give the lane a name of its own"
                )
            taken.setdefault(name, f"the lane of {holder}")
            twin = next((other for other in job.providers if _is_same(other, lane)), None)
            if twin is None or holder == "similarity":
                continue
            called = twin.name or twin.provider
            if holder == "ties":
                message = f"this is {called} once more, which has voted already"
                self._fault(path, message, "take another model")
            else:
                self.found.notes.append(
                    f"consensus: the judge is {called}, which votes: it may favour its own"
                )

    def _check_labels(self, motion: Motion, allowed: Sequence[str] | None) -> None:
        labels = self.section.labels
        if labels is None or allowed is None or motion.kind not in ("label", "labels", "text"):
            return
        try:
            words = vocabulary(motion.kind, labels, self.section.normalise)
            codes = words.codes(pa.array(list(allowed), pa.string())) if motion.kind != "labels" else ()
        except TemplateError:
            return  # told with the template
        strange = [word for word, code in zip(allowed, codes, strict=False) if code < 0]
        if motion.kind == "labels":
            strange = [word for word in allowed if word not in labels and self.section.normalise is None]
        if strange:
            listed = ", ".join(map(repr, strange[:5]))
            message = f"the schema allows {listed}, which would be no vote"
            self._fault("labels", message, "list it, or take it out of the schema")
        lost = [word for word in labels if word not in allowed]
        if lost and self.section.normalise is None:
            listed = ", ".join(map(repr, lost[:5]))
            self._fault(
                "labels", f"the schema allows no {listed}", "the labels are those of the schema's enum"
            )

    def _check_kind(self, motion: Motion, column: pa.Field, allowed: Sequence[str] | None) -> None:
        """Texts that the schema lists may be numbers, truth values or JSON; where none is, all would be for nothing."""
        if not allowed or not is_text(column.type) or motion.kind not in ("number", "boolean", "labels"):
            return
        try:
            words = vocabulary(motion.kind, None, self.section.normalise)
        except TemplateError:
            return  # told with the template
        strange = _strange(words, pa.array(list(allowed), pa.string()))
        if len(strange) == len(allowed):
            listed = ", ".join(map(repr, allowed[:5]))
            self._fault("kind", *voteless(motion, f"the schema allows no value but {listed}"))

    def _check_gold(self, motion: Motion) -> None:
        gold = self.section.gold
        if gold is None:
            return
        carried = {one.name: one for one in self.shape.carry}
        if self.shape.key is not None and gold == self.shape.key.name:
            self._fault("gold", f"{gold} is the key", "name the column with the right values")
        elif gold not in carried:
            remedy = f"add it: output: {{carry: [{gold}]}}"
            near = get_close_matches(gold, list(carried), 1)
            self._fault(
                "gold", f"{gold} is not carried", f"did you mean {near[0]}? or {remedy}" if near else remedy
            )
        elif not fits(motion.kind, carried[gold].type):
            message = f"the column {gold} is {carried[gold].type}, which holds no {motion.kind} votes"
            self._fault("gold", message, "declare its type in input.columns, or cast it")
        else:
            self._check_gold_values(motion, gold)

    def _check_gold_values(self, motion: Motion, gold: str) -> None:
        """Of the first rows: a column that holds nothing a vote can be is another one than was meant."""
        fields = [one.name for one in self.shape.carry]
        rows = self.source.peek(GOLD_ROWS)
        if not rows or self.found.faults:
            return
        values = CarryCodec(self.shape.carry).decode([row.carry for row in rows])[fields.index(gold)]
        known = values.drop_null()
        words = vocabulary(motion.kind, motion.labels, self.section.normalise)
        strange = _strange(words, known)
        if not len(strange):
            return
        listed = ", ".join(repr(value) for value in strange.cast(pa.string()).unique().to_pylist()[:5])
        count = f"{len(strange):,} of the first {len(known):,} values of {gold}"
        message = f"{count} are none that a vote can have: {listed}"
        if len(strange) == len(known):
            self._fault("gold", message, "name the column with the right values, or mend labels or normalise")
        else:
            self.found.notes.append(f"consensus: {message}")

    def _tell(self, faults: Iterable[Told]) -> None:
        for fault in faults:
            self._fault(*fault)

    def _fault(self, path: str, message: str, remedy: str = "") -> None:
        place = f"consensus.{path}" if path else "consensus"
        self.found.faults.append(self.loaded.fault(place, message, remedy))


def lone_faults(section: Consensus, voters: Sequence[str]) -> Iterator[Told]:
    """One voter, whom only gold can measure."""
    if len(voters) == 1 and section.gold is None:
        yield (
            "",
            f"{voters[0]} is the only voter: nothing to agree on",
            "add another; or name gold, to measure it by",
        )


def voter_faults(section: Consensus, voters: Sequence[str]) -> Iterator[Told]:
    """Who is named and does not vote, and how many votes are wanted that can never be."""
    wanted = len(voters)
    known = {*voters, *map(lane_of, voters)} - {""}
    weights = section.weights if isinstance(section.weights, dict) else {}
    named = [(f"priority.{at}", name) for at, name in enumerate(section.priority)]
    for path, name in (*named, *((f"weights.{name}", name) for name in weights)):
        if name not in known:
            yield path, f"nobody called {name} votes", _nearest(name, sorted(known), "voters")
    if section.min_votes is not None and section.min_votes > wanted:
        yield "min_votes", f"{section.min_votes} of {wanted} votes", f"at most {wanted}"
    if isinstance(section.rule, AtLeast) and section.rule.at_least > wanted:
        yield "rule.at_least", f"{section.rule.at_least} of {wanted} votes can never be", f"at most {wanted}"
    without = [name for name in voters if weights and name not in weights and lane_of(name) not in weights]
    if without:
        yield "weights", f"no weight for {', '.join(without)}", "give each voter one"


def kind_faults(section: Consensus, motion: Motion) -> Iterator[Told]:
    """What does not go together with votes of this kind."""
    kind = motion.kind
    yield from _normalise_faults(section, kind)
    of_numbers = section.rule == "median" or isinstance(section.rule, TrimmedMean)
    if of_numbers and kind != "number":
        yield "rule", f"it is of numbers, and the votes are {kind}s", "say kind: number, or another rule"
    if kind in ("number", "labels") and section.weights in ("gold", "dawid_skene"):
        yield "weights", f"votes that are {kind}s are not weighed so", "give weights by name"
    if section.scale == "interval" and kind != "number":
        yield "scale", f"votes that are {kind}s have no distances", "interval goes with kind: number"
    if section.scale == "ordinal" and kind != "number" and not motion.labels:
        yield "scale", "ordinal goes by the order of labels, and none are named", "list labels"
    if section.labels is not None and kind not in ("label", "labels", "text"):
        yield "labels", f"votes that are {kind}s have no labels", "take labels out"
    labels = section.labels or []
    repeated = next((label for at, label in enumerate(labels) if label in labels[:at]), None)
    if repeated is not None:
        yield "labels", f"{repeated!r} is listed twice", ""
    if section.gold is not None and kind == "vector":
        yield "gold", "vectors are not right or wrong", "take gold out"
    yield from similarity_faults(section, kind)


def _normalise_faults(section: Consensus, kind: VoteKind) -> Iterator[Told]:
    if section.normalise is None:
        return
    if kind in ("number", "vector"):
        yield "normalise", f"it makes text of votes that are {kind}s", "take it out"
        return
    try:
        vocabulary(kind, None, section.normalise)
    except TemplateError as error:
        yield "normalise", f"the template is wrong in its line {error.line}: {error}", ""


def name_faults(section: Consensus, key: str | None, carried: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The setting that brings a column whose name the table has itself, and what is wrong with it."""
    taken = set(COLUMNS) - (set() if section.gold else {"gold", "correct"})
    named = [("input.key", key)] if key is not None else []
    for path, name in (*named, *(("output.carry", name) for name in carried)):
        if name.casefold() in taken and (path == "input.key" or name != section.gold):
            yield path, f"the column {name!r} has the name of a column of the consensus table"


def similarity_faults(section: Consensus, kind: VoteKind) -> Iterator[Told]:
    """What does not go together of the kind of the votes and their similarity: path, message, remedy."""
    similarity = section.similarity
    if kind == "vector" and similarity is None:
        yield "similarity", "vectors agree where they are close", "say similarity: {threshold: 0.9}"
    if similarity is None:
        return
    if kind == "text" and similarity.embed is None:
        yield "similarity.embed", "texts are compared by their vectors", "name the lane that embeds them"
    elif kind == "vector" and similarity.embed is not None:
        yield "similarity.embed", "the votes are vectors already", "take it out"
    elif kind not in ("text", "vector"):
        yield "similarity", f"votes that are {kind}s are the same or not", "say kind: text, or take it out"
    if isinstance(section.ties, Escalation):
        message = f"another {kind} would be paid for and decide nothing: it is never one of those that lead"
        yield "ties.escalate", message, "let a judge choose, or say ties: first or keep"


def _strange(words: Vocabulary, values: pa.Array) -> pa.Array:
    """Those that are no votes."""
    whys = words.numbers(values)[1] if words.kind == "number" else words.reason_of(words.codes(values))
    return values.filter(pa.array(whys != 0))


def _is_same(one: LaneSpec, other: LaneSpec) -> bool:
    """Whether two lanes ask the same of the same. Simulated ones answer as they are told to."""
    kept = {"provider", "model", "base_url", "extra_body", "simulate"}
    return one.model_dump(include=kept) == other.model_dump(include=kept)


def _nearest(word: str, names: Sequence[str], what: str = "columns") -> str:
    near = get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}{what}: {', '.join(names[:30])}"
