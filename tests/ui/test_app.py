from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Input, TextArea

import workbench
from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.session.client import SessionClient
from workbench.settings import Settings, load_settings, settings_path
from workbench.ui import heartbeat, main_screen
from workbench.ui.bench import Bench
from workbench.ui.benches.chat import Prompt
from workbench.ui.benches.chat_conversation import ChatTranscript
from workbench.ui.screens.confirm import Confirm
from workbench.ui.screens.error_details import ErrorDetails
from workbench.ui.screens.help import HelpScreen
from workbench.ui.screens.load_dialog import LoadDialog
from workbench.ui.screens.model_picker import ModelPicker
from workbench.ui.screens.session_log import SessionLog
from workbench.ui.widgets.fields import Fields
from workbench.ui.widgets.row_list import RowList

MODEL = "smollm2-135m-instruct"


async def test_keys_one_to_five_switch_benches(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.main.bench is not None)
        for key, bench in (("3", "architecture"), ("4", "vram"), ("1", "doctor")):
            await pilot.press(key)
            await wait_until(pilot, lambda bench=bench: app.main.current == bench and app.main.bench is not None)
            assert app.main.bench is not None
            assert bench == app.main.bench.NAME
            assert app.focused is not None
            assert app.main.bench in app.focused.ancestors_with_self


async def test_digits_are_text_in_a_text_field_but_function_keys_switch(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea))
        await pilot.press("4", "q", "?")
        assert app.focused is not None
        assert app.query_one("#tokens-text", TextArea).text == "4q?"
        await pilot.press("alt+4")
        await wait_until(pilot, lambda: app.main.current == "vram")
        await pilot.press("f2")
        await wait_until(pilot, lambda: app.main.current == "tokens")
        assert app.query_one("#tokens-text", TextArea).text == "4q?"
        await pilot.press("escape", "4")
        await wait_until(pilot, lambda: app.main.current == "vram")


async def test_benches_are_mounted_when_first_shown_only(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.main.bench is not None)
        assert app.main.mounted_bench("vram") is None
        await pilot.press("4")
        await wait_until(pilot, lambda: app.main.mounted_bench("vram") is not None)
        assert len(app.main.query("*")) < 100


async def test_the_chosen_model_is_the_model_of_every_bench(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelPicker) and session.asked(protocol.ListModels))
        await pilot.press(*"llama")
        await wait_until(pilot, lambda: app.screen.query_one(RowList).row.data["name"] == "llama-3.1-8b")
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.chosen == "llama-3.1-8b")
        await pilot.press("3")
        await wait_until(pilot, lambda: session.asked(protocol.InspectModel))
        assert session.asked(protocol.InspectModel)[0].model == "llama-3.1-8b"
        await pilot.press("4")
        await wait_until(pilot, lambda: session.asked(protocol.EstimateMemory))
        assert session.asked(protocol.EstimateMemory)[0].model == "llama-3.1-8b"


async def test_toasts_are_two_at_most(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="doctor")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(app))
        for word in ("first", "second", "third"):
            app.notify(word, timeout=100)
        await wait_until(pilot, lambda: {"second", "third"} <= set(screen_text(app).split()))
        assert "first" not in screen_text(app).split()


async def test_a_typed_id_can_be_chosen(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelPicker))
        app.screen.query_one(Input).value = "a text that was pasted " * 5
        await wait_until(pilot, lambda: "neither a path nor a Hub id" in screen_text(app))
        await pilot.press("enter")
        assert isinstance(app.screen, ModelPicker)
        app.screen.query_one(Input).value = "someone/some-model"
        await wait_until(pilot, lambda: app.screen.query_one(RowList).row is not None)
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.chosen == "someone/some-model")


async def test_a_listing_that_makes_no_sense_is_one_line_and_names_can_be_typed(
    session: ScriptedSession, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_down(*args: object) -> None:
        raise RuntimeError("no such thing\nas a list")

    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached)
        monkeypatch.setattr(app.link, "ask", break_down)
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: "✖ The list cannot be read" in screen_text(app))
        app.screen.query_one(Input).value = "someone/some-model"
        await wait_until(pilot, lambda: app.screen.query_one(RowList).row is not None)
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.chosen == "someone/some-model")


async def test_what_is_chosen_before_the_list_is_there_waits_for_it(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    gate = session.hold(protocol.ListModels)
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: session.asked(protocol.ListModels))
        await pilot.press(*"llama", "enter")
        await wait_until(pilot, lambda: "Waiting for the list. enter again takes llama as it is" in screen_text(app))
        gate.set()
        await wait_until(pilot, lambda: app.session.chosen == "llama-3.1-8b")


