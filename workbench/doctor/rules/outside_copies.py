"""A rule about packages that are imported from outside the environment. Needs the tables."""

from __future__ import annotations

import re

from workbench.doctor import fixes
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import MODEL_BENCHES, Result, Rule, evidence, from_message, seen


def copy_outside(facts: Facts) -> Result:
    """A folder that comes before the environment's own packages has one of them in another release."""

    def make(error: ErrorFact) -> Finding:
        module, root = error.values["module"], error.values["root"]
        at_home = "site-packages" in root
        why = (
            "What pip install --user puts into the home directory comes before the packages of a conda environment; "
            "in a venv it does so where PYTHONPATH names it."
            if at_home
            else "PYTHONPATH, or a line of the program that adds to sys.path, puts this folder before the "
            "environment's packages: what pip does in the environment changes nothing."
        )
        home = (fixes.export(facts, "PYTHONNOUSERSITE", "1", "leaves out what the home directory has"),)
        package = pip_name(module)
        return Finding(
            "copy-outside-environment",
            "error",
            f"{package} is taken from {root}, and not from the environment",
            why,
            {**evidence(environment=error.values["environment"], taken_from=root), **seen(error)},
            (
                *(home if at_home else ()),
                fixes.unset(facts, "PYTHONPATH", f"it may name {root}; in {fixes.where_set(facts)}, too"),
                f"{fixes.install(facts, package)}   # only if the environment itself has none",
                f'{fixes.python_command(facts)} -c "import {module}; print({module}.__file__)"   # where it comes '
                "from now",
            ),
            "https://docs.python.org/3/using/cmdline.html#envvar-PYTHONPATH",
            affects=MODEL_BENCHES,
            observed=True,
        )

    return from_message(facts, ("copy-outside-environment",), make)


def other_checkout(facts: Facts) -> Result:
    """A script of one clone of a repository imports the modules of another clone."""

    def make(error: ErrorFact) -> Finding:
        module, root, mine = error.values["module"], error.values["root"], error.values["mine"]
        return Finding(
            "copy-outside-environment",
            "error",
            f"Two clones of one repository: {module} is taken from {root}, and the script lies in {mine}",
            "pip install -e names one folder, and Python takes the modules from there wherever a script is started; "
            "the two clones are of different days.",
            {**evidence(taken_from=root, script_in=mine), **seen(error)},
            (
                f'{fixes.python_command(facts)} -m pip install -e "{mine}"   # in the same environment: from now on '
                "this clone is imported",
                f'{fixes.python_command(facts)} -c "import {module}; print({module}.__file__)"   # where it comes '
                "from now",
                f"or bring the other up to date: git -C {root} pull",
            ),
            "https://setuptools.pypa.io/en/latest/userguide/development_mode.html",
            affects=MODEL_BENCHES,
            observed=True,
        )

    return from_message(facts, ("other-checkout-imported",), make)


def copy_told(facts: Facts) -> Result:
    """Somebody says that another release is imported than the one that is installed."""

    def make(error: ErrorFact) -> Finding:
        values = error.values
        name = values.get("name", "python")
        have, want = values.get("imported"), values.get("listed") or values.get("installed")
        module = name.replace("-", "_") if name != "python" else "sys"
        show = (
            f'{fixes.python_command(facts)} -c "import sys, {module}; print(sys.executable, {module}.__file__)"'
            if module != "sys"
            else f'{fixes.python_command(facts)} -c "import sys; print(sys.executable)"'
        )
        path = fixes.unset(facts, "PYTHONPATH", f"and in {fixes.where_set(facts)}: it comes before the environment")
        home = fixes.export(facts, "PYTHONNOUSERSITE", "1", "leaves out what the home directory has")
        own = f"{name}=={want}" if want and want.count(".") > 1 else name
        again = fixes.install(facts, own) + "   # by the very python that runs the program, in place of pip or pip3"
        steps: tuple[str, ...] = (again, path, home) if values.get("installed") else (path, home, again)
        if "python" in values and not fixes.on_windows(facts):
            steps = ("unalias python pip; hash -r; type -a python   # then activate again: its own must be first", path)
        notebook = (
            "python -m pip install ipykernel && python -m ipykernel install --user --name this-env   # in the "
            "environment that is meant; then choose that kernel in the notebook"
        )
        if re.search(r"jupyter|notebook|kernel", error.text, re.I):
            steps = (notebook,)
        return Finding(
            "copy-outside-environment",
            "error",
            f"{name} {have} is imported, and not the {want} that is installed: it comes from another environment"
            if have
            else f"What runs is {values['python']}, and not the environment's Python"
            if "python" in values
            else f"{name} is imported from another place than the environment that is active",
            "PYTHONPATH, the home directory (pip install --user), an alias, or a shell or notebook that was started in "
            "another environment comes before the one that is active; pip may belong to a third.",
            seen(error),
            (
                *steps,
                f"{show}   # another folder still? Then this python is another environment's: deactivate, a new shell, "
                "activate again; type -a python pip",
                *((f"In a notebook: {notebook}",) if notebook not in steps else ()),
            ),
            "https://docs.python.org/3/using/cmdline.html#envvar-PYTHONPATH",
            affects=MODEL_BENCHES,
            observed=True,
        )

    return from_message(facts, ("another-copy-told",), make)


RULES: tuple[Rule, ...] = (copy_outside, other_checkout, copy_told)
