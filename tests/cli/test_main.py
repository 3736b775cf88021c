"""The command line as a process: exit codes, what is printed where, what is loaded."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_rig import BOUND_S, fork
from process_rig import called as batchllm

from batchllm.cli.main import invoke
from batchllm.errors import is_out_of_memory


def test_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    probe = (
        "import sys; from batchllm.cli.main import invoke; code = invoke(['--help']);"
        "heavy = {'pyarrow', 'polars', 'openai', 'aiohttp', 'pydantic', 'jinja2', 'tiktoken', 'rich', 'yaml',"
        " 'jsonschema_rs', 'genai_prices', 'tenacity', 'uvloop', 'sqlite3', 'orjson'}"
        " & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("run", "status", "providers", "schema", "simulate"):
        assert command in done.stdout


def test_the_collector_looks_seldom_from_the_start_of_a_command_and_not_at_its_end() -> None:
    probe = (
        "import atexit, gc, sys;"
        "atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000, file=sys.stderr));"
        "from batchllm.cli.main import main; main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "250000 True\n")


@pytest.mark.parametrize("command", ["run", "status", "providers", "schema", "simulate"])
def test_each_command_explains_itself(command: str) -> None:
    done = batchllm(command, "--help")
    assert done.returncode == 0
    assert "Usage: batchllm" in done.stdout


def test_a_mistyped_command_gets_the_nearest_one() -> None:
    done = batchllm("rnu")
    assert done.returncode == 2
    assert "'run'" in done.stderr


def test_version() -> None:
    done = batchllm("--version")
    assert done.returncode == 0
    assert "0.1.0" in done.stdout


def test_a_bad_job_ends_with_78_and_no_traceback(tmp_path: Path) -> None:
    job = tmp_path / "bad.yaml"
    job.write_text("name: x\ninput: {path: rows.jsonl}\ntask: {type: chatt, prompt: hi}\nproviders: []\n")
    done = batchllm("run", str(job))
    assert done.returncode == 78
    assert "bad.yaml:3" in done.stderr
    assert "did you mean chat" in done.stderr.replace("'", "").replace('"', "")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_missing_job_ends_with_66(tmp_path: Path) -> None:
    done = batchllm("run", str(tmp_path / "no.yaml"))
    assert done.returncode == 66
    assert "no.yaml" in done.stderr


def test_a_run_prints_one_line_without_a_terminal_and_json_for_machines(tmp_path: Path) -> None:
    import json

    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n')
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: tiny\ninput: {path: rows.jsonl, key: id}\ntask: {type: chat, prompt: '{{ text }}'}\n"
        "providers: [{provider: simulator, model: m, simulate: {latency: {median_s: 0.0}}}]\n"
    )
    done = batchllm("run", str(job))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "2 of 2 answered" in done.stdout
    again = batchllm("run", str(job), "--json")
    said = json.loads(again.stdout)
    assert (again.returncode, said["code"], said["rows"]["reused"], said["reason"]) == (
        0,
        0,
        2,
        "nothing to do",
    )
    page = batchllm("run", str(job), "-v")
    assert "read_parquet" in page.stdout
    left = (tmp_path / "out" / "tiny" / "summary.txt").read_text("utf-8")
    assert "2 of 2 answered" in left
    assert "read_parquet" in left
    assert "DuckDB" in left
    assert (tmp_path / "out" / "tiny" / "output").is_dir()


@pytest.fixture
def half_bad(tmp_path: Path) -> Path:
    """A job of which one row fails."""
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "x"}\nno JSON\n')
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: tiny\ninput: {path: rows.jsonl}\ntask: {type: chat, prompt: '{{ text }}'}\n"
        "providers: [{provider: simulator, model: m, simulate: {latency: {median_s: 0.0}}}]\n"
    )
    return job


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
@pytest.mark.parametrize("sink", ["/dev/full", "pipe"])
def test_a_reader_that_has_gone_does_not_change_the_exit_code(half_bad: Path, stream: str, sink: str) -> None:
    if sink == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(sink, os.O_WRONLY)
    streams = {name: writer for name in ("stdout", "stderr") if stream in (name, "both")}
    with fork("run", str(half_bad), "-v", **streams) as process:
        os.close(writer)
        assert process.wait(BOUND_S) == 3


def test_an_error_is_an_object_for_machines_too(tmp_path: Path) -> None:
    import json

    done = batchllm("run", "--json", str(tmp_path / "no.yaml"))
    said = json.loads(done.stdout)
    assert (done.returncode, said["type"], said["code"]) == (66, "exit", 66)
    assert "no.yaml" in said["reason"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        ImportError("x.so: failed to map segment from shared object"),
    ],
)
def test_want_of_memory_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def out_of_memory(*_given: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr("batchllm.spec.loading.load_any", out_of_memory)
    assert invoke(["run", "--json", "job.yaml"]) == 71
    printed = capsys.readouterr()
    assert printed.err.startswith(
        "batchllm: the system gives this process no more memory or threads\n  give it more"
    )
    assert json.loads(printed.out)["code"] == 71


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), RuntimeError("x"), ImportError("x")])
def test_what_is_no_want_of_memory_is_not_called_so(error: Exception) -> None:
    assert not is_out_of_memory(error)


def write_tiny(folder: Path) -> Path:
    (folder / "rows.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b"}\n')
    job = folder / "job.yaml"
    job.write_text(
        "name: tiny\ninput: {path: rows.jsonl, key: id}\ntask: {type: chat, prompt: '{{ text }}'}\n"
        "providers: [{provider: simulator, model: m, simulate: {latency: {median_s: 0.0}}}]\n"
    )
    return job


def test_failed_rows_are_said_on_stderr_with_their_class_and_place(tmp_path: Path) -> None:
    done = batchllm("run", str(write_tiny(tmp_path)))
    assert done.returncode == 3
    assert "1 row failed (1 template)" in done.stderr
    assert "row 1: task.prompt: the row has no column 'text' (its columns: id)" in done.stderr
    assert "failures" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_hurt_nothing(tmp_path: Path, closed: str) -> None:
    job = write_tiny(tmp_path)
    command = f"exec {sys.executable} -m batchllm run {job} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "out" / "tiny" / "manifest.json").exists()


def test_a_full_disk_behind_stdout_is_said(tmp_path: Path) -> None:
    with (
        Path("/dev/full").open("w", encoding="utf-8") as full,
        fork("schema", stdout=full.fileno()) as process,
    ):
        _, said = process.communicate(timeout=BOUND_S)
    assert process.returncode == 74
    assert "No space left" in said
    assert "Traceback" not in said
