"""Rules about NumPy's own files: of two releases, or without the compiled part of this Python."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import MODEL_BENCHES, PASSED, Result, Rule, evidence, seen

_DOCS = "https://numpy.org/doc/stable/user/troubleshooting-importerror.html"


def for_other_python(facts: Facts) -> Result:
    """NumPy's Python files without the compiled module that this Python looks for."""
    error = facts.error("numpy-compiled-part-missing")
    if error is None:
        return PASSED
    values = error.values
    python, version = values.get("python", ""), values.get("numpy", "")
    folder = re.sub(r"^3(?=\d)", "3.", values.get("folder", ""))  # Windows writes Python310
    foreign = bool(python and folder and python != folder)
    named = f"NumPy {version}".strip()
    title = (
        f"Python {python} imports the {named} of Python {folder}, whose compiled part it cannot load"
        if foreign
        else f"{named} has no compiled part for this Python{f' ({python})' if python else ''}: its wheel was made for "
        "another Python or another system"
    )
    return [
        Finding(
            "numpy-for-other-python",
            "error",
            title,
            "The compiled module carries the Python and the system that it was made for in its file name, and is not "
            "looked at by any other. pip and uv take the Python that they are told, not the one that will run.",
            {**evidence(python=python or None, folder_of=folder or None, numpy=version or None), **seen(error)},
            _steps(facts, error, folder if foreign else ""),
            _DOCS,
            affects=MODEL_BENCHES,
            observed=True,
        )
    ]


def _steps(facts: Facts, error: ErrorFact, other: str) -> tuple[str, ...]:
    version = error.values.get("numpy")
    again = fixes.install(facts, f"numpy=={version}" if version else "numpy", options=_ANEW)
    if other:
        return (
            fixes.unset(facts, "PYTHONPATH", "it names the packages of another Python; then try again"),
            f"or, where that folder is meant: run the program with Python {other}",
        )
    if error.values.get("asked"):
        return (
            f'Take python-version = "{error.values["asked"]}" out of [tool.uv.pip] (pyproject.toml, uv.toml): uv '
            "installs for that Python; uv pip compile takes --python-version on its command line",
            f"uv pip install --reinstall 'numpy{f'=={version}' if version else ''}'   # and what else is compiled: "
            "uv pip install --reinstall -r requirements.txt",
        )
    return (
        f"{again}   # by the very python that runs the program; what else is compiled came the same way, and has to be "
        "installed anew, too",
        "In a container or a bundle: install inside the image, for its own Python; no site-packages copied from a host",
    )


_ANEW = "--force-reinstall --no-deps --no-cache-dir"


def mixed(facts: Facts) -> Result:
    """NumPy's files, or what is in memory, are of two releases."""
    error = facts.error("numpy-mixed")
    if error is None:
        return PASSED
    return [
        Finding(
            "numpy-mixed",
            "error",
            "NumPy here is a mixture of two versions",
            "It was changed while a program or notebook had the old one in memory, or an install over it left files of "
            "both.",
            seen(error),
            _one_numpy(facts, error.values.get("where")),
            _DOCS,
            affects=MODEL_BENCHES,
            observed=True,
        )
    ]


def _one_numpy(facts: Facts, where: Optional[str]) -> tuple[str, ...]:
    restart = "Restart the notebook's kernel (Colab: Runtime, Restart session) or the program; do not install again"
    remove = fixes.uninstall(facts, "numpy") + "   # again, until none is left"
    leftover = f"Delete what is left of it: {where or '<site-packages>'}/numpy and numpy-*.dist-info"
    version = facts.package("numpy")
    anew = fixes.install(facts, f"numpy=={version}" if version else "numpy<2.3")
    in_notebook = facts.platform.service in ("colab", "kaggle") or where is None
    return (restart, f"If it stays: {remove}", leftover, anew) if in_notebook else (remove, leftover, anew, restart)


RULES: tuple[Rule, ...] = (for_other_python, mixed)
