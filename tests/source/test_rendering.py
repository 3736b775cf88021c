"""What a template sees of each Arrow type."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.source.rendering import is_known_zone, render, time_zones


def one(value: object, kind: pa.DataType) -> object:
    rendered, missing = render(pa.array([value, None], kind))
    assert missing is None
    return rendered


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("12.50", pa.decimal128(10, 2), "12.50"),
        ("0", pa.decimal128(18, 8), "0.00000000"),
        ("-0.0000001", pa.decimal256(40, 7), "-0.0000001"),
        ("1E+5", pa.decimal128(5, -3), "100000"),
    ],
)
def test_a_decimal_reads_without_an_exponent(value: str, kind: pa.DataType, text: str) -> None:
    rendered = one(Decimal(value), kind)
    assert str(rendered) == text
    assert rendered == Decimal(value)


@pytest.mark.parametrize(
    ("count", "kind", "expected"),
    [
        (1_700_000_000, pa.timestamp("s"), datetime(2023, 11, 14, 22, 13, 20)),  # noqa: DTZ001  # as in Arrow
        (1_700_000_000_123, pa.timestamp("ms", "UTC"), datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)),
        (1_000, pa.timestamp("ns"), datetime(1970, 1, 1, 0, 0, 0, 1)),  # noqa: DTZ001
        (0, pa.date32(), date(1970, 1, 1)),
        (86_400_000, pa.date64(), date(1970, 1, 2)),
        (61, pa.time32("s"), time(0, 1, 1)),
        (1_000, pa.time64("ns"), time(0, 0, 0, 1)),
        (-1_500, pa.duration("ms"), timedelta(seconds=-1.5)),
        (2_000, pa.duration("ns"), timedelta(microseconds=2)),
    ],
)
def test_what_python_can_hold_is_a_python_value(count: int, kind: pa.DataType, expected: object) -> None:
    rendered = one(count, kind)
    assert rendered == expected
    assert type(rendered) is type(expected)


@pytest.mark.parametrize(
    ("count", "kind", "text"),
    [
        (1, pa.timestamp("ns"), "1970-01-01 00:00:00.000000001"),
        (-1, pa.timestamp("ns"), "1969-12-31 23:59:59.999999999"),
        (
            1_715_000_000_000_000_001,
            pa.timestamp("ns", "Europe/Berlin"),
            "2024-05-06 14:53:20.000000001+02:00",
        ),
        (1, pa.timestamp("ns", "+05:30"), "1970-01-01 05:30:00.000000001+05:30"),
        (253_402_300_800, pa.timestamp("s"), "+10000-01-01 00:00:00"),
        (253_402_300_799, pa.timestamp("s", "Europe/Berlin"), "9999-12-31 23:59:59+00:00"),
        (-62_135_596_801, pa.timestamp("s"), "0000-12-31 23:59:59"),
        (-62_167_219_201, pa.timestamp("s"), "-0001-12-31 23:59:59"),
        (253_402_300_800_500, pa.timestamp("ms"), "+10000-01-01 00:00:00.500000"),
        (2_932_897, pa.date32(), "+10000-01-01"),
        (-719_163, pa.date32(), "0000-12-31"),
        (1, pa.time64("ns"), "00:00:00.000000001"),
        (1, pa.duration("ns"), "0:00:00.000000001"),
        (86_400_000_000_001, pa.duration("ns"), "1 day, 0:00:00.000000001"),
        (-1, pa.duration("ns"), "-1 day, 23:59:59.999999999"),
        (10**15, pa.duration("s"), "11574074074 days, 1:46:40"),
    ],
)
def test_what_python_cannot_hold_is_text_of_the_same_form(count: int, kind: pa.DataType, text: str) -> None:
    assert one(count, kind) == text


def test_one_odd_value_does_not_change_its_neighbours() -> None:
    array = pa.array([1_000, 1, None], pa.timestamp("ns"))
    assert render(array) == [datetime(1970, 1, 1, 0, 0, 0, 1), "1970-01-01 00:00:00.000000001", None]  # noqa: DTZ001


@settings(deadline=None, max_examples=200)
@given(st.datetimes(), st.sampled_from(["s", "ms", "us", "ns"]))
def test_text_has_the_form_of_str(moment: datetime, unit: str) -> None:
    """A value beside an odd one goes the slow way, and must come out as the quick way has it."""
    whole = moment.replace(microsecond=0)
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    count = int((whole - datetime(1970, 1, 1)).total_seconds()) * per_second  # noqa: DTZ001
    if not -(2**63) <= count < 2**63:
        return
    odd = 2**62 + 1
    assert render(pa.array([count, odd], pa.timestamp(unit)))[0] == whole


@settings(deadline=None, max_examples=200)
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(
        [
            pa.timestamp(unit, zone)
            for unit in ("s", "ms", "us", "ns")
            for zone in (None, "UTC", "Asia/Kolkata")
        ]
        + [pa.duration(unit) for unit in ("s", "ms", "us", "ns")]
    ),
)
def test_no_count_of_time_raises(count: int, kind: pa.DataType) -> None:
    (rendered,) = render(pa.array([count], kind))
    assert str(rendered)


@settings(deadline=None, max_examples=100)
@given(st.integers(-(2**31), 2**31 - 1))
def test_no_date_raises(days: int) -> None:
    assert str(render(pa.array([days], pa.date32()))[0])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
        (pa.array([1.5], pa.float16()), 1.5),
        (pa.array([b"\xff"]), b"\xff"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([[1, None]]), [1, None]),
        (pa.array([{"a": 1, "b": {"c": None}}]), {"a": 1, "b": {"c": None}}),
        (pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int8())), {"k": 2}),
        (pa.array([[([1], 2)]], pa.map_(pa.list_(pa.int8()), pa.int8())), [([1], 2)]),
        (
            pa.array([{"t": 1}], pa.struct([("t", pa.timestamp("ns"))])),
            {"t": "1970-01-01 00:00:00.000000001"},
        ),
        (pa.array([[1]], pa.list_(pa.time64("ns"))), ["00:00:00.000000001"]),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), pa.MonthDayNano([1, 2, 3])),
        (pa.array([None], pa.null()), None),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), "00000000-0000-0000-0000-000000000005"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_other_types_are_plain_python(array: pa.Array, expected: object) -> None:
    assert render(array) == [expected]


def test_structs_whose_names_repeat_do_not_raise() -> None:
    array = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert render(array) == [{"a": 2}]


def test_time_zones_are_found_at_every_depth() -> None:
    kind = pa.struct(
        [
            ("a", pa.list_(pa.timestamp("us", "Europe/Berlin"))),
            ("b", pa.map_(pa.string(), pa.timestamp("ns", "UTC"))),
            ("c", pa.dictionary(pa.int8(), pa.timestamp("s", "+01:00"))),
            ("d", pa.timestamp("s")),
        ]
    )
    assert sorted(time_zones(kind)) == ["+01:00", "Europe/Berlin", "UTC"]


def test_a_zone_that_does_not_exist_is_not_known() -> None:
    assert is_known_zone("Europe/Berlin")
    assert is_known_zone("-03:00")
    assert not is_known_zone("Mars/Phobos")
