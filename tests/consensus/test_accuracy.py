"""Accuracy, F1 and confusion of labels are those of scikit-learn; rows without a right value or a vote are left out."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus.accuracy import OUTSIDE, confusion
from batchllm.consensus.bootstrap import Estimate, Resampling, Statistic

NO_INTERVALS = Resampling(0)


def codes(values: list[int]) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.fixture(scope="module")
def metrics() -> ModuleType:
    import sklearn.metrics

    return sklearn.metrics


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(rows=pairs)
def test_all_figures_are_those_of_scikit_learn(metrics: ModuleType, rows: list[tuple[int, int]]) -> None:
    right, voted = (list(side) for side in zip(*rows, strict=True))
    found = confusion(codes(right), codes(voted), 5)
    assert found.accuracy(NO_INTERVALS).value == pytest.approx(metrics.accuracy_score(right, voted))
    expected = metrics.f1_score(right, voted, average="macro", zero_division=0)
    assert found.macro_f1(NO_INTERVALS).value == pytest.approx(expected)
    table = metrics.confusion_matrix(right, voted, labels=range(5))
    assert found.table(np.arange(5)) == table.tolist()
    figures = metrics.precision_recall_fscore_support(right, voted, zero_division=np.nan)
    by_label = [
        (np.nan if each.precision is None else each.precision, np.nan if each.recall is None else each.recall)
        for each in found.by_label()
    ]
    np.testing.assert_allclose(np.array(by_label).T, figures[:2])
    assert [each.f1 for each in found.by_label()] == pytest.approx(np.nan_to_num(figures[2]).tolist())
    assert [each.support for each in found.by_label()] == figures[3].tolist()
    assert [each.label for each in found.by_label()] == sorted({*right, *voted})


def test_rows_that_lack_a_side_say_nothing() -> None:
    right, voted = codes([0, 1, -1, OUTSIDE, 1]), codes([0, 0, 1, 1, -1])
    found = confusion(right, voted, 2)
    assert found.accuracy(NO_INTERVALS) == Estimate(0.5, None, None, 2)
    assert found.table(np.arange(2)) == [[1, 0], [1, 0]]


def test_without_any_row_to_compare_there_are_no_figures() -> None:
    found = confusion(codes([-1, OUTSIDE]), codes([1, 1]), 2)
    nothing = Estimate(None, None, None, 0, "no row has both a vote and a right value")
    assert found.accuracy(Resampling()) == found.macro_f1(Resampling()) == nothing
    assert found.by_label() == []
    assert found.table(np.arange(2)) == [[0, 0], [0, 0]]


def test_a_label_never_voted_for_has_no_precision_and_one_never_right_no_recall() -> None:
    never_voted, never_right = confusion(codes([0]), codes([1]), 2).by_label()
    assert (never_voted.precision, never_voted.recall, never_voted.f1, never_voted.support) == (
        None,
        0.0,
        0.0,
        1,
    )
    assert (never_right.precision, never_right.recall, never_right.f1, never_right.support) == (
        0.0,
        None,
        0.0,
        0,
    )


def test_a_label_that_a_resample_lacks_does_not_count_in_it() -> None:
    seen: list[float] = []

    class Drawn(Resampling):
        def estimate(self, statistic: Statistic, undefined: str) -> Estimate:
            del undefined
            seen.extend(statistic.at(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])).tolist())
            return Estimate(None, None, None, 0)

    confusion(codes([0, 1]), codes([0, 1]), 2).macro_f1(Drawn())
    assert seen == [1.0, 1.0, 1.0]
