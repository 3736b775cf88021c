"""The collector is the process's: each test puts it back, whatever it finds out."""

import gc
from collections.abc import Iterator

import pytest

from batchllm.engine.collecting import CONTAINERS, collecting_seldom


@pytest.fixture(autouse=True)
def settings() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    gc.unfreeze()
    yield before
    gc.set_threshold(*before)
    gc.unfreeze()


def test_during_a_run_cycles_are_looked_for_seldom_and_not_in_what_was_there() -> None:
    with collecting_seldom():
        assert gc.get_threshold()[0] == CONTAINERS
        assert gc.get_freeze_count() > 1000


def test_afterwards_everything_is_as_it_was(settings: tuple[int, int, int]) -> None:
    with collecting_seldom():
        pass
    assert (gc.get_threshold(), gc.get_freeze_count()) == (settings, 0)


def test_a_run_that_fails_puts_the_settings_back_too(settings: tuple[int, int, int]) -> None:
    with pytest.raises(ZeroDivisionError), collecting_seldom():
        raise ZeroDivisionError
    assert (gc.get_threshold(), gc.get_freeze_count()) == (settings, 0)


def test_of_two_runs_that_overlap_the_last_one_puts_the_settings_back(settings: tuple[int, int, int]) -> None:
    first, second = collecting_seldom(), collecting_seldom()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == CONTAINERS
    second.__exit__(None, None, None)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (settings, 0)


def test_what_a_program_set_apart_itself_stays_so() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collecting_seldom():
        pass
    assert gc.get_freeze_count() >= frozen - 100  # what ends meanwhile leaves by itself


@pytest.mark.parametrize("chosen", [0, 3 * CONTAINERS])
def test_a_program_that_collects_even_less_keeps_its_own_setting(chosen: int) -> None:
    gc.set_threshold(chosen)
    with collecting_seldom():
        assert gc.get_threshold()[0] == chosen


def test_what_the_command_line_sets_while_it_loads_is_no_choice_of_a_program() -> None:
    gc.set_threshold(250_000)
    with collecting_seldom():
        assert gc.get_threshold()[0] == CONTAINERS
    assert gc.get_threshold()[0] == 250_000
