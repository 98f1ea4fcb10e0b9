"""The table of faults: every test below this folder that `fault` marks is a row of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Fault:
    """One row: what happens, how the test makes it happen, and what a user may count on."""

    name: str
    injected: str
    promise: str


TABLE: list[Fault] = []


def fault(name: str, injected: str, promise: str) -> Callable[[Test], Test]:
    """Enter a test into the table."""

    def enter(test: Test) -> Test:
        TABLE.append(Fault(name, injected, promise))
        return test

    return enter
