"""Texts → as many packs as the provider's documented sizes ask for."""

from collections.abc import Iterator, Sequence

from batchllm.tokens import counter_for
from batchllm.wiring.lanes import LanePlan
from batchllm.wiring.packing import ESTIMATE_MARGIN, EXACT_MARGIN, MOST_INPUTS


def in_packs(texts: Sequence[str], plan: LanePlan, kind: str) -> Iterator[list[str]]:
    """In order. A text that is too large by itself gets a pack of its own: the provider has the last word."""
    known = plan.entry.embedding_model(plan.info.model) if kind == "embedding" else None
    most_inputs = known.max_inputs if known else MOST_INPUTS[kind]
    most_tokens = known.max_tokens_per_request if known else None
    counter = counter_for(plan.info.model)
    margin = EXACT_MARGIN if counter.is_exact else ESTIMATE_MARGIN
    pack: list[str] = []
    held = 0.0
    for text in texts:
        tokens = 0.0 if most_tokens is None else counter.count(text) * margin
        is_full = len(pack) >= most_inputs or (most_tokens is not None and held + tokens > most_tokens)
        if pack and is_full:
            yield pack
            pack, held = [], 0.0
        pack.append(text)
        held += tokens
    if pack:
        yield pack
