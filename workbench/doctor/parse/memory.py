"""What torch tells of a GPU's memory when it runs out: who holds how much of it. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from workbench.doctor.facts import ErrorFact

_SIZE = r"(?P<{0}>[\d.]{{1,10}}) (?P<{0}_unit>[KMG]i?B|bytes)"
_WANTED = re.compile(r"[Tt]ried to allocate " + _SIZE.format("wanted"))
_TOTAL = re.compile(
    _SIZE.format("total") + r" total capacity|total capacity of " + _SIZE.format("total2") + r" of which"
)
_FREE = re.compile(_SIZE.format("free") + r" (?:is )?free\b")
_MINE = re.compile(
    r"this process has "
    + _SIZE.format("mine")
    + r"|"
    + _SIZE.format("mine2")
    + r" (?:(?:is )?reserved in total by PyTorch|already allocated|is allocated by PyTorch)"
)
# "cached" is what torch before 1.4 says of the same.
_UNUSED = re.compile(_SIZE.format("unused") + r" (?:is reserved by PyTorch but unallocated|cached\b)")
# Torch before 2.2 names the whole that it keeps, and what it has given out of it; and who else is there, since 2.2.
_KEPT = re.compile(_SIZE.format("kept") + r" reserved in total by PyTorch")
_GIVEN_OUT = re.compile(_SIZE.format("given") + r" already allocated")
_OTHER = re.compile(r"\bProcess (\d{1,8}) has ")
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "b": 1 / 2**20}
_MAX_LINE = 3000


def with_memory(error: ErrorFact, lines: Sequence[str]) -> ErrorFact:
    """An out-of-memory error of torch with its numbers in MiB: ``total``, ``free``, ``wanted`` and ``mine``.

    And with its ``phase``: ``train``, ``loss`` or ``load``, where the paste tells; ``gguf`` where it is llama.cpp's.
    """
    if error.id != "oom" or not error.line:
        return error
    if any(_LLAMA_CPP.search(line[:600]) for line in lines[max(0, error.line - _FRAMES_ABOVE) : error.line + 3]):
        return replace(error, values={**error.values, "phase": "gguf"})
    phase = "loss" if _in_the_loss(lines[max(0, error.line - _FRAMES_ABOVE) : error.line]) else _phase(lines)
    error = replace(error, values={**error.values, "phase": phase}) if phase else error
    for start in _starts(lines, error.line - 1):
        text = " ".join(line[:_MAX_LINE] for line in lines[start : start + 5])
        found = {name: _mebibytes(pattern, text) for name, pattern in _NUMBERS}
        if found["mine"] is not None:
            # The newest and the oldest releases tell what is given out and what is kept besides; others name the sum.
            found["mine"] += _mebibytes(_UNUSED, text) or 0.0
        if found["total"] is not None and found["free"] is not None:
            known = {f"{name}_mib": f"{value:.0f}" for name, value in found.items() if value is not None}
            return replace(error, values={**error.values, **known, **_kept_unused(text), **_others(text)})
    return error


def _kept_unused(text: str) -> dict[str, str]:
    """What newer releases call reserved but unallocated, out of the words of older ones."""
    kept, given_out = _mebibytes(_KEPT, text), _mebibytes(_GIVEN_OUT, text)
    if kept is None or given_out is None:
        return {}
    return {"reserved": f"{max(0.0, kept - given_out):.0f}", "unit": "MiB", "words": "old"}


def _others(text: str) -> dict[str, str]:
    """The other processes on the card, by their numbers."""
    found = sorted(set(map(int, _OTHER.findall(text))))
    return {"others": ",".join(map(str, found))} if found else {}


_TRAINS = re.compile(
    r"\bbackward\b|\btrain(?:ing|er)?\b|train\.py|\bepochs?\b|fine-?tun|optimizer|训练|微调|学習", re.I
)
_LOADS = re.compile(
    r"from_pretrained|load_checkpoint|checkpoint shards|load_model|load_state_dict|--ckpt_dir|"
    r"\bload(?:ing|s)? (?:\w{1,12} ){0,2}(?:model|checkpoint|weights|vicuna|llama)|"
    r"(?:run|load|use) the \d{1,3}b\b|加载模型",
    re.I,
)


_FRAMES_ABOVE = 24
_LLAMA_CPP = re.compile(
    r"\bllama[-_](?:server|cli|bench|cpp)\b|\bllama\.cpp\b|\bggml_|koboldcpp|\bn_gpu_layers\b|\.gguf\b", re.I | re.A
)
_LOSS = re.compile(r"[\\/]loss_utils\.py\"|\bin (?:fixed_cross_entropy|ForCausalLMLoss|compute_loss_func)\b")


def _in_the_loss(above: Sequence[str]) -> bool:
    """Whether the frames above the error are those of a language model's loss over its whole vocabulary."""
    return any(_LOSS.search(line[:600]) for line in above)


def _phase(lines: Sequence[str]) -> str:
    """What the program was at, as far as the paste tells: ``train``, ``load`` or nothing."""
    if any(_TRAINS.search(line[:600]) for line in lines):
        return "train"
    return "load" if any(_LOADS.search(line[:600]) for line in lines) else ""


_NUMBERS = (("wanted", _WANTED), ("total", _TOTAL), ("free", _FREE), ("mine", _MINE))


def _starts(lines: Sequence[str], first: int) -> list[int]:
    """The line of the error, and the first with the sentence in full: a heading often cuts it short."""
    whole = next((number for number, line in enumerate(lines) if "total capacity" in line[:_MAX_LINE]), None)
    return [first] if whole is None else [max(0, whole - 1), whole, first]


def _mebibytes(pattern: re.Pattern[str], text: str) -> Optional[float]:
    """The largest amount that `pattern` finds: what torch holds includes what it has given out."""
    return max((_amount(match) for match in pattern.finditer(text)), default=None)


def _amount(match: re.Match[str]) -> float:
    groups = match.groupdict()
    name = next(name for name, value in groups.items() if value and not name.endswith("_unit"))
    try:
        return float(groups[name]) * _UNITS[groups[f"{name}_unit"][0]]
    except ValueError:
        return 0.0
