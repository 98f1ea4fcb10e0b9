"""The database of the conversations: its tables and their versions. Stdlib only."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from workbench.sqlite_file import open_database

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
STEPS = (_SCHEMA, _SINCE_2)
"""What brings a database from each schema version to the next."""

LIST = (
    "SELECT id, title, model, created, updated, "
    "(SELECT count(*) FROM message WHERE message.conversation = conversation.id), leaf FROM conversation"
)
MESSAGE = "id, parent, role, text, created, state, settings, figures"


def open_conversations(path: Path) -> sqlite3.Connection:
    """Open the database of the conversations; raises as `open_database` does."""
    pragmas = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON")
    probes = (
        f"{LIST} LIMIT 0",
        f"SELECT {MESSAGE} FROM message LIMIT 0",
        "SELECT message, body FROM answer_tokens LIMIT 0",
        "SELECT kind, name, body, updated FROM preset LIMIT 0",
    )
    return open_database(path, STEPS, pragmas, probes)
