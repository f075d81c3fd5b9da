"""Tables for papers: plain `tabular`s, which need no package."""

from __future__ import annotations

from collections.abc import Sequence

from eval.findings import Findings
from eval.matrix import Cell

_SPECIAL = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def escaped(text: str) -> str:
    """Text as it reads, whatever names people gave."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def tabular(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right.

    Args:
      head, rows: cells in LaTeX.
    """
    lines = [" & ".join(row) + r" \\" for row in (head, *rows)]
    columns = "l" + "r" * (len(head) - 1)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            lines[0],
            r"\hline",
            *lines[1:],
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def matrix_table(f: Findings) -> str:
    """The forgetting matrix of the headline policy: raw mean returns, own phases in bold."""
    rows = []
    for phase, row in enumerate(f.rows):
        own = f.run.plan[phase - 1].task if phase else ""
        cells = [
            _mean(cell, is_bold=task == own) for task, cell in zip(f.run.tasks, row, strict=True)
        ]
        rows.append([f"{phase} {escaped(own)}" if phase else "before training", *cells])
    return tabular(["phase", *map(escaped, f.run.tasks)], rows)


def _mean(cell: Cell, *, is_bold: bool) -> str:
    if not cell.n:
        return "--"
    shown = f"{cell.mean:.1f}"
    return rf"$\mathbf{{{shown}}}$" if is_bold else f"${shown}$"
