from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from textual.widgets import Input, Static, TextArea

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.benches.chat import Prompt
from workbench.ui.session_state import ModelChosen
from workbench.ui.widgets.row_list import RowList
from workbench.ui.widgets.transcript import Transcript

MODEL = "smollm2-135m-instruct"


# --- Doctor ------------------------------------------------------------------------------------------------


async def test_doctor_gives_the_verdict_first_and_explains_the_selected_finding(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        text = screen_text(app)
        assert text.index("✖ broken") < text.index("FINDINGS")
        assert "pip install torch==2.13.0" in text
        await pilot.press("down")
        await wait_until(pilot, lambda: "FOLLOWS FROM" in screen_text(app))
        assert "↳ follows" in screen_text(app)


async def test_doctor_shows_what_is_known_while_it_still_examines(session: ScriptedSession, make_app: MakeApp) -> None:
    gate = session.hold(protocol.Diagnose, before=1)
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "still examining" in screen_text(app))
        assert "Ubuntu 24.04" in screen_text(app)
        gate.set()
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        assert "still examining" not in screen_text(app)


async def test_doctor_copies_the_fix_to_the_clipboard(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        await pilot.press("y")
        await pilot.pause()
        assert app.clipboard == data.REPORT["findings"][0]["fix"][0]


async def test_doctor_facts_unfold(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        app.query_one("#doctor-list", RowList).move_to("facts:platform")
        await pilot.press("enter")
        await wait_until(pilot, lambda: "memory total" in screen_text(app))
        assert "33.0 GiB" in screen_text(app)


async def test_doctor_exports_markdown(
    session: ScriptedSession, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        await pilot.press("e")
        await wait_until(pilot, lambda: (tmp_path / "workbench-doctor.md").exists())
    assert "pip install torch==2.13.0" in (tmp_path / "workbench-doctor.md").read_text()


async def test_doctor_examines_a_pasted_report(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        await pilot.press("p")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2)
        app.screen.query_one(TextArea).text = "PyTorch version: 2.5.1"
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: session.asked(protocol.DiagnoseText))
        assert session.asked(protocol.DiagnoseText)[0].text == "PyTorch version: 2.5.1"
        await wait_until(pilot, lambda: "a pasted report" in screen_text(app))


async def test_a_failure_is_one_line_with_its_remedy(session: ScriptedSession, make_app: MakeApp) -> None:
    session.script(
        protocol.RecountTokens,
        lambda request: [protocol.Failed("no-tokenizer", "x has no tokenizer.", "Name one that has.", "trace")],
    )
    app = make_app(session, bench="tokens", model="x")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press("a")
        await wait_until(pilot, lambda: "✖ x has no tokenizer. Name one that has." in screen_text(app))
        assert app.last_error is not None
        assert app.last_error.details == "trace"


# --- Chat --------------------------------------------------------------------------------------------------


async def test_chat_streams_an_answer_and_shows_its_figures(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    gate = loaded_session.hold(protocol.Generate, before=4)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press(*"two", "ctrl+j", *"lines", "enter")
        await wait_until(pilot, lambda: "The capital of France" in screen_text(app))
        assert "Paris" not in screen_text(app)
        assert "▌ two" in screen_text(app)
        gate.set()
        await wait_until(pilot, lambda: "41.0 tok/s" in screen_text(app))
        assert loaded_session.asked(protocol.Generate)[0].prompt == "two\nlines"
        text = screen_text(app)
        assert "The capital of France is Paris." in text
        assert f"{MODEL} nf4 · 38 in · 8 out" in text
        assert "KV 17.0 MiB" in text
        assert "46 of 8,192 tokens of context used" in text


async def test_the_context_figure_is_of_this_conversation_and_this_model(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: "46 of 8,192 tokens" in screen_text(app))
        other = dataclasses.replace(data.MODEL, name="tiny-gpt2", context_length=256)
        app.apply(ModelChosen("tiny-gpt2"))
        loaded_session.set_status(model=other)
        await wait_until(pilot, lambda: "256 tokens of context, counted with the next message" in screen_text(app))
        assert "of 256 tokens" not in screen_text(app)
        app.apply(ModelChosen(MODEL))
        loaded_session.set_status(model=data.MODEL)
        await wait_until(pilot, lambda: "46 of 8,192 tokens" in screen_text(app))
        await pilot.press("ctrl+n")
        await wait_until(pilot, lambda: "0 of 8,192 tokens" in screen_text(app))
        assert "46 of" not in screen_text(app)


async def test_chat_continues_its_conversation(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        for number in (1, 2):
            await pilot.press("a", "enter")
            await wait_until(pilot, lambda n=number: screen_text(app).count("41.0 tok/s") == n)
        assert [request.conversation_id for request in loaded_session.asked(protocol.Generate)] == ["", "1"]
        await pilot.press("ctrl+n", "b", "enter")
        await wait_until(pilot, lambda: len(loaded_session.asked(protocol.Generate)) == 3)
        assert loaded_session.asked(protocol.Generate)[-1].conversation_id == ""


async def test_escape_stops_the_answer_and_keeps_it(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    loaded_session.hold(protocol.Generate, before=4)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: "of France" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.Cancel))
        await wait_until(pilot, lambda: "stopped" in screen_text(app))
        assert "The capital of France" in screen_text(app)
        assert isinstance(app.focused, Prompt)


async def test_chat_without_a_model_keeps_the_words_and_names_the_key(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="chat", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press(*"hello", "enter")
        await wait_until(pilot, lambda: f"ctrl+l loads {MODEL}" in screen_text(app))
        assert app.query_one(Prompt).text == "hello"
        assert not session.asked(protocol.Generate)


async def test_a_failed_answer_gives_the_words_back(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    loaded_session.script(
        protocol.Generate, lambda request: [protocol.Failed("out-of-memory", "The GPU is full.", "Try nf4.")]
    )
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press(*"hello", "enter")
        await wait_until(pilot, lambda: "✖ The GPU is full. Try nf4." in screen_text(app))
        assert app.query_one(Prompt).text == "hello"


async def test_a_session_that_dies_while_answering_keeps_what_came(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    loaded_session.hold(protocol.Generate, before=4)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: "of France" in screen_text(app))
        await pilot.press(*"next words")
        loaded_session.kill()
        await wait_until(pilot, lambda: "cut off: the session was lost" in screen_text(app))
        assert "The capital of France" in screen_text(app)
        assert app.query_one(Prompt).text == "next words"


async def test_attaching_again_follows_the_running_answer(make_app: MakeApp) -> None:
    session = ScriptedSession(dataclasses.replace(data.STATUS, model=data.MODEL, conversation_id="c1"))
    gate = session.hold(protocol.FollowConversation, before=2)
    app = make_app(session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "It lies on the Seine." in screen_text(app))
        assert "escape stops" in screen_text(app)
        gate.set()
        await wait_until(pilot, lambda: "41.0 tok/s" in screen_text(app))
        assert "escape stops" not in screen_text(app)


async def test_attaching_again_shows_the_newest_conversation(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    loaded_session.script(
        protocol.ListConversations, lambda request: [protocol.ConversationsListed([{"id": "c1", "title": "x"}])]
    )
    loaded_session.script(protocol.OpenConversation, lambda request: [protocol.ConversationRead(data.CONVERSATION)])
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "The capital of France is Paris." in screen_text(app))
        assert loaded_session.asked(protocol.OpenConversation)[0].conversation_id == "c1"
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.Generate))
        assert loaded_session.asked(protocol.Generate)[0].conversation_id == "c1"


KEPT = [
    {"id": "c1", "title": "Capital of France", "model": MODEL, "updated": 1.7e9, "message_count": 2},
    {"id": "c0", "title": "Pelicans", "model": "tiny-gpt2", "updated": 1.6e9, "message_count": 8},
]


async def test_old_conversations_can_be_opened_renamed_and_deleted(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    loaded_session.script(protocol.OpenConversation, lambda request: [protocol.ConversationRead(data.CONVERSATION)])
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        loaded_session.script(protocol.ListConversations, lambda request: [protocol.ConversationsListed(KEPT)])
        await pilot.press("alt+c")
        await wait_until(pilot, lambda: "Pelicans" in screen_text(app) and "8 messages" in screen_text(app))
        await pilot.press("down", "r")
        app.screen.query_one(Input).value = "Birds"
        await pilot.press("enter")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.RenameConversation))
        renamed = loaded_session.asked(protocol.RenameConversation)[0]
        assert (renamed.conversation_id, renamed.title) == ("c0", "Birds")
        await pilot.press("x")
        await wait_until(pilot, lambda: "for good?" in screen_text(app))
        assert not loaded_session.asked(protocol.DeleteConversation)
        await pilot.press("x")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.DeleteConversation))
        assert loaded_session.asked(protocol.DeleteConversation)[0].conversation_id == "c0"
        await pilot.press("up", "enter")
        await wait_until(pilot, lambda: "The capital of France is Paris." in screen_text(app))
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.Generate))
        assert loaded_session.asked(protocol.Generate)[0].conversation_id == "c1"


