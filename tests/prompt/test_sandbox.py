"""Templates made to break out or to stall; each is met with an error, and the tests' time limit bounds them."""

from datetime import date

import pytest

from batchllm.errors import RowError
from batchllm.prompt import Template, TemplateError
from batchllm.prompt.sandbox import RANGE_LIMIT

ROW: dict[str, object] = {
    "text": "some text",
    "number": 3,
    "tags": ["b", "a"],
    "doc": {"title": "T", "size": 1.25, "items": 5},
    "when": date(2024, 1, 2),
    "big": "x" * 1_000_000,
    "deep": {"in": ["x" * 1_000] * 1_000},
}


def render(text: str) -> str:
    return Template(text, where="p").render(ROW)


@pytest.mark.parametrize(
    "text",
    [
        "{{ text.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ text['__class__'] }}",
        "{{ text['__cl' ~ 'ass__'] }}",
        "{{ text | attr('__class__') }}",
        "{{ [text] | map(attribute='__class__') | list }}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ '{x.__class__}'.format(x=text) }}",
        "{{ doc | map('attr', '__class__') | list }}",
        "{{ range.__globals__ }}",
        "{{ range['__globals__'] }}",
        "{% for x in tags %}{{ loop.__init__ }}{% endfor %}",
        "{{ text.format.__globals__ }}",
        "{{ text.replace.func }}{{ text.replace.func.__globals__ }}",
        "{{ self }}",
        "{{ self.__init__ }}",
        "{{ tags.append(1) }}",
        "{{ tags.sort() }}",
        "{{ doc.update(x=1) }}",
        "{{ doc.pop('title') }}",
        "{{ text.encode() }}",
        "{{ when.today() }}",
        "{{ when.fromisoformat('2024-01-01') }}",
        "{{ tags | random }}",
        "{{ text | pprint }}",
        "{{ lipsum() }}",
        "{{ cycler('a') }}",
        "{{ joiner() }}",
        "{{ namespace(a=1) }}",
        "{{ dict(a=1) }}",
        "{{ config }}",
        "{{ ['text'] | map('~column') | list }}",
    ],
)
def test_no_way_out(text: str) -> None:
    with pytest.raises((RowError, TemplateError)):
        render(text)


