"""The sequence of an orchestration request as a drawing: a line for each system, an arrow for each message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from toolkit.report.table import in_ms

_COLUMN = 190
_ROW = 30
_TOP = 46
_BESIDE = 40
"""Room right of the last system for what is said of its queries."""
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>'
)


def shown_steps(sequence: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Messages and queries, and the systems in the order in which they take part."""
    steps = [step for step in sequence if step["kind"] in {"message", "query"}]
    return steps, list(dict.fromkeys(system for step in steps for system in (step["from"], step["to"])))


def draw_sequence(sequence: Sequence[Mapping[str, Any]]) -> str:
    """An SVG picture, steps from top to bottom as they happen on average, each with its mean; empty without steps."""
    steps, systems = shown_steps(sequence)
    if not steps:
        return ""
    x = {system: _COLUMN // 2 + number * _COLUMN for number, system in enumerate(systems)}
    width, height = len(systems) * _COLUMN + _BESIDE, _TOP + (len(steps) + 1) * _ROW
    parts = [
        f'<svg class="sequence" viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="sequence">',
        _TIP,
    ]
    for system in systems:
        parts.append(_text(x[system], 18, system, bold=True))
        parts.append(_line(x[system], 28, x[system], height - 8, dashed=True))
    for row, step in enumerate(steps):
        y = _TOP + (row + 1) * _ROW - 6
        start, end = x[step["from"]], x[step["to"]]
        took = f"{in_ms(step['mean_ms'])} ms"
        if step["kind"] == "query":
            parts.append(
                f'<rect x="{start - 5}" y="{y - 14}" width="10" height="18" rx="2" fill="currentColor" opacity=".45"/>'
            )
            parts.append(_text(start + 10, y, f"database {took}", anchor="start"))
        else:
            parts.append(_line(start, y, end, y))
            parts.append(_text((start + end) // 2, y - 5, f"{step['operation']} {took}"))
    return "".join([*parts, "</svg>"])


def _line(x1: int, y1: int, x2: int, y2: int, *, dashed: bool = False) -> str:
    more = 'stroke-dasharray="3 4" opacity=".5"' if dashed else 'marker-end="url(#tip)"'
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" {more}/>'


def _text(x: int, y: int, words: str, *, bold: bool = False, anchor: str = "middle") -> str:
    style = f'text-anchor="{anchor}" font-size="11" fill="currentColor"' + (' font-weight="600"' if bold else "")
    return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'
