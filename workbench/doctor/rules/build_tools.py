"""Rules about a build that fails for its Python or its setuptools, whatever is compiled. Needs the tables."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import Result, Rule, evidence, from_message, seen
from workbench.doctor.versions import minor_name, older

_PYO3 = "https://pyo3.rs/main/building-and-distribution"
_SETUPTOOLS = "https://setuptools.pypa.io/en/latest/history.html#v82-0-0"


def python_too_new(facts: Facts) -> Result:
    """A package with Rust code is from before the Python that it is built for."""

    def make(error: ErrorFact) -> Finding:
        failed = facts.error("build-failed")
        typed = failed.values if failed else {}
        python = error.values.get("python") or error.values.get("free") or minor_name(facts.python.version)
        newest = error.values.get("newest") or ("3.12" if not older(python, "3.13") else None)
        package = typed.get("package") or "a package with Rust code"
        free = bool(error.values.get("free"))
        release = f"this release of {package}"
        return Finding(
            "package-too-old-for-python",
            "error",
            f"{release[0].upper()}{release[1:]} is too old for {f'Python {python}' if python else 'this Python'}"
            if not free
            else f"{package} has no wheel for the free-threaded Python ({python}t)",
            "There is no wheel of it for this Python, and its source does not compile for it"
            + (f": its PyO3 knows Python up to {newest}." if error.values.get("newest") else "."),
            {**evidence(package=package, python=python, newest=newest), **seen(error)},
            other_python(facts, (python or "3.13") if free else (newest or "3.12"), typed)
            + (() if free else _newer(facts, typed.get("package"))),
            _PYO3,
            affects=("chat", "tokens"),
            observed=True,
        )

    return from_message(facts, ("pyo3-python",), make)


def _newer(facts: Facts, package: Optional[str]) -> tuple[str, ...]:
    if not package:
        return ()
    names = ("transformers", "tokenizers") if package == "tokenizers" else (package,)
    command = fixes.install(facts, *names, options="--only-binary :all:", upgrade=True)
    return (f"or, where nothing asks for that very release: {command}",)


def other_python(facts: Facts, version: str, typed: dict[str, str]) -> tuple[str, ...]:
    """An environment with Python `version`, made by the tool that is used here, and the command that failed in it."""
    target, tool = typed.get("target") or typed.get("package") or "", typed.get("tool", "pip")
    if tool == "pipx":
        return (f"pipx install --force --python python{version} {target}   # with that Python installed",)
    if tool == "uv":
        command = f"uv add {target}" if typed.get("verb") == "add" and target else "uv sync"
        return (f"uv python pin {version}   # and requires-python in pyproject.toml must allow it", command)
    if tool == "poetry":
        return (f"poetry env use python{version}   # with that Python installed", "poetry install")
    again = fixes.install(facts, *target.split()) if target else ""
    if facts.python.kind == "conda":
        made = (
            f"conda create -y -n py{version.replace('.', '')} python={version}",
            f"conda activate py{version.replace('.', '')}",
        )
        return (*made, again) if again else made
    activate = r".venv\Scripts\activate" if fixes.on_windows(facts) else "source .venv/bin/activate"
    steps = (f"{fixes.new_environment(version)}   # or python{version} -m venv .venv", activate)
    # uv's environments have no pip of their own.
    return (*steps, again.replace("python -m pip", "uv pip")) if again else steps


def no_pkg_resources(facts: Facts) -> Result:
    """A package imports pkg_resources, which setuptools has no more."""

    def make(error: ErrorFact) -> Finding:
        failed = facts.error("build-failed")
        last = "setuptools<70" if error.values.get("part") else "setuptools<81"
        return Finding(
            "setuptools-mismatch",
            "error",
            "A package's build wants pkg_resources, which setuptools 82 has no more"
            if failed
            else "A package wants pkg_resources, which this setuptools does not have",
            "pip builds in an environment of its own with the newest setuptools, whatever is installed here."
            if failed
            else "setuptools is not installed, or it is one of the newer releases without pkg_resources or its "
            "packaging part.",
            {
                **evidence(setuptools=facts.package("setuptools"), package=failed and failed.values.get("package")),
                **seen(error),
            },
            _with_setuptools(facts, last, failed.values) if failed else (fixes.install(facts, last),),
            _SETUPTOOLS,
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("no-pkg-resources",), make)


def _with_setuptools(facts: Facts, pin: str, typed: dict[str, str]) -> tuple[str, ...]:
    tool, package = typed.get("tool", "pip"), typed.get("package") or "<package>"
    if tool == "uv":
        return (f'in pyproject.toml: [tool.uv] build-constraint-dependencies = ["{pin}"]', "uv sync")
    target = typed.get("target", "")
    version = typed.get("version")
    spec = f"{package}=={version}" if version else package
    own = target if target and not target.startswith("-r ") else spec
    first = fixes.install(facts, pin, "wheel")
    alone = fixes.install(facts, *own.split(), options="--no-build-isolation").replace("'<package>'", "<package>")
    if tool == "poetry":
        return (f"poetry run {first}", f"poetry run {alone}")
    rest = (fixes.install(facts, *target.split()) + "   # then the rest",) if target.startswith("-r ") else ()
    return (first, alone, *rest)


RULES: tuple[Rule, ...] = (python_too_new, no_pkg_resources)
