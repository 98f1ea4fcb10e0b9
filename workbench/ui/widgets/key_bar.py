"""The footer: at most five keys that do something here and now."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.screen import Screen

from workbench.ui.widgets.one_line import OneLine

MOST_KEYS = 5
SHOWN = {
    "question_mark": "?",
    "exclamation_mark": "!",
    "slash": "/",
    "minus": "-",
    "dollar_sign": "$",
    "comma": ",",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
}


def _shown(key: str) -> str:
    return SHOWN.get(key, key)


class KeyBar(OneLine):
    """Keys of the focused part with their words, from the active bindings; as many as fit, at most five."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._keys: list[tuple[str, str, str]] = []
        self._ends: list[int] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self.collect)

    def collect(self, screen: Screen[object]) -> None:
        """Read the active bindings anew."""
        keys, seen = [], set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.action not in seen:
                seen.add(binding.action)
                keys.append((_shown(binding.key), binding.description, binding.key))
        self._keys = keys[:MOST_KEYS]
        self.repaint()

    def line(self, width: int) -> Content:
        parts: list[Content] = []
        self._ends = []
        used = 0
        for display, word, _ in self._keys:
            part = Content.assemble(" ", (display, "bold $accent"), (f" {word}  ", "$muted"))
            if used + part.cell_length > width:
                break
            used += part.cell_length
            self._ends.append(used)
            parts.append(part)
        return Content("").join(parts)

    def on_click(self, event: events.Click) -> None:
        for (_, _, key), end in zip(self._keys, self._ends, strict=False):
            if event.x < end:
                self.app.simulate_key(key)
                return
