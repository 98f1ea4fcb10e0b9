"""Conversations in SQLite, written as answers grow, so that nothing is lost by a crash. Stdlib only.

A conversation is a tree of messages: every message names its parent, and the conversation names the leaf that is
shown. Without branches that is a list; a message sent again from an earlier point makes a second branch.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from workbench.chat.conversations import Conversation, Found, Message, Preset
from workbench.chat.database import LIST, MESSAGE, open_conversations
from workbench.errors import WorkbenchError
from workbench.paths import ensure_private_dir, state_dir
from workbench.sqlite_file import move_aside

FLUSH_SECONDS = 0.3
NOTHING = 0
"""Stands for no message where a leaf is named; SQLite counts from 1."""
ROLES = ("system", "user", "assistant", "tool")
STATES = ("complete", "partial", "cancelled", "failed")
"""``partial`` is an answer being written, or one whose writer died."""
PRESET_KINDS = ("prompt", "system", "sampling")
TITLE_CHARACTERS = 60
SNIPPET_CHARACTERS = 80


class ConversationStore:
    """The conversations of one user. All methods may be called from several threads of one process.

    Args:
        path: the database; None takes ``conversations.db`` in the state directory.

    Attributes:
        notice: one line about a damaged database that was moved aside, or empty.

    Raises:
        WorkbenchError: ``store-newer`` for a database of a newer version, which is not touched;
            ``store-unusable`` if it cannot be created or opened.
    """

    def __init__(self, path: Optional[Path] = None) -> None:
        self.path = path or state_dir() / "conversations.db"
        self.notice = ""
        self._lock = threading.RLock()
        if path is None:
            ensure_private_dir(self.path.parent)
        try:
            try:
                self._db = open_conversations(self.path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                kept = move_aside(self.path)
                self.notice = (
                    f"The conversations in {self.path} were damaged; they are kept as {kept} and a new file was begun."
                )
                self._db = open_conversations(self.path)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self.path, error) from None

    def create(self, title: str = "", model: str = "") -> Conversation:
        """A new, empty conversation."""
        now = time.time()
        with self._transaction() as db:
            row = db.execute(
                "INSERT INTO conversation (title, model, created, updated) VALUES (?, ?, ?, ?)",
                (_storable(title), _storable(model), now, now),
            )
            return Conversation(int(row.lastrowid or 0), _storable(title), _storable(model), now, now, 0)

    def conversations(self, limit: int = 1000) -> list[Conversation]:
        """All conversations without their messages, the one changed last first."""
        with self._reading() as db:
            return [
                _conversation(row) for row in db.execute(f"{LIST} ORDER BY updated DESC, id DESC LIMIT ?", (limit,))
            ]

    def latest(self) -> Optional[Conversation]:
        """The conversation changed last, with its messages, or None if there is none."""
        found = self.conversations(limit=1)
        return self.load(found[0].id) if found else None

    def load(self, conversation_id: int, leaf: Optional[int] = None) -> Conversation:
        """A conversation with the messages of one branch.

        Args:
            conversation_id: which.
            leaf: the branch's last message; None takes the one shown last, `NOTHING` an empty branch.

        Raises:
            WorkbenchError: ``unknown-conversation`` or ``unknown-message``.
        """
        with self._reading() as db:
            row = db.execute(f"{LIST} WHERE id = ?", (conversation_id,)).fetchone()
            if row is None:
                raise _unknown_conversation(conversation_id)
            rows = db.execute(f"SELECT {MESSAGE} FROM message WHERE conversation = ?", (conversation_id,)).fetchall()
        by_id = {int(item[0]): item for item in rows}
        if leaf and leaf not in by_id:
            raise _unknown_message(leaf)
        children: dict[Optional[int], list[int]] = {}
        for message_id in sorted(by_id):
            children.setdefault(by_id[message_id][1], []).append(message_id)
        branch: list[Message] = []
        at = row[6] if leaf is None else leaf
        while at is not None and at in by_id and len(branch) <= len(by_id):
            message = _message(by_id[at])
            branch.append(replace(message, siblings=tuple(children[message.parent])))
            at = message.parent
        return _conversation(row, tuple(reversed(branch)))

    def add_message(
        self,
        conversation_id: int,
        role: str,
        text: str,
        parent: Optional[int] = None,
        state: str = "complete",
        settings: Optional[dict[str, Any]] = None,
        first: bool = False,
    ) -> Message:
        """Add a message and show the branch it ends.

        Args:
            conversation_id: which conversation.
            role: one of `ROLES`.
            text: what it says.
            parent: the message it follows; None takes the last of the shown branch.
            state: ``partial`` for an answer that is about to be written.
            settings: how an answer is made.
            first: begin a new branch without any message before it.

        Raises:
            WorkbenchError: ``unknown-conversation``, ``unknown-message``, ``bad-message``.
        """
        _check(role in ROLES, f"There is no role {role!r}.")
        _check(state in STATES, f"There is no state {state!r}.")
        now = time.time()
        with self._transaction() as db:
            row = db.execute("SELECT leaf, title FROM conversation WHERE id = ?", (conversation_id,)).fetchone()
            if row is None:
                raise _unknown_conversation(conversation_id)
            if parent is None and not first:
                parent = row[0]
            elif parent is not None:
                self._expect_message(db, parent, conversation_id)
            cursor = db.execute(
                "INSERT INTO message (conversation, parent, role, text, created, state, settings, figures) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, '{}')",
                (conversation_id, parent, role, _storable(text), now, state, json.dumps(settings or {})),
            )
            message_id = int(cursor.lastrowid or 0)
            title = row[1] or (_title(text) if role == "user" else "")
            db.execute(
                "UPDATE conversation SET leaf = ?, updated = ?, title = ? WHERE id = ?",
                (message_id, now, title, conversation_id),
            )
        return Message(message_id, parent, role, _storable(text), now, state, settings or {})

    def write_answer(
        self, conversation_id: int, parent: Optional[int] = None, settings: Optional[dict[str, Any]] = None
    ) -> AnswerWriter:
        """Begin an assistant's message that grows; it is ``partial`` until the writer finishes it."""
        message = self.add_message(conversation_id, "assistant", "", parent, "partial", settings)
        return AnswerWriter(self, message)

    def extend_answer(self, message_id: int) -> AnswerWriter:
        """Go on writing an answer that ended; its branch is the one shown from now on.

        Raises:
            WorkbenchError: ``unknown-message``, ``bad-message`` for anything but an answer.
        """
        conversation_id, message = self.message(message_id)
        _check(message.role == "assistant", "Only an answer can be continued.")
        self.update_message(message_id, state="partial")
        self.show_branch(conversation_id, message_id)
        return AnswerWriter(self, message)

    def update_message(
        self,
        message_id: int,
        text: Optional[str] = None,
        append: str = "",
        state: Optional[str] = None,
        figures: Optional[dict[str, Any]] = None,
    ) -> None:
        """Replace or lengthen a message's text, or set its state or figures.

        Raises:
            WorkbenchError: ``unknown-message`` if it is gone.
        """
        _check(state is None or state in STATES, f"There is no state {state!r}.")
        with self._transaction() as db:
            cursor = db.execute(
                "UPDATE message SET text = coalesce(?, text) || ?, state = coalesce(?, state), "
                "figures = coalesce(?, figures) WHERE id = ?",
                (
                    None if text is None else _storable(text),
                    _storable(append),
                    state,
                    None if figures is None else json.dumps(figures),
                    message_id,
                ),
            )
            if cursor.rowcount != 1:
                raise _unknown_message(message_id)
            db.execute(
                "UPDATE conversation SET updated = ? WHERE id = (SELECT conversation FROM message WHERE id = ?)",
                (time.time(), message_id),
            )

    def show_branch(self, conversation_id: int, leaf: Optional[int]) -> None:
        """Make the branch that ends with `leaf` the one shown; None shows an empty one."""
        with self._transaction() as db:
            if leaf is not None:
                self._expect_message(db, leaf, conversation_id)
            cursor = db.execute("UPDATE conversation SET leaf = ? WHERE id = ?", (leaf, conversation_id))
            if cursor.rowcount != 1:
                raise _unknown_conversation(conversation_id)

    def show_message(self, conversation_id: int, message_id: int) -> Conversation:
        """Show the branch that goes through a message, on to the newest message that follows it.

        Raises:
            WorkbenchError: ``unknown-conversation`` or ``unknown-message``.
        """
        with self._transaction() as db:
            self._expect_message(db, message_id, conversation_id)
            leaf = message_id
            while True:
                newest = db.execute("SELECT max(id) FROM message WHERE parent = ?", (leaf,)).fetchone()[0]
                if newest is None:
                    break
                leaf = int(newest)
            db.execute("UPDATE conversation SET leaf = ? WHERE id = ?", (leaf, conversation_id))
        return self.load(conversation_id)

    def message(self, message_id: int) -> tuple[int, Message]:
        """The conversation of a message, and the message. Raises WorkbenchError ``unknown-message``."""
        with self._reading() as db:
            row = db.execute(f"SELECT {MESSAGE}, conversation FROM message WHERE id = ?", (message_id,)).fetchone()
        if row is None:
            raise _unknown_message(message_id)
        return int(row[-1]), _message(row)

    def save_tokens(self, message_id: int, tokens: Any) -> None:
        """Keep the tokens of an answer, any JSON value; they are read only when someone looks inside."""
        body = zlib.compress(json.dumps(tokens, separators=(",", ":")).encode("ascii"), 6)
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO answer_tokens (message, body) VALUES (?, ?)", (message_id, body))

    def tokens(self, message_id: int) -> Any:
        """What `save_tokens` kept; None if nothing, or if it cannot be read any more."""
        with self._reading() as db:
            row = db.execute("SELECT body FROM answer_tokens WHERE message = ?", (message_id,)).fetchone()
        if row is None:
            return None
        try:
            return json.loads(zlib.decompress(row[0]))
        except (ValueError, zlib.error):
            return None

    def search(self, words: str, limit: int = 100) -> list[Found]:
        """Messages of all branches that hold `words`, letter case aside, the newest first."""
        pattern = "".join(f"\\{sign}" if sign in "\\%_" else sign for sign in _storable(words))
        with self._reading() as db:
            rows = db.execute(
                "SELECT message.conversation, message.id, title, role, text, message.created FROM message "
                "JOIN conversation ON conversation.id = message.conversation "
                "WHERE text LIKE ? ESCAPE '\\' ORDER BY message.created DESC, message.id DESC LIMIT ?",
                (f"%{pattern}%", limit),
            ).fetchall()
        return [Found(row[0], row[1], row[2], row[3], _snippet(row[4], words), row[5]) for row in rows]

    def presets(self, kind: str = "") -> list[Preset]:
        """The presets of one kind, or all, by name."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT kind, name, body FROM preset WHERE kind = ? OR ? = '' ORDER BY kind, name", (kind, kind)
            ).fetchall()
        return [Preset(row[0], row[1], _object(row[2])) for row in rows]

    def save_preset(self, preset: Preset) -> None:
        """Keep a preset, in place of one of the same kind and name."""
        _check(preset.kind in PRESET_KINDS, f"There is no kind of preset {preset.kind!r:.40}.")
        _check(
            bool(preset.name.strip()) and len(preset.name) <= 200, "A preset needs a name of at most 200 characters."
        )
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO preset (kind, name, body, updated) VALUES (?, ?, ?, ?)",
                (preset.kind, _storable(preset.name.strip()), json.dumps(preset.body), time.time()),
            )

    def delete_preset(self, kind: str, name: str) -> None:
        """Delete a preset. Raises WorkbenchError ``unknown-preset``."""
        with self._transaction() as db:
            if db.execute("DELETE FROM preset WHERE kind = ? AND name = ?", (kind, name)).rowcount != 1:
                raise WorkbenchError("unknown-preset", f"There is no {kind} preset {name!r:.60}.")

    def rename(self, conversation_id: int, title: str) -> None:
        """Give a conversation another title."""
        _check(bool(title.strip()), "A title cannot be empty.")
        self._change(conversation_id, "UPDATE conversation SET title = ? WHERE id = ?", (_storable(title),))

    def delete(self, conversation_id: int) -> None:
        """Delete a conversation and its messages for good."""
        self._change(conversation_id, "DELETE FROM conversation WHERE id = ?", ())

    def close(self) -> None:
        """Close the database; a store that is not closed loses nothing either."""
        with self._lock:
            self._db.close()

    def _change(self, conversation_id: int, statement: str, values: tuple[Any, ...]) -> None:
        with self._transaction() as db:
            if db.execute(statement, (*values, conversation_id)).rowcount != 1:
                raise _unknown_conversation(conversation_id)

    @staticmethod
    def _expect_message(db: sqlite3.Connection, message_id: int, conversation_id: int) -> None:
        row = db.execute("SELECT conversation FROM message WHERE id = ?", (message_id,)).fetchone()
        if row is None or row[0] != conversation_id:
            raise _unknown_message(message_id)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise WorkbenchError(
                    "store-failed",
                    f"The conversations in {self.path} cannot be used: {error}.",
                    "Check the free space and the permissions there; what is on screen can be exported.",
                ) from None


class AnswerWriter:
    """Appends to an answer in the store, a few times a second at most.

    Attributes:
        message: the message as it was begun.
    """

    def __init__(self, store: ConversationStore, message: Message) -> None:
        self.message = message
        self._store = store
        self._pending: list[str] = []
        self._flushed = time.monotonic()

    def append(self, text: str) -> None:
        """Add text; it reaches the disk within `FLUSH_SECONDS` of the next call, or at the end."""
        self._pending.append(text)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has come since the last time."""
        text, self._pending = "".join(self._pending), []
        self._flushed = time.monotonic()
        if not text:
            return
        try:
            self._store.update_message(self.message.id, append=text)
        except WorkbenchError:
            self._pending.insert(0, text)  # a full disk may have room again at the next flush
            raise

    def finish(self, state: str = "complete", figures: Optional[dict[str, Any]] = None) -> None:
        """Write the rest, the final state and the figures in one transaction."""
        text, self._pending = "".join(self._pending), []
        self._store.update_message(self.message.id, append=text, state=state, figures=figures)


