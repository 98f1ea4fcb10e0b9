"""A package that is missing, or older than the program asks for. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import PYTHON, change_of, installed_version, pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.matching_builds import found_by_name, matching_build
from workbench.doctor.rules.platforms import instead_of
from workbench.doctor.rules.unknown.apart import changed
from workbench.doctor.rules.unknown.demands import packages_asked, releases_asked
from workbench.doctor.rules.unknown.packages import callers_of, known_imports, may_install
from workbench.doctor.tables import torch_release
from workbench.doctor.versions import normalize, satisfies

_DISTRIBUTION = re.compile(
    r"The '(?P<package>[A-Za-z][\w.-]{1,40}?)(?:\[[\w,]{1,40}\])?"
    r"(?P<spec>(?:(?:[<>=!~]=?|===) ?\d[\w.*]{0,20},? ?){0,8})' "
    r"distribution was not found and is required by (?P<by>[\w.-]{2,40})"
)
_BUT_HAS = re.compile(
    r",? but (?P<have>\d[\w.]{0,20}) is (?:installed|found|here)\b"
    r"|,? (?:but )?(?:found|got|have) (?:version )?(?P<found>\d[\w.]{0,20}(?<!\.))"
)
# Python 2 says the whole path, without quotes.
_MISSING = re.compile(
    r"(?i:no module) (?:named|found|called) (?:'?(?P<module>\w{1,60})'?(?![\w.])|(?P<first>\w{1,60})\.[\w.]+[`\"]?$)"
)


def required(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A package that the message itself asks for, with the version that it wants."""
    # "requires ndim >= 2" is about no package.
    asked = (
        (name, wanted)
        for name, wanted, certain in releases_asked(error.text)
        if certain or name in ("torch", PYTHON) or may_install(facts, name)
    )
    name, wanted = next(asked, ("", ""))
    told = _BUT_HAS.search(error.text)
    have = installed_version(facts, name) or (told["have"] or told["found"] if told else None)
    if not wanted or satisfies(have, wanted):
        return None
    return Finding(
        "required-version-missing",
        "error",
        f"{_who(error, name)} asks for {name}{wanted}, and has {have or _not_told(wanted)}",
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


def _who(error: ErrorFact, wanted: str) -> str:
    """The package that raised an error, by the traceback; the program where it is none, or the one that is wanted."""
    callers = callers_of(error)
    raised = next(iter(callers), "") or (callers[1] if len(callers) > 1 and error.text.split()[1] == callers[1] else "")
    return raised if raised and raised != wanted else "The program"


def _not_told(wanted: str) -> str:
    """What is there instead of a release, where no version of it is told."""
    return "a newer one or none" if wanted.startswith("<") else "an older one or none"


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
        return "An environment with such a Python: " + fixes.new_environment(f"'{wanted}'")
    if name == "torch":
        return f"{fixes.fresh_torch(facts, upgrade=True)}   # a torch {wanted}"
    if not may_install(facts, name):
        return "Install it as its project's page says; the message names it."
    return fixes.install(facts, f"{name}{wanted}", upgrade=True)


_COMPANIONS = ("torchvision", "torchaudio")


def missing(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _MISSING.search(error.text)
    if found is None:
        return None
    module = found["module"] or found["first"]
    change = change_of(PYTHON, module, facts.python.version)
    if change is not None:
        return changed(facts, error, PYTHON, change, module)
    name = pip_name(module)
    if facts.origin == "report" and (installed_version(facts, name) or _installed_in_vain(facts, name)):
        return _in_another_python(facts, error, name)
    # Nothing is there yet that would have to stay as it is.
    build = () if found_by_name(name) else matching_build(facts, name)
    compiled = tuple(step.replace("--force-reinstall --no-deps ", "") for step in build)
    if module not in known_imports() and not compiled:
        return _of_no_known_package(facts, error, module)
    return Finding(
        "module-missing",
        "error",
        f"{name} is not installed where this program runs",
        "It was never installed, or into another Python than the one that runs the program.",
        {**evidence(needed_by=error.values.get("importer")), **seen(error)},
        (
            *_for_llm(facts, name),
            *(instead_of(facts, name) or compiled or _install_one(facts, name, next(iter(callers_of(error)), ""))),
            *_left_from_before(facts, name),
            f'{fixes.python_command(facts)} -c "import sys; print(sys.executable)"   # which Python it is',
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


# Packages of which the name alone brings little that can be imported.
_WITH_EXTRA = {"nemo-toolkit": "nemo-toolkit[all]", "transformer-engine": "transformer-engine[pytorch]"}


def _install_one(facts: Facts, name: str, asker: str) -> tuple[str, ...]:
    """The commands for a package, beside the one that asks for it.

    An asker that is named too stays as it is, and pip brings what else it asks for in the versions that it bears.
    """
    if name in (*_COMPANIONS, "flash-attn"):
        return _install_asked(facts, [(name, "")])
    if name in _WITH_EXTRA:
        options = "--no-build-isolation" if name == "transformer-engine" else ""
        return (fixes.install(facts, _WITH_EXTRA[name], options=options),)
    beside = asker and asker not in (name, "torch", *_COMPANIONS) and may_install(facts, asker)
    return (fixes.lift(facts, name, *((asker,) if beside else ())),)


def _for_llm(facts: Facts, name: str) -> tuple[str, ...]:
    """The tool llm lives in an environment of its own, into which it installs packages itself."""
    return (f"llm install {name}   # into the environment of llm itself",) if facts.error("llm-tool-told") else ()


def _left_from_before(facts: Facts, name: str) -> tuple[str, ...]:
    """Those that transformers names as extras, which pip does not move: a new one finds them too old."""
    if name != "transformers" or facts.packages:
        return ()
    others = fixes.install(facts, "accelerate", "peft", upgrade=True)
    return (f"Where accelerate and peft are here from before: {others}",)


def _installed_in_vain(facts: Facts, name: str) -> bool:
    """Whether a sentence says that the package was installed, and it is not found all the same."""
    told = facts.error("installed-in-vain")
    return told is not None and name in re.sub(r"[_.]", "-", told.text.lower()) and may_install(facts, name)


def _of_no_known_package(facts: Facts, error: ErrorFact, module: str) -> Finding:
    """No name is offered to pip that may be the user's own file, or anybody's package."""
    caller = next(filter(None, callers_of(error)), "")
    ask = fixes.install(facts, caller) if caller and may_install(facts, caller) else ""
    return Finding(
        "module-missing",
        "warning",
        f"Likely: {module} is not there for the Python that runs this program",
        "It belongs to a package that was not installed here, or is a file of the program itself, which is found only "
        "from the program's own folder.",
        {**evidence(needed_by=error.values.get("importer")), **seen(error)},
        (
            *((f"{ask}   # brings what it needs",) if ask else ()),
            f"{fixes.python_command(facts)} -m pip install -r requirements.txt   # of the program, in its environment; "
            f"its guide names the package of {module}, if the file does not",
            "or start it from the folder of its source, or after: pip install -e .",
        ),
        "https://docs.python.org/3/tutorial/modules.html#the-module-search-path",
        affects=("chat",),
        observed=True,
    )


def _in_another_python(facts: Facts, error: ErrorFact, name: str) -> Finding:
    return Finding(
        "module-missing",
        "error",
        f"{name} is installed, but not for the Python that runs this program",
        "pip and python on a shell's path can belong to two environments, and a notebook's kernel or an editor may run "
        "a third one; what one of them has the others do not see.",
        {**evidence(**{name.replace("-", "_"): installed_version(facts, name)}), **seen(error)},
        (
            f"{fixes.install(facts, name)}   # with the very python that runs the program, in place of pip or pip3",
            f'{fixes.python_command(facts)} -c "import sys; print(sys.executable)"; which -a python pip   # two '
            "folders? then activate the environment again, in a new shell",
            f"In a notebook: %pip install {name}, then restart its kernel.",
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


_ADVICE = re.compile(
    r"(?:pip3?|uv pip|python3? -m pip) install (?:-U |--upgrade |-q )?(?P<quote>['\"]?)(?P<asked>[A-Za-z][\w-]{1,40})"
    r"(?P<extra>(?:\[\w+\])?)"
    r"(?P<spec>(?:[<>=~!]=?\d[\w.*]{0,20},?){0,2})(?P=quote)(?![\w.-])"
)
_SAYS_MISSING = re.compile(
    r"\b(?:requires?|required|needs?|missing|install|not installed|could not import|unable to import)\b", re.I
)


# transformers' dynamic_module_utils.py, of what a model's own code imports.
_OF_MODELS_CODE = re.compile(
    r"packages that were not found in your environment: (?P<modules>\w{2,40}(?:, \w{2,40}){0,9})"
)


def advised(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A package that the library itself tells the reader to install."""
    advice = [
        found
        for found in _ADVICE.finditer(error.text)
        if _SAYS_MISSING.search(error.text[: found.start()]) and " keyword argument '" not in error.text
    ]
    extras = {normalize(found["asked"]): found["extra"] for found in advice}
    wanted = [(normalize(found["asked"]), found["spec"]) for found in advice]
    wanted = wanted or [(name, "") for name in packages_asked(error.text)]
    wanted = [(name, spec) for name, spec in dict(wanted).items() if name != "torch" and may_install(facts, name)]
    listed = _OF_MODELS_CODE.search(error.text)
    if listed:
        wanted = [(normalize(pip_name(module)), "") for module in re.findall(r"[A-Za-z]\w+", listed["modules"])]
    if not wanted:
        return None
    # Of several those that are not there; where none is known to be missing, all.
    absent = [item for item in wanted if installed_version(facts, item[0]) is None] or wanted
    name = absent[0][0]
    have = installed_version(facts, name)
    names = " and ".join(f"{item}{extras.get(item, '')}" for item, _ in absent[:5])
    refused = bool(have) and "not import" in error.text
    if not have and len(absent) == 1 and facts.origin == "report" and _installed_in_vain(facts, name):
        return _in_another_python(facts, error, name)
    return Finding(
        "module-missing",
        "error",
        f"{names} {have} cannot be imported: it is in another Python, or something that it imports itself fails"
        if refused
        else f"{names} {'is' if len(absent) == 1 else 'are'} not installed where this program runs, or too old",
        "The library asks for it in its own words; it is an optional part that was never installed, or stands in "
        "another Python than the one that runs the program.",
        {**evidence(**{name.replace("-", "_"): have}, needed_by=error.values.get("importer")), **seen(error)},
        (
            *(
                (f'{fixes.python_command(facts)} -c "import {name.replace("-", "_")}"   # the true error',)
                if refused
                else ()
            ),
            *_install_asked(facts, [(f"{item}{extras.get(item, '')}", spec) for item, spec in absent]),
            f'{fixes.python_command(facts)} -c "import sys; print(sys.executable)"   # which Python it is',
            "Restart the notebook kernel or the program.",
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


def _install_asked(facts: Facts, absent: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The commands for packages that are asked for; those that are tied to a torch leave the one that is here."""
    tied = tuple(fixes.companion(facts, name) for name, _ in absent if name in _COMPANIONS)
    others = [(name, spec) for name, spec in absent if name not in _COMPANIONS]
    name = others[0][0] if len(others) == 1 else ""
    if name == "triton":
        release = torch_release(facts.torch.version)
        return (*tied, fixes.install(facts, f"triton=={release.triton}" if release and release.triton else name))
    if name == "flash-attn":
        return (*tied, fixes.install(facts, name, options="--no-build-isolation"))
    wanted = [f"{item}{spec}" for item, spec in others]
    return (*tied, fixes.install(facts, *wanted, upgrade=True)) if wanted else tied
