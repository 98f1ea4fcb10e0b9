"""Rules about what a solver (uv, Poetry, conda, pixi, pip) finds no solution for: the odd demand. Needs the tables."""

from __future__ import annotations

import difflib
import re
from typing import Callable, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.parse.resolutions import asks, constraints, wheels_told
from workbench.doctor.rules import conda_resolutions, pip_sides
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen
from workbench.doctor.rules.conda_resolutions import Told
from workbench.doctor.rules.offered import oldest_python, python_for, python_of_its_time
from workbench.doctor.tables import table, torch_releases
from workbench.doctor.versions import minor_name, normalize, older, release_of, satisfies

_UV = "https://docs.astral.sh/uv/concepts/resolution/"
_CONDA = "https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-virtual.html"
_OWN = ("your project", "your workspace", "you")


def no_solution(facts: Facts) -> Result:
    """The demand that nothing meets, by the solver's own explanation."""
    error = facts.error("resolution")
    told = _EXPLAINED[error.values["kind"]](facts, error.values) if error and error.values.get("kind") else None
    told = told or _of_pip(facts) or (_two_sides(error) if error else None)
    error = error or facts.error("pip-sides")
    if told is None or error is None:
        return PASSED
    title, why, steps = told
    return [
        Finding(
            _id_of(error.values),
            "error",
            title,
            why,
            {**evidence(python=facts.python.version, platform=error.values.get("platform")), **seen(error)},
            steps,
            _CONDA if _is_conda(error.values) else _UV,
            affects=("chat",),
            observed=True,
        )
    ]


def _id_of(values: dict[str, str]) -> str:
    if values.get("kind") == "absent" and _is_conda(values):
        return "conda-package-not-in-channels"
    of_kind = {
        "range": "project-allows-other-pythons",
        "tags": "no-wheel-for-this-platform",
        "no-build": "no-wheel-for-this-platform",
    }
    return of_kind.get(values.get("kind", ""), "requirements-contradict")


def _is_conda(values: dict[str, str]) -> bool:
    return bool(
        re.search(
            r"[Mm]amba|conda|needed by|missing channel|providers|NotFoundError|environment specs|is not installable",
            values.get("told", ""),
        )
    )


def _named(values: dict[str, str]) -> str:
    return f"{values.get('name', 'a package')} {values.get('version', '')}".strip()