async def test_a_model_that_is_none_is_told_and_not_remembered(
    session: ScriptedSession, make_app: MakeApp, private_home: Path
) -> None:
    session.script(
        protocol.ResolveModel,
        lambda request: (
            [protocol.Failed("unknown-model", f"No model is called '{request.model}'.", "See the list.")]
            if request.model == "nope"
            else [protocol.ModelResolved({"name": request.model})]
        ),
    )
    app = make_app(session, bench="chat", remember=True, settings=load_settings())
    async with app.run_test(size=(120, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelPicker) and session.asked(protocol.ListModels))
        await pilot.press(*"nope")
        await pilot.press("enter")
        await wait_until(pilot, lambda: "✖ nope: No model is called 'nope'." in screen_text(app))
        assert "✖ No model is called 'nope'. See the list." in screen_text(app)
        assert load_settings().ui.last_model == ""
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelPicker))
        await pilot.press(*"llama-3.1-8b")
        await wait_until(pilot, lambda: app.screen.query_one(RowList).row is not None)
        await pilot.press("enter")
        await wait_until(pilot, lambda: load_settings().ui.last_model == "llama-3.1-8b")
        assert "✖" not in screen_text(app)


async def test_another_client_s_model_is_told_and_asked_about_before_it_answers(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="chat", model=MODEL)
    async with app.run_test(size=(160, 24), notifications=True) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press("ctrl+l")
        await wait_until(pilot, lambda: isinstance(app.screen, LoadDialog))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.standing_load is not None)
        assert not app._notifications
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: session.asked(protocol.Generate))
        assert session.asked(protocol.Generate)[0].load == session.asked(protocol.LoadModel)[0]
        await wait_until(pilot, lambda: "41.0 tok/s" in screen_text(app))
        session.set_status(model=dataclasses.replace(data.MODEL, name="tiny-gpt2", quant="none", device="cpu"))
        await wait_until(pilot, lambda: f"● tiny-gpt2 · bf16 · cpu loaded · chosen {MODEL}" in screen_text(app))
        assert "Another client loaded tiny-gpt2 bf16." in screen_text(app)
        assert not app._notifications, "the status line of the chat says it; a toast would hide the message field"
        await pilot.press("b", "enter")
        question = f"tiny-gpt2 is loaded now; enter again answers with it, ctrl+l loads {MODEL}"
        await wait_until(pilot, lambda: question in screen_text(app))
        assert len(session.asked(protocol.Generate)) == 1
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(session.asked(protocol.Generate)) == 2)
        assert session.asked(protocol.Generate)[1].load is None


