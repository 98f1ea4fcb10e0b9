"""Conversations survive crashes, damage and newer versions; exports are what their readers expect."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from workbench.chat.conversations import Preset
from workbench.chat.export import to_jsonl, to_markdown
from workbench.chat.store import ConversationStore
from workbench.errors import WorkbenchError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "conversations.db"


@pytest.fixture
def store(path: Path):
    opened = ConversationStore(path)
    yield opened
    opened.close()


def texts(conversation) -> list[str]:
    return [message.text for message in conversation.messages]


def test_a_conversation_comes_back_as_it_was(store, path):
    chat = store.create(model="smollm2")
    store.add_message(chat.id, "system", "Be brief.")
    store.add_message(chat.id, "user", "What is  the capital\nof France?")
    writer = store.write_answer(chat.id, settings={"temperature": 0.7, "seed": 3})
    for piece in ("The capital", " of France", " is Paris 🗼"):
        writer.append(piece)
    writer.finish(figures={"new_tokens": 8})
    store.close()

    again = ConversationStore(path).load(chat.id)
    assert texts(again) == ["Be brief.", "What is  the capital\nof France?", "The capital of France is Paris 🗼"]
    assert again.title == "What is the capital of France?"
    answer = again.messages[-1]
    assert (answer.state, answer.settings["seed"], answer.figures) == ("complete", 3, {"new_tokens": 8})
    assert [message.parent for message in again.messages] == [None, 1, 2]
    assert json.loads(json.dumps(asdict(again)))["messages"][2]["role"] == "assistant"


def test_list_rename_delete_latest(store):
    assert store.latest() is None
    first, second = store.create("one"), store.create("two")
    store.add_message(first.id, "user", "newer")
    assert [item.title for item in store.conversations()] == ["one", "two"]
    assert store.latest().messages[0].text == "newer"
    assert store.conversations()[0].message_count == 1
    store.rename(second.id, "Zwei")
    store.delete(first.id)
    assert [item.title for item in store.conversations()] == ["Zwei"]
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT count(*) FROM message").fetchone() == (0,)
    for call in (store.load, store.delete, lambda number: store.rename(number, "x")):
        with pytest.raises(WorkbenchError, match="no conversation 1"):
            call(first.id)
    with pytest.raises(WorkbenchError, match="empty"):
        store.rename(second.id, " ")


def test_an_earlier_message_sent_again_makes_a_branch(store):
    chat = store.create()
    question = store.add_message(chat.id, "user", "A?")
    first = store.add_message(chat.id, "assistant", "first")
    second = store.add_message(chat.id, "assistant", "second", parent=question.id)
    assert texts(store.load(chat.id)) == ["A?", "second"]
    assert texts(store.load(chat.id, leaf=first.id)) == ["A?", "first"]
    assert store.load(chat.id).messages[-1].siblings == (first.id, second.id)
    store.show_branch(chat.id, first.id)
    store.add_message(chat.id, "user", "B?")
    assert texts(store.load(chat.id)) == ["A?", "first", "B?"]
    edited = store.add_message(chat.id, "user", "A!", first=True)
    assert texts(store.load(chat.id)) == ["A!"]
    assert store.load(chat.id).messages[0].siblings == (question.id, edited.id)
    other = store.create()
    with pytest.raises(WorkbenchError, match=f"no message {first.id} here"):
        store.add_message(other.id, "user", "x", parent=first.id)


def test_an_answer_is_on_disk_while_it_grows(store, path, monkeypatch):
    chat = store.create()
    writer = store.write_answer(chat.id)
    other = ConversationStore(path)
    writer.append("not yet ")
    assert texts(other.load(chat.id)) == [""]
    monkeypatch.setattr("workbench.chat.store.FLUSH_SECONDS", 0.0)
    writer.append("now")
    message = other.load(chat.id).messages[0]
    assert (message.text, message.state) == ("not yet now", "partial")
    writer.finish("cancelled")
    assert other.load(chat.id).messages[0].state == "cancelled"


def test_a_killed_writer_loses_nothing_that_was_flushed(path):
    script = (
        "import sys, time; from pathlib import Path; from workbench.chat.store import ConversationStore\n"
        "store = ConversationStore(Path(sys.argv[1])); chat = store.create('crash')\n"
        "writer = store.write_answer(chat.id)\n"
        "for n in range(200): writer.append(f'{n} '); writer.flush()\n"
        "writer.append('lost'); print('ready', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = ConversationStore(path)
    message = store.latest().messages[0]
    assert message.text == "".join(f"{n} " for n in range(200))
    assert message.state == "partial"
    assert store.notice == ""


def test_threads_write_side_by_side(store):
    chats = [store.create(str(n)) for n in range(4)]

    def write(chat) -> None:
        writer = store.write_answer(chat.id)
        for n in range(50):
            writer.append(f"{n},")
            writer.flush()
        writer.finish()

    threads = [threading.Thread(target=write, args=(chat,)) for chat in chats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = "".join(f"{n}," for n in range(50))
    assert [texts(store.load(chat.id)) for chat in chats] == [[expected]] * 4


def damaged(content: bytes, how: str) -> bytes:
    if how == "not a database":
        return b"hello, world\n" * 400
    if how == "zeros inside":
        return content[:4096] + b"\0" * (len(content) - 4096)
    if how == "noise":
        return content[:100] + bytes((n * 37) % 256 for n in range(len(content) - 100))
    return content[: len(content) // 2]


@pytest.mark.parametrize("how", ["not a database", "zeros inside", "noise", "cut"])
def test_a_damaged_database_is_kept_aside_and_a_new_one_begun(path, how):
    store = ConversationStore(path)
    for n in range(40):
        store.add_message(store.create(f"chat {n}").id, "user", "text " * 200)
    store.close()
    content = damaged(path.read_bytes(), how)
    path.write_bytes(content)
    again = ConversationStore(path)
    assert again.notice.startswith(f"The conversations in {path} were damaged; they are kept as conversations.db.dam")
    assert again.conversations() == []
    again.create("works")
    (kept,) = path.parent.glob("conversations.db.damaged-*")
    assert kept.read_bytes() == content


def test_another_programs_database_is_not_written_into(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    store = ConversationStore(path)
    assert "kept as" in store.notice
    assert store.conversations() == []


def test_a_newer_schema_is_left_alone(path):
    ConversationStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(WorkbenchError, match="newer version") as caught:
        ConversationStore(path)
    assert caught.value.kind == "store-newer"
    assert path.read_bytes() == before


def test_places_that_cannot_hold_a_database(tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "directory", tmp_path / "file" / "conversations.db"):
        with pytest.raises(WorkbenchError) as caught:
            ConversationStore(path)
        assert caught.value.kind == "store-unusable"


def test_the_file_is_the_users_alone(store, path):
    store.create("secret")
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_text_that_has_no_utf8_form_is_stored_readably(store):
    chat = store.create()
    store.add_message(chat.id, "user", "a\ud800b\0c")
    assert texts(store.load(chat.id)) == ["a?b\0c"]


@pytest.mark.parametrize(("role", "state"), [("boss", "complete"), ("user", "half")])
def test_roles_and_states_are_known_ones(store, role, state):
    with pytest.raises(WorkbenchError, match="There is no"):
        store.add_message(store.create().id, role, "x", state=state)


def finished_chat(store, answer: str, state: str = "complete"):
    chat = store.create(model="smollm2 nf4")
    store.add_message(chat.id, "user", "Write code")
    message = store.add_message(chat.id, "assistant", answer, state=state)
    store.update_message(message.id, figures={"new_tokens": 12, "tokens_per_second": 20.06})
    return chat


def test_markdown_export(store):
    chat = finished_chat(store, "Here:\n```python\nprint(1)", "cancelled")
    store.add_message(chat.id, "user", "Go on")
    text = to_markdown(store.load(chat.id))
    assert text.startswith("# Write code\n\nModel: smollm2 nf4 · ")
    assert "## User\n\nWrite code\n\n## Assistant\n\nHere:\n```python\nprint(1)\n```\n" in text
    assert "*stopped by the user · 12 tokens · 20.1 tokens/s*\n\n## User\n\nGo on\n" in text


def test_jsonl_export_is_what_fine_tuning_reads(store):
    whole = finished_chat(store, 'ünï "quoted"\nline')
    cut = finished_chat(store, "half an ans", "partial")
    chats = [store.load(whole.id), store.load(cut.id)]
    lines = to_jsonl(chats).splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "messages": [
                {"role": "user", "content": "Write code"},
                {"role": "assistant", "content": 'ünï "quoted"\nline'},
            ]
        }
    ]
    assert len(to_jsonl(chats, only_complete=False).splitlines()) == 2


def test_a_database_of_the_first_schema_is_brought_along(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE conversation (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, "
            "model TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, leaf INTEGER);"
            "CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER NOT NULL REFERENCES "
            "conversation(id) ON DELETE CASCADE, parent INTEGER REFERENCES message(id) ON DELETE CASCADE, "
            "role TEXT NOT NULL, text TEXT NOT NULL, created REAL NOT NULL, state TEXT NOT NULL, "
            "settings TEXT NOT NULL, figures TEXT NOT NULL);"
            "INSERT INTO conversation VALUES (1, 'old', 'smollm2', 1.0, 1.0, 1);"
            "INSERT INTO message VALUES (1, 1, NULL, 'user', 'hello', 1.0, 'complete', '{}', '{}');"
            "PRAGMA user_version = 1;"
        )
    db.close()
    store = ConversationStore(path)
    assert store.notice == ""
    assert texts(store.load(1)) == ["hello"]
    store.save_tokens(1, [[1, "a"]])
    assert store.tokens(1) == [[1, "a"]]


def test_a_branch_is_shown_down_to_its_newest_message(store):
    chat = store.create()
    question = store.add_message(chat.id, "user", "A?")
    first = store.add_message(chat.id, "assistant", "first")
    follow_up = store.add_message(chat.id, "user", "B?")
    store.add_message(chat.id, "assistant", "second", parent=question.id)
    assert texts(store.load(chat.id)) == ["A?", "second"]
    assert texts(store.show_message(chat.id, first.id)) == ["A?", "first", "B?"]
    assert store.load(chat.id).messages[-1].id == follow_up.id
    with pytest.raises(WorkbenchError, match="no message"):
        store.show_message(store.create().id, first.id)


def test_an_answer_goes_on_where_it_ended(store):
    chat = store.create()
    store.add_message(chat.id, "user", "A?")
    writer = store.write_answer(chat.id)
    writer.append("Half")
    writer.finish("cancelled", {"new_tokens": 1})
    longer = store.extend_answer(writer.message.id)
    assert store.load(chat.id).messages[-1].state == "partial"
    longer.append(" and half.")
    longer.finish("complete", {"new_tokens": 3})
    last = store.load(chat.id).messages[-1]
    assert (last.id, last.text, last.state, last.figures) == (
        writer.message.id,
        "Half and half.",
        "complete",
        {"new_tokens": 3},
    )
    with pytest.raises(WorkbenchError, match="Only an answer"):
        store.extend_answer(store.load(chat.id).messages[0].id)


def test_tokens_go_with_their_message_and_damage_is_none(store, path):
    chat = store.create()
    answer = store.add_message(chat.id, "assistant", "ü")
    store.save_tokens(answer.id, [[5, "ü", -0.25]])
    store.save_tokens(answer.id, [[5, "ü", -0.5]])
    assert store.tokens(answer.id) == [[5, "ü", -0.5]]
    assert store.tokens(answer.id + 1) is None
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answer_tokens SET body = x'0011'")
    db.close()
    assert store.tokens(answer.id) is None
    store.delete(chat.id)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM answer_tokens").fetchone()[0] == 0
    db.close()


def test_words_are_found_in_every_branch_and_taken_literally(store):
    chat = store.create()
    question = store.add_message(chat.id, "user", "How much is 100% of_it? " + "word " * 60)
    store.add_message(chat.id, "assistant", "All.")
    store.add_message(chat.id, "assistant", "Everything, ALL OF IT.", parent=question.id)
    assert [found.role for found in store.search("all")] == ["assistant", "assistant"]
    (found,) = store.search("100% OF_")
    assert (found.conversation, found.message, found.role) == (chat.id, question.id, "user")
    assert found.snippet.startswith("How much is 100% of_it?")
    assert found.snippet.endswith("…")
    assert store.search("%") != []
    assert store.search("100x") == []


def test_presets_are_kept_by_kind_and_name(store):
    store.save_preset(Preset("sampling", "cold", {"temperature": 0.2}))
    store.save_preset(Preset("sampling", "cold", {"temperature": 0.1}))
    store.save_preset(Preset("system", "cold", {"text": "Be brief."}))
    assert store.presets("sampling") == [Preset("sampling", "cold", {"temperature": 0.1})]
    assert len(store.presets()) == 2
    store.delete_preset("system", "cold")
    with pytest.raises(WorkbenchError, match="no system preset"):
        store.delete_preset("system", "cold")
    with pytest.raises(WorkbenchError, match="name"):
        store.save_preset(Preset("system", " ", {}))
    with pytest.raises(WorkbenchError, match="no kind"):
        store.save_preset(Preset("secret", "x", {}))
