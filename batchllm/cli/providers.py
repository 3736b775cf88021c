"""`batchllm providers`: what is known of each provider, how sure that is, and where it comes from.

On a terminal the table is folded to its width; elsewhere each provider is one line and nothing is cut, so that
grep, awk and a pager see everything.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from batchllm.errors import BatchllmError, ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from batchllm.provider.catalogue import Catalogue, EmbeddingModel, ProviderEntry, TaskKind

#: One labelled line of an entry's description.
Line = tuple[str, str]


class UnknownProviderError(BatchllmError):
    exit_code = ExitCode.CONFIG


@click.command("providers")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For machines: everything, as JSON.")
def providers_command(name: str | None, as_json: bool) -> None:
    """List the providers that are known by name, or describe one of them.

    A job may name any other OpenAI-compatible server with `provider: custom` and its base_url. What stands in
    ~/.config/batchllm/providers.toml (or the file that BATCHLLM_PROVIDERS names) is laid over the shipped list.
    """
    from batchllm.provider.catalogue import NotFound
    from batchllm.provider.overlay import open_catalogue

    catalogue = open_catalogue(os.environ)
    try:
        entry = catalogue.get(name) if name is not None else None
    except NotFound as error:
        raise unknown(error.name, error.nearest, catalogue.names) from error
    if as_json:
        click.echo(as_text(catalogue, entry, os.environ))
    elif sys.stdout.isatty():
        _show(overview(catalogue, os.environ) if entry is None else details(entry, os.environ))
    elif entry is None:
        click.echo("\n".join(plain_overview(catalogue, os.environ)))
    else:
        click.echo("\n".join(f"{label}: {text}" for label, text in describe(entry, os.environ)))


def unknown(name: str, nearest: list[str], names: tuple[str, ...]) -> UnknownProviderError:
    meant = f"Did you mean {' or '.join(nearest)}?" if nearest else f"Known are {', '.join(names)}."
    return UnknownProviderError(
        f"no provider is called {name!r}",
        remedy=f"{meant} Any other OpenAI-compatible server works with provider: custom and its base_url.",
    )


def as_text(catalogue: "Catalogue", entry: "ProviderEntry | None", environ: Mapping[str, str]) -> str:
    """JSON: one object, or a list of them; keys are never in it, only whether one is set."""
    chosen = [entry] if entry else list(catalogue)
    values = [{**asdict(one), "key_is_set": _key_set(one, environ) is not None} for one in chosen]
    return json.dumps(values[0] if entry else values, indent=2, ensure_ascii=False, default=str)


def plain_overview(catalogue: "Catalogue", environ: Mapping[str, str]) -> Iterator[str]:
    """One line a provider, in columns."""
    heads = ("name", "base_url", "key", "key_set", "endpoints", "fast", "balanced", "powerful")
    rows = [heads, *(_plain_row(entry, environ) for entry in catalogue)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _plain_row(entry: "ProviderEntry", environ: Mapping[str, str]) -> tuple[str, ...]:
    chat = entry.tiers.get("chat", {})
    return (
        entry.name,
        entry.base_url or "-",
        entry.env[0] if entry.env else "-",
        "yes" if _key_set(entry, environ) else "no",
        ",".join(_offered(entry)) or "-",
        *(chat[tier].model if tier in chat else "-" for tier in ("fast", "balanced", "powerful")),
    )


def overview(catalogue: "Catalogue", environ: Mapping[str, str]) -> "Table":
    """Two columns, folded: addresses and model names are too long for one line each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_lines=False, pad_edge=False)
    table.add_column("provider", no_wrap=True)
    table.add_column("address, key, endpoints, tiers of chat models", overflow="fold")
    for entry in catalogue:
        lines = [entry.base_url or entry.base_url_note, f"key {_keys(entry, environ)}"]
        lines.append(", ".join(_offered(entry)) or f"nothing: {_first_refusal(entry)}")
        lines += [f"{tier} {choice.model}" for tier, choice in entry.tiers.get("chat", {}).items()]
        table.add_row(Text(entry.name, style="bold"), Text("\n".join(lines)))
        table.add_row("", "")
    return table


