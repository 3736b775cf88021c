import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from page_rig import HOSTILE, Page, agreement, measure, row, table

from batchllm.errors import StorageError
from batchllm.report.page import REPORT_FILE, Section, write_report
from batchllm.report.page.charts import Chart
from batchllm.report.page.svg import Drawing, draw

SPLIT = [row(0, ("yes", "no", "yes")), row(1, ("yes", "yes", "yes")), row(2, ("no", "no", "no"))]
SECTIONS = ["overview", "voters", "agreement", "mistakes", "comparisons", "rows", "about"]
ELEMENTS = {
    "html", "head", "meta", "title", "link", "style", "script", "body", "a", "div", "header", "nav", "main", "section",
    "article", "p", "span", "b", "i", "bdi", "br", "code", "h1", "h2", "h3", "ul", "ol", "li", "dl", "dt", "dd",
    "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "fieldset", "legend",
    "input", "label", "select", "option", "form", "button",
    "svg", "desc", "g", "path", "line", "rect", "circle", "text", "tspan", "defs", "clippath",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("drawings")


def blank(charts: Sequence[Chart]) -> list[Drawing]:
    """No drawing, at no cost."""
    return [Drawing(None, "not drawn") for _ in charts]


def made(
    tmp_path: Path, said: dict[str, Any] | None = None, rows: list[dict[str, Any]] | None = None, **more: Any
) -> tuple[Page, str]:
    more.setdefault("draw", blank)
    path = write_report(
        agreement() if said is None else said, table(SPLIT if rows is None else rows), tmp_path, **more
    )
    html = path.read_text("utf-8")
    return Page(html), html


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, drawings: None) -> tuple[Page, str]:
    """The page of the rig's figures and of three rows."""
    return made(tmp_path_factory.mktemp("plain"), draw=draw)


def entries(page: Page) -> list[dict[str, Any]]:
    return list(json.loads(page.raw["script"][0]))


def test_the_page_has_its_sections_and_the_navigation_names_them_all(plain: tuple[Page, str]) -> None:
    page, _ = plain
    assert [found["id"] for tag, found in page.elements if tag == "section"] == SECTIONS
    links = [found["href"] for tag, found in page.elements if tag == "a" and found["href"] != "#main"]
    assert links == [f"#{name}" for name in SECTIONS]
    assert page.count("h1") == 1


def test_each_figure_is_said_with_its_interval_and_how_many_it_is_of(plain: tuple[Page, str]) -> None:
    page, _ = plain
    for part in (
        "16 of 20 rows have an agreed value, and 95.0 % of those with gold are right",
        "The best single voter, swift , is right on 90.0 %",
        "95 % interval 85.0 % – 100.0 % 20 decided rows with gold",
        "95 % interval 0.510 – 0.710",
        "$0.0600",
        "$0.00375",
        "31.7 %",
        "19 of 60 calls",
    ):
        assert part in page.text


def test_foreign_text_adds_no_element_no_attribute_and_no_script(
    tmp_path: Path, plain: tuple[Page, str]
) -> None:
    text = " ".join(HOSTILE)
    said = agreement(voters=HOSTILE, labels=HOSTILE[:3])
    said["settings"] = {text: text}
    said["voters"][0]["lane"] = text
    said["agreement"]["fleiss"] = {"value": None, "why": text}
    rows = [{**row(0, (text, "b", "c"), gold=text, text=text), "id": text, "reason": text, "rule": text}]
    votes = [{"voter": name, "value": name, "state": "cast"} for name in HOSTILE]
    page, html = made(tmp_path, said, [{**rows[0], "votes": votes}], job=text, draw=draw)
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    names = {name for _, found in plain[0].elements for name in found}
    assert {name for _, found in page.elements for name in found} <= names
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert len(page.raw["script"]) == 3
    assert not page.comments
    assert page.raw["script"][2] == plain[0].raw["script"][2]
    assert "alert(2)" in page.text
    assert "49" not in entries(page)[0]["key"]
    assert not set("\x00\x07\u202e") & set(html)
    assert "\u2028" not in page.raw["script"][0]


