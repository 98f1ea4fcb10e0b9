"""The table of faults: every test below this folder that `fault` marks is a row of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def faults(name: str, cases: Iterable[str], injected: str, promise: str) -> Callable[[Test], Test]:
    """Enter a parametrized test into the table, one row for each of its cases, which `name` has a place for."""

    def enter(test: Test) -> Test:
        TABLE.extend(Fault(name.format(case), injected, promise) for case in cases)
        return test

    return enter
