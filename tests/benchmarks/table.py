"""One row of the benchmark table: a figure of ours beside its peer's, measured in the same run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

ROWS = "WORKBENCH_BENCHMARK_ROWS"
"""Names the file that rows are added to, one JSON object a line; unset where a benchmark runs by itself."""


@dataclass(frozen=True)
class Row:
    """What was compared.

    Attributes:
        what: ours, and against what.
        ours: as measured, in `unit`.
        peer: likewise; an aim's own figure where there is no peer.
        unit: such as ``s`` or ``tok/s``.
        aim: for the ratio of ours to the peer's; None where nothing is aimed at.
        more_is_better: whether the aim is the least ratio rather than the largest.
    """

    what: str
    ours: float
    peer: float
    unit: str
    aim: float | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Ours by the peer's."""
        return self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the aim is met."""
        if self.aim is None:
            return None
        return self.ratio >= self.aim if self.more_is_better else self.ratio <= self.aim


def tell(row: Row) -> None:
    """Add a row to the table that is being made, if one is."""
    path = os.environ.get(ROWS)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def markdown(rows: list[Row]) -> str:
    """The table."""
    lines = ["| what | ours | peer | ratio | aim | |", "|---|---|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.more_is_better else "≤"
        aim = "–" if row.aim is None else f"{sign} {row.aim:g}"
        met = {None: "", True: "✔ met", False: "✖ missed"}[row.met]
        ours, peer = (f"{_figure(value)} {row.unit}" for value in (row.ours, row.peer))
        lines.append(f"| {row.what} | {ours} | {peer} | {row.ratio:.2f} | {aim} | {met} |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
