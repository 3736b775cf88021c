import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from page_rig import HOSTILE, SCHEMA, VOTERS, Page, agreement, measure, row, table

from batchllm.errors import StorageError
from batchllm.report.page import REPORT_FILE, Section, write_report
from batchllm.report.page import writing as page_writing

SPLIT = [row(0, ("yes", "no", "yes")), row(1, ("yes", "yes", "yes")), row(2, ("no", "no", "no"))]
SECTIONS = ["overview", "voters", "agreement", "mistakes", "comparisons", "rows", "about"]
ELEMENTS = {
    "html", "head", "meta", "title", "link", "style", "script", "body", "a", "div", "header", "nav", "main", "section",
    "article", "p", "span", "b", "i", "bdi", "br", "code", "h1", "h2", "h3", "ul", "ol", "li", "dl", "dt", "dd",
    "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "fieldset", "legend",
    "input", "label", "select", "option", "form", "button",
    "svg", "desc", "g", "path", "line", "rect", "circle", "text", "tspan", "defs", "clippath",
}  # fmt: skip


def made(
    tmp_path: Path, said: dict[str, Any] | None = None, rows: list[dict[str, Any]] | None = None, **more: Any
) -> tuple[Page, str]:
    path = write_report(agreement() if said is None else said, table(SPLIT if rows is None else rows), tmp_path, **more)
    html = path.read_text("utf-8")
    return Page(html), html


def entries(page: Page) -> list[dict[str, Any]]:
    return list(json.loads(page.raw["script"][0]))


def test_the_page_has_its_sections_and_the_navigation_names_them_all(tmp_path: Path) -> None:
    page, _ = made(tmp_path)
    assert [found["id"] for tag, found in page.elements if tag == "section"] == SECTIONS
    links = [found["href"] for tag, found in page.elements if tag == "a" and "#main" != found["href"]]
    assert links == [f"#{name}" for name in SECTIONS]
    assert page.count("h1") == 1


def test_each_figure_is_said_with_its_interval_and_how_many_it_is_of(tmp_path: Path) -> None:
    page, _ = made(tmp_path)
    for part in (
        "16 of 20 rows have an agreed value, and 95.0 % of those with gold are right",
        "The best single voter, swift , is right on 90.0 %",
        "95 % interval 85.0 % – 100.0 % 20 decided rows with gold",
        "95 % interval 0.510 – 0.710",
        "$0.0600",
        "$0.003750",
        "31.7 %",
        "19 of 60 calls",
    ):
        assert part in page.text


def test_foreign_text_adds_no_element_no_attribute_and_no_script(tmp_path: Path) -> None:
    text = " ".join(HOSTILE)
    said = agreement(voters=HOSTILE, labels=HOSTILE[:3])
    said["settings"] = {text: text}
    said["voters"][0]["lane"] = text
    said["agreement"]["fleiss"] = {"value": None, "why": text}
    rows = [{**row(0, (text, "b", "c"), gold=text, text=text), "id": text, "reason": text, "rule": text}]
    votes = [{"voter": name, "value": name, "state": "cast"} for name in HOSTILE]
    page, html = made(tmp_path, said, [{**rows[0], "votes": votes}], job=text)
    plain, _ = made(tmp_path)
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    names = {name for _, found in plain.elements for name in found}
    assert {name for _, found in page.elements for name in found} <= names
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert len(page.raw["script"]) == 3
    assert not page.comments
    assert page.raw["script"][2] == plain.raw["script"][2]
    assert "alert(2)" in page.text
    assert "49" not in entries(page)[0]["key"]
    assert not set("\x00\x07\u202e") & set(html)
    assert "\u2028" not in page.raw["script"][0]


