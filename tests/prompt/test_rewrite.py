import pytest

from batchllm.prompt import Template, TemplateError


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("{% macro f() %}{% endmacro %}", "macro"),
        ("{% macro f() %}{% endmacro %}{% call f() %}{% endcall %}", "macro"),
        ("{% call f() %}{% endcall %}", "call"),
        ("{% block b %}{% endblock %}", "block"),
        ("{% extends 'x' %}", "extends"),
        ("{% include 'x' %}", "include"),
        ("{% import 'x' as y %}", "import"),
        ("{% from 'x' import y %}", "from"),
        ("{% autoescape true %}{% endautoescape %}", "autoescape"),
        ("{% if false %}{% include 'x' %}{% endif %}", "include"),
    ],
)
def test_tags_that_the_sandbox_does_not_bound_are_refused(text: str, tag: str) -> None:
    with pytest.raises(TemplateError, match=rf"\{{% {tag} %\}} has no place"):
        Template(text, where="p")


@pytest.mark.parametrize(
    "text", ["{{ a.__class__ }}", "{{ a.b.__init__() }}", "{% if a.__len__ %}{% endif %}"]
)
def test_private_attributes_are_refused_with_their_line(text: str) -> None:
    with pytest.raises(TemplateError, match="is private") as caught:
        Template("\n" + text, where="p")
    assert caught.value.line == 2


def test_an_unknown_filter_is_refused_inside_a_branch_that_never_runs() -> None:
    with pytest.raises(TemplateError, match="no filter named"):
        Template("{% if false %}{{ a | frobnicate }}{% endif %}", where="p")


def test_self_is_refused_with_the_way_to_a_column_of_that_name() -> None:
    with pytest.raises(TemplateError, match=r"row\['self'\]"):
        Template("{{ self }}", where="p")
    assert Template("{{ row['self'] }}", where="p").render({"self": 1}) == "1"


def test_a_key_with_one_underscore_is_data() -> None:
    assert Template("{{ doc._id }}", where="p").render({"doc": {"_id": 7}}) == "7"
