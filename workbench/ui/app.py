"""The workbench app: holds the session's state and what is the same on every bench."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual._context import active_message_pump
from textual.app import SystemCommand
from textual.binding import BindingType
from textual.command import CommandListItem, SimpleProvider
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import AwaitMount, MountError, Widget

from workbench.errors import JobCancelled, WorkbenchError
from workbench.settings import Settings, save_setting
from workbench.ui.actions import (
    ACTIONS,
    APP,
    BENCHES,
    EMACS_KEYS,
    EMACS_PALETTE,
    Action,
    bindings_of,
    key_clashes,
    unknown_key_settings,
)
from workbench.ui.bench import Bench
from workbench.ui.drafts import DraftLost
from workbench.ui.gauges import Gauges, GaugeThread, ReadGauges, gauge_reader
from workbench.ui.link import DescribeLoss, EndSession, OpenOther, OpenSession, SessionLink, told_by_client
from workbench.ui.main_screen import MainScreen
from workbench.ui.palette import Palette
from workbench.ui.safety import with_control_filter
from workbench.ui.session_state import (
    LOST,
    Attached,
    Attaching,
    LoadedHere,
    Lost,
    ModelChosen,
    ModelRefused,
    SessionEvent,
    SessionState,
    Silent,
    reduce,
)
from workbench.ui.strip_text import quant_word, short_name
from workbench.ui.terminal_input import TerminalDriver
from workbench.ui.terminal_keys import let_alt_digits_through
from workbench.ui.theme import LoadedThemes, load_themes, theme_or_fallback
from workbench.ui.typed_ahead import TypedAhead
from workbench.ui.widgets.key_bar import SHOWN

if TYPE_CHECKING:
    from workbench.session.client import SessionClient
    from workbench.session.protocol import LoadModel, ModelStatus
    from workbench.ui.own_changes import OwnChanges
    from workbench.ui.widgets.welcome import Welcome

ENDING_SIGNALS = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
"""What would else end the app with the terminal in another screen, without echo and sending mouse reports."""
SECOND_PRESS_SECONDS = 5.0
SHUTDOWN_WAIT_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 2.0
"""How often an app without a session looks whether there is one again."""
LATER_STYLES = ("doctor", "tokens", "architecture", "vram", "chat", "screens")
SIZE_SETTLED_SECONDS = 0.15
LOG_LINES = 2000
MOST_TOASTS = 2


class WorkbenchApp(TypedAhead, inherit_bindings=False):
    """Five benches on one model session.

    Args:
        settings: the user's settings.
        open_session: connects to the session, starting it when there is none; called after the first frame.
        describe_loss: says why the worker behind a lost client is gone.
        open_other: connects to a session of another interpreter, to examine that one.
        end_session: ends the process of a session that does not answer.
        open_running: connects to the session if somebody else has started it; None where nobody does.
        bench: the bench to open; the last one when empty.
        model: the model to choose; the loaded one, else the last one, when empty.
        theme: theme for this run; the one of the settings when empty.
        make_gauges: gives the reader of live gauges, in its own thread; None shows no gauges.
        remember: whether to keep bench, model and theme in the settings file.
    """

    TITLE = "workbench"
    CSS_PATH = "styles/workbench.tcss"
    ENABLE_COMMAND_PALETTE = True
    NOTIFICATION_TIMEOUT = 2
    # Textual annotates these in a way that a type checker takes for instance variables.
    HORIZONTAL_BREAKPOINTS: ClassVar = [(0, "-narrow"), (100, "-wide"), (160, "-very-wide")]  # type: ignore[misc]
    VERTICAL_BREAKPOINTS: ClassVar = [(0, "-short"), (30, "-tall")]  # type: ignore[misc]
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(APP)]

    session: reactive[SessionState] = reactive(SessionState, repaint=False)
    gauges: reactive[Gauges | None] = reactive(None, repaint=False)

    def __init__(
        self,
        settings: Settings,
        open_session: OpenSession,
        *,
        describe_loss: DescribeLoss = told_by_client,
        open_other: OpenOther | None = None,
        end_session: EndSession | None = None,
        open_running: OpenSession | None = None,
        bench: str = "",
        model: str = "",
        theme: str = "",
        make_gauges: Callable[[], ReadGauges] | None = gauge_reader,
        remember: bool = True,
    ) -> None:
        self._first_theme, self._theme_problem = theme_or_fallback(theme or settings.ui.theme)
        if settings.ui.emacs_keys:
            self.COMMAND_PALETTE_BINDING = EMACS_PALETTE  # type: ignore[misc]  # Textual reads it as it sets itself up
        super().__init__()
        self.settings = settings
        self.link = SessionLink(open_session, describe_loss, open_other, end_session, open_running)
        self.log_lines: deque[str] = deque(maxlen=LOG_LINES)
        self.last_error: WorkbenchError | None = None
        benches = [name for name, _, _ in BENCHES]
        self._first_bench = next((b for b in (bench, settings.ui.last_bench) if b in benches), benches[0])
        self._last_model = settings.ui.last_model
        self._is_first_run = not (bench or settings.ui.last_model or settings.ui.welcomed)
        """Whether nobody ever chose a model here; who names a bench knows the way."""
        self._remember = remember
        self._told: set[str] = set()
        """What was spoken of that is said only the first time."""
        self._kept: dict[str, object] = {
            key: getattr(settings.ui, key) for key in ("last_bench", "last_model", "theme")
        }
        """What the settings file holds of the choices."""
        self._said = ("", 0.0)
        """The last word in a corner, and when it was said."""
        self._own_loads = 0
        """Loads under way that this app asked for."""
        self._make_gauges = make_gauges
        self._gauge_thread: GaugeThread | None = None
        self._interrupted_at = -SECOND_PRESS_SECONDS
        self._sizes_seen = 0
        self._own_changes: OwnChanges | None = None
        self.set_reactive(WorkbenchApp.session, SessionState(chosen=model))
        let_alt_digits_through()
        self._themes = LoadedThemes({})
        self.register_theme(self._first_theme)
        self.theme = self._first_theme.name

    # --- Look ----------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Paint everything once the size has settled.

        Textual paints what its layout has changed. A terminal that was small for a moment has lost what stood there,
        and if it has its old size again before the next layout nothing has changed for Textual.
        """
        self._sizes_seen += 1
        if self._sizes_seen > 1:
            self._forget_screen()
            self.set_timer(SIZE_SETTLED_SECONDS, partial(self._paint_all, self._sizes_seen))

    def _paint_all(self, sizes_seen: int) -> None:
        if sizes_seen == self._sizes_seen:
            self._forget_screen()
            self.refresh()

    def _forget_screen(self) -> None:
        if isinstance(self._driver, TerminalDriver):
            self._driver.forget_screen()

    def _load_other_styles(self) -> None:
        # Parsing them twice, as Textual does at its start, was a fifth of the way to the first frame.
        for name in LATER_STYLES:
            self.stylesheet.read(Path(__file__).with_name("styles") / f"{name}.tcss")
        self.stylesheet.parse()

    def _load_other_themes(self) -> None:
        self._themes = load_themes()
        for theme in self._themes.themes.values():
            self.register_theme(theme)

    @property
    def theme_names(self) -> list[str]:
        """The house's themes and the user's own."""
        return sorted(self._themes.themes)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict(self._first_theme.variables)

    def get_line_filters(self) -> Sequence[LineFilter]:
        return with_control_filter(super().get_line_filters())

    def get_default_screen(self) -> Screen[None]:
        screen = MainScreen(self.link, self._first_bench)
        return screen.data_bind(WorkbenchApp.session, WorkbenchApp.gauges)

    @property
    def main(self) -> MainScreen:
        """The screen under every other."""
        screen = self.screen_stack[0]
        assert isinstance(screen, MainScreen)
        return screen

    # --- Start and end -------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self.keymap = (EMACS_KEYS if self.settings.ui.emacs_keys else {}) | self.settings.keys
        self.set_keymap(self.keymap)
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            for number in ENDING_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, self._end_by_signal, number)
        self.call_after_refresh(self._after_first_frame)

    async def _after_first_frame(self) -> None:
        self._load_other_styles()
        self.run_session()
        await self.main.show_bench(self._first_bench)
        if self._make_gauges:
            self._gauge_thread = GaugeThread(self._deliver_gauges, self._make_gauges)
            self._gauge_thread.start()
        self._load_other_themes()
        from workbench.ui.own_changes import OwnChanges

        self._own_changes = OwnChanges(self)
        if self._is_first_run and not self.session.chosen:
            await self._welcome()
        keys = self.settings.keys
        complaints = [*self.settings.warnings, *self._themes.failures, *unknown_key_settings(keys), *key_clashes(keys)]
        if self._theme_problem:
            complaints.append(self._theme_problem)
        if complaints:
            self.warn("\n".join(complaints[:8]))

    def _deliver_gauges(self, gauges: Gauges) -> None:
        with contextlib.suppress(RuntimeError):
            self.call_later(setattr, self, "gauges", gauges)

    def action_command_palette(self) -> None:
        """Show every action by name."""
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def search_commands(
        self, commands: Sequence[CommandListItem], placeholder: str = "Search for commands…"
    ) -> AwaitMount:
        """Show a list of commands to choose from."""
        found = SimpleProvider(self.screen, [*commands])
        return self.push_screen(Palette([found], placeholder=placeholder))  # type: ignore[list-item]

    async def _dispatch_action(self, namespace: DOMNode, action_name: str, params: Any) -> bool:
        try:
            return await super()._dispatch_action(namespace, action_name, params)
        except Exception:
            # What an action imports only now may not fit what is there already.
            if not self._explained_by_changes():
                raise
            return True

    def _handle_exception(self, error: Exception) -> None:
        # Keys typed behind the one that ends the app, and replies that come late, find no place on the screen.
        if self._exit and isinstance(error, (MountError, NoMatches)):
            return
        # What failed is dead from now on: a part of a screen can be done without, the screen or the app cannot.
        failed = active_message_pump.get(None)
        if isinstance(failed, Screen) or not isinstance(failed, Widget) or not self._explained_by_changes():
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        if not self._explained_by_changes():
            super()._fatal_error()
            return
        self._exit_renderables.append("The workbench was changed while this app was open: start it again.")
        self._close_messages_no_wait()

    def _explained_by_changes(self) -> bool:
        return self._own_changes is not None and self._own_changes.explain()

    def _end_by_signal(self, number: int) -> None:
        """Leave at once, the terminal in order if it is still there, and the session as it is."""
        # A second one ends an app that cannot leave, as one whose terminal hangs.
        asyncio.get_running_loop().remove_signal_handler(number)
        self.link.leave()
        self.exit(128 + number)

    def _keep(self, key: str, value: str) -> None:
        """Remember a choice for the next run as soon as it is made."""
        if self._remember and value != self._kept[key]:
            self._kept[key] = value
            try:
                save_setting("ui", key, value)
            except WorkbenchError as error:
                self._tell_once("settings", f"Choices hold for this run only. {error.message} {error.remedy}")

    def watch_theme(self, name: str) -> None:
        if self.is_running and not (self._theme_problem and name == self._first_theme.name):
            self._keep("theme", name)

    async def on_unmount(self) -> None:
        if self._gauge_thread:
            self._gauge_thread.end()
        await self.link.close()

    # --- The session ---------------------------------------------------------------------------------------

    def apply(self, event: SessionEvent) -> None:
        """Fold an event into the session's state."""
        self.session = reduce(self.session, event)

    @work(group="session", exclusive=True, exit_on_error=False)
    async def run_session(self, found: SessionClient | None = None) -> None:
        """Attach, unless to a session that was found, then follow the worker's broadcasts until it goes away."""
        from workbench.session.protocol import LogAppended, StatusChanged

        if found is None:
            self.apply(Attaching())
            try:
                client = await self.link.attach()
            except WorkbenchError as error:
                self._lose(error)
                return
        else:
            client = found
            self.link.take(client)
        assert client.welcome is not None
        self.apply(Attached(client.welcome.status))
        if client.welcome.outdated:
            self.say(f"{client.welcome.outdated}: quit with q and open again to use what is there now.")
        if not self.session.chosen and self._last_model:
            self.apply(ModelChosen(self._last_model))
        self.resolve_chosen()
        self.watch_answers(client)
        async for event in client.broadcasts():
            if isinstance(event, StatusChanged):
                before = self.session.model
                self.apply(event)
                self._tell_of_other_load(before)
            elif isinstance(event, LogAppended):
                self.log_lines.extend(event.lines)
        if not self.link.leaving:
            self._lose(await self.link.lost())

    def _lose(self, error: WorkbenchError) -> None:
        self.last_error = error
        self.apply(Lost(error))
        self.wait_for_another()

    @work(group="return", exclusive=True, exit_on_error=False)
    async def wait_for_another(self) -> None:
        """Attach again once somebody else has started the session."""
        while self.session.connection == LOST:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            client = await self.link.find() if self.session.connection == LOST else None
            if client is not None:
                if self.session.connection == LOST:
                    self.run_session(client)
                else:
                    await client.close()
                return

    @work(group="heartbeat", exclusive=True, exit_on_error=False)
    async def watch_answers(self, client: SessionClient) -> None:
        """Tell when the worker is there but does not answer."""
        from workbench.ui.heartbeat import watch_answers

        await watch_answers(client, lambda seconds: self.apply(Silent(seconds)))

    def _tell_of_other_load(self, before: ModelStatus | None) -> None:
        model = self.session.model
        if model is None or model in (before, self.session.own_model) or self._own_loads:
            return
        self.say(f"Another client loaded {short_name(model.name)} {quant_word(model)}.")

    @work(group="resolve", exclusive=True, exit_on_error=False)
    async def resolve_chosen(self) -> None:
        """Find out whether there is such a model, so that a name that is none is told where it is chosen."""
        from workbench.session.protocol import ModelResolved, ResolveModel

        name = self.session.chosen
        if not name:
            return
        try:
            await self.link.ask(ResolveModel(name), ModelResolved)
        except JobCancelled:
            return
        except WorkbenchError as error:
            if error.kind not in ("session-lost", "unknown-request"):
                self.last_error = error
                self.apply(ModelRefused(name, error))
        else:
            self._keep("last_model", name)

    def action_restart_session(self) -> None:
        if self.session.connection == "lost":
            self.run_session()
        elif self.session.silent_seconds:
            self.replace_session()

    @work(group="replace", exclusive=True, exit_on_error=False)
    async def replace_session(self) -> None:
        """End a session that does not answer, and start it anew."""
        self.say("Ending the session that does not answer.")
        try:
            await self.link.end()
        except WorkbenchError as error:
            self.show_failure(error)
        else:
            self.run_session()

    def action_stop_job(self) -> bool:
        """Cancel what the model lane does; False when it is idle."""
        if not (self.link.client and self.session.model_job):
            return False
        from workbench.session.protocol import Cancel

        self.link.client.send(Cancel())
        return True

    # --- The first steps -----------------------------------------------------------------------------------

    async def _welcome(self) -> Welcome:
        """The offer of a sample model, above the bench."""
        from workbench.ui.widgets.welcome import Welcome

        for shown in self.main.query(Welcome):
            return shown
        welcome = Welcome(self.link)
        await self.main.mount(welcome, before="#benches")
        return welcome

    async def action_take_sample(self) -> None:
        (await self._welcome()).take()

    async def on_welcome_taken(self, message: Welcome.Taken) -> None:
        self.choose(message.model)
        await self.main.query("#welcome").remove()

    async def action_tour(self) -> None:
        from workbench.ui.widgets.tour import Tour

        for shown in self.main.query(Tour):
            shown.focus()
            return
        await self.main.query("#welcome").remove()
        await self.main.mount(Tour(self.link), after="#benches")

    async def on_tour_left(self) -> None:
        await self.main.query("#tour").remove()
        await self.action_show_bench(self.main.current)
        self.keep_setting(Bench.SettingChanged("ui", "welcomed", True))

    # --- Choosing and loading ------------------------------------------------------------------------------

    @work(group="picker", exclusive=True, exit_on_error=False)
    async def action_choose_model(self) -> None:
        from workbench.ui.screens.model_picker import ModelPicker

        picked = await self.push_screen_wait(ModelPicker(self.link, self.settings.models.directories, self.session))
        if picked is None:
            return
        self.choose(picked.name)
        if picked.load:
            self.action_load_model()

    def choose(self, model: str) -> None:
        """Make a model that of every bench."""
        self.apply(ModelChosen(model))
        self.resolve_chosen()

    def action_load_model(self) -> None:
        self.load_model(None)

    @work(group="load", exclusive=True, exit_on_error=False)
    async def load_model(self, plan: dict[str, object] | None) -> None:
        """Ask how to load the chosen model, starting from `plan`, then load it."""
        from workbench.ui.screens.load_dialog import LoadDialog

        if not self.session.chosen:
            self.action_choose_model()
            return
        request = await self.push_screen_wait(LoadDialog(self.session.chosen, plan or {}))
        if request is None:
            return
        if self.main.bench is not None:
            self.main.bench.show_error(None)
        try:
            await self.load(request)
        except JobCancelled:
            self.say("Loading was stopped; no memory is held.")
        except WorkbenchError as error:
            self.show_failure(error)
        else:
            if plan is not None:
                # The user may be elsewhere by now, and what is typed next is meant for that place.
                self.say(f"{short_name(request.model)} stands as planned: f5 goes to Chat.")

    async def load(self, request: LoadModel) -> None:
        """Load a model, for this app's answers to come from.

        Raises:
            WorkbenchError: as the session says.
            JobCancelled: it was stopped.
        """
        from workbench.session.protocol import ModelLoaded

        self._own_loads += 1
        try:
            loaded = await self.link.ask(request, ModelLoaded)
            self.apply(LoadedHere(request, loaded.model))
        finally:
            self._own_loads -= 1

    @work(group="load", exit_on_error=False)
    async def action_unload_model(self) -> None:
        from workbench.session.protocol import ModelUnloaded, UnloadModel

        try:
            unloaded = await self.link.ask(UnloadModel(), ModelUnloaded)
        except WorkbenchError as error:
            self.show_failure(error)
        else:
            self.say(f"Unloaded {unloaded.name}." if unloaded.name else "No model was loaded.")

    # --- Words to the user ---------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A short word, in the bench's own line where it has one, else in a corner; once if it is said twice."""
        bench = self.main.bench
        if bench is not None and len(self.screen_stack) == 1 and bench.take_notice(text):
            return
        now = time.monotonic()
        last, when = self._said
        self._said = (text, now)
        if text != last or now - when >= self.NOTIFICATION_TIMEOUT:
            self.notify(text, markup=False)

    def on_notify(self) -> None:
        # Before Textual's own, which adds the new one: they stand over what one acts on.
        for toast in list(self._notifications)[: 1 - MOST_TOASTS or None]:
            self._unnotify(toast, refresh=False)

    def warn(self, text: str) -> None:
        """A complaint in a corner."""
        self.notify(text, severity="warning", markup=False, timeout=10)

    def _tell_once(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self.warn(text)

    def show_failure(self, error: WorkbenchError) -> None:
        """A failure that belongs to no bench, told in the one on screen: a remedy may be a command to copy."""
        self.last_error = error
        if self.main.bench is not None:
            self.main.bench.show_error(error)
        elif error.kind != "session-lost":
            self.notify(f"{error.message} {error.remedy}", severity="error", markup=False, timeout=12)

    def copy(self, text: str, what: str) -> None:
        """Send text to the terminal's clipboard by OSC 52, which crosses SSH."""
        self.copy_to_clipboard(text)
        self.say(f"Sent to the terminal's clipboard: {what} ({len(text.encode('utf-8', 'replace')):,} bytes).")

    @on(Bench.Failed)
    def keep_error(self, message: Bench.Failed) -> None:
        self.last_error = message.error

    @on(Bench.Said)
    def pass_on(self, message: Bench.Said) -> None:
        self.say(message.text)

    @on(Bench.CopyRequested)
    def copy_for_bench(self, message: Bench.CopyRequested) -> None:
        self.copy(message.text, message.what)

    @on(DraftLost)
    def tell_lost_draft(self, message: DraftLost) -> None:
        self._tell_once("drafts", f"Text and plan cannot be kept and are gone when the app ends. {message.reason}")

    @on(Bench.SettingChanged)
    def keep_setting(self, message: Bench.SettingChanged) -> None:
        if self._remember:
            try:
                save_setting(message.section, message.key, message.value)
            except WorkbenchError as error:
                self.show_failure(error)

    @on(Bench.SequenceChosen)
    async def plan_with_length(self, message: Bench.SequenceChosen) -> None:
        from workbench.ui.benches.vram import VramBench

        await self.action_show_bench("vram")
        if isinstance(self.main.bench, VramBench):
            self.main.bench.take_sequence_length(message.tokens, message.tokens_per_epoch)
            self.say(f"Sequence length {message.tokens:,}: the p95 of the data set.")

    @on(Bench.TextSent)
    async def show_tokens_of(self, message: Bench.TextSent) -> None:
        from workbench.ui.benches.tokens import TokensBench

        await self.action_show_bench("tokens")
        if isinstance(self.main.bench, TokensBench):
            self.main.bench.take_text(message)

    @on(Bench.ModulesSent)
    async def show_memory_of(self, message: Bench.ModulesSent) -> None:
        from workbench.ui.benches.vram import VramBench

        await self.action_show_bench("vram")
        if isinstance(self.main.bench, VramBench):
            self.main.bench.show_modules(message.title, message.modules)

    @on(Bench.StandingSent)
    async def show_standing(self) -> None:
        from workbench.ui.benches.vram import VramBench

        await self.action_show_bench("vram")
        if isinstance(self.main.bench, VramBench):
            self.main.bench.take_standing()

    @on(Bench.LoadRequested)
    def load_for_bench(self, message: Bench.LoadRequested) -> None:
        self.load_model(message.plan)

    # --- Actions of the app --------------------------------------------------------------------------------

    async def action_show_bench(self, name: str) -> None:
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        await self.main.show_bench(name)
        self._keep("last_bench", name)

    def action_session_log(self) -> None:
        from workbench.ui.screens.session_log import SessionLog

        self.push_screen(SessionLog(self.link, self.log_lines))

    def action_error_details(self) -> None:
        if self.last_error is None:
            self.say("Nothing has failed.")
            return
        from workbench.ui.screens.error_details import ErrorDetails

        self.push_screen(ErrorDetails(self.last_error))

    def action_help(self) -> None:
        from workbench.ui.screens.help import HelpScreen

        self.push_screen(HelpScreen(self.main.current, self.keymap, self.COMMAND_PALETTE_BINDING))

    def action_choose_theme(self) -> None:
        self.search_commands([(name, self._taker(name)) for name in self.theme_names], placeholder="Theme")

    def _taker(self, theme: str) -> Callable[[], None]:
        return lambda: setattr(self, "theme", theme)

    def action_interrupt(self) -> None:
        typed = getattr(self.focused, "selected_text", "")
        if typed:
            self.copy(typed, "the selection")
            return
        if selected := self.screen.get_selected_text():
            self.copy(selected, "the selection")
            self.screen.clear_selection()
            return
        now = time.monotonic()
        if now - self._interrupted_at < SECOND_PRESS_SECONDS:
            self.leave(end_session=True)
            return
        self._interrupted_at = now
        stopped = self.action_stop_job()
        self.say("Stopping. ctrl+c again quits." if stopped else "ctrl+c again quits; alt+d only detaches.")

    async def action_quit(self) -> None:
        self.leave(end_session=True, ask=True)

    def action_detach(self) -> None:
        self.leave(end_session=False)

    @work(group="leave", exclusive=True, exit_on_error=False)
    async def leave(self, end_session: bool, ask: bool = False) -> None:
        """Exit, with or without the session. A session that other clients use stays in any case."""
        if ask and self.session.model_job == "generate":
            from workbench.ui.screens.confirm import Confirm

            question = Confirm("An answer is being written.", (("q", "quit, and stop it"), ("d", "detach, it goes on")))
            picked = await self.push_screen_wait(question)
            if picked is None:
                return
            end_session = picked == "q"
        self.link.leave()
        client = self.link.client
        if end_session and client is not None:
            from workbench.session.protocol import Shutdown, ShutdownNoted

            with contextlib.suppress(WorkbenchError, JobCancelled, asyncio.TimeoutError):
                await asyncio.wait_for(client.ask(Shutdown(), ShutdownNoted), SHUTDOWN_WAIT_SECONDS)
        self.exit(0)

    # --- Palette -------------------------------------------------------------------------------------------

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for action in ACTIONS:
            if action.palette:
                keys = " ".join(SHOWN.get(key, key) for key in action.keys.split(",") if key)
                help_line = f"{action.help}  {keys}" if keys else action.help
                yield SystemCommand(action.palette_title, help_line, self._runner(action))
        for name in self.theme_names:
            yield SystemCommand(f"Theme: {name}", "Draw in this theme from now on.", self._taker(name), discover=False)

    def _runner(self, action: Action) -> Callable[[], None]:
        def run() -> None:
            self.run_worker(self.perform(action), group="palette", exit_on_error=False)

        return run

    async def perform(self, action: Action) -> None:
        """Do an action from anywhere; one of a bench brings that bench on screen first."""
        if action.scope == APP:
            await self.run_action(f"app.{action.action}")
            return
        await self.action_show_bench(action.scope)
        await self.run_action(action.action, self.main.bench)
