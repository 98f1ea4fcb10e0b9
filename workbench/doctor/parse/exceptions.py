"""The exception that a paste ends in, wherever in its line, and the packages whose code raised it. Stdlib only."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact

_MAX_LINE = 600
_FRAMES_ABOVE = 80
_CHAIN_ABOVE = 300
_MAX_CHAIN = 12
_MAX_MENTIONS = 2000
_MAX_REPEATS = 6
"""How often the text of an exception is looked for above which there may be frames."""
_NAME = (
    r"(?:[A-Za-z_]\w{0,40}\.){0,6}(?:[A-Za-z_]\w{0,60}(?:Error|Exception|RequirementNotMet|Exit|DistributionNotFound"
    r"|VersionConflict)|Exception|DistributionNotFound|VersionConflict)"
)
_WHOLE_LINE = re.compile(rf"\s{{0,20}}(?:E\s{{1,8}})?[`'\"]{{0,3}}{_NAME}: {{0,2}}\S")
# Chinese and Japanese put no blank before it.
_IN_LINE = re.compile(rf"(?<![A-Za-z0-9_./\\-])(?P<error>{_NAME}: {{0,2}}[^\s:].{{0,400}})")
# What is told without the name of an exception: by transformers' lazy imports, in titles and in people's sentences.
_BARE = re.compile(
    r"cannot import name '\w{1,80}' from '|module '[\w.]{1,80}' has no attribute '|No module named '\w"
    r"|(?<![\w.])'\w{1,60}' (?:object )?has no attribute '\w"
    r"|\w\(\) got an unexpected keyword argument '|: undefined symbol: \w|: cannot open shared object file"
    r"|DLL load failed|: invalid ELF header|Could not import \w{2,40} python package\. Please install"
    r"|(?<![\w.'])[A-Z]\w{2,40}(?:Fast|Tokenizer|Processor|Config|Trainer|Model) has no attribute [a-z_]\w"
)
_BARE_MARKS = (
    "cannot import name",
    "has no attribute",
    "No module named",
    "unexpected keyword",
    "undefined symbol",
    "Could not import",
    "cannot open shared object",
    "DLL load failed",
    "invalid ELF header",
)
_CODE = re.compile(
    r"\s{0,60}(?:except|raise|return|assert|def|class|elif|#|//|import|from)\b|\s{0,20}(?:WARNING|warn)", re.I
)
# A title often joins the last line of code and the error: "from ._core import x ModuleNotFoundError: ...".
_TITLE = re.compile(r"\s{0,60}(?:from|import)\b.{1,120}[\s(]\w{3,30}Error: \S")
_CHAINED = re.compile(
    r"(?:The above exception was the direct cause of the following|During handling of the above exception, another)"
)
# "I get `unexpected keyword argument tokenizer`", and the call stands in the code that was pasted with it.
_TOLD_ARGUMENT = re.compile(r"unexpected keyword argument[: ]{1,3}['\"`‘]{0,2}(?P<argument>[a-z]\w{1,40})\b")
_CALLED = re.compile(r"\b(?P<call>[A-Z]\w{2,60})\($|\b(?P<inline>[A-Z]\w{2,40}(?:Trainer|Config|Arguments|Pipeline))\(")
# TensorFlow warns of each library of CUDA that it does not find, and goes on.
_WARNS = re.compile(r"Warning|DEPRECATION|deprecat|dso_loader\.cc", re.I)
_FRAME = re.compile(
    r"(?:[Ff]ile ['\"]?(?P<path>[^'\",\n]{2,300})['\"]?(?:, line \d|:\d)|^\[?(?P<notebook>[/~]\S{2,300}\.py)\b"
    r"|^\s{0,8}(?P<bare>\S{0,200}(?:site|dist)-packages\S{1,200}\.py)[:(\]])"
)
_PACKAGE = re.compile(r"(?:site|dist)-packages[/\\]{1,2}(\w{2,60})(?:[/\\]{1,2}|\.py|\.\w)")


_NUMBERED = re.compile(r"\s{0,8}File ['\"][^'\"\n]{2,300}['\"], line \d{1,6}, in \S")
_LAZY = re.compile(r"Failed to import (\w{2,40})\.")
# Python before 3.7 did not say which module lacks the name.
_UNSAID = re.compile(r"cannot import name '(\w{2,80})'\s{0,4}$")


def _end_of_report(lines: Sequence[str]) -> int:
    """Where the log begins that ComfyUI hangs on its report of an error: what failed in it was passed over before."""
    title = next((number for number, line in enumerate(lines) if line.startswith("# ComfyUI Error Report")), None)
    if title is None:
        return len(lines)
    return next((number for number in range(title, len(lines)) if lines[number].startswith("## Logs")), len(lines))


# Cut within its words, or what a launcher says of the program that it started: a whole error above it says more.
_SAYS_LITTLE = re.compile(
    r"(?:unexpected keyword argument|has no attribute|cannot import name|No module named)['\"`]?\s{0,4}$"
    r"|\A\s{0,8}(?:[a-z_]\w{0,40}\.){1,6}(?!\w*(?:Error|Exception)$)[A-Z]\w{2,60}\s{0,4}$"
    r"|CalledProcessError: Command (?:$|'\['[^']{1,300}python[\w.]{0,8}', ?(?:$|'[^'-][^']{0,300}\.py'))"
)


def last_exception(lines: Sequence[str], told: set[int]) -> Optional[ErrorFact]:
    """The exception that ends the paste, unless its line is in `told`; lines are counted from 1.

    Of a chain the one that the others follow from, where it is one that tells of packages that do not fit.
    """
    lines = lines[: _end_of_report(lines)]
    numbers = range(len(lines) - 1, -1, -1)
    ends = (number for number in numbers if _ends(lines[number]) or _closes(lines, number) or _opens(lines, number))
    last = next(ends, None)
    if last is not None and _SAYS_LITTLE.search(lines[last][:_MAX_LINE]):
        last = next((number for number in ends if not _SAYS_LITTLE.search(lines[number][:_MAX_LINE])), last)
    if last is None:
        return _mentioned(lines, told)
    root = _root_of_chain(lines, last)
    # What only passes an exception on may be known, and what it follows from still says more.
    if root + 1 in told or (root == last and last + 1 in told):
        return None
    if not _opens(lines, root):
        return _fact(lines, root)
    below = _told_below(lines, root)
    if any(number + 1 in told for number in below):
        return None
    return _fact(lines, root, " ".join(lines[number].strip()[:300] for number in (root, *below)))


_IMPORTS = re.compile(r"\s{1,12}(?:from|import) (?P<module>[A-Za-z_]\w{1,60})")


def cut_traceback(lines: Sequence[str]) -> Optional[ErrorFact]:
    """A traceback that breaks off before the line that names its exception; with the packages that it goes through."""
    start = next((n for n in range(len(lines) - 1, -1, -1) if "Traceback (most recent call last)" in lines[n]), None)
    if start is None:  # the heading was cut off as well
        frames = [number for number, line in enumerate(lines) if _NUMBERED.match(line[:_MAX_LINE])]
        start = frames[0] - 1 if len(frames) > 1 else None
    if start is None:
        return None
    below = [line[:_MAX_LINE] for line in lines[start + 1 : start + 1 + _FRAMES_ABOVE]]
    if not any("File " in line or _FRAME.search(line) for line in below):
        return None
    named = [match["module"] for match in map(_IMPORTS.match, below) if match]
    callers = list(_callers(lines, min(len(lines), start + 1 + _FRAMES_ABOVE), ""))
    packages = [name for name in dict.fromkeys((*callers, *reversed(named))) if name]
    shown = max(start, 0)
    return ErrorFact("traceback-cut", lines[shown].strip()[:200], shown + 1, {"callers": ",".join(packages)})


_NUMBER = r"[\s>-]{0,12}(?:\d{1,6})?"
_IMPORT_LINE = re.compile(
    rf"{_NUMBER}\s{{1,12}}from (?P<module>[A-Za-z_][\w.]{{1,80}}) import (?P<names>\(|[\w, ]{{2,300}})\s{{0,4}}$"
)
_NAME_IN_BRACKETS = re.compile(rf"{_NUMBER}\s{{1,20}}(?P<name>[A-Za-z_]\w{{1,60}}),?\s{{0,4}}$")
_MAX_NAMES = 40


def import_at_the_end(lines: Sequence[str]) -> Optional[ErrorFact]:
    """The import that a traceback shows last, where it is cut off before it says which name is not there."""
    kept = [(number, line[:_MAX_LINE].rstrip()) for number, line in enumerate(lines) if line.strip()]
    for place in range(len(kept) - 1, max(-1, len(kept) - _MAX_NAMES), -1):
        found = _IMPORT_LINE.match(kept[place][1])
        if found is None:
            continue
        listed = [match["name"] for _, line in kept[place + 1 :] if (match := _NAME_IN_BRACKETS.match(line))]
        names = listed if found["names"] == "(" else [name.strip() for name in found["names"].split(",")]
        more = len(kept) - place - 1 - len(listed)  # one line may be the one that was cut
        framed = any("File " in line or _FRAME.search(line) for _, line in kept[max(0, place - 6) : place])
        if more > 1 or not framed or not names:
            return None
        number, text = kept[place]
        values = {"module": found["module"], "names": ",".join(names)}
        return ErrorFact(
            "import-cut", text.strip(), number + 1, {**values, "callers": ",".join(_callers(lines, number, ""))}
        )
    return None


def _names_one(line: str) -> bool:
    """Whether a line can hold an exception; asked first, because searching costs a hundred times as much."""
    return any(mark in line for mark in _MARKS)


_MARKS = ("Error", "Exception", "RequirementNotMet", "Exit", "DistributionNotFound", "VersionConflict")


def _ends(line: str) -> bool:
    short = line[:_MAX_LINE]
    if not _names_one(short):
        return short.lstrip().startswith("cannot import name '")
    return bool(_WHOLE_LINE.match(short) and not _CODE.match(short))


# "packaging.version.InvalidVersion: ...", "struct.error: ...": not every exception is called one.
_OTHER_NAME = re.compile(
    r"(?:(?:[a-z_]\w{0,40}\.){1,6}[A-Za-z]\w{2,60}|KeyboardInterrupt|SystemExit|StopIteration)(?:: \S|$)"
)


def _closes(lines: Sequence[str], number: int) -> bool:
    """Whether a line ends a traceback by its place, right below a frame, whatever its exception is called."""
    line = lines[number][:_MAX_LINE]
    if not number or not lines[number - 1].startswith("  ") or not _OTHER_NAME.match(line):
        return False
    return any(_NUMBERED.match(above[:_MAX_LINE]) for above in lines[max(0, number - 4) : number])


_EMPTY = re.compile(rf"\s{{0,20}}{_NAME}: {{0,4}}$")
_TOLD_BELOW = 8


def _opens(lines: Sequence[str], number: int) -> bool:
    """Whether a line ends a traceback with the name of its exception alone, whose text begins on the next line."""
    line = lines[number][:_MAX_LINE]
    if not number or not line.rstrip().endswith("Error:") or not _EMPTY.match(line):
        return False
    framed = any(_FRAME.search(above[:_MAX_LINE]) for above in lines[max(0, number - 4) : number])
    return framed and bool(_told_below(lines, number))


def _told_below(lines: Sequence[str], number: int) -> list[int]:
    """The lines of the text that begins below the name of an exception."""
    below = range(number + 1, min(len(lines), number + 1 + _TOLD_BELOW))
    return [place for place in below if lines[place].strip()]


def _mentioned(lines: Sequence[str], told: set[int]) -> Optional[ErrorFact]:
    """An exception within a line: in a title, in a sentence, behind a log's prefix."""
    looked = 0
    for number, line in enumerate(lines):
        short = line[:_MAX_LINE]
        if number + 1 in told or not (_names_one(short) or any(mark in short for mark in _BARE_MARKS)):
            continue
        looked += 1
        if looked > _MAX_MENTIONS:
            return None
        found = _IN_LINE.search(short)
        # What is said of a warning behind the error ("used to be a warning") does not make it one.
        before = short[: found.start()] if found else short
        if (_CODE.match(short) and not _TITLE.match(short)) or _WARNS.search(before):
            continue
        text = found["error"] if found else short.strip() if _BARE.search(short) else ""
        text = text or _argument_told(lines, short)
        if text:
            return _fact(lines, number, text)
    return None