def test_a_lone_surrogate_is_replaced_wherever_it_stands(tmp_path: Path) -> None:
    said = agreement(voters=("a\ud800", "b"))
    page, _ = made(tmp_path, said, job="\udfffjob")
    assert "a\ufffd" in page.text
    assert "\ufffdjob" in page.text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page, html = made(tmp_path)
    for _, found in page.elements:
        assert not {"src", "srcset", "action", "data", "poster", "xlink:href"} & set(found)
        assert (found.get("href") or "#").startswith(("#", "data:,"))
    assert "url(" not in page.raw["style"][0]
    assert "@import" not in page.raw["style"][0]
    assert not re.search(r"https?://", html.replace("http-equiv", ""))
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|innerHTML|eval)\b", page.raw["script"][2])


def test_the_policy_allows_this_style_and_this_script_alone(tmp_path: Path) -> None:
    page, _ = made(tmp_path)
    policy = next(found["content"] for tag, found in page.elements if tag == "meta" and "http-equiv" in found) or ""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert "default-src 'none'" in policy
    assert f"style-src {digest(page.raw['style'][0])};" in policy
    assert f"script-src {digest(page.raw['script'][2])};" in policy
    assert "unsafe" not in policy


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    _, first = made(tmp_path)
    _, second = made(tmp_path)
    assert first == second


def test_split_rows_come_first_then_those_that_are_wrong_together(tmp_path: Path) -> None:
    page, _ = made(tmp_path)
    assert [found["key"] for found in entries(page)] == ["r-0", "r-2"]
    assert "1 of 3 rows are split or undecided; on 1 more all votes are alike, and wrong" in page.text
    assert page.count("details", "entry") == 2


def test_a_row_is_listed_with_every_vote_and_who_has_none(tmp_path: Path) -> None:
    page, _ = made(tmp_path, rows=[row(0, ("yes", "no", None), gold="no", text="the text")])
    [found] = entries(page)
    assert found["groups"] == [["yes", [0], False, False, True], ["no", [1], False, True, True]]
    assert found["absent"] == [["failed", [2]]]
    assert found["carried"] == ["the text"]
    for part in ("the text", "gold no", "bolt", "failed", "tied"):
        assert part in page.text


def test_what_is_left_out_is_said_and_the_page_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(at, ("yes", "no", "yes"), text="long " * 2_000) for at in range(2_500)]
    page, html = made(tmp_path, rows=rows)
    kept = len(entries(page))
    assert 1_000 < kept < 2_500
    assert len(html) < 2_600_000
    assert f"The {kept:,} most contentious are listed; the other {2_500 - kept:,}, like all rows, are in" in page.text
    assert page.count("details", "entry") == 100


def test_without_gold_it_is_said_what_accuracy_means(tmp_path: Path) -> None:
    said = agreement()
    for voter in said["voters"]:
        voter["against"] = "consensus"
    said |= {"consensus": {"accuracy": None, "accuracy_why": "no gold is named"}, "comparisons": []}
    page, _ = made(tmp_path, said, [row(0, ("yes", "no", "yes"), gold=None)])
    for part in ("There is no gold", "swift against consensus", "no gold is named", "name its column as gold"):
        assert part in page.text
    assert "of those with gold are right" not in page.text
    assert page.with_id("wrong") is None


def test_one_voter_agrees_with_nobody(tmp_path: Path) -> None:
    said = agreement(voters=("swift",))
    said["agreement"] = {"percent": None, "why": {"percent": "one voter only"}, "cohen": [], "percent_pairs": []}
    page, _ = made(tmp_path, said, [row(0, ("yes",))])
    for part in ("1 voter.", "one voter only", "There are no two voters to compare", "No row is split"):
        assert part in page.text