def _conversation(row: tuple[Any, ...], messages: tuple[Message, ...] = ()) -> Conversation:
    return Conversation(row[0], row[1], row[2], row[3], row[4], row[5], messages)


def _message(row: tuple[Any, ...]) -> Message:
    return Message(row[0], row[1], row[2], row[3], row[4], row[5], _object(row[6]), _object(row[7]))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _storable(text: str) -> str:
    """Lone surrogates have no UTF-8 form, which is what SQLite stores."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _title(text: str) -> str:
    line = " ".join(_storable(text).split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1] + "…"


def _snippet(text: str, words: str) -> str:
    """The first place of `words` in `text`, with what stands around it."""
    at = max(0, text.lower().find(words.lower()))
    around = max(0, SNIPPET_CHARACTERS - len(words)) // 2
    start, end = max(0, at - around), min(len(text), at + len(words) + around)
    line = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{line}{'…' if end < len(text) else ''}"


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise WorkbenchError("bad-message", message, "Correct the request.")


def _unusable(path: Path, error: Exception) -> WorkbenchError:
    return WorkbenchError(
        "store-unusable",
        f"The conversations in {path} cannot be opened: {error}.",
        "Check the free space and the permissions there, or set XDG_STATE_HOME elsewhere.",
    )


def _unknown_conversation(conversation_id: int) -> WorkbenchError:
    return WorkbenchError(
        "unknown-conversation", f"There is no conversation {conversation_id}.", "It may have been deleted."
    )


def _unknown_message(message_id: int) -> WorkbenchError:
    return WorkbenchError("unknown-message", f"There is no message {message_id} here.", "It may have been deleted.")
