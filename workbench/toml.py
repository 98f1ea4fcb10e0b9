"""Reading TOML on every interpreter we may run under. Stdlib first."""

from __future__ import annotations

import contextlib
import importlib
import sys
import zipimport
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError


def _parser() -> Any:
    for name in ("tomllib", "tomli", "pip._vendor.tomli"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    # Python 3.9 and 3.10 have no TOML reader of their own, but the pip wheel inside their ensurepip carries one.
    with contextlib.suppress(ImportError, IndexError):
        import ensurepip

        wheel = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))[-1]
        return zipimport.zipimporter(f"{wheel}/pip/_vendor").load_module("tomli")
    raise WorkbenchError("missing-package", "This Python cannot read TOML.", f"{sys.executable} -m pip install tomli")


def loads(text: str, source: str = "TOML") -> dict[str, Any]:
    """Parse TOML.

    Raises:
        WorkbenchError: ``bad-toml`` naming `source`, the line and the column.
    """
    parser = _parser()
    try:
        result: dict[str, Any] = parser.loads(text)
    except parser.TOMLDecodeError as error:
        raise WorkbenchError("bad-toml", f"{source} is not valid TOML: {error}.", "Mend that line.") from None
    return result


def load(path: Path) -> dict[str, Any]:
    """Parse the TOML file at `path`; see `loads`. Raises OSError if it cannot be read."""
    try:
        return loads(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise WorkbenchError("bad-toml", f"{path} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from None
