"""What the record knows of its input."""

import asyncio
from array import array

from batchllm.journal.inputs import InputState


def test_rows_that_are_held_to_their_marks_are_certain_however_a_run_ends(kit, out):
    journal = kit.open_journal(out)
    journal.set_input(InputState("d", 3, "[]", array("Q", [1, 2, 3]), "lines"))
    assert journal.is_input_certain

    async def cut_off():
        journal.start(asyncio.get_running_loop())
        journal.put([kit.attempt(0), kit.done(0)])
        await journal.flush()
        await journal.close(clean=False, exit_code=70)

    asyncio.run(cut_off())
    journal = kit.open_journal(out)
    assert journal.is_input_certain
    assert journal.input_basis == "lines"
    assert journal.input_marks("lines").read(0, 3).to_pylist() == [1, 2, 3]
    assert journal.input_marks("columns") is None
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_without_marks_it_is_certain_once_it_was_read_to_its_end(kit, out):
    journal = kit.open_journal(out)
    journal.set_input(InputState("d", 3, "[]"))
    assert not journal.is_input_certain
    assert journal.input_basis is None
    journal.note_input_read_whole()
    assert journal.is_input_certain
    asyncio.run(journal.close(clean=True, exit_code=0))
