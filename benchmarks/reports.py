"""What the benchmarks of tools and context make of their figures: a table, JSON, verdicts."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import columns, direct_await, markdown, put_between

__all__ = ["Report", "Row", "report_on"]

_README = Path(__file__).parent.parent / "README.md"
_FINE = 100  # figures below it are shown with two decimals


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        key: its name among the figures.
        title: what is measured.
        unit: what the figures count.
        limit: how much it may be.
        least: the limit is how much it has to be.
    """

    key: str
    title: str
    unit: str
    limit: float | None = None
    least: bool = False

    def bound(self) -> str:
        """Return the limit as the table shows it."""
        if self.limit is None:
            return "-"
        return f"{'at least' if self.least else 'at most'} {self.limit:g}"

    def verdict(self, figures: Sequence[float | None]) -> str:
        """Compare our own figures, as they are shown, with the limit: all have to keep it."""
        known = [float(_shown(figure).replace(",", "")) for figure in figures if figure is not None]
        if self.limit is None or not known:
            return "-"
        reached = min(known) >= self.limit if self.least else max(known) <= self.limit
        return "yes" if reached else "missed"


@dataclass(frozen=True)
class Report:
    """What a run has found.

    Attributes:
        rows: the table's lines.
        names: its columns.
        own: the columns that are judged.
        figures: by row's key and column; a figure that is missing is shown as a dash.
        notes: what the table was made from.
        wrong: a line for each count or answer that was wrong.
    """

    rows: Sequence[Row]
    names: Sequence[str]
    own: Sequence[str]
    figures: Mapping[tuple[str, str], float]
    notes: Sequence[str]
    wrong: Sequence[str]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return head and lines."""
        lines = [
            [row.title, row.unit, row.bound(), self._verdict(row)]
            + [_shown(self.figures.get((row.key, name))) for name in self.names]
            for row in self.rows
        ]
        return ["", "counted in", "goal", "reached", *self.names], lines

    def data(self) -> dict[str, object]:
        """Return everything as JSON takes it."""
        rows = [
            {
                **asdict(row),
                "verdict": self._verdict(row),
                "figures": {name: self.figures.get((row.key, name)) for name in self.names},
            }
            for row in self.rows
        ]
        python = platform.python_version()
        return {"python": python, "rows": rows, "notes": [*self.notes], "wrong": [*self.wrong]}

    def _verdict(self, row: Row) -> str:
        return row.verdict([self.figures.get((row.key, name)) for name in self.own])


def _shown(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.2f}" if figure < _FINE else f"{figure:,.0f}"


def report_on(
    name: str,
    summary: str,
    rounds: int,
    measure: Callable[[int, bool], Coroutine[Any, Any, Report]],
) -> int:
    """Measure as the command line asks, print the table; return 1 if something was wrong.

    Args:
        name: the script's, and of its place in the README.
        summary: what it does.
        rounds: how often each subject has its turn, if the command line doesn't say.
        measure: does it, for that many rounds, in full or quickly.
    """
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--quick", action="store_true", help="little work: to see that it works")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each subject runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    quick: bool = options.quick
    report = asyncio.run(measure(2 if quick else options.rounds, quick))
    floor = asyncio.run(direct_await())
    speed = f"How fast the machine was: one direct `await handler(message)` took {floor:.0f} ns."
    notes = "\n".join([*report.notes, speed])
    sys.stdout.write(f"{columns(*report.table())}\n\n{notes}\n")
    if options.json:
        options.json.write_text(json.dumps(report.data(), indent=2) + "\n", "utf-8")
    if options.readme:
        command = f"```\nuv run benchmarks/{name}.py\n```"
        text = f"{command}\n\n{markdown(*report.table())}\n\n{notes}"
        put_between(_README, f"benchmarks:{name}", text)
    for line in report.wrong:
        sys.stderr.write(f"wrong: {line}\n")
    return 1 if report.wrong else 0
