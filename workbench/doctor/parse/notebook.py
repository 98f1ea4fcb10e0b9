"""Whether an error was met in a notebook, whose memory keeps what an install has since replaced. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from workbench.doctor.facts import ErrorFact

_MAX_LINE = 400
_ASKED = frozenset(("version-conflict", "numpy-abi", "numpy-dtype-size", "numpy-older-than-build"))
_NOTEBOOK = re.compile(
    r"ipython-input|ipykernel|\bcolab\b|\bkaggle\b|\bjupyter\b|\.ipynb\b|\bnotebooks?\b|^\s{0,8}-{2,6}> \d{1,5} "
    r"|[!%]pip3? install|\bIn ?\[\d{1,4}\]|\brestart(?:ing)? (?:the )?(?:runtime|kernel|session)",
    re.IGNORECASE,
)
_NUMPY_ASKED = re.compile(r"\bpip3? install\b[^\n]{0,200}?['\" ]numpy ?(?P<spec>(?:==|<|~=) ?\d[\w.*]{0,12})")
_NUMPY_BROUGHT = re.compile(r"\bSuccessfully installed\b[^\n]{0,2000}?\bnumpy-(?P<version>\d[\w.]{0,12})")


def with_notebook(error: ErrorFact, lines: Sequence[str]) -> ErrorFact:
    """An error about a release in memory, with ``notebook`` where it comes from one, and the NumPy put there last."""
    if error.id not in _ASKED:
        return error
    told = {}
    if any(_NOTEBOOK.search(line[:_MAX_LINE]) for line in lines):
        told["notebook"] = "yes"
    for line in lines:
        asked, brought = _NUMPY_ASKED.search(line[:_MAX_LINE]), _NUMPY_BROUGHT.search(line[:3000])
        if brought:
            told["numpy_put"] = brought["version"]
        elif asked:
            told["numpy_put"] = re.sub(r"[ *]", "", asked["spec"]).lstrip("=~")
    return replace(error, values={**error.values, **told}) if told else error
