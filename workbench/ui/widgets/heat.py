"""Numbers from 0 to 1 as shades of the accent colour, or as shading characters where a terminal has sixteen colours."""

from __future__ import annotations

import functools

from textual.app import App
from textual.color import Color
from textual.content import Content

SHADES = " ░▒▓█"
LEVELS = " ▁▂▃▄▅▆▇█"
STEPS = 24
"""Shades told apart: more make the terminal's work larger, not the picture clearer."""
FEW_COLORS = (None, "standard")


class Heat:
    """The scale of one theme on one terminal.

    Attributes:
        colors: shades from nothing to all; empty where only characters can tell.
    """

    def __init__(self, colors: tuple[str, ...], texts: tuple[str, ...]) -> None:
        self.colors = colors
        self._texts = texts

    def color(self, value: float) -> str:
        """The shade of a value; only where there are colours."""
        return self.colors[_step(value)]

    def style(self, value: float) -> str:
        """For text on a ground of that shade; plain where there are no shades."""
        if not self.colors:
            return "bold" if value >= 0.5 else "" if value >= 0.1 else "$muted"
        step = _step(value)
        return f"{self._texts[step]} on {self.colors[step]}"

    def legend(self, width: int = 12) -> Content:
        """The scale from 0 to 1."""
        cells = [(i / (width - 1)) for i in range(width)]
        shown = [self.cell(value, 1) for value in cells]
        return Content.assemble(("0 ", "$muted"), *shown, (" 1", "$muted"))

    def cell(self, value: float, width: int) -> Content:
        """A cell of nothing but its shade."""
        if self.colors:
            return Content.styled(" " * width, f"on {self.color(value)}")
        return Content(shade_of(value) * width)


def shade_of(value: float) -> str:
    """A character as dense as the value."""
    return SHADES[min(4, int(_clamped(value) * 5))]


def level(value: float) -> str:
    """A character as high as the value; a value above 0 is seen."""
    value = _clamped(value)
    return LEVELS[max(1, min(8, round(value * 8)))] if value > 0 else " "


def heat_of(app: App[object]) -> Heat:
    """The scale for the app's theme and terminal."""
    theme = app.current_theme
    few = app.console.color_system in FEW_COLORS and not app.is_headless
    if theme.ansi or few:
        return Heat((), ())
    return _scale(theme.background or "#000000", theme.accent or theme.primary, theme.foreground or "#ffffff")


@functools.lru_cache(maxsize=8)
def _scale(background: str, accent: str, foreground: str) -> Heat:
    low, high = Color.parse(background), Color.parse(accent)
    dark, light = sorted((low, Color.parse(foreground)), key=lambda color: color.brightness)
    colors = [low.blend(high, step / (STEPS - 1)) for step in range(STEPS)]
    texts = [max(dark, light, key=lambda text: _contrast(text, ground)).hex for ground in colors]
    return Heat(tuple(color.hex for color in colors), tuple(texts))


def _contrast(one: Color, other: Color) -> float:
    return abs(one.brightness - other.brightness)


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value)) if value == value else 0.0


def _step(value: float) -> int:
    return round(_clamped(value) * (STEPS - 1))
