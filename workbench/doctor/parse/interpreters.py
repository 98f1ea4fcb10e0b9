"""The environment that the paths of a traceback lie in: a venv, a program's own Python, pipx, Nix. Stdlib only."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Sequence

from workbench.doctor.parse.draft import Draft

_MAX_LINE = 600
_MAX_PATHS = 400
# What stands before it is the environment; blanks are taken in a path of Windows only, where they are common.
_SITE = re.compile(
    r"(?<![\w>.}])(?P<prefix>(?:[A-Za-z]:\\[^\"'<>|:*?\n]{0,200}?|(?:~|\.{0,2})[/\\]?(?:[\w.@+~-]{1,80}[/\\]){0,14}[\w.@+~-]{1,80}))"
    r"[/\\]lib(?:64)?[/\\](?:python3\.\d{1,2}[/\\])?(?:site|dist)-packages[/\\]",
    re.IGNORECASE,
)
# A path of Windows as Python's WindowsPath and some programs write it.
_WITH_SLASHES = re.compile(r"(?<![A-Za-z])[A-Za-z]:/(?!/)[^\s\"'<>|:*?]{1,300}")
_PYTHON_OF_UV = re.compile(r"[/\\]uv[/\\]python[/\\]cpython-3|^\W{0,4}Using C?Python 3[\d.]{1,8} environment at: ")
_OF_WINDOWS = re.compile(r"\\Lib\\site-packages\\", re.IGNORECASE)
_VENV = re.compile(r"\.?(?:[\w-]*v(?:irtual)?env[\w.-]*|env)", re.IGNORECASE)
# Programs that bring a Python along: ComfyUI's portable edition, launchers, one-click installers.
_PORTABLE = re.compile(
    r"(?:python[\w.-]*embed\w*|python_(?:standalone|env)|py(?:thon)?3\d{1,2}|python_?\d{0,3}|system|runtime"
    r"|installer_files[/\\]env)",
    re.I,
)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the environment that most of the paths lie in, where nothing else has told what it is."""
    if draft.python.get("kind") is not None:
        return
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in itertools.islice((line for line in lines if "-packages" in line), _MAX_PATHS):
        # In JSON each backslash of a path is written twice.
        prefixes = _prefixes(_WITH_SLASHES.sub(_of_windows, line[:_MAX_LINE].replace("\\\\", "\\")))
        seen.update((kind, prefix) for prefix in prefixes if (kind := _kind(prefix)))
    if not seen:
        draft.put(
            draft.python,
            **(
                _named_python(lines)
                or _portable_python(lines)
                or _packed_python(lines)
                or _compiled_python(lines)
                or _pipx_python(lines)
                or _programs_python(lines)
            ),
        )
    else:
        kind, prefix = seen.most_common(1)[0][0]
        draft.put(draft.python, kind=_venv_of(lines) if kind == "venv" else kind, prefix=prefix)
        draft.put(draft.platform, system="Windows" if any(map(_OF_WINDOWS.search, lines)) else None)


def _venv_of(lines: Sequence[str]) -> str:
    """The kind of a venv here: one that uv made has no pip in it."""
    return "uv" if any(map(_PYTHON_OF_UV.search, lines)) else "venv"


# What programs say of the environment that they start with or make: the first line of stable-diffusion-webui's
# webui.bat and of what descends from it, ComfyUI-Manager's "Python executable", virtualenv's account of a new one.
_STARTED = re.compile(
    r'^\s{0,4}venv "(?P<webui>[A-Za-z]:\\[^"<>|:*?\n]{1,200}?)\\Scripts\\python\.exe"'
    r"|\bPython executable: (?:[\d:. T-]{10,30} - +)*"
    r"(?P<shown>(?:[A-Za-z]:\\[^\"'<>|:*?\n]{1,200}?|/[\w.@+/ -]{1,200}?))[/\\](?:Scripts|bin)[/\\]python"
    r"|\bcreator CPython3\w{0,10}\(dest=(?P<made>[^,\n]{2,200}),",
    re.IGNORECASE,
)