def _argument_told(lines: Sequence[str], line: str) -> str:
    """The error that a sentence tells of, with the class that is called in the paste with this argument."""
    told = _TOLD_ARGUMENT.search(line)
    if told is None:
        return ""
    given = re.compile(rf"\b{told['argument']}\s?=")
    place = next((number for number, other in enumerate(lines) if given.search(other[:_MAX_LINE])), -1)
    for other in reversed(lines[max(0, place - 12) : place + 1]):
        called = _CALLED.search(other[:_MAX_LINE].rstrip())
        if called:
            name = called["call"] or called["inline"]
            return f"TypeError: {name}.__init__() got an unexpected keyword argument '{told['argument']}'"
    return f"TypeError: __init__() got an unexpected keyword argument '{told['argument']}'"


def _root_of_chain(lines: Sequence[str], last: int) -> int:
    """The first exception of the chain that `last` ends, where it speaks of packages and `last` only passes it on."""
    if _BARE.search(lines[last][:_MAX_LINE]) and "because of the following error" not in lines[last]:
        return last
    place = last
    for _ in range(_MAX_CHAIN):
        above = range(place - 1, max(-1, place - _CHAIN_ABOVE), -1)
        linked = next((number for number in above if _CHAINED.match(lines[number][:200].strip())), None)
        if linked is None:
            return last
        before = next((number for number in range(linked, max(-1, linked - 12), -1) if _ends(lines[number])), None)
        if before is None:
            return last
        if _BARE.search(lines[before][:_MAX_LINE]):
            return before
        place = before
    return last


