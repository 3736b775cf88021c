"""Whole runs that are killed at moments that nobody chose, several times in one job's life."""

import random
from pathlib import Path

import pytest
from process_rig import launched

from benchmarks.durability import moments
from benchmarks.durability.rig import Shape

pytestmark = pytest.mark.timeout(240)
KILLS = 5


@pytest.mark.parametrize("seed", [2])
def test_kills_at_random_moments_lose_nothing_and_pay_twice_only_for_what_was_told(
    tmp_path: Path, seed: int
) -> None:
    with moments.busy(tmp_path / "bench", Shape(rows=600, in_flight=16), launch=launched) as (bench, took_s):
        outcome, met = moments.life(bench, took_s, KILLS, random.Random(seed))
    assert met >= 2
    assert outcome.wrong == ()
    assert outcome.bill.lost == 0
    assert outcome.bill.again <= met * 16
