"""The distribution of one token before and after each filter, as lines."""

from __future__ import annotations

from typing import Any

from textual.content import Content

from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.pieces import visible

TOKEN_WIDTH, STAGE_WIDTH, LEAST_BAR = 13, 9, 10
SHORT = {"repetition penalty": "penalty", "no-repeat n-gram": "n-gram", "temperature": "temp"}


def percent(share: float) -> str:
    """``12.3 %``; a dash for what was filtered out."""
    if share <= 0:
        return "–"
    return "<0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def chart(result: dict[str, Any], width: int, height: int) -> list[Content]:
    """A column for each stage, and a bar of the last with a mark where the model had the token.

    Bars are of the largest share shown.
    """
    stages, known = _with_greedy(result)
    room = (width - TOKEN_WIDTH - LEAST_BAR) // STAGE_WIDTH
    shown = list(range(len(stages)))
    if len(shown) > room:
        # The model's own and the last ones; what those between did is in the figures of the last.
        shown = [0, *shown[len(shown) - max(1, room - 1) :]]
    heads = ("name", "setting", "kept", "entropy") if height > 9 else ("name", "setting", "kept")
    lines = [_head(stages, shown, what) for what in heads]
    tokens = known[: max(1, height - len(lines))]
    bar_width = max(0, width - TOKEN_WIDTH - STAGE_WIDTH * len(shown) - 2)
    ends = [(token["probabilities"][0], token["probabilities"][-1]) for token in tokens]
    largest = max((max(pair) for pair in ends), default=1.0) or 1.0
    for token, (before, after) in zip(tokens, ends, strict=True):
        chances = token["probabilities"]
        name = visible(str(token["text"])).rstrip("\n")
        cells: list[Content | str | tuple[str, str]] = [
            left(name, TOKEN_WIDTH, "bold" if chances[-1] > 0 else "$muted")
        ]
        for stage in shown:
            style = "$muted" if stage == 0 or chances[stage] <= 0 else ""
            cells.append(right(percent(chances[stage]), STAGE_WIDTH, style))
        cells += ["  ", marked_bar(after / largest, before / largest, bar_width)]
        lines.append(Content.assemble(*cells))
    return lines


def _with_greedy(result: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Stages and tokens; where there is no chance, taking the most probable token is the last stage."""
    stages, tokens = list(result["stages"]), list(result["tokens"])
    if not result["greedy"] or not tokens:
        return stages, tokens
    best = max(tokens, key=lambda token: token["probabilities"][-1])["id"]
    stages.append({"name": "greedy", "setting": None, "kept": 1, "entropy_bits": 0.0})
    ended = [[*token["probabilities"], float(token["id"] == best)] for token in tokens]
    return stages, [{**token, "probabilities": chances} for token, chances in zip(tokens, ended, strict=True)]


def marked_bar(share: float, before: float, width: int) -> Content:
    """A bar, with a mark at the share that it had before."""
    if width < 4:
        return Content("")
    filled = max(1, round(share * width)) if share > 0 else 0
    at = min(width - 1, round(before * width))
    cells = ["━"] * filled + ["─"] * (width - filled)
    bar = Content.assemble(("".join(cells[:filled]), "$accent"), ("".join(cells[filled:]), "$faint"))
    return Content.assemble(bar[:at], ("┃", "bold $foreground"), bar[at + 1 :])


def _head(stages: list[dict[str, Any]], shown: list[int], what: str) -> Content:
    words = {"name": "TOKEN", "setting": "", "kept": "tokens left", "entropy": "bits"}[what]
    cells: list[Content] = [left(words, TOKEN_WIDTH, "bold $muted" if what == "name" else "$muted")]
    for index in shown:
        stage = stages[index]
        setting = stage["setting"]
        text = {
            "name": SHORT.get(stage["name"], str(stage["name"])),
            "setting": "" if setting is None else f"{setting:g}" if isinstance(setting, (int, float)) else str(setting),
            "kept": f"{stage['kept']:,}",
            "entropy": f"{stage['entropy_bits']:.2f}",
        }[what]
        cells.append(right(text, STAGE_WIDTH, "bold" if what in ("name", "setting") else "$muted"))
    return Content("").join(cells)