@pytest.mark.parametrize("said", [{}, {"voters": 3, "agreement": [], "counts": None, "rows": float("nan")}])
def test_whatever_is_missing_from_the_figures_the_page_appears(tmp_path: Path, said: dict[str, Any]) -> None:
    page, html = made(tmp_path, said, [])
    assert "Nobody has voted" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_null_statistics_are_a_dash_with_the_reason(tmp_path: Path) -> None:
    said = agreement()
    said["agreement"] |= {"alpha": {"value": None, "why": "all votes are the same label"}, "fleiss": None}
    said["voters"][0] |= {"accuracy": measure(None), "confusion": None, "cost_usd": None, "latency_ms": None}
    said["cost"] = {"usd": None, "per_decided_usd": None}
    said["comparisons"][0] |= {"p_value": None, "difference": {"value": None, "why": "no row in common"}}
    page, _ = made(tmp_path, said)
    for part in ("all votes are the same label", "unknown", "no row in common", "set its price"):
        assert part in page.text


def test_number_votes_are_drawn_as_differences(tmp_path: Path) -> None:
    vote = pa.struct([("voter", pa.string()), ("value", pa.float64()), ("state", pa.string())])
    votes = [[{"voter": "swift", "value": at + 1.0, "state": "cast"}, {"voter": "sage", "value": 1.0 * at, "state": "cast"}]
             for at in range(40)]  # fmt: skip
    numbers = pa.table(
        {
            "row": pa.array(range(40)),
            "consensus": pa.array([at + 0.5 for at in range(40)]),
            "status": pa.array(["decided"] * 40),
            "votes": pa.array(votes, pa.list_(vote)),
            "margin": pa.nulls(40, pa.float64()),
            "entropy": pa.nulls(40, pa.float64()),
        }
    )
    said = agreement(voters=("swift", "sage")) | {"consensus": {}}
    for voter in said["voters"]:
        voter["confusion"] = None
    page = Page(write_report(said, numbers, tmp_path).read_text("utf-8"))
    assert "swift differs from the consensus by 0.5 on average" in page.text
    assert "40 of 40 rows are split" in page.text


def test_more_sections_stand_before_the_last(tmp_path: Path) -> None:
    more = Section("run", "Run", "about.html.j2", {"settings": [], "created": ""})
    page, _ = made(tmp_path, more=(more,))
    assert [found["id"] for tag, found in page.elements if tag == "section"] == [*SECTIONS[:-1], "run", "about"]


def test_an_empty_stream_of_batches_is_a_page(tmp_path: Path) -> None:
    assert write_report(agreement(), iter(()), tmp_path).exists()


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    made(tmp_path)
    before = (tmp_path / REPORT_FILE).read_bytes()
    (tmp_path / f".{REPORT_FILE}.new").mkdir()
    with pytest.raises(StorageError, match=REPORT_FILE):
        write_report(agreement(voters=("other",)), table([]), tmp_path)
    assert (tmp_path / REPORT_FILE).read_bytes() == before


def test_thirty_voters_and_sixty_labels_are_capped_and_said(tmp_path: Path) -> None:
    said = agreement(voters=[f"model-{at}" for at in range(40)], labels=[f"label-{at}" for at in range(60)])
    page, html = made(tmp_path, said)
    assert "The first 30 of 40 voters; agreement.json has every pair." in page.text
    assert "41 labels that are seldom met are folded into one" in page.text
    assert "comparisons more, with larger p-values" in page.text
    assert len(html) < 3_000_000


def test_a_comparison_is_a_sentence_with_the_better_one_first(tmp_path: Path) -> None:
    page, _ = made(tmp_path)
    assert "Is sage better than swift ? of 20 rows that both voted on, only sage is right on 9, only swift on 1" in page.text
    assert "+40.0" in page.text
    assert "+10.0 to +60.0" in page.text
    assert "p = 0.012" in page.text


def test_the_state_folder_holds_the_draft_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / ".batchllm").mkdir()
    made(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".batchllm", REPORT_FILE]
    assert not list((tmp_path / ".batchllm").iterdir())
    assert page_writing.MOST_ENTRIES <= 5_000
    assert SCHEMA.names[1] == "row"
    assert len(VOTERS) == 3
