"""The README's pictures show the app as it is: made anew and compared."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.model]

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
NAMES = {"doctor", "tokens", "architecture", "vram", "chat"}
FIGURES = re.compile(r"[\d.]+ (?=s |tok/s|checks|could)")
"""Speeds are this machine's; how many checks there are is no matter of looks."""
STATUS_LINE = 1
_TEXT = re.compile(r'<text [^>]*?x="([\d.]+)" [^>]*?clip-path="url\(#[\w-]+-line-(\d+)\)"[^>]*>(.*?)</text>')


def shown(picture: Path) -> list[str]:
    """The lines of a screenshot, without the one that tells memory, load and jobs."""
    lines: dict[int, list[tuple[float, str]]] = {}
    for x, line, text in _TEXT.findall(picture.read_text(encoding="utf-8")):
        lines.setdefault(int(line), []).append((float(x), html.unescape(text).replace("\xa0", " ")))
    rows = ["".join(text for _x, text in sorted(lines[line])) for line in sorted(lines) if line != STATUS_LINE]
    return [FIGURES.sub("0 ", row) for row in rows]


@pytest.mark.timeout(300)
def test_the_pictures_of_the_readme_are_current(smollm2_dir: Path, shared_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_pictures.py"), str(folder)], capture_output=True, text=True, cwd=ROOT
    )
    assert made.returncode == 0, made.stderr[-3000:]
    assert {path.stem for path in folder.iterdir()} == {path.stem for path in PICTURES.iterdir()} == NAMES
    for name in sorted(NAMES):
        kept, now = shown(PICTURES / f"{name}.svg"), shown(folder / f"{name}.svg")
        assert len(kept) > 8, f"nothing was read off {name}.svg"
        changed = "\n".join(unified_diff(kept, now, "kept", "now", n=0, lineterm=""))
        assert not changed, f"{name}.svg is older than the app: python docs/make_pictures.py\n{changed}"
