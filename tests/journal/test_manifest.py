import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from batchllm.errors import ChangedJobError, StorageError
from batchllm.journal.files import Layout
from batchllm.journal.manifest import Manifest, PartEntry, instant, read_manifest, write_manifest
from batchllm.records import LaneInfo

MANIFEST = Manifest(
    job_name="job",
    version="0.1.0",
    complete=True,
    simulated=False,
    slots=1,
    rows=3,
    ok=2,
    failed=1,
    pending=0,
    attempts=4,
    uncertain=1,
    prompt_tokens=30,
    completion_tokens=20,
    cost_usd=0.5,
    fingerprint="f",
    sections={"task": "t"},
    input_digest="d",
    lanes=(LaneInfo("a", "openai", "m", False),),
    parts={
        "output": (PartEntry("output/part-1.parquet", 2, 100, "00"),),
        "failures": (),
        "usage": (),
        "skipped": (),
    },
    created="2023-11-14T22:13:20.250Z",
    updated="2023-11-14T22:13:20.250Z",
)


@pytest.fixture
def layout(tmp_path):
    (tmp_path / ".batchllm").mkdir()
    return Layout(tmp_path)


@pytest.mark.parametrize(
    "manifest", [MANIFEST, replace(MANIFEST, rows=None, pending=None, cost_usd=None, input_digest=None)]
)
def test_a_manifest_reads_back_as_it_was_written(layout, manifest):
    write_manifest(layout, manifest)
    assert read_manifest(layout.out) == manifest
    assert list(layout.state.iterdir()) == []


def test_the_file_groups_counts_and_tokens(layout):
    write_manifest(layout, MANIFEST)
    said = orjson.loads(layout.manifest.read_bytes())
    assert said["counts"] == {
        "rows": 3, "ok": 2, "failed": 1, "skipped": 0, "pending": 0, "attempts": 4, "uncertain": 1
    }  # fmt: skip
    assert said["tokens"] == {"prompt": 30, "completion": 20}
    assert said["format"] == 1
    assert said["parts"]["output"] == [
        {"path": "output/part-1.parquet", "rows": 2, "bytes": 100, "sha256": "00"}
    ]


def test_without_a_manifest_there_is_none(tmp_path):
    assert read_manifest(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "path", ["output/../../precious", "../output/x.parquet", "usage/part-1.parquet", "/etc/passwd", "x"]
)
def test_a_part_outside_the_folder_of_its_table_is_no_part(layout, path):
    """A rebuild moves parts that it cannot use; what a hand has written there is not for it to move."""
    entry = PartEntry(path, 1, 2, "s")
    write_manifest(layout, replace(MANIFEST, parts={**MANIFEST.parts, "output": (entry,)}))
    with pytest.raises(StorageError, match="is no part of output"):
        read_manifest(layout.out)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "complete": 1}', "\x00\xff", '{"format": "x"}'],
)
def test_a_damaged_manifest_is_named_with_the_way_out(layout, text):
    layout.manifest.write_text(text)
    with pytest.raises(StorageError, match=r"manifest\.json is damaged") as caught:
        read_manifest(layout.out)
    assert "written anew from the journal" in caught.value.remedy


def test_a_manifest_of_a_newer_version_is_refused(layout):
    layout.manifest.write_text('{"format": 2}')
    with pytest.raises(ChangedJobError, match="has format 2"):
        read_manifest(layout.out)


def test_a_new_manifest_replaces_the_old_one_as_a_whole(layout):
    write_manifest(layout, MANIFEST)

    def dies(point):
        raise KeyboardInterrupt(point)

    with pytest.raises(KeyboardInterrupt, match="before_manifest"):
        write_manifest(layout, replace(MANIFEST, ok=3), dies)
    assert read_manifest(layout.out) == MANIFEST
    write_manifest(layout, replace(MANIFEST, ok=3))
    assert read_manifest(layout.out).ok == 3


def test_a_manifest_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        write_manifest(Layout(tmp_path / "missing"), MANIFEST)


def test_instants_are_utc_with_milliseconds():
    assert instant(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"


def test_reading_a_manifest_loads_nothing_heavy(layout):
    write_manifest(layout, MANIFEST)
    code = (
        "import sys; from pathlib import Path; from batchllm.journal import read_manifest\n"
        f"assert read_manifest(Path({str(layout.out)!r})).ok == 2\n"
        "print([name for name in ('pyarrow', 'polars', 'sqlite3', 'asyncio') if name in sys.modules])"
    )
    root = Path(__file__).parent.parent.parent
    seen = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