def _named_python(lines: Sequence[str]) -> dict[str, str]:
    """The environment that a program says it starts with, where no path of a package names one."""
    for found in filter(None, map(_STARTED.search, itertools.islice(lines, _MAX_PATHS))):
        prefix = found["webui"] or found["made"] or found["shown"]
        if _kind(prefix) == "venv":
            return {"kind": _venv_of(lines), "prefix": prefix}
    return {}


# Programs whose installer makes an environment in their own folder: what Stability Matrix installs (its
# BaseGitPackage: <library>/Packages/<program>/venv), stable-diffusion-webui's webui.bat and webui.sh, kohya_ss's setup.
_INSTALLED_BY = re.compile(
    r"(?P<folder>(?:[A-Za-z]:\\[^\"'<>|:*?\n]{0,200}?|/[\w.@+-]{1,60}(?:/[\w.@+ -]{1,60}){0,8}?)"
    r"[/\\](?:Data[/\\]Packages[/\\][\w. -]{1,60}?|(?:stable-diffusion-webui[\w.-]{0,30}|kohya_ss)(?=[/\\]\w)))"
    r"(?=[/\\])"
)
# Only where these lie on somebody's own disk: in an image, and on a notebook's machine, they have no environment.
_OWN_DISK = re.compile(r"[A-Za-z]:\\|/home/|/Users/|/mnt/|/opt/")


def _programs_python(lines: Sequence[str]) -> dict[str, str]:
    """The environment in the folder of a program that always has one there, where no package's path tells another."""
    told = [
        line[:_MAX_LINE] for line in itertools.islice((x for x in lines if "ackages" in x or "File " in x), _MAX_PATHS)
    ]
    if any("-packages" in line for line in told):
        return {}
    for found in filter(None, map(_INSTALLED_BY.search, told)):
        folder = found["folder"]
        if _OWN_DISK.match(folder) or re.search(r"[/\\]Data[/\\]Packages[/\\]", folder):
            return {"kind": _venv_of(lines), "prefix": folder + ("\\" if "\\" in folder else "/") + "venv"}
    return {}


# Programs for Windows that bring a Python along, as it is called, and as a prompt in their folder names them.
_CALLED = re.compile(
    r"(?<![\w\\])(?P<prefix>(?:[A-Za-z]:\\[^\"'<>|:*?\n]{0,200}?|\.|[\w.-]{1,60})\\python_(?:embed\w{0,4}|standalone|env))"
    r"\\(?:python\.exe|Lib\\)"
)
_PORTABLE_FOLDER = re.compile(
    r"^\s{0,4}(?P<folder>[A-Za-z]:\\[^\"'<>|:*?\n]{0,200}?ComfyUI_windows_portable(?!\w))(?:[\\>]|$)"
    # and as a path of the program's own files does
    r"|(?P<inside>[A-Za-z]:\\[^\"'<>|:*?\n]{0,200}?ComfyUI_windows_portable)(?=\\ComfyUI\\)"
    r"|(?P<system>[A-Za-z]:\\(?:[^\"'<>|:*?\n]{0,200}?\\)?(?:sd\.webui|webui_forge_\w{2,30}))(?=\\webui\\)",
    re.IGNORECASE,
)


def _portable_python(lines: Sequence[str]) -> dict[str, str]:
    """The Python that a program for Windows brought along, where no path of a package names it."""
    called = [line[:_MAX_LINE] for line in itertools.islice((x for x in lines if "python_" in x), _MAX_PATHS)]
    prefixes = [found["prefix"] for found in map(_CALLED.search, called) if found]
    if prefixes:  # a whole path before one that holds in the program's folder only
        return {"kind": "portable", "prefix": max(prefixes, key=lambda prefix: ":" in prefix)}
    marks = ("windows_portable", "sd.webui\\", "webui_forge_")
    told = (line[:_MAX_LINE] for line in lines if any(mark in line.lower() for mark in marks))
    for found in filter(None, map(_PORTABLE_FOLDER.search, itertools.islice(told, _MAX_PATHS))):
        if found["system"]:
            return {"kind": "portable", "prefix": found["system"] + r"\system\python"}
        return {"kind": "portable", "prefix": (found["folder"] or found["inside"]) + r"\python_embeded"}
    return {}