def details(entry: "ProviderEntry", environ: Mapping[str, str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    previous = ""
    for label, text in describe(entry, environ):
        grid.add_row("" if label == previous else label, Text(text))
        previous = label
    return grid


def describe(entry: "ProviderEntry", environ: Mapping[str, str]) -> Iterator[Line]:
    """The whole entry, line by line."""
    yield "provider", f"{entry.name} ({entry.title})"
    if entry.aliases:
        yield "also called", ", ".join(entry.aliases)
    yield "address", entry.base_url or entry.base_url_note
    if entry.hosts:
        yield "same service", ", ".join(entry.hosts)
    yield "key", _keys(entry, environ)
    yield "speaks", f"the dialect {entry.dialect}; limits are told in the words of {entry.limit_headers}"
    for kind in entry.endpoints:
        yield "endpoint", f"{kind}: {_endpoint(entry, kind)}"
    yield from _models(entry)
    if not entry.price_provider and entry.name != "simulator":
        yield (
            "price",
            "known only where the base_url is; else say price: {input: ..., output: ...} on the lane",
        )
    yield (
        "in flight",
        f"{entry.concurrency} requests, more while that brings more answers; limits.concurrency is a bound",
    )
    for note in entry.notes:
        yield "note", note
    for group, grade in entry.grades.items():
        yield "source", f"{group}: {grade.grade}, {grade.source}"
    if entry.grades:
        yield "grades", "A the provider's own word, B real replies, C other libraries, D a guess"
    yield "checked", entry.checked.isoformat()
    if entry.overlaid:
        yield "changed", f"{', '.join(entry.overlaid)} by {entry.overlaid_by}"


def _models(entry: "ProviderEntry") -> Iterator[Line]:
    for kind, tiers in entry.tiers.items():
        for tier, choice in tiers.items():
            yield f"{kind} model", f"{tier}: {choice.model}{_guess(choice.guess)}"
    for known in entry.embeddings:
        yield "vectors", f"{known.name}: {_limits(known)}{_guess(known.guess)}"
    for model in entry.moderation_models:
        yield "moderation", model
    for model, told in entry.retired.items():
        yield "gone", f"{model}: {told}"
    yield "schema", f"{entry.schema.default}{_schema_exceptions(entry)}"


def _schema_exceptions(entry: "ProviderEntry") -> str:
    """The models that differ from the default."""
    others = {"json_schema": entry.schema.json_schema, "json_object": entry.schema.json_object}
    return "".join(f"; {mode} for {', '.join(names)}" for mode, names in others.items() if names)


def _limits(model: "EmbeddingModel") -> str:
    parts = [f"width {model.dimensions}" + (_asked_width(model) if model.sends_dimensions else "")]
    parts.append(f"{model.max_inputs} inputs a request")
    if model.max_tokens_per_input:
        parts.append(f"{model.max_tokens_per_input} tokens an input")
    if model.max_tokens_per_request:
        parts.append(f"{model.max_tokens_per_request} tokens a request")
    return ", ".join(parts)


def _asked_width(model: "EmbeddingModel") -> str:
    return f", or from {model.min_dimensions} to {model.max_dimensions or model.dimensions} as asked for"


def _guess(is_guess: bool) -> str:
    return " (a guess)" if is_guess else ""


def _endpoint(entry: "ProviderEntry", kind: "TaskKind") -> str:
    if not entry.supports(kind):
        return f"no; {entry.refusal(kind)}"
    note = entry.endpoint_notes.get(kind)
    more = (
        [f", or {entry.path(kind, api)} with api: {api}" for api in entry.apis[1:]] if kind == "chat" else []
    )
    return entry.path(kind) + "".join(more) + (f" ({note})" if note else "")


def _offered(entry: "ProviderEntry") -> list[str]:
    return [kind for kind in entry.endpoints if entry.supports(kind)]


def _first_refusal(entry: "ProviderEntry") -> str:
    return next((entry.refusal(kind) for kind in entry.endpoints if not entry.supports(kind)), "")


def _key_set(entry: "ProviderEntry", environ: Mapping[str, str]) -> str | None:
    """The name of the key variable that would be used; its value stays where it is."""
    return next((name for name in entry.env if environ.get(name)), None)


def _keys(entry: "ProviderEntry", environ: Mapping[str, str]) -> str:
    if not entry.env:
        is_needless = entry.name == "simulator" or (entry.base_url or "").startswith("http://")
        return "none needed" if is_needless else "as the server wants it (api_key)"
    found = _key_set(entry, environ)
    return " or ".join(f"{name} (set)" if name == found else name for name in entry.env)


def _show(table: "Table") -> None:
    from rich.console import Console

    Console(highlight=False).print(table)
