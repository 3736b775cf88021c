"""Jobs whose votes are known from their rows: lanes are simulated providers that answer by the row's text."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import job_rig
import polars as pl

POSITIVE, NEGATIVE = {"label": "pos"}, {"label": "neg"}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["pos", "neg"]}},
    "required": ["label"],
}


def rows(folder: Path, texts: Mapping[str, str], **columns: Sequence[object]) -> None:
    """A row for each id, whose text it is; `columns` hold one value a row."""
    lines = [
        {"id": name, "text": text, **{column: values[at] for column, values in columns.items()}}
        for at, (name, text) in enumerate(texts.items())
    ]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")


def lane(name: str, *rules: tuple[str, object], **simulate: Any) -> dict[str, Any]:
    """A simulated provider that gives the first reply whose pattern is in the text; else one that fits the schema."""
    answers = [{"pattern": pattern, "reply": reply} for pattern, reply in rules]
    return {
        "provider": "simulator",
        "name": name,
        "model": name,
        "price": {"input": 1.0, "output": 1.0},
        "simulate": {"latency": {"median_s": 0.002}, "answers": answers, **simulate},
    }


def letters(name: str, place: int, **simulate: Any) -> dict[str, Any]:
    """A lane that votes by one letter of the text: + is positive, - negative, ? no JSON at all."""
    before = "." * place
    return lane(
        name,
        (rf"^{before}\+", POSITIVE),
        (rf"^{before}-", NEGATIVE),
        (rf"^{before}\?", "no idea"),
        **simulate,
    )


def job(
    folder: Path, lanes: Sequence[Mapping[str, Any]], consensus: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    return job_rig.job(
        folder,
        lanes,
        **{
            "task": {
                "type": "chat",
                "prompt": "{{ text }}",
                "params": {"temperature": 0, "max_tokens": 30},
                "schema": SCHEMA,
                "repair": False,
            },
            "routing": "all",
            "retry": {"max_attempts": 2, "backoff_s": 0.01, "max_backoff_s": 0.02},
            "consensus": consensus,
            **more,
        },
    )


def table(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "out" / "consensus" / "*.parquet")


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "consensus" / "agreement.json").read_text("utf-8"))
    return found


def by_id(folder: Path, column: str) -> dict[str, Any]:
    return dict(table(folder).select("id", column).iter_rows())
