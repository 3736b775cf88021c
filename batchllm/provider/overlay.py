"""What a user lays over the packaged catalogue: a file of their own, and a lane's `catalogue`.

Both have the form of catalogue.toml. Tables are merged key by key, values and lists take the place of what was there;
only `embeddings` are merged by name. A new entry says what it `extends` and takes over all but what would be
untrue of another service: its names, its notes and where its facts come from. A key never follows an address
that was changed: whoever changes the address says which variable holds the key for it.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from batchllm.errors import Fault, JobError
from batchllm.provider.catalogue import (
    Catalogue,
    ProviderEntry,
    entry_faults,
    load_catalogue,
    shared_names,
    shipped_text,
    tables,
)

Table: TypeAlias = dict[str, Any]

VARIABLE = "BATCHLLM_PROVIDERS"
MAX_BYTES = 1 << 20
#: What is said of one service and not of another that speaks like it.
_OWN = frozenset({"name", "title", "aliases", "base_url_note", "base_url_env", "hosts", "key_prefixes", "notes",
                  "grades", "endpoint_notes", "retired", "tiers", "default_model", "price_provider"})  # fmt: skip
#: Keys that a lane's `catalogue` may hold; the others have a place of their own on the lane, or describe only.
LANE_KEYS = ("dialect", "endpoints", "schema", "tiers", "embeddings", "vector_form", "sends_dimensions",
             "reasoning_models", "plain_models")  # fmt: skip
_ELSEWHERE: Mapping[str, str] = {
    "base_url": "say base_url on the lane itself",
    "env": "say api_key on the lane itself",
    "concurrency": "say limits.concurrency on the lane itself",
    "price_provider": "say price on the lane itself",
}
#: What of an overlay decides an answer, for each kind of task.
_SEMANTIC = frozenset({"base_url", "dialect", "endpoints"})
_SEMANTIC_OF: Mapping[str, frozenset[str]] = {
    "chat": frozenset({"schema", "reasoning_models", "plain_models"}),
    "embedding": frozenset({"embeddings", "vector_form", "sends_dimensions"}),
}
_AT_LINE = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)")
_KEYS = frozenset(field.name for field in fields(ProviderEntry)) - {"overlaid", "overlaid_by"}


def open_catalogue(environ: Mapping[str, str]) -> Catalogue:
    """The packaged catalogue with the user's file laid over it. Raises JobError with all that is wrong in the file."""
    path = user_file(environ)
    if path is None:
        return load_catalogue()
    return _laid_over(_read(path), str(path))


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Where the user's file is; None when there is none. A path that the environment names must exist."""
    named = environ.get(VARIABLE)
    if named:
        return Path(named)
    config, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if not config.startswith("/"):  # the XDG specification says to pass over relative ones
        if not home:
            return None
        config = f"{home}/.config"
    path = Path(config, "batchllm", "providers.toml")
    return path if path.exists() else None


def _read(path: Path) -> str:
    file = str(path)
    remedy = (
        f"correct or unset {VARIABLE}"
        if not path.exists()
        else "see that it is a text file that you may read"
    )
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise JobError(file, [Fault("", f"cannot be read: {error.strerror or error}", remedy)]) from error
    except UnicodeDecodeError as error:
        raise JobError(file, [Fault("", "this is no UTF-8 text", remedy)]) from error
    if len(data) > MAX_BYTES:
        raise JobError(file, [Fault("", f"more than {MAX_BYTES:,} bytes", "this is no list of providers")])
    return text


