"""Regular expressions that a person typed, matched within a bound of time. Stdlib only, better with the package regex.

`re` cannot be stopped and keeps every other thread waiting. The package regex, which transformers brings along, can;
without it, what may take exponentially long is refused.
"""

from __future__ import annotations

import importlib
import re
import time
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.text import one_line

LIMIT_SECONDS = 1.0
"""For all names together; a sane expression takes microseconds for each."""
_MOST_REPEATS = 3
# Counted repetitions inside each other are written out when compiled.
_MOST_COPIES = 100_000


class Matcher:
    """Matches names against expressions until its time is spent."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._left = limit_seconds
        self._compiled: dict[str, Any] = {}
        self._regex = _regex_package()

    def fullmatch(self, pattern: str, name: str) -> bool:
        """Whether all of `name` matches.

        Raises:
            WorkbenchError: ``pattern-timeout`` once the time is spent, or where it may be without bound.
        """
        return self._run("fullmatch", pattern, name, pattern)

    def match(self, pattern: str, name: str, shown: str) -> bool:
        """Whether the beginning of `name` matches; `shown` is what the person typed. Raises as `fullmatch`."""
        return self._run("match", pattern, name, shown)

    def _run(self, method: str, pattern: str, name: str, shown: str) -> bool:
        compiled = self._compiled.get(pattern)
        if compiled is None:
            compiled = self._compiled[pattern] = self._compile(pattern, shown)
        if isinstance(compiled, re.Pattern):
            return getattr(compiled, method)(name) is not None
        if self._left <= 0:
            raise _timeout(shown)
        begun = time.monotonic()
        try:
            return getattr(compiled, method)(name, timeout=self._left, concurrent=True) is not None
        except TimeoutError:
            raise _timeout(shown) from None
        finally:
            self._left -= time.monotonic() - begun

    def _compile(self, pattern: str, shown: str) -> Any:
        if not is_risky(pattern):
            return re.compile(pattern)
        if self._regex is not None and _copies(_parser().parse(pattern)) <= _MOST_COPIES:
            try:
                return self._regex.compile(pattern)
            except (self._regex.error, RecursionError, OverflowError, MemoryError):
                pass
        raise _timeout(shown)


def is_risky(pattern: str) -> bool:
    """Whether `re` might try exponentially many ways: a choice repeated, or many repetitions one after the other."""
    parsed = _parser().parse(pattern)
    return _repeats_a_choice(parsed, False) or _repeats(parsed) > _MOST_REPEATS


def _parser() -> Any:
    # Moved in Python 3.11, where the old name warns.
    return getattr(re, "_parser", None) or importlib.import_module("sre_parse")


def _repeats_a_choice(parsed: Any, repeated: bool) -> bool:
    for operation, argument in parsed:
        name = str(operation)
        if name.endswith("REPEAT"):
            least, most, _ = argument
            if (repeated and least != most) or _repeats_a_choice(argument[2], repeated or int(most) > 1):
                return True
        elif (name == "BRANCH" and repeated) or any(_repeats_a_choice(part, repeated) for part in _parts(argument)):
            return True
    return False


def _repeats(parsed: Any) -> int:
    """How many repetitions of open length there are."""
    count = 0
    for operation, argument in parsed:
        if str(operation).endswith("REPEAT") and argument[0] != argument[1] and int(argument[1]) > 1:
            count += 1
        count += sum(_repeats(part) for part in _parts(argument))
    return count


def _copies(parsed: Any) -> int:
    """The largest product of counted repetitions inside each other."""
    largest = 1
    for operation, argument in parsed:
        repeats = str(operation).endswith("REPEAT")
        times = 1
        if repeats:
            open_ended = argument[1] == _parser().MAXREPEAT
            times = max(1, int(argument[0] if open_ended else argument[1]))
        largest = max([largest, *(times * _copies(part) for part in _parts(argument))])
    return largest


def _parts(argument: Any) -> list[Any]:
    """The expressions inside an operation's argument."""
    if hasattr(argument, "getwidth"):
        return [argument]
    if isinstance(argument, (list, tuple)):
        return [part for inner in argument for part in _parts(inner)]
    return []


def _regex_package() -> Optional[Any]:
    try:
        return importlib.import_module("regex")
    except ImportError:
        return None


def _timeout(pattern: str) -> WorkbenchError:
    return WorkbenchError(
        "pattern-timeout",
        f"The regular expression {one_line(pattern, 60)} takes too long to match.",
        "Do not repeat what repeats inside, as in (a+)+; write it with .* in place of that.",
    )
