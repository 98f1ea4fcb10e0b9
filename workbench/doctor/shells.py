"""Steps that were written for a shell of Linux, as PowerShell, a Mac and a notebook take them. Stdlib only."""

from __future__ import annotations

import re
from typing import Callable, Union

_VALUE = r"(?:'[^']*'|\"[^\"$]*\"|(?:[^\s;&|,)$'\"<>`]|,(?=\S)|<[^>]*>)+)"
_SETTING = rf"[A-Z][A-Z_\d]+={_VALUE}"
_EVENTS = 'Get-WinEvent -MaxEvents 20 -FilterHashtable @{{LogName="System"; ProviderName="{}"}}'


def _set(found: re.Match[str]) -> str:
    settings = re.findall(rf"([A-Z][A-Z_\d]+)=({_VALUE})", found["settings"])
    words = []
    for name, value in settings:
        bare = value.strip("'\"")
        words.append(f'$env:{name} = "{bare}"')
    return "; ".join(words)


def _set_before(found: re.Match[str]) -> str:
    return f"{_set(found)}; "


def _unset(found: re.Match[str]) -> str:
    return f"Remove-Item {', '.join(f'Env:{name}' for name in found['names'].split())}"


_KEPT_ELSEWHERE = {
    "~/.cache/torch_extensions": r"$env:LOCALAPPDATA\torch_extensions",
    "~/.nv/ComputeCache": r"$env:APPDATA\NVIDIA\ComputeCache",
}


def _removed(found: re.Match[str]) -> str:
    paths = [_KEPT_ELSEWHERE.get(path, path) for path in found["paths"].split()]
    return f"Remove-Item -Recurse -Force {', '.join(paths)}"


def _searched(found: re.Match[str]) -> str:
    options = found["options"]
    after, count = re.search(r"-A(\d+)", options), re.search(r"-m(\d+)", options)
    flags = f"{' -NotMatch' if '-v' in options else ''}{f' -Context 0,{after[1]}' if after else ''}"
    return f"| Select-String{flags} {found['pattern']}" + (f" | Select-Object -First {count[1]}" if count else "")


_END = {"head": "First", "tail": "Last"}


def _some_lines(found: re.Match[str]) -> str:
    return f"| Select-Object -{_END[found['end']]} {found['count'] or 10}"


def _activated(found: re.Match[str]) -> str:
    folder = found["folder"].replace("~", "$HOME", 1).replace("/", "\\")
    return f"{folder}\\Scripts\\activate"


def _in_double_quotes(found: re.Match[str]) -> str:
    # cmd knows no single quotes, and takes a < behind one for a file to read.
    return re.sub(r"(?<![\w'])'([\w.\[\],<>=!~*+-]+)'", r'"\1"', found["words"])


_PIP_WORDS = re.compile(r"(?<=pip install )(?P<words>[^;&#]*)")


