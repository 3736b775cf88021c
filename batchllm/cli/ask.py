"""`batchllm ask PROMPT`: one question to one provider, its answer as it arrives."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from batchllm.cli.run import told_to_machines
from batchllm.errors import CredentialsError, InputDataError, RequestRefusedError

if TYPE_CHECKING:
    from batchllm.client import Client, TextAnswer
    from batchllm.provider.catalogue import Catalogue

#: What a terminal would obey; a model's text is anybody's text.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


@click.command("ask")
@click.argument("prompt")
@click.option("--provider", "-p", metavar="NAME", help="Default: the first whose key is set.")
@click.option("--model", "-m", metavar="MODEL", help="A model, or fast, balanced, powerful.")
@click.option("--system", "-s", metavar="TEXT", help="A system message.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="Such as temperature=0.")
@click.option("--base-url", metavar="URL", help="With --provider custom, or in place of the catalogue's.")
@click.option(
    "--key-env", metavar="NAME", help="The variable that holds the key, where it is not the usual one."
)
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: content, usage, cost, model.")
def ask_command(
    prompt: str,
    provider: str | None,
    model: str | None,
    system: str | None,
    params: tuple[str, ...],
    base_url: str | None,
    key_env: str | None,
    no_stream: bool,
    as_json: bool,
) -> None:
    """Ask one question; PROMPT `-` reads it from standard input.

    The answer goes to stdout as it arrives, everything else to stderr: which provider was chosen, and on a terminal
    tokens, cost and time.
    """
    text = _standard_input() if prompt == "-" else prompt
    if not text.strip():
        raise click.UsageError("the prompt is empty")
    given = parsed_params(params)
    config: dict[str, Any] = {} if base_url is None else {"base_url": base_url}
    if key_env is not None:
        config["api_key"] = f"${{{key_env}}}"
    with told_to_machines(as_json):
        from batchllm.client import connect
        from batchllm.provider.overlay import open_catalogue

        chosen = provider or first_with_key(open_catalogue(os.environ), os.environ)
        with connect(chosen, **config) as client:
            if provider is None and not as_json:
                _say(f"asking {chosen}, the first provider whose key is set; --provider names another")
            asked: dict[str, Any] = {"model": model, "system": system, **given}
            answer = _whole(client, text, asked) if as_json or no_stream else _arriving(client, text, asked)
            if as_json:
                _print_json(client.provider, answer)
            else:
                _conclude(client.provider, answer, streamed=not no_stream)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InputDataError(
            f"standard input is no UTF-8 text: {error.reason} at byte {error.start}",
            remedy="convert it first",
        ) from None


def parsed_params(params: tuple[str, ...]) -> dict[str, object]:
    """`temperature=0`, `stop=["a"]`, `response_format.type=json_object`. Raises click's UsageError."""
    from batchllm.spec.overrides import apply_overrides

    made = apply_overrides({}, params)
    if made.faults:
        fault = made.faults[0]
        raise click.UsageError(
            f"--param {fault.path}: {fault.message}" if fault.path else f"--param: {fault.message}"
        )
    return made.data


def first_with_key(catalogue: "Catalogue", environ: Mapping[str, str]) -> str:
    """In the catalogue's order. Raises CredentialsError."""
    able = [entry for entry in catalogue if entry.supports("chat") and entry.base_url and entry.env]
    for entry in able:
        if any(environ.get(name) for name in entry.env):
            return entry.name
    names = ", ".join(f"{entry.env[0]} ({entry.name})" for entry in able)
    raise CredentialsError(
        "no provider's key is set",
        remedy=f"set one of {names}; or name a --provider: simulator needs no key, custom takes any --base-url",
    )


def _arriving(client: "Client", text: str, asked: Mapping[str, Any]) -> "TextAnswer":
    last = ""
    with client.stream(text, **asked) as stream:
        try:
            for piece in stream:
                last = piece  # first, for Ctrl-C may come while it is written
                _write(piece)
        finally:
            if last and not last.endswith("\n"):
                _write("\n")
    return stream.answer


def _whole(client: "Client", text: str, asked: Mapping[str, Any]) -> "TextAnswer":
    answer: TextAnswer = client.chat(text, stream=False, **asked)
    return answer


def _write(text: str) -> None:
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _conclude(provider: str, answer: "TextAnswer", *, streamed: bool) -> None:
    if not streamed and answer.content:
        _write(answer.content if answer.content.endswith("\n") else answer.content + "\n")
    for call in answer.tool_calls:
        _write(f"{call.name} {call.arguments}\n")
    for note in answer.notes:
        _say(note)
    if sys.stderr.isatty():
        _say(usage_line(provider, answer))
    if answer.finish_reason == "length":
        _say("the answer was cut at the token limit: --param max_tokens=... raises it")
    if answer.refusal and not answer.content:
        raise RequestRefusedError(f"{provider}: the model refused: {answer.refusal[:300]}")


def usage_line(provider: str, answer: "TextAnswer") -> str:
    usage = answer.usage
    shown = [f"{_number(usage.prompt_tokens)} + {_number(usage.completion_tokens)} tokens"]
    if usage.reasoning_tokens:
        shown.append(f"{usage.reasoning_tokens:,} of them thought")
    shown.append("cost unknown" if answer.cost_usd is None else f"${answer.cost_usd:.6f}")
    return f"{provider} {answer.model or ''}: {', '.join(shown)}"


def _number(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"


def _print_json(provider: str, answer: "TextAnswer") -> None:
    import json

    said = {
        "provider": provider,
        "model": answer.model,
        "content": answer.content,
        "tool_calls": [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in answer.tool_calls
        ],
        "refusal": answer.refusal or None,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage._asdict(),
        "cost_usd": answer.cost_usd,
        "request_id": answer.request_id,
        "notes": list(answer.notes),
    }
    click.echo(json.dumps(said, ensure_ascii=False))


def _say(text: str) -> None:
    click.echo(f"batchllm: {text}", err=True)
