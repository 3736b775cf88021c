from collections import Counter
from hashlib import blake2b

import pytest

from batchllm.simulate.faults import Attempts, Fates, FaultKind, latency_faults
from batchllm.spec.lanes import Faults, Latency, Simulation

DIGESTS = [blake2b(str(number).encode(), digest_size=16).digest() for number in range(4000)]
RATES = {
    "error_rate": FaultKind.ERROR,
    "overload_rate": FaultKind.OVERLOAD,
    "stall_rate": FaultKind.STALL,
    "cut_rate": FaultKind.CUT,
    "html_rate": FaultKind.HTML,
    "empty_rate": FaultKind.EMPTY,
}


def simulation(*, seed: int = 0, latency: Latency | None = None, **rates: float) -> Simulation:
    return Simulation(seed=seed, faults=Faults(**rates), latency=latency or Latency())


def hits(spec: Simulation, attempt: int = 0) -> list[FaultKind | None]:
    fates = Fates(spec)
    return [fates.fate(digest, attempt).fault for digest in DIGESTS]


@pytest.mark.parametrize(("name", "kind"), RATES.items())
def test_each_rate_brings_its_fault_in_its_share(name: str, kind: FaultKind) -> None:
    counts = Counter(hits(simulation(**{name: 0.2})))
    assert set(counts) == {kind, None}
    assert counts[kind] / len(DIGESTS) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("name", RATES)
def test_a_rate_of_one_hits_all_and_of_zero_none(name: str) -> None:
    assert None not in hits(simulation(**{name: 1.0}))
    assert set(hits(simulation(**{name: 0.0}))) == {None}


def test_the_same_seed_meets_the_same_faults() -> None:
    assert hits(simulation(error_rate=0.3, cut_rate=0.3)) == hits(simulation(error_rate=0.3, cut_rate=0.3))


def test_another_seed_meets_others() -> None:
    assert hits(simulation(error_rate=0.3)) != hits(simulation(error_rate=0.3, seed=1))


def test_a_retry_is_drawn_anew() -> None:
    first, second = hits(simulation(error_rate=0.1)), hits(simulation(error_rate=0.1), attempt=1)
    both = sum(one is not None and other is not None for one, other in zip(first, second, strict=True))
    assert both / len(DIGESTS) == pytest.approx(0.01, abs=0.008)


def test_another_kind_leaves_the_draws_of_the_first() -> None:
    alone = {number for number, kind in enumerate(hits(simulation(stall_rate=0.1))) if kind}
    beside = {
        number
        for number, kind in enumerate(hits(simulation(stall_rate=0.1, empty_rate=0.5)))
        if kind is FaultKind.STALL
    }
    assert alone == beside


def test_kinds_are_drawn_apart() -> None:
    """Half meet the first kind; of the others half meet the second, and so on."""
    counts = Counter(hits(simulation(**dict.fromkeys(RATES, 0.5))))
    shares = [counts[kind] / len(DIGESTS) for kind in list(FaultKind)[:-1]]
    assert shares == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625], abs=0.03)


def test_without_p99_every_answer_takes_the_median() -> None:
    fates = Fates(simulation(latency=Latency(median_s=0.25), error_rate=0.5))
    assert {fates.fate(digest, 0).latency_s for digest in DIGESTS[:100]} == {0.25}


def test_latency_has_its_median_and_its_p99() -> None:
    fates = Fates(simulation(latency=Latency(median_s=0.2, p99_s=2.0)))
    drawn = sorted(fates.fate(digest, 0).latency_s for digest in DIGESTS)
    assert drawn[len(drawn) // 2] == pytest.approx(0.2, rel=0.1)
    assert sum(latency_s > 2.0 for latency_s in drawn) / len(drawn) == pytest.approx(0.01, abs=0.006)
    assert drawn[0] > 0


def test_latency_is_the_same_for_the_same_attempt_only() -> None:
    fates = Fates(simulation(latency=Latency(median_s=0.2, p99_s=2.0)))
    assert fates.fate(DIGESTS[0], 0) == fates.fate(DIGESTS[0], 0)
    assert fates.fate(DIGESTS[0], 0) != fates.fate(DIGESTS[0], 1)


def test_where_nothing_is_drawn_nobody_need_count_attempts() -> None:
    assert not Fates(simulation()).depends_on_attempt
    assert not Fates(simulation(latency=Latency(median_s=1, p99_s=1))).depends_on_attempt
    assert Fates(simulation(cut_rate=0.01)).depends_on_attempt
    assert Fates(simulation(latency=Latency(median_s=1, p99_s=2))).depends_on_attempt


def test_attempts_of_a_text_are_numbered_from_zero() -> None:
    attempts = Attempts()
    assert [attempts.next_number(b"a"), attempts.next_number(b"a"), attempts.next_number(b"b")] == [0, 1, 0]


def test_an_answered_text_starts_again() -> None:
    attempts = Attempts()
    attempts.next_number(b"a")
    attempts.forget(b"a")
    attempts.forget(b"never seen")
    assert len(attempts) == 0
    assert attempts.next_number(b"a") == 0


def test_no_more_texts_are_remembered_than_allowed() -> None:
    attempts = Attempts(most=2)
    for digest in (b"a", b"b", b"c"):
        attempts.next_number(digest)
    assert len(attempts) == 2
    assert attempts.next_number(b"b") == 1


@pytest.mark.parametrize(
    ("latency", "path"),
    [
        (Latency(median_s=2, p99_s=1), "latency.p99_s"),
        (Latency(median_s=0, p99_s=1), "latency.median_s"),
        (Latency(median_s=1, p99_s=1), None),
        (Latency(median_s=0, p99_s=0), None),
        (Latency(median_s=0), None),
    ],
)
def test_a_spread_that_no_latency_has_is_a_fault(latency: Latency, path: str | None) -> None:
    assert [fault.path for fault in latency_faults(Simulation(latency=latency))] == ([path] if path else [])
