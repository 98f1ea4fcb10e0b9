"""Reading TOML on every interpreter we may run under. Stdlib first."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import sys
import zipimport
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError

LARGEST_BYTES = 4 * 2**20


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
    """Parse the TOML file at `path`; see `loads` and `read`."""
    return loads(read(path), str(path))


def read(path: Path) -> str:
    """The text of a TOML file. A pipe is not waited for, a device or a huge file not read.

    Raises:
        OSError: it cannot be read.
        WorkbenchError: ``bad-toml`` if it is not UTF-8.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "It is not a regular file", str(path))
        if info.st_size > LARGEST_BYTES:
            raise OSError(errno.EFBIG, f"It is larger than {LARGEST_BYTES // 2**20} MiB", str(path))
        data = file.read(LARGEST_BYTES)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkbenchError("bad-toml", f"{path} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from None