def test_a_lone_surrogate_is_replaced_wherever_it_stands(tmp_path: Path) -> None:
    said = agreement(voters=("a\ud800", "b"))
    page, _ = made(tmp_path, said, job="\udfffjob")
    assert "a\ufffd" in page.text
    assert "\ufffdjob" in page.text


def test_the_page_loads_nothing(plain: tuple[Page, str]) -> None:
    page, html = plain
    for _, found in page.elements:
        assert not {"src", "srcset", "action", "data", "poster", "xlink:href"} & set(found)
        assert (found.get("href") or "#").startswith(("#", "data:,"))
    assert "url(" not in page.raw["style"][0]
    assert "@import" not in page.raw["style"][0]
    assert not re.search(r"https?://", html.replace("http-equiv", ""))
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|innerHTML|eval)\b", page.raw["script"][2])


def test_the_policy_allows_this_style_and_this_script_alone(plain: tuple[Page, str]) -> None:
    page, _ = plain
    policy = (
        next(found["content"] for tag, found in page.elements if tag == "meta" and "http-equiv" in found)
        or ""
    )

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert "default-src 'none'" in policy
    assert f"style-src {digest(page.raw['style'][0])};" in policy
    assert f"script-src {digest(page.raw['script'][2])};" in policy
    assert "unsafe" not in policy


def test_the_same_values_give_the_same_bytes(tmp_path: Path, plain: tuple[Page, str]) -> None:
    _, again = made(tmp_path, draw=draw)
    assert again == plain[1]


def test_split_rows_come_first_then_those_that_are_wrong_together(plain: tuple[Page, str]) -> None:
    page, _ = plain
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


def test_what_is_left_out_is_said_and_the_page_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(at, ("yes", "no", "yes"), text="long " * 2_000) for at in range(2_500)]
    page, html = made(tmp_path, rows=rows)
    kept = len(entries(page))
    assert 1_000 < kept < 2_500
    assert len(html) < 2_600_000
    assert (
        f"The {kept:,} most contentious are listed; the other {2_500 - kept:,}, like all rows, are in"
        in page.text
    )
    assert page.count("details", "entry") == 100


def test_without_gold_it_is_said_what_accuracy_means(tmp_path: Path) -> None:
    said = agreement()
    for voter in said["voters"]:
        voter["against"] = "consensus"
    said |= {"consensus": {"accuracy": None, "accuracy_why": "no gold is named"}, "comparisons": []}
    page, _ = made(tmp_path, said, [row(0, ("yes", "no", "yes"), gold=None)])
    for part in (
        "There is no gold",
        "swift against consensus",
        "no gold is named",
        "name its column as gold",
    ):
        assert part in page.text
    assert "of those with gold are right" not in page.text
    assert page.with_id("wrong") is None


def test_one_voter_agrees_with_nobody(tmp_path: Path) -> None:
    said = agreement(voters=("swift",))
    said["agreement"] = {
        "percent": None,
        "why": {"percent": "one voter only"},
        "cohen": [],
        "percent_pairs": [],
    }
    page, _ = made(tmp_path, said, [row(0, ("yes",))])
    for part in ("1 voter.", "one voter only", "There are no two voters to compare", "No row is split"):
        assert part in page.text


@pytest.mark.parametrize("said", [{}, {"voters": 3, "agreement": [], "counts": None, "rows": float("nan")}])
def test_whatever_is_missing_from_the_figures_the_page_appears(tmp_path: Path, said: dict[str, Any]) -> None:
    page, _ = made(tmp_path, said, [])
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
    cast = {"swift": 1.0, "sage": 0.0}
    votes = [
        [{"voter": name, "value": at + gap, "state": "cast"} for name, gap in cast.items()]
        for at in range(40)
    ]
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
    page = Page(write_report(said, numbers, tmp_path, draw=blank).read_text("utf-8"))
    assert "swift differs from the consensus by 0.5 on average" in page.text
    assert "40 of 40 rows have votes that differ" in page.text


def test_more_sections_stand_before_the_last(tmp_path: Path) -> None:
    more = Section("run", "Run", "about.html.j2", {"settings": [], "created": ""})
    page, _ = made(tmp_path, more=(more,))
    assert [found["id"] for tag, found in page.elements if tag == "section"] == [
        *SECTIONS[:-1],
        "run",
        "about",
    ]


