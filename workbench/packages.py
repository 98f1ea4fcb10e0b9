"""Packages of the interpreter this runs under, which may lack any of them. Stdlib only."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from workbench.errors import WorkbenchError
from workbench.text import one_line


def need(package: str, purpose: str, distribution: str = "") -> Any:
    """Import `package`, or say who needs it and how to get it.

    Args:
        package: what is imported, such as ``pyarrow.parquet``.
        purpose: what needs it, as the start of a sentence: ``Reading rows.parquet``.
        distribution: what pip calls it, where that is another name than the import's first part.

    Raises:
        WorkbenchError: ``missing-package`` with the pip command for this interpreter; ``broken-package`` if it is
            installed and its import raises.
    """
    try:
        return importlib.import_module(package)
    except Exception as error:
        top = package.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == top:
            raise missing(distribution or top, purpose) from None
        raise broken(distribution or top, purpose, error) from None


def missing(distribution: str, purpose: str) -> WorkbenchError:
    """The error for a package that is not installed."""
    return WorkbenchError(
        "missing-package",
        f"{purpose} needs {distribution}, which is not installed in {sys.prefix}.",
        pip_install(distribution),
    )


def broken(distribution: str, purpose: str, error: BaseException) -> WorkbenchError:
    """The error for a package that is installed but does not import."""
    return WorkbenchError(
        "broken-package",
        f"{purpose} needs {distribution}, whose import fails in {sys.prefix}: "
        f"{type(error).__name__}: {one_line(str(error), 200).rstrip('.')}.",
        f"workbench doctor --python {sys.executable} names the cause.",
        f"{type(error).__name__}: {error}"[:4000],
    )


def pip_install(requirement: str) -> str:
    """The command that installs `requirement` into this interpreter."""
    quoted = f'"{requirement}"' if any(sign in requirement for sign in "<>= ") else requirement
    return f"{sys.executable} -m pip install {quoted}"