def _laid_over(text: str, file: str) -> Catalogue:
    own, faults = _own_tables(text, file)
    shipped = tables(shipped_text())["providers"]
    merged: dict[str, Table] = dict(shipped)
    for name, table in own.items():
        found = list(_entry_faults(name, table, shipped))
        faults += found
        if not found:
            merged[name] = _merged_entry(name, table, shipped)
    changed = {name: merged[name] for name in own if name in merged}
    entries = dict(load_catalogue().entries)
    for name, table in changed.items():
        entry = _checked(table, f"providers.{name}", faults)
        if entry is not None:
            faults += [Fault(f"providers.{name}", told) for told in entry_faults(name, entry)]
            entries[name] = replace(entry, overlaid=tuple(sorted(own[name])), overlaid_by=file)
    faults += [
        Fault(f"providers.{name}.aliases", told)
        for name, told in shared_names(
            {name: entry for name, entry in entries.items() if name != "simulator"}
        )
    ]
    if faults:
        raise JobError(file, list(dict.fromkeys(faults)))
    return Catalogue(load_catalogue().checked, _simulator_last(entries))


def _simulator_last(entries: dict[str, ProviderEntry]) -> dict[str, ProviderEntry]:
    simulator = entries.pop("simulator")
    return {**entries, "simulator": simulator}


def _own_tables(text: str, file: str) -> tuple[dict[str, Table], list[Fault]]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _AT_LINE.search(str(error))
        line, column = (int(place[1]), int(place[2])) if place else (0, 0)
        message = _AT_LINE.sub("", str(error)).strip()
        raise JobError(file, [Fault("", f"this is no TOML: {message}", "", line, column)]) from error
    faults = [
        Fault(key, "unknown key", "a provider is a table: [providers.NAME]")
        for key in data
        if key != "providers"
    ]
    providers = data.get("providers", {})
    if not isinstance(providers, dict):
        return {}, [*faults, Fault("providers", "expected tables", "write [providers.NAME]")]
    faults += [
        Fault(f"providers.{name}", "expected a table", f"write [providers.{name}]")
        for name, table in providers.items()
        if not isinstance(table, dict)
    ]
    return {name: table for name, table in providers.items() if isinstance(table, dict)}, faults


def _entry_faults(name: str, table: Table, shipped: Mapping[str, Table]) -> Iterator[Fault]:
    path = f"providers.{name}"
    for key in table:
        if key not in _KEYS and key != "extends":
            yield _unknown_key(f"{path}.{key}", key, (*_KEYS, "extends"))
    owner = next((known for known, base in shipped.items() if name in base.get("aliases", ())), None)
    if name == "simulator":
        yield Fault(path, "the simulator has no entry to change", "see simulate in the job")
    elif owner is not None:
        yield Fault(path, f"{name} is another name of {owner}", f"write [providers.{owner}]")
    elif name in shipped and "extends" in table:
        yield Fault(
            f"{path}.extends", f"{name} is known already", "leave extends out, or choose another name"
        )
    elif name not in shipped and table.get("extends") not in shipped:
        yield _base_fault(path, name, table.get("extends"), shipped)
    else:
        yield from _key_faults(path, table, shipped[name if name in shipped else table["extends"]])


