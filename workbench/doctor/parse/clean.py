"""Taking the wrapping off a paste: quote marks, fences, colours, log prefixes. Stdlib only.

Every pattern here is linear in its input, and the input is cut to a size that no real report reaches.
"""

from __future__ import annotations

import html
import re
from typing import TypeVar

from workbench.doctor.parse import told_errors

T = TypeVar("T")
MAX_CHARACTERS = 2_000_000
MAX_LINES = 40_000
MAX_LINE = 4_000

# Signs that keyboards and word processors put in place of a program's own; one for one.
_TYPED = str.maketrans("\u2018\u2019\u201b\u02bc\u201c\u201d\uff02\uff07\uff08\uff09\uff0c\u3000", "''''\"\"\"'(), ")
_BREAK = re.compile(r"\r{0,8}\n")
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]{0,40}[A-Za-z]|\][^\x07\x1b\n]{0,400}(?:\x07|\x1b\\)?|[@-Z\\-_])")
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u2060\ufeff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_QUOTES = re.compile(r"^[ \t]{0,3}(?:>[ \t]?){1,12}", re.MULTILINE)
_PROMPT = re.compile(
    r"^[ \t]{0,3}(?:>[ \t]?){0,12}>>> (?:import|from|print|torch|exit|quit|[a-z_]{1,20} =)", re.MULTILINE
)
# The same, but stopping before a Python prompt.
_QUOTES_BEFORE_PROMPT = re.compile(r"^[ \t]{0,3}(?:>(?!>> )[ \t]?){1,12}", re.MULTILINE)
_FENCES = re.compile(r"^[ \t]{0,6}(?:`{3,8}|~{3,8})[\w+-]{0,20}[ \t]*$", re.MULTILINE)
_TIMES = re.compile(r"^\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,\d]{0,10}Z?\]?[ \t]", re.MULTILINE)
_RANKS = re.compile(r"^(?:\[rank\d{1,4}\]:|\([A-Za-z_]{1,40}(?: [\w=-]{1,30}){0,3} pid=\d{1,9}\))[ \t]?", re.MULTILINE)
_BOX = re.compile(r"^[ \t]{0,4}│[ \t]?|[ \t]*│[ \t]*$", re.MULTILINE)
# What a service manager or a program's own log puts before each line.
_LOGGED = re.compile(
    r"^(?:[A-Z][a-z]{2}[ ]{1,2}\d{1,2} \d\d:\d\d:\d\d \S{1,60} [^\s:\[]{1,60}(?:\[\d{1,9}\])?:[ ]"
    r"|\d\d:\d\d:\d\d[-.,]\d{3,6}[ ]{1,4}(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)[ ]{1,8}"
    r"|(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)[ ]\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,6})?[ ](?:\[[^\]\n]{1,60}\][ ]?)?)",
    re.MULTILINE,
)
_COMPOSE = re.compile(r"^[A-Za-z][\w.-]{0,40}-\d{1,3}[ \t]{1,8}\|[ \t]", re.MULTILINE)
_BOLD = re.compile(r"\*\*([^*\n]{1,120})\*\*")
# Underlines are taken for emphasis only at the start of a list's item: Python's own names wear them too.
_EMPHASIS = re.compile(r"^([ \t]{0,6}[-*][ \t]{1,3})__([A-Za-z][^_\n]{0,40})__", re.MULTILINE)
# A C++ name that lost its underlines, or got marks in front of them, where a page took them for emphasis.
_MANGLED = re.compile(r"(?<=symbol: )[*\\_]{0,3}(Z[NTVKI][\w*\\]{3,300})")
# pyannote names the versions that a model was made with beside those that are here.
_MADE_WITH = re.compile(r"was trained with ([\w.-]{2,40}) [\w.+]{2,30}, yours is (\d[\w.+]{1,30})")
_TAGS = re.compile(r"</?(?:details|summary|code|pre|br|p|b)[ \t]{0,2}/?>", re.IGNORECASE)


# A traceback that a chat or a form has put into one line.
_FLAT_FRAME = re.compile(r"\s(File \"[^\"\n]{2,300}\", line \d{1,6}, in \S{1,80})(?:\s|$)")
_FLAT_END = re.compile(r" (?=(?:[A-Za-z_]\w{0,40}\.){0,6}[A-Z]\w{2,60}(?:Error|Exception): )")
# What a form shows as an example, where somebody wrote beside it: "OS: [e.g. Ubuntu 16.04] Mac M1".
_PLACEHOLDER = re.compile(r"\[e\.g\.[^\]\n]{0,80}\][ \t]?")
# The fields of collect_env, and those of `transformers env`, that a form has put into one line.
_FLAT_FIELD = re.compile(
    r" (?=(?:(?:Is debug build|Is CUDA available|Is XNNPACK available|(?:CUDA|ROCM) used to build PyTorch|OS|CPU"
    r"|(?:GCC|Clang|CMake|Libc|Python|Nvidia driver|cuDNN|(?:CUDA|HIP|MIOpen) runtime) version|Python platform"
    r"|CUDA_MODULE_LOADING set to|GPU models and configuration|GPU \d{1,2}|Versions of relevant libraries):[ \n]"
    r"|PyTorch version: |\[(?:pip3?|conda)\] ))"
)
_FLAT_ITEM = re.compile(r" (?=- (?:`\w{2,30}` version|[A-Z][\w ()?-]{2,60}): )")
_MAX_FLAT = 40_000


