"""Texts of the chat written to a file that the user names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from textual.app import App

from workbench.errors import JobCancelled, WorkbenchError
from workbench.paths import write_atomic
from workbench.session.protocol import ConversationsExported, ExportConversations
from workbench.ui.link import SessionLink
from workbench.ui.screens.chat_path import PathDialog
from workbench.ui.screens.confirm import Confirm

FORMS = {"m": ("markdown", "md"), "j": ("jsonl", "jsonl")}


class Asker(Protocol):
    """A bench or screen over the session."""

    link: SessionLink

    @property
    def app(self) -> App[object]:
        """The app that shows the questions."""


async def export_conversations(owner: Asker, ids: list[str], title: str) -> str:
    """Ask for form and path, and write; a line that tells what was written or what failed, empty when left."""
    answers = (("m", "Markdown, to read"), ("j", "JSONL of messages, to fine-tune on: complete answers only"))
    what = f"Export “{title or 'untitled'}” as" if len(ids) == 1 else "Export all conversations as"
    picked = await owner.app.push_screen_wait(Confirm(what, answers))
    if picked is None:
        return ""
    form, ending = FORMS[picked]
    path = await ask_where(owner.app, f"{file_name(title)}.{ending}")
    if path is None:
        return ""
    try:
        reply = await owner.link.ask(ExportConversations(ids, form), ConversationsExported)
    except JobCancelled:
        return ""
    except WorkbenchError as error:
        return f"{error.message} {error.remedy}"
    if not reply.text:
        return "No conversation has a complete answer; nothing was written."
    return write_text(path, reply.text)


async def ask_where(app: App[object], name: str) -> Path | None:
    """A path to write to; a file that is there is replaced only after a question."""
    typed = await app.push_screen_wait(PathDialog("Write to a file", "writes", writable(), name))
    if typed is None:
        return None
    path = Path(typed).expanduser()
    if path.exists():
        question = Confirm(f"{typed} is there already.", (("r", "replace it"),))
        if await app.push_screen_wait(question) != "r":
            return None
    return path


def writable() -> Callable[[str], None]:
    """A check that a path can be that of a new file."""

    def check(typed: str) -> None:
        path = Path(typed).expanduser()
        if path.is_dir():
            raise WorkbenchError("bad-path", f"{typed} is a folder.", "Add the name of a file.")
        if not path.parent.is_dir():
            raise WorkbenchError("bad-path", f"There is no folder {path.parent}.", "Name one that is there.")

    return check


def write_text(path: Path, text: str) -> str:
    """Write a file for the user; what to say about it."""
    data = text.encode("utf-8", "replace")
    try:
        write_atomic(path, data, mode=0o644)
    except OSError as error:
        return f"Cannot write {path}: {error.strerror}."
    return f"Written: {path} ({len(data):,} bytes)."


def file_name(title: str) -> str:
    """A title as a file's name."""
    return re.sub(r"[^\w]+", "-", title).strip("-").lower()[:40] or "conversation"
