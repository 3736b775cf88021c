"""What a peer's script reads."""

from pathlib import Path

from benchmarks.peers.asked import PROMPT, Asked
from benchmarks.servers import write_rows


def test_a_script_sends_the_first_rows_with_their_keys(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 5)
    request = Asked("http://127.0.0.1:1/v1", tmp_path / "rows.jsonl", 2, 64, None)
    (first, prompt), (second, _) = request.prompts()
    assert (first, second) == ("r00000000", "r00000001")
    assert prompt.startswith(PROMPT)
    assert len(prompt) > len(PROMPT)
