"""What the five benches have in common."""

from __future__ import annotations

from typing import ClassVar

from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import WorkbenchError
from workbench.ui.gauges import Gauges
from workbench.ui.link import SessionLink
from workbench.ui.session_state import LOST, SessionState


class ErrorLine(Static):
    """The bench's last failure, or that there is no session, in one line; hidden while all is well."""

    DEFAULT_CSS = "ErrorLine { display: none; height: auto; padding: 0 1; }"

    def __init__(self) -> None:
        super().__init__()
        self._error: WorkbenchError | None = None
        self._without_session = False
        self._refused: WorkbenchError | None = None

    def show_error(self, error: WorkbenchError | None) -> None:
        """Show a failure with its remedy, or hide the line."""
        self._error = error
        self._show()

    def show_without_session(self, without: bool) -> None:
        """Say that nothing can be asked now; the last failure comes back with the session."""
        if without != self._without_session:
            self._without_session = without
            self._show()

    def show_refused(self, error: WorkbenchError | None) -> None:
        """Say why the chosen model cannot be had, where nothing else went wrong since."""
        if error is not self._refused:
            self._refused = error
            self._show()

    def _show(self) -> None:
        error = self._error or self._refused
        self.display = error is not None or self._without_session
        if self._without_session:
            self.update(Content.assemble(("no session: ", "$bad"), ("ctrl+r", "bold $accent"), " starts it"))
        elif error is not None:
            hint = "  F7 details" if error.details else ""
            parts = (("✖ ", "bold $bad"), (error.message, "$bad"), f" {error.remedy}", (hint, "$muted"))
            self.update(Content.assemble(*parts))


class Bench(Vertical, can_focus=True):
    """One bench: asks the session through its link, shows what comes back, changes nothing elsewhere by itself."""

    NAME: ClassVar[str] = ""
    """Bench id, as in `workbench.ui.actions.BENCHES`."""
    NEEDS_TORCH: ClassVar[bool] = False
    """Whether the worker should import torch when this bench is first shown."""
    OF_THE_MODEL: ClassVar[bool] = False
    """Whether a chosen model that cannot be had is a failure of this bench."""
    TELLS_LOSS: ClassVar[bool] = False
    """Whether the bench itself says that there is no session; else its error line does."""

    session: reactive[SessionState] = reactive(SessionState, repaint=False)
    gauges: reactive[Gauges | None] = reactive(None, repaint=False)

    class Failed(Message):
        """Something failed; the app keeps it for its details screen."""

        def __init__(self, error: WorkbenchError) -> None:
            super().__init__()
            self.error = error

    class Said(Message):
        """A short word to the user, as a toast."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class CopyRequested(Message):
        """Text for the terminal's clipboard."""

        def __init__(self, text: str, what: str) -> None:
            super().__init__()
            self.text = text
            self.what = what

    class SettingChanged(Message):
        """A value of the settings to remember for the next run."""

        def __init__(self, section: str, key: str, value: object) -> None:
            super().__init__()
            self.section = section
            self.key = key
            self.value = value

    class SequenceChosen(Message):
        """A sequence length for the plan of the VRAM bench, in tokens, and how many of them an epoch has."""

        def __init__(self, tokens: int, tokens_per_epoch: int = 0) -> None:
            super().__init__()
            self.tokens = tokens
            self.tokens_per_epoch = tokens_per_epoch

    class TextSent(Message):
        """A text to show in the Tokens bench, and the token of it that is meant.

        Args:
            text: the text.
            place: the character at which the token begins.
            model: whose token it is; empty where no tokenizer here is known to have made it.
            token_id: its id; None where only its place is known.
        """

        def __init__(self, text: str, place: int, model: str = "", token_id: int | None = None) -> None:
            super().__init__()
            self.text = text
            self.place = place
            self.model = model
            self.token_id = token_id

    class ModulesSent(Message):
        """Modules of the chosen model whose memory the VRAM bench is to tell.

        Args:
            title: what they are together, such as ``model.layers.0-29.mlp``.
            modules: their dotted names.
        """

        def __init__(self, title: str, modules: list[str]) -> None:
            super().__init__()
            self.title = title
            self.modules = modules

    class StandingSent(Message):
        """The VRAM bench is to show what the loaded model holds after its last answer, beside the estimate."""

    class LoadRequested(Message):
        """Load the chosen model, asking how, starting from `plan`; with one, Chat is shown once it stands."""

        def __init__(self, plan: dict[str, object] | None = None) -> None:
            super().__init__()
            self.plan = plan

    def __init__(self, link: SessionLink) -> None:
        super().__init__(id=f"bench-{self.NAME}", classes="bench")
        self.link = link
        self.failure: WorkbenchError | None = None
        """What its error line shows."""
        self.ready = False
        """Whether its parts are there; keys may ask for a bench again while it is still being mounted."""

    def first_focus(self) -> Widget:
        """What has the focus when the bench is shown."""
        return self

    def bench_shown(self) -> None:
        """The bench came on screen."""

    def take_notice(self, text: str) -> bool:
        """Show a short word to the user in a line of the bench's own; False where it has none."""
        return False

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        """The session changed; also called, with the state the bench last saw, when the bench is shown again."""

    def on_mount(self) -> None:
        self._seen = self.session
        self.ready = True
        self.call_after_refresh(self.reveal)

    def watch_session(self) -> None:
        if self.ready and self.display:
            self.catch_up()

    def reveal(self) -> None:
        """Bring the bench up to date as it comes on screen."""
        self.bench_shown()
        self.catch_up()

    def catch_up(self) -> None:
        """Handle what changed since the bench last looked."""
        old, self._seen = self._seen, self.session
        if old.connection != self.session.connection:
            self.refresh_bindings()
        for line in self.query(ErrorLine):
            line.show_without_session(self.session.connection == LOST and not self.TELLS_LOSS)
            line.show_refused(self.session.refused if self.OF_THE_MODEL else None)
        self._warm_up()
        self.session_changed(old, self.session)

    def _warm_up(self) -> None:
        """Let the worker import torch while the user still looks around."""
        status = self.session.status
        if self.NEEDS_TORCH and self.session.attached and status and status.torch_state == "not imported":
            self.link.warm_up()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # While the session is lost, r must reach the screen, whose r starts it again.
        return not (action == "again" and self.session.connection == LOST)

    def show_error(self, error: WorkbenchError | None) -> None:
        """Show a failure in the bench's own error line. A lost session is told by the banner instead."""
        if error is not None and error.kind == "session-lost":
            return
        self.failure = error
        for line in self.query(ErrorLine):
            line.show_error(error)
        if error is not None:
            self.post_message(self.Failed(error))