async def test_loading_asks_how_and_says_what_was_chosen(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="chat", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.press("ctrl+l")
        await wait_until(pilot, lambda: isinstance(app.screen, LoadDialog))
        await pilot.press("right", "right", "down", "right", "enter")
        await wait_until(pilot, lambda: app.session.model is not None)
        request = session.asked(protocol.LoadModel)[0]
        assert (request.model, request.quant, request.double_quant) == (MODEL, "nf4", True)
        assert "nf4" in screen_text(app)


async def test_double_quant_is_offered_with_four_bits_only(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="chat", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.press("ctrl+l")
        await wait_until(pilot, lambda: "– only with nf4 and fp4" in screen_text(app))
        await pilot.press("down", "right")
        await wait_until(pilot, lambda: "saves about 0.4" in screen_text(app))
        assert app.screen.query_one(Fields).values["double_quant"] is False
        await pilot.press("up", "right", "right", "down", "right", "enter")
        await wait_until(pilot, lambda: session.asked(protocol.LoadModel))
        assert session.asked(protocol.LoadModel)[0].double_quant


async def test_a_load_does_not_stand_at_a_hundred_per_cent(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="chat", model=MODEL)
    async with app.run_test(size=(120, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        session.set_status(lanes=(protocol.LaneStatus("children", "load_model", "convert", 272, 272, "tensors"),))
        await wait_until(pilot, lambda: screen_text(app).count("converted, next the weights") == 2)
        assert "100 %" not in screen_text(app)


async def test_control_c_stops_the_job_first_and_quits_the_second_time(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="chat", model=MODEL)
    session.hold(protocol.LoadModel, before=1)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.press("ctrl+l")
        await wait_until(pilot, lambda: isinstance(app.screen, LoadDialog))
        await pilot.press("enter")
        await wait_until(pilot, lambda: session.asked(protocol.LoadModel))
        session.set_status(lanes=(protocol.LaneStatus("model", "load_model", "weights", 120, 273, "tensors"),))
        await wait_until(pilot, lambda: "120 of 273 tensors" in screen_text(app))
        await pilot.press("ctrl+c")
        await wait_until(pilot, lambda: session.asked(protocol.Cancel))
        assert app.is_running
        await pilot.press("ctrl+c")
        await wait_until(pilot, lambda: session.asked(protocol.Shutdown))


async def test_quit_ends_the_session_and_detach_does_not(make_app: MakeApp) -> None:
    for key, ends in (("q", True), ("alt+d", False)):
        session = ScriptedSession()
        app = make_app(session)
        async with app.run_test(size=(80, 24)) as pilot:
            await wait_until(pilot, lambda app=app: app.session.attached and app.main.bench)
            await pilot.press(key)
            await wait_until(pilot, lambda app=app: app.return_code == 0 or app._exit)
        assert bool(session.asked(protocol.Shutdown)) is ends


async def test_leaving_the_screen_leaves_a_running_answer_alone(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    session = loaded_session
    session.hold(protocol.Generate, before=3)
    app = make_app(session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press(*"hi", "enter")
        await wait_until(pilot, lambda: "The capital" in screen_text(app))
        await pilot.press("alt+d")
        await wait_until(pilot, lambda: app._exit)
    await asyncio.sleep(0.05)
    assert not session.asked(protocol.Cancel)
    assert not session.asked(protocol.Shutdown)


async def test_quitting_during_an_answer_asks_first(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        loaded_session.set_status(lanes=(protocol.LaneStatus("model", "generate", "decode", 8, 512, "tokens"),))
        await wait_until(pilot, lambda: app.session.model_job == "generate")
        await pilot.press("q")
        await wait_until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert not loaded_session.asked(protocol.Shutdown)
        await pilot.press("q")
        await wait_until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("d")
        await wait_until(pilot, lambda: app._exit)
    assert not loaded_session.asked(protocol.Shutdown)


async def test_a_dead_session_is_told_and_started_again_with_what_was_typed(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press(*"three words here")
        await wait_until(pilot, lambda: session.asked(protocol.RecountTokens))
        counted = len(session.asked(protocol.RecountTokens))
        session.kill()
        await wait_until(pilot, lambda: "ended by SIGKILL" in screen_text(app))
        await pilot.press("r")
        assert app.query_one("#tokens-text", TextArea).text == "three words herer"
        await pilot.press("backspace", "escape", "r")
        await wait_until(pilot, lambda: app.session.attached and session.opened == 2)
        assert app.query_one("#tokens-text", TextArea).text == "three words here"
        await wait_until(pilot, lambda: len(session.asked(protocol.RecountTokens)) > counted)
        assert "SIGKILL" not in screen_text(app)


async def test_an_app_attaches_to_a_session_that_another_one_started_again(
    session: ScriptedSession, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.ui.app.LOOK_AGAIN_SECONDS", 0.01)
    looked: list[bool] = []
    started = asyncio.Event()

    async def open_running() -> SessionClient:
        looked.append(started.is_set())
        if not started.is_set():
            raise WorkbenchError("no-session", "It is not running.")
        return await session.open()

    app = make_app(session, bench="tokens", model=MODEL, open_running=open_running)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        session.kill()
        await wait_until(pilot, lambda: "ended by SIGKILL" in screen_text(app) and len(looked) > 1)
        started.set()
        await wait_until(pilot, lambda: app.session.attached and "SIGKILL" not in screen_text(app))
        await pilot.press(*"counted")
        await wait_until(pilot, lambda: "7 characters" in screen_text(app))
        assert (session.opened, looked.count(True)) == (2, 1)


async def test_r_examines_again_but_restarts_when_the_session_is_lost(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: len(session.asked(protocol.Diagnose)) == 1)
        await pilot.press("r")
        await wait_until(pilot, lambda: len(session.asked(protocol.Diagnose)) == 2)
        session.kill()
        await wait_until(pilot, lambda: app.session.connection == "lost")
        await pilot.press("r")
        await wait_until(pilot, lambda: session.opened == 2)


async def test_a_session_that_cannot_start_says_why_and_can_be_tried_again(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    session.refuse = WorkbenchError("bad-interpreter", "/bin/ls is not a Python.", "Name one with --python.", "log")
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "/bin/ls is not a Python. Name one with --python." in screen_text(app))
        await pilot.press("exclamation_mark")
        await wait_until(pilot, lambda: isinstance(app.screen, ErrorDetails))
        await pilot.press("escape")
        session.refuse = None
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: app.session.attached)


@pytest.mark.parametrize(("key", "bench", "done"), [("f3", "architecture", "134,515,008"), ("f4", "vram", "L4")])
async def test_a_bench_without_a_session_says_so_and_goes_on_once_there_is_one(
    key: str, bench: str, done: str, session: ScriptedSession, make_app: MakeApp
) -> None:
    session.refuse = WorkbenchError("bad-interpreter", "/bin/ls is not a Python.", "Name one with --python.")
    app = make_app(session, bench=bench, model=MODEL, make_gauges=None)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "no session: ctrl+r starts it" in screen_text(app))
        assert "…" not in screen_text(app).split("ctrl+r starts it", 2)[-1]
        session.refuse = None
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: done in screen_text(app))
        session.kill()
        await wait_until(pilot, lambda: "no session: ctrl+r starts it" in screen_text(app))
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: app.session.attached and "no session" not in screen_text(app))
        assert done in screen_text(app)


async def test_a_session_that_does_not_answer_is_told_and_can_be_replaced(
    session: ScriptedSession, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "PERIOD_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 0.1)
    session.script(protocol.GetStatus, lambda _request: [protocol.StatusReported(session.status)])
    ended = []

    async def end() -> str:
        ended.append(True)
        gate.set()
        session.kill()
        return "ended"

    app = make_app(session, end_session=end)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: len(session.asked(protocol.GetStatus)) > 2)
        assert app.session.silent_seconds == 0
        gate = session.hold(protocol.GetStatus)
        await wait_until(pilot, lambda: "has not answered for 1 s" in screen_text(app))
        gate.set()
        await wait_until(pilot, lambda: "has not answered" not in screen_text(app))
        gate = session.hold(protocol.GetStatus)
        await wait_until(pilot, lambda: "has not answered" in screen_text(app))
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: ended and session.opened == 2 and app.session.attached)
        await wait_until(pilot, lambda: "has not answered" not in screen_text(app))


async def test_chat_says_what_to_do_without_a_session(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        loaded_session.kill()
        wanted = "No session: ctrl+r starts it; what you write stays here."
        await wait_until(pilot, lambda: wanted in screen_text(app))
        assert "ctrl+r starts it (r outside a text field)" in screen_text(app)


async def test_r_starts_a_dead_session_from_the_messages_of_chat(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press(*"Hi", "enter")
        await wait_until(pilot, lambda: "tok/s" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.focused, ChatTranscript))
        loaded_session.kill()
        await wait_until(pilot, lambda: "r outside a text field" in screen_text(app))
        await pilot.press("r")
        await wait_until(pilot, lambda: loaded_session.opened == 2 and app.session.attached)


async def test_the_palette_knows_the_themes_by_name(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("ctrl+p", *"theme: light")
        await wait_until(pilot, lambda: "Draw in this theme" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.theme == "light")


async def test_the_palette_runs_an_action_of_another_bench(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("ctrl+p", *"load this plan")
        await pilot.pause(0.3)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, LoadDialog))
        assert app.main.current == "vram"


async def test_help_and_log_open_and_close(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("question_mark")
        await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape", "f9")
        await wait_until(pilot, lambda: isinstance(app.screen, SessionLog) and "worker started" in screen_text(app))
        session.broadcast(protocol.LogAppended(("a new line [b]with markup[/b]",)))
        await wait_until(pilot, lambda: "a new line [b]with markup[/b]" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(app.screen_stack) == 1)


async def test_help_shows_every_id_whole_on_eighty_columns(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("question_mark")
        await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))
        listing = app.screen.query_one(RowList)
        width = listing.scrollable_content_region.width
        for row in listing.rows:
            line = row.content(width)
            assert line.cell_length <= width, line.plain
            if row.data is not None:
                assert line.plain.endswith(f"  {row.key}")
                assert row.data.title in line.plain
        assert "Five real steps." in screen_text(app)
        assert '[keys] doctor-self-test = "…"' in screen_text(app)


async def test_the_strip_shows_the_keys_that_work_in_a_text_field(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="chat", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt))
        await wait_until(pilot, lambda: "f1 Doctor" in screen_text(app) and "f8 help" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: "f1 Doctor" not in screen_text(app))
        assert "1 Doctor" in screen_text(app)


async def test_a_failed_load_is_told_in_the_bench_and_words_are_said_once(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    session.script(
        protocol.LoadModel,
        lambda request: [
            protocol.Failed("missing-package", "No bitsandbytes.", "/x/python -m pip install bitsandbytes")
        ],
    )
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("ctrl+l")
        await wait_until(pilot, lambda: isinstance(app.screen, LoadDialog))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "/x/python -m pip install bitsandbytes" in screen_text(app))
        assert not app._notifications
        app.say("twice")
        app.say("twice")
        await pilot.pause()
        assert len(app._notifications) == 1


async def test_attaching_takes_over_the_loaded_model(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, settings=dataclasses.replace(Settings()))
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: app.session.chosen == MODEL)
        assert "● smollm2-135m-instruct · nf4" in screen_text(app)


async def test_choices_are_remembered(session: ScriptedSession, make_app: MakeApp, private_home: Path) -> None:
    app = make_app(session, remember=True, model="llama-3.1-8b")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("4")
        await wait_until(pilot, lambda: app.main.current == "vram")
        app.theme = "light"
        kept = ("vram", "llama-3.1-8b", "light")
        # While the app still runs: it may be killed.
        await wait_until(pilot, lambda: kept == tuple(_choices().values()))


async def test_choices_that_cannot_be_kept_are_told_once(
    session: ScriptedSession, make_app: MakeApp, private_home: Path
) -> None:
    settings_path().parent.parent.mkdir(parents=True, exist_ok=True)
    settings_path().parent.write_text("no directory")
    app = make_app(session, bench="tokens", remember=True, model="llama-3.1-8b")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("f4")
        await wait_until(pilot, lambda: app.main.current == "vram")
        app.theme = "light"
        await pilot.pause(0.5)
        told = [notice.message for notice in app._notifications if "for this run only" in notice.message]
        assert len(told) == 1
        assert str(settings_path()) in told[0]


def _choices() -> dict[str, str]:
    ui = load_settings().ui
    return {"bench": ui.last_bench, "model": ui.last_model, "theme": ui.theme}


async def test_complaints_about_settings_and_themes_come_in_one_toast(
    session: ScriptedSession, make_app: MakeApp, private_home: Path
) -> None:
    themes = private_home / "config" / "workbench" / "themes"
    themes.mkdir(parents=True)
    (themes / "broken.toml").write_text('name = "broken"\n[colors]\nbackground = "no colour"\n')
    settings = Settings(keys={"no-such-action": "z"}, warnings=("settings.toml: unknown setting 'x' is ignored.",))
    app = make_app(session, settings=settings, theme="[/none]")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await wait_until(pilot, lambda: len(app._notifications) == 1)
        told = next(iter(app._notifications)).message
        assert app.theme == "dark"
    for part in ("unknown setting", "broken.toml", "no-such-action", "[/none]"):
        assert part in told


async def test_a_remapped_key_works(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, settings=Settings(keys={"help": "ctrl+g"}))
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        await pilot.press("question_mark")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        await pilot.press("ctrl+g")
        await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))


async def test_torch_is_warmed_up_by_the_first_bench_that_needs_it(make_app: MakeApp) -> None:
    session = ScriptedSession(dataclasses.replace(data.STATUS, torch_state="not imported", torch_version=""))
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: session.asked(protocol.Diagnose))
        assert not session.asked(protocol.Warm)
        await pilot.press("5")
        await wait_until(pilot, lambda: session.asked(protocol.Warm))
        await pilot.press("alt+4")
        await wait_until(pilot, lambda: app.main.current == "vram")
        assert len(session.asked(protocol.Warm)) == 1


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (40, 12), (300, 80)])
async def test_any_terminal_size_is_survived(
    size: tuple[int, int], loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session)
    async with app.run_test(size=size) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        for key in ("f2", "f3", "f4", "f5", "f1"):
            await pilot.press(key)
            await pilot.pause()
        await pilot.resize_terminal(80, 24)
        await wait_until(pilot, lambda: "broken" in screen_text(app))


async def test_a_workbench_changed_under_the_app_is_told_instead_of_ending_it(
    session: ScriptedSession, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late.py").write_text("before")
    monkeypatch.setattr(workbench, "__file__", str(tmp_path / "__init__.py"))

    def renamed(name: str) -> type[Bench]:
        raise AttributeError(f"module {name!r} has no attribute 'what_was_there'")

    class Misfit(Widget):
        DEFAULT_CSS = "Misfit { height: 1; }"

        def compose(self) -> ComposeResult:
            raise AttributeError("what_was_there")

    app = make_app(session, bench="doctor")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(app))
        with monkeypatch.context() as patched:
            patched.setattr(main_screen, "bench_class", renamed)
            (tmp_path / "late.py").write_text("behind it")
            await pilot.press("f2")
            await wait_until(pilot, lambda: "started: ctrl+q, start it again" in screen_text(app))
            assert app.main.current == "doctor"
            assert "broken" in screen_text(app)
            await app.main.mount(Misfit())
        await pilot.press("f2", *"still typed")
        await wait_until(pilot, lambda: app.main.current == "tokens" and "still typed" in screen_text(app))
        assert app.return_code is None
