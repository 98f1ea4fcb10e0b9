"""A text area that tells of an edit at once."""

from __future__ import annotations

from collections.abc import Callable

from textual.document._document import EditResult
from textual.document._edit import Edit
from textual.widgets import TextArea


class EditedText(TextArea):
    """Calls a function within each edit. `TextArea.Changed` comes after the frame that paints the key, 20 ms later.

    Args:
        edited: called after the document has changed.
    """

    def __init__(self, edited: Callable[[], None], *, id: str, placeholder: str) -> None:
        super().__init__(id=id, placeholder=placeholder)
        self._edited = edited

    def edit(self, edit: Edit) -> EditResult:
        result = super().edit(edit)
        self._edited()
        return result
