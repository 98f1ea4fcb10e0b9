"""GPUs: a catalogue with capacity, bandwidth and throughput, and sizes typed by the user. Stdlib only."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from workbench.errors import WorkbenchError
from workbench.text import one_line

_UNITS = {"gb": 10**9, "g": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20, "tb": 10**12, "tib": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gib|gb|g|mib|mb|tib|tb)", re.IGNORECASE)
_MAX_CAPACITY_BYTES = 10**15

# Words in product names that say nothing about which chip it is.
_NOISE = {"nvidia", "geforce", "tesla", "quadro", "amd", "radeon", "instinct", "gpu", "graphics", "generation"}
# These make another product of the same number.
_DISTINGUISHING = {"ti", "super", "laptop", "mobile", "max", "q", "d", "ada", "pro", "xt", "xtx", "blackwell"}
_SYNONYMS = {"sxm2": "sxm", "sxm3": "sxm", "sxm4": "sxm", "sxm5": "sxm", "hbm3": "sxm"}


@dataclass(frozen=True)
class Gpu:
    """One GPU model, or a bare capacity; unknown values are None."""

    name: str
    capacity_bytes: int
    """What a process can see of the memory, as torch reports it."""
    compute_capability: Optional[str] = None
    """NVIDIA's compute capability, or AMD's gfx name."""
    bandwidth_bytes_per_second: Optional[int] = None
    dense_tflops: Optional[float] = None
    """Dense 16-bit tensor throughput."""
    bf16: Optional[bool] = None
    fp8: Optional[bool] = None
    source: str = ""


@functools.lru_cache(maxsize=1)
def catalogue() -> tuple[Gpu, ...]:
    """All known GPUs, older architectures first."""
    text = Path(__file__).with_name("gpus.json").read_text(encoding="utf-8")
    fields = set(Gpu.__dataclass_fields__)
    return tuple(Gpu(**{key: value for key, value in row.items() if key in fields}) for row in json.loads(text)["gpus"])


def parse_gpu(text: str) -> Gpu:
    """The GPU that a name (``RTX 4090``, ``NVIDIA A100-SXM4-80GB``, ``t4``) or a size (``24GB``, ``22.5GiB``) means.

    GB is 10**9 bytes and GiB is 2**30.

    Raises:
        WorkbenchError: ``unknown-gpu``, ``ambiguous-gpu`` with the candidates, or ``bad-size``.
    """
    size = _SIZE.fullmatch(text.strip())
    if size:
        return _by_size(text.strip(), float(size.group(1)) * _UNITS[size.group(2).lower()])
    if not text.strip():
        raise WorkbenchError("unknown-gpu", "A GPU without a name.", "Give a name, or its memory such as 24GB.")
    candidates = find_gpus(text)
    if not candidates:
        raise WorkbenchError(
            "unknown-gpu",
            f"No GPU called {one_line(text, 60)} is in the catalogue.",
            "Give its memory instead, such as 24GB or 22.5GiB.",
        )
    if len({gpu.capacity_bytes for gpu in candidates}) > 1:
        raise WorkbenchError(
            "ambiguous-gpu",
            f"{one_line(text, 60)} may be {', '.join(gpu.name for gpu in candidates)}.",
            "Name one of them.",
        )
    return candidates[0]


def find_gpus(text: str) -> list[Gpu]:
    """The catalogue's GPUs that `text` fits best: one, several equally good ones, or none."""
    wanted = _words(text)
    scored = [(len(wanted & words), gpu) for gpu, words in _catalogue_words() if _may_be(wanted, words)]
    best = max((score for score, _ in scored), default=0)
    return [gpu for score, gpu in scored if score == best]


def _by_size(text: str, capacity: float) -> Gpu:
    if not 0 < capacity <= _MAX_CAPACITY_BYTES:
        raise WorkbenchError("bad-size", f"{one_line(text, 60)} is no GPU's memory.", "Give a size such as 24GB.")
    return Gpu(name=text, capacity_bytes=int(capacity), source="size given by the user")


@functools.lru_cache(maxsize=1)
def _catalogue_words() -> tuple[tuple[Gpu, frozenset[str]], ...]:
    return tuple((gpu, _words(gpu.name)) for gpu in catalogue())


def _words(name: str) -> frozenset[str]:
    text = name.lower().replace("gib", "gb")
    # "3090ti", "rtx4090" and "80 GB" are written both ways.
    text = re.sub(r"(\d) +gb\b", r"\1gb", re.sub(r"\b(rtx|gtx|rx)(\d)", r"\1 \2", text))
    text = re.sub(r"(\d{4})(ti|super|xt|xtx)\b", r"\1 \2", text)
    return frozenset(_SYNONYMS.get(word, word) for word in re.findall(r"[a-z0-9.]+", text)) - _NOISE


def _may_be(wanted: frozenset[str], words: frozenset[str]) -> bool:
    chips = {word for word in words if any(c.isdigit() for c in word) and not word.endswith("gb")}
    sizes = {word for word in words if word.endswith("gb")}
    wanted_sizes = {word for word in wanted if word.endswith("gb")}
    same_chip = chips <= wanted if chips else words <= wanted
    same_size = not sizes or not wanted_sizes or sizes == wanted_sizes
    return same_chip and same_size and wanted & _DISTINGUISHING == words & _DISTINGUISHING
