"""How tokens are chosen: every knob with what it means, and what it does to a real distribution."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.chat.options import SamplingOptions
from workbench.errors import WorkbenchError
from workbench.session.protocol import DistributionRead, ReadDistribution, ReadSampling, SamplingRead
from workbench.ui.link import SessionLink
from workbench.ui.screens.chat_presets import PresetsScreen
from workbench.ui.screens.chat_sampling_chart import chart
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.widgets.row_list import RowList
from workbench.ui.widgets.sampling_list import SamplingList, stop_texts
from workbench.ui.widgets.value_list import ValueList

SETTLE_SECONDS = 0.12
TOKENS = 24


@dataclass(frozen=True)
class Place:
    """The token whose distribution is looked at."""

    prompt: str = ""
    """The message being written; the first token of its answer is looked at."""
    conversation_id: str = ""
    answer: str = ""
    """An answer of the conversation, where no message is being written."""
    system: str = ""
    raw: bool = False

    def words(self, position: int) -> str:
        """What is looked at."""
        if self.answer:
            return f"token {position + 1:,} of the last answer"
        return "the first token of the answer to come" if self.prompt else ""


class ChartView(Static):
    """The distribution at the size it has."""

    DEFAULT_CSS = "ChartView { height: 1fr; width: 1fr; }"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._result: dict[str, Any] | None = None

    def show(self, result: dict[str, Any] | None) -> None:
        """Show a distribution, or nothing."""
        self._result = result
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        width, height = self.content_size
        if self._result is None:
            self.update("")
        elif width > 30 and height > 3:
            self.update(Content("\n").join(chart(self._result, width, height)))


class SamplingScreen(CloserLook):
    """Edits take effect with the next answer; the chart follows each.

    Args:
        given: what the user set; changed in place.
        place: the token to look at.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d,delete", "reset", "Back to what the model or the workbench takes", show=False),
        Binding("D", "reset_all", "All back", show=False),
        Binding("p", "presets", "Options kept by name", show=False),
        Binding("comma", "place(-1)", "Look at the token before", show=False),
        Binding("full_stop", "place(1)", "Look at the next token", show=False),
        Binding("y", "copy", "Copy the chart", show=False),
    ]
    KEYS = (("◂ ▸", "step"), ("enter", "type"), ("d", "reset"), ("p", "presets"))

    def __init__(self, link: SessionLink, given: dict[str, Any], place: Place) -> None:
        super().__init__(link, "chat-sampling", "Sampling")
        self.given = given
        self._place = place
        self._position = 0
        self._options: list[dict[str, Any]] = []

    def parts(self) -> Iterable[Widget]:
        yield Container(
            Container(SamplingList(id="sampling-list"), Static(id="sampling-line"), id="sampling-left"),
            Container(Static(id="sampling-place"), ChartView(id="sampling-chart"), id="sampling-right"),
            id="sampling-body",
        )

    def on_mount(self) -> None:
        self.query_one(".said").display = False
        self.query_one(SamplingList).focus()
        self.read_options()

    def say(self, content: Content | str) -> None:
        self.query_one("#sampling-place", Static).update(
            Content.styled(content, "$muted") if isinstance(content, str) else content
        )

    @work(group="options", exclusive=True, exit_on_error=False)
    async def read_options(self) -> None:
        """Ask for the options and what the model says of them."""
        read = await self.ask(ReadSampling(), SamplingRead)
        if read is not None:
            self._options = read.options
            self._show()
            self.look()

    def _show(self) -> None:
        self.query_one(SamplingList).set_options(self._options, self.given, set())

    @on(RowList.Highlighted)
    def explain(self, message: RowList.Highlighted) -> None:
        key = message.row.key
        line = next((str(option["line"]) for option in self._options if option["name"] == key), "")
        self.query_one("#sampling-line", Static).update(Content.styled(line, "$muted"))

    # --- Editing -------------------------------------------------------------------------------------------

    @on(ValueList.Edited)
    def take(self, message: ValueList.Edited) -> None:
        """Take a value, unless it means nothing."""
        wanted = dict(self.given)
        if message.value is None or message.value == "none":
            wanted.pop(message.key, None)
        else:
            wanted[message.key] = message.value
        try:
            if message.key in wanted and message.key == "stop":
                wanted["stop"] = stop_texts(str(message.value))
            check(wanted)
        except ValueError as error:
            self._refuse(f"It must be {error}.")
        except WorkbenchError as error:
            self._refuse(f"{error.message} {error.remedy}")
        else:
            self._set(wanted)

    def _refuse(self, reason: str) -> None:
        self.query_one(SamplingList).refuse("not taken")
        self.query_one("#sampling-line", Static).update(Content.assemble(("✖ ", "bold $bad"), (reason, "$bad")))

    def _set(self, wanted: dict[str, Any]) -> None:
        if wanted.get("temperature", 1) != 0 and {"temperature", "top_p", "top_k"} & (
            wanted.keys() - self.given.keys()
        ):
            wanted.pop("greedy", None)  # who sets a knob of chance wants chance
        self.given.clear()
        self.given.update(wanted)
        self._show()
        self.look()

    def action_reset(self) -> None:
        row = self.query_one(SamplingList).row
        if row is not None:
            self._set({name: value for name, value in self.given.items() if name != row.key})

    def action_reset_all(self) -> None:
        self._set({})

    @work(group="presets", exclusive=True, exit_on_error=False)
    async def action_presets(self) -> None:
        """Take options kept by name, or keep these."""
        body = await self.app.push_screen_wait(PresetsScreen(self.link, self.given))
        if body is None:
            return
        known = {field.name for field in fields(SamplingOptions)}
        wanted = {name: value for name, value in body.items() if name in known}
        try:
            check(wanted)
        except (WorkbenchError, TypeError) as error:
            self.say(Content.assemble(("✖ ", "bold $bad"), str(error)))
        else:
            self._set(wanted)

    # --- The chart -----------------------------------------------------------------------------------------

    def action_place(self, step: int) -> None:
        if self._place.answer:
            self._position = max(0, self._position + step)
            self.look()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def look(self) -> None:
        """Ask for the distribution under what is set; a later edit replaces this."""
        words = self._place.words(self._position)
        if not words:
            self.say("Write a message first: its answer's first token is shown here under every filter.")
            return
        await asyncio.sleep(SETTLE_SECONDS)
        place = self._place
        request = ReadDistribution(
            sampling=dict(self.given),
            count=TOKENS,
            prompt="" if place.answer else place.prompt,
            conversation_id=place.conversation_id,
            answer=place.answer,
            position=self._position,
            system=place.system,
            raw=place.raw,
        )
        read = await self.ask(request, DistributionRead, f"{words}: computing")
        if read is None:
            if self._position and place.answer:
                self._position -= 1
            return
        keys = (("   , .", "bold $accent"), (" other tokens", "$muted")) if place.answer else ()
        self.say(Content.assemble((words, "$muted"), *keys))
        self.query_one(ChartView).show(read.result)

    def action_copy(self) -> None:
        self.copy(str(self.query_one(ChartView).content), "the chart")


def check(given: dict[str, Any]) -> None:
    """Raise WorkbenchError for the first option out of range."""
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    SamplingOptions(**options).validate()
