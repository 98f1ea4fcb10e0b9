"""Rules about packages that exist for some systems only, and about a pip that replaces torch. Needs the tables."""

from __future__ import annotations

from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.tables import WHEELS, companion_of, table
from workbench.doctor.versions import older

_NAMES = {"Linux": "Linux", "Windows": "Windows", "Darwin": "a Mac"}


def not_for_this_system(facts: Facts) -> Result:
    """pip finds nothing of a package that has no wheels for this system."""
    error = facts.error("pip-no-match") or _built_elsewhere(facts)
    if error is None:
        return PASSED
    package, offered = error.values.get("package", "").lower(), error.values.get("offered", "none")
    row = next((row for row in table("platforms")["package"] if package in row["names"]), None)
    system = facts.platform.system
    if row is None or " ".join(offered.split()) not in ("", "none"):
        return PASSED
    kind = "needs" in row and system in (None, *row["wheels"])  # of that system not all machines
    if system in row["wheels"] and not kind:
        return PASSED
    if system is None and row["wheels"] and "Linux" not in row["wheels"] and not kind:
        return None  # it may be any system
    where = (
        f"for this system: it needs {row['needs']}" if kind else f"on {_NAMES.get(system or '', 'Windows and Macs')}"
    )
    return [
        Finding(
            "no-matching-distribution",
            "error",
            f"{package} has no wheels {where}" if row["wheels"] else f"{package} is made no more",
            row["why"],
            {**evidence(system=system, package=package, python=facts.python.version), **seen(error)},
            tuple(row["check"]) if kind else _instead(facts, row, package),
            f"https://pypi.org/project/{package}/#files",
            affects=("chat",),
            observed=True,
        )
    ]


def _built_elsewhere(facts: Facts) -> Optional[ErrorFact]:
    """A package without wheels for this Windows or Mac of which pip takes the sources, or fails to build them."""
    if facts.platform.system not in ("Darwin", "Windows"):
        return None
    return facts.error("source-taken", "build-failed")


def instead_of(facts: Facts, package: str) -> tuple[str, ...]:
    """The steps in place of a package that has no wheels for this system; empty for one that has, or may have."""
    row = next((row for row in table("platforms")["package"] if package in row["names"]), None)
    told = row is not None and facts.platform.system is not None and facts.platform.wsl is not True
    if row is None or not told or facts.platform.system in row["wheels"]:
        return ()
    return _instead(facts, row, package)


def _instead(facts: Facts, row: dict[str, Any], package: str) -> tuple[str, ...]:
    system = facts.platform.system
    out = f"Take the line {package} out of the requirements, and install the rest; programs mostly do without it"
    there = {"Linux": row.get("linux"), "Windows": row.get("windows"), "Darwin": row.get("mac")}
    if system is None:
        steps = [f"on Windows: {fixes.install(facts, row['windows'])}"] if row.get("windows") else []
        steps += [f"on a Mac: {fixes.install(facts, row['mac'])}"] if row.get("mac") else []
        return (*steps, f"{out}; or run the program on Linux, or in WSL under Windows: wsl --install")
    served = row.get({"Windows": "on_windows", "Darwin": "on_mac"}.get(system, ""))
    if served:
        return (*(step.format(package=package) for step in served), f"or: {out[0].lower()}{out[1:]}")
    named = there.get(system)
    if named:
        return (f"{fixes.install(facts, named)}   # in its place", out)
    wsl = ("or run the program in WSL: wsl --install   # in PowerShell",) if system == "Windows" else ()
    return (out, *wsl)


def torch_replaced(facts: Facts) -> Result:
    """pip takes a torch that is there out, for a package that pins another one."""
    error = facts.error("torch-replaced")
    if error is None:
        return PASSED
    values = error.values
    package, pinned = values.get("package") or values.get("asked"), values.get("wanted") or values.get("new")
    there = values.get("there") or values.get("mine") or facts.torch.version or facts.package("torch")
    if not package or not pinned or there is None or there.split("+")[0] == pinned:
        return PASSED
    name = package.partition("==")[0].lower()
    return [
        Finding(
            "torch-replaced-by-pip",
            "warning",
            f"{package} pins torch {pinned}, so pip takes torch {there} out",
            "Every release of it belongs to one torch, and pip follows what it pins, from the package index, whose "
            "builds may be of another CUDA or for the CPU.",
            {**evidence(torch__version=there, pinned=pinned), **seen(error)},
            (
                *_fitting(facts, name, there),
                "and the torch that was there again, where it is gone: "
                + fixes.install(facts, f"torch=={there.split('+')[0]}", options=_index(there)),
            ),
            ISSUES + "facebookresearch/xformers/issues/752",
            observed=True,
        )
    ]


def _fitting(facts: Facts, name: str, torch: str) -> tuple[str, ...]:
    """The release of a package that belongs to the torch that is there."""
    version = companion_of(name, torch) if name in table("companions") else None
    if version is None:
        return (fixes.install(facts, name, options="--no-deps") + "   # in a release that was made for this torch",)
    # xformers stands on torch's index from 0.0.22 on, before that on the package index alone.
    index = "" if name == "xformers" and older(version, "0.0.22") else _index(torch)
    return (fixes.install(facts, f"{name}=={version}", options=f"--no-deps {index}".strip()),)


def _index(torch: str) -> str:
    tag = torch.partition("+")[2]
    return f"--index-url {WHEELS}/{tag}" if tag.startswith(("cu", "cpu")) else ""


RULES: tuple[Rule, ...] = (not_for_this_system, torch_replaced)
