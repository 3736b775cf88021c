"""How a value of a row is printed in a prompt.

Text as it is; true, false, lists and mappings as JSON, because that is how a model has met them; numbers in their
shortest exact form; dates and times in ISO 8601. Null, NaN and bytes are refused: a prompt with a hole in it is
paid for and answers nothing.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from math import isnan

from jinja2 import Undefined

_NAMES_SHOWN = 20


def to_text(value: object, name: str = "") -> str:
    """`value` as a template prints it; `name` is what the template calls it. Raises ValueError, TypeError."""
    if isinstance(value, str):
        return str(value)
    check_present(value, name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return to_json(value)
    if isinstance(value, range | Iterator):
        return to_json(list(value))
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{_called(name)} holds bytes, which are no text")
    if callable(value) and not isinstance(value, Undefined):
        raise TypeError(f"{_called(name)} is a function; for a key of that name write x['key']")
    return str(value)


def check_present(value: object, name: str = "") -> None:
    """Raises ValueError for null and NaN."""
    if value is None or (isinstance(value, float | Decimal) and isnan(value)):
        hole = "null" if value is None else "NaN"
        raise ValueError(
            f"{_called(name)} is {hole} in this row; say what stands in for it: | default('...')"
        )


def to_json(value: object, indent: int | None = None) -> str:
    """One line without an indent. Decimals, dates and other scalars inside are text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=to_text, indent=indent)


def well_formed(text: str) -> str:
    """`text` with lone surrogates, which no encoding carries, replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def missing_column(name: str, values: Mapping[str, object]) -> str:
    """The sentence about a column that a row does not have."""
    names = [str(column) for column in values]
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
    return f"the row has no column {name!r}{hint} (its columns: {shown or 'none'})"


def _called(name: str) -> str:
    return f"{{{{ {name} }}}}" if name else "a value that the template uses"
