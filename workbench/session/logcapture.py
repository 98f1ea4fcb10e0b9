"""The session log: whatever native code and libraries print, repeated lines folded into one. Stdlib only.

File descriptors 1 and 2 of the worker are a plain spool file, so that the last words of a crash are on disk even
when the process is gone. A thread reads the spool, folds repeats, masks secrets and appends to the log.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Callable, Optional

POLL_SECONDS = 0.2
SPOOL_LIMIT_BYTES = 4 * 2**20
LOG_LIMIT_BYTES = 8 * 2**20
FOLD_WINDOW_LINES = 16
"""Lines are folded when the same one stood among this many distinct ones before."""
FOLD_QUIET_SECONDS = 2.0

_SECRET = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}")


def mask_secrets(text: str) -> str:
    """Access tokens of the usual forms, cut after their prefix."""
    return _SECRET.sub(r"\1***", text)


class RepeatFolder:
    """Turns a stream of lines into one without repeats: the first stands, the others are counted."""

    def __init__(self) -> None:
        self._repeats: OrderedDict[str, int] = OrderedDict()

    def feed(self, line: str) -> list[str]:
        """Lines to write for one line that came in; often none."""
        if line in self._repeats:
            self._repeats[line] += 1
            self._repeats.move_to_end(line)
            return []
        self._repeats[line] = 0
        written = []
        if len(self._repeats) > FOLD_WINDOW_LINES:
            written = self._tell(*self._repeats.popitem(last=False))
        return [*written, line]

    def flush(self) -> list[str]:
        """Counts not told yet; the lines stay known."""
        written = []
        for line, count in self._repeats.items():
            written.extend(self._tell(line, count))
            self._repeats[line] = 0
        return written

    @staticmethod
    def _tell(line: str, count: int) -> list[str]:
        if not count:
            return []
        times = "once more" if count == 1 else f"{count:,} times more"
        return [f"(repeated {times}: {line[:80]}{'…' if len(line) > 80 else ''})"]


class Spool:
    """The raw output file of a worker and how much of it has been folded into the log."""

    def __init__(self, log: Path) -> None:
        self.path = log.with_suffix(".raw")
        self._offset_path = log.with_suffix(".offset")

    def open(self) -> int:
        """A descriptor to append to."""
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def consumed(self) -> int:
        """Bytes at the start of the spool that the log already has."""
        try:
            inode, offset = self._offset_path.read_text().split()
            return int(offset) if int(inode) == self.path.stat().st_ino else 0
        except (OSError, ValueError):
            return 0

    def note_consumed(self, inode: int, offset: int) -> None:
        """Remember it across processes."""
        descriptor = os.open(self._offset_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, f"{inode} {offset:<20}".encode(), 0)
        finally:
            os.close(descriptor)

    def unread(self) -> str:
        """What the worker printed and never folded: the last words of one that died."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.consumed())
                return file.read(256 * 1024).decode("utf-8", "replace")
        except OSError:
            return ""


class LogCapture:
    """Folds the worker's output into its log while it runs.

    Args:
        log: the log file; the spool stands beside it.
        appended: called on the capture thread with each batch of new lines.
    """

    def __init__(self, log: Path, appended: Callable[[list[str]], None]) -> None:
        self._log = log
        self._spool = Spool(log)
        self._appended = appended
        self._folder = RepeatFolder()
        self._rest = b""
        self._source: Optional[int] = None
        self._offset = 0
        self._quiet_since = time.monotonic()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)

    def start(self) -> None:
        """Send descriptors 1 and 2 to the spool and begin folding."""
        self._redirect()
        self._source = os.open(self._spool.path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = self._spool.consumed()
        os.lseek(self._source, self._offset, os.SEEK_SET)
        with contextlib.suppress(OSError):
            # The last words of the worker before this one must not be taken for this one's.
            self.drain()
        self._thread.start()

    def drain(self) -> None:
        """Fold everything printed so far, counts included."""
        with self._lock:
            self._read()
            self._write(self._folder.flush())

    def tail(self, lines: int) -> list[str]:
        """The last lines of the log, what is printed up to now included."""
        with contextlib.suppress(OSError):  # a log that cannot be written can perhaps be read
            self.drain()
        return read_tail(self._log, lines)

    def _redirect(self) -> None:
        descriptor = self._spool.open()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def _follow(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            try:
                with self._lock:
                    if self._read():
                        self._quiet_since = time.monotonic()
                    elif time.monotonic() - self._quiet_since > FOLD_QUIET_SECONDS:
                        self._write(self._folder.flush())
                        self._quiet_since = time.monotonic()
            except OSError:
                continue  # a full disk must not end the thread; the spool keeps what it could

    def _read(self) -> bool:
        assert self._source is not None
        inode = os.fstat(self._source).st_ino
        got = False
        while True:
            chunk = os.read(self._source, 64 * 1024)
            if not chunk:
                break
            got = True
            self._offset += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            written: list[str] = []
            for raw in lines:
                # A progress bar rewrites its line with carriage returns: only its last state is worth keeping.
                text = mask_secrets(raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")).rstrip()
                if text:
                    written.extend(self._folder.feed(text))
            self._write(written)
            # A line without end must not grow without end.
            self._rest = self._rest[-64 * 1024 :]
        if got:
            self._spool.note_consumed(inode, self._offset - len(self._rest))
            if self._offset > SPOOL_LIMIT_BYTES:
                self._renew_spool()
        return got

    def _renew_spool(self) -> None:
        """Start an empty spool; the old one goes when the last child that writes to it ends."""
        assert self._source is not None
        self._spool.path.unlink()
        self._redirect()
        os.close(self._source)
        self._source = os.open(self._spool.path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = 0

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        stamp = time.strftime("%H:%M:%S")
        stamped = [f"{stamp} {line}" for line in lines]
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT_BYTES:
            os.replace(self._log, self._log.with_suffix(".log.1"))
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, ("\n".join(stamped) + "\n").encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
        self._appended(stamped)


def read_tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log and of what a dead worker left in the spool beside it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 512 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        text = ""
    last_words = RepeatFolder()
    for line in Spool(log).unread().splitlines():
        text += "".join(f"{kept}\n" for kept in last_words.feed(mask_secrets(line)))
    return text.splitlines()[-lines:]
