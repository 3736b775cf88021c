"""The events of a streamed Responses reply, put together to the reply that would have come whole.

The last event carries the whole response, and then it is taken as it is. The items and pieces before it count where it
does not come, or comes empty: what arrived of a stream that was cut is kept.
"""

from collections.abc import Mapping

_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
_SEARCHED = "response.reasoning.search_results"  # Perplexity's
_THOUGHTS = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_WORDS: Mapping[str, str] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
}
_ARGUMENTS = "response.function_call_arguments.delta"


class ResponsesAssembly:
    def __init__(self) -> None:
        self.has_token = self.has_begun = self._is_over = False
        self._response: dict[str, object] = {}
        self._items: dict[int, dict[str, object]] = {}
        self._finished: set[int] = set()
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._found: list[object] = []

    @property
    def is_whole(self) -> bool:
        return self._is_over

    @property
    def is_empty(self) -> bool:
        return not (self._response or self._items or self._pieces)

    def take(self, event: Mapping[str, object]) -> str:
        kind = event.get("type")
        response = event.get("response")
        if isinstance(response, dict):
            self._response.update(response)
        if not isinstance(kind, str):
            return ""
        if kind in _FINAL:
            self._end(kind, event)
        elif kind == _SEARCHED:
            results = event.get("results")
            self._found += results if isinstance(results, list) else []
        elif kind.endswith(".delta"):
            return self._take_piece(kind, event)
        elif kind.startswith("response.output_item."):
            self._take_item(kind, event)
        return ""

    def reply(self) -> dict[str, object]:
        output = self._response.get("output")
        if output:
            return self._response
        return {**self._response, "output": self._put_together()}

    def _end(self, kind: str, event: Mapping[str, object]) -> None:
        self._is_over = True
        if not isinstance(event.get("response"), dict):  # Perplexity may leave it out
            self._response["status"] = kind.rpartition(".")[2]
            if event.get("error"):
                self._response["error"] = event["error"]

    def _take_item(self, kind: str, event: Mapping[str, object]) -> None:
        item, at = event.get("item"), _place(event)
        if isinstance(item, dict):
            self._items[at] = item
            if kind.endswith(".done"):
                self._finished.add(at)

    def _take_piece(self, kind: str, event: Mapping[str, object]) -> str:
        piece = event.get("delta")
        if not isinstance(piece, str) or not piece:
            return ""
        self.has_token = True
        name = None if kind in _THOUGHTS else "arguments" if kind == _ARGUMENTS else _WORDS.get(kind)
        if name is not None:
            self.has_begun = True
            self._pieces.setdefault((_place(event), name), []).append(piece)
        return piece if name == "text" else ""

    def _put_together(self) -> list[object]:
        places = sorted(self._items.keys() | {at for at, _ in self._pieces})
        output: list[object] = [{"type": "search_results", "results": self._found}] if self._found else []
        return output + [self._item(at) for at in places]

    def _item(self, at: int) -> dict[str, object]:
        item = self._items.get(at, {})
        if at in self._finished:
            return item
        arguments = self._joined(at, "arguments")
        if arguments:
            return {"type": "function_call", **item, "arguments": arguments}
        parts = [
            {"type": kind, name: text}
            for kind, name in (("output_text", "text"), ("refusal", "refusal"))
            if (text := self._joined(at, name))
        ]
        return {"type": "message", "role": "assistant", **item, **({"content": parts} if parts else {})}

    def _joined(self, at: int, name: str) -> str:
        return "".join(self._pieces.get((at, name), ()))


def _place(event: Mapping[str, object]) -> int:
    at = event.get("output_index")
    return at if isinstance(at, int) else 0
