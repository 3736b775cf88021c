"""What the answers of a run agree on: read, decided, open rows asked elsewhere, decided again, measured, published.

Lanes that are asked beside the voters run as jobs of their own below OUT/consensus, in the order embedded, escalated,
judged. One that is stopped, by a signal or a limit, stops the whole: the consensus stays as it was, and the next start
goes on there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from batchllm.consensus.concluding import (
    Decided,
    Facts,
    Late,
    decided,
    different_rows,
    open_rows,
    settled,
    weigh,
)
from batchllm.consensus.doubts import doubts
from batchllm.consensus.early import unsettled
from batchllm.consensus.late import FORWARD, RowNames, answered, escalated, failed_among, judged
from batchllm.consensus.motion import Motion
from batchllm.consensus.normalising import vocabulary
from batchllm.consensus.poll import Poll, State
from batchllm.consensus.reading import Record
from batchllm.consensus.voteless import is_voteless, voteless
from batchllm.engine.beside import note_concluded, note_input, spent_beside
from batchllm.engine.identity import package_version
from batchllm.engine.inquiries import Inquiry, embedding_source, escalation_source, judging_source, vectors_of
from batchllm.engine.publishing import Edition, is_current, publish, stamp_of
from batchllm.errors import ExitCode, InputDataError
from batchllm.journal.manifest import Manifest, instant, read_manifest
from batchllm.ports import Source
from batchllm.report.summary import RunSummary
from batchllm.spec.loading import LoadedJob
from batchllm.wiring.nested import CANDIDATES, KEY, Beside, Nested, Role

#: Carries out a nested job whose rows are these.
Ask = Callable[[LoadedJob, Source], RunSummary]
_ROLES: Sequence[Role] = ("embedded", "escalated", "judged")


class StoppedError(Exception):
    """A nested run did not end by itself; `summary` is its own."""

    def __init__(self, summary: RunSummary) -> None:
        super().__init__(summary.ending)
        self.summary = summary


@dataclass(slots=True)
class Agreeing:
    """One consensus of one output. Without `inquiry` nobody is asked: what was answered before is used where it fits.

    `budget_usd`: what the job's budget has left after the voters. `carried`: the columns that travel to the table.
    `again`: what had failed in nested runs is asked once more. `failed`: rows of nested jobs that were given up, as far
    as the votes leave them to those jobs now: what failed of others is no matter any more.
    """

    record: Record
    motion: Motion
    beside: Sequence[Beside]
    job: str
    key: pa.Field | None
    carried: Sequence[pa.Field]
    now_s: float
    inquiry: Inquiry | None = None
    ask: Ask | None = None
    budget_usd: float | None = None
    again: bool = False
    summaries: list[RunSummary] = field(default_factory=list)
    failed: dict[Role, int] = field(default_factory=dict)
    _judging: dict[str, object] | None = None

    def run(self) -> dict[str, Any]:
        """What agreement.json holds. Raises StoppedError, StorageError, SettingsError."""
        if self.inquiry is not None and not self._fails_again():
            told = is_current(self.record.out, self._stamp())
            if told is not None:
                self.failed = {role: told["failed_beside"].get(role, 0) for role in _ROLES}
                return told
        digest = self.record.manifest.input_digest
        if self.inquiry is not None and self.beside:
            note_input(self.record.out, digest)
        poll = self._compared(self._poll())
        notes = [*gold_notes(poll), *self._voteless(poll), *doubts(poll, self.motion), *self._unsettled(poll)]
        weighed = weigh(poll, self.motion)
        notes += [weighed.why] * bool(weighed.why)
        found = decided(poll, self.motion, weighed)
        found = self._escalated(found)
        found = self._judged(found)
        if self.inquiry is not None and self.beside:
            note_concluded(self.record.out, digest)
        return publish(
            Edition(
                out=self.record.out,
                job=self.job,
                motion=self.motion,
                decided=found,
                facts=self._facts(poll),
                rows=self.record,
                key=self.key,
                carried=[one for one in self.carried if one.name != self.motion.section.gold],
                stamp=self._stamp(),
                is_simulated=self.record.manifest.simulated,
                notes=notes,
                failed_beside={role: count for role, count in self.failed.items() if count},
            )
        )

    def _poll(self) -> Poll:
        motion, section = self.motion, self.motion.section
        if motion.kind == "vector" and section.similarity is not None:
            return self.record.vector_poll(motion.over, section.similarity.threshold)
        words = vocabulary(motion.kind, motion.labels, section.normalise)
        return self.record.poll(motion.over, words, gold=section.gold)

    def _unsettled(self, poll: Poll) -> list[str]:
        """Other terms than those by which rows were stopped early may need votes that nobody was asked for."""
        count = unsettled(poll, self.motion)
        rows = "1 row was" if count == 1 else f"{count:,} rows were"
        told = (
            f"{rows} settled early by other terms, and by these the voters that were left out could change what is"
            " decided: a run of the job with these terms asks them"
        )
        return [told] if count else []

    def _voteless(self, poll: Poll) -> list[str]:
        """What was just paid for is shown all the same; where nothing is asked, another setting was meant."""
        if not is_voteless(poll):
            return []
        value = self.record.first_value(self.motion.over)
        message, remedy = voteless(self.motion, f"its first value is {value!r}")
        if self.inquiry is None:
            raise InputDataError(f"{self.record.out}: {message}", remedy=remedy)
        return [f"{message} ({remedy})"]

    def _compared(self, poll: Poll) -> Poll:
        """Texts that mean the same as one value."""
        nested, similarity = self._one("embedded"), self.motion.section.similarity
        if nested is None or similarity is None or poll.kind != "text":
            return poll
        if self.inquiry is not None:
            self._ask(nested, embedding_source(poll))
        record = answered(nested.out, nested.name, KEY)
        if record is None:
            return poll
        self.failed["embedded"] = record.manifest.failed
        return vectors_of(poll, record, similarity.threshold)

    def _escalated(self, before: Decided) -> Decided:
        nested = self._one("escalated")
        if nested is None:
            return before
        wanted = open_rows(before.poll, before.decisions)
        names = RowNames(self.key, self.record)
        record = answered(nested.out, nested.name, KEY)
        if self.inquiry is not None and wanted.any():
            self._ask(nested, escalation_source(self.inquiry, wanted, names, record, again=self.again))
            record = answered(nested.out, nested.name, KEY)
        if record is None:
            return before
        self.failed["escalated"] = failed_among(names, record, wanted)
        poll, late = escalated(before.poll, self.motion, names, record)
        return self._settled(before, poll, late)

    def _judged(self, before: Decided) -> Decided:
        nested, judge = self._one("judged"), self.motion.section.judge
        if nested is None or judge is None:
            return before
        wanted = different_rows(before.poll, before.decisions)
        if judge.asks == "open":
            wanted &= open_rows(before.poll, before.decisions)
        names = RowNames(self.key, self.record)
        record = answered(nested.out, nested.name, KEY)
        if self.inquiry is not None and wanted.any():
            self._ask(nested, judging_source(self.inquiry, before, wanted, names, record))
            record = answered(nested.out, nested.name, KEY)
        if record is None:
            return before
        self.failed["judged"] = failed_among(names, record, wanted, strip=len(FORWARD))
        late, judging = judged(before.poll, names, record, wanted, CANDIDATES)
        self._judging = judging.told()
        return self._settled(before, before.poll, late)

    def _settled(self, before: Decided, poll: Poll, late: Late) -> Decided:
        return settled(Decided(poll, before.decisions, before.weighed), [late])

    def _ask(self, nested: Beside, source: Source) -> None:
        if self.ask is None or not isinstance(nested, Nested):
            return
        left = None
        if self.budget_usd is not None:
            digest = self.record.manifest.input_digest
            left = self.budget_usd - spent_beside(self.record.out, digest)
        summary = self.ask(nested.within(left), source)
        self.summaries.append(summary)
        if summary.exit_code not in (ExitCode.OK, ExitCode.ROWS_FAILED):
            raise StoppedError(summary)

    def _one(self, role: Role) -> Beside | None:
        return next((nested for nested in self.beside if nested.role == role), None)

    def _manifest(self, nested: Beside) -> Manifest | None:
        return read_manifest(nested.out) if nested.out.is_dir() else None

    def _spent(self, nested: Beside) -> float | None:
        manifest = self._manifest(nested)
        return 0.0 if manifest is None else manifest.cost_usd

    def _fails_again(self) -> bool:
        manifests = [self._manifest(nested) for nested in self.beside]
        return self.again and any(one is not None and one.failed for one in manifests)

    def _stamp(self) -> str:
        manifests = [self.record.manifest, *(self._manifest(nested) for nested in self.beside)]
        return stamp_of(self.motion, manifests, package_version(), has_asked=self.inquiry is not None)

    def _facts(self, poll: Poll) -> Facts:
        costs = [self.record.manifest.cost_usd, *(self._spent(nested) for nested in self.beside)]
        usd = None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs)
        return Facts(instant(self.now_s), usd, _calls(poll), self._judging)


def _calls(poll: Poll) -> dict[str, object]:
    """Answers that were asked for, and such as could be left out."""
    asked = (State.CAST, State.FAILED, State.UNREADABLE)
    made = int(np.isin(poll.states, asked).sum())
    saved = int((poll.states == State.NOT_ASKED).sum())
    return {"made": made, "saved": saved, "saved_share": saved / (made + saved) if made + saved else 0.0}


def gold_notes(poll: Poll) -> list[str]:
    if poll.gold is None or not poll.gold.strange_rows:
        return []
    listed = ", ".join(map(repr, poll.gold.strange))
    count = poll.gold.strange_rows
    are = "value is" if count == 1 else "values are"
    return [f"gold: {count:,} {are} none that a vote can have: {listed}"]
