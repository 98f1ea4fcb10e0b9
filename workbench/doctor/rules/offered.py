"""Rules about a requirement that nothing on offer meets: the Python, the index, or the name. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import month_of, pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.build_tools import other_python
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen
from workbench.doctor.tables import table
from workbench.doctor.versions import at_least, minor_name, older, satisfies

_TAGS = "https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/"
_PYTHONS = ("3.12", "3.11", "3.13", "3.10", "3.9", "3.8", "3.14", "3.7", "3.6")
_MIRRORS = re.compile(r"tuna\.tsinghua|aliyun|ustc\.edu|douban|tencent|huaweicloud|bfsu\.edu|sjtug|163\.com", re.I)


def python_for(wants: str, have: Optional[str]) -> str:
    """A Python that `wants` takes and that is not the one that is here; ``""`` where none of today's is one."""
    here = minor_name(have)
    return next((python for python in _PYTHONS if python != here and satisfies(python, wants)), "")


# When each Python came out; wheels for it follow some months later.
_BORN = {"3.8": 2019, "3.9": 2020, "3.10": 2021, "3.11": 2022, "3.12": 2023, "3.13": 2024, "3.14": 2025}
_OCTOBER, _UNTIL_WHEELS = 10, 3


def python_of_its_time(facts: Facts, package: str, version: Optional[str]) -> str:
    """An older Python that a release has wheels for: the newest of its time, else the one before that which is here.

    ``""`` where neither the time nor this Python is known.
    """
    month, _ = month_of(package, version) or (None, False) if version else (None, False)
    have = minor_name(facts.python.version)
    born = [python for python, year in _BORN.items() if month and year * 12 + _OCTOBER + _UNTIL_WHEELS <= month]
    if born and older(born[-1], have or "99"):
        return born[-1]
    before = [python for python in _BORN if have and older(python, have)]
    return before[-1] if before else ""


def oldest_python(package: str, version: str) -> str:
    """The oldest Python that a release takes, by the table of those; ``""`` where it does not tell."""
    rows = table("pythons")["oldest"].get(package, {})
    return next((python for release, python in reversed(rows.items()) if at_least(version, release)), "")


def not_offered(facts: Facts) -> Result:
    """pip found a package, or the index, but no version that was asked for."""
    error = facts.error("pip-offers")
    if error is None or error.values["package"] == "torch" or _other_rules(facts, error.values["package"]):
        return PASSED
    if error.values.get("unreached"):
        return [_unreached(facts, error)] if error.values["unreached"] in _WHY else PASSED
    made = next(
        filter(None, (kind(facts, error) for kind in (_python, _one_index, _other_name, _version, _nowhere))), None
    )
    return [made] if made else PASSED


def _other_rules(facts: Facts, package: str) -> bool:
    """Whether another rule knows better; what an import did not find is the name of a function as often."""
    on_mac = package == "bitsandbytes" and facts.platform.system == "Darwin"
    return on_mac or any(f"import name '{package.replace('-', '_')}'" in other.text for other in facts.errors)


_WHY = {
    "name": (
        "the names of servers do not resolve here",
        "No network, no DNS, a VPN, or a container or node that has none.",
    ),
    "time": ("no connection comes about", "No network, a firewall, or a proxy that programs have to be told of."),
}


def _unreached(facts: Facts, error: ErrorFact) -> Finding:
    """No word of the index at all, which pip tells as if it had no versions."""
    title, why = _WHY[error.values["unreached"]]
    index = error.values.get("index") or "https://pypi.org/simple"
    return Finding(
        "package-index-not-reached",
        "error",
        f"pip does not reach its index: {title}; 'from versions: none' is only what follows",
        why,
        {**evidence(index=index), **seen(error)},
        (
            f"curl -I {index}/   # what does a browser or curl say? Mend the network first: DNS, VPN, docker build "
            "--network=host",
            "behind a proxy: python -m pip install --proxy http://<proxy>:<port> <packages>",
            "a machine without a network: pip download <packages> on another one of the same system and Python, "
            "then here: "
            "python -m pip install --no-index --find-links <folder> <packages>",
        ),
        "https://pip.pypa.io/en/stable/user_guide/#using-a-proxy-server",
        affects=("chat",),
        observed=True,
    )


def trusting(facts: Facts) -> tuple[str, ...]:
    """What gives pip the system's certificates, fetched once without them."""
    error = facts.error("pip-offers")
    if error is None or error.values.get("unreached") != "certificate":
        return ()
    hosts = "--trusted-host pypi.org --trusted-host files.pythonhosted.org"
    return (
        f"{fixes.install(facts, 'pip-system-certs', _asked(error), options=hosts)}   # once without the check; with "
        "pip-system-certs pip asks the system's store from then on",
    )


