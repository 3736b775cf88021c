"""The job's `consensus:` section: over what the answers to a row agree, by which rule, and what a tie becomes.

Votes are what `routing: all` and `samples` collect, or what earlier runs and foreign files hold (`votes`). How the
rules are carried out is written in docs/consensus.md.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from batchllm.spec.lanes import LaneSpec
from batchllm.spec.strict import Positive, Share, Strict, Text

#: What a vote is. `labels`: a set of them; `text`: compared after `normalise`; `vector`: compared by cosine.
VoteKind = Literal["label", "number", "boolean", "labels", "text", "vector"]


class AtLeast(Strict):
    at_least: Annotated[int, Field(ge=1, le=10_000)] = Field(
        description="So many votes for one value decide."
    )


class TrimmedMean(Strict):
    trimmed_mean: Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)] = Field(
        description="Share of the votes cut off at each end before the mean is taken."
    )


class Judge(Strict):
    """Another lane decides between the candidates of a row that the votes leave open (or of each row that has two).

    It is asked twice, with the candidates in both orders; two different verdicts are a tie.
    """

    lane: LaneSpec
    prompt: Text | None = Field(
        None,
        description="A template; it sees the row's carried columns and `candidates`, a list of texts in the order"
        " shown (default: a neutral comparison of the candidates as answers to the row's prompt).",
    )
    asks: Literal["open", "all"] = Field(
        "open", description="open: only rows that the votes leave tied; all: each row with different votes."
    )


class Escalation(Strict):
    escalate: LaneSpec = Field(description="A lane that is not among providers; asked for tied rows alone.")


class Similarity(Strict):
    """Texts that mean the same are one vote: those whose embeddings are close."""

    threshold: Share = Field(description="Least cosine of two votes that are the same.")
    embed: LaneSpec | None = Field(
        None, description="With text votes: the lane that embeds them, each different text once."
    )
    dimensions: Annotated[int, Field(gt=0, le=65536)] | None = Field(
        None, description="Width of those vectors (default: the model's own, where it is known)."
    )


class Consensus(Strict):
    over: Text | None = Field(
        None,
        description="The output column that holds the votes (default: the schema's only column, else content).",
    )
    kind: VoteKind | None = Field(None, description="What a vote is (default: by the column's type).")
    labels: Annotated[list[Text], Field(min_length=2)] | None = Field(
        None, description="All labels there are, in their order (default: the schema's enum, else those met)."
    )
    scale: Literal["nominal", "ordinal", "interval"] | None = Field(
        None,
        description="How far apart two votes are, for Krippendorff's alpha (default: interval for numbers, else"
        " nominal); ordinal goes by the order of labels.",
    )
    normalise: Text | None = Field(
        None, description="A template over `value`, such as {{ value | lower | trim }}; its text is the vote."
    )
    similarity: Similarity | None = None
    rule: Literal["majority", "plurality", "unanimous", "weighted", "median"] | AtLeast | TrimmedMean = Field(
        "majority",
        description="majority: more than half of the votes cast; plurality: most votes; unanimous: all; at_least: so"
        " many; weighted: most weight; median and trimmed_mean: of numbers.",
    )
    weights: dict[str, Positive] | Literal["gold", "dawid_skene"] | None = Field(
        None,
        description="With rule: weighted. By lane; gold: by accuracy where gold is known; dawid_skene: by the error"
        " rates that best explain the votes.",
    )
    min_votes: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="Fewer votes than these decide nothing (default: more than half of those wanted)."
    )
    ties: Literal["fail", "first", "keep"] | Escalation = Field(
        "fail",
        description="What a row becomes that the rule leaves open. fail: undecided; first: the vote of the lane that"
        " comes first in priority; keep: all leading values; escalate: another lane votes.",
    )
    judge: Judge | None = None
    priority: list[Text] = Field(
        default_factory=list, description="Lanes by name, the first first (default: as listed)."
    )
    stop_early: bool = Field(
        False,
        description="Ask the next lane only while the votes so far leave the row open; lanes are asked in their order.",
    )
    gold: Text | None = Field(None, description="Carried column with the right value, where it is known.")
    votes: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None,
        description="Parquet files, folders or outputs of earlier runs that hold the votes; nothing is asked then.",
    )
    resamples: Annotated[int, Field(ge=0, le=100_000)] = Field(
        1000, description="Bootstrap resamples behind each interval; 0: no intervals."
    )
    seed: int = Field(0, description="Of the bootstrap.")

    @model_validator(mode="after")
    def _parts_fit(self) -> "Consensus":
        if (self.rule == "weighted") != (self.weights is not None):
            raise ValueError(
                "weights goes with rule: weighted, and it with weights: say both, or null for one"
            )
        if self.weights == "gold" and self.gold is None:
            raise ValueError("weights: gold needs gold, the column with the right values")
        if self.stop_early and not self.can_stop_early:
            raise ValueError(
                "stop_early needs a rule that can be decided before all have voted: majority, plurality, unanimous,"
                " at_least, or weighted with given weights"
            )
        return self

    @property
    def can_stop_early(self) -> bool:
        """Whether a row may be decided before all have voted, whatever other rows say."""
        is_global = self.weights in ("gold", "dawid_skene") or self.similarity is not None
        return not (is_global or self.rule == "median" or isinstance(self.rule, TrimmedMean))
