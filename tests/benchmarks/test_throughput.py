"""The line of the table that a set of turns makes."""

from benchmarks.harness import Usage
from benchmarks.throughput import figures


def usage(cpu_s: float, wall_s: float = 1.0, peak_mb: float = 100.0) -> Usage:
    return Usage(wall_s, cpu_s, peak_mb)


def test_starting_up_is_in_the_ratio_and_not_in_the_net_one() -> None:
    line = figures(
        1000,
        run=[usage(3.0, 4.0), usage(5.0, 2.0, 150.0), usage(4.0, 5.0)],
        bare=[usage(2.0, 1.0), usage(2.0, 2.0), usage(2.0, 4.0)],
        start=[usage(1.0), usage(0.5), usage(9.0)],
        bare_start=[usage(0.5)] * 3,
    )
    assert line["ratio"] == 2.0
    assert line["net_ratio"] == 2.0  # (4 - 1) / (2 - 0.5)
    assert line["ratios"] == [1.5, 2.5, 2.0]
    assert (line["cpu_us"], line["bare_us"]) == (4000.0, 2000.0)
    assert (line["rows_s"], line["bare_s"]) == (250.0, 500.0)
    assert line["core_share"] == 1.0  # 4 ms of CPU a row, 250 rows a second
    assert (line["start_s"], line["bare_start_s"], line["peak_mb"]) == (1.0, 0.5, 150.0)


def test_net_and_whole_ratios_differ_when_the_starts_do() -> None:
    line = figures(10, run=[usage(3.0)], bare=[usage(1.0)], start=[usage(1.5)], bare_start=[usage(0.0)])
    assert (line["ratio"], line["net_ratio"]) == (3.0, 1.5)