def callers_of_message(lines: Sequence[str], number: int, text: str) -> tuple[str, ...]:
    """The packages in the frames above a message, the deepest first; else the one that a lazy import names.

    Args:
        lines: the whole paste.
        number: where the message stands, counted from 0.
        text: the message.
    """
    around = " ".join(lines[max(0, number - 1) : number + 1])[-2 * _MAX_LINE :]
    lazy = _LAZY.search(around)
    found = _callers(lines, number, text)
    return (lazy[1],) if lazy and not any(found) else found


def _fact(lines: Sequence[str], number: int, text: str = "") -> ErrorFact:
    text = (text or lines[number]).strip()[:400]
    below = number + 1
    while text.endswith("traceback):") and below < min(len(lines), number + 5):  # the cause is on the next line
        text, below = f"{text} {lines[below].strip()[:300]}", below + 1
    text = _whole_name(lines[max(0, number - 3) : number], text)
    callers = _callers(lines, number, text)
    lazy = _LAZY.search(text)
    callers = (lazy[1],) if lazy and not any(callers) else callers
    values = {"callers": ",".join(callers)} if callers else {}
    if callers and callers[0]:
        values["importer"] = callers[0]
        values.update({"stage": "import"} if _while_importing(lines, number) else {})
    if any("transformers_modules" in line[:_MAX_LINE] for line in lines[max(0, number - _FRAMES_ABOVE) : number]):
        values["stage"] = "model code"
    unsaid = _UNSAID.search(text)
    module = _module_asked(lines[max(0, number - 12) : number], unsaid[1]) if unsaid else ""
    values.update({"module": module} if module else {})
    return ErrorFact("unknown-error", mask_text(text), number + 1, values)


