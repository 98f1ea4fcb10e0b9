"""torchvision and torchaudio of the torch that is here, where nothing tells its version: the shell asks it."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.tables import WHEELS

COMPANIONS = ("torchvision", "torchaudio")

_ASKS = (
    "import torch; v, _, t = torch.__version__.partition('+'); c = torch.version.cuda; "
    "t = t or (c and 'cu' + c.replace('.', '')) or 'cpu'"
)
_NOTE = "the one of the torch that is here, which stays; where that is AMD's, NVIDIA's or conda's own: from there"


def for_this_torch(facts: Facts, name: str) -> str:
    """The command that brings the `name` of the torch that is here, from the index that its build came from.

    torchvision pins its torch, by which pip finds it; torchaudio has torch's own number, and its last (2.11) takes any
    newer torch. What is there goes first: pip would keep one of the same number and of another build.
    """
    audio = name == "torchaudio"
    asks = _ASKS
    if audio:
        asks += "; v = v if tuple(map(int, v.split('.')[:2])) < (2, 12) else '2.11.0'"
    version, tag = ("$v", "$t") if fixes.on_windows(facts) else ("$V", "$T")
    wanted = f'"torchaudio=={version}" --no-deps' if audio else f'torchvision "torch=={version}"'
    index = "" if facts.platform.system == "Darwin" else f" --index-url {WHEELS}/{tag}"
    remove, bring = fixes.uninstall(facts, name), f"python -m pip install {wanted}{index}   # {_NOTE}"
    if fixes.on_windows(facts):
        return f'$v, $t = (python -c "{asks}; print(v, t)").Split(); {remove}; {bring}'
    return f"eval $(python -c \"{asks}; print('V=' + v, 'T=' + t)\"); {remove}; {bring}"


def wants_other_cuda(facts: Facts) -> Optional[ErrorFact]:
    """A CUDA library that torchvision or torchaudio misses: it is of another torch than the one that is here."""
    error = facts.error("cudart-missing")
    return error if error is not None and error.values.get("importer") in COMPANIONS else None