def for_any(steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` of a fix for a system that is not told: their requirements in the quotes that every shell knows."""
    return tuple(_PIP_WORDS.sub(_in_double_quotes, step) for step in steps)


# What Unix says, and what PowerShell says in its place; each is tried in turn.
_WORDS: tuple[tuple[str, Union[str, Callable[[re.Match[str]], str]]], ...] = (
    (r"\bexport PATH=(?P<folder>[^\s:;&|$]+|<[^>]*>):\$PATH", r'$env:Path = "\g<folder>;$env:Path"'),
    (rf"\bexport (?P<settings>{_SETTING}(?: {_SETTING})*)(?=[\s;&|,).]|$)", _set),
    (rf"(?:^|(?<=[:;] )|(?<=&& ))(?P<settings>{_SETTING}(?: {_SETTING})*) (?!and )(?=[a-z<./])", _set_before),
    (r"\bunset (?P<names>[A-Z][A-Z_\d]+(?: [A-Z][A-Z_\d]+)*)", _unset),
    (r"(?<=\becho )\$(?=[A-Z])", "$env:"),
    (r"\brm -rf (?P<paths>~/[^\s;&]+(?: ~/[^\s;&]+)*)", _removed),
    (r"\b(?:sudo )?dmesg\b[^;#]*?\bxid\b[^;#]*?(?=;|$)", _EVENTS.format("nvlddmkm")),
    (
        r"\b(?:sudo )?dmesg\b[^;#]*?(?:oom|out of memory|killed)[^;#]*?(?=;|$)",
        _EVENTS.format("Microsoft-Windows-Resource-Exhaustion-Detector"),
    ),
    (r"\bfree -h\b", "Get-CimInstance Win32_OperatingSystem | Select-Object FreePhysicalMemory, FreeVirtualMemory"),
    (r"\bdf -h(?: (?:<[^>]*>|[~.\w/][\w./-]*))*", "Get-PSDrive -PSProvider FileSystem"),
    (r"\| grep (?P<options>(?:-(?:[iEvFn]+|[Am]\d+) )*)(?P<pattern>'[^']*'|\w[\w.-]*)", _searched),
    (r"\| (?P<end>head|tail)\b(?: -(?P<count>\d+))?", _some_lines),
    (r"(?:^|(?<=; )|(?<=: )|(?<=&& ))which (?:-a )?(?=[a-z])", "where.exe "),
    (r"\bcurl (?=-)", "curl.exe "),
    (r"\bls -l[aL]? (?=<)", "dir "),
    (r"\bsource (?P<folder>[~.\w<>][\w./<> -]*?)/bin/activate", _activated),
    (r"\bpython3 (?=-m venv)", "python "),
    (r"\bmkdir -p ", "mkdir "),
    (_PIP_WORDS.pattern, _in_double_quotes),
    (r"\bsudo reboot\b", "Restart-Computer"),
    (r"\bsudo (?=nvidia-smi\b|python\b|pip\b|docker\b)", ""),
)
_PATTERNS = tuple((re.compile(pattern), words) for pattern, words in _WORDS)
_NOTED = (_PATTERNS[1], _PATTERNS[3])
_OF_UNIX = re.compile(
    r"\bsudo |\b(?:apt|dnf|pacman|zypper) |\b(?:ldconfig|dmesg|modprobe|rmmod|lspci|systemctl|journalctl|ulimit|chmod"
    r"|chown|fuser|readelf|rocminfo|numactl|sha256sum) |\bfind /|/(?:dev|etc|usr|opt|proc|sys|tmp)\b|\bexport \w+="
    r"|\bunset [A-Z]|\bsource [~.\w-]*/|\$\(|\bln -s|\bls -|\bgrep |\brm -rf|\bps aux|\benv \||\| sh\b|\bhead -|\bdf -"
    r"|\bLD_(?:LIBRARY_PATH|PRELOAD)\b|\bGLIBC_|\bbrew "
)
# What says by itself where it holds stays as it is.
_PLACE = re.compile(r"\b(?:Linux|WSL|[Cc]ontainer|image|machine|node)\b|(?<![-.\w])host\b")
_INTO_WSL = re.compile(r"wsl |in it: |[^#]*# inside WSL")
_SENTENCE = re.compile(r"[A-Z][\w']* ")


def for_powershell(steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` of a fix for Windows: in PowerShell's words, and last, as Linux's, what has none there.

    Where no step is one for Windows, or one goes into WSL, they are left as they are.
    """
    if any(_INTO_WSL.match(step) for step in steps):
        return steps
    return _foreign_last(steps, tuple(_put(step) for step in steps), _OF_UNIX)


_WORDS_OF_MAC = (
    (
        re.compile(r"\b(?:sudo )?dmesg\b[^;#]*?(?:oom|out of memory|killed)[^;#]*?(?=;|$)"),
        "log show --last 1h --predicate 'eventMessage CONTAINS \"memorystatus\"' | tail -3",
    ),
    (re.compile(r"\bfree -h\b"), "sysctl -n hw.memsize; memory_pressure | tail -1"),
    (re.compile(r"~/\.bashrc(?! or ~/\.zshrc)"), "~/.zshrc"),
)
_OF_LINUX = re.compile(
    r"\b(?:apt|dnf|pacman|zypper) |\b(?:ldconfig|dmesg|modprobe|rmmod|lspci|systemctl|journalctl|rocminfo|numactl"
    r"|mokutil|dkms|update-grub|ubuntu-drivers|nvidia-ctk)\b|/etc/(?:systemd|docker|modprobe|default)"
    r"|/(?:proc|sys)/|\bfree -h"
)


def for_micromamba(steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` of a fix for an environment that micromamba made, beside which there is no conda."""
    return tuple(
        re.sub(r"(?<![\w./-])conda (?=(?:install|remove|activate|create|env) )", "micromamba ", step) for step in steps
    )


def for_mac(steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` of a fix for a Mac: with its own programs, and last, as Linux's, what has none there."""
    put = []
    for step in steps:
        command, mark, note = step.partition("   # ")
        for pattern, words in _WORDS_OF_MAC:
            command = command if _PLACE.search(command) else pattern.sub(words, command)
        put.append(command + mark + note)
    return _foreign_last(steps, tuple(put), _OF_LINUX)


_COMMAND = re.compile(
    r"(?P<before>(?:or: |or, [^:#]{1,80}: )?)(?P<command>(?:apt-get|cat|command|curl|df|du|env|find|free|git|grep|head"
    r"|hf|huggingface-cli|ldconfig|ls|nvcc|nvidia-smi|pip3?|ps|python3?|rm|sudo|uv|wget|which)(?: .*|$))"
)
_PIP = re.compile(r"(?:python3? -m )?(?P<pip>pip3? (?:install|uninstall) [^;&|]*)")
_EXPORT = re.compile(rf"(?P<before>(?:or: |or, [^:#]{{1,80}}: )?)export (?P<settings>{_SETTING}(?: {_SETTING})*)")
_QUOTES = "'\""
_UNSET = re.compile(r"(?P<before>(?:or: )?)unset (?P<names>[A-Z][A-Z_\d]+(?: [A-Z][A-Z_\d]+)*)")


def for_notebook(steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` as the cells of a notebook take them: each ``!`` is a shell of its own, which keeps no variable."""
    if any(step.startswith("eval ") for step in steps):
        return ("%%bash   # the first line of a cell, and what follows in the same cell", *steps)
    return tuple(_as_cell(step) for step in steps)


def _as_cell(step: str) -> str:
    command, mark, note = step.partition("   # ")
    export, unset, typed = _EXPORT.fullmatch(command), _UNSET.fullmatch(command), _COMMAND.fullmatch(command)
    if export and "PATH=" not in command:
        settings = re.findall(rf"([A-Z][A-Z_\d]+)=({_VALUE})", export["settings"])
        words = ", ".join(f'{name}="{value.strip(_QUOTES)}"' for name, value in settings)
        return f"{export['before']}import os; os.environ.update({words}){mark}{note}"
    if unset and "PATH" not in command:
        words = "; ".join(f'os.environ.pop("{name}", None)' for name in unset["names"].split())
        return f"{unset['before']}import os; {words}{mark}{note}"
    if typed is None:
        return step
    if re.fullmatch(r"(?:hf auth|huggingface-cli) login", typed["command"]):
        return f"{typed['before']}from huggingface_hub import notebook_login; notebook_login(){mark}{note}"
    pip = _PIP.fullmatch(typed["command"])
    return typed["before"] + (f"%{pip['pip']}" if pip else f"!{typed['command']}") + mark + note


def _foreign_last(steps: tuple[str, ...], put: tuple[str, ...], of_others: re.Pattern[str]) -> tuple[str, ...]:
    """`put`, what `steps` have become, with those that are still of another system behind the rest, and marked so."""
    foreign = {number for number, step in enumerate(put) if _is_foreign(step, of_others)}
    if len(foreign) == len(put):
        return steps
    here = (step for number, step in enumerate(put) if number not in foreign)
    return (*here, *(f"On Linux: {re.sub('^or:? ', '', steps[number])}" for number in sorted(foreign)))


def _put(step: str) -> str:
    command, mark, note = step.partition("   # ")
    put = command
    for pattern, words in _PATTERNS:
        put = pattern.sub(words, put)
    if _PLACE.search(command) or _OF_UNIX.search(put):
        return step
    for pattern, words in _NOTED:
        note = pattern.sub(words, note)
    if "sudo nvidia-smi" in command:
        mark, note = "   # ", "in a terminal as administrator" + (f"; {note}" if note else "")
    if put != command:
        # A program gets the ~ as it stands: only Unix' shells put the home folder in its place.
        put = re.sub(r"(?<![\w/])~/", "$HOME/", put.replace(" && ", "; "))
    return put + mark + note


def _is_foreign(step: str, of_others: re.Pattern[str]) -> bool:
    command = step.partition("   # ")[0]
    return bool(of_others.search(command)) and not _PLACE.search(command) and not _SENTENCE.match(command)
