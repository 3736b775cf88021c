"""Carried columns: from any Arrow type to JSON bytes in the journal, and back to the same type.

The journal must hold a row's carried values until its Parquet part is sealed. JSON alone would lose decimals,
nanoseconds and bytes, so each pinned type has a physical form that JSON holds exactly:

    null, bool, ints, strings, floats       as they are (NaN and infinities as text)
    dates, times, timestamps, durations     their int64 or int32
    decimals                                text
    binary                                  base64 text
    everything else (lists, structs, maps)  the value alone in an Arrow IPC stream, base64 text

A row's carried values are one JSON array, in the order of the fields.
"""
