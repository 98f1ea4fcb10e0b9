"""Rules that are nothing but a message with a fixed meaning: rows of a table. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Callable

from workbench.doctor import fixes, system_packages
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.parse.symptoms import message_of_symptom
from workbench.doctor.rules import hand_in, main_memory, media, offered, pip_sides, server_memory, wheel_files
from workbench.doctor.rules.building import ready_wheel
from workbench.doctor.rules.common import Result, seen
from workbench.doctor.tables import faults, message_of, table


def plain_messages(facts: Facts) -> Result:
    """Every fault of the table whose message was seen."""
    return _told(facts, weak=False)


def weak_messages(facts: Facts) -> list[Finding]:
    """The first of the faults that are only named where nothing else was found."""
    return _told(facts, weak=True)[:1]


def symptoms(facts: Facts) -> list[Finding]:
    """What is told without an error, where it has a usual cause; likely, not certain."""
    for row in table("symptoms")["symptom"]:
        error = facts.error(message_of_symptom(row.get("variant", row["id"])))
        if error is not None:
            likely = not row.get("instead_of_a_report")
            title = f"Likely: {_in_sentence(row['title'])}" if likely else row["title"]
            return [_finding(facts, {**row, "severity": "warning", "title": title}, error)]
    return []


_PROPER_NAMES = frozenset(("Windows", "Ollama", "Apple", "Intel", "Apple's", "Intel's", "Windows'", "Mac"))


def _in_sentence(title: str) -> str:
    """A title as it stands behind a colon: a name keeps its capital."""
    first = title.split()[0]
    return title if first in _PROPER_NAMES or first[1:] != first[1:].lower() else f"{title[0].lower()}{title[1:]}"


def _told(facts: Facts, weak: bool) -> list[Finding]:
    if not facts.errors:
        return []  # a sound machine need not wait for some hundred rows to be read
    rows = [row for row in faults() if bool(row.get("weak")) == weak]
    found = [(row, facts.error(message_of(row))) for row in rows]
    return [_finding(facts, row, error) for row, error in found if error is not None]


def _finding(facts: Facts, row: dict[str, Any], error: ErrorFact) -> Finding:
    return Finding(
        row["id"],
        row.get("severity", "error"),
        _filled(_title(facts, row), error),
        row["why"],
        seen(error),
        (*_first_steps(facts, row), *(_step(facts, _filled(step, error)) for step in _steps(facts, row, error))),
        row["source"],
        affects=tuple(row["affects"]),
        observed=True,
    )


def _title(facts: Facts, row: dict[str, Any]) -> str:
    if row["id"] == "host-memory-exhausted" and (told := main_memory.title(facts)):
        return told
    if row["id"] == "wsl-shows-no-gpu" and facts.platform.wsl_version == 1:
        return "WSL 1 has no GPU, and a container in it none"
    if row["id"] == "gpu-memory-not-free-at-start" and (told := server_memory.title(facts)):
        return told
    if row["id"] == "no-wheel-for-this-platform" and "weak" not in row and (told := wheel_files.no_wheel_title(facts)):
        return told
    on_mac = facts.platform.system == "Darwin"
    return str(row["mac_title"] if on_mac and "mac_title" in row else row["title"])


# What comes before a row's own steps, by what else is told.
_FIRST: dict[str, Callable[[Facts], tuple[str, ...]]] = {
    "host-memory-exhausted": main_memory.steps,
    "gpu-memory-not-free-at-start": server_memory.steps,
    "torchcodec-does-not-load": media.torchcodec_steps,
    "requirements-contradict": pip_sides.steps,
    "tls-interception": offered.trusting,
    "wsl-shows-no-gpu": lambda facts: hand_in.wsl_steps(facts)[:1] if facts.platform.wsl_version == 1 else (),
    "no-wheel-for-this-platform": wheel_files.no_wheel_steps,
}


def _first_steps(facts: Facts, row: dict[str, Any]) -> tuple[str, ...]:
    if row["id"] in _FIRST:
        return _FIRST[row["id"]](facts)
    wheel = ready_wheel(facts) if row.get("wheel_first") else ()
    return (*wheel, *(step for told, step in row.get("first_if", {}).items() if facts.error(told)))


def _steps(facts: Facts, row: dict[str, Any], error: ErrorFact) -> Sequence[str]:
    """The steps of a row for this machine, the closest first."""
    windows = fixes.on_windows(facts)
    # Docker on Windows runs inside WSL.
    in_wsl = bool(facts.platform.wsl or (windows and facts.platform.container))
    fits = {
        "named": bool(error.values.get("caller")),
        "own_program": facts.error("llama-cpp-own-program") is not None,
        "rented": facts.error("rented-machine") is not None,
        "kaggle": facts.platform.service == "kaggle",
        "kubernetes": facts.platform.container == "kubernetes",
        "wsl": in_wsl,
        "windows": windows,
        "mac": facts.platform.system == "Darwin",
        "fix": True,
    }
    chosen: Sequence[str] = next(row[kind] for kind, fitting in fits.items() if fitting and kind in row)
    return chosen


def _filled(text: str, error: ErrorFact) -> str:
    for name, value in error.values.items():
        text = text.replace(f"{{{name}}}", pip_name(value) if name == "caller" else value)
    # What the message does not tell: a version is left out, a name is for the reader to fill in.
    text = text.replace(" {version}", "").replace("{spec}", "")
    return re.sub(r"\{(package|module|name|kind|caller)\}", r"<\1>", text)


def _step(facts: Facts, step: str) -> str:
    command, mark, note = step.partition("   # ")
    word, _, rest = command.partition(" ")
    if word == "system":
        apt = [name for name in rest.split() if "=" not in name]
        others = dict(name.split("=", 1) for name in rest.split() if "=" in name)
        named = {tool: names.replace(",", " ") for tool, names in others.items()}
        return system_packages.install(facts, " ".join(apt), **named) + mark + note
    if word in ("install", "upgrade"):
        return fixes.install(facts, *rest.split(), upgrade=word == "upgrade") + mark + note
    if word == "export" and "=" not in rest:
        name, _, value = rest.partition(" ")
        return fixes.export(facts, name, value, note)
    return step


RULES = (plain_messages,)
