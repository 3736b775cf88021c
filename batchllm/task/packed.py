"""What the tasks share that send one text a row, several rows a request (embedding, moderation)."""

from collections.abc import Sequence

from batchllm.errors import RowError
from batchllm.prompt import Template
from batchllm.records import Row


def row_text(template: Template, row: Row, purpose: str) -> str:
    """The row's text; raises RowError for a blank one, which providers refuse together with its neighbours."""
    text = template.render(row.values)
    if not text.strip():
        raise RowError(f"the text is empty for this row: there is nothing to {purpose}")
    return text


def texts_of(content: object) -> Sequence[str]:
    """Of one row's content, or of a request's list of them."""
    return [text for text in (content if isinstance(content, list) else [content]) if isinstance(text, str)]
