"""What kind of model a typed name can be, and what it was probably meant to be. Stdlib only."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

# Repository ids as the Hub allows them: ASCII letters, digits, '-', '_', '.', 96 characters, no '--' or '..'.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_BARE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)

KINDS_OF_NAMES = (
    "Give a directory, a .gguf file, a Hub id (org/name), or a sample or catalogue name: workbench models list."
)


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form ``org/name`` of a Hub repository."""
    return bool(_HUB_ID.fullmatch(text)) and "--" not in text and ".." not in text and not text.endswith(".git")


def is_bare_name(text: str) -> bool:
    """Whether `text` can be the name of a sample, of a catalogue entry or of an old Hub repository without org."""
    return bool(_BARE_NAME.fullmatch(text)) and "--" not in text and ".." not in text


def as_path(text: str) -> Optional[Path]:
    """The path that `text` names: one that exists, or one that can be nothing else; None for other names."""
    path = os.path.expanduser(text)
    try:
        os.lstat(path)
    except ValueError:
        return None  # a NUL, or half a surrogate pair
    except OSError as error:
        plain = text.startswith(("/", "./", "../", "~")) or text in (".", "..") or text.lower().endswith(".gguf")
        return Path(path) if plain and error.errno != errno.ENAMETOOLONG else None
    return Path(path)


def nearest(text: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that look most like `text`, the best first."""
    candidates = {name.lower(): name for name in names}
    wanted = text.lower()
    containing = sorted((name for name in candidates if wanted in name), key=len)
    similar = difflib.get_close_matches(wanted, candidates, n=count, cutoff=0.5)
    by_last_part = difflib.get_close_matches(wanted.rsplit("/", 1)[-1], candidates, n=count, cutoff=0.5)
    ordered = dict.fromkeys([*containing[:1], *similar, *by_last_part, *containing])
    return [candidates[name] for name in ordered][:count]
