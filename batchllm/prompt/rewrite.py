"""What a template may say, checked in its syntax tree, and the meters that are put into it.

Jinja compiles a template to Python; what is not in the tree cannot run. So tags that the sandbox does not bound are
refused here, with their line, and every loop, filter, comparison and print gets a step of the sandbox around it.
"""

import difflib
from collections.abc import Callable
from typing import Any, NoReturn

from jinja2 import TemplateSyntaxError, nodes
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from batchllm.prompt.sandbox import FILTERS

_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Block: "block",
    nodes.CallBlock: "call",
    nodes.Extends: "extends",
    nodes.FromImport: "from",
    nodes.Import: "import",
    nodes.Include: "include",
    nodes.Macro: "macro",
    nodes.ScopedEvalContextModifier: "autoescape",
}


class Rewriter(NodeTransformer):
    """`columns` collects the names asked for by `row["name"]`."""

    def __init__(self, tree: nodes.Template) -> None:
        self.columns: set[str] = set()
        # A loop variable may be called row; then row["name"] is a member of it.
        self._owns_row = any(name.name == "row" and name.ctx != "load" for name in tree.find_all(nodes.Name))

    def visit(self, node: nodes.Node, *_: Any, **__: Any) -> nodes.Node:
        if tag := _REFUSED.get(type(node)):
            _refuse(f"{{% {tag} %}} has no place in a prompt", node)
        node = self.generic_visit(node)
        rewrite = _REWRITES.get(type(node))
        return node if rewrite is None else rewrite(self, node)

    def output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [
            child if isinstance(child, nodes.TemplateData) else _step("~printed", child, _spelling(child))
            for child in node.nodes
        ]
        return node

    def loop(self, node: nodes.For) -> nodes.Node:
        literals = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        counted = _step("~round", nodes.Const(True, lineno=node.lineno), literals)
        if node.test is None:
            node.body.insert(0, nodes.ExprStmt(counted, lineno=node.lineno))
        else:
            node.test = nodes.And(counted, node.test, lineno=node.lineno)
        return node

    def filter(self, node: nodes.Filter) -> nodes.Node:
        _check_known("filter", node.name, FILTERS, node)
        if node.node is not None:  # None: {% filter name %}
            node.node = _step("~operand", node.node, node.name, _spelling(node.node))
        return _metered(node)

    def test(self, node: nodes.Test) -> nodes.Node:
        _check_known("test", node.name, TESTS, node)
        node.node = _metered(node.node)
        node.args = [_metered(arg) for arg in node.args or ()]
        return node

    def comparison(self, node: nodes.Compare) -> nodes.Node:
        node.expr = _metered(node.expr)
        for operand in node.ops:
            operand.expr = _metered(operand.expr)
        return node

    def concatenation(self, node: nodes.Concat) -> nodes.Node:
        return _metered(_step("~joined", nodes.List(node.nodes, lineno=node.lineno)))

    def literal(self, node: nodes.Literal) -> nodes.Node:
        is_target = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if is_target else _step("~built", node)

    def member(self, node: nodes.Getitem) -> nodes.Node:
        if isinstance(node.arg, nodes.Slice):
            node.node = _metered(node.node)
        is_row = isinstance(node.node, nodes.Name) and node.node.name == "row" and not self._owns_row
        if is_row and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            self.columns.add(node.arg.value)
            return _step("~column", node.arg)
        return node

    def attribute(self, node: nodes.Getattr) -> nodes.Node:
        if node.attr.startswith("__"):
            _refuse(f"the attribute {node.attr!r} is private", node)
        return node

    def name(self, node: nodes.Name) -> nodes.Node:
        if node.name == "self":
            _refuse("`self` means the template itself; a column of that name is row['self']", node)
        return node


_REWRITES: dict[type[nodes.Node], Callable[[Rewriter, Any], nodes.Node]] = {
    nodes.Output: Rewriter.output,
    nodes.For: Rewriter.loop,
    nodes.Filter: Rewriter.filter,
    nodes.Test: Rewriter.test,
    nodes.Compare: Rewriter.comparison,
    nodes.Concat: Rewriter.concatenation,
    nodes.Dict: Rewriter.literal,
    nodes.List: Rewriter.literal,
    nodes.Tuple: Rewriter.literal,
    nodes.Getitem: Rewriter.member,
    nodes.Getattr: Rewriter.attribute,
    nodes.Name: Rewriter.name,
}


def _step(name: str, operand: nodes.Expr, *constants: object) -> nodes.Filter:
    arguments = [nodes.Const(constant, lineno=operand.lineno) for constant in constants]
    return nodes.Filter(operand, name, arguments, [], None, None, lineno=operand.lineno)


def _metered(operand: nodes.Expr) -> nodes.Expr:
    return operand if isinstance(operand, nodes.Const) else _step("~metered", operand)


def _spelling(node: nodes.Node) -> str:
    """How the template spells a value, where it is a name or a member of one."""
    match node:
        case nodes.Name():
            return node.name
        case nodes.Getattr(node=inner, attr=attribute):
            return f"{spelled}.{attribute}" if (spelled := _spelling(inner)) else ""
        case nodes.Getitem(node=inner, arg=nodes.Const() as key):
            return f"{spelled}[{key.value!r}]" if (spelled := _spelling(inner)) else ""
        case nodes.Filter(name="~column", node=nodes.Const() as column):
            return f"row[{column.value!r}]"
        case _:
            return ""


def _check_known(kind: str, name: str, known: dict[str, Any], node: nodes.Node) -> None:
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(sorted(known))}"
        _refuse(f"no {kind} named {name!r}{hint}", node)


def _refuse(message: str, node: nodes.Node) -> NoReturn:
    raise TemplateSyntaxError(message, node.lineno)
