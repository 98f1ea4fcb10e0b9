"""A conversation as the model's chat template renders it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static, TextArea

from workbench.session.protocol import CheckPrompt, PromptChecked
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import CloserLook
from workbench.ui.widgets.pieces import PieceView

QUIET_SECONDS = 0.15
FINDINGS_SHOWN = 4
SHORT_LINES = 30
START = "system: You are a helpful assistant.\nuser: What is the capital of France?\n"
_ROLE = re.compile(r"(?m)^(system|developer|user|assistant|tool): ?")
SEVERITIES = {"error": ("✖ ", "$bad"), "warning": ("⚠ ", "$warn"), "info": ("· ", "$muted")}


def messages_of(written: str) -> list[dict[str, str]]:
    """Messages from lines that begin with a role and a colon; text before the first is the user's."""
    parts = _ROLE.split(written)
    messages = [{"role": "user", "content": parts[0].strip()}] if parts[0].strip() else []
    for role, content in zip(parts[1::2], parts[2::2], strict=True):
        messages.append({"role": role, "content": content.removesuffix("\n")})
    return messages


def _finding_line(item: dict[str, str], width: int) -> Content:
    """A finding with its remedy; cut at `width` cells, if one is given."""
    line = Content.assemble(
        SEVERITIES.get(item["severity"], ("· ", "$muted")), item["title"], (f" {item['fix']}", "$muted")
    )
    return line.truncate(width, ellipsis=True) if width else line


class TemplateScreen(CloserLook):
    """Write a conversation; see the prompt with its special tokens, what the wrapping costs, and what is wrong."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g", "toggle_generation", "Generation prompt", show=False, priority=True),
        Binding("ctrl+s", "toggle_source", "Source", show=False, priority=True),
    ]
    KEYS = (("ctrl+g", "generation prompt"), ("ctrl+s", "source"), ("tab", "tokens"))

    def __init__(self, link: SessionLink, model: str) -> None:
        super().__init__(link, "token-template", f"Chat template of {model}")
        self._model = model
        self._generation = True
        self._source = ""

    def parts(self) -> Iterable[Widget]:
        yield TextArea(START, id="template-text")
        yield PieceView(id="template-pieces")
        with VerticalScroll(id="template-source"):
            yield Static(id="template-source-text")
        yield Static(id="template-findings")

    def on_mount(self) -> None:
        self.query_one(TextArea).cursor_blink = False
        self.query_one(TextArea).focus()
        self.query_one("#template-source").display = False
        self.render_prompt()

    @on(TextArea.Changed)
    def render_soon(self) -> None:
        self.render_prompt()

    @work(group="render", exclusive=True, exit_on_error=False)
    async def render_prompt(self) -> None:
        """Ask for the prompt of what is written; a later call replaces this one."""
        await asyncio.sleep(QUIET_SECONDS)
        messages = messages_of(self.query_one(TextArea).text)
        reply = await self.ask(CheckPrompt(self._model, messages, self._generation), PromptChecked)
        if reply is None:
            return
        report = reply.report
        opened = "on" if self._generation else "off"
        self.say(
            f"{report['tokens']:,} tokens: {report['content_tokens']:,} written, {report['template_tokens']:,} from "
            f"the template ({report['template_share']:.0%}), {report['special_tokens']:,} special · "
            f"generation prompt {opened}"
        )
        self.query_one(PieceView).set_pieces(reply.pieces)
        # On a short screen the rendering needs the lines that the remedies would take.
        short = self.size.height < SHORT_LINES
        most = 2 if short else FINDINGS_SHOWN
        width = self.query_one("#template-findings").size.width or self.size.width
        findings = [_finding_line(item, width if short else 0) for item in report["findings"][:most]]
        rest = len(report["findings"]) - most
        if rest > 0:
            findings.append(Content.styled(f"and {rest:,} more of these", "$muted"))
        self.query_one("#template-findings", Static).update(Content("\n").join(findings))
        if reply.template != self._source:
            self._source = reply.template
            source = Content.assemble((f"{reply.file}\n\n", "$muted"), reply.template)
            self.query_one("#template-source-text", Static).update(source)

    def action_toggle_generation(self) -> None:
        self._generation = not self._generation
        self.render_prompt()

    def action_toggle_source(self) -> None:
        source, pieces = self.query_one("#template-source"), self.query_one(PieceView)
        source.display, pieces.display = not source.display, source.display
        (source if source.display else self.query_one(TextArea)).focus()