def test_the_row_is_as_it_was() -> None:
    assert ROW["tags"] == ["b", "a"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**8 }}",
        "{{ 10**8 * 'a' }}",
        "{{ [1] * 10**7 }}",
        "{{ (1, 2) * 10**7 }}",
        "{{ 99 ** 99999 }}",
        "{% set a = 99 %}" + "{% set a = a * a %}" * 40,
        "{% set a = 'x' * 99999 %}" + "{% set a = a + a %}" * 30,
        "{% set a = 'x' * 99999 %}" + "{% set a = a ~ a %}" * 30,
        "{% set a = ['x'] %}" + "{% set a = [a, a] %}" * 40,
        "{% set a = ['x'] %}" + "{% set a = (a, a) %}" * 40,
        "{% set a = {'k': 'x'} %}" + "{% set a = {'k': a, 'l': a} %}" * 40,
        "{% set a = ['x'] %}" + "{% set a = a + a %}" * 40,
        "{{ range(10**9) | list }}",
        "{{ range(0, 10**9, 2) | length }}",
        "{% set r = range(3000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
        "{% set r = range(9999) %}{% for a in r %}{% for b in r if false %}{% endfor %}{% endfor %}",
        "{% for a in [[1]] recursive %}{{ loop(a) }}{{ loop([[1]]) }}{% endfor %}",
        "{% for a in range(9999) %}{% if a in range(9999) | list %}{% endif %}{% endfor %}",
        "{% for a in range(9999) %}{% if range(9999) | list is sequence %}{% endif %}{% endfor %}",
        "{% set b = range(9999) | list %}{% for a in b %}{% if a in b %}{% endif %}{% endfor %}",
        "{% set b = range(9999) | list %}{{ b | select('in', b) | list | length }}",
        "{% for a in range(9999) %}{% set b = deep | tojson %}{% endfor %}",
        "{% for a in range(9999) %}{% set b = deep ~ '' %}{% endfor %}",
        "{% for a in range(9999) %}{% set b = big + 'x' %}{% endfor %}",
        "{% for a in range(9999) %}{% set b = 'xy'.join(deep['in']) %}{% endfor %}",
        "{% for a in range(9999) %}{% set b = big | upper %}{% endfor %}",
        "{% for a in range(9999) %}{% set b = big.upper() %}{% endfor %}",
        "{% for a in range(9999) %}{% set b = big[::-1] %}{% endfor %}",
        "{% for a in range(9999) %}{{ big }}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}" + "y" * 9999 + "{% endfor %}{% endfor %}",
        "{% set a %}{% for a in range(9999) %}{{ big }}{% endfor %}{% endset %}",
        "{{ range(9999) | map('string') | map('replace', '', big) | list }}",
        "{{ big | replace('', big) }}",
        "{{ big.replace('x', big) }}",
        "{{ big.join(big) }}",
        "{{ range(9999) | join(big) }}",
        "{{ text | indent(10**9) }}",
        "{{ '1\n2\n3\n4\n5' | indent(big) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ ('%s' * 99999) % (big,) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ ('{0}' * 99999).format(big) }}",
        "{{ ('{a}' * 99999).format_map({'a': big}) }}",
        "{{ text.ljust(10**9) }}",
        "{{ text.zfill(10**9) }}",
        "{{ text | center(10**9) }}",
        "{{ tags | batch(10**9, 'x') | list }}",
        "{{ tags | slice(10**9) | list }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{{ [[1] * 9999] * 99 | sum(start=[]) }}",
        "{{ tags | tojson(10**9) }}",
    ],
)
def test_a_bomb_is_refused(text: str) -> None:
    with pytest.raises((RowError, TemplateError)) as caught:
        render(text)
    assert "MemoryError" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ 1 + 2 }}", "ababab102433"),
        ("{{ 'a' + 'b' }}{{ ['a'] + ['b'] }}", 'ab["a", "b"]'),
        ("{{ 'n=' ~ number ~ true }}", "n=3true"),
        ("{{ tags | sort | join(', ') }}", "a, b"),
        ("{{ tags | map('upper') | join }}", "BA"),
        ("{{ [doc] | map(attribute='title') | join }}", "T"),
        ("{{ [doc, doc] | join('+', attribute='title') }}", "T+T"),
        ("{{ [doc] | sum(attribute='size') }}", "1.25"),
        ("{{ [1, 2] | sum }}", "3"),
        ("{{ text | replace('e', 'E') }}{{ text.replace('some', 'a') }}", "somE tExta text"),
        ("{{ 'aaa' | replace('a', 'b', 2) }}{{ 'aaa'.replace('a', 'b', 2) }}", "bbabba"),
        ("{{ text.split() | first }}{{ ', '.join(tags) }}", "someb, a"),
        ("{{ '%05.1f|%s' % (2.25, text) }}", "002.2|some text"),
        ("{{ '%(a)s' | format(a=1) }}{{ '%.2f' | format(1.5) }}", "11.50"),
        ("{{ '%d %%' % 5 }}", "5 %"),
        ("{{ '{:.2f} {:>4} {x}'.format(1.5, 'r', x=1) }}", "1.50    r 1"),
        ("{{ text | truncate(7, leeway=0) }}{{ text | truncate(7) }}", "some...some text"),
        ("{{ text | title }}{{ text | capitalize }}{{ text | wordcount }}", "Some TextSome text2"),
        ("{{ '<a>' | e }}", "&lt;a&gt;"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ doc | tojson }}", '{"title": "T", "size": 1.25, "items": 5}'),
        ("{{ tags | tojson(2) }}", '[\n  "b",\n  "a"\n]'),
        ("{{ doc['items'] }}{{ doc.get('title') }}", "5T"),
        ("{% for k, v in doc.items() %}{{ k }}={{ v }};{% endfor %}", "title=T;size=1.25;items=5;"),
        ("{% for t in tags %}{{ loop.index }}{{ t }}{{ loop.cycle('x', 'y') }}{% endfor %}", "1bx2ay"),
        ("{% for t in tags if t != 'b' %}{{ t }}{% else %}none{% endfor %}", "a"),
        ("{{ when.year }} {{ when.strftime('%d.%m.') }}", "2024 02.01."),
        ("{{ number is odd }}{{ text is string }}{{ 'some' in text }}", "truetruetrue"),
        ("{{ 2.567 | round(1) }}{{ '7' | int + 1 }}{{ text | length }}", "2.689"),
        ("{% with a = 1 %}{{ a }}{% endwith %}{% set b %}x{{ a | default(2) }}{% endset %}{{ b }}", "1x2"),
        ("{% filter upper %}{{ text }}{% endfilter %}", "SOME TEXT"),
        ("{{ text[:4] }}{{ tags[-1] }}{{ text[::-1] }}", "someatxet emos"),
        ("{{ text if number > 2 else 'no' }}", "some text"),
        ("{{ [3, 1, 2] | sort(reverse=true) | list }}{{ [1, 1] | unique | list }}", "[3, 2, 1][1]"),
        ("{{ tags | select('equalto', 'a') | list }}{{ tags | reject('in', ['a']) | list }}", '["a"]["b"]'),
        ("{{ true | upper }}{{ tags | upper }}", 'TRUE["B", "A"]'),
    ],
)
def test_harmless_things_work(text: str, printed: str) -> None:
    assert render(text) == printed


def test_a_long_list_fits_into_the_allowance() -> None:
    rows = [{"name": f"n{at}", "price": at} for at in range(RANGE_LIMIT)]
    template = Template(
        "{% for row in rows %}{{ loop.index }}. {{ row['name'] | trim | upper }}: {{ '%.2f' % row.price }}\n"
        "{% endfor %}",
        where="p",
    )
    assert template.render({"rows": rows}).count("\n") == RANGE_LIMIT


def test_the_allowance_is_each_row_s_own() -> None:
    template = Template(
        "{% for a in range(9999) %}{% for b in range(60) %}{% endfor %}{% endfor %}ok", where="p"
    )
    assert [template.render({}) for _ in range(2)] == ["ok", "ok"]
