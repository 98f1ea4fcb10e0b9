"""Asking the user what to examine or to compare with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from workbench.ui.benches.doctor_subject import OWN, Subject, subject_at, subject_pasted
from workbench.ui.screens.environment_picker import EnvironmentPicker, PickedEnvironment

if TYPE_CHECKING:
    from textual.app import App

    from workbench.ui.link import SessionLink


async def pick_paste(app: App[Any]) -> Subject | None:
    """A pasted report, or None when the user left.

    Raises:
        WorkbenchError: the file that was named cannot be read.
    """
    from workbench.ui.screens.paste import PasteScreen

    text = await app.push_screen_wait(PasteScreen())
    return await asyncio.to_thread(subject_pasted, text) if text else None


async def pick_subject(app: App[Any], link: SessionLink, title: str, beside_own: bool = False) -> Subject | None:
    """An environment of this box, a report in a file or a pasted one; None when the user left.

    Raises:
        WorkbenchError: what was typed is neither an interpreter nor a report.
    """
    picked = await app.push_screen_wait(EnvironmentPicker(link, title, beside_own))
    return None if picked is None else await _subject_of(app, picked)


async def _subject_of(app: App[Any], picked: PickedEnvironment) -> Subject | None:
    if picked.pasted:
        return await pick_paste(app)
    if picked.own:
        return OWN
    if picked.typed:
        return await asyncio.to_thread(subject_at, picked.python)
    return Subject(picked.python, files_only=picked.too_old)
