"""Colours of the console's pages against what they lie on: WCAG 2.2, 1.4.3 (text) and 1.4.11 (lines and dots)."""

from __future__ import annotations

import re

import pytest

from toolkit.provisioning.pages import HOME

SHEET = (HOME / "static" / "console.css").read_text()
TEXT, SHAPE = 4.5, 3.0
PAIRS = [
    *((ink, paper, TEXT) for ink in ("ink", "soft", "accent", "bad") for paper in ("card", "paper", "wash")),
    *((ink, "card", TEXT) for ink in ("good", "warn")),
    ("bad", "bad-wash", TEXT), ("ink", "bad-wash", TEXT), ("soft", "bad-wash", TEXT), ("accent", "bad-wash", TEXT),
    ("on-accent", "accent", TEXT), ("card", "bad", TEXT), ("card", "ink", TEXT),
    *((f"s{number}", "card", SHAPE) for number in range(1, 9)),
]  # fmt: skip


def schemes() -> dict[str, dict[str, str]]:
    """Name -> variables; the dark ones stand in place of the light ones."""
    light, dark = (
        re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block)
        for block in re.findall(r":root \{(.*?)\n *\}", SHEET, re.DOTALL)[:2]
    )
    return {"light": dict(light), "dark": {**dict(light), **dict(dark)}}


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_itself() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", schemes())
def test_what_is_written_and_drawn_can_be_told_from_what_it_lies_on(scheme: str) -> None:
    colours = schemes()[scheme]
    assert len(colours) == 20
    weak = [
        f"--{over} on --{under}: {found:.2f}"
        for over, under, least in PAIRS
        if (found := contrast(colours[over], colours[under])) < least
    ]
    assert weak == []
