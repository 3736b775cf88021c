"""What goes out after a paid answer that was no use: another question, reserved for as what it is."""

import dispatch_rig as rig

from batchllm.budget import Budget
from batchllm.pricing import Price
from batchllm.records import Action, Billed, Failure, FailureCode, Request, Response, Usage
from batchllm.testing import ScriptedProvider, echo, text_request

CUT = Failure(
    Action.AGAIN,
    FailureCode.TRUNCATED,
    "cut",
    200,
    billed=Billed.YES,
    content="so fa",
    usage=Usage(10, 5),
)
PRICE = Price(1.0, 1.0, source="test")  # USD for a million tokens


def larger(request: Request, failure: Failure) -> Request:
    assert failure.code is FailureCode.TRUNCATED
    return request._replace(content=f"{request.content}!", tokens=(30,), growth=2, first=request)


def script(body: dict[str, str], call: int) -> Response | Failure:
    return echo(body) if body["content"].endswith("!") else CUT


def reasking(usd: float, patience: ScriptedProvider | None = None) -> rig.Rig:
    made = rig.Rig(
        patience or ScriptedProvider(script), budget=Budget(usd), price=PRICE, tpm=100_000.0, size=2
    )
    made.lanes[0].reask = larger
    return made


def test_the_next_call_asks_what_it_is_told_to_and_is_the_same_row() -> None:
    requests = rig.rows(20)
    made, _ = rig.run(lambda: reasking(1.0), requests)
    assert made.answers() == {n: f"row {n}!" for n in range(20)}
    assert {done.row.ordinal: done.digest for done in made.recorder.done} == {
        n: request.digests[0] for n, request in enumerate(requests)
    }
    assert [attempt.failure for attempt in made.recorder.attempts].count(FailureCode.TRUNCATED) == 20


def test_the_budget_holds_for_the_larger_call() -> None:
    """15 tokens are reserved for the first call and 40 for the second; 54 pay the first and not both."""
    made, ending = rig.run(lambda: reasking(54e-6), [text_request(0)])
    assert ending.code == 4
    assert made.calls == 1
    made, _ = rig.run(lambda: reasking(55e-6), [text_request(0)])
    assert made.calls == 2
    assert made.answers() == {0: "row 0!"}


def test_what_a_call_brought_is_kept_when_the_next_one_brings_nothing() -> None:
    gone = Failure(Action.GIVE_UP, FailureCode.INVALID_REQUEST, "HTTP 400", 400)

    def then_refused(body: dict[str, str], call: int) -> Response | Failure:
        return gone if body["content"].endswith("!") else CUT

    made, _ = rig.run(lambda: reasking(1.0, ScriptedProvider(then_refused)), [text_request(0)])
    (failed,) = made.recorder.failed
    assert (failed.code, failed.content) == (FailureCode.INVALID_REQUEST, "so fa")
