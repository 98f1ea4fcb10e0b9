"""What the screens over the VRAM bench have in common."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from workbench.ui.screens.closer_look import CloserLook


class VramScreen(CloserLook):
    """A whole screen over the bench: title, a line of words, parts, at most five keys."""

    def headline(self, what: str, model: str = "", more: str = "") -> None:
        """The title: what it shows, of which model."""
        name = (("  ", ""), (model, "bold $accent")) if model else ()
        self.retitle(Content.assemble(what, *name, (f"  {more}" if more else "", "$muted")))


def tabs(names: Sequence[str], current: int) -> Content:
    """Names side by side, the current one marked without colour too."""
    parts = [
        Content.styled(
            f"[{name}]" if number == current else f" {name} ", "bold $accent" if number == current else "$muted"
        )
        for number, name in enumerate(names)
    ]
    return Content(" ").join(parts)
