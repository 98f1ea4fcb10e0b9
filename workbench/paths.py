"""Where the workbench keeps things (XDG base directories) and how it writes them. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from workbench.errors import WorkbenchError

APP_NAME = "workbench"

RUNTIME_VARIABLE = "WORKBENCH_RUNTIME_DIR"

# sun_path in struct sockaddr_un is 108 bytes on Linux and 104 on macOS, terminating NUL included.
MAX_SOCKET_PATH_BYTES = 107 if sys.platform.startswith("linux") else 103


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # The specification says relative paths are invalid and must be ignored.
    base = Path(value) if os.path.isabs(value) else Path.home() / fallback
    return base / APP_NAME


def config_dir() -> Path:
    """Settings and the user's own themes."""
    return _xdg("XDG_CONFIG_HOME", ".config")


def cache_dir() -> Path:
    """Anything that can be made again: converted GGUF files, fetched samples, skeletons."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Conversations, logs, remembered choices."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def data_dir(name: str) -> Path:
    """A shipped data folder, ``themes`` or ``sample_models``, in a wheel or in a checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "_data" / name
    return packaged if packaged.is_dir() else package.parent / name


_PATH_PREFIXES = ("./", "../", "~", "/")
_FILE_SUFFIXES = (".gguf", ".json", ".model", ".tiktoken")


def absolute_model(name: str) -> str:
    """A model's name as the worker needs it: what is a path here becomes absolute, as the worker runs elsewhere.

    Other names (Hub ids, samples, the catalogue) stay as they are.
    """
    path = Path(name).expanduser()
    looks_like_path = name.startswith(_PATH_PREFIXES) or name.endswith((os.sep, *_FILE_SUFFIXES)) or name in (".", "..")
    return os.path.abspath(path) if name and (looks_like_path or path.exists()) else name


def ensure_private_dir(path: Path) -> Path:
    """Create `path` with mode 0700 and make sure that nobody else owns or can enter it.

    Raises:
        WorkbenchError: ``unsafe-directory`` if it belongs to someone else, is a link or no directory.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
    except OSError as error:
        raise WorkbenchError(
            "unsafe-directory",
            f"Cannot create the directory {path}: {error.strerror}.",
            f"Make its parent writable, or set {RUNTIME_VARIABLE}, XDG_STATE_HOME or XDG_CACHE_HOME elsewhere.",
        ) from None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise WorkbenchError(
            "unsafe-directory",
            f"{path} is not a directory of user {os.getuid()}.",
            f"Remove it, or point {RUNTIME_VARIABLE} at a directory of your own.",
        )
    if info.st_mode & stat.S_ISVTX:
        # Root may own /tmp; closing it would lock every other user out.
        raise WorkbenchError(
            "unsafe-directory",
            f"{path} is everybody's, as /tmp is.",
            f"Point {RUNTIME_VARIABLE} at a directory in it, which is made if need be.",
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def runtime_dir() -> Path:
    """The directory of sockets and locks, mode 0700: ``$WORKBENCH_RUNTIME_DIR``, else ``/tmp/workbench-<uid>``.

    Not ``$XDG_RUNTIME_DIR``: logind removes that at the last logout (pam_systemd(8)), and a session must be found again
    by the login that follows a dropped connection.

    Raises:
        WorkbenchError: ``unsafe-directory`` if someone else owns it.
    """
    override = os.environ.get(RUNTIME_VARIABLE, "")
    if override:
        return ensure_private_dir(Path(os.path.abspath(override)))
    base = Path("/tmp") if os.access("/tmp", os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return ensure_private_dir(base / f"{APP_NAME}-{os.getuid()}")


def log_dir() -> Path:
    """Where session logs go; beside the sockets if those were put elsewhere, as names are unique only there."""
    override = os.environ.get(RUNTIME_VARIABLE, "")
    return ensure_private_dir((runtime_dir() if override else state_dir()) / "logs")


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader or a crash sees the old content or the new, never a mixture.

    Raises:
        OSError: as the operating system reports it (no space, read-only file system); the old file is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