def numbered_lines(text: str) -> tuple[list[str], list[int]]:
    """The lines of a paste as the program printed them, as far as that can be told, and each one's number, from 1."""
    text, numbers = _counted(text)
    text = text.replace("\u00a0", " ").translate(_TYPED)
    text = _INVISIBLE.sub("", _ESCAPES.sub("", text)).replace("\uff1a ", ": ").replace("\uff1a", ": ")
    quotes = _QUOTES_BEFORE_PROMPT if _PROMPT.search(text) else _QUOTES
    text = _COMPOSE.sub("", _TIMES.sub("", _FENCES.sub("", quotes.sub("", text))))
    text = _RANKS.sub("", text) if "rank" in text or "pid=" in text else text
    text = _LOGGED.sub("", text)
    text = _BOX.sub("", text) if "│" in text else text
    text = _PLACEHOLDER.sub("", text) if "[e.g." in text else text
    text = _BOLD.sub(r"\1", text) if "**" in text else text
    text = _EMPHASIS.sub(r"\1\2", text) if "__" in text else text
    if "symbol: " in text:
        text = _MANGLED.sub(lambda found: "_" + found[1].replace("\\", "").replace("*", "_"), text)
    text = told_errors.in_pythons_words(text)
    if ", yours is " in text:
        text = _MADE_WITH.sub(lambda found: f"runs beside {found[1]} {found[2].rstrip('.')}", text)
    if "<" in text:
        text = _TAGS.sub("", text)
    lines: list[str] = []
    origins: list[int] = []
    pieces = text.split("\n")
    if len(pieces) > MAX_LINES:  # before anything is done for each
        pieces, numbers = _both_ends(pieces), _both_ends(numbers)
    for number, line in zip(numbers, pieces):
        if line.count(' File "') > 1 and len(line) <= _MAX_FLAT:
            lines += _unflattened(line)
        elif "PyTorch version: " in line and " Is debug build: " in line and len(line) <= _MAX_FLAT:
            lines += [part[:MAX_LINE] for part in _FLAT_FIELD.split(line)]
        elif " version: " in line and " - Platform: " in line and len(line) <= _MAX_FLAT:
            lines += [part[:MAX_LINE] for part in _FLAT_ITEM.split(line)]
        elif len(line) > MAX_LINE:
            lines += _split(line)
        else:
            lines.append(html.unescape(line) if "&" in line and ";" in line else line)
        origins += [number] * (len(lines) - len(origins))
    if len(lines) > MAX_LINES:
        return _both_ends(lines), _both_ends(origins)
    return lines, origins


def _unflattened(line: str) -> list[str]:
    """The lines of a traceback that stands in one, as Python printed them."""
    head, *rest = _FLAT_FRAME.split(line)
    if len(rest) < 4:
        return [line[:MAX_LINE]]
    lines = [head]
    for frame, code in zip(rest[::2], rest[1::2]):
        shown, *raised = _FLAT_END.split(code, maxsplit=1)
        lines += [f"  {frame}", *([f"    {shown}"] if shown.strip() else []), *raised]
    return [part[:MAX_LINE] for part in lines]


def _both_ends(items: list[T]) -> list[T]:
    return items[: MAX_LINES * 3 // 4] + items[-MAX_LINES // 4 :]


def _counted(text: str) -> tuple[str, list[int]]:
    """The text, cut to its limit, and the number of each of its lines; a progress bar is one line of many parts."""
    head, tail, skipped = text, "", 0
    if len(text) > MAX_CHARACTERS:
        head, tail = text[: MAX_CHARACTERS * 3 // 4], text[-MAX_CHARACTERS // 4 :]
        skipped = text.count("\n", len(head), len(text) - len(tail))
    parts: list[str] = []
    numbers: list[int] = []
    number = 0
    for piece in (head, tail) if tail else (head,):
        number += skipped if piece is tail and tail else 0
        whole = _BREAK.split(piece)
        if "\r" not in piece and "\u2028" not in piece:
            parts += whole
            numbers += range(number + 1, number + 1 + len(whole))
            number, whole = number + len(whole), []
        for line in whole:
            number += 1
            within = line.replace("\u2028", "\r").split("\r")
            parts += within
            numbers += [number] * len(within)
        number -= 1 if piece is head and tail else 0
    return "\n".join(parts), numbers


def _split(line: str) -> list[str]:
    # A log record in JSON holds a whole report in one line, its line breaks spelled out.
    parts = line.replace("\\r", "").split("\\n") if "\\n" in line else [line]
    return [part[start : start + MAX_LINE] for part in parts for start in range(0, max(1, len(part)), MAX_LINE)]
