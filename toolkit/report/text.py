"""The per-hop table as Markdown, CSV and LaTeX, for papers and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.measure.promises import promise_line
from toolkit.report.table import COLUMNS, hop_rows, ledger_line, title

HEADER = ("hop", "count", "lost", *(f"{name} (ms)" for name, _ in COLUMNS), "clock bound (ms)")
_LATEX = str.maketrans(
    {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}
)  # fmt: skip


def markdown(documents: Sequence[Mapping[str, Any]]) -> str:
    """A section with a table for each run."""
    parts = []
    for document in documents:
        lines = [f"## {title(document)}", "", markdown_table(HEADER, hop_rows(document))]
        lines += [ledger_line(document["ledger"]["total"], closes=document["ledger"]["closes"])]
        lines += [f"- {promises}" for promises in (promise_line(document),) if promises]
        lines += [f"- {note}" for note in document.get("notes", ())]
        lines += [f"- not to be compared: {fault}" for fault in document["faults"]]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column stands left and the others right."""
    lines = [_row(header), _row(("---", *("---:" for _ in header[1:]))), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.strip().replace("|", r"\|") for cell in cells) + " |"


def comma_separated(documents: Sequence[Mapping[str, Any]]) -> str:
    """One line per run and hop, every figure in full precision."""
    out = io.StringIO()
    parameters = sorted({name for document in documents for name in document["parameters"]})
    figures = [name for name in next(iter(documents[0]["hops"].values())) if name != "few"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "testbed", "twin", "workload", "repetition", *parameters, "valid", "hop", *figures])
    for document in documents:
        cell = [document["parameters"].get(name, "") for name in parameters]
        head = [document[name] for name in ("run", "testbed", "twin", "workload", "repetition")]
        for hop, summary in document["hops"].items():
            values = ["" if summary[name] is None else summary[name] for name in figures]
            writer.writerow([*head, *cell, document["valid"], hop, *values])
    return out.getvalue()


def latex(documents: Sequence[Mapping[str, Any]]) -> str:
    """A booktabs table for each run."""
    return "\n".join(latex_table(title(document), HEADER, hop_rows(document)) for document in documents)


def latex_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A booktabs table."""
    body = [" & ".join(cell.strip().translate(_LATEX) for cell in row) + r" \\" for row in rows]
    head = " & ".join(name.translate(_LATEX) for name in header) + r" \\"
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [
            r"\begin{table}", r"\centering", rf"\caption{{{caption.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
            r"\end{tabular}", r"\end{table}", "",
        ]
    )  # fmt: skip
