"""What to do first where a server finds less of a GPU's memory free than it wants, by the numbers that it tells."""

from __future__ import annotations

import math
import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.tables import message_of

# https://github.com/vllm-project/vllm/blob/main/vllm/v1/worker/utils.py: request_memory
_NUMBERS = re.compile(
    r"[Ff]ree memory on device (?:cuda:\d{1,2} )?\((?P<free>\d{1,3}(?:\.\d{1,2})?)/"
    r"(?P<total>\d{1,3}(?:\.\d{1,2})?) GiB\)"
    r".{0,80}?utilization \((?P<part>0\.\d{1,4}|1(?:\.0)?),"
)
_NEARLY = 0.6
"""The part of a card from which on what is free is worth a smaller share; below, somebody else has the card."""


def _told(facts: Facts) -> Optional[tuple[float, float]]:
    error = facts.error(message_of({"id": "gpu-memory-not-free-at-start"}))
    found = _NUMBERS.search(error.text) if error is not None else None
    return (float(found["free"]), float(found["total"])) if found else None


def title(facts: Facts) -> str:
    """The title with how much is free; empty where that is not told."""
    told = _told(facts)
    if told is None:
        return ""
    return f"Too little of the GPU's memory is free for what the server wants: {told[0]:g} of {told[1]:g} GiB"


def steps(facts: Facts) -> tuple[str, ...]:
    """A share that fits into what is free, or the end of who has the card."""
    told = _told(facts)
    if told is None or not told[1]:
        return ()
    free, total = told
    if free >= _NEARLY * total:
        # CUDA's own context and the rounding of the message.
        share = math.floor(100 * free / total - 1) / 100
        return (f"--gpu-memory-utilization {share:.2f}   # {free:g} of {total:g} GiB are free on this card",)
    if fixes.on_windows(facts) and not facts.platform.wsl:
        return ()
    return (
        "nvidia-smi --query-compute-apps=pid,process_name,used_memory,gpu_uuid --format=csv   # who holds the other "
        f"{total - free:.1f} GiB; then kill <pid> of what an earlier run left",
        "sudo fuser -v /dev/nvidia*   # lists what nvidia-smi does not: other containers, workers of a dead run",
    )
