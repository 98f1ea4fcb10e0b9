"""The kernels of a torch build, as ``torch.cuda.get_arch_list()`` gives them in a paste. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.doctor.parse.draft import Draft

_MAX_LINE = 600
_CODE = re.compile(r"\b(?:sm|compute)_\d{2,3}[af]?\b")
_LIST = re.compile(r"\[[^\]\n]{0,400}\b(?:sm|compute)_\d{2,3}[^\]\n]{0,400}\]?")
_NAMED = re.compile(r"\b(?:lists?|includes?|contains?|has|shows?|with|have)\b", re.IGNORECASE)
_NOT = re.compile(r"\b(?:not|no|without|lacks?|missing|only|should|must|if)\b|n't\b", re.IGNORECASE)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the list that is printed; a sentence that names one of its entries says at least that this one is there."""
    for number, line in enumerate(lines):
        if "get_arch_list" not in line:
            continue
        rest = line[:_MAX_LINE].partition("get_arch_list")[2]
        printed = next(
            filter(None, map(_LIST.search, (rest, *(line[:_MAX_LINE] for line in lines[number + 1 : number + 4])))),
            None,
        )
        if printed:
            draft.put(draft.torch, arch_list=tuple(_CODE.findall(printed[0])), build="cuda")
            return
        if _CODE.search(rest) and _NAMED.search(rest) and not _NOT.search(rest):
            draft.put(draft.torch, arch_list=tuple(_CODE.findall(rest)), build="cuda")
            return
