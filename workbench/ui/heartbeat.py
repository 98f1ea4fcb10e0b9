"""Whether the worker still answers: a process that is stopped, or stuck in native code, closes no connection."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.errors import JobCancelled, WorkbenchError

if TYPE_CHECKING:
    from workbench.session.client import SessionClient

PERIOD_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
"""Importing torch or quantizing may keep the interpreter from answering for some seconds; that is no fault."""


async def watch_answers(client: SessionClient, tell: Callable[[int], None]) -> None:
    """Ask for the status every few seconds, until the connection ends.

    Args:
        client: a greeted client.
        tell: called with the seconds since the worker last answered, every few of them; with 0 once it does again.
    """
    from workbench.session.protocol import GetStatus

    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        asked = time.monotonic()
        reply = asyncio.ensure_future(client.start(GetStatus()).reply())
        silent = False
        try:
            while not reply.done():
                waited = time.monotonic() - asked
                await asyncio.wait({reply}, timeout=PERIOD_SECONDS if silent else max(0.01, PATIENCE_SECONDS - waited))
                if not reply.done():
                    silent = True
                    tell(math.ceil(time.monotonic() - asked))
            await reply
        except (WorkbenchError, JobCancelled):
            return
        finally:
            reply.cancel()
        if silent:
            tell(0)