def _asked(error: ErrorFact) -> str:
    return error.values["package"] + error.values.get("spec", "")


def _found(
    facts: Facts, error: ErrorFact, title: str, why: str, steps: tuple[str, ...], source: str = _TAGS
) -> Finding:
    told = {name: error.values.get(name) for name in ("oldest", "newest", "index")}
    return Finding(
        "no-matching-distribution",
        "error",
        title,
        why,
        {
            **evidence(python=facts.python.version, **{f"{name} offered": item for name, item in told.items() if item}),
            **seen(error),
        },
        steps,
        source,
        affects=("chat",),
        observed=True,
    )


def _python(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """pip itself says which Python the version wants that was asked for."""
    wants, have = error.values.get("wants", ""), minor_name(facts.python.version)
    if not wants:
        return None
    python = python_for(wants, have)
    other = "newer" if re.match(r">=?[\d.]+$", wants) or (have and _below(have, wants)) else "older"
    nearest = error.values.get("newest")
    asked = {"target": _asked(error), **_typed(facts)}
    keep = (f"or, to keep this Python, the newest release that it takes: {fixes.install(facts, _pin(error, nearest))}",)
    return _found(
        facts,
        error,
        f"{_asked(error)} wants Python {wants}, and this is {'Python ' + have if have else f'{_opposite(other)} one'}",
        "pip leaves out the releases whose metadata does not take this Python; its line 'Ignored the following "
        "versions' lists them.",
        (*(other_python(facts, python, asked) if python else ()), *(keep if nearest else ())),
    )


def _opposite(other: str) -> str:
    return "an older" if other == "newer" else "a newer"


def _below(have: str, wants: str) -> bool:
    floor = re.search(r">=?(\d[\d.]*)", wants)
    return bool(floor and older(have, floor[1]))


def _typed(facts: Facts) -> dict[str, str]:
    """The command of the failed build says more of a requirements file than the requirement does."""
    failed = facts.error("build-failed")
    return {"target": failed.values["target"]} if failed and failed.values.get("target", "").startswith("-r ") else {}


def _pin(error: ErrorFact, version: Optional[str]) -> str:
    return f"{error.values['package']}=={version}" if version else error.values["package"]


def _one_index(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """Only one index was asked, and it is not the one that has everything."""
    index = error.values.get("index", "")
    if not index or "download.pytorch.org" in index:
        return None
    if not error.values.get("oldest") and _MIRRORS.search(index):
        return None  # a whole copy of PyPI: what it does not have fits here nowhere
    test = "test.pypi.org" in index
    where = "TestPyPI" if test else re.sub(r"https?://(?:[^@/]{1,80}@)?", "", index).rstrip("/")
    return _found(
        facts,
        error,
        f"Only {where} was asked, and it has no {_asked(error)}",
        "--index-url (-i) takes the place of PyPI: the package's own requirements are looked for there too. "
        + ("TestPyPI has old trial uploads of some of them." if test else ""),
        (
            f"the same command with --extra-index-url https://pypi.org/simple   # {where} stays, and the rest "
            f"comes from "
            "PyPI",
            f"or, first from PyPI alone: "
            f"{fixes.install(facts, _asked(error), options='--index-url https://pypi.org/simple')}",
        ),
        "https://pip.pypa.io/en/stable/cli/pip_install/#cmdoption-extra-index-url",
    )


def _other_name(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """The name is that of a module, of Python itself, or of a package of the system."""
    name = error.values["package"]
    if error.values.get("oldest"):
        return None
    row = next((row for row in table("misnomers")["name"] if re.fullmatch(row["match"], name)), None)
    if row is None:
        return None
    steps = tuple(_filled(facts, step, name) for step in row["fix"])
    return _found(facts, error, row["title"].replace("{name}", name), row["why"], steps, row["source"])


def _filled(facts: Facts, step: str, name: str) -> str:
    rest = pip_name(name.partition("-")[2].replace("opencv", "cv2")) if name.startswith("python") else name
    step = step.replace("{name}", name).replace("{rest}", rest)
    command, mark, note = step.partition("   # ")
    word, _, packages = command.partition(" ")
    return fixes.install(facts, *packages.split()) + mark + note if word == "install" else step


def _version(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """pip offers other versions than the one that was asked for."""
    newest, spec = error.values.get("newest"), error.values.get("spec", "")
    floor = re.search(r"(?:==|~=|>=?)\s?(\d[\w.]{0,30})", spec)
    oldest = error.values.get("oldest", "")
    if not newest or floor is None or older(floor[1], oldest):
        return None  # older than all that is offered: another rule's
    have, package = minor_name(facts.python.version), error.values["package"]
    nearest = error.values.get("nearest") or newest
    if older(newest, floor[1]):
        behind = _left_behind(facts, have, newest, floor[1])
        other = other_python(facts, "3.12", {"target": _asked(error), **_typed(facts)})
        near = f"{fixes.install(facts, _pin(error, newest))}   # the newest that is offered"
        here = f"Python {have}" if have else "this Python"
        return _found(
            facts,
            error,
            f"{_asked(error)} is newer than all that pip offers for {here} and system: {package} ends there with "
            f"{newest}",
            f"{here[0].upper()}{here[1:]} is too old for newer releases; or they have no wheels for this system, or "
            "there is no such version at all.",
            (*other, f"or: {near}")
            if behind
            else (near, *(f"or: {step}" if not at else step for at, step in enumerate(other))),
        )
    if not spec.startswith("==") and have and not satisfies(nearest, spec):
        return _between(facts, error, nearest)
    return _found(
        facts,
        error,
        f"There is no {_asked(error)} among what pip offers; the nearest is {nearest}",
        "No such version was published, it was taken back, or it has no file for this Python and system, while its "
        "neighbours have one.",
        (
            fixes.install(facts, _pin(error, nearest)),
            f"python -m pip index versions {package}   # all that are offered here",
        ),
    )


def _between(facts: Facts, error: ErrorFact, nearest: str) -> Finding:
    """A range that a package asks for, and older and newer releases alone have files for this Python."""
    floor = re.search(r">=?\s?(\d[\w.]{0,30})", error.values["spec"])
    python = python_of_its_time(facts, error.values["package"], floor[1] if floor else None)
    return _found(
        facts,
        error,
        f"{_asked(error)} has no wheel for Python {minor_name(facts.python.version)}: what pip offers goes on with "
        f"{nearest}",
        "The release that asks for it is older than this Python, and so are the wheels that it asks for.",
        (
            *(other_python(facts, python, {}) if python else ()),
            "then the same command again",
            "or, where --only-binary or --prefer-binary stands in it: without that, and with a compiler",
            "or a newer release of what asks for it: pip names that behind 'from'",
        ),
    )


def _left_behind(facts: Facts, have: Optional[str], newest: str, asked: str) -> bool:
    """Whether an old Python is why the newest release offered is an old one; else there may be no such version."""
    if have or facts.platform.system == "Darwin":
        return older(have, "3.11")
    return minor_name(newest) != minor_name(asked)


def _nowhere(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """Nothing at all of a name that no table here knows as a package."""
    name = error.values["package"]
    if error.values.get("oldest") or name in _known() or facts.error("index-only-torch", "build-failed"):
        return None
    too_new = (
        (
            f"{fixes.new_environment('3.11')}   # Python {minor_name(facts.python.version)} is newer than most "
            "packages know, and for theirs pip says that there is none",
        )
        if at_least(minor_name(facts.python.version), "3.13")
        else ()
    )
    return _found(
        facts,
        error,
        f"The index that pip asked has nothing called {name} that fits "
        + (f"Python {minor_name(facts.python.version)}" if too_new else "here"),
        "Either there is no such package (a program of the system, a project that lives on GitHub alone, a "
        "private or "
        "misspelt name), or it has wheels for other Pythons or systems only.",
        (
            *too_new,
            *(
                ()
                if fixes.on_windows(facts) or too_new
                else (f"sudo apt install {name}   # where it is a program of the system; Mac: brew",)
            ),
            f"https://pypi.org/project/{name}/ tells: where that page is missing, install it as its own guide "
            f"says, mostly "
            "from its repository: python -m pip install git+https://github.com/<owner>/<repository>",
            *(
                ()
                if too_new
                else (f"where it is there, its files' names tell for which Pythons: {fixes.new_environment()}",)
            ),
        ),
    )


def _known() -> frozenset[str]:
    """The packages of which some table knows that the index has them."""
    imports = table("imports")
    platforms = (name for row in table("platforms")["package"] for name in row["names"])
    built = (name for row in table("builds")["package"] for name in row["names"])
    names = (str(name).lower().replace("_", "-") for name in (*imports["names"], *imports["packages"]))
    return frozenset((*names, *platforms, *built, *table("requirements"), *table("dates"), *table("companions")))


RULES: tuple[Rule, ...] = (not_offered,)
