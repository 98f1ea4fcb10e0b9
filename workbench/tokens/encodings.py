"""What encoding bytes seem to be in that are not UTF-8 text. Stdlib only."""

from __future__ import annotations

from typing import Optional

from workbench.errors import WorkbenchError

_LOOKED_AT_BYTES = 4096


def suspected_utf16(head: bytes) -> Optional[str]:
    """``utf-16``, ``utf-16-le`` or ``utf-16-be`` where the beginning of a file looks like it, else None.

    Without a byte-order mark: where nearly every second byte is NUL, as in Latin text.
    """
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    head = head[:_LOOKED_AT_BYTES]
    pairs = len(head) // 2
    if pairs < 2:
        return None
    first, second = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if second > 0.6 * pairs and first < 0.1 * pairs:
        return "utf-16-le"
    return "utf-16-be" if first > 0.6 * pairs and second < 0.1 * pairs else None


def utf16_error(name: str, encoding: str) -> WorkbenchError:
    """The error for such a file."""
    why = "a byte-order mark" if encoding == "utf-16" else "every second byte is NUL"
    return WorkbenchError(
        "bad-encoding",
        f"{name} looks like {encoding.upper()} ({why}), not UTF-8.",
        f"Convert it first: iconv -f {encoding} -t utf-8 FILE",
    )
