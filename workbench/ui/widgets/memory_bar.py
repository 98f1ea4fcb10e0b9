"""Bytes by category as bars and plots, each category in the same texture and colour wherever it stands."""

from __future__ import annotations

from collections.abc import Mapping

from textual.content import Content

CATEGORIES = (
    *("weights", "adapters", "gradients", "optimizer"),
    *("activations", "kv_cache", "logits", "overhead"),
)
LABELS = {"kv_cache": "KV cache", "logits": "logits, loss"}
# Adapters and the KV cache may share a mark: no job has both.
_LOOKS = {
    "weights": ("█", "$series-1"),
    "adapters": ("▓", "$series-2"),
    "gradients": ("▒", "$series-3"),
    "optimizer": ("░", "$series-4"),
    "activations": ("▚", "$series-5"),
    "kv_cache": ("▓", "$series-2"),
    "logits": ("▞", "$series-6"),
    "overhead": ("≡", "$muted"),
}
_OTHER = ("▤", "$muted")
CAPACITY = "┃"


def label_of(category: str) -> str:
    """A category in words."""
    return LABELS.get(category, category.replace("_", " "))


def look_of(category: str) -> tuple[str, str]:
    """Texture and colour of a category: either is enough to tell it from the others of its job."""
    return _LOOKS.get(category, _OTHER)


def mark_of(category: str) -> Content:
    """What stands beside a category's name."""
    texture, style = look_of(category)
    return Content.styled(texture * 2, style)


def memory_bar(parts: Mapping[str, int], capacity: int, width: int, whole: int = 0) -> Content:
    """The parts side by side, with a line where the capacity ends: at the right, or inside if they exceed it.

    Args:
        parts: bytes by category.
        capacity: of the GPU; 0 for none.
        width: of the bar.
        whole: bytes that the width stands for, if more than parts and capacity.
    """
    room = max(2, width - 1)
    total = sum(parts.values())
    whole = max(whole, capacity, total, 1)
    limit = min(room, round(capacity / whole * room))
    cells: list[tuple[str, str]] = []
    position = 0
    for category, size in parts.items():
        texture, style = look_of(category)
        position += size
        end = min(room, max(round(position / whole * room), len(cells) + (size > 0)))
        cells += [(texture, style)] * (end - len(cells))
    cells += [("·", "$faint")] * (room - len(cells))
    if capacity:
        cells.insert(limit, (CAPACITY, "bold $bad" if total > capacity else "bold $muted"))
    return Content.assemble(*_runs(cells))


def _runs(cells: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours that look the same as one piece."""
    runs: list[tuple[str, str]] = []
    for text, style in cells:
        if runs and runs[-1][1] == style:
            runs[-1] = (runs[-1][0] + text, style)
        else:
            runs.append((text, style))
    return runs


def painted(cells: list[tuple[str, str]]) -> Content:
    """Cells of a texture and a colour each as one line."""
    return Content.assemble(*_runs(cells))
