"""What of the money in a record counts against the budget of its present input."""

import asyncio

import pyarrow as pa

from batchllm.journal.aside import put_aside, records_aside
from batchllm.journal.files import Layout
from batchllm.journal.inputs import InputState
from batchllm.journal.rebuilding import Owner, rebuild
from batchllm.journal.renewal import Renewal
from batchllm.journal.spending import EverSpent, Spending, ever_spent
from batchllm.matching import Places


def run(kit, out, rows=(), told=None, clean=True, completes=None, moves=False):
    """One run; returns what had been spent before it."""
    journal = kit.open_journal(out)
    before = journal.spending
    if moves:
        places = Places(0, pa.array(range(journal.input_rows), pa.int32()))
        carries = journal.carries()
        journal.renew(Renewal(places, carries), InputState("next", 9, "{}"))
        carries.close()
        before = journal.spending
    if told is not None:
        asyncio.run(journal.expose(*told))
    journal.put([record for row in rows for record in (kit.attempt(row), kit.done(row))])
    if completes is not None:
        journal.complete(completes)
    asyncio.run(journal.close(clean=clean, exit_code=0))
    return before


def test_what_a_kill_cut_off_counts_until_nobody_can_bound_it(kit, out):
    assert run(kit, out, rows=range(2), told=(64, 0.5), clean=False) == Spending(0.0, 0.0)
    assert run(kit, out, told=(64, 2.0), clean=False) == Spending(0.5, 0.5)
    assert run(kit, out, told=(64, 4.0)) == Spending(0.5, 2.5)
    found = run(kit, out, told=(1, None), clean=False)
    assert (found, found.most_usd) == (Spending(0.5, 2.5), 3.0)
    found = run(kit, out)
    assert (found, found.most_usd) == (Spending(0.5, None), 0.5)


def test_an_input_that_was_complete_counts_no_more_once_another_one_comes(kit, out):
    run(kit, out, rows=range(2), told=(64, 0.5), clean=False)
    run(kit, out, rows=range(2, 4), completes=4)
    assert run(kit, out) == Spending(1.0, 0.5)
    assert run(kit, out, moves=True, rows=[4], told=(64, 0.75), clean=False) == Spending(0.0, 0.0)
    assert run(kit, out) == Spending(0.25, 0.75)


def test_an_input_that_was_never_complete_goes_on_to_count(kit, out):
    run(kit, out, rows=range(2), told=(64, 0.5), clean=False)
    assert run(kit, out, moves=True) == Spending(0.5, 0.5)


def test_all_that_a_record_ever_cost_is_told_by_its_journal_wherever_it_lies(kit, out):
    """Over all inputs; a kill leaves it behind the manifest, which speaks where there is no journal."""
    assert ever_spent(out) is None
    run(kit, out, rows=range(2), completes=2)
    run(kit, out, moves=True, rows=[2], told=(64, 0.75), clean=False)
    found = ever_spent(out)
    assert (found.cost_usd, found.exposed_usd, found.is_priced) == (0.75, 0.75, True)
    aside = put_aside(Layout(out), 0.0)
    assert records_aside(out) == [aside]
    assert ever_spent(aside) == found
    Layout(aside).database.unlink()
    assert ever_spent(aside) == EverSpent(found.created, 0.5, True)


def test_a_journal_that_is_made_anew_knows_what_earlier_inputs_cost(kit, out):
    run(kit, out, rows=range(4), completes=4)
    run(kit, out, moves=True, rows=[4], told=(64, 0.75), clean=False)
    owner = Owner(kit.IDENTITY, kit.LANES, 1, kit.ChatTask(), kit.Shape())
    with kit.raw(Layout(out).database) as connection:
        connection.execute("UPDATE totals SET ok = ok + 1")  # it does not fit its parts any more
    assert rebuild(out, owner, clock=kit.Clock(), drops_missing=False).is_new
    assert run(kit, out) == Spending(0.25, 0.75)