def _base_fault(path: str, name: str, extends: object, shipped: Mapping[str, Table]) -> Fault:
    near = difflib.get_close_matches(str(extends or name), shipped, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    if extends is None:
        remedy = f'{meant}a new provider says what it is like: extends = "custom"'
        return Fault(path, f"no provider is called {name!r}", remedy)
    return Fault(
        f"{path}.extends", f"no provider is called {extends!r}", f"{meant}known: {', '.join(shipped)}"
    )


def _key_faults(path: str, table: Table, base: Table) -> Iterator[Fault]:
    address = table.get("base_url")
    is_moved = (
        isinstance(address, str) and urlsplit(address).netloc != urlsplit(base.get("base_url", "")).netloc
    )
    if is_moved and base.get("env") and "env" not in table:
        yield Fault(
            f"{path}.env",
            f"the address is another one, so {base['env'][0]} is not sent there by itself",
            'say which variable holds the key for it, env = ["MY_KEY"], or env = [] for none',
        )


def _merged_entry(name: str, table: Table, shipped: Mapping[str, Table]) -> Table:
    own = {key: value for key, value in table.items() if key != "extends"}
    if isinstance(own.get("base_url"), str):
        own["base_url"] = own["base_url"].rstrip("/")
    if name in shipped:
        return merge(shipped[name], own)
    base = {key: value for key, value in shipped[table["extends"]].items() if key not in _OWN}
    return merge({**base, "name": name, "title": name}, own)


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> Table:
    """`own` over `base`; neither is changed."""
    merged = dict(base)
    for key, value in own.items():
        there = merged.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            merged[key] = merge(there, value)
        elif key == "embeddings" and isinstance(there, list) and isinstance(value, list):
            merged[key] = _by_name(there, value)
        else:
            merged[key] = value
    return merged


def _by_name(there: Iterable[object], own: Iterable[object]) -> list[object]:
    named: dict[object, object] = {_name_of(model): model for model in there}
    for model in own:
        before = named.get(_name_of(model))
        is_known = isinstance(before, Mapping) and isinstance(model, Mapping)
        named[_name_of(model)] = merge(before, model) if is_known else model  # type: ignore[arg-type] # both are
    return list(named.values())


def _name_of(model: object) -> object:
    return model.get("name") if isinstance(model, Mapping) else None


def _checked(table: Table, path: str, faults: list[Fault]) -> ProviderEntry | None:
    try:
        return TypeAdapter(ProviderEntry).validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        faults += [_told(detail, path) for detail in error.errors()]
        return None


def _told(detail: ErrorDetails, path: str) -> Fault:
    steps = [str(step) for step in detail["loc"]]
    place = ".".join((path, *steps))
    if detail["type"] == "unexpected_keyword_argument":
        return _unknown_key(place, steps[-1], ())
    return Fault(place, detail["msg"][:1].lower() + detail["msg"][1:])


def _unknown_key(path: str, key: str, known: Iterable[str]) -> Fault:
    near = difflib.get_close_matches(key, list(known), 1)
    remedy = f"did you mean {near[0]}?" if near else "`batchllm providers NAME --json` shows the keys"
    return Fault(path, "unknown key", remedy)


@dataclass(frozen=True, slots=True)
class LaneEntry:
    """The entry that a lane goes by, or what is wrong with its `catalogue` (paths begin below that key)."""

    entry: ProviderEntry
    faults: tuple[Fault, ...] = ()


def for_lane(entry: ProviderEntry, own: Mapping[str, Any]) -> LaneEntry:
    """`entry` with a lane's `catalogue` laid over it."""
    if not own:
        return LaneEntry(entry)
    faults = [_lane_key_fault(key) for key in own if key not in LANE_KEYS]
    if faults:
        return LaneEntry(entry, tuple(faults))
    base = json.loads(TypeAdapter(ProviderEntry).dump_json(entry))
    found: list[Fault] = []
    changed = _checked(merge(base, own), "", found)
    if changed is None:
        return LaneEntry(entry, tuple(replace(fault, path=fault.path.lstrip(".")) for fault in found))
    told = [
        fault
        for fault in entry_faults(entry.name, changed)
        if fault not in set(entry_faults(entry.name, entry))
    ]
    return LaneEntry(changed, tuple(Fault("", text) for text in told))


def _lane_key_fault(key: str) -> Fault:
    if key in _ELSEWHERE:
        return Fault(key, "this is no part of a lane's catalogue", _ELSEWHERE[key])
    if key in _KEYS:
        return Fault(key, "a lane cannot change this", f"keys here: {', '.join(LANE_KEYS)}")
    return _unknown_key(key, key, LANE_KEYS)


def semantic_overlay(entry: ProviderEntry, kind: str, model: str, *, names_tier: bool) -> Table:
    """What a user's file says that decides an answer of this model, for the fingerprint. A new entry says all of it."""
    wanted = _SEMANTIC | _SEMANTIC_OF.get(kind, frozenset()) | ({"tiers"} if names_tier else frozenset())
    if "extends" not in entry.overlaid:
        wanted &= set(entry.overlaid)
    if not wanted:
        return {}
    told = json.loads(TypeAdapter(ProviderEntry).dump_json(entry))
    known = entry.embedding_model(model)
    told["embeddings"] = [found for found in told["embeddings"] if known and found["name"] == known.name]
    return {key: told[key] for key in sorted(wanted) if told[key]}
