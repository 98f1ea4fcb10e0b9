"""A SQLite file of the user's own: opened, brought to its newest schema, moved aside when damaged. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from workbench.errors import WorkbenchError


def open_database(
    path: Path, steps: Sequence[str], pragmas: Sequence[str] = (), probes: Sequence[str] = ()
) -> sqlite3.Connection:
    """Open the database, made or brought to the newest schema if need be.

    Args:
        path: the file; made with its directory for this user alone.
        steps: SQL that brings it from each schema version to the next; their number is the newest version.
        pragmas: of the connection, such as ``journal_mode = WAL``.
        probes: queries that only this program's own tables answer.

    Raises:
        WorkbenchError: ``store-newer``.
        sqlite3.DatabaseError: for a damaged file or one of another program; OSError for one that cannot be had.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The file must be the user's alone before SQLite writes into it and beside it.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    try:
        _upgrade(db, path, steps, pragmas)
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check found damage")
        _probe(db, probes)
    except BaseException:
        db.close()
        raise
    return db


def move_aside(path: Path) -> str:
    """Keep a damaged database under another name, its journals with it; returns that name."""
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    target, number = path.with_name(stem), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{stem}-{number}")
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")
    return target.name


def _upgrade(db: sqlite3.Connection, path: Path, steps: Sequence[str], pragmas: Sequence[str]) -> None:
    version, newest = int(db.execute("PRAGMA user_version").fetchone()[0]), len(steps)
    if version > newest:
        raise WorkbenchError(
            "store-newer",
            f"{path} was written by a newer version of the workbench (schema {version}, known is {newest}).",
            "Update the workbench, or set XDG_STATE_HOME elsewhere; the file was not touched.",
        )
    for pragma in pragmas:
        db.execute(f"PRAGMA {pragma}")
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise sqlite3.DatabaseError("another program's database")
    if version < newest:
        missing = " ".join(steps[version:])
        db.executescript(f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {newest}; COMMIT;")


def _probe(db: sqlite3.Connection, probes: Sequence[str]) -> None:
    try:
        for probe in probes:
            db.execute(probe)
    except sqlite3.OperationalError as error:
        raise sqlite3.DatabaseError(f"not our tables: {error}") from None