def _python(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    """A package that has no release, or no build, for the Python that is asked for."""
    if _is_conda(values):
        return conda_resolutions.python_of_conda(values)
    wants, have = values["wants"].replace(" ", "").strip(","), values.get("have") or facts.python.version
    if ("name" not in values and not have) or satisfies(have, wants):
        return None
    python = python_for(wants, have)
    if not python:
        return None
    here = f"this is {have}" if have else "this is another one"
    steps = (
        f"{fixes.new_environment(python, anew=True)}   # in a project: uv python pin {python}, and "
        f"requires-python to match",
        "then the same command again",
    )
    return (
        f"{_named(values)} wants Python {wants}, and {here}",
        "Every release names the Pythons that it takes, and the solver leaves out what does not take the one that "
        "is asked for.",
        steps,
    )


def _range(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    """A project that allows more Pythons than one of its packages takes."""
    wants = values["wants"].replace(" ", "").strip(",")
    told = re.search(r"(?:requirement|supported Python range|Python version) \((?P<range>[^)]{2,30})\)", values["told"])
    common = _common(told["range"].replace(" ", ""), wants) if told else wants
    if told is None or not common:
        return None
    return (
        f"The project allows Python {told['range']}, and {_named(values)} takes only {wants}",
        "uv and Poetry look for versions that suit every Python that the project names, not only the one that is here.",
        (
            f'in pyproject.toml: requires-python = "{common}" (Poetry before 2: python = "{common}")   # then: uv '
            f"sync; poetry: poetry env use python{python_for(common, None)} && poetry lock && poetry install",
            f"or another release of {values['name']}, which takes the others too",
        ),
    )


def _common(one: str, other: str) -> str:
    """The Pythons that two ranges share, as told by a floor and a ceiling; ``""`` where there are none."""
    floors = re.findall(r">=?(\d[\d.]*)", f"{one},{other}")
    tops = re.findall(r"<(\d[\d.]*)", f"{one},{other}")
    floor = max(floors, key=lambda number: release_of(number) or (0, 0), default="")
    top = min(tops, key=lambda number: release_of(number) or (99, 0), default="")
    if not floor or (top and not older(floor, top)):
        return ""
    return f">={floor},<{top}" if top else f">={floor}"


_SYSTEMS = {
    "__win": "Windows",
    "__osx": "macOS",
    "__linux": "Linux",
    "__unix": "Linux and macOS",
}


def _virtual(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    """A build that wants another system, C library or processor than this one."""
    virtual, name, version = values["virtual"], values["name"], values["version"]
    if virtual in _SYSTEMS:
        other = f"conda install -y -c conda-forge --override-channels {name}={minor_name(version) or version}"
        wsl = ("wsl --install   # it runs there",) if virtual in ("__linux", "__unix") else ()
        return (
            f"{name} {version} of this channel is built for {_SYSTEMS[virtual]} alone, and this machine runs "
            f"another system",
            "conda's virtual packages (__win, __osx, __linux) stand for the system; the channel has this release "
            "for another one.",
            (*wsl, f"{other}   # the same from conda-forge, without the channel that has it for another system"),
        )
    if virtual == "__glibc":
        return (
            f"{name} {version} wants a newer glibc than this system has",
            "__glibc stands for the system's C library, which only a newer system brings.",
            (
                f"conda install -y -c conda-forge '{name}<{version}'   # a release from before",
                "or a container or machine with a newer system: ldd --version shows the glibc",
            ),
        )
    if virtual == "__archspec":
        return (
            f"{name} {version} is a build for another processor than this machine has",
            "__archspec stands for the processor; an environment.yml that was exported elsewhere pins it.",
            (
                f"Delete the lines with {name} and _x86_64-microarch-level from the environment.yml, and run the "
                f"command again.",
            ),
        )
    return None


def _index(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    name, index = values["name"], values.get("index", "the first one")
    return (
        f"uv looks for {name} on one index only ({index}), and the version that is wanted lies on another",
        "uv takes each package from the first index that has it at all, so that nobody can slip in another one of "
        "the same name.",
        (
            "the same command with --index-strategy unsafe-best-match   # looks on all of them, as pip does",
            f'or for good, in pyproject.toml: [tool.uv.sources] {name} = {{ index = "<its name>" }}, and explicit = '
            "true at the "
            "index that only some packages come from",
        ),
    )


def _absent(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    """A name that no index or channel has."""
    if _is_conda(values):
        return conda_resolutions.absent_in_conda(facts, values)
    name, asker = values["name"], values.get("asker", "you")
    who = "the requirements" if asker in _OWN else asker
    meant = _meant(values)
    tool = "tool dependencies" in values["told"]
    own = f"the project of this folder: uv run <command>, or uvx --from . <command>   # --from {name} wants it on PyPI"
    steps = (
        *((own,) if tool else ()),
        *((f"In the requirements of {who}: {meant} in place of {name}   # misspelt",) if meant else ()),
        f"a project of this workspace: [tool.uv.sources] {name} = {{ workspace = true }} in pyproject.toml, its "
        f"name among "
        "its own [project] and its folder among members",
        f"a private one: --index https://<its index>; one on GitHub: uv add git+https://github.com/<owner>/{name}",
    )
    return (
        f"No index has a package called {name}, which {who} {'ask' if who == 'the requirements' else 'asks'} for"
        + (f": {meant} is meant" if meant else ""),
        "The name is misspelt, or the package is not published: a member of a workspace, a private one, or one of "
        "a repository.",
        steps,
    )


def _meant(values: dict[str, str]) -> str:
    """The name as the rest of the message spells the first part of it; ``""`` where nothing is alike."""
    head, dash, rest = values["name"].partition("-")
    words = {word.partition("-")[0] for _, word, _ in asks(values["told"])}
    words |= {asker.partition(" ")[0].partition("-")[0] for asker, _, _ in asks(values["told"])}
    near = difflib.get_close_matches(head, sorted(words - {head}), 1, 0.85)
    return f"{near[0]}{dash}{rest}" if near and len(head) > 4 else ""


def _tags(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    """A package whose wheels are for other Pythons or systems."""
    name, offered = values["name"], wheels_told(values["told"])
    if name == "torch" and values["tag"] == "Python" and not offered:
        return _torch_of_another_python(values)
    if not offered or name == "torch":
        return None
    steps = list(_by_tags(facts, values, offered))
    row = next((row for row in table("successors")["package"] if normalize(name) in row["names"]), None)
    if row and row.get("instead"):
        mac = facts.platform.system == "Darwin" and "gpu" in name
        other = name.replace("gpu", "cpu") if mac else row["instead"]
        steps.insert(0, f"{fixes.install(facts, other)}   # in place of {name}: {row['why']}")
    asker = values.get("asker", "")
    who = f", which {asker} asks for," if asker and asker not in _OWN else ""
    return (
        f"{name}{values.get('spec', '')}{who} has wheels for {offered} alone, and none that fit here",
        "uv takes no release that has neither a wheel for this Python and system nor a source.",
        tuple(steps),
    )


def _torch_of_another_python(values: dict[str, str]) -> Optional[Told]:
    """Releases of torch that came before the Python that is here, or end before it."""
    spec = values.get("asked") or values.get("spec", "")
    release = next((item for item in reversed(torch_releases()) if satisfies(item.latest, spec)), None)
    if not spec or release is None:
        return None
    python = release.python_all
    asker = values.get("asker", "")
    who = f", which {asker} asks for," if asker and asker not in _OWN else ""
    typed = re.search(r"tool dependencies", values["told"])
    return (
        f"torch{spec}{who} has no wheels for this Python",
        f"Each release of torch has wheels for the Pythons of its time; those of torch {release.name} end with "
        f"{python}.",
        (
            f"uv tool run --python {python} <the same tool>   # uv tool install --python {python} to keep it",
            "or a release of the tool that takes a newer torch: uv tool run --python 3.12 <the tool>@latest",
        )
        if typed
        else (
            f"{fixes.new_environment(python, anew=True)}   # in a project: uv python pin {python}, and in "
            "pyproject.toml requires-python to match; then the same command",
        ),
    )


def _no_build(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    """A release that has no wheel for this Python, where building is switched off."""
    name, spec = values["name"], values.get("spec", "")
    pin = re.fullmatch(r"==(\d[\w.]*)", spec)
    oldest = oldest_python(name, pin[1]) if pin else ""
    if pin and older(facts.python.version, oldest):
        return _python(facts, {"name": name, "version": pin[1], "wants": f">={oldest}", "told": values["told"]})
    older_python = python_of_its_time(facts, name, pin[1] if pin else None)
    other = f"or a Python of its time, for which it may have wheels: {fixes.new_environment(older_python, anew=True)}"
    return (
        f"{name}{spec} has no wheel for this Python and system, and uv was told to build nothing",
        "With --no-build or --only-binary :all: uv and pip take wheels alone; some releases have none, or none for "
        "newer Pythons.",
        (
            f"the same command without --no-build and --only-binary   # {name} is built here then, which may take a "
            "compiler",
            *((other,) if older_python else ()),
        ),
    )


def _by_tags(facts: Facts, values: dict[str, str], offered: str) -> tuple[str, ...]:
    name, spec = values["name"], values.get("spec", "")
    if values["tag"] == "Python":
        minors = [int(minor) for minor in re.findall(r"cp3(\d{1,2})", offered)]
        python = f"3.{max(minors)}" if minors else ""
        return (
            (
                f"{fixes.new_environment(python, anew=True)}   # the newest that it has wheels for; in a project: "
                f"uv python "
                f"pin {python}, and in pyproject.toml requires-python to match; then the same command",
            )
            if python
            else ()
        )
    machine = "x86_64" if "x86_64" in offered and "aarch64" not in offered else ""
    marker = f'platform_machine == "{machine}"' if machine else 'sys_platform == "linux"'
    return (
        f"In the requirements: {name}{spec}; {marker}   # it has wheels for {offered} alone; so it is left out here",
        f"or a newer release, which may have wheels for this system: uv pip install --only-binary {name} -U {name}",
    )


def _offline(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    return (
        f"uv was told to stay off the network, and {values['name']} is not in its cache",
        "With --offline or UV_OFFLINE uv takes only what it has fetched before, from the same index.",
        (
            "the same command without --offline; unset UV_OFFLINE   # once; then it is in the cache",
            "a machine without a network: uv pip download is none; pip download <packages> elsewhere, and here uv "
            "pip install "
            "--no-index --find-links <folder> <packages>",
        ),
    )


def _unpublished(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    """A version that the index does not have."""
    name, asker = values["name"], values.get("asker", "")
    spec, offered = values.get("asked") or values.get("spec", ""), values.get("offered", "")
    who = "the requirements" if asker in _OWN or not asker else asker
    own = who == "the requirements"
    verb = "ask" if own else "asks"
    if re.search(r"triton|nvidia", name) and re.search(r"torch .*\+", asker):
        tag = asker.partition("+")[2]
        return (
            f"{asker} asks for {name}{spec}, which only PyTorch's own index has, and uv looks for it on PyPI",
            "Where an index is named for torch alone (explicit), what torch needs from there has to be named too.",
            (
                f'in pyproject.toml: "{name}" among the dependencies, and [tool.uv.sources] {name} = [{{ index = "<the '
                "name that "
                'torch has there>" }]; then uv lock',
                f"or outside a project: uv pip install torch --index-url https://download.pytorch.org/whl/{tag}",
            ),
        )
    if not spec and not offered:
        return None
    newest = re.sub(r"^[<=]=?", "", offered)
    instead = f"{name}>={newest}" if re.match(r"<=?\d|==\d", offered) else f"{name} without a version"
    return (
        f"{'The requirements' if own else who} {verb} for {name}{spec}, and no such release is on the index"
        + (f": {name}{offered} is all there is" if offered else ""),
        "The version was never published, was taken back, or stands on another index.",
        (
            f"{'In the requirements' if own else f'Where {who} is your own, in its pyproject.toml'}: {instead} in "
            f"place of {name}{spec}",
            *(
                ()
                if own
                else (
                    f"else another release of it, which asks for less: uv pip install "
                    f"'{who.partition('[')[0].partition(' ')[0]}' without a version",
                )
            ),
            f"or the same command without the extra or group that brings {name} in; uv run --no-project leaves "
            f"the project's own requirements out",
        ),
    )


_EXPLAINED: dict[str, Callable[[Facts, dict[str, str]], Optional[Told]]] = {
    "python": _python,
    "range": _range,
    "virtual": _virtual,
    "index": _index,
    "offline": _offline,
    "no-build": _no_build,
    "tags": _tags,
    "absent": _absent,
    "unpublished": _unpublished,
}


def _two_sides(error: ErrorFact) -> Optional[Told]:
    """Two that ask for what cannot be met together."""
    sides = [
        pip_sides.Side("" if asker in _OWN else asker, normalize(name), _plain(spec))
        for asker, name, spec in asks(error.values.get("told", ""))
    ]
    constrained = constraints(error.values.get("told", ""))
    sides += [pip_sides.Side("", normalize(name), spec, "constraints") for name, spec in constrained]
    clash = pip_sides.clash([side for side in sides if side.spec])
    if clash is None:
        return None
    low, high = clash
    return (
        _title_of(low, high),
        "Both stand in the metadata of those releases, and no version lies in both ranges.",
        pip_sides.apart(low, high),
    )


def _title_of(low: pip_sides.Side, high: pip_sides.Side) -> str:
    if not low.asker and not high.asker:
        return f"Two of the requirements exclude each other: {low.name}{low.spec} and {high.name}{high.spec}"
    first, second = (f"{side.asker} wants" if side.asker else f"the {side.file} want" for side in (low, high))
    return f"{first} {low.name}{low.spec}, {second} {high.name}{high.spec}: no release is both"


def _plain(spec: str) -> str:
    """Poetry's caret and tilde as the range that they stand for."""

    def bounds(match: re.Match[str]) -> str:
        numbers = release_of(match[2], 3) or (0, 0, 0)
        top = numbers[0] + 1 if match[1] == "^" and numbers[0] else f"{numbers[0]}.{numbers[1] + 1}"
        return f">={match[2]},<{top}"

    pin = re.fullmatch(r"=?(\d[\w.]*)", spec)  # as Poetry writes it
    if pin:
        return f"=={pin[1]}"
    return re.sub(r"([~^])(?!=)(\d[\d.]*)", bounds, spec.replace(" ", ""))


def _of_pip(facts: Facts) -> Optional[Told]:
    title = pip_sides.title(facts)
    steps = pip_sides.steps(facts)
    if not title or not steps:
        return None
    return title, "pip's own list under 'The conflict is caused by' tells who asks for what.", steps


RULES: tuple[Rule, ...] = (no_solution,)
