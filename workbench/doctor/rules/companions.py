"""torchvision, torchaudio and torchtext of the torch that is here, whose version the shell asks where none is told."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.tables import WHEELS
from workbench.doctor.versions import at_least, local_tag, release_of

COMPANIONS = ("torchvision", "torchaudio")

_ASKS = (
    "import torch; v, _, t = torch.__version__.partition('+'); c = torch.version.cuda; "
    "t = t or (c and 'cu' + ''.join(c.split('.')[:2])) or 'cpu'"
)
_NOTE = "the one of the torch that is here, which stays; where that is AMD's, NVIDIA's or conda's own: from there"


def for_this_torch(facts: Facts, name: str) -> str:
    """The command that brings the `name` of the torch that is here, from the index that its build came from.

    torchvision pins its torch, by which pip finds it; torchaudio has torch's own number (0.13.1 beside 1.13.1), and its
    last (2.11) takes any newer torch. What is there goes first: pip would keep one of the same number and of another
    build.
    """
    audio = name == "torchaudio"
    asks = _ASKS
    if audio:
        asks += "; v = v.replace('1.', '0.', 1) if v < '2' else v"
        asks += "; v = v if tuple(map(int, v.split('.')[:2])) < (2, 12) else '2.11.0'"
    version, tag = ("$v", "$t") if fixes.on_windows(facts) else ("$V", "$T")
    wanted = f'"torchaudio=={version}" --no-deps' if audio else f'torchvision "torch=={version}"'
    index = "" if facts.platform.system == "Darwin" else f" --index-url {WHEELS}/{tag}"
    remove, bring = fixes.uninstall(facts, name), f"python -m pip install {wanted}{index}   # {_NOTE}"
    if fixes.on_windows(facts):
        return f'$v, $t = (python -c "{asks}; print(v, t)").Split(); {remove}; {bring}'
    return f"eval $(python -c \"{asks}; print('V=' + v, 'T=' + t)\"); {remove}; {bring}"


# From torch 1.4 on it counted along with torchvision: 0.14 is of torch 1.13, 0.15 of 2.0, and its last, 0.18, of 2.3
# (the table of https://github.com/pytorch/text#installation).
_LAST_FOR_TEXT = "torch==2.3.1 torchvision==0.18.1 torchtext==0.18.0"


def torchtext_steps(facts: Facts) -> tuple[str, ...]:
    """The torchtext of the torch that is here, or, since it ended, the last torch that has one."""
    torch = facts.torch.version
    without = f"{fixes.uninstall(facts, 'torchtext')}   # what only looks whether it is there does without"
    if torch is None:
        return (_torchtext_asked(facts), f"where that finds none, torch is newer than 2.3, torchtext's last: {without}")
    if at_least(torch, "2.4"):
        tag = local_tag(torch) or ""
        index = f"--index-url {WHEELS}/{'cpu' if tag == 'cpu' else 'cu118' if tag == 'cu118' else 'cu121'}"
        last = fixes.install(facts, *_LAST_FOR_TEXT.split(), options=index if tag else "")
        new_card = any(at_least(gpu.compute_capability, "10.0") for gpu in facts.gpus or ())
        steps = (without, f"or, for a program that needs it, the last torch that has one: {last}")
        return steps if new_card else (f"{last}   # torchtext ended with torch 2.3", f"or without it: {without}")
    major, minor = (release_of(torch, 2) or (1, 13))[:2]
    wanted = f"torchtext==0.{minor + (1 if major < 2 else 15)}.*"
    return (fixes.install(facts, wanted, options="--force-reinstall --no-deps"), f"or without it: {without}")


def _torchtext_asked(facts: Facts) -> str:
    asks = (
        "import torch; a, b = torch.__version__.split('.')[:2]; "
        "print('torchtext==0.%d.*' % (int(b) + (1 if int(a) < 2 else 15)))"
    )
    return f'{fixes.python_command(facts)} -m pip install --force-reinstall --no-deps "$(python -c "{asks}")"'


def wants_other_cuda(facts: Facts) -> Optional[ErrorFact]:
    """A CUDA library that torchvision or torchaudio misses: it is of another torch than the one that is here."""
    error = facts.error("cudart-missing")
    return error if error is not None and error.values.get("importer") in COMPANIONS else None
