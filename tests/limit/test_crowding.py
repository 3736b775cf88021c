from batchllm.limit.crowding import Crowding
from batchllm.limit.window import Window


def test_refusals_at_the_same_height_again_and_again_are_about_calls_at_once() -> None:
    crowding, window = Crowding(), Window(100)
    crowding.note_taken(20)
    assert [crowding.is_shown(21, window) for _ in range(4)] == [False, False, False, True]


def test_a_refusal_with_fewer_calls_out_begins_the_count_anew() -> None:
    crowding, window = Crowding(), Window(100)
    crowding.note_taken(20)
    assert [crowding.is_shown(on_wire, window) for on_wire in (21, 21, 12, 21, 21, 21)] == [False] * 6


def test_few_calls_say_nothing() -> None:
    crowding, window = Crowding(), Window(100)
    assert not any(crowding.is_shown(2, window) for _ in range(50))


def test_one_refusal_below_what_stands_may_be_a_race_and_two_take_it_back() -> None:
    crowding, window = Crowding(), Window(100)
    window.note_refused(21, 0.0)
    assert crowding.is_shown(21, window)
    assert crowding.is_shown(18, window)
    assert not crowding.is_shown(18, window)
    assert window.learned is None
    crowding.note_taken(20)
    assert [crowding.is_shown(21, window) for _ in range(16)].index(True) == 15, (
        "it is believed less easily now"
    )
