"""The database of the conversations: its tables, its versions, and what happens to a damaged one. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from workbench.errors import WorkbenchError

SCHEMA_VERSION = 2
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
_SINCE_2 = """
CREATE TABLE answer_tokens (message INTEGER PRIMARY KEY REFERENCES message(id) ON DELETE CASCADE, body BLOB NOT NULL);
CREATE TABLE preset (
    kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, updated REAL NOT NULL, PRIMARY KEY (kind, name));
"""
_STEPS = (_SCHEMA, _SINCE_2)
"""What brings a database from each schema version to the next."""

LIST = (
    "SELECT id, title, model, created, updated, "
    "(SELECT count(*) FROM message WHERE message.conversation = conversation.id), leaf FROM conversation"
)
MESSAGE = "id, parent, role, text, created, state, settings, figures"


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database, made or brought to the newest schema if need be.

    Raises:
        WorkbenchError: ``store-newer``.
        sqlite3.DatabaseError: for a damaged file or one of another program; OSError for one that cannot be had.
    """
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
        if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("another program's database")
        if version < SCHEMA_VERSION:
            steps = " ".join(_STEPS[version:])
            db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check found damage")
        try:
            db.execute(f"{LIST} LIMIT 0")
            db.execute(f"SELECT {MESSAGE} FROM message LIMIT 0")
            db.execute("SELECT message, body FROM answer_tokens LIMIT 0")
            db.execute("SELECT kind, name, body, updated FROM preset LIMIT 0")
        except sqlite3.OperationalError as error:
            raise sqlite3.DatabaseError(f"not our tables: {error}") from None
    except BaseException:
        db.close()
        raise
    return db


def move_aside(path: Path) -> str:
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
