"""`batchllm simulate` as a process of its own: what it prints, how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
import yaml
from process_rig import Command, fork

from batchllm.cli.main import invoke
from batchllm.cli.simulate import simulate_command
from batchllm.simulate.schedule import schedule_faults
from batchllm.spec.lanes import LaneSpec, Simulation

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "simulator.md").read_text("utf-8")


def running(*options: str, environ: Mapping[str, str] | None = None) -> Command:
    return fork("simulate", "--port", "0", *options, environ=environ)


def url_of(line: str) -> str:
    return next(word for word in line.split() if word.startswith("http://"))


def ask(base_url: str, key: str = "", text: str = "hi") -> tuple[int, dict[str, object]]:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{base_url}/chat/completions", body, headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return response.status, orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, orjson.loads(error.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop_and_says_what_it_has_seen(number: signal.Signals) -> None:
    with running("--latency", "0", "--rpm", "60") as process:
        base_url = url_of(process.stdout.readline())
        assert [ask(base_url)[0] for _ in range(2)] == [200, 429]
        process.send_signal(number)
        assert process.wait() == 0
        assert process.stdout.read().startswith("stopped: 1 accepted, 1 refused, 0 rejected;")
        assert process.stderr.read() == ""


def test_a_stop_does_not_wait_for_stalled_requests() -> None:
    with running("--stall-rate", "1") as process:
        host, port = url_of(process.stdout.readline()).removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port))) as client:
            body = b'{"model": "m", "prompt": "x"}'
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                b"GET" % (len(body), body)
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0


def test_the_line_that_it_prints_is_a_lane_of_a_job() -> None:
    with running("--api-key-env", "SIMULATOR_KEY", environ={"SIMULATOR_KEY": "canary"}) as process:
        line = process.stdout.readline()
    lane = yaml.safe_load(line.partition("in a job: ")[2])
    assert lane == {
        "provider": "custom",
        "base_url": url_of(line),
        "model": "simulated",
        "api_key": "${SIMULATOR_KEY}",
    }
    assert "canary" not in line


def test_quiet_prints_the_address_only() -> None:
    with running("--quiet") as process:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()
        assert process.wait() == 0
        assert process.stdout.read() == ""


def test_the_key_is_asked_for() -> None:
    options = ("--api-key-env", "SIMULATOR_KEY", "--latency", "0")
    with running(*options, environ={"SIMULATOR_KEY": "canary"}) as process:
        base_url = url_of(process.stdout.readline())
        assert [ask(base_url)[0], ask(base_url, "canary")[0]] == [401, 200]


def test_options_win_over_the_file_and_the_ledger_is_written(tmp_path: Path) -> None:
    config = tmp_path / "simulation.yaml"
    config.write_text(
        "seed: 1\nlatency: {median_s: 0.0}\nfaults: {error_rate: 1.0}\nanswers: [{pattern: hi, reply: no}]\n"
    )
    ledger = tmp_path / "ledger.jsonl"
    options = ("--config", str(config), "--error-rate", "0", "--ledger", str(ledger), "--model", "m")
    with running(*options) as process:
        status, body = ask(url_of(process.stdout.readline()))
        assert status == 200
        assert body["choices"][0]["message"]["content"] == "no"
        assert orjson.loads(ledger.read_bytes())["text"] == "hi"


def test_a_server_is_told_how_to_enforce_and_what_to_tell(tmp_path: Path) -> None:
    config = tmp_path / "simulation.yaml"
    config.write_text("limits: {rpm: 60.0}\nschedule: [{at_s: 0.0, limits: {tpm: null}}]\n")
    options = [
        "--tpm",
        "1",
        "--latency",
        "0",
        "--headers",
        "none",
        "--retry-after",
        "none",
        "--counts-refused",
    ]
    options += ["--enforcement", "minute"]
    with running("--config", str(config), *options) as process:
        base_url = url_of(process.stdout.readline())
        assert [ask(base_url)[0] for _ in range(60)] == [200] * 60
        assert ask(base_url) == (429, {"error": {"message": "Too Many Requests"}})


def test_the_command_line_and_the_file_mean_the_same(tmp_path: Path) -> None:
    config = tmp_path / "simulation.yaml"
    config.write_text("seed: 9\nlatency: {median_s: 0.0}\n")
    texts = []
    for options in (("--config", str(config)), ("--seed", "9", "--latency", "0")):
        with running(*options) as process:
            texts.append(ask(url_of(process.stdout.readline()))[1]["choices"])
    assert texts[0] == texts[1]


def test_a_port_in_use_is_exit_code_69(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert invoke(["simulate", "--port", str(port)]) == 69
    assert f"Port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::"])  # noqa: S104 - refused
def test_an_address_that_others_reach_needs_to_be_asked_for(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["simulate", "--host", host]) == 2
    assert "--allow-remote" in capsys.readouterr().err


def test_every_fault_of_the_file_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "simulation.yaml"
    config.write_text(
        "seed: x\nlatency: {median_s: 1, p99_s: 0.5}\nfaults: {error_rte: 0.5}\n"
        "answers:\n  - {pattern: 'a(', reply: x}\n"
    )
    assert invoke(["simulate", "--config", str(config)]) == 78
    said = capsys.readouterr().err
    for line, path in ((1, "seed"), (2, "latency.p99_s"), (3, "faults.error_rte"), (5, "answers.0.pattern")):
        assert any(f"{config}:{line}:" in fault and f" {path}:" in fault for fault in said.splitlines()), said
    assert "providers" not in said


@pytest.mark.parametrize("text", ["", "- a", "5", "{", "seed: 1\nseed: 2"])
def test_a_file_that_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    config = tmp_path / "simulation.yaml"
    config.write_text(text)
    assert invoke(["simulate", "--config", str(config)]) == 78


def test_a_median_above_the_files_p99_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "simulation.yaml"
    config.write_text("latency: {median_s: 0.1, p99_s: 0.5}\n")
    assert invoke(["simulate", "--config", str(config), "--latency", "1"]) == 78
    assert "p99_s" in capsys.readouterr().err


def test_a_missing_file_is_exit_code_66(tmp_path: Path) -> None:
    assert invoke(["simulate", "--config", str(tmp_path / "missing.yaml")]) == 66
    assert invoke(["simulate", "--config", str(tmp_path)]) == 66


def test_a_variable_that_is_not_set_is_exit_code_77(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["simulate", "--api-key-env", "BATCHLLM_NO_SUCH_VARIABLE"]) == 77
    assert "export BATCHLLM_NO_SUCH_VARIABLE" in capsys.readouterr().err


def test_a_ledger_in_no_folder_is_exit_code_73(tmp_path: Path) -> None:
    assert invoke(["simulate", "--port", "0", "--ledger", str(tmp_path / "missing" / "ledger.jsonl")]) == 73


@pytest.mark.parametrize(
    "options",
    [
        ("--rpm", "0"),
        ("--tpm", "-1"),
        ("--concurrency", "0"),
        ("--error-rate", "1.5"),
        ("--latency", "-1"),
        ("--port", "70000"),
        ("--rpm", "nan"),
        ("--rpm", "inf"),
    ],
)
def test_an_option_out_of_range_is_refused(
    options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["simulate", "--port", "0", *options]) in (2, 78)
    assert "bug" not in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["simulate", "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--config", "--port", "--rpm", "--tpm", "--p99", "--ledger", "--allow-remote", "--model"):
        assert option in said


def test_the_guide_names_every_option() -> None:
    options = [name for option in simulate_command.params for name in option.opts if name.startswith("--")]
    assert [name for name in options if f"`{name}" not in GUIDE] == []


def test_the_lane_and_the_schedule_in_the_guide_are_valid() -> None:
    lane, clothed, changing = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert LaneSpec.model_validate(yaml.safe_load(clothed)[0]).simulate.profile == "groq"
    (lane,) = yaml.safe_load(lane)["providers"]
    assert LaneSpec.model_validate(lane).simulate.limits.rpm == 3000
    simulation = Simulation.model_validate(yaml.safe_load(changing))
    assert schedule_faults(simulation) == []
    assert [change.at_s for change in simulation.schedule] == [20, 40, 60]


def test_the_test_in_the_guide_passes(tmp_path: Path) -> None:
    """Run as a user would: in a file of its own."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "test_guide.py").write_text(next(block for block in blocks if "def test_" in block))
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_a_profile_is_worn_and_an_unknown_one_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running("--profile", "mistral", "--quiet") as process:
        assert process.stdout is not None
        base_url = url_of(process.stdout.readline())
        status, reply = ask(base_url)
        assert (status, "prompt_token_details" in str(reply["usage"])) == (200, True)
    assert invoke(["simulate", "--profile", "mistrl"]) == 2
    assert "Did you mean mistral?" in capsys.readouterr().err
