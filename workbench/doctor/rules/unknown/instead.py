"""What is imported in place of a package: a plain file, or another release than the one that is told of."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import change_of, installed_version, pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.unknown.packages import known_imports
from workbench.doctor.versions import at_least, older

_NO_PACKAGE = re.compile(r"No module named '[\w.]{2,120}'; '(?P<module>\w{1,60})' is not a package")
_SEARCH_PATH = "https://docs.python.org/3/tutorial/modules.html#the-module-search-path"


def no_package(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A single file that has a package's name, or that of a program's own folder, and is found before it."""
    found = _NO_PACKAGE.search(error.text)
    if found is None:
        return None
    module = found["module"]
    known = module in known_imports() or module == "torch"
    rename = f"Rename {module}.py, where it is a file of your own, and remove the __pycache__ beside it."
    return Finding(
        "package-shadowed",
        "error",
        f"A single file {module}.py is imported in place of the package {module}"
        if known
        else f"A single file {module}.py is imported in place of the program's own folder {module}",
        "Python takes the first of a name that it finds: a file beside the program, or a package of that name from the "
        "index, which somebody else made.",
        seen(error),
        (
            *(
                (rename,)
                if known
                else (f"{fixes.uninstall(facts, module)}   # the index's package of that name is another one",)
            ),
            f'{fixes.python_command(facts)} -c "import {module}; print({module}.__file__)"   # where the file lies',
            *(() if known else (f"{rename} Then start the program from its own folder.",)),
        ),
        _SEARCH_PATH,
        affects=("chat",),
        observed=True,
    )


def another_copy(facts: Facts, error: ErrorFact, package: str, path: str) -> Optional[Finding]:
    """A name that the version which is told of has, and what is imported has not: they are two."""
    version = installed_version(facts, package)
    change = change_of(package, path) if version and facts.origin == "report" else None
    # What only resembles the name says nothing of it, and where the release agrees there is nothing to wonder at.
    if change is None or change.name != path or not change.version or change_of(package, path, version) is not None:
        return None
    if not (at_least(version, change.version) if change.added else older(version, change.version)):
        return None
    since = f"came with {change.version}" if change.added else f"is gone since {change.version}"
    return Finding(
        "stale-notebook-kernel",
        "error",
        f"What runs is not the {package} {version} that is told of: {path.split('.')[-1]} {since}",
        "A notebook's kernel or a server keeps what it imported before an upgrade, and a program may belong to another "
        "Python than the one that was asked for the version.",
        {**evidence(**{package.replace("-", "_"): version}), **seen(error)},
        (
            "Restart the notebook's kernel (Colab and Kaggle: restart the session) or the program, and import again.",
            f'{fixes.python_command(facts)} -c "import {_import_name(package)} as m; print(m.__version__, m.__file__)"'
            "   # run as the program is run: another version? then, with that very Python:",
            fixes.install(facts, f"{package}=={version}"),
        ),
        change.source,
        affects=("chat",),
        observed=True,
    )


def _import_name(package: str) -> str:
    """The name that a package is imported by."""
    return next((name for name in known_imports() if pip_name(name) == package), package.replace("-", "_"))
