"""Untrusted text made safe to show, and numbers made readable. Stdlib only."""

from __future__ import annotations

import re
from typing import Any

# C0 (without newline and tab), DEL, C1, and the characters that reorder or hide what a person reads:
# zero-width characters, bidirectional controls (UAX #9), line and paragraph separators, interlinear marks,
# tags, lone surrogates. The joiners U+200C and U+200D stay: emoji and several scripts need them.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_COMBINING_RUN = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4})"
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"\u27e8{code:04X}\u27e9"


def sanitize(text: str) -> str:
    """Replace control, bidirectional and invisible characters by visible symbols; keep newline and tab.

    The result can be written to a terminal without being obeyed by it. Markup is not touched: show the
    result as plain text, never as markup.
    """
    return without_piles(UNSAFE.sub(_picture, text.replace("\r\n", "\n")))


def without_piles(text: str) -> str:
    """At most four combining marks on one character; more are painted over the lines above and below it."""
    return _COMBINING_RUN.sub(r"\1", text)


def sanitize_tree(value: Any) -> Any:
    """`sanitize` every string, keys included, in a JSON-like value."""
    if isinstance(value, str):
        return sanitize(value)
    if isinstance(value, (list, tuple)):
        return [sanitize_tree(item) for item in value]
    if isinstance(value, dict):
        return {sanitize_tree(key): sanitize_tree(item) for key, item in value.items()}
    return value


def one_line(text: str, limit: int = 300) -> str:
    """`text` on one line, sanitised, cut at `limit` characters."""
    line = " ".join(sanitize(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def gib(count_bytes: float, digits: int = 2) -> str:
    """Bytes as a number of GiB (2**30), without the unit."""
    return f"{count_bytes / 2**30:,.{digits}f}"


def format_nats(value: float, decimals: int) -> str:
    """A divergence with so many decimals; in powers of ten where these would all be zeros."""
    return f"{value:.{decimals}f}" if value >= 10**-decimals or not value else f"{value:.1e}"


def format_bytes(count_bytes: float) -> str:
    """Bytes with a binary unit, three significant figures: ``269 MiB``, ``5.72 GiB``."""
    size = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1000 or unit == "TiB":
            break
        size /= 1024
    if unit == "B":
        return f"{int(size)} B"
    digits = 2 if abs(size) < 9.995 else 1 if abs(size) < 99.95 else 0
    return f"{size:,.{digits}f} {unit}"


def format_count(count: float) -> str:
    """A count with a decimal suffix, three significant figures: ``135 M``, ``8.03 B``."""
    value = float(count)
    if abs(value) < 1000:
        return f"{value:g}"
    for suffix in ("k", "M", "B", "T"):
        value /= 1000
        if abs(value) < 999.5 or suffix == "T":
            break
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{digits}f} {suffix}"


def format_seconds(seconds: float) -> str:
    """A duration a person reads at a glance: ``0.21 s``, ``41 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
