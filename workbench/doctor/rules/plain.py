"""Rules that are nothing but a message with a fixed meaning: rows of a table. Needs the tables."""

from __future__ import annotations

import re
from typing import Any

from workbench.doctor import fixes, system_packages
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.parse.symptoms import message_of_symptom
from workbench.doctor.rules import main_memory, pip_sides
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
    rows = [row for row in faults() if bool(row.get("weak")) == weak]
    found = [(row, facts.error(message_of(row))) for row in rows]
    return [_finding(facts, row, error) for row, error in found if error is not None]


def _finding(facts: Facts, row: dict[str, Any], error: ErrorFact) -> Finding:
    steps = row.get("windows", row["fix"]) if fixes.on_windows(facts) else row["fix"]
    # Docker on Windows runs inside WSL.
    if "wsl" in row and (facts.platform.wsl or (fixes.on_windows(facts) and facts.platform.container)):
        steps = row["wsl"]
    first = ready_wheel(facts) if row.get("wheel_first") else ()
    first += tuple(step for told, step in row.get("first_if", {}).items() if facts.error(told))
    if row["id"] == "host-memory-exhausted":
        first = main_memory.steps(facts)
    if row["id"] == "requirements-contradict":
        first = pip_sides.steps(facts)
    if "rented" in row and facts.error("rented-machine"):
        steps = row["rented"]
    if "named" in row and error.values.get("caller"):
        steps = row["named"]
    return Finding(
        row["id"],
        row.get("severity", "error"),
        _filled(row["title"], error),
        row["why"],
        seen(error),
        (*first, *(_step(facts, _filled(step, error)) for step in steps)),
        row["source"],
        affects=tuple(row["affects"]),
        observed=True,
    )


def _filled(text: str, error: ErrorFact) -> str:
    for name, value in error.values.items():
        text = text.replace(f"{{{name}}}", pip_name(value) if name == "caller" else value)
    # What the message does not tell: a version is left out, a name is for the reader to fill in.
    return re.sub(r"\{(package|module|name|kind|caller)\}", r"<\1>", text.replace(" {version}", ""))


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
