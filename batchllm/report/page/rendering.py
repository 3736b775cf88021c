"""Sections → one HTML file that loads nothing: style and script stand in it, and a policy names them by their hash.

Whatever a row carries is text: the templates escape all of it, and even if one did not, the policy lets no script run
but the page's own.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from batchllm.report.page.sections import Section


def rendered(job: str, sections: Sequence[Section], *, is_simulated: bool, created: str) -> str:
    environment = _environment()
    style, script = _inlined(environment, "page.css"), _inlined(environment, "page.js")
    return environment.get_template("page.html.j2").render(
        job=job,
        sections=sections,
        is_simulated=is_simulated,
        created=created,
        style=style,
        script=script,
        policy=_policy(style, script),
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("batchllm.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _inlined(environment: Environment, name: str) -> Markup:
    """A file of the package as it stands: ours, and without an end tag of style or script."""
    loader: Any = environment.loader
    return Markup(loader.get_source(environment, name)[0])  # noqa: S704


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