# PyInstaller's programs show the paths of modules without a folder above them, or the one that they unpack into.
_PACKED = re.compile(
    r"[/\\]_MEI\d{4,8}[/\\]|[/\\]_internal[/\\](?:torch|transformers|numpy)[/\\]"
    r"|(?:^|(?<=[\s`]))torch[/\\](?:\w{1,30}[/\\]){0,4}\w{1,30}\.py:\d{1,5}: \w*Warning"
    r"|File \"(?:torch|transformers)\\(?:\w{1,30}\\){0,4}\w{1,30}\.py\", line \d"
)


def _packed_python(lines: Sequence[str]) -> dict[str, str]:
    """A program that was packed together with its Python and torch: no pip reaches into it."""
    found = any(
        _PACKED.search(line[:_MAX_LINE])
        for line in itertools.islice((x for x in lines if "torch" in x or "_MEI" in x or "_internal" in x), _MAX_PATHS)
    )
    return {"kind": "packed"} if found else {}


def _of_windows(path: re.Match[str]) -> str:
    return path[0].replace("/", "\\")


# Debian's own pip would say dist-packages: a Python that was compiled there, as in Docker's images called python.
_COMPILED = re.compile(r"(?<![\w.~/])/usr/local/lib/python3\.\d{1,2}/site-packages/")


def _compiled_python(lines: Sequence[str]) -> dict[str, str]:
    """The place of a Python that no distribution packaged, headers and all."""
    found = any(_COMPILED.search(line[:_MAX_LINE]) for line in itertools.islice(lines, _MAX_PATHS))
    return {"prefix": "/usr/local"} if found else {}


_PIPX = re.compile(
    r"(?:^|[`$>] ?)pipx (?:install|upgrade|reinstall) (?:-{1,2}\w\S{0,40} ){0,4}(?P<name>[a-z][\w.-]{1,60})"
)


def _pipx_python(lines: Sequence[str]) -> dict[str, str]:
    """The environment that pipx made of its own for a program, by the command that installed it."""
    called = itertools.islice((line[:_MAX_LINE] for line in lines if "pipx " in line), _MAX_PATHS)
    found = next(filter(None, map(_PIPX.search, called)), None)
    return {"kind": "pipx", "prefix": f"pipx/venvs/{found['name']}"} if found else {}


def _prefixes(line: str) -> set[str]:
    # A path that somebody has shortened begins with a separator.
    return {found["prefix"].lstrip("\\") for found in _SITE.finditer(line[:_MAX_LINE])}


def _kind(prefix: str) -> str:
    """``venv``, ``portable``, ``pipx``, ``uv`` or ``nix``; ``""`` for what cannot be told."""
    *above, name = re.split(r"[/\\]", prefix)
    folders = [folder.lower() for folder in above]
    if "..." in folders:
        return ""
    if folders[-2:] == ["pipx", "venvs"]:
        return "pipx"
    if folders[-2:] == ["uv", "tools"]:  # of ``uv tool install``
        return "uv"
    if folders[:3] == ["", "nix", "store"]:
        return "nix"
    windows = bool(re.match(r"[A-Za-z]:\\", prefix))
    # Python's own installer for Windows puts it there.
    standard = any(folder in ("programs", "program files", "windowsapps", "appdata", "roaming") for folder in folders)
    if _VENV.fullmatch(name) and not {"envs", "pipx"} & set(folders[-1:]):
        # An environment of conda in a program's folder: it has no script that activates it.
        return "portable" if folders[-1:] == ["installer_files"] else "venv"
    if windows and above[1:] and not standard and _PORTABLE.fullmatch(name):
        return "portable"
    return ""
