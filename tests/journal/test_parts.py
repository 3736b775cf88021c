"""The protocol of a part, and what a part is."""

import hashlib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.parts import Draft, publish
from batchllm.journal.tuning import Tuning


def test_a_part_is_what_its_line_says(kit, out):
    kit.fill(out)
    manifest = kit.seal(out)
    for kind in ("output", "usage"):
        for entry in manifest.parts[kind]:
            data = (out / entry.path).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.bytes, entry.sha256)
            assert pq.read_metadata(out / entry.path).num_rows == entry.rows
    assert sum(entry.rows for entry in manifest.parts["output"]) == 30


def test_row_groups_are_bounded_compressed_and_checked(kit, out):
    kit.fill(out)
    manifest = kit.seal(out, tuning=Tuning(sizes=replace(kit.SMALL, drain_rows=1000)))
    metadata = pq.read_metadata(out / manifest.parts["output"][0].path)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    assert max(group.num_rows for group in groups) <= kit.SMALL.group_rows + kit.SMALL.slice_rows
    columns = {column.path_in_schema: column for column in map(groups[0].column, range(metadata.num_columns))}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["lane"].has_dictionary_page
    assert not columns["content"].has_dictionary_page


def test_readers_that_check_pages_find_every_flipped_byte_of_the_data(kit, out):
    kit.fill(out, rows=range(8))
    path = out / kit.seal(out).parts["output"][0].path
    whole, data = pq.read_table(path), path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    found = 0
    for place in range(4, footer, 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            assert pq.read_table(path, page_checksum_verification=True).equals(whole)
        except (OSError, pa.ArrowException):
            found += 1
    assert found > 20


def test_a_name_that_is_taken_is_never_written_over(kit, out):
    journal = kit.open_journal(out)
    store = journal._store
    intent = store.intend("output", 0)
    path = out / "output" / intent.name
    path.write_text("precious")
    draft = Draft(store, intent)
    sealed = draft.seal()
    draft.close()
    with pytest.raises(InvariantError, match="exists already"):
        publish(store, [sealed])
    assert path.read_text() == "precious"
    journal._database.close()


def test_a_draft_never_writes_through_a_link(kit, out):
    journal = kit.open_journal(out)
    intent = journal._store.intend("output", 0)
    target = out.parent / "precious"
    target.write_text("precious")
    (out / ".batchllm" / f"{intent.name}.tmp").symlink_to(target)
    with pytest.raises(StorageError, match="cannot create"):
        Draft(journal._store, intent)
    assert target.read_text() == "precious"
    journal._database.close()
