"""Facts of the interpreter we run in, and of what kind of environment it is. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import site
import struct
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from workbench.doctor.facts import PythonFacts
from workbench.doctor.system import read_text


def environment_kind(prefix: Path) -> str:
    """Who manages the environment at `prefix`: venv, uv, poetry, pipx, conda, pyenv or system."""
    if (prefix / "conda-meta").is_dir():
        return "conda"
    parts = prefix.parts
    config = read_text(str(prefix / "pyvenv.cfg"))
    if config is not None:
        if "pypoetry" in parts:
            return "poetry"
        if "pipx" in parts:
            return "pipx"
        return "uv" if re.search(r"^uv\s*=", config, re.M) else "venv"
    if ".pyenv" in parts or (os.environ.get("PYENV_ROOT") and os.environ["PYENV_ROOT"] in str(prefix)):
        return "pyenv"
    return "system"


def module_path(environ: Optional[Mapping[str, str]] = None) -> list[str]:
    """Where this interpreter would look for packages if it were started with `environ`; its own ``sys.path`` if None.

    The entry for the current directory is left out: what lies there is nothing that the user's programs see.
    """
    if environ is None:
        return [entry for entry in sys.path if entry]
    own = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    if environ.get("PYTHONNOUSERSITE"):
        own.add(_user_site() or "")
    given = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return [*given, *(entry for entry in sys.path if entry and os.path.abspath(entry) not in own)]


def python_facts(packages: dict[str, str]) -> PythonFacts:
    """The running interpreter; `packages` are those installed beside it."""
    prefix = Path(sys.prefix)
    return PythonFacts(
        version=platform.python_version(),
        implementation=platform.python_implementation(),
        bits=struct.calcsize("P") * 8,
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        executable=sys.executable or None,
        prefix=str(prefix),
        kind=environment_kind(prefix),
        externally_managed=_externally_managed(),
        pip=packages.get("pip", ""),
        user_site=_user_site(),
        user_site_enabled=bool(site.ENABLE_USER_SITE),
        headers=os.path.exists(os.path.join(sysconfig.get_path("include") or "", "Python.h")),
    )


def _externally_managed() -> bool:
    # The marker counts only outside virtual environments (PEP 668).
    if sys.prefix != sys.base_prefix:
        return False
    folder = sysconfig.get_path("stdlib")
    return bool(folder) and os.path.exists(os.path.join(folder, "EXTERNALLY-MANAGED"))


def _user_site() -> Optional[str]:
    with contextlib.suppress(Exception):
        return site.getusersitepackages()
    return None
