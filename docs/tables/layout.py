"""Tables as TOML that a diff can be read of."""

from __future__ import annotations

import datetime
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from workbench.doctor.tables import TABLES
from workbench.paths import write_atomic

WIDTH = 128


def write(table: str, purpose: str, lines: Iterable[str], part: str = "") -> Path:
    """Write a table, or a `part` of it in a folder of the table's name, below its purpose; its path."""
    made = f"Made by python -m docs.tables {table}; what is read and what is left out: docs/tables/{table}_plan.toml."
    head = textwrap.wrap(
        f"{purpose.strip()} {made}", WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
    checked = f'checked = "{datetime.date.today()}"'
    path = TABLES / (f"{table}/{part}.toml" if part else f"{table}.toml")
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, ("\n".join([*head, "", checked, *lines]).rstrip() + "\n").encode(), 0o644)
    return path


def key(name: str) -> str:
    """A key, in quotes only where it needs them."""
    return name if re.fullmatch(r"\w+", name) else f'"{name}"'


def section(*names: str) -> str:
    """The head of a section."""
    return f"[{'.'.join(key(name) for name in names)}]"


def row(name: str, words: Iterable[str]) -> str:
    """A key and its words, over several lines where they are many. Versions and paths stand in quotes as keys."""
    line = f'"{name}" = "{" ".join(words)}"'
    if len(line) <= WIDTH:
        return line
    lines = textwrap.wrap(" ".join(words), WIDTH, break_long_words=False, break_on_hyphens=False)
    return f'"{name}" = """\n' + "\n".join(lines) + '"""'
