"""The sampling options in place: what is set, and what stands there where nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from textual.content import Content

from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row
from workbench.ui.widgets.value_list import ValueList

LABEL_WIDTH, VALUE_WIDTH = 20, 14
LABELS = {
    "top_p": "top-p",
    "top_k": "top-k",
    "min_p": "min-p",
    "repetition_penalty": "repetition penalty",
    "no_repeat_ngram_size": "no-repeat n-gram",
    "max_new_tokens": "max new tokens",
    "stop": "stop texts",
    "prompt_lookup": "prompt lookup",
}
KINDS = {"stop": "text", "greedy": "boolean", **dict.fromkeys(("temperature", "top_p", "min_p"), "number")}
STEPS = {
    "temperature": 0.1, "top_p": 0.05, "top_k": 5, "min_p": 0.01, "repetition_penalty": 0.05,
    "no_repeat_ngram_size": 1, "max_new_tokens": 64, "seed": 1, "prompt_lookup": 1,
}  # fmt: skip


class SamplingList(ValueList):
    """One option a row: its value, and beside it what the model or the workbench would take."""

    def set_options(self, options: list[dict[str, Any]], given: dict[str, Any], wrong: set[str]) -> None:
        """Show these options of `SamplingRead` with what the user set."""
        fields = [field_of(option, given) for option in options]
        typing = self._typing
        self.wrong = wrong
        self.set_rows([Row(str(field["key"]), self._line_of(field), field) for field in fields])
        self._typing = typing
        self.refresh()

    def refuse(self, reason: str) -> None:
        """Say in the row why its value was not taken."""
        self._refusal = reason
        self.refresh_line(self.cursor)

    def _line_of(self, field: dict[str, Any]) -> Callable[[int], Content]:
        def line(width: int) -> Content:
            here = self.row is not None and self.row.key == field["key"]
            typing = here and self._typing is not None
            mark = ("● ", "bold $accent") if field["given"] else ("  ", "")
            shown = f"{self._typing}▏" if typing else str(field["shown"])
            arrows = ("◂ ", " ▸") if here and not typing else ("  ", "  ")
            label = left(str(field["label"]), LABEL_WIDTH, "" if here else "$muted")
            value = Content.assemble((arrows[0], "$accent"), (shown, "bold"), (arrows[1], "$accent"))
            tail: tuple[str, str] = (f"  {field['own']}", "$muted")
            if here and self._refusal:
                tail = (f"  ✖ {self._refusal}", "$bad")
            value = value.pad_right(max(0, VALUE_WIDTH - value.cell_length))
            return Content.assemble(mark, label, value, tail)

        return line


def field_of(option: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """An option as `ValueList` steps and types it."""
    name = str(option["name"])
    own = option["model"] if option["model"] is not None else option["default"]
    whose = "default" if option["model"] is None else "model's" if name in given else "model's own"
    value = given.get(name, own)
    return {
        "key": name,
        "label": LABELS.get(name, name),
        "kind": KINDS.get(name, "integer" if name != "repetition_penalty" else "number"),
        "value": value_text(value) if name == "stop" else value,
        "original": own if own is not None else 0,
        "shown": value_text(value),
        "own": f"{whose} {value_text(own)}" if name in given else whose,
        "given": name in given,
        "step": STEPS.get(name),
        "least": option["low"],
        "most": option["high"],
    }


def value_text(value: Any) -> str:
    """A value as it reads best; stop texts as they would be typed."""
    if value is None or value in ((), []):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return json.dumps(value[0] if len(value) == 1 else list(value), ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


def stop_texts(typed: str) -> list[str]:
    """Stop texts as typed: one as it is, one in quotes with its escapes, or a JSON list of several.

    Raises:
        ValueError: with a few words that say what it takes.
    """
    if not typed.startswith(("[", '"')):
        return [typed]
    try:
        found = json.loads(typed)
    except ValueError:
        raise ValueError('a text, or a list like ["a", "b"]') from None
    texts = found if isinstance(found, list) else [found]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError('a text, or a list like ["a", "b"]')
    return texts
