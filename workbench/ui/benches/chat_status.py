"""The line between conversation and message: what goes on, how full the context is, what is set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from textual.content import Content

from workbench.session.protocol import ModelStatus
from workbench.text import format_bytes, one_line
from workbench.ui.benches.chat_files import Attachment
from workbench.ui.session_state import LOST, SessionState
from workbench.ui.strip_text import job_text, short_name
from workbench.ui.widgets.one_line import OneLine

KEY = "bold $accent"
NEARLY_FULL, FULL = 0.8, 0.95

if TYPE_CHECKING:
    from workbench.ui.screens.server_picker import PickedServer


@dataclass
class Asking:
    """What the next message is sent with."""

    sampling: dict[str, Any] = field(default_factory=dict)
    """Only what the user set."""
    system: str = ""
    raw: bool = False
    overflow: str = "refuse"
    overflow_asked: bool = False
    files: tuple[Attachment, ...] = ()
    server: PickedServer | None = None
    """A server that answers instead of the loaded model."""

    def words(self) -> list[str]:
        """What differs from the defaults, the most telling first."""
        known = []
        if self.files:
            size = sum(file.size_bytes for file in self.files)
            names = self.files[0].name if len(self.files) == 1 else f"{len(self.files)} files"
            tokens = [file.tokens for file in self.files if file.tokens is not None]
            counted = f" · {sum(tokens):,} tokens" if len(tokens) == len(self.files) else ""
            known.append(f"+ {names} {format_bytes(size)}{counted}")
        if self.raw:
            known.append("no template")
        if self.system:
            known.append("system")
        if self.overflow == "drop-oldest":
            known.append("drops oldest")
        known += [sampling_word(name, value) for name, value in self.sampling.items()]
        return known


SHORT_NAMES = {
    "temperature": "temp",
    "top_p": "top-p",
    "top_k": "top-k",
    "min_p": "min-p",
    "repetition_penalty": "penalty",
    "no_repeat_ngram_size": "no n-gram",
    "max_new_tokens": "max",
    "prompt_lookup": "lookup",
}


def sampling_word(name: str, value: Any) -> str:
    """``temp 0.2``; ``greedy``."""
    if name == "greedy":
        return "greedy" if value else "sampled"
    if name == "stop":
        return f"{len(value)} stop"
    shown = f"{value:g}" if isinstance(value, float) else f"{value}"
    return f"{SHORT_NAMES.get(name, name)} {shown}"


class StatusLine(OneLine):
    """Words at the left, settings at the right as far as they fit."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._settings: list[str] = []

    def show_both(self, content: Content, settings: list[str]) -> None:
        """Replace the line."""
        self._settings = settings
        self.show(content)

    def line(self, width: int) -> Content:
        room = width - self._line.cell_length - 2
        words = list(self._settings)
        while words and len(" · ".join(words)) > room:
            words.pop()
        if not words:
            return self._line
        tail = " · ".join(words)
        return Content.assemble(self._line, " " * (width - self._line.cell_length - len(tail)), (tail, "$muted"))


@dataclass
class Doing:
    """What the chat itself does now."""

    answering: bool = False
    progress: str = ""
    tokens: int = 0
    notice: str = ""
    """A short word that stands in the line for a moment."""
    editing: bool = False
    refused: bool = False
    """Whether a message was just not sent, for the reason that the line tells."""
    used_tokens: int = 0
    """Tokens that the conversation takes so far, as the last answer told."""
    begun: bool = False
    """Whether the conversation has messages."""
    counted_by: str = ""
    """The model whose tokens those are."""
    agreed: ModelStatus | None = None
    """A loaded model other than the chosen one, once the user was asked whether it shall answer."""


def status_line(state: SessionState, doing: Doing, server: PickedServer | None = None) -> Content:
    """One line on what goes on."""
    if doing.notice and not doing.refused:
        return Content.styled(doing.notice, "$warn")
    if doing.answering:
        what = doing.progress or (f"answering · {doing.tokens:,} tokens" if doing.tokens else "answering")
        return Content.assemble((what, "$accent"), ("   escape", KEY), (" stops", "$muted"))
    lanes = (state.lane("model"), state.lane("children"))
    loading = next((lane for lane in lanes if lane is not None and lane.job == "load_model"), None)
    if loading is not None:
        return Content.assemble((job_text(loading), "$accent"), ("   ctrl+c", KEY), (" stops", "$muted"))
    if state.connection == LOST:
        lost = ("No session: ", "$bad")
        return Content.assemble(lost, ("ctrl+r", KEY), (" starts it; what you write stays here.", "$muted"))
    if not state.attached:
        return Content.styled("Starting the session; what you write stays here.", "$muted")
    if doing.editing and (server is not None or state.chosen_is_loaded):
        words = (" sends it as a branch of its own   ", "$muted")
        return Content.assemble(("enter", KEY), words, ("escape", KEY), (" leaves it as it is", "$muted"))
    if server is not None:
        return _server_line(server, doing)
    if state.model is None:
        return _no_model(state, doing)
    if not state.chosen_is_loaded and state.chosen:
        return _other_model(state, state.model, doing)
    return context_line(state.model, doing)


def _server_line(server: PickedServer, doing: Doing) -> Content:
    limit = f" of {server.context_length:,}" if server.context_length else ""
    counted = doing.used_tokens and doing.counted_by == server.remote.model
    used = f" · {doing.used_tokens:,}{limit} tokens of context used" if counted else ""
    return Content.styled(f"{one_line(server.name, 60)} answers{used}", "$muted")


def _no_model(state: SessionState, doing: Doing) -> Content:
    style = "bold $warn" if doing.refused else "$muted"
    if not state.chosen:
        return Content.assemble(("No model is chosen.  ", style), ("ctrl+o", KEY), (" chooses one", "$muted"))
    loads = f" loads {state.chosen}"
    return Content.assemble(("No model is loaded.  ", style), ("ctrl+l", KEY), (loads, "$muted"))


def context_line(model: ModelStatus, doing: Doing) -> Content:
    """How much of the context is used, with a warning before it overflows."""
    limit = model.context_length
    if not limit:
        return Content.styled(f"{model.name} is ready.", "$muted")
    if doing.counted_by != model.name if doing.used_tokens else doing.begun:
        return Content.styled(f"{limit:,} tokens of context, counted with the next message", "$muted")
    used = f"{doing.used_tokens:,} of {limit:,} tokens of context used"
    share = doing.used_tokens / limit
    if share > FULL:
        return Content.styled(f"{used}, full", "$bad")
    return Content.styled(f"{used}, nearly full", "$warn") if share > NEARLY_FULL else Content.styled(used, "$muted")


def _other_model(state: SessionState, model: ModelStatus, doing: Doing) -> Content:
    loads = Content.assemble(("ctrl+l", KEY), (f" loads {short_name(state.chosen)}", "$muted"))
    if doing.agreed == model and not doing.refused:
        return Content.assemble((f"{short_name(model.name)} answers; ", "$muted"), loads)
    style = "bold $warn" if doing.refused else "$muted"
    again = Content.assemble(("enter", KEY), (" again answers with it, " if doing.refused else " asks it, ", "$muted"))
    return Content.assemble((f"{short_name(model.name)} is loaded now; ", style), again, loads)
