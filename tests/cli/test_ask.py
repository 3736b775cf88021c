"""`batchllm ask` prints an answer and nothing else to stdout; its codes are a contract."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping

import pytest
from process_rig import BOUND_S, fork
from server_rig import USAGE, Say, chat_reply, chunk, refusal, scripted

from batchllm.cli.ask import first_with_key, parsed_params
from batchllm.cli.main import invoke
from batchllm.errors import CredentialsError
from batchllm.provider.catalogue import load_catalogue

WHOLE = Say(events=[chunk("a "), chunk("pear"), chunk(finish="stop"), USAGE, "[DONE]"])
KEY = "sk-canary-0123456789abcdef"
CATALOGUE = load_catalogue()


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in CATALOGUE:
        for name in entry.env:
            monkeypatch.delenv(name, raising=False)


def at(url: str, *more: str) -> list[str]:
    return ["ask", "--provider", "custom", "--base-url", url, "--model", "m", *more]


def program(*args: str) -> list[str]:
    return [sys.executable, "-m", "batchllm", *args]


def test_the_answer_and_nothing_else_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(WHOLE) as server:
        code = invoke(
            at(server.base_url, "--system", "Be brief.", "--param", "temperature=0", "Name a fruit.")
        )
    out, err = capsys.readouterr()
    assert (code, out, err) == (0, "a pear\n", "")
    assert server.bodies()[0] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Name a fruit."},
        ],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_whole_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(Say(body=chat_reply("a pear"))) as server:
        assert invoke(at(server.base_url, "--no-stream", "x")) == 0
        assert capsys.readouterr().out == "a pear\n"
        assert invoke(at(server.base_url, "--json", "x")) == 0
        said = json.loads(capsys.readouterr().out)
    assert (said["content"], said["usage"]["prompt_tokens"], said["cost_usd"]) == ("a pear", 10, None)
    assert "stream" not in server.bodies()[0]


def test_what_the_model_wants_called_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"id":5}'}}
    with scripted(Say(body=chat_reply(None, tool_calls=[call]))) as server:
        assert invoke(at(server.base_url, "--no-stream", "x")) == 0
    assert capsys.readouterr().out == 'look_up {"id":5}\n'


@pytest.mark.parametrize(
    ("say", "code", "said"),
    [
        (Say(401, refusal("bad", code="invalid_api_key")), 77, "no key was sent"),
        (Say(404, refusal("The model does not exist", code="model_not_found")), 69, "asked: m"),
        (Say(400, refusal("bad field")), 65, "bad field"),
        (Say(body=chat_reply(None, refusal="no")), 65, "the model refused: no"),
        (Say(307, {}, {"location": "/"}), 69, "redirects"),
    ],
)
def test_failures_have_their_codes(
    say: Say, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(say) as server:
        assert invoke(at(server.base_url, "x")) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_failure_is_told_to_machines_too(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(Say(401, refusal("bad", code="invalid_api_key"))) as server:
        assert invoke(at(server.base_url, "--json", "x")) == 77
    assert json.loads(capsys.readouterr().out)["code"] == 77


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["ask", ""], 2, "empty"),
        (["ask", "--param", "temperature", "x"], 2, "has no ="),
        (["ask", "--provider", "grok", "x"], 78, "did you mean"),
        (["ask", "--provider", "simulator", "--param", "temprature=1", "x"], 78, "temperature"),
        (["ask", "--provider", "openai", "--key-env", "NOT_SET", "x"], 77, "export NOT_SET="),
        (["ask", "--provider", "custom", "x"], 78, "base_url"),
        (["ask", "x"], 77, "OPENAI_API_KEY (openai)"),
    ],
)
def test_a_wrong_command_names_the_remedy(
    args: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(args) == code
    assert said in capsys.readouterr().err


def test_the_first_provider_whose_key_is_set_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    environ: Mapping[str, str] = {"MISTRAL_API_KEY": "k", "GROQ_API_KEY": "k", "PERPLEXITY_API_KEY": "k"}
    assert first_with_key(CATALOGUE, environ) == "perplexity"
    assert first_with_key(CATALOGUE, {"PERPLEXITY_API_KEY": "k", "OPENAI_API_KEY": ""}) == "perplexity"
    with pytest.raises(CredentialsError):
        first_with_key(CATALOGUE, {"OPENAI_API_KEY": ""})


def test_parameters_are_read_as_values() -> None:
    params = parsed_params(
        ("temperature=0.5", "max_tokens=5", 'stop=["a"]', "response_format.type=json_object", "user=me")
    )
    assert params == {
        "temperature": 0.5,
        "max_tokens": 5,
        "stop": ["a"],
        "response_format": {"type": "json_object"},
        "user": "me",
    }


def test_what_is_no_text_on_stdin_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    assert invoke(["ask", "--provider", "simulator", "-"]) == 65
    assert "no UTF-8" in capsys.readouterr().err


def test_ctrl_c_ends_it_with_130_and_what_has_arrived_stays() -> None:
    with scripted(Say(events=[chunk("a "), "wait"])) as server:
        with fork(*at(server.base_url, "x")) as asking:
            assert asking.stdout.read(2) == "a "
            asking.send_signal(signal.SIGINT)
            out, err = asking.communicate(timeout=BOUND_S)
        assert server.gone.wait(5)
    assert asking.returncode == 130, err
    assert (out, err.strip()) == ("\n", "batchllm: interrupted")


def test_a_reader_that_leaves_is_no_error() -> None:
    with scripted(Say(events=[*[chunk("word " * 2000)] * 40, chunk(finish="stop")])) as server:
        command = " ".join(program(*at(server.base_url, "x"))) + " | head -c 5"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=50, check=False
        )
    assert done.stdout == "word "
    assert done.stderr == ""


def test_a_terminal_gets_no_control_characters_and_a_line_of_usage() -> None:
    """The prompt comes from stdin, the key from a variable of one's own."""
    with scripted(Say(events=[chunk("a\x1b[31m pear"), chunk(finish="stop"), USAGE, "[DONE]"])) as server:
        leader, follower = pty.openpty()
        asking = subprocess.Popen(
            program(*at(server.base_url, "--key-env", "MY_KEY", "-")),
            env={**os.environ, "MY_KEY": KEY},
            stdin=subprocess.PIPE,
            stdout=follower,
            stderr=follower,
        )
        asking.communicate(b"Name a fruit.", timeout=50)
        os.close(follower)
        text = os.read(leader, 65536).decode()
        os.close(leader)
    assert asking.returncode == 0
    assert "\x1b" not in text
    assert "a\\x1b[31m pear\r\n" in text
    assert "custom m-2026: 10 + 2 tokens, cost unknown" in text
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.bodies()[0]["messages"] == [{"role": "user", "content": "Name a fruit."}]
