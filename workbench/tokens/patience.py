"""Calls into native libraries that can be neither stopped nor trusted to end. Stdlib only.

A tokenizer's file holds its rules, and some rules take longer than anybody waits: a regular expression that tries every
way to match, or a vocabulary whose words may be as long as the text. Such a call is left to itself.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Optional, TypeVar

from workbench.errors import WorkbenchError
from workbench.job import Job, running_job

T = TypeVar("T")

SHORT_CHARACTERS = 64
"""Up to here nothing takes longer than about a second, as the library's regular expressions give up by themselves."""
_CALLS_AT_ONCE = 2
_LOOK_SECONDS = 0.05
_SECONDS = 10.0
_CHARACTERS_A_SECOND = 20_000
"""A hundredth of what tokenizers do on an idle core."""


class PatientCalls:
    """Makes the calls of one tokenizer on threads of their own, for which it waits as long as the job and time allow.

    Args:
        name: of the tokenizer, for the error.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # What is left to itself keeps its place, so that a tokenizer takes two cores at most.
        self._places = threading.BoundedSemaphore(_CALLS_AT_ONCE)

    def run(self, call: Callable[[], T], characters: int) -> T:
        """The result of `call`, which works on that many characters and lets go of the interpreter while it does.

        Raises:
            JobCancelled: the running job was stopped; the call goes on by itself.
            WorkbenchError: ``slow-tokenizer`` after 10 s and as much again for each 200,000 characters.
        """
        if characters <= SHORT_CHARACTERS:
            return call()
        waiting = _Waiting(self._name, characters)
        while not self._places.acquire(timeout=_LOOK_SECONDS):
            waiting.check()
        made = _Made(call, self._places.release)
        while made.is_alive():
            made.join(_LOOK_SECONDS)
            if made.is_alive():
                waiting.check()
        if made.error is not None:
            raise made.error
        result: T = made.result
        return result


class _Waiting:
    def __init__(self, name: str, characters: int) -> None:
        self._name = name
        self._characters = characters
        self._job: Job = running_job()
        self._seconds = _SECONDS + characters / _CHARACTERS_A_SECOND
        self._until = time.monotonic() + self._seconds

    def check(self) -> None:
        self._job.check()
        if time.monotonic() > self._until:
            raise WorkbenchError(
                "slow-tokenizer",
                f"The tokenizer {self._name} was not done with {self._characters:,} characters "
                f"after {self._seconds:.0f} s.",
                "Its rules may take very long on such a text: try a shorter one, or another tokenizer. "
                "What it still does ends with the session: workbench session stop --force",
            )


class _Made(threading.Thread):
    """A call being made."""

    def __init__(self, call: Callable[[], Any], done: Callable[[], None]) -> None:
        super().__init__(name="tokenizer", daemon=True)
        self._call = call
        self._done = done
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error
        finally:
            self._done()
