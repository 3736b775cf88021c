"""What was measured reads back, and stands in the document where its markers are."""

from pathlib import Path

import pytest

from benchmarks.tables import (
    Column,
    DocumentError,
    Report,
    as_json,
    as_markdown,
    as_text,
    filled,
    from_json,
    main,
)

REPORT = Report(
    name="speed",
    title="Rows a second",
    machine="2 cores",
    columns=(Column("who", "who"), Column("rows_s", "rows/s", ",.0f"), Column("ratio", "× bare", ".2f")),
    rows=(
        {"who": "bare", "rows_s": 7300.4, "ratio": 1, "raw": [1, 2]},
        {"who": "a|b", "rows_s": None},
    ),
    notes=("medians of 5",),
)
MARKDOWN = """\
| who | rows/s | × bare |
| :-- | --: | --: |
| bare | 7,300 | 1.00 |
| a\\|b | – | – |

- medians of 5
- Machine: 2 cores
"""
DOCUMENT = """# Speed
before
<!-- table: speed -->
old
<!-- /table -->
between
<!-- table: other -->
kept
<!-- /table -->
after
"""


def test_markdown_has_figures_in_their_format_and_a_dash_for_none() -> None:
    assert as_markdown(REPORT) == MARKDOWN


def test_text_aligns_columns() -> None:
    assert as_text(REPORT).splitlines() == [
        "Rows a second",
        "who   rows/s  × bare",
        "bare   7,300    1.00",
        "a|b        –       –",
        "  medians of 5",
        "  2 cores",
    ]


def test_a_report_reads_back() -> None:
    again = from_json(as_json(REPORT))
    assert as_markdown(again) == MARKDOWN
    assert again.rows[0]["raw"] == [1, 2]


def test_a_cell_is_text_or_a_number() -> None:
    report = Report("speed", "", "", (Column("raw", "raw"),), ({"raw": [1]},))
    with pytest.raises(TypeError, match="column raw: expected text or a number, found list"):
        as_text(report)


def test_the_table_takes_its_place_and_nothing_else_changes() -> None:
    document = filled(DOCUMENT, [REPORT])
    assert document == DOCUMENT.replace("old\n", MARKDOWN)
    assert filled(document, [REPORT]) == document


def test_a_table_without_a_place_is_an_error() -> None:
    with pytest.raises(DocumentError, match="no place for the table speed: add <!-- table: speed -->"):
        filled("# Speed\n", [REPORT])


def test_the_command_fills_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "speed.json").write_text(as_json(REPORT), "utf-8")
    (tmp_path / "page.md").write_text(DOCUMENT, "utf-8")
    main([str(tmp_path), str(tmp_path / "page.md")])
    assert MARKDOWN in (tmp_path / "page.md").read_text("utf-8")
    assert "speed" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "{}", '{"columns": [], "notes": [], "colour": 1}'])
def test_a_foreign_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "speed.json").write_text(text, "utf-8")
    (tmp_path / "page.md").write_text(DOCUMENT, "utf-8")
    with pytest.raises(SystemExit, match=r"speed\.json is no table that --json wrote"):
        main([str(tmp_path), str(tmp_path / "page.md")])


def test_a_folder_without_tables_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="python -m benchmarks --json"):
        main([str(tmp_path), "page.md"])
