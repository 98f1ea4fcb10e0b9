"""Install commands as they were typed: with which tool, and what was asked for. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.doctor.parse.draft import Draft
from workbench.doctor.versions import normalize

_COMMAND = re.compile(
    r"(?:^|[\s$#>❯%`'\"(])"
    r"(?:(?P<uv>uv)|(?P<poetry>poetry)|(?P<pipx>pipx)|(?:python[\d.]{0,5}|py)(?:\.exe)? -m pip|pip3?(?:\.\d{1,2})?)"
    r" (?P<verb>pip install|install|add|sync|run|wheel)(?P<rest>(?: [^\n`]{0,400})?)"
)
# uv's own words, and the folders in which it builds.
_UV = re.compile(
    r"^\s{0,4}(?:Resolved|Prepared|Audited) \d{1,4} packages? in |^\s{0,4}Using (?:CPython|Python) 3\.\d{1,2}"
    r"|[\\/]builds-v0[\\/]|[\\/]environments-v\d[\\/]|[\\/]\.cache[\\/]uv[\\/]|Caches/uv/|\\uv\\cache\\"
    r"|├─▶ (?:The build backend|Call to|Failed to build)|hint: This usually indicates a problem with the package"
)
_TAKES_VALUE = frozenset(
    [
        "-i",
        "--index-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "-c",
        "--constraint",
        "-t",
        "--target",
        "--prefix",
        "--python",
        "-p",
        "--proxy",
        "--timeout",
        "--trusted-host",
        "-C",
        "--config-settings",
        "--global-option",
        "--index",
        "--default-timeout",
        "--group",
        "--extra",
    ]
)
# A project whose file of requirements is the tool's own, and wins over what pip puts beside it.
_UV_PROJECT = re.compile(r"(?<![\w./-])uv (?:sync|add|lock|run)\b|\[tool\.uv[.\]]|\buv\.lock\b")
_POETRY_PROJECT = re.compile(
    r"(?<![\w./-])poetry (?:add|install|lock|update|run)\b|\[\[?tool\.poetry[.\]]|\bpoetry\.lock\b"
)
_PAIRS = {"-e": "-e", "--editable": "-e", "-r": "-r", "--requirement": "-r"}
_SPEC = re.compile(r"[A-Za-z][\w.-]{1,60}(?:\[[\w,-]{1,60}\])?(?:[<>=!~@].{0,80})?")
_GIT = re.compile(r"(?:git\+)?(?:https?|ssh|git)://\S{1,200}?/(?P<name>[\w.-]{2,60}?)(?:\.git)?/?(?:[@#]\S{0,120})?")


@dataclass(frozen=True)
class Install:
    """One command that installs."""

    tool: str
    """``pip``, ``uv pip``, ``uv`` (a project), ``poetry`` or ``pipx``."""
    verb: str
    targets: tuple[str, ...]
    """Requirements as typed: ``flash-attn==2.5``, ``.``, ``-e ./lib``, ``-r requirements.txt``, ``git+https://…``."""

    def target_of(self, package: str) -> Optional[str]:
        """What brought `package`: the target of that name, else the only one there is."""
        named = next((target for target in self.targets if name_of(target) == package), None)
        return named or (self.targets[0] if len(self.targets) == 1 else None)


def name_of(target: str) -> str:
    """Normalised name of the package that a target names; empty for ``.`` and files of requirements."""
    word = target.removeprefix("-e ")
    if word.startswith("-r "):
        return ""
    named = _GIT.fullmatch(word.partition(" @ ")[2] or word)
    if named:
        return normalize(named["name"])
    if "/" in word or "\\" in word:
        last = re.split(r"[/\\]", word.rstrip("/\\"))[-1]
        return normalize(last) if re.fullmatch(r"[A-Za-z][\w.-]{1,60}", last) and not last.endswith(".whl") else ""
    spec = re.match(r"[A-Za-z][\w.-]{1,60}", word)
    return normalize(spec[0]) if spec else ""


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the tool that keeps the environment, where the paste shows it at work."""
    short = [line for line in lines if len(line) <= 400]
    for name, project in (("uv", _UV_PROJECT), ("poetry", _POETRY_PROJECT)):
        if any(name in line and project.search(line) for line in short):
            draft.saw(f"{name} project")
            draft.put(draft.python, kind=name)
            return


def uses_uv(lines: Sequence[str]) -> bool:
    """Whether uv wrote some of these lines."""
    return any(_UV.search(line[:600]) for line in lines)


def last_install(lines: Sequence[str]) -> Optional[Install]:
    """The last command among `lines` that installs something."""
    for line in reversed(lines):
        found = list(_COMMAND.finditer(line[:1000]))
        if found and (install := _read(found[-1])) is not None:
            return install
    return None


def _read(match: re.Match[str]) -> Optional[Install]:
    command = re.split(r"\s(?:&&|\|\||\||;|#|>|2>)(?:\s|$)", match["rest"] or "")[0]
    words = [word.strip("'\"") for word in command.split()]
    if match["uv"]:
        tool = "uv pip" if match["verb"] == "pip install" else "uv"
    else:
        tool = "poetry" if match["poetry"] else "pipx" if match["pipx"] else "pip"
    if tool in ("pip", "uv pip") and match["verb"] not in ("pip install", "install", "wheel"):
        return None
    targets = tuple(_targets(words))
    return Install(tool, match["verb"], targets) if targets or tool in ("uv", "poetry") else None


def _targets(words: Sequence[str]) -> list[str]:
    result, rest = [], iter(words[:60])
    for word in rest:
        if word in _PAIRS:
            value = next(rest, "")
            result += [f"{_PAIRS[word]} {value}"] if value else []
        elif word in _TAKES_VALUE:
            next(rest, None)
        elif word.startswith("-"):
            continue
        elif _is_target(word):
            result.append(word)
        else:
            break  # prose goes on after the command
    return result


def _is_target(word: str) -> bool:
    local = word == "." or word.startswith(("./", "../", "/", ".["))
    return local or bool(_GIT.fullmatch(word) or _SPEC.fullmatch(word))