async def test_a_new_conversation_stays_when_the_session_starts_again(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    loaded_session.script(protocol.ListConversations, lambda request: [protocol.ConversationsListed(KEPT)])
    loaded_session.script(protocol.OpenConversation, lambda request: [protocol.ConversationRead(data.CONVERSATION)])
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "The capital of France is Paris." in screen_text(app))
        await pilot.press("ctrl+n")
        await wait_until(pilot, lambda: "Paris" not in screen_text(app))
        loaded_session.kill()
        await wait_until(pilot, lambda: app.session.connection == "lost")
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.pause(0.1)
        assert "Paris" not in screen_text(app)


async def test_a_long_answer_is_followed_until_the_reader_scrolls_away(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    lines = [protocol.TokensGenerated(f"line {i}\n\n", i, "c1") for i in range(60)]
    result = {"text": "".join(event.text for event in lines)}
    loaded_session.script(protocol.Generate, lambda request: [*lines, protocol.Generated("c1", result)])
    gate = loaded_session.hold(protocol.Generate, before=40)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: "line 39" in screen_text(app))
        transcript = app.query_one(Transcript)
        await pilot.press("pageup", "pageup")
        await wait_until(pilot, lambda: "line 39" not in screen_text(app) and isinstance(app.focused, Prompt))
        await pilot.press("pagedown", "pagedown")
        await wait_until(pilot, lambda: "line 39" in screen_text(app))
        transcript.scroll_to(y=3, animate=False)
        await pilot.pause()
        gate.set()
        await wait_until(pilot, lambda: not transcript.turns[-1].growing)
        assert transcript.scroll_offset.y == 3


