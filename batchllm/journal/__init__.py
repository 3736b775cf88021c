"""The record: nothing that was paid for is lost, and nothing is paid for twice.

    lock       one run an output folder                 files      paths, folders, fsync
    journal    `Journal`: open, put, room, seal         writer     queue and thread
    committing what the writer's thread does            tuning     sizes, and doors for tests
    opening    the SQLite file: made, opened, checked   database   transactions in it, and what is counted
    faults     what SQLite says, in our words           lines      records → its lines
    identity   whose record it is                       finished   a bit for each unit of work
    tables     lines → Arrow columns                    recall     what earlier runs finished
    parts      the protocol of one Parquet part         drain      journal → parts, in slices
    merge      parts → input order                      sealing    completion
    recovery   what a killed run left half done         manifest   manifest.json
    space      whether the disk is almost full          inputs     which input the outcomes belong to
    copies     rows that ask the same twice             aside      an old record, out of the way
    slots      the answers that a row gets, numbered    skipping   units that a vote need not hear
    forgetting failures that are asked again            interrupted runs that did not end of themselves
    renewal    the record for another input             carries    carried values that replace others
    pending    a renewal on the disk                    renewing   its way, until parts are those of the new input
    moving     rows of parts to their new places        mover      in a thread beside the run
    migrations older formats → this one                 snapshot   the journal, only looked at
    audit      is all of it what was put there?         inspection one part against what is known of it
    rebuilding a lost journal, from the parts           gathering  which parts make up a record
    rereading  kept answers by another schema           salvage    lines of a journal that does not fit
    findings   what an audit says                       upkeep     what is done to a record as a whole
    ballast    what is given up when the disk is full   spill      what could not be committed, elsewhere
    watch      a disk that is slow, a journal that is gone
    heartbeat  status.json: how a run says it is
    spillover  which of these files is this record's    spending   what counts as the present input's
    wal        SQLite's log, as a kill leaves it       witness    how far the journal had come

Names are loaded when they are first asked for: a second start that only reads the manifest needs no Arrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchllm.journal.aside import finish_putting_aside, put_aside, records_aside
    from batchllm.journal.carries import Carried, Carries
    from batchllm.journal.copies import Copied, CopyRequests
    from batchllm.journal.database import Counts
    from batchllm.journal.forgetting import Forgotten
    from batchllm.journal.identity import Identity, StoredJob, changed_sections, stored_job
    from batchllm.journal.inputs import InputState
    from batchllm.journal.interrupted import Interrupted
    from batchllm.journal.journal import Journal
    from batchllm.journal.lock import OutputLock
    from batchllm.journal.manifest import Manifest, PartEntry, read_manifest
    from batchllm.journal.renewal import Changed, Renewal
    from batchllm.journal.space import DiskRules
    from batchllm.journal.spending import EverSpent, ever_spent
    from batchllm.journal.tables import Named, check_names
    from batchllm.journal.tuning import Tuning

_HOMES = {
    "Carried": "carries",
    "Carries": "carries",
    "Changed": "renewal",
    "Copied": "copies",
    "CopyRequests": "copies",
    "Counts": "database",
    "Forgotten": "forgetting",
    "DiskRules": "space",
    "EverSpent": "spending",
    "Identity": "identity",
    "InputState": "inputs",
    "Interrupted": "interrupted",
    "Journal": "journal",
    "Manifest": "manifest",
    "Named": "tables",
    "OutputLock": "lock",
    "PartEntry": "manifest",
    "Renewal": "renewal",
    "StoredJob": "identity",
    "Tuning": "tuning",
    "changed_sections": "identity",
    "check_names": "tables",
    "ever_spent": "spending",
    "finish_putting_aside": "aside",
    "put_aside": "aside",
    "read_manifest": "manifest",
    "records_aside": "aside",
    "stored_job": "identity",
}

__all__ = [
    "Carried",
    "Carries",
    "Changed",
    "Copied",
    "CopyRequests",
    "Counts",
    "DiskRules",
    "EverSpent",
    "Forgotten",
    "Identity",
    "InputState",
    "Interrupted",
    "Journal",
    "Manifest",
    "Named",
    "OutputLock",
    "PartEntry",
    "Renewal",
    "StoredJob",
    "Tuning",
    "changed_sections",
    "check_names",
    "ever_spent",
    "finish_putting_aside",
    "put_aside",
    "read_manifest",
    "records_aside",
    "stored_job",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
