"""What each peer's script is asked on its command line, and how it answers: one JSON object as the last line.

Standard library only: it is imported in every peer's environment.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import MAX_TOKENS, PROMPT

__all__ = ["KEY", "MAX_TOKENS", "RETRIES", "Asked", "answer", "asked"]

#: Clients want one; nothing on loopback reads it.
KEY = "none"
#: For clients that count refusals as attempts: what the SDK's users set when they meet the first 429.
RETRIES = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """Send the first `limit` rows of `rows` to `url`; `rpm` is the provider's limit, None when it has none."""

    url: str
    rows: Path
    limit: int
    in_flight: int
    rpm: float | None

    def prompts(self) -> list[tuple[str, str]]:
        """Key and prompt of each row."""
        with self.rows.open(encoding="utf-8") as file:
            found = [json.loads(line) for _, line in zip(range(self.limit), file, strict=False)]
        return [(row["id"], PROMPT + row["text"]) for row in found]


def asked() -> Asked:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("rows", type=Path)
    parser.add_argument("limit", type=int)
    parser.add_argument("in_flight", type=int)
    parser.add_argument("--rpm", type=float)
    return Asked(**vars(parser.parse_args()))


def write(lines: Iterable[Mapping[str, object]]) -> None:
    """answers.jsonl, for peers that leave writing to their user."""
    with Path("answers.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def answer(answered: int) -> None:
    """How many rows have an answer."""
    print(json.dumps({"answered": answered}), flush=True)