# "ImportError: cannot import name 'crea", cut off within the name.
_NAME_BEGUN = re.compile(r"cannot import name '(\w{2,80})$")


def _whole_name(above: Sequence[str], text: str) -> str:
    """`text` with the name that it was cut off in, as the import above has it; as it is where that is not sure."""
    begun = _NAME_BEGUN.search(text)
    for line in map(str.strip, reversed(above)) if begun else ():
        found = re.match(r"from (?P<module>[\w.]{2,80}) import (?P<names>[\w, ]{2,300})$", line[:_MAX_LINE])
        names = [name.strip() for name in found["names"].split(",")] if found else []
        fitting = [name for name in names if begun and name.startswith(begun[1])]
        if found and begun and len(fitting) == 1:
            return f"{text[: begun.start(1)]}{fitting[0]}' from '{found['module']}'"
        if found:
            return text
    return text


_OPENED = re.compile(r"\bfrom\s{1,4}([\w.]{2,80})\s{1,4}import\s{0,4}\(")


def _module_asked(above: Sequence[str], name: str) -> str:
    """The module that an import of `name` asks; one whose names stand in brackets shows only its first line."""
    asked = re.compile(rf"\bfrom\s{{1,4}}([\w.]{{2,80}})\s{{1,4}}import\s.{{0,200}}\b{name}\b")
    short = [line[:_MAX_LINE] for line in above]
    found = next(filter(None, map(asked.search, short)), None)
    found = found or next(filter(None, map(_OPENED.search, reversed(short))), None)
    return found[1] if found else ""


