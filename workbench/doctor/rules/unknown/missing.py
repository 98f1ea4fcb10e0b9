"""A package that is missing, or older than the program asks for. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import PYTHON, change_of, installed_version, pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.unknown.apart import changed
from workbench.doctor.rules.unknown.packages import known_imports, may_install
from workbench.doctor.versions import normalize, satisfies

_REQUIRED = re.compile(
    r"\b(?P<package>[A-Za-z][\w-]{1,40}) with minimum required version (?P<minimum>\d[\w.]{0,20}) is not installed"
    r"|incompatible version of (?P<found>[A-Za-z][\w-]{1,40})\. Found version [\w.]{1,20}, but only versions above "
    r"(?P<above>\d[\w.]{0,20}(?<!\.))"
    r"|(?:[Rr]equires?|[Nn]eeds?|[Pp]lease (?:install|upgrade(?: to)?)) (?:the )?[`'\"]?"
    r"(?P<asked>[A-Za-z][\w-]{1,40})[`'\"]? ?\(?(?P<spec>(?:>=|==|~=|<=?|>) ?\d[\w.]{0,20}(?<!\.))"
)

_DISTRIBUTION = re.compile(
    r"The '(?P<package>[A-Za-z][\w.-]{1,40}?)(?:\[[\w,]{1,40}\])?"
    r"(?P<spec>(?:(?:[<>=!~]=?|===) ?\d[\w.*]{0,20},? ?){0,8})' "
    r"distribution was not found and is required by (?P<by>[\w.-]{2,40})"
)
_MISSING = re.compile(r"No module named '?(?P<module>\w{1,60})'?(?![\w.])")


def required(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A package that the message itself asks for, with the version that it wants."""
    found = _REQUIRED.search(error.text)
    if found is None:
        return None
    name = normalize(found["package"] or found["found"] or found["asked"])
    minimum = found["minimum"] or found["above"]
    wanted = f">={minimum}" if minimum else "".join((found["spec"] or "").split())
    have = installed_version(facts, name)
    sure = name in ("torch", PYTHON) or may_install(facts, name)
    # "requires ndim >= 2" is about no package.
    if not wanted or satisfies(have, wanted) or (found["asked"] and not sure):
        return None
    return Finding(
        "required-version-missing",
        "error",
        f"The program asks for {name}{wanted}, and has {have or 'an older one or none'}",
        "It looks for this version when it starts, and refuses to go on without it.",
        {**evidence(**{name.replace("-", "_"): have}, asked_by=error.values.get("importer")), **seen(error)},
        (
            _what_is_asked_for(facts, name, wanted),
            f"{fixes.python_command(facts)} -m pip show {name}   # is it installed for this very Python?",
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


def distribution(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A package that another one looks for by its own metadata, and does not find in a version that it takes."""
    found = _DISTRIBUTION.search(error.text)
    if found is None:
        return None
    name, by, wanted = normalize(found["package"]), normalize(found["by"].rstrip(".")), "".join(found["spec"].split())
    have = installed_version(facts, name)
    return Finding(
        "required-version-missing",
        "error",
        f"{by} asks for {name}{wanted}, and {have or 'another version, or none,'} is here",
        "It compares its requirements with what is installed when it starts, and refuses to go on.",
        {
            **evidence(**{name.replace("-", "_"): have, by.replace("-", "_"): installed_version(facts, by)}),
            **seen(error),
        },
        (
            fixes.install(facts, f"{name}{wanted}") if may_install(facts, name) else "Install what the message names.",
            *((f"or a newer {by}: " + fixes.install(facts, by, upgrade=True),) if may_install(facts, by) else ()),
            f"{fixes.python_command(facts)} -m pip show {name}   # is it installed for this very Python?",
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


def _what_is_asked_for(facts: Facts, name: str, wanted: str) -> str:
    if name == PYTHON:
        return "An environment with such a Python: uv venv --python '" + wanted + "' .venv"
    if name == "torch":
        return f"{fixes.fresh_torch(facts, upgrade=True)}   # a torch {wanted}"
    if not may_install(facts, name):
        return "Install it as its project's page says; the message names it."
    return fixes.install(facts, f"{name}{wanted}", upgrade=True)


def missing(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _MISSING.search(error.text)
    if found is None:
        return None
    module = found["module"]
    change = change_of(PYTHON, module, facts.python.version)
    if change is not None:
        return changed(facts, error, PYTHON, change, module)
    if module not in known_imports():
        return None
    name = pip_name(module)
    return Finding(
        "module-missing",
        "error",
        f"{name} is not installed where this program runs",
        "It was never installed, or into another Python than the one that runs the program.",
        {**evidence(needed_by=error.values.get("importer")), **seen(error)},
        (
            fixes.install(facts, name),
            f'{fixes.python_command(facts)} -c "import sys; print(sys.executable)"   # which Python it is',
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


_ADVICE = re.compile(
    r"(?:pip3?|uv pip|python3? -m pip) install (?:-U |--upgrade |-q )?(?P<quote>['\"]?)(?P<asked>[A-Za-z][\w-]{1,40})"
    r"(?:\[\w+\])?"
    r"(?P<spec>(?:[<>=~!]=?\d[\w.*]{0,20},?){0,2})(?P=quote)(?![\w.-])"
)
_SAYS_MISSING = re.compile(
    r"\b(?:requires?|required|needs?|missing|install|not installed|could not import|unable to import)\b", re.I
)


def advised(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A package that the library itself tells the reader to install."""
    found = _ADVICE.search(error.text)
    if found is None or not _SAYS_MISSING.search(error.text[: found.start()]):
        return None
    name = normalize(found["asked"])
    have = installed_version(facts, name)
    if name == "torch" or not may_install(facts, name):
        return None
    return Finding(
        "module-missing",
        "error",
        f"{name} is not installed where this program runs, or too old",
        "The library asks for it in its own words; it is an optional part that was never installed, or stands in "
        "another Python than the one that runs the program.",
        {**evidence(**{name.replace("-", "_"): have}, needed_by=error.values.get("importer")), **seen(error)},
        (
            fixes.install(facts, f"{name}{found['spec']}", upgrade=True),
            f'{fixes.python_command(facts)} -c "import sys; print(sys.executable)"   # which Python it is',
            "Restart the notebook kernel or the program.",
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )
