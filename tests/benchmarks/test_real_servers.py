"""Servers that nobody here wrote: how they are started, asked and judged; and those that are installed, themselves.

`BATCHLLM_SERVERS` names the folder of environments that `python -m benchmarks.real_servers --environments` made.
Nothing is installed here.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from benchmarks.harness import Ended
from benchmarks.real_servers.__main__ import Bench, measure
from benchmarks.real_servers.asked import OK, TASKS, ask, verdict
from benchmarks.real_servers.catalogue import SERVERS, Offer, Place, Server
from benchmarks.real_servers.environments import (
    Packages,
    install,
    is_installed,
    version,
)
from benchmarks.real_servers.running import running
from benchmarks.servers import ServerError, free_port, limited_server

VARIABLE = "BATCHLLM_SERVERS"
ENDED = Ended(0, None, "", "")


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with limited_server() as url:
        yield url


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("key", SERVERS)
def test_an_installed_server_is_asked_every_task_that_it_offers(
    key: str, upstream: str, tmp_path: Path
) -> None:
    server = SERVERS[key]
    environments = Path(os.environ.get(VARIABLE, tmp_path))
    if not is_installed(server.packages, environments):
        pytest.skip(f"{server.shown} is not installed in {VARIABLE}")
    line = measure(key, server, Bench(environments, tmp_path, upstream, rows=2))
    assert line.get("problem") is None
    assert {name: line[name] for name in server.offers} == dict.fromkeys(server.offers, OK)


@pytest.mark.parametrize("key", SERVERS)
def test_a_server_offers_tasks_that_are_asked(key: str) -> None:
    assert SERVERS[key].offers
    assert SERVERS[key].offers.keys() <= TASKS.keys()


@pytest.mark.parametrize("packages", [Packages("a", pip=("x-y[z]==1.2",)), Packages("a", npm=("x-y",))])
def test_the_first_package_names_the_server(packages: Packages) -> None:
    assert packages.name == "x-y"


def test_the_scope_of_a_package_of_npm_is_part_of_its_name(tmp_path: Path) -> None:
    packages = Packages("a", npm=("@org/x@5",))
    assert packages.name == "@org/x"
    (tmp_path / "node_modules" / "@org" / "x").mkdir(parents=True)
    (tmp_path / "node_modules" / "@org" / "x" / "package.json").write_text('{"version": "5.1"}')
    assert version(packages, tmp_path) == "5.1"


def test_an_environment_that_is_there_is_used_again(tmp_path: Path) -> None:
    packages = Packages("a", pip=("absent-here",))
    assert not is_installed(packages, tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "installed").touch()
    assert install(packages, tmp_path) == tmp_path / "a"
    assert not list((tmp_path / "a" / "bin").glob("*"))


def test_what_cannot_be_installed_is_a_line_of_the_table(
    tmp_path: Path, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    server = Server("nobody", Packages("nobody", npm=("nobody",)), _python, {"chat": Offer("m")})
    line = measure("nobody", server, Bench(tmp_path, tmp_path / "runs", upstream, rows=2))
    assert line["problem"] == "not installed: there is no npm here"
    assert "chat" not in line


def _python(place: Place, *arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def place(folder: Path) -> Place:
    return Place(folder, folder, free_port(), "")


def server(*arguments: str) -> Server:
    return Server("test", Packages("test"), lambda where: _python(where, *arguments), {}, ready="/healthz")


def test_a_server_that_ends_at_its_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    words = "import sys; print('first'); sys.exit('the port is taken')"
    with (
        pytest.raises(ServerError, match=r"did not start \(1\): the port is taken"),
        running(server("-c", words), place(tmp_path)),
    ):
        pass


def test_a_server_that_cannot_be_prepared_is_told(tmp_path: Path) -> None:
    words = "import sys; sys.exit('no model')"
    failing = Server(
        "test",
        Packages("test"),
        _python,
        {},
        prepare=lambda where: [_python(where, "-c", words)],
    )
    with pytest.raises(ServerError, match="was not prepared: no model"), running(failing, place(tmp_path)):
        pass


def test_a_task_is_asked_of_a_running_server_and_judged(tmp_path: Path) -> None:
    where = place(tmp_path)
    simulator = server("-m", "batchllm", "simulate", "--port", str(where.port), "--quiet")
    with running(simulator, where) as base_url:
        assert base_url == f"{where.url}/v1"
        assert ask("schema", Offer("sim"), base_url, tmp_path / "good", 2) == OK
        wide = Offer("sim", {"dimensions": 4}, {"omit": ["dimensions"]})
        assert ask("embedding", wide, base_url, tmp_path / "bad", 2).startswith("FAILED (3): the vector has")
    with pytest.raises(OSError, match="refused"):
        __import__("socket").create_connection(("127.0.0.1", where.port))


@pytest.mark.parametrize(
    ("output", "tokens", "said"),
    [
        ({"content": ["a", "b"]}, [1, 2], OK),
        ({"content": ["a"]}, [1], "FAILED: 1 of 2 rows answered"),
        ({"content": ["a", None]}, [1, 2], "FAILED: content has nulls"),
        ({"content": ["a", "b"]}, [1, None], "FAILED: no usage recorded"),
    ],
)
def test_only_whole_outputs_with_their_usage_are_ok(
    tmp_path: Path, output: dict[str, list[object]], tokens: list[object], said: str
) -> None:
    for name, columns in {"output": output, "usage": {"prompt_tokens": tokens}}.items():
        (tmp_path / name).mkdir()
        pl.DataFrame(columns).write_parquet(tmp_path / name / "part-0.parquet")
    assert verdict(TASKS["chat"], ENDED, tmp_path, 2) == said


def test_a_run_that_failed_is_told_with_its_exit_code_and_the_first_row_s_reason(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    pl.DataFrame({"message": ["no such model"]}).write_parquet(tmp_path / "failures" / "part-0.parquet")
    failed = Ended(3, None, "", "3 rows failed")
    assert verdict(TASKS["chat"], failed, tmp_path, 2) == "FAILED (3): no such model"
    assert verdict(TASKS["chat"], failed, tmp_path / "none", 2) == "FAILED (3): 3 rows failed"
    assert verdict(TASKS["chat"], Ended(None, None, "", ""), tmp_path, 2) == "FAILED: no end within 300 s"


def test_the_configuration_of_litellm_has_each_model_that_is_asked(tmp_path: Path) -> None:
    where = place(tmp_path)
    config = json.loads(SERVERS["litellm"].files(where)["config.yaml"])
    names = {model["model_name"] for model in config["model_list"]}
    for key in ("litellm", "litellm-mock"):
        assert {offer.model for offer in SERVERS[key].offers.values()} <= names


def test_prism_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="BATCHLLM_OPENAPI"):
        SERVERS["prism"].files(place(tmp_path))
