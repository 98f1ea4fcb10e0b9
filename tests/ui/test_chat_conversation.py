"""Chat by keyboard: branches, editing, going on, attachments, finding, exporting, presets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.selection import Selection
from textual.widgets import Input, TextArea

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.benches.chat import Prompt
from workbench.ui.benches.chat_files import Attachment, completions, fenced, read_attachment
from workbench.ui.benches.chat_status import Doing, context_line
from workbench.ui.widgets.transcript import Transcript


async def begun(pilot: Pilot[int], *messages: str) -> Any:
    """The chat bench after these messages were answered, with the focus in the message field."""
    app: Any = pilot.app
    await wait_until(pilot, lambda: isinstance(app.focused, Prompt) and app.session.attached)
    for message in messages:
        await say(pilot, message)
    return app


async def say(pilot: Pilot[int], message: str) -> None:
    app: Any = pilot.app
    app.query_one(Prompt).text = message
    await pilot.press("enter")
    await answered(pilot)


async def answered(pilot: Pilot[int]) -> None:
    app: Any = pilot.app
    await pilot.pause()
    await wait_until(pilot, lambda: not app.main.bench.answering and app.query_one(Transcript).turns[-1].message)


def asked(session: ScriptedSession) -> protocol.Generate:
    request: protocol.Generate = session.asked(protocol.Generate)[-1]
    return request


async def test_an_earlier_message_is_edited_and_branches(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "Capital of France?", "And of Italy?")
        assert asked(loaded_session).alternatives >= 8
        app.query_one(Prompt).text = "half a thought"
        await pilot.press("escape", "up", "e")
        field = app.query_one(Prompt)
        await wait_until(pilot, lambda: field.text == "And of Italy?" and field.has_focus)
        assert "sends it as a branch" in screen_text(app)
        await pilot.press("escape")
        assert field.text == "half a thought"
        await pilot.press("escape", "up", "e")
        field.text = "And of Spain?"
        await pilot.press("enter")
        await answered(pilot)
        turns = app.query_one(Transcript).turns
        assert (asked(loaded_session).prompt, asked(loaded_session).after) == (
            "And of Spain?",
            turns[1].message["id"],
        )
        assert [turn.text for turn in turns[::2]] == ["Capital of France?", "And of Spain?"]
        assert field.text == "half a thought", "what was being written before comes back"
        assert "‹ 2/2 ›" in screen_text(app)
        # Back to the first branch, and forward again.
        await pilot.press("escape", "up", "left")
        await wait_until(pilot, lambda: "And of Italy?" in screen_text(app))
        assert "‹ 1/2 ›" in screen_text(app)
        assert "Spain" not in screen_text(app)
        await pilot.press("right")
        await wait_until(pilot, lambda: "And of Spain?" in screen_text(app))


async def test_the_first_message_is_edited_under_another_system_prompt(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        await pilot.press("alt+p")
        await wait_until(pilot, lambda: "System prompt" in screen_text(app))
        app.screen.query_one("#text-edited", TextArea).text = "Be brief."
        app.screen.query_one("#text-name", Input).focus()
        await pilot.press(*"short", "enter")
        await wait_until(pilot, lambda: "Kept as “short”." in screen_text(app))
        await pilot.press("ctrl+s")
        await say(pilot, "Hello")
        assert asked(loaded_session).system == "Be brief."
        await wait_until(pilot, lambda: "system: Be brief." in screen_text(app))
        # The same system prompt: the branch parts after it. Another one: from the beginning.
        await pilot.press("escape", "up", "e", "x", "enter")
        await answered(pilot)
        system = app.query_one(Transcript).turns[0].message["id"]
        assert asked(loaded_session).after == system
        app.main.bench.asking.system = "Be long."
        await pilot.press("escape", "up", "e", "y", "enter")
        await answered(pilot)
        assert (asked(loaded_session).after, asked(loaded_session).system) == ("", "Be long.")
        assert app.query_one(Transcript).turns[0].text == "Be long."
        # The kept one is there to be taken again.
        await pilot.press("alt+p")
        await wait_until(pilot, lambda: "short" in screen_text(app))
        app.screen.query_one("#text-list").focus()
        await pilot.press("enter", "ctrl+s")
        await wait_until(pilot, lambda: app.main.bench.asking.system == "Be brief.")


async def test_an_answer_is_given_again_and_continued(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "Hello")
        first = app.query_one(Transcript).turns[-1].message["id"]
        await pilot.press("escape")
        await pilot.press("c")
        assert len(loaded_session.asked(protocol.Generate)) == 1, "an answer that ended by itself has nothing to add"
        await pilot.press("r")
        await answered(pilot)
        assert (asked(loaded_session).again, asked(loaded_session).extend) == (first, False)
        assert "‹ 2/2 ›" in screen_text(app)
        store = app_store(loaded_session)
        second = app.query_one(Transcript).turns[-1].message["id"]
        store.update_message(int(second), text="The capital", figures={"finish_reason": "length", "new_tokens": 2})
        await app.main.bench.open("1")
        await wait_until(pilot, lambda: "stopped at the limit of 2 tokens" in screen_text(app))
        gate = loaded_session.hold(protocol.Generate, before=3)
        await pilot.press("c")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.Generate)[-1].extend)
        # What was there stays on screen and is not written twice.
        await wait_until(pilot, lambda: screen_text(app).count("The capital") == 1)
        gate.set()
        await answered(pilot)
        assert asked(loaded_session).again == second
        assert screen_text(app).count("The capital of France is Paris.") == 1


def app_store(session: ScriptedSession) -> Any:
    return session._scripts[protocol.Generate].__self__.store  # type: ignore[attr-defined]


async def test_up_and_down_bring_back_what_was_written(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot, "first", "second\nline")
        field = app.query_one(Prompt)
        await pilot.press(*"third", "up")
        assert field.text == "second\nline"
        await pilot.press("up")
        assert field.text == "first"
        await pilot.press("x", "down")
        assert field.text == "second\nline"
        await pilot.press("up", "up")
        assert field.text == "xfirst", "a change to a message that was brought back is kept"
        await pilot.press("down", "down")
        assert field.text == "third"


async def test_a_text_file_goes_with_the_message(
    loaded_session: ScriptedSession, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").write_text("one two three\n```\ncode\n```\n")
    (tmp_path / "nothing.bin").write_bytes(b"\x00\xff\x00")
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        await pilot.press(*"read this", "alt+a")
        await wait_until(pilot, lambda: "Attach a text file" in screen_text(app))
        await pilot.press("n", "o", "tab")
        await wait_until(pilot, lambda: "notes.md   nothing.bin" in screen_text(app))
        await pilot.press("h", "tab", "enter")
        await wait_until(pilot, lambda: "nothing.bin is no text in UTF-8." in screen_text(app))
        app.screen.query_one(Input).value = "notes.md"
        await pilot.press("enter")
        await wait_until(pilot, lambda: "+ notes.md 27 B · 7 tokens" in screen_text(app))
        await pilot.press("enter")
        await answered(pilot)
        expected = "read this\n\nnotes.md:\n````md\none two three\n```\ncode\n```\n````"
        assert asked(loaded_session).prompt == expected
        assert "+ notes.md" not in screen_text(app)


async def test_files_come_back_with_the_words_when_nothing_was_answered(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    loaded_session.script(protocol.Generate, lambda request: [protocol.Failed("out-of-memory", "Full.", "Try nf4.")])
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        app.main.bench.asking.files = (Attachment("a.py", "x = 1", 5),)
        await pilot.press(*"why", "enter")
        await wait_until(pilot, lambda: "✖ Full." in screen_text(app))
        assert app.query_one(Prompt).text == "why"
        assert "+ a.py 5 B" in screen_text(app)


async def test_words_are_found_here_and_in_other_conversations(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "Pelicans [/x] eat fish")
        await pilot.press("ctrl+n")
        await begun(pilot, "Do pelicans fly?", "Something else")
        await pilot.press("escape", "slash")
        await pilot.press(*"PELICANS")
        await wait_until(pilot, lambda: "ALL CONVERSATIONS" in screen_text(app))
        assert "THIS CONVERSATION" in screen_text(app)
        assert "2 messages" in screen_text(app)
        await pilot.press("enter")
        transcript = app.query_one(Transcript)
        await wait_until(pilot, lambda: transcript.has_focus and transcript.turn.text == "Do pelicans fly?")
        assert transcript.marks
        await pilot.press("slash", *"fish")
        await wait_until(pilot, lambda: "Pelicans [/x] eat fish" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.main.bench.conversation_id == "1" and transcript.has_focus)
        assert transcript.turn is not None
        assert transcript.turn.text == "Pelicans [/x] eat fish"
        # A message of a branch that is not shown is shown with its branch.
        await pilot.press("e", "!", "enter")
        await answered(pilot)
        assert "eat fish!" in screen_text(app)
        store = app_store(loaded_session)
        first = store.search("eat fish")[-1].message
        await app.main.bench.show_message(str(first))
        assert "eat fish!" not in screen_text(app)


async def test_a_conversation_is_exported_to_a_file(
    loaded_session: ScriptedSession, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "What is it?")
        for key, name in (("m", "what-is-it.md"), ("j", "what-is-it.jsonl")):
            await pilot.press("escape", "x")
            await wait_until(pilot, lambda: "Export “What is it?” as" in screen_text(app))
            await pilot.press(key)
            await wait_until(pilot, lambda name=name: name in screen_text(app))
            await pilot.press("enter")
            await wait_until(pilot, lambda name=name: (tmp_path / name).exists())
            await pilot.press("w")
        row = json.loads((tmp_path / "what-is-it.jsonl").read_text())
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert "## User" in (tmp_path / "what-is-it.md").read_text()
        # A file that is there is not replaced unasked.
        (tmp_path / "what-is-it.md").write_text("mine")
        await pilot.press("escape", "x")
        await wait_until(pilot, lambda: "as" in screen_text(app) and "fine-tune" in screen_text(app))
        # A key held down comes twice before the question is gone.
        question = app.screen
        for _ in range(2):
            question.post_message(events.Key("m", "m"))
        await wait_until(pilot, lambda: "Write to a file" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "is there already." in screen_text(app))
        await pilot.press("escape")
        await pilot.pause()
        assert (tmp_path / "what-is-it.md").read_text() == "mine"


async def test_a_damaged_history_is_told(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    note = "The conversations in conversations.db were damaged; they are kept as conversations.db.damaged."
    loaded_session.script(protocol.ListConversations, lambda request: [protocol.ConversationsListed([], note)])
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(140, 30)) as pilot:
        await begun(pilot)
        await wait_until(pilot, lambda: note in screen_text(app))
        await say(pilot, "Capital of France?")
        assert note not in screen_text(app)


def test_what_a_cut_off_conversation_takes_is_not_said_to_be_nothing() -> None:
    assert context_line(data.MODEL, Doing()).plain == "0 of 8,192 tokens of context used"
    uncounted = context_line(data.MODEL, Doing(begun=True)).plain
    assert uncounted == "8,192 tokens of context, counted with the next message"


async def test_the_context_is_guarded_and_asked_about_once(make_app: MakeApp) -> None:
    model = dataclasses.replace(data.MODEL, context_length=60)
    session = ScriptedSession(dataclasses.replace(data.STATUS, model=model))
    app = make_app(session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        app.main.bench.asking.sampling = {"max_new_tokens": 4}
        await say(pilot, "a")
        await wait_until(pilot, lambda: "46 of 60 tokens of context used" in screen_text(app))
        app.query_one(Prompt).text = " ".join("word" for _ in range(60))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "This message alone takes 65 tokens" in screen_text(app))
        app.query_one(Prompt).text = " ".join("word" for _ in range(45))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "leave out the oldest" in screen_text(app))
        assert len(session.asked(protocol.Generate)) == 1
        await pilot.press("escape")
        await pilot.pause()
        assert app.query_one(Prompt).text.startswith("word word"), "nothing was sent, nothing is lost"
        await pilot.press("enter")
        await wait_until(pilot, lambda: "leave out the oldest" in screen_text(app))
        await pilot.press("d")
        await answered(pilot)
        assert asked(session).overflow == "drop-oldest"
        await say(pilot, " ".join("more" for _ in range(45)))
        assert asked(session).overflow == "drop-oldest"
        assert len(session.asked(protocol.Generate)) == 3


async def test_bare_completion_is_a_switch(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        await pilot.press("alt+m")
        await wait_until(pilot, lambda: "no template" in screen_text(app))
        await say(pilot, "Once upon a time")
        assert asked(loaded_session).raw
        await pilot.press("alt+m")
        await say(pilot, "Hello")
        assert not asked(loaded_session).raw


async def test_a_long_message_is_folded(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 60)) as pilot:
        await begun(pilot, "\n".join(f"line {i}" for i in range(45)))
        await pilot.press("escape", "up")
        assert "… 33 more lines, space unfolds them" in screen_text(app)
        await pilot.press("space")
        await wait_until(pilot, lambda: "line 40" in screen_text(app))
        await pilot.press("y")
        await wait_until(pilot, lambda: app.clipboard.endswith("line 44"))


async def test_the_draft_survives_a_lost_session_and_other_benches(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "Hello")
        await pilot.press(*"draft", "f1")
        await wait_until(pilot, lambda: app.main.current == "doctor")
        loaded_session.kill()
        await wait_until(pilot, lambda: app.session.connection == "lost")
        await pilot.press("f5", "enter")
        await wait_until(pilot, lambda: "what you write stays here" in screen_text(app))
        assert app.query_one(Prompt).text == "draft"
        assert "The capital of France is Paris." in screen_text(app)
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: app.session.attached)
        await pilot.press("enter")
        await answered(pilot)
        assert asked(loaded_session).prompt == "draft"


def test_a_fence_is_longer_than_any_in_the_file() -> None:
    text = fenced(Attachment("a b.md", "x\n`````\ny", 9))
    assert text == "a b.md:\n``````md\nx\n`````\ny\n``````"


def test_what_is_no_text_file_is_refused_in_one_line(tmp_path: Path) -> None:
    import os

    from workbench.errors import WorkbenchError

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big.txt").write_bytes(b"a" * (2 * 2**20 + 1))
    for name, said in (("pipe", "no regular file"), ("big.txt", "larger"), ("none", "No such file"), (".", "folder")):
        with pytest.raises(WorkbenchError, match=said):
            read_attachment(str(tmp_path / name))


def test_tab_completes_as_a_shell_does(tmp_path: Path) -> None:
    tmp_path = tmp_path / "here"
    (tmp_path / "alpha").mkdir(parents=True)
    (tmp_path / "alpine.txt").touch()
    (tmp_path / ".hidden").touch()
    assert completions(f"{tmp_path}/a") == (f"{tmp_path}/alp", ["alpha/", "alpine.txt"])
    assert completions(f"{tmp_path}/alph") == (f"{tmp_path}/alpha/", ["alpha/"])
    assert completions(f"{tmp_path}/")[1] == ["alpha/", "alpine.txt"]
    assert completions(f"{tmp_path}/nowhere/x") == (f"{tmp_path}/nowhere/x", [])


async def test_selected_text_is_copied_without_the_margin(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot, "first\nsecond")
        transcript = app.query_one(Transcript)
        selected = Selection.from_offsets(Offset(3, 0), Offset(5, 1))
        assert transcript.get_selection(selected) == ("irst\nsec", "\n")
        assert transcript.get_selection(Selection(None, None))[0].startswith("first\nsecond\n\nThe capital of")


async def test_what_failed_and_is_kept_is_sent_again_beside_itself(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    store = app_store(loaded_session)

    def fails(request: protocol.Generate) -> list[protocol.Message]:
        number = int(request.conversation_id)
        parent = None if request.after is None else int(request.after)
        question = store.add_message(number, "user", request.prompt, parent)
        store.write_answer(number, question.id, {}).finish("failed", {"error": "The GPU is full."})
        return [protocol.Failed("out-of-memory", "The GPU is full.", "Try nf4.")]

    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "Hello")
        answers = loaded_session._scripts[protocol.Generate]
        loaded_session.script(protocol.Generate, fails)
        await pilot.press(*"Again?", "enter")
        await wait_until(pilot, lambda: "failed: The GPU is full." in screen_text(app))
        await answered(pilot)
        assert app.query_one(Prompt).text == "Again?"
        loaded_session.script(protocol.Generate, answers)
        await pilot.press("enter")
        await answered(pilot)
        assert asked(loaded_session).after == "2"
        assert [turn.text for turn in app.query_one(Transcript).turns[::2]] == ["Hello", "Again?"]


async def test_an_edited_message_of_another_conversation_is_sent_as_a_new_one(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "one")
        await pilot.press("escape", "e", "ctrl+n", "enter")
        await answered(pilot)
        assert (asked(loaded_session).prompt, asked(loaded_session).after) == ("one", None)
        assert asked(loaded_session).conversation_id == ""


async def test_a_draft_outlives_the_app(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        await pilot.press(*"half a", "ctrl+j", *"thought")
    again = make_app(loaded_session, bench="chat")
    async with again.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        assert again.query_one(Prompt).text == "half a\nthought"
        await pilot.press("enter")
        await answered(pilot)
    third = make_app(loaded_session, bench="chat")
    async with third.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        assert third.query_one(Prompt).text == ""


async def test_the_end_is_shown_before_the_first_word_of_an_answer(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    gate = loaded_session.hold(protocol.Generate, before=2)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        app.query_one(Prompt).text = "\n".join(f"line {i}" for i in range(25))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "line 24" in screen_text(app))
        gate.set()
        await answered(pilot)


def type_in_one_burst(app: Any, *keys: str) -> None:
    """As a terminal hands over what was typed ahead: all keys before the first one is handled."""
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else None))


def written(app: Any) -> str:
    """What stands in the field with the focus."""
    field = app.focused
    return field.value if isinstance(field, Input) else field.text if isinstance(field, TextArea) else ""


async def test_keys_in_one_burst_reach_the_dialog_that_the_first_opened(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "Capital of France?")
        await pilot.press("escape")
        for first, rest in (("slash", "fox"), ("a", "tmp"), ("t", "story")):
            type_in_one_burst(app, first, *rest)
            await wait_until(pilot, lambda typed=rest: written(app) == typed, rest)
            assert len(app.screen_stack) == 2
            await pilot.press("escape")
            await wait_until(pilot, lambda: len(app.screen_stack) == 1)
            app.query_one(Transcript).focus()
            await pilot.pause()
        # Words meant for a message that no field takes open one thing, not one for each letter.
        type_in_one_burst(app, *"nasp")
        await wait_until(pilot, lambda: len(app.screen_stack) > 1)
        await pilot.pause()
        assert len(app.screen_stack) == 2


async def test_once_the_model_stands_an_empty_chat_is_written_in(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="chat", model="smollm2-135m-instruct")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(app.focused, Prompt))
        await pilot.press("ctrl+l")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.model is not None and isinstance(app.focused, Prompt))


async def test_a_conversation_replaced_behind_another_bench(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "one", "two")
        transcript = app.query_one(Transcript)
        await pilot.press("f4")
        await wait_until(pilot, lambda: transcript.size.width == 0)
        transcript.set_turns(transcript.turns[:1])
        for line in range(30):
            assert not transcript.render_line(line).text.strip()
        transcript.show_turn(0)
        transcript.action_page(-1)
        await pilot.press("f5")
        await wait_until(pilot, lambda: "one" in screen_text(app))
        assert "two" not in screen_text(app)