def test_an_empty_stream_of_batches_is_a_page(tmp_path: Path) -> None:
    assert write_report(agreement(), iter(()), tmp_path, draw=blank).exists()


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    made(tmp_path)
    before = (tmp_path / REPORT_FILE).read_bytes()
    (tmp_path / f".{REPORT_FILE}.new").mkdir()
    with pytest.raises(StorageError, match=REPORT_FILE):
        write_report(agreement(voters=("other",)), table([]), tmp_path, draw=blank)
    assert (tmp_path / REPORT_FILE).read_bytes() == before


def test_thirty_voters_and_sixty_labels_are_capped_and_said(tmp_path: Path) -> None:
    said = agreement(voters=[f"model-{at}" for at in range(40)], labels=[f"label-{at}" for at in range(60)])
    page, html = made(tmp_path, said)
    assert "The first 30 of 40 voters; agreement.json has every pair." in page.text
    assert "41 labels that are seldom met are folded into one" in page.text
    assert "comparisons more, with larger p-values" in page.text
    assert len(html) < 3_000_000


def test_a_comparison_is_a_sentence_with_the_better_one_first(plain: tuple[Page, str]) -> None:
    page, _ = plain
    assert (
        "Is sage better than swift ? of 20 rows that both voted on, only sage is right on 9, only swift on 1"
        in page.text
    )
    assert "+40.0" in page.text
    assert "+10.0 to +60.0" in page.text
    assert "p = 0.012" in page.text


def test_the_state_folder_holds_the_draft_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / ".batchllm").mkdir()
    made(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".batchllm", REPORT_FILE]
    assert not list((tmp_path / ".batchllm").iterdir())


def test_drawings_take_their_colours_from_the_page_and_have_words(plain: tuple[Page, str]) -> None:
    page, html = plain
    drawings = [found for tag, found in page.elements if tag == "svg" and found.get("class") == "chart"]
    assert len(drawings) == 3
    names = {name for _, found in page.elements for name in found}
    assert not {"xmlns", "style", "stroke-miterlimit", "aria-roledescription"} & names
    for found in drawings:
        assert all(page.with_id(name) for name in (found["aria-labelledby"] or "").split())
    for _, found in page.elements:
        for name in ("fill", "stroke"):
            assert (found.get(name) or "none").startswith(("var(--", "none", "transparent")), found
    assert "swift 90.0\u00a0% (80.0\u00a0% – 100.0\u00a0%) at 200 ms" in html


def test_without_the_library_of_drawings_the_page_says_so_and_has_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    page, _ = made(tmp_path, draw=draw)
    assert "drawings need vl-convert" in page.text
    assert "sage 89.0 %" in page.text
    assert page.count("svg", "chart") == 0


def test_a_number_is_judged_by_its_error_and_less_is_better(tmp_path: Path) -> None:
    said = agreement(voters=("swift", "sage"))
    for at, voter in enumerate(said["voters"]):
        error = {"mean_absolute": measure(0.5 + at), "bias": measure(0.25), "pearson": measure(0.9)}
        voter |= {"accuracy": None, "macro_f1": None, "confusion": None, "error": error}
    said["consensus"] = {"error": {"mean_absolute": {"value": 3.25, "low": 3, "high": 4, "n": 20}}}
    said["comparisons"][0]["of"] = "mean_absolute"
    page, _ = made(tmp_path, said)
    for part in (
        ", 3.25 away from gold on average",
        "swift , is off by 0.5 on average",
        "Mean error of the consensus",
        "Is swift better than sage ?",
        "−0.4",
        "swift is nearer to gold on 1, sage on 9",
        "Error against cost",
    ):
        assert part in page.text


def test_a_voter_that_saw_the_open_rows_alone_is_not_the_best(tmp_path: Path) -> None:
    said = agreement()
    said["voters"][0]["is_late"] = True
    page, _ = made(tmp_path, said)
    assert "The best voter that was asked about every row, sage , is right" in page.text
    assert "open rows only: 20 of 20" in page.text


