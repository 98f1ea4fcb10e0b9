"""A box over the main screen that escape closes."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

T = TypeVar("T")


class Dialog(ModalScreen[T | None], Generic[T]):
    """Base of the house's modal screens."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Close", show=False)]

    def __init__(self, id: str) -> None:
        super().__init__(id=id, classes="dialog")

    def action_close(self) -> None:
        self.dismiss(None)
