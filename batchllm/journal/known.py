"""What the record holds of some rows, found by one column: all of that is read, the others only where it is found.

Of ten million lines whose keys are compared with a thousand new ones nothing but the keys is decoded.
"""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.errors import InvariantError
from batchllm.journal.parts import PartInfo, Store, damaged_part, open_part
from batchllm.journal.renewal import Renewal

Chosen = Callable[[pa.ChunkedArray], pa.ChunkedArray]


def known_rows(store: Store, keys: pa.Array) -> Iterator[pa.RecordBatch]:
    """Key, `row` and `request_hash` of the lines of output/ and failures/ that have one of `keys`."""
    name = store.tables.key_name
    for part in [*store.parts("output"), *store.parts("failures")]:
        yield from _lines_where(
            store, part, [name, "row", "request_hash"], lambda found: pc.is_in(found, value_set=keys)
        )


def known_hashes(
    store: Store, prefixes: pa.Array | None, renewal: Renewal | None
) -> Iterator[pa.RecordBatch]:
    """`request_hash` and `row` of all answers, or of those whose hash begins with one of `prefixes` (of one length).

    `renewal`: one that the parts are yet to go through.
    """
    length = len(prefixes[0].as_py()) if prefixes is not None and len(prefixes) else 0

    def chosen(found: pa.ChunkedArray) -> pa.ChunkedArray:
        if prefixes is None:
            return found.is_valid()
        return pc.is_in(pc.utf8_slice_codeunits(found, 0, length), value_set=prefixes)

    for part in store.parts("output"):
        for batch in _lines_where(store, part, ["request_hash", "row"], chosen):
            yield batch if renewal is None else renewal.moved(batch)


def _lines_where(
    store: Store, part: PartInfo, columns: Sequence[str], chosen: Chosen
) -> Iterator[pa.RecordBatch]:
    """These columns of the lines for which `chosen` says so of the first one, a row group at a time."""
    if not part.rows:
        return
    path = store.layout.part(part.kind, part.name)
    with open_part(path) as file:
        if file.metadata.num_rows != part.rows:
            raise InvariantError(
                f"{path} has {file.metadata.num_rows} rows, where the journal knows {part.rows}"
            )
        try:
            for group in range(file.num_row_groups):
                is_chosen = chosen(file.read_row_group(group, columns[:1], use_threads=False).column(0))
                if pc.any(is_chosen).as_py():
                    lines = file.read_row_group(group, list(columns), use_threads=False).select(columns)
                    yield from lines.filter(is_chosen).combine_chunks().to_batches()
        except (OSError, pa.ArrowException) as error:
            raise damaged_part(path, error) from error