async def test_hostile_strings_are_shown_and_not_obeyed(make_app: MakeApp) -> None:
    hostile = "[@click=app.quit]x[/] [/nope] \x1b]52;c;ZXZpbA==\x07 \x9b31m \u202e"
    session = ScriptedSession(
        dataclasses.replace(data.STATUS, model=dataclasses.replace(data.MODEL, name=hostile), python_version=hostile)
    )
    report = {
        "verdict": hostile,
        "findings": [{"id": hostile, "severity": hostile, "title": hostile, "why": hostile, "fix": [hostile]}],
        "facts": {hostile: {hostile: hostile}},
    }
    session.script(protocol.Diagnose, lambda request: [protocol.Diagnosed(report)])
    session.script(protocol.ListModels, lambda request: [protocol.ModelsListed([{"name": hostile, "kind": hostile}])])
    inspection = {"facts": {"norm": hostile}, "tree": {"name": hostile, "class_name": hostile, "children": []}}
    session.script(protocol.InspectModel, lambda request: [protocol.ModelInspected(inspection)])
    budget = {"estimate": {hostile: 5, "total": 5}, "gpus": [{"name": hostile}], "warnings": [hostile]}
    session.script(protocol.EstimateMemory, lambda request: [protocol.MemoryEstimated(budget)])
    session.script(protocol.Generate, lambda request: [protocol.Generated("c1", {"text": hostile})])
    app = make_app(session, model=hostile)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        for key, shown in (("f1", "FINDINGS"), ("f3", "nope]"), ("f4", "nope]"), ("f5", "message")):
            await pilot.press(key)
            await wait_until(pilot, lambda shown=shown: shown in screen_text(app))
            _assert_clean(screen_text(app))
        await wait_until(pilot, lambda: isinstance(app.focused, Prompt))
        app.query_one(Prompt).text = hostile
        await pilot.press("enter")
        await wait_until(pilot, lambda: session.asked(protocol.Generate))
        await pilot.pause()
        _assert_clean(screen_text(app))
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: session.asked(protocol.ListModels))
        await pilot.pause()
        _assert_clean(screen_text(app))
        session.broadcast(protocol.LogAppended((hostile,)))
        app.say(hostile)
        await pilot.press("escape", "f9")
        await pilot.pause(0.6)
        _assert_clean(screen_text(app))
        assert app.is_running


def _assert_clean(text: str) -> None:
    assert not [c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c == "\u202e"]


async def test_empty_states_teach(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram")
    async with app.run_test(size=(80, 24)) as pilot:
        for key in ("f2", "f3", "f4", "f5"):
            await pilot.press(key)
            await wait_until(pilot, lambda: "ctrl+o" in screen_text(app) and "choose" in screen_text(app))


async def test_static_texts_hold_no_markup_strings(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        for key in ("f1", "f2", "f3", "f4", "f5"):
            await pilot.press(key)
            await pilot.pause()
        assert [widget.id for widget in app.main.query(Static) if "[" in str(widget.render())] == []
