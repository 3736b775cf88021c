"""docs/performance.md says how to repeat what is measured."""

import re
from importlib.util import find_spec
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text("utf-8")


def test_every_command_of_the_page_is_there() -> None:
    modules = set(re.findall(r"python -m (benchmarks[\w.]*)", PAGE))
    assert "benchmarks.throughput" in modules
    assert [name for name in modules if find_spec(name) is None] == []


def test_every_marker_is_whole_and_names_another_table() -> None:
    opened = re.findall(r"^<!-- table: ([a-z0-9-]+) -->$", PAGE, re.MULTILINE)
    assert len(opened) == len(set(opened)) == PAGE.count("<!-- /table -->") == PAGE.count("<!-- table:")
