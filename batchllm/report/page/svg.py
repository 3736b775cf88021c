"""Vega-Lite specs → inline SVG that follows the page's theme. Needs no browser, no network and no font.

vl-convert draws in a process of its own: it carries a JavaScript engine, which ends its whole process where it cannot
reserve some 100 GB of addresses (`ulimit -v`, as batch systems set it). A page without drawings is a pity, a run that
dies at its end is a fault. It is given no key, and a minute.

What comes back is reduced to the elements and attributes of a drawing, so that it fits under the page's content
security policy and carries no size, font or style of its own: colours are CSS variables, which an attribute may hold.
"""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import orjson
from markupsafe import Markup, escape

from batchllm.report.page.charts import Chart

_LIMIT_S = 60
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
_MISSING = "drawings need vl-convert: pip install vl-convert-python"
_FAILED = "the drawings could not be made here"
#: No core file of the engine; nothing is fetched, whatever a spec says.
_PROGRAM = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import vl_convert
def draw(spec):
    try:
        return vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    except Exception:
        return None
json.dump([draw(spec) for spec in json.load(sys.stdin)], sys.stdout)
"""
_ELEMENTS = {"svg", "g", "path", "line", "rect", "circle", "text", "tspan", "defs", "clipPath"}
_ATTRIBUTES = {
    "viewBox", "transform", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry", "dx", "dy", "width",
    "height", "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap",
    "stroke-linejoin", "opacity", "text-anchor", "font-size", "font-weight", "clip-path", "id", "dominant-baseline",
}  # fmt: skip
_SPACE = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Drawing:
    """`svg` is None where there is none; `trouble` says why, for people."""

    svg: Markup | None
    trouble: str = ""


Draw: TypeAlias = Callable[[Sequence[Chart]], list[Drawing]]


def draw(charts: Sequence[Chart]) -> list[Drawing]:
    """One for each chart, whatever happens."""
    if not charts:
        return []
    if not _has_library():
        return [Drawing(None, _MISSING)] * len(charts)
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, our own program
            [sys.executable, "-P", "-c", _PROGRAM],
            input=orjson.dumps([chart.spec for chart in charts]),
            capture_output=True,
            timeout=_LIMIT_S,
            check=True,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the run
        )
        texts = orjson.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return [Drawing(None, _FAILED)] * len(charts)
    return [_drawing(chart, text) for chart, text in zip(charts, texts, strict=True)]


def _environment() -> dict[str, str]:
    """Enough to start Python as it was started here, and no key."""
    kept = {name: value for name in _KEPT if (value := os.environ.get(name))}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _has_library() -> bool:
    try:
        return importlib.util.find_spec("vl_convert") is not None
    except ValueError:
        return False


def _drawing(chart: Chart, text: str | None) -> Drawing:
    if text is None:
        return Drawing(None, _FAILED)
    name, root = f"chart-{chart.name}", ET.fromstring(text)  # noqa: S314 - our own drawing, without entities
    _strip(root, name)
    for part in ("width", "height", "id"):
        root.attrib.pop(part, None)
    inner = "".join(ET.tostring(child, "unicode", short_empty_elements=False) for child in root)
    return Drawing(
        Markup(  # noqa: S704 - what came from elsewhere is escaped, and the inner part was reduced
            f'<svg class="chart" viewBox="{escape(root.get("viewBox", "0 0 1 1"))}" role="img"'
            f' aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{escape(chart.title)}</title>'
            f'<desc id="{name}-desc">{escape(chart.words)}</desc>{inner}</svg>'
        )
    )


def _strip(element: ET.Element, name: str) -> None:
    """`name` keeps the ids of several drawings in one page apart."""
    element.tag = _SPACE.sub("", element.tag)
    for key in list(element.attrib):
        value = element.attrib[key]
        if key not in _ATTRIBUTES:
            del element.attrib[key]
        elif key == "id":
            element.attrib[key] = f"{name}-{value}"
        elif "url(" in value:
            element.attrib[key] = value.replace("url(#", f"url(#{name}-")
    for child in list(element):
        if _SPACE.sub("", child.tag) in _ELEMENTS:
            _strip(child, name)
        else:
            element.remove(child)
