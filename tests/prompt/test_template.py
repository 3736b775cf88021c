import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.errors import RowError
from batchllm.prompt import Template, TemplateError


def render(text: str, /, **values: object) -> str:
    return Template(text, where="task.prompt").render(values)


def refusal(text: str, /, **values: object) -> str:
    with pytest.raises(RowError) as caught:
        render(text, **values)
    return caught.value.message


@pytest.mark.parametrize("text", ["", "plain", "a { b } c", "50 % of {x}", "line\n", "\n\n", "}} %}"])
def test_text_without_tags_is_returned_as_it_is(text: str) -> None:
    template = Template(text, where="task.prompt")
    assert template.render({}) == text
    assert template.columns == frozenset()


def test_columns_are_filled_in() -> None:
    assert render("{{ a }}, {{ b }}{{ a }}\n", a="x", b=2) == "x, 2x\n"


def test_a_last_newline_is_kept() -> None:
    assert render("{{ a | trim }}\n", a="x") == "x\n"


@pytest.mark.parametrize("text", ["{{ text }}", "{{ text | trim }}", "{% if text %}{{ text }}{% endif %}"])
@pytest.mark.parametrize("row", ["{{ 7 * 7 }}", "{% for x in y %}", "{# c #}", "{{ text }}", "{{"])
def test_row_text_with_tags_is_inert(text: str, row: str) -> None:
    assert render(text, text=row) == row


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers())
    | st.binary()
)


@given(st.dictionaries(st.sampled_from("abc"), VALUES), st.lists(st.sampled_from(["a", "b", "x } y", "\n"])))
def test_bare_columns_are_filled_in_as_jinja_would(values: dict[str, object], parts: list[str]) -> None:
    text = "".join(f"{{{{ {part} }}}}" if part in {"a", "b", "c"} else part for part in parts)
    quick = Template(text, where="p")
    full = Template(text + "\n{% if false %}{% endif %}", where="p")
    assert quick.columns == full.columns

    def outcome(template: Template) -> str:
        try:
            return template.render(values).rstrip("\n")
        except RowError as error:
            return "refused: " + re.sub(r"^p(, line \d+)?: ", "", error.message)

    assert outcome(quick) == outcome(full)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("{{ a }} {{ b.c }}", {"a", "b"}),
        ("{% for x in xs %}{{ x }}{{ loop.index }}{{ y }}{% endfor %}", {"xs", "y"}),
        ("{% set z = a %}{{ z }}", {"a"}),
        ("{{ row['my column'] }} {{ a }}", {"my column", "a"}),
        ("{% for row in rows %}{{ row['name'] }}{% endfor %}", {"rows"}),
        ("{{ row.name }}", {"row"}),
        ("{% if a is defined %}{{ b | default(c) }}{% endif %}", {"a", "b", "c"}),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", set()),
        ("{# {{ a }} #}{% raw %}{{ b }}{% endraw %}", set()),
    ],
)
def test_the_columns_that_a_template_reads_are_known(text: str, columns: set[str]) -> None:
    assert Template(text, where="p").columns == columns


def test_a_column_whose_name_is_no_identifier_is_read_through_row() -> None:
    assert Template("{{ row['Review Text'] }}", where="p").render({"Review Text": "good"}) == "good"


def test_a_loop_variable_called_row_is_itself() -> None:
    assert render("{% for row in rows %}{{ row['a'] }}{% endfor %}", rows=[{"a": 1}, {"a": 2}]) == "12"


def test_a_column_called_range_is_read_through_row() -> None:
    assert Template("{{ row['range'] }}", where="p").render({"range": 5}) == "5"


@pytest.mark.parametrize(
    "text", ["{{ txet }}", "{{ txet | upper }}", "{{ row['txet'] }}", "{% if txet %}{% endif %}"]
)
def test_a_missing_column_is_named_with_the_nearest(text: str) -> None:
    said = refusal(text, id=1, text="x")
    assert said.startswith("task.prompt")
    assert "no column 'txet'" in said
    assert "did you mean 'text'" in said