_AT_TOP = re.compile(r"-packages[/\\].{1,300}(?:, in <module>|:\d{1,6}, in <module>| in <module>)")


def _while_importing(lines: Sequence[str], number: int) -> bool:
    """Whether the deepest frame above an exception is the top level of a package's file: code that runs on import."""
    for place in range(number - 1, max(-1, number - 12), -1):
        line = lines[place][:_MAX_LINE]
        if _FRAME.search(line) or " in <module>" in line:
            return bool(_AT_TOP.search(line))
    return False


def _callers(lines: Sequence[str], number: int, text: str) -> tuple[str, ...]:
    """The packages in the frames above the first sight of an exception that has any, the deepest first."""
    core = text.split(": ", 1)[-1][:60]
    repeats = (number for number, line in enumerate(lines) if core in line) if len(core) > 12 else iter(())
    seen = itertools.islice(repeats, _MAX_REPEATS)
    # A title stands above its traceback, which may be cut before the exception: the last frames are then its own.
    for place in (*seen, number, len(lines)):
        found = _frames_above(lines, place)
        if found:
            return found
    return ()


# Where a package looks up its own parts when they are asked for: whoever asks stands above.
_LAZY_FRAME = re.compile(r"[/\\](?:import_utils|lazy_loader|_lazy\w*)\.py\b.{0,40}\b(?:__getattr__|_get_module)\b")


def _frames_above(lines: Sequence[str], number: int) -> tuple[str, ...]:
    callers: list[str] = []
    for place in range(number - 1, max(-1, number - _FRAMES_ABOVE), -1):
        line = lines[place][:_MAX_LINE]
        if "Traceback (most recent call last)" in line or (callers and _ends(line)):
            break
        frame = _FRAME.search(line)
        if frame is None or "<frozen" in line or "importlib" in line:
            continue
        package = _PACKAGE.search(line)
        name = package[1] if package else ""
        if name and not callers and _LAZY_FRAME.search(line):
            continue
        if not callers or name not in callers:
            callers.append(name)
    return tuple(callers)
