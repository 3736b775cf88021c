"""A template, compiled once, rendered for each row.

Names are the row's columns, `row["any name"]` for a column whose name is no identifier, and `range`. Row text is a
value and never code: `{{ }}` inside it is printed as it is. Null is not printed; `{% if x %}`, `{{ x or "-" }}` and
`{{ x | default("-") }}` take care of it.
"""

from collections.abc import Iterator, Mapping

from jinja2 import Template as CompiledTemplate
from jinja2 import TemplateSyntaxError, meta, nodes

from batchllm.errors import RowError
from batchllm.prompt.rewrite import Rewriter
from batchllm.prompt.sandbox import TEXT_LIMIT, MissingColumnError, Rendering, Sandbox
from batchllm.prompt.text import missing_column, to_text, well_formed

_SANDBOX = Sandbox()
_SPECIAL = frozenset({"range", "self"})
_GUARDS = frozenset({"default", "d", "defined", "undefined"})


class TemplateError(ValueError):
    """A template that cannot be compiled; `line` counts from 1 inside it, `where` is its place in the job."""

    def __init__(self, message: str, line: int, where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.where = where


class Template:
    """`where` is the template's place in the job, such as `task.prompt`; `limit` is in characters.

    `columns` are all that it reads; `optional` those of them that it can do without (`default`, `is defined`).
    """

    def __init__(self, text: str, *, where: str, limit: int = TEXT_LIMIT) -> None:
        self.columns: frozenset[str] = frozenset()
        self.optional: frozenset[str] = frozenset()
        self._where = where
        self._limit = limit
        self._compiled: CompiledTemplate | None = None
        self._parts: list[str] = [text]
        self._slots: tuple[tuple[int, str], ...] = ()
        if "{{" in text or "{%" in text or "{#" in text:
            try:
                self._read(text)
            except TemplateSyntaxError as error:
                raise TemplateError(error.message or "wrong syntax", error.lineno, where) from None
            except (RecursionError, SyntaxError, MemoryError):
                raise TemplateError("the template is nested too deep", 1, where) from None

    def render(self, values: Mapping[str, object]) -> str:
        """The text for one row. Raises RowError."""
        try:
            text = self._fill(values) if self._compiled is None else self._run(self._compiled, values)
        except Exception as error:  # noqa: BLE001 - any operation of a template may fail on a row's values
            raise RowError(self._explain(error, values)) from None
        if len(text) > self._limit:
            raise RowError(f"{self._where}: the text has {len(text):,} characters, more than {self._limit:,}")
        return well_formed(text)

    def _read(self, text: str) -> None:
        tree = _SANDBOX.parse(text)
        children = [
            child
            for part in tree.body
            for child in (part.nodes if isinstance(part, nodes.Output) else [part])
        ]
        if all(_is_plain(child) for child in children):
            self._parts = [child.data if isinstance(child, nodes.TemplateData) else "" for child in children]
            self._slots = tuple(
                (at, child.name) for at, child in enumerate(children) if isinstance(child, nodes.Name)
            )
            self.columns = frozenset(name for _, name in self._slots)
            return
        self.optional = frozenset(_guarded(tree))
        rewriter = Rewriter(tree)
        rewriter.visit(tree)
        tree.set_environment(_SANDBOX)
        self.columns = frozenset(meta.find_undeclared_variables(tree)) | rewriter.columns
        self._compiled = CompiledTemplate.from_code(_SANDBOX, _SANDBOX.compile(tree), {})

    def _fill(self, values: Mapping[str, object]) -> str:
        # What most templates are, literals and bare columns, is filled in here six times faster than Jinja does it.
        parts = self._parts.copy()
        for at, name in self._slots:
            if name not in values:
                raise MissingColumnError(name)
            value = values[name]
            parts[at] = value if type(value) is str else to_text(value, name)
        return "".join(parts)

    def _run(self, compiled: CompiledTemplate, values: Mapping[str, object]) -> str:
        return "".join(compiled.root_render_func(Rendering(_SANDBOX, values, self._limit)))

    def _explain(self, error: Exception, values: Mapping[str, object]) -> str:
        line = self._line(error)
        place = f"{self._where}, line {line}" if line else self._where
        if isinstance(error, MissingColumnError):
            return f"{place}: {missing_column(str(error), values)}"
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        return f"{place}: {reason or type(error).__name__}"

    def _line(self, error: Exception) -> int:
        line, trace = 0, error.__traceback__
        while trace is not None and self._compiled is not None:
            if trace.tb_frame.f_globals.get("environment") is _SANDBOX:
                line = self._compiled.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


def _guarded(tree: nodes.Template) -> Iterator[str]:
    """Names that the template itself expects to be missing now and then."""
    for guard in tree.find_all((nodes.Filter, nodes.Test)):
        if guard.name in _GUARDS and isinstance(guard.node, nodes.Name):
            yield guard.node.name


def _is_plain(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData) or (
        isinstance(node, nodes.Name) and node.name not in _SPECIAL
    )
