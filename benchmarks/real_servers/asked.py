"""What is asked of each server: one job a task, a handful of rows, and what must have come of it."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import Ended, run_child
from benchmarks.peers.results import problem
from benchmarks.real_servers.catalogue import KEY, Offer

OK = "ok"
_RUN_S = 300.0
_WORDS = (
    "kettle",
    "tent",
    'lid "broken"',
    "größer 😀",
    "two\nlines",
    "rain",
    "soup",
    "bicycle",
    "lamp",
    "chair",
)
_LABEL = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["positive", "negative", "neutral"]}},
    "required": ["label"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"page": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["page"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A job's task, what its lane says, and what its output must show; `fault` returns "" when it does."""

    task: Mapping[str, Any]
    fault: Callable[[pl.DataFrame], str]
    lane: Mapping[str, Any] = field(default_factory=dict)
    tells_usage: bool = True


def _is_filled(column: str) -> Callable[[pl.DataFrame], str]:
    def fault(output: pl.DataFrame) -> str:
        return "" if output[column].null_count() == 0 else f"{column} has nulls"

    return fault


def _is_labelled(output: pl.DataFrame) -> str:
    strange = set(output["label"]) - set(_LABEL["properties"]["label"]["enum"])  # type: ignore[index]
    return f"labels that the schema does not have: {strange}" if strange else ""


def _calls_the_tool(output: pl.DataFrame) -> str:
    names = {call["name"] for calls in output["tool_calls"] for call in calls}
    has_all = output["tool_calls"].list.len().min()
    return "" if has_all and names == {"look_up"} else f"calls of {names or 'no tool'}"


def _has_two(output: pl.DataFrame) -> str:
    counts = set(output["contents"].list.len())
    return "" if counts == {2} else f"choices: {counts}"


_SHORT = {"max_tokens": 12, "temperature": 0}
_EVERY: Mapping[str, Any] = {
    **_SHORT,
    "top_p": 0.9,
    "stop": ["\n\n", "END"],
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"5": -100},
    "user": "u-1",
}
#: Name of the column in the table → what is asked. OpenAI's moderation tells no usage.
TASKS: Mapping[str, Asked] = {
    "chat": Asked(
        {"type": "chat", "system": "Be brief.", "prompt": "Say a word on: {{ text }}", "params": _SHORT},
        _is_filled("content"),
    ),
    "stream": Asked(
        {"type": "chat", "prompt": "A word on {{ text }}", "params": _SHORT},
        _is_filled("content"),
        {"stream": True},
    ),
    "responses": Asked(
        {
            "type": "chat",
            "system": "Be brief.",
            "prompt": "A word on {{ text }}",
            "params": {"max_tokens": 16, "temperature": 0},
        },
        _is_filled("content"),
        {"api": "responses"},
    ),
    "parameters": Asked(
        {"type": "chat", "prompt": "A word on {{ text }}", "params": _EVERY}, _is_filled("content")
    ),
    "schema": Asked(
        {"type": "chat", "prompt": "Judge: {{ text }}", "schema": _LABEL, "params": {"max_tokens": 60}},
        _is_labelled,
    ),
    "tools": Asked(
        {
            "type": "chat",
            "prompt": "Look {{ text }} up",
            "tools": [_TOOL],
            "tool_choice": "required",
            "params": {"max_tokens": 200, "temperature": 0},
        },
        _calls_the_tool,
    ),
    "choices": Asked(
        {"type": "chat", "prompt": "A word on {{ text }}", "params": {"max_tokens": 12, "n": 2}}, _has_two
    ),
    "completion": Asked(
        {"type": "completion", "prompt": "A word on {{ text }}:", "params": _SHORT}, _is_filled("content")
    ),
    "embedding": Asked({"type": "embedding", "text": "{{ text }}"}, _is_filled("embedding")),
    "moderation": Asked(
        {"type": "moderation", "text": "{{ text }}"}, _is_filled("flagged"), tells_usage=False
    ),
}


def ask(name: str, offer: Offer, base_url: str, folder: Path, rows: int) -> str:
    """OK, or what went wrong. The folder, which is made, keeps the job and its output."""
    folder.mkdir()
    lines = [json.dumps({"id": f"r{at}", "text": _WORDS[at % len(_WORDS)]}) for at in range(rows)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "job.yaml").write_text(json.dumps(job(name, offer, base_url)), "utf-8")
    ended = run_child(
        [sys.executable, "-m", "batchllm", "run", "job.yaml", "--quiet"],
        folder=folder,
        environ={"BATCHLLM_STATE_DIR": str(folder / "state")},
        timeout_s=_RUN_S,
    )
    return verdict(TASKS[name], ended, folder / "out", rows)


def job(name: str, offer: Offer, base_url: str) -> dict[str, Any]:
    lane = {
        "provider": "custom",
        "name": "server",
        "model": offer.model,
        "base_url": base_url,
        "api_key": KEY,
        "price": {"input": 1.0, "output": 1.0},
        **TASKS[name].lane,
        **offer.lane,
    }
    return {
        "name": f"real-{name}",
        "input": {"path": "rows.jsonl", "key": "id"},
        "task": {**TASKS[name].task, **offer.task},
        "providers": [lane],
        "retry": {"max_attempts": 2},
        "output": {"path": "out"},
    }


def verdict(asked: Asked, ended: Ended, out: Path, rows: int) -> str:
    """Every row answered, and what it took recorded."""
    if ended.code is None:
        return f"FAILED: no end within {_RUN_S:.0f} s"
    if ended.code != 0:
        return f"FAILED ({ended.code}): {_why(out) or problem(ended.last_line)}"
    output, usage = (pl.read_parquet(out / name / "*.parquet") for name in ("output", "usage"))
    if output.height != rows:
        return f"FAILED: {output.height} of {rows} rows answered"
    fault = asked.fault(output) or _untold(asked, usage)
    return f"FAILED: {fault}" if fault else OK


def _untold(asked: Asked, usage: pl.DataFrame) -> str:
    if asked.tells_usage and usage["prompt_tokens"].null_count():
        return "no usage recorded"
    if asked.lane.get("stream") and usage["ttft_ms"].null_count():
        return "no time to the first token"
    return ""


def _why(out: Path) -> str:
    """What the first failed row was told."""
    if not list((out / "failures").glob("*.parquet")):
        return ""
    failures = pl.read_parquet(out / "failures" / "*.parquet")
    return problem(str(failures["message"][0])) if failures.height else ""