def test_a_voter_that_was_not_asked_where_votes_had_settled_is_shown_so(tmp_path: Path) -> None:
    said = agreement()
    said["voters"][0] |= {"votes": 4, "not_asked": 16}
    page, _ = made(tmp_path, said)
    assert "The best voter that was asked about every row, sage , is right" in page.text
    for part in (
        "swift open rows only: 4 of 20",
        "Not shown: swift, asked about open rows only",
        "left open",
    ):
        assert part in page.text


def test_a_long_reason_is_not_cut(tmp_path: Path) -> None:
    said = agreement()
    why = " and ".join(f"voter number {at}" for at in range(8)) + " were asked elsewhere"
    said["agreement"] |= {"note": why, "alpha": {"value": None, "why": why}}
    page, _ = made(tmp_path, said)
    assert page.text.count(why) == 2


def test_what_agreement_is_to_be_read_with_is_said(tmp_path: Path) -> None:
    said = agreement()
    said["agreement"]["note"] = "it reads <lower> than it is"
    page, _ = made(tmp_path, said)
    assert "Mind that it reads <lower> than it is." in page.text


def test_no_key_of_the_settings_is_shown(tmp_path: Path) -> None:
    lane = {"model": "large", "api_key": "sk-1", "headers": {"x": "sk-2"}}
    _, html = made(tmp_path, agreement() | {"settings": {"judge": {"lane": lane}}})
    assert "sk-" not in html
    assert "large" in html


def test_the_package_brings_templates_style_and_script() -> None:
    """All files of a package go into the wheel but those that git ignores."""
    folder = files("batchllm.report.page") / "templates"
    assert {"page.html.j2", "page.css", "page.js"} <= {found.name for found in folder.iterdir()}


def test_an_engine_that_dies_costs_the_drawings_alone(tmp_path: Path) -> None:
    """With 8 GiB of addresses Python starts, and the engine that draws ends its process."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30));"
        "from batchllm.report.page.charts import Chart; from batchllm.report.page.svg import draw;"
        "print([d.trouble for d in draw([Chart('a', 'b', 'c', {'mark': 'bar', 'data': {'values': []}})])])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['the drawings could not be made here']"


def test_a_spec_that_is_wrong_costs_its_own_drawing_alone() -> None:
    good = {
        "data": {"values": [{"a": 1}]},
        "mark": "bar",
        "encoding": {"x": {"field": "a", "type": "quantitative"}},
    }
    first, second = draw([Chart("one", "One", "w", {"mark": 7}), Chart("two", "Two", "w", good)])
    assert (first.svg, first.trouble) == (None, "the drawings could not be made here")
    assert second.svg is not None
    assert 'aria-labelledby="chart-two-title chart-two-desc"' in second.svg


def test_what_dawid_and_skene_estimate_is_shown_in_either_model(tmp_path: Path) -> None:
    rates = {"swift": [[0.9, 0.1], [0.25, 0.75]]}
    told = {"labels": ["yes", "no"], "prior": [0.5, 0.5], "error_rates": rates, "accuracy": {"swift": 0.825}}
    page, _ = made(tmp_path, agreement() | {"dawid_skene": told})
    assert "swift against true label" in page.text
    assert "75" in page.text
    page, _ = made(
        tmp_path, agreement() | {"dawid_skene": told | {"error_rates": None, "why": "30 labels, few rows"}}
    )
    assert "swift 82.5 %" in page.text
    assert "30 labels, few rows" in page.text


def test_votes_that_were_there_already_have_no_cost(tmp_path: Path) -> None:
    """It was said that a lane has no known price, where no lane was asked."""
    said = agreement() | {"calls": None, "cost": {"usd": None, "per_decided_usd": None}}
    page, _ = made(tmp_path, said)
    assert "Cost of an agreed row" not in page.text
    assert "set its price" not in page.text


def test_labels_that_differ_in_space_alone_can_be_told_apart_in_a_matrix(tmp_path: Path) -> None:
    page, _ = made(tmp_path, agreement(labels=("yes", "yes ")))
    assert "yes␣" in page.text
