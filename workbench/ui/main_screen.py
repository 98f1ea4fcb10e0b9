"""The one screen that stays: strips on top, the current bench, the keys below."""

from __future__ import annotations

import importlib
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from workbench.ui.actions import BENCH_TITLES
from workbench.ui.bench import Bench
from workbench.ui.chrome import BenchStrip, LossBanner, SessionStrip
from workbench.ui.gauges import Gauges
from workbench.ui.link import SessionLink
from workbench.ui.session_state import LOST, SessionState
from workbench.ui.widgets.key_bar import KeyBar


def bench_class(name: str) -> type[Bench]:
    """The class of a bench; its module is imported now."""
    module = importlib.import_module(f"workbench.ui.benches.{name}")
    found: type[Bench] = module.BENCH
    return found


class MainScreen(Screen[None]):
    """Mounts each bench when it is first shown, and keeps the focus inside the one on screen."""

    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "app.restart_session", "start again", show=False),
        Binding("escape", "leave_welcome", "hide this", show=False),
        Binding("escape", "leave_field", "leave the text", show=True, tooltip="Then 1 to 5 switch benches."),
    ]

    session: reactive[SessionState] = reactive(SessionState, repaint=False)
    gauges: reactive[Gauges | None] = reactive(None, repaint=False)

    def __init__(self, link: SessionLink, first_bench: str) -> None:
        super().__init__(id="main")
        self._link = link
        self.current = first_bench

    def compose(self) -> ComposeResult:
        with Vertical(id="chrome"):
            yield BenchStrip(id="bench-strip")
            yield SessionStrip(id="session-strip").data_bind(MainScreen.session, MainScreen.gauges)
        yield LossBanner(id="loss").data_bind(MainScreen.session)
        with Container(id="benches"):
            yield Static(Content.styled(f"{BENCH_TITLES[self.current]} …", "$muted"), id="opening")
        yield KeyBar(id="key-bar")

    def watch_session(self, old: SessionState, session: SessionState) -> None:
        if session.chosen != old.chosen:
            self.query("#welcome").remove()
        # Not data_bind: benches are mounted later, from whatever asks for them, and binding wants the composing node.
        for bench in self.query(Bench):
            bench.session = session

    def watch_gauges(self, gauges: Gauges | None) -> None:
        for bench in self.query(Bench):
            bench.gauges = gauges

    def on_mount(self) -> None:
        self.query_one(BenchStrip).current = self.current

    @property
    def bench(self) -> Bench | None:
        """The bench on screen, once it is mounted."""
        return self.mounted_bench(self.current)

    def mounted_bench(self, name: str) -> Bench | None:
        """A bench that was shown before."""
        found = self.query_one("#benches").query_children(f"#bench-{name}").results(Bench)
        return next(iter(found), None)

    async def show_bench(self, name: str) -> None:
        """Bring a bench on screen and the focus into it."""
        previous, bench = self.bench, self.mounted_bench(name)
        if bench is None:
            bench = bench_class(name)(self._link)  # before anything is changed: the import may fail
        self.current = name
        self.query_one(BenchStrip).current = name
        if previous is not None and previous is not bench:
            previous.display = False
        if not bench.is_attached:
            opening = self.query("#opening")
            bench.set_reactive(Bench.session, self.session)
            bench.set_reactive(Bench.gauges, self.gauges)
            await self.query_one("#benches").mount(bench)
            await opening.remove()
        elif not bench.display:
            bench.display = True
            if bench.ready:
                bench.reveal()
        self._focus_bench()

    def _focus_bench(self) -> None:
        if self.bench is not None and self.bench.ready:
            target = self.bench.first_focus()
            self.set_focus(target if target.focusable else self.bench, scroll_visible=False)

    @property
    def _is_typing(self) -> bool:
        """Whether a text field has the focus."""
        return self.focused is not None and self.focused.check_consume_key("a", "a")

    def watch_focused(self, focused: Widget | None) -> None:
        for strip in self.query(BenchStrip):
            strip.typing = self._is_typing
        # A bench's keys work only while the focus is inside it; a removed widget must not leave it nowhere.
        if focused is None and self.app.app_focus and self.is_current:
            self.call_after_refresh(self._focus_if_nowhere)

    def _focus_if_nowhere(self) -> None:
        if self.focused is None and self.is_current:
            self._focus_bench()

    def action_leave_welcome(self) -> None:
        """Stop fetching the sample; with nothing to stop, put the words of the first run away."""
        from workbench.ui.widgets.welcome import (
            Welcome,
        )  # speaks to the session, of which the first frame knows nothing

        for welcome in self.query(Welcome):
            if welcome.fetching:
                welcome.stop()
            else:
                welcome.remove()
                self.post_message(Bench.SettingChanged("ui", "welcomed", True))

    def action_leave_field(self) -> None:
        """Give the keys back to the bench, out of a text field."""
        if self.bench is not None:
            self.set_focus(self.bench)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "app.restart_session":
            return self.session.connection == LOST
        if action == "leave_welcome":
            return bool(self.query("#welcome")) and not self._is_typing
        if action == "leave_field":
            return self._is_typing
        return True

    @on(BenchStrip.Picked)
    async def switch_bench(self, message: BenchStrip.Picked) -> None:
        await self.app.run_action(f"app.show_bench('{message.bench}')")