@pytest.mark.parametrize(
    "text",
    [
        "{{ a }}",
        "{{ a }}!{% if true %}{% endif %}",
        "{{ a | upper }}",
        "{{ a | int }}",
        "{{ a ~ 'x' }}",
        "{{ [a] | join }}",
        "{{ ['x'] | map('replace', 'x', a) | list }}",
        "{{ '%s' % a }}",
        "{{ '{}'.format(a) }}",
        "{{ [a] | map('upper') | list }}",
    ],
)
def test_a_null_column_is_never_printed(text: str) -> None:
    with pytest.raises(RowError):
        render(text, a=None)


def test_a_null_column_is_named() -> None:
    assert "{{ a }} is null in this row" in refusal("x {{ a }}", a=None)
    assert "{{ a.b }} is null in this row" in refusal("x {{ a.b }}", a={"b": None})


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("{% if a %}x{% else %}y{% endif %}", "y"),
        ("{{ a or '-' }}", "-"),
        ("{{ a | default('-') }}", "-"),
        ("{{ a | d('-') | upper }}", "-"),
        ("{{ a is none }}", "true"),
        ("{{ a | tojson }}", "null"),
        ("{{ nan | default('-') }}", "-"),
        ("{{ gone | default('-') }}", "-"),
        ("{{ gone is defined }}", "false"),
    ],
)
def test_a_template_can_take_care_of_null(text: str, printed: str) -> None:
    assert render(text, a=None, nan=float("nan")) == printed


def test_an_error_says_the_line_of_the_template() -> None:
    assert refusal("one\ntwo {{ a | upper }}\nthree {{ a / 0 }}", a=1).startswith(
        "task.prompt, line 3: division"
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("{{ a", 1, "end of"),
        ("x\n{% if a %}", 2, "endif"),
        ("x\n\n{{ a | uper }}", 3, "did you mean upper"),
        ("{{ a is nothing_known }}", 1, "no test named"),
        ("{% frobnicate %}", 1, "unknown tag"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", 1, "too deep"),
        ("{% for a in b %}" * 30 + "{% endfor %}" * 30, 1, "too deep"),
    ],
)
def test_a_faulty_template_is_refused_when_it_is_made(text: str, line: int, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text, where="task.prompt")
    assert caught.value.line == line
    assert said in caught.value.message
    assert caught.value.where == "task.prompt"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("text", ["{{ a }}", "{{ a | trim }}", "x\ud800", "{{ a ~ a }}"])
def test_lone_surrogates_do_not_survive(text: str) -> None:
    printed = render(text, a="x\ud800y")
    printed.encode()
    assert "\ufffd" in printed


@pytest.mark.parametrize(
    "text", ["{{ a }}", "{{ a | trim }}", "x" * 11, "{% filter upper %}{{ a }}{% endfilter %}"]
)
def test_a_text_longer_than_the_limit_is_refused(text: str) -> None:
    template = Template(text, where="task.prompt", limit=10)
    with pytest.raises(RowError, match=r"characters|too long"):
        template.render({"a": "x" * 11})
    assert Template("{{ a }}", where="p", limit=10).render({"a": "x" * 10}) == "x" * 10


def test_one_template_renders_many_rows_each_on_its_own() -> None:
    template = Template("{% set n = a ~ '!' %}{{ n }}", where="p")
    assert [template.render({"a": at}) for at in range(3)] == ["0!", "1!", "2!"]


def test_the_row_is_not_changed() -> None:
    values = {"a": [1, 2]}
    render("{% set a = 5 %}{{ a }}", **values)
    assert values == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("text", "optional"),
    [
        ("{{ a }}", set()),
        ("{{ a | default('x') }} {{ b }}", {"a"}),
        ("{{ a | d('x') | trim }}", {"a"}),
        ("{% if a is defined %}{{ a }}{% endif %}", {"a"}),
        ("{{ a.b | default('x') }}", set()),
        ("plain", set()),
    ],
)
def test_a_template_says_what_it_can_do_without(text: str, optional: set[str]) -> None:
    assert Template(text, where="p").optional == optional
