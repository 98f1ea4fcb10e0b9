"""The steps of a fix, carried out as they stand, as far as they are commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.fix_places import Place

HOME = "/home/user"
"""How the folder of a case is called in a report."""
_BEFORE = re.compile(r"(?:or|[A-Z][^:]{0,80}): ")
_PIP = re.compile(r"(?:python -m )?(?:uv )?pip3? (?P<verb>install|uninstall) (?P<words>.*)")
_CALLED = re.compile(r"\$\(python -c \"(?P<code>[^\"]+)\"\)")


def carried_out(fix: tuple[str, ...], do: Callable[[str], bool], works: Callable[[], bool]) -> bool:
    """Whether the steps of a fix, without those that are named as another way, make it work.

    Args:
        fix: commands, or steps in words.
        do: does one step, without the remark behind it; False where it is none that can be done here.
        works: whether what failed does no more.
    """
    for number, step in enumerate(fix):
        command = step.split("   # ")[0]
        if not (number and re.match(r"or\b", command)) and do(command) and works():
            return True
    return False


def do_in(place: Place, command: str) -> bool:
    """Do one step in an environment; False where it is none that can be done here."""
    command = _CALLED.sub(lambda call: place.answer(call["code"]), _BEFORE.sub("", command, count=1))
    pip = _PIP.match(command)
    name, *words = command.split()
    if pip:
        place.pip(pip["verb"], shlex.split(pip["words"]))
    elif name == "mv" and len(words) == 2:
        _moved(place, *(_inside(place, word) for word in words))
    elif name == "unset":
        for word in words:
            place.environment.pop(word, None)
    elif name == "export":
        place.environment.update([words[0].split("=", 1)])
    else:
        return False
    return True


def _moved(place: Place, source: Path, target: Path) -> None:
    if source.exists():
        source.rename(target)
        place.script = target.name if source.name == place.script else place.script


def _inside(place: Place, word: str) -> Path:
    """A path of a fix as it is here; one outside the folder of the case is refused."""
    path = (place.folder / word.replace(HOME, str(place.folder)).replace("~/", f"{place.folder}/")).absolute()
    if place.folder not in path.parents:
        raise ValueError(f"{word} is not in {place.folder}")
    return path
