"""Commands that install packages of the system, with the tool of the distribution at hand. Stdlib only."""

from __future__ import annotations

import re

from workbench.doctor.facts import Facts

_TOOLS = (
    ("sudo pacman -S", re.compile(r"\b(?:arch(?: ?linux)?|manjaro|endeavour\w*|cachyos|garuda)\b", re.I)),
    (
        "sudo dnf install",
        re.compile(r"\b(?:fedora|red hat|rhel|rocky|alma\w*|centos|oracle|amazon linux|nobara|bazzite)\b", re.I),
    ),
    ("sudo zypper install", re.compile(r"\b(?:open)?suse\b|\bsles\b", re.I)),
)
DISTRIBUTIONS = tuple(pattern for _, pattern in _TOOLS)


def install(facts: Facts, apt: str, dnf: str = "", pacman: str = "", zypper: str = "") -> str:
    """The command that installs packages of the system; that of Debian and Ubuntu where nothing says which it is."""
    named = " ".join(filter(None, (facts.platform.os, facts.platform.kernel)))
    tool = next((tool for tool, pattern in _TOOLS if pattern.search(named)), "sudo apt install")
    names = {"sudo pacman -S": pacman, "sudo dnf install": dnf, "sudo zypper install": zypper or dnf}.get(tool, apt)
    return f"{tool} {names or apt}"
