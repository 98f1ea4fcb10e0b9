"""Screens that were closed are gone, and with them what was painted on them."""

from __future__ import annotations

import dataclasses
import gc
import weakref

from textual.screen import Screen
from textual.strip import Strip

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, wait_until


def strips() -> int:
    """How many painted lines there are."""
    gc.collect()
    # By its type: asking an object for its class runs code of its own, and some of torch's warn then.
    return sum(issubclass(type(found), Strip) for found in gc.get_objects())


async def test_closed_screens_leave_nothing(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    opened: list[weakref.ref[Screen[object]]] = []
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(pilot, lambda: app.session.connection == "attached")

        async def open_and_close() -> None:
            for key in ("f8", "ctrl+o", "d"):
                await pilot.press(key)
                await wait_until(pilot, lambda: len(app.screen_stack) > 1, key)
                opened.append(weakref.ref(app.screen))
                await pilot.press("escape")
                await wait_until(pilot, lambda: len(app.screen_stack) == 1, key)

        await open_and_close()
        before = strips()
        await open_and_close()
        # What is told to the app next ends what followed the session for a closed screen.
        app.session = dataclasses.replace(app.session, attachments=app.session.attachments + 1)
        await pilot.pause()
        after = strips()
        assert not [screen() for screen in opened if screen() is not None]
        # Some 4,000 where Textual's cache keeps them.
        assert after - before < 800
