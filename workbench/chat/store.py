"""Conversations in SQLite, written as answers grow, so that nothing is lost by a crash. Stdlib only.

A conversation is a tree of messages: every message names its parent, and the conversation names the leaf that is
shown. Without branches that is a list; a message sent again from an earlier point makes a second branch.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.paths import ensure_private_dir, state_dir

SCHEMA_VERSION = 1
FLUSH_SECONDS = 0.3
ROLES = ("system", "user", "assistant", "tool")
STATES = ("complete", "partial", "cancelled", "failed")
"""``partial`` is an answer being written, or one whose writer died."""
TITLE_CHARACTERS = 60

_SCHEMA = """
CREATE TABLE conversation (
    id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, model TEXT NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL, leaf INTEGER);
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL REFERENCES conversation(id) ON DELETE CASCADE,
    parent INTEGER REFERENCES message(id) ON DELETE CASCADE,
    role TEXT NOT NULL, text TEXT NOT NULL, created REAL NOT NULL, state TEXT NOT NULL,
    settings TEXT NOT NULL, figures TEXT NOT NULL);
CREATE INDEX message_of_conversation ON message(conversation);
CREATE INDEX message_of_parent ON message(parent);
"""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        id: its number in the store.
        parent: the message before it, or None for the first.
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        text: what it says.
        created: seconds since the epoch.
        state: one of `STATES`.
        settings: for an answer the sampling options and the model's variant.
        figures: for an answer what it took: token counts, seconds, memory.
    """

    id: int
    parent: Optional[int]
    role: str
    text: str
    created: float
    state: str
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversation:
    """A conversation with the messages of its shown branch, oldest first; lists leave the messages out."""

    id: int
    title: str
    model: str
    created: float
    updated: float
    message_count: int
    messages: tuple[Message, ...] = ()


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
                self._db = _open(self.path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self.notice = _move_aside(self.path)
                self._db = _open(self.path)
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
                _conversation(row) for row in db.execute(f"{_LIST} ORDER BY updated DESC, id DESC LIMIT ?", (limit,))
            ]

    def latest(self) -> Optional[Conversation]:
        """The conversation changed last, with its messages, or None if there is none."""
        found = self.conversations(limit=1)
        return self.load(found[0].id) if found else None

    def load(self, conversation_id: int, leaf: Optional[int] = None) -> Conversation:
        """A conversation with the messages of one branch.

        Args:
            conversation_id: which.
            leaf: the branch's last message; None takes the one shown last.

        Raises:
            WorkbenchError: ``unknown-conversation`` or ``unknown-message``.
        """
        with self._reading() as db:
            row = db.execute(f"{_LIST} WHERE id = ?", (conversation_id,)).fetchone()
            if row is None:
                raise _unknown_conversation(conversation_id)
            rows = db.execute(f"SELECT {_MESSAGE} FROM message WHERE conversation = ?", (conversation_id,)).fetchall()
        by_id = {int(item[0]): item for item in rows}
        if leaf is not None and leaf not in by_id:
            raise _unknown_message(leaf)
        branch: list[Message] = []
        at = row[6] if leaf is None else leaf
        while at is not None and at in by_id and len(branch) <= len(by_id):
            branch.append(_message(by_id[at]))
            at = branch[-1].parent
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

    def alternatives(self, message_id: int) -> list[Message]:
        """The messages that stand at the same place as this one, itself included, oldest first."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {_MESSAGE} FROM message WHERE (conversation, coalesce(parent, -1)) IN "
                "(SELECT conversation, coalesce(parent, -1) FROM message WHERE id = ?) ORDER BY id",
                (message_id,),
            ).fetchall()
        return [_message(row) for row in rows]

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


_LIST = (
    "SELECT id, title, model, created, updated, "
    "(SELECT count(*) FROM message WHERE message.conversation = conversation.id), leaf FROM conversation"
)
_MESSAGE = "id, parent, role, text, created, state, settings, figures"


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The file must be the user's alone before SQLite writes into it and beside it.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    try:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise WorkbenchError(
                "store-newer",
                f"{path} was written by a newer version of the workbench (schema {version}, known is "
                f"{SCHEMA_VERSION}).",
                "Update the workbench, or set XDG_STATE_HOME elsewhere; the file was not touched.",
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        if version == 0:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise sqlite3.DatabaseError("another program's database")
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check found damage")
        try:
            db.execute(f"{_LIST} LIMIT 0")
            db.execute(f"SELECT {_MESSAGE} FROM message LIMIT 0")
        except sqlite3.OperationalError as error:
            raise sqlite3.DatabaseError(f"not our tables: {error}") from None
    except BaseException:
        db.close()
        raise
    return db


def _move_aside(path: Path) -> str:
    """Keep a damaged database under another name, its journal with it; returns a line that says so."""
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{number}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")
    return f"The conversations in {path} were damaged; they are kept as {target.name} and a new file was begun."


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
