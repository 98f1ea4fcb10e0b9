"""A text area that tells of an edit at once, keeps what was put in, and stays quick in long lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from rich.text import Text
from textual import events
from textual.document._document import EditResult
from textual.document._document_navigator import DocumentNavigator
from textual.document._edit import Edit
from textual.widgets import TextArea

from workbench.ui.terminal_input import CONTROL_OF_SYMBOL, Paste
from workbench.ui.widgets.long_lines import LONG_CHARACTERS, LongLine, LongLineDocument


class EditedText(TextArea):
    """Calls a function within each edit. `TextArea.Changed` comes after the frame that paints the key, 20 ms later.

    Args:
        edited: called after the document has changed.
    """

    def __init__(self, edited: Callable[[], None], *, id: str, placeholder: str) -> None:
        self._restores = False
        """Whether symbols in the text stand for control characters that were pasted."""
        self.replaced = 0
        """Pasted control characters that could not be kept: the text has such symbols of its own."""
        super().__init__(id=id, placeholder=placeholder)
        self._edited = edited

    @property
    def written(self) -> str:
        """The text as it was put in: with the control characters that are shown as symbols."""
        return self.text.translate(CONTROL_OF_SYMBOL) if self._restores else self.text

    def edit(self, edit: Edit) -> EditResult:
        document = self.wrapped_document
        if isinstance(document, LongLineDocument):
            with document.one_edit():
                result = super().edit(edit)
        else:
            result = super().edit(edit)
        if not any(self.document.lines):
            self._restores, self.replaced = False, 0
        self._edited()
        return result

    def get_line(self, line_index: int) -> Text:
        line = self.document.get_line(line_index)
        if len(line) < LONG_CHARACTERS or "\t" in line:
            return super().get_line(line_index)
        return LongLine(line, end="", no_wrap=True)

    def _set_document(self, text: str, language: str | None) -> None:
        super()._set_document(text, language)
        self._restores, self.replaced = False, 0
        self.wrapped_document = LongLineDocument(self.document, tab_width=self.indent_width)
        self.navigator = DocumentNavigator(self.wrapped_document)
        self._rewrap_and_refresh_virtual_size()

    async def _on_key(self, event: events.Key) -> None:
        # Textual takes what Python calls printable, which the zero-width joiner and the no-break space are not.
        character = event.character or ""
        if len(character) != 1 or event.is_printable or "+" in event.key or self.read_only:
            return
        if unicodedata.category(character) not in ("Cc", "Cs"):
            event.stop()
            event.prevent_default()
            self._replace_via_keyboard(character, *self.selection)

    async def _on_paste(self, event: events.Paste) -> None:
        raw = event.raw if isinstance(event, Paste) else event.text
        shown = event.text
        controls = sum(before != after for before, after in zip(raw, shown, strict=True)) if raw != shown else 0
        own = any(symbol in raw for symbol in _SYMBOLS) or (
            not self._restores and any(symbol in self.text for symbol in _SYMBOLS)
        )
        kept = sum(raw.count(control) for control in _CONTROLS)
        if own and (controls or self._restores):
            pictured = sum(self.text.count(symbol) for symbol in _SYMBOLS) if self._restores else 0
            self.replaced += controls + pictured
            self._restores = False
        elif controls:
            self.replaced += controls - kept
            self._restores = self._restores or kept > 0


_CONTROLS = tuple(CONTROL_OF_SYMBOL.values())
_SYMBOLS = tuple(map(chr, CONTROL_OF_SYMBOL))
