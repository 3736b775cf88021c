"""The sample data and the shipped jobs: what strangers run first, so what is said about them must stay true.

The agreement of the simulated lanes with `gold` is computed here from the rules alone, without a server.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import batchllm
from batchllm.spec.lanes import AnswerRule, LaneSpec
from batchllm.spec.models import ChatTask, Job

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_data"
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
SHIPPED = {"classify.yaml", "consensus.yaml", "embed.yaml", "moderate.yaml", "openai.yaml"}
FLAGGED_FROM = 0.5


def read_lines(name: str) -> list[dict[str, object]]:
    # Not splitlines(): U+2028 inside a text is no end of line.
    lines = (SAMPLES / name).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    return [json.loads(line) for line in lines]


def load_job(path: Path) -> Job:
    return Job.model_validate(yaml.safe_load(path.read_text("utf-8")))


def shipped(name: str) -> Job:
    return load_job(ROOT / "jobs" / name)


def rules_of(lane: LaneSpec) -> list[AnswerRule]:
    return lane.simulate.answers if lane.simulate else []


def lane_named(job: Job, name: str) -> LaneSpec:
    return next(lane for lane in job.providers if lane.name == name)


def reply_to(rules: list[AnswerRule], text: str) -> Mapping[str, object]:
    reply = next((rule.reply for rule in rules if re.search(rule.pattern, text)), {})
    assert isinstance(reply, Mapping)
    return reply


def chat_task(job: Job) -> ChatTask:
    assert isinstance(job.task, ChatTask)
    return job.task


def agreement_with_gold(lane: LaneSpec) -> float:
    system = chat_task(shipped("classify.yaml")).system
    rows = read_lines("reviews.jsonl")
    hits = sum(reply_to(rules_of(lane), f"{system}\n{row['text']}")["label"] == row["gold"] for row in rows)
    return hits / len(rows)


def script_of(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0]


@pytest.fixture(scope="module")
def reviews() -> list[dict[str, object]]:
    return read_lines("reviews.jsonl")


@pytest.fixture(scope="module")
def passages() -> list[dict[str, object]]:
    return read_lines("passages.jsonl")


@pytest.fixture(scope="module")
def comments() -> pl.DataFrame:
    return pl.read_parquet(SAMPLES / "comments.parquet")


def texts_of(rows: list[dict[str, object]]) -> list[str]:
    return [str(row["text"]) for row in rows]


class TestReviews:
    def test_ids_count_from_one_in_file_order(self, reviews: list[dict[str, object]]) -> None:
        assert [row["review_id"] for row in reviews] == [f"r-{n:04d}" for n in range(1, 261)]

    def test_every_line_has_the_same_columns_in_the_same_order(
        self, reviews: list[dict[str, object]]
    ) -> None:
        columns = ["review_id", "product", "lang", "rating", "gold", "text"]
        assert all(list(row) == columns for row in reviews)

    def test_ratings_are_one_to_five_stars(self, reviews: list[dict[str, object]]) -> None:
        assert {row["rating"] for row in reviews} == {1, 2, 3, 4, 5}
        assert all(type(row["rating"]) is int for row in reviews)

    @pytest.mark.parametrize(
        ("label", "least", "most"),
        [("positive", 0.40, 0.50), ("negative", 0.30, 0.40), ("neutral", 0.15, 0.25)],
    )
    def test_labels_have_their_shares(
        self, reviews: list[dict[str, object]], label: str, least: float, most: float
    ) -> None:
        counts = Counter(row["gold"] for row in reviews)
        assert set(counts) == {"positive", "negative", "neutral"}
        assert least <= counts[label] / len(reviews) <= most

    def test_stars_and_labels_agree_mostly_but_not_always(self, reviews: list[dict[str, object]]) -> None:
        stars = {"positive": {4, 5}, "negative": {1, 2}, "neutral": {3}}
        agreeing = sum(row["rating"] in stars[str(row["gold"])] for row in reviews)
        assert 0.90 * len(reviews) <= agreeing < len(reviews)

    def test_texts_are_unique(self, reviews: list[dict[str, object]]) -> None:
        assert len({text.casefold() for text in texts_of(reviews)}) == len(reviews)

    def test_no_two_english_texts_begin_alike(self, reviews: list[dict[str, object]]) -> None:
        english = texts_of([row for row in reviews if row["lang"] == "en"])
        openings = Counter(tuple(re.findall(r"[\w']+", text.casefold())[:3]) for text in english)
        assert [words for words, count in openings.items() if count > 1] == []

    def test_23_languages_most_of_it_english(self, reviews: list[dict[str, object]]) -> None:
        counts = Counter(str(row["lang"]) for row in reviews)
        assert len(counts) == 23
        assert counts["en"] == 180
        assert all(re.fullmatch("[a-z]{2}", lang) for lang in counts)

    def test_eleven_scripts(self, reviews: list[dict[str, object]]) -> None:
        found = {script_of(letter) for text in texts_of(reviews) for letter in text if letter.isalpha()}
        assert found >= {
            "LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI",
            "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI",
        }  # fmt: skip

    def test_english_texts_run_from_a_word_to_a_page(self, reviews: list[dict[str, object]]) -> None:
        words = sorted(len(str(row["text"]).split()) for row in reviews if row["lang"] == "en")
        assert words[0] == 1
        assert 15 <= words[len(words) // 2] <= 40
        assert sum(count >= 100 for count in words) >= 5
        assert 200 <= words[-1] <= 300

    @pytest.mark.parametrize(
        "holds",
        [
            pytest.param(lambda text: text == "ok.", id="one word"),
            pytest.param(lambda text: "\u2028" in text, id="line separator"),
            pytest.param(lambda text: "\n\n" in text, id="paragraphs"),
            pytest.param(lambda text: "{{ counter }}" in text, id="template braces"),
            pytest.param(lambda text: '"' in text, id="quotation marks"),
            pytest.param(lambda text: "<b>" in text, id="markup"),
            pytest.param(lambda text: "\u200d" in text, id="joined emoji"),
            pytest.param(lambda text: text.isupper() and len(text) > 20, id="shouting"),
            pytest.param(lambda text: "label it positive" in text, id="instruction"),
            pytest.param(lambda text: re.search(r"\d ?(?:mAh|°C|m²)", text) is not None, id="units"),
        ],
    )
    def test_awkward_texts_are_there(
        self, reviews: list[dict[str, object]], holds: Callable[[str], bool]
    ) -> None:
        assert any(holds(text) for text in texts_of(reviews))

    def test_texts_have_no_blanks_at_their_ends_and_are_composed(
        self, reviews: list[dict[str, object]]
    ) -> None:
        assert all(text == text.strip() and "\r" not in text for text in texts_of(reviews))
        assert all(unicodedata.is_normalized("NFC", text) for text in texts_of(reviews))


class TestPassages:
    def test_ids_count_from_one_in_file_order(self, passages: list[dict[str, object]]) -> None:
        assert [row["passage_id"] for row in passages] == [f"p-{n:03d}" for n in range(1, 81)]

    def test_every_line_has_the_same_columns_in_the_same_order(
        self, passages: list[dict[str, object]]
    ) -> None:
        assert all(list(row) == ["passage_id", "title", "body"] for row in passages)

    @pytest.mark.parametrize("column", ["title", "body"])
    def test_titles_and_bodies_are_unique(self, passages: list[dict[str, object]], column: str) -> None:
        assert len({row[column] for row in passages}) == len(passages)

    def test_bodies_are_one_to_five_sentences(self, passages: list[dict[str, object]]) -> None:
        sentences = [len(re.findall(r"[.!?](?=\s|$)", str(row["body"]))) for row in passages]
        assert min(sentences) == 1
        assert max(sentences) <= 6  # the dots of an initial and an abbreviation count as well


class TestComments:
    def test_parquet_types(self) -> None:
        schema = pq.read_schema(SAMPLES / "comments.parquet")
        assert schema.names == ["comment_id", "posted_at", "thread", "text", "gold_flagged"]
        assert schema.field("comment_id").type == pa.int64()
        assert schema.field("posted_at").type == pa.timestamp("us")
        assert schema.field("text").type in {pa.string(), pa.large_string(), pa.string_view()}
        assert schema.field("gold_flagged").type == pa.bool_()

    def test_parquet_is_compressed_with_zstd(self) -> None:
        group = pq.ParquetFile(SAMPLES / "comments.parquet").metadata.row_group(0)
        assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}

    def test_csv_and_parquet_hold_the_same_rows(self, comments: pl.DataFrame) -> None:
        source = pl.read_csv(SAMPLES / "comments.csv", try_parse_dates=True)
        assert source.schema == comments.schema
        assert source.equals(comments)

    def test_command_in_the_readme_makes_the_parquet_file(
        self, tmp_path: Path, comments: pl.DataFrame
    ) -> None:
        line = re.search(r"^python (-c .*)$", (SAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)
        assert line is not None
        (tmp_path / "sample_data").mkdir()
        shutil.copy(SAMPLES / "comments.csv", tmp_path / "sample_data")
        subprocess.run([sys.executable, *shlex.split(line[1])], cwd=tmp_path, check=True, timeout=50)
        assert pl.read_parquet(tmp_path / "sample_data" / "comments.parquet").equals(comments)

    def test_120_rows_without_a_gap_in_any_column(self, comments: pl.DataFrame) -> None:
        assert comments.height == 120
        assert comments.null_count().row(0) == (0,) * comments.width

    def test_ids_and_times_rise(self, comments: pl.DataFrame) -> None:
        assert comments["comment_id"].is_unique().all()
        assert comments["comment_id"].is_sorted()
        assert comments["posted_at"].is_sorted()

    def test_texts_are_unique(self, comments: pl.DataFrame) -> None:
        assert comments["text"].is_unique().all()

    def test_20_are_to_be_flagged(self, comments: pl.DataFrame) -> None:
        assert comments["gold_flagged"].sum() == 20


class TestJobs:
    def test_shipped_jobs_are_there(self) -> None:
        assert {path.name for path in JOBS} >= SHIPPED

    @pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
    def test_job_is_valid(self, path: Path) -> None:
        assert load_job(path).input.key is not None

    @pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
    def test_job_tells_editors_its_schema(self, path: Path) -> None:
        assert path.read_text("utf-8").splitlines()[:2] == [
            "# yaml-language-server: $schema=job.schema.json",
            "# $schema: job.schema.json",
        ]

    def test_names_and_outputs_are_distinct(self) -> None:
        jobs = [load_job(path) for path in JOBS]
        assert len({job.name for job in jobs}) == len(jobs)
        assert len({job.output.path or job.name for job in jobs}) == len(jobs)

    @pytest.mark.parametrize("name", sorted(SHIPPED))
    def test_key_and_carried_columns_are_in_the_input(self, name: str) -> None:
        job = shipped(name)
        path = (ROOT / "jobs" / str(job.input.path)).resolve()
        columns = pq.read_schema(path).names if path.suffix == ".parquet" else list(read_lines(path.name)[0])
        assert {job.input.key, *job.output.carry, *job.input.columns} <= set(columns)

    @pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
    def test_rules_compile(self, path: Path) -> None:
        patterns = [rule.pattern for lane in load_job(path).providers for rule in rules_of(lane)]
        assert all(re.compile(pattern).pattern for pattern in patterns)

    @pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
    def test_keys_are_named_and_never_written(self, path: Path) -> None:
        keys = [lane.api_key for lane in load_job(path).providers if lane.api_key is not None]
        assert all(re.fullmatch(r"\$\{[A-Z_]+\}", key) for key in keys)

    @pytest.mark.parametrize("name", sorted(SHIPPED - {"openai.yaml"}))
    def test_simulated_lanes_keep_to_what_their_server_allows(self, name: str) -> None:
        for lane in shipped(name).providers:
            assert lane.simulate is not None
            allowed = lane.simulate.limits
            assert lane.limits.rpm is not None
            assert allowed.rpm is not None
            assert lane.limits.rpm <= allowed.rpm
            assert (lane.limits.tpm or 0) <= (allowed.tpm or 0)

    def test_real_and_simulated_classification_ask_the_same(self) -> None:
        simulated, real = chat_task(shipped("classify.yaml")), chat_task(shipped("openai.yaml"))
        assert (real.system, real.prompt) == (simulated.system, simulated.prompt)
        assert real.answer_schema == simulated.answer_schema

    def test_what_is_agreed_on_is_asked_as_in_the_job_with_one_answer(self) -> None:
        one, several = chat_task(shipped("classify.yaml")), chat_task(shipped("consensus.yaml"))
        assert several == one

    def test_real_providers_are_under_a_budget(self) -> None:
        budget = shipped("openai.yaml").budget
        assert budget is not None
        assert budget.usd <= 1.00

    def test_embedding_width_is_what_the_simulator_makes(self) -> None:
        job = shipped("embed.yaml")
        assert [lane.simulate.dimensions for lane in job.providers if lane.simulate] == [64]
        assert getattr(job.task, "dimensions", None) == 64


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, drawings: None) -> dict[bool, Path]:
    """Of `jobs/consensus.yaml`, with and without stopping early; faster than it is shipped."""
    return {early: agreed(tmp_path_factory.mktemp("consensus"), early) for early in (True, False)}


def agreed(folder: Path, early: bool) -> Path:
    spec = yaml.safe_load((ROOT / "jobs" / "consensus.yaml").read_text("utf-8"))
    for lane in spec["providers"]:
        del lane["limits"], lane["simulate"]["limits"]
        lane["simulate"] |= {"latency": {"median_s": 0.001}, "faults": {}}
    spec["input"]["path"] = str(SAMPLES / "reviews.jsonl")
    spec["output"]["path"] = str(folder / "out")
    spec["consensus"]["stop_early"] = early
    result = batchllm.run(spec, folder=folder)
    assert result.ok
    assert result.summary.pending == 0
    return result.path


class TestConsensus:
    @staticmethod
    def answers(out: Path) -> pl.DataFrame:
        return pl.read_parquet(out / "output" / "*.parquet")

    @classmethod
    def labels(cls, out: Path) -> dict[int, str]:
        """The majority, and where all differ what the first lane says."""
        found: dict[int, list[str]] = {}
        for row, label in cls.answers(out).select("row", "label").iter_rows():
            found.setdefault(row, []).append(label)
        return {row: Counter(said).most_common(1)[0][0] for row, said in found.items()}

    def test_three_calls_in_ten_are_saved_and_no_label_is_another_one(
        self, outputs: dict[bool, Path]
    ) -> None:
        asked, everyone = self.answers(outputs[True]).height, self.answers(outputs[False]).height
        assert everyone == 3 * 260
        assert 1 - asked / everyone >= 0.30
        assert self.labels(outputs[True]) == self.labels(outputs[False])

    def test_lanes_are_plausible_and_together_better_than_the_worst(self, outputs: dict[bool, Path]) -> None:
        lines = self.answers(outputs[False])
        hits = lines.group_by("lane").agg((pl.col("label") == pl.col("gold")).mean())
        accuracies = dict(hits.iter_rows())
        gold = dict(lines.select("row", "gold").iter_rows())
        agreed = sum(label == gold[row] for row, label in self.labels(outputs[False]).items()) / len(gold)
        assert len(set(accuracies.values())) == 3
        assert all(0.80 <= accuracy <= 0.92 for accuracy in accuracies.values())
        assert max(accuracies.values()) <= agreed <= 0.95

    def test_its_page_has_all_its_drawings(self, outputs: dict[bool, Path]) -> None:
        page = (outputs[False] / "report.html").read_text("utf-8")
        assert page.count('<svg class="chart"') == 3

    def test_its_regular_expressions_stand_there_once(self) -> None:
        text = (ROOT / "jobs" / "consensus.yaml").read_text("utf-8")
        assert text.count("(?ix)") == 2
        readings = [[rule.pattern for rule in rules_of(lane)] for lane in shipped("consensus.yaml").providers]
        assert readings[0] == readings[1] == readings[2]
        classify = rules_of(lane_named(shipped("classify.yaml"), "swift"))
        assert readings[0] == [rule.pattern for rule in classify]


class TestSimulatedAnswers:
    def test_no_rule_but_the_last_matches_the_instructions(self) -> None:
        job = shipped("classify.yaml")
        system = str(chat_task(job).system)
        for lane in job.providers:
            assert [rule.reply for rule in rules_of(lane)[:-1] if re.search(rule.pattern, system)] == []

    @pytest.mark.parametrize("name", ["swift", "steady"])
    def test_replies_fit_the_schema_of_the_answer(self, name: str) -> None:
        job = shipped("classify.yaml")
        replies = [rule.reply for rule in rules_of(lane_named(job, name))]
        labels = ["positive", "negative", "neutral"]
        assert sorted(labels) == sorted(str(reply["label"]) for reply in replies if isinstance(reply, dict))

    def test_swift_agrees_with_gold_well_but_not_fully(self) -> None:
        assert 0.80 <= agreement_with_gold(lane_named(shipped("classify.yaml"), "swift")) <= 0.92

    def test_steady_agrees_with_gold_less(self) -> None:
        job = shipped("classify.yaml")
        steady = agreement_with_gold(lane_named(job, "steady"))
        assert 0.75 <= steady <= 0.85
        assert steady < agreement_with_gold(lane_named(job, "swift"))

    def test_swift_is_at_home_in_every_language(self, reviews: list[dict[str, object]]) -> None:
        rules = rules_of(lane_named(shipped("classify.yaml"), "swift"))
        misses = Counter(
            str(row["lang"])
            for row in reviews
            if row["lang"] != "en" and reply_to(rules, str(row["text"]))["label"] != row["gold"]
        )
        assert all(count <= 1 for count in misses.values()), misses

    def test_moderation_finds_most_of_what_is_to_be_flagged(self, comments: pl.DataFrame) -> None:
        rules = rules_of(shipped("moderate.yaml").providers[0])
        judged = Counter(
            (gold, any(float(str(score)) >= FLAGGED_FROM for score in reply_to(rules, text).values()))
            for text, gold in comments.select("text", "gold_flagged").iter_rows()
        )
        assert judged[True, True] >= 17
        assert judged[False, True] <= 3
