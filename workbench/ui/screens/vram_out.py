"""The plan out of the bench: code, a file that opens again, Markdown, the command that starts it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import OpenPlan, PlanOpened, PlanWritten, WritePlan
from workbench.ui.benches.vram_plan import THIS_BOX, Draft
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING
from workbench.ui.screens.vram_screen import VramScreen, tabs
from workbench.vram.plan import plan_from_dict

FORMS = (
    ("code", "code", "py", "The script: loading, or training with transformers' Trainer."),
    ("trl", "TRL", "py", "The same with TRL's SFTTrainer."),
    ("toml", "plan file", "toml", "Opens again here and with workbench vram --plan."),
    ("markdown", "Markdown", "md", "The budget as a page, for an issue."),
    ("launch", "start", "sh", "What starts the script on the planned GPUs."),
)
"""Form of the request, its tab, the ending of its file, one line."""
SAVING, OPENING = "save", "open"


class OutScreen(VramScreen):
    """One form at a time; copied, or saved to a file.

    Args:
        request: makes the request for a form, a path and whether a file may be replaced.
        launch: commands that start the script.
        opened: told of the draft of a file that was opened, and of the model it names.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,tab,l", "turn(1)", "Next form", show=False),
        Binding("left,shift+tab,h", "turn(-1)", "Form before", show=False),
        Binding("y", "copy_text", "Copy it", show=False),
        Binding("s", "save", "Save it to a file", show=False),
        Binding("o", "open", "Open a plan file", show=False),
    ]
    KEYS = (("← →", "another form"), ("y", "copy"), ("s", "save"), ("o", "open a plan"))

    def __init__(
        self,
        link: SessionLink,
        model: str,
        request: Callable[[str, str, bool], WritePlan],
        launch: list[str],
        opened: Callable[[Draft, str], None],
    ) -> None:
        super().__init__(link, "vram-out", "The plan as code and file")
        self._model, self._request, self._launch, self._opened = model, request, launch, opened
        self._current = 0
        self._text = ""
        self._doing = ""
        self._refused_path = ""
        """A file that is there already; the same path once more replaces it."""

    def parts(self) -> Iterable[Widget]:
        yield Static(id="out-tabs")
        yield VerticalScroll(Static(id="out-text"), id="out-scroll")
        yield Input(id="out-path")

    def on_mount(self) -> None:
        path = self.query_one("#out-path", Input)
        path.cursor_blink, path.display = False, False
        self.query_one("#out-scroll").focus()
        self.write()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def write(self) -> None:
        """Ask for the text of the current form."""
        form, _, _, line = FORMS[self._current]
        self.headline("The plan as code and file", self._model)
        self.query_one("#out-tabs", Static).update(tabs([name for _, name, _, _ in FORMS], self._current))
        if form == "launch":
            self._show("\n".join(self._launch) + "\n", line)
            return
        reply = await self.ask(self._request(form, "", False), PlanWritten, "writing")
        self._show(reply.text if reply is not None else "", line if reply is not None else "")

    def _show(self, text: str, line: str) -> None:
        self._text = text
        if line:
            self.say(line)
        self.query_one("#out-text", Static).update(Content(text))
        self.query_one("#out-scroll").scroll_home(animate=False)

    def action_turn(self, step: int) -> None:
        self._current = (self._current + step) % len(FORMS)
        self.write()

    def action_copy_text(self) -> None:
        self.copy(self._text, FORMS[self._current][1])

    # --- Files ---------------------------------------------------------------------------------------------

    def action_save(self) -> None:
        _, name, ending, _ = FORMS[self._current]
        stem = "".join(c if c.isalnum() or c in "-._" else "-" for c in self._model).strip("-.") or "plan"
        word = "-train" if ending == "py" else ""
        self._ask_path(SAVING, str(Path.cwd() / f"{stem}{word}.{ending}"), f"File for the {name}; enter writes it")

    def action_open(self) -> None:
        self._ask_path(OPENING, f"{Path.cwd()}{os.sep}", "Plan file; enter opens it")

    def _ask_path(self, doing: str, value: str, placeholder: str) -> None:
        self._doing, self._refused_path = doing, ""
        path = self.query_one("#out-path", Input)
        path.placeholder, path.value, path.display = placeholder, value, True
        path.cursor_position = len(value)
        path.focus()
        self.say(placeholder + "; escape leaves it.")

    @on(Input.Submitted, "#out-path")
    def take_path(self, message: Input.Submitted) -> None:
        typed = message.value.strip()
        if typed:
            path = str(Path(typed).expanduser().absolute())
            self._save(path) if self._doing == SAVING else self._open(path)

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def _save(self, path: str) -> None:
        form = FORMS[self._current][0]
        again = path == self._refused_path
        try:
            if form == "launch":
                raise WorkbenchError("bad-option", "A command is not saved.", "y copies it.")
            reply = await self.link.ask(self._request(form, path, again), PlanWritten)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._refused_path = path if error.kind == "file-exists" else ""
            more = (
                Content.assemble("  ", ("enter", "bold $accent"), " again replaces it.") if self._refused_path else ""
            )
            self.say(
                Content.assemble(("✖ ", "bold $bad"), (error.message, "$bad"), "" if more else f" {error.remedy}", more)
            )
            return
        self._leave_path()
        self.say(f"Saved {reply.path}.")

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def _open(self, path: str) -> None:
        reply = await self.ask(OpenPlan(path), PlanOpened)
        if reply is not None:
            gpu = reply.gpus[0] if reply.gpus else THIS_BOX
            self._opened(Draft(plan_from_dict(reply.plan), gpu, reply.dataset_tokens, reply.epochs), reply.model)
            self.dismiss(None)

    def _leave_path(self) -> None:
        self.query_one("#out-path").display = False
        self.query_one("#out-scroll").focus()

    def action_close(self) -> None:
        if self.query_one("#out-path").display:
            self._leave_path()
            self.say(FORMS[self._current][3])
            return
        super().action_close()
