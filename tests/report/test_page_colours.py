"""Contrast of the page's colours, computed from its style sheet for both themes (WCAG 2.2: 4.5 text, 3 graphics)."""

import re
from importlib.resources import files

import pytest

CSS = (files("batchllm.report.page") / "templates" / "page.css").read_text("utf-8")
SHADE = r"\.s(\d) \{ background: color-mix\(in srgb, var\(--tone\) ([\d.]+)%"
Colour = tuple[float, float, float]


def colours(theme: int) -> dict[str, Colour]:
    found = re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\);", CSS)
    return {name: rgb((light, dark)[theme]) for name, light, dark in found}


def rgb(text: str) -> Colour:
    digits = text.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    red, green, blue = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return red, green, blue


def contrast(one: Colour, other: Colour) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: Colour) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def mixed(tone: Colour, paper: Colour, share: float) -> Colour:
    red, green, blue = (a * share + b * (1 - share) for a, b in zip(tone, paper, strict=True))
    return red, green, blue


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_graphics_stand_out_from_the_paper(theme: int) -> None:
    named = colours(theme)
    for paper in ("paper", "panel"):
        for text in ("ink", "muted", "blue", "orange"):
            assert contrast(named[text], named[paper]) >= 4.5, (text, paper)
        for graphic in ("rule", "blue-soft", "amber", "grey"):
            assert contrast(named[graphic], named[paper]) >= 3, (graphic, paper)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("tone", ["blue", "orange"])
def test_each_shade_of_a_cell_bears_its_number(theme: int, tone: str) -> None:
    named = colours(theme)
    shares = {int(step): float(share) / 100 for step, share in re.findall(SHADE, CSS)}
    assert sorted(shares) == list(range(1, 9))
    for step, share in shares.items():
        assert contrast(text_on(step, theme), mixed(named[tone], named["paper"], share)) >= 4.5, step


def text_on(step: int, theme: int) -> Colour:
    for steps, said in re.findall(r"^((?:\.s\d(?:, )?)+) \{ color: ([^;]+); \}", CSS, re.MULTILINE):
        if f".s{step}" in steps:
            each = re.findall(r"#\w{3}", said)
            return rgb(each[min(theme, len(each) - 1)])
    raise AssertionError(step)


def test_blue_and_orange_differ_in_lightness_or_hue_for_those_who_see_no_red() -> None:
    """Protanopia and deuteranopia by the matrices of Viénot, Brettel and Mollon (1999), on linear values."""
    for theme in (0, 1):
        named = colours(theme)
        for see in (protan, deutan):
            blue, orange = see(named["blue"]), see(named["orange"])
            assert sum((a - b) ** 2 for a, b in zip(blue, orange, strict=True)) ** 0.5 > 0.35


def linear(colour: Colour) -> Colour:
    red, green, blue = (part**2.2 for part in colour)
    return red, green, blue


def protan(colour: Colour) -> Colour:
    red, green, blue = linear(colour)
    both = 0.1124 * red + 0.8876 * green
    return both**0.4545, both**0.4545, max(0.0, 0.0040 * red - 0.0040 * green + blue) ** 0.4545


def deutan(colour: Colour) -> Colour:
    red, green, blue = linear(colour)
    both = 0.2928 * red + 0.7072 * green
    return both**0.4545, both**0.4545, max(0.0, -0.0223 * red + 0.0223 * green + blue) ** 0.4545
