"""How many rows travel in one packed request, and how many of these requests may be under way.

Providers document how much one embedding request may hold; more in a request means fewer requests of a minute's
budget. What bounds it from the other side is memory: 2,048 vectors of 3,072 numbers are 140 MB of text. So the
reply's size is worked out from the width of the vectors and from the form in which they come, and three rules keep it
in hand:

- one reply takes at most `REPLY_BYTES` while it is read;
- all replies under way take at most `UNDER_WAY_BYTES`: the lane's window is made smaller, or, where the job says the
  window (limits.concurrency), the packs are;
- where the job says both (inputs_per_request as well), it gets both.

A server of which nothing is documented gets few inputs, as strict servers take no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from batchllm.wiring.lanes import LanePlan

#: Most rows in one request where neither job nor catalogue knows more: what strict servers take, too.
MOST_INPUTS = {"embedding": 64, "moderation": 32}
#: What the body of a reply takes for each number of a vector: base64 has 4 characters for 3 bytes of float32; numbers
#: as text have up to 22 characters with their comma ("-0.006929283495992422," is what OpenAI sends).
BASE64_BYTES, TEXT_BYTES = 16 / 3, 22.0
#: Base64 of signed bytes: 4/3 on the wire, but 4/3 of text, the byte and its float32 (6.4) while it is read; as much as
#: a body of this size takes with `COPIES`.
INT8_BYTES = 2.8
#: What a reply takes while it is read, for each byte of its body: the body, its text in Python's hands, and the bytes
#: of its vectors (base64: 1 + 1 + 0.75); or the body, a float object and its place in a list, and the bytes (text:
#: 1 + 32 / 22 + 4 / 22). Rounded up.
COPIES = 2.8
#: 2,048 vectors of 1,536 numbers in base64, the largest request of the most used models, just fit.
REPLY_BYTES = 48 << 20
#: Bodies that lie complete in memory at the same time, at worst.
UNDER_WAY_BYTES = 64 << 20
#: So many requests may always be under way: with one, the wire would rest while a reply is read.
LEAST_WINDOW = 2
#: By how much an estimate by bytes may be too low: 1.2 for digits and code, 1.5 for Chinese and Japanese; what has
#: still more tokens than that is refused as too large, unpaid, and sent in halves.
ESTIMATE_MARGIN = 1.5
#: Counting is exact for the text; providers count a few tokens of frame for each.
EXACT_MARGIN = 1.05


@dataclass(frozen=True, slots=True)
class Packing:
    """`max_tokens` None: the provider documents none. `windows`: most requests under way, by lane."""

    max_inputs: int
    max_tokens: int | None
    windows: tuple[int, ...]


def plan_packing(
    kind: str,
    lanes: Sequence[LanePlan],
    *,
    asked_inputs: int | None,
    dimensions: int | None,
    is_exact: bool,
) -> Packing:
    """The same packs for all lanes, since any lane may get any of them: the smallest bounds hold."""
    if kind not in MOST_INPUTS:
        return Packing(1, None, tuple(lane.window for lane in lanes))
    if kind != "embedding":
        return Packing(asked_inputs or MOST_INPUTS[kind], None, tuple(lane.window for lane in lanes))
    width = dimensions or 1
    inputs = min((_inputs(lane, width, asked_inputs) for lane in lanes), default=1)
    return Packing(
        inputs,
        _tokens(lanes, is_exact),
        tuple(_window(lane, inputs * _body_bytes(lane, width)) for lane in lanes),
    )


def _inputs(lane: LanePlan, width: int, asked: int | None) -> int:
    known = lane.entry.embedding_model(lane.info.model)
    documented = MOST_INPUTS["embedding"] if known is None else known.max_inputs
    if asked is not None:
        return asked if known is None else min(asked, documented)
    if known is not None and known.guess:
        documented = min(documented, MOST_INPUTS["embedding"])
    body = _body_bytes(lane, width)
    fitting = REPLY_BYTES / COPIES / body
    told = lane.spec.limits.concurrency
    if told is not None:
        fitting = min(fitting, max(UNDER_WAY_BYTES / told / body, MOST_INPUTS["embedding"]))
    return max(1, min(documented, int(fitting)))


def _window(lane: LanePlan, reply_bytes: float) -> int:
    """As the job says; else as the catalogue does, as long as the replies have room."""
    if lane.spec.limits.concurrency is not None:
        return lane.window
    return min(lane.window, max(LEAST_WINDOW, int(UNDER_WAY_BYTES / reply_bytes)))


def _body_bytes(lane: LanePlan, width: int) -> float:
    """Of one vector in the reply; what stands around it is small beside it."""
    form = lane.translation.fields.get("encoding_format")
    return width * {"base64": BASE64_BYTES, "base64_int8": INT8_BYTES}.get(str(form), TEXT_BYTES)


def _tokens(lanes: Sequence[LanePlan], is_exact: bool) -> int | None:
    known = [lane.entry.embedding_model(lane.info.model) for lane in lanes]
    caps = [model.max_tokens_per_request for model in known if model is not None]
    cap = min((cap for cap in caps if cap is not None), default=None)
    return None if cap is None else int(cap / (EXACT_MARGIN if is_exact else ESTIMATE_MARGIN))
