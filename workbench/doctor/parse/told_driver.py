"""What people say of the driver in a sentence: the CUDA that nvidia-smi shows them, the release that they put in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.doctor.parse.draft import Draft

# "nvidia-smi shows CUDA 11.8", "my driver only supports CUDA 11.4": the newest CUDA that the driver runs.
_SHOWS = re.compile(
    r"\bnvidia-smi\b[^.\n]{0,40}\bCUDA(?: version)?\W{0,3}(?P<shown>(?:9|1[0-4])\.\d)\b(?!\.?\d)"
    r"|\bdriver (?:only |just )?supports? (?:only |up to )?CUDA (?P<borne>(?:9|1[0-4])\.\d)\b(?!\.?\d)",
    re.I,
)
# "I updated the driver to 555.42.06": that one is here now.
_PUT_IN = re.compile(
    r"\b(?:I|we|I've|have|having|after) (?:have |just |already |also )?"
    r"(?:updat|upgrad|downgrad|install|reinstall|switch|roll)(?:ed|ing)\b[^.\n]{0,20}\bdrivers?(?: version)? "
    r"(?:to |from \d{3}[\d.]{0,10} to )?v?(?P<version>\d{3}\.\d{2,3}(?:\.\d{2})?)\b",
    re.I,
)
_DOUBTED = re.compile(r"\b(?:should|would|must|if|unless|need\w*|require\w*|could|tried)\b[^.\n]{0,40}$", re.I)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the driver's release and CUDA where one value alone is told, and nothing better has told it."""
    shown = {match["shown"] or match["borne"] for line in lines for match in _of(_SHOWS, line)}
    if len(shown) == 1:
        draft.put(draft.driver, cuda=shown.pop())
    put_in = [match["version"] for line in lines for match in _of(_PUT_IN, line)]
    if put_in:
        draft.put(draft.driver, version=put_in[-1])


def _of(pattern: re.Pattern[str], line: str) -> list[re.Match[str]]:
    return [match for match in pattern.finditer(line) if not _DOUBTED.search(line[: match.start()])]
