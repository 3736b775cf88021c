"""A Vega-Lite spec → inline SVG that follows the page's theme. Needs no browser, no network and no font.

The drawing comes back from vl-convert as text of its own; here it is reduced to the elements and attributes of a
drawing, so that it fits under the page's content security policy and carries no size, font or colour of its own:
colours are CSS variables in the spec already, which an attribute may hold.
"""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup, escape

_ELEMENTS = {"svg", "g", "path", "line", "rect", "circle", "text", "tspan", "defs", "clipPath"}
_ATTRIBUTES = {
    "viewBox", "transform", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry", "dx", "dy", "width",
    "height", "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap",
    "stroke-linejoin", "opacity", "text-anchor", "font-size", "font-weight", "clip-path", "id", "dominant-baseline",
}  # fmt: skip
_SPACE = re.compile(r"\{[^}]*\}")


class UndrawnError(Exception):
    """No drawing can be made; the message says why, for people. The page goes on without it."""


def drawn(spec: Mapping[str, Any], name: str, title: str, description: str) -> Markup:
    """`name` makes ids of the drawing unique in the page; `title` and `description` are what a screen reader says."""
    try:
        import vl_convert
    except ImportError as error:
        raise UndrawnError("charts need vl-convert: pip install vl-convert-python") from error
    try:
        text = vl_convert.vegalite_to_svg(dict(spec), allowed_base_urls=[])
        root = ElementTree.fromstring(text)  # noqa: S314 - our own drawing, without entities
    except (ValueError, RuntimeError, OSError, ElementTree.ParseError) as error:
        raise UndrawnError(f"a chart could not be drawn: {type(error).__name__}") from error
    _strip(root, name)
    for part in ("width", "height", "id"):
        root.attrib.pop(part, None)
    inner = "".join(ElementTree.tostring(child, "unicode", short_empty_elements=False) for child in root)
    return Markup(
        f'<svg class="chart" viewBox="{escape(root.get("viewBox", "0 0 1 1"))}" role="img"'
        f' aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>{inner}</svg>'
    )


def _strip(element: ElementTree.Element, name: str) -> None:
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
