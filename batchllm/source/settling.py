"""Arrow columns in the layouts that Arrow can compute with.

Views (of text, bytes, lists) and run-end encodings are ways to lay out memory, not types that a user chose, and much
of Arrow, of Parquet and of what reads the output does not know them. They are settled into the plain layouts before
anything else looks, and the output has these. Dictionaries stay while rows are cut, for they hold large texts once.
"""

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from batchllm.carry import is_list, map_type, plain_type
from batchllm.errors import InputDataError


def settled_type(kind: pa.DataType) -> pa.DataType:
    """What a column of this type is once it is settled."""
    return plain_type(map_type(kind, _without_view))


def carried_type(kind: pa.DataType) -> pa.DataType:
    """What a column of this type is in the output: the same whichever library wrote it, with small or large offsets."""
    return map_type(settled_type(kind), _without_large_offsets)


def _without_large_offsets(kind: pa.DataType) -> pa.DataType:
    if types.is_large_string(kind):
        return pa.string()
    if types.is_large_binary(kind):
        return pa.binary()
    return pa.list_(kind.value_field) if types.is_large_list(kind) else kind


def _without_view(kind: pa.DataType) -> pa.DataType:
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_list_view(kind):
        return pa.list_(kind.value_field)
    return pa.large_list(kind.value_field) if types.is_large_list_view(kind) else kind


def settle(array: pa.Array) -> pa.Array:
    """The same values; a dictionary around them stays. Raises NotImplementedError."""
    kind = array.type
    if types.is_run_end_encoded(kind):
        return settle(pc.run_end_decode(array))
    if types.is_dictionary(kind):
        values = settle(array.dictionary)
        return (
            pa.DictionaryArray.from_arrays(array.indices, values) if values.type != kind.value_type else array
        )
    wanted = map_type(kind, _without_view)
    if wanted == kind:
        return array
    return _rebuild(array, wanted) if _has_list_view(kind) else array.cast(wanted)


def _rebuild(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """By hand: Arrow's cast from a list view loses the last list (pyarrow 26)."""
    if types.is_struct(wanted):
        children = [settle(child) for child in array.flatten()]
        return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())
    if not is_list(wanted) or types.is_fixed_size_list(wanted):
        raise NotImplementedError(f"{array.type} to {wanted}")
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    values = settle(array.flatten())
    if types.is_large_list(wanted):
        return pa.LargeListArray.from_arrays(offsets, values, type=wanted, mask=array.is_null())
    return pa.ListArray.from_arrays(offsets.cast(pa.int32()), values, type=wanted, mask=array.is_null())


def _has_list_view(kind: pa.DataType) -> bool:
    found = []

    def look(inner: pa.DataType) -> pa.DataType:
        found.append(types.is_list_view(inner) or types.is_large_list_view(inner))
        return inner

    map_type(kind, look)
    return any(found)


def settle_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not batch.num_columns:
        return batch  # made anew, it would forget how many rows it has
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns.append(settle(column))
        except NotImplementedError:  # Arrow's own is one too
            raise InputDataError(
                f'column "{name}" is of type {column.type}, which cannot be read',
                remedy=f"cast it to {settled_type(column.type)}",
            ) from None
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def undictionary(array: pa.Array) -> pa.Array:
    """The values without the dictionary around them."""
    return undictionary(array.dictionary_decode()) if types.is_dictionary(array.type) else array
