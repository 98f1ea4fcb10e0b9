"""What is always in sight: the bench strip, the session strip, and the banner of a lost session."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from workbench.ui.actions import BENCHES
from workbench.ui.gauges import Gauges
from workbench.ui.session_state import LOST, SessionState
from workbench.ui.strip_text import strip_line
from workbench.ui.widgets.one_line import OneLine

WIDE = 100


class BenchStrip(OneLine):
    """The five benches with their keys; the current one in the accent colour."""

    current = reactive("doctor")
    """Id of the bench on screen."""
    typing = reactive(False)
    """Whether a text field has the focus, which takes digits and ? as text."""

    class Picked(Message):
        """A bench was clicked."""

        def __init__(self, bench: str) -> None:
            super().__init__()
            self.bench = bench

    def watch_current(self) -> None:
        self.repaint()

    def watch_typing(self) -> None:
        self.repaint()

    def _words(self, wide: bool) -> list[tuple[str, str, str]]:
        """Bench, its key as it works now, and its title."""
        mark = "f" if self.typing else ""
        return [
            (bench, f"{mark}{number}", title if wide else short)
            for number, (bench, title, short) in enumerate(BENCHES, 1)
        ]

    def line(self, width: int) -> Content:
        wide = width >= WIDE
        parts = []
        for bench, key, title in self._words(wide):
            if bench == self.current:
                parts.append(Content.styled(f" {key} {title} ", "bold $on-accent on $accent"))
            else:
                parts.append(Content.assemble((f" {key} ", "bold $accent"), (f"{title} ", "$muted")))
        benches = Content("  " if wide else " ").join(parts)
        keys = [
            (self.app.COMMAND_PALETTE_BINDING, "palette" if wide else "all"),
            ("f8" if self.typing else "?", "help"),
        ]
        if wide:
            keys.insert(0, ("ctrl+o", "model"))
        hints = Content("   " if wide else "  ").join(
            Content.assemble((key, "$accent"), (f" {word}", "$muted")) for key, word in keys
        )
        return Content.assemble(benches, " " * max(1, width - benches.cell_length - hints.cell_length - 1), hints)

    def on_click(self, event: events.Click) -> None:
        position = 0
        wide = self.size.width >= WIDE
        for bench, key, title in self._words(wide):
            position += len(f" {key} {title} ") + (2 if wide else 1)
            if event.x < position:
                self.post_message(self.Picked(bench))
                return


class SessionStrip(OneLine):
    """Model, environment, memory and work of the session."""

    session: reactive[SessionState] = reactive(SessionState, repaint=False)
    gauges: reactive[Gauges | None] = reactive(None, repaint=False)

    def watch_session(self) -> None:
        self.repaint()

    def watch_gauges(self) -> None:
        self.repaint()

    def line(self, width: int) -> Content:
        return strip_line(self.session, self.gauges, width)


class LossBanner(Static):
    """Why there is no session, or none that answers, and the key that starts it again."""

    session: reactive[SessionState] = reactive(SessionState, repaint=False)

    def watch_session(self) -> None:
        error = self.session.error
        lost = self.session.connection == LOST and error is not None
        self.display = lost or self.session.silent_seconds > 0
        if not lost and self.session.silent_seconds:
            self._show_silence()
        elif lost and error is not None:
            remedy = "" if error.kind == "session-lost" else f" {error.remedy}"
            if error.kind == "worker-start-failed":
                remedy += " Another interpreter: workbench --python PATH."
            self.update(
                Content.assemble(
                    ("✖ ", "bold $bad"),
                    (error.message, "bold $bad"),
                    remedy,
                    "\n",
                    ("  ctrl+r ", "bold $accent"),
                    ("starts it", "$muted"),
                    (" (", "$muted"),
                    ("r", "$accent"),
                    (" outside a text field)   ", "$muted"),
                    ("F7 ", "bold $accent"),
                    ("its last words   ", "$muted"),
                    ("Nothing typed is lost.", "$muted"),
                )
            )

    def _show_silence(self) -> None:
        pid = self.session.status.pid if self.session.status else 0
        self.update(
            Content.assemble(
                ("⚠ ", "bold $warn"),
                (f"The session has not answered for {self.session.silent_seconds} s.", "bold $warn"),
                f" Its process {pid} is stopped, or stuck in native code.",
                "\n",
                ("  ctrl+r ", "bold $accent"),
                ("ends it and starts it anew   ", "$muted"),
                ("F7 ", "bold $accent"),
                ("its log   ", "$muted"),
                ("It may come back.", "$muted"),
            )
        )
