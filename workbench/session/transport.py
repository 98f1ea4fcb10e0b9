"""Lines of bytes between two ends: a Unix-domain socket, or a pair in memory for tests. Stdlib only."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Optional

from workbench.errors import WorkbenchError
from workbench.paths import RUNTIME_VARIABLE
from workbench.session.protocol import MAX_FRAME_BYTES


class FrameTooLarge(Exception):
    """The peer sent more than `MAX_FRAME_BYTES` without a newline."""


class Transport:
    """One end of a line connection."""

    async def read_line(self) -> bytes:
        """The next line with its newline, or ``b""`` at the end of the connection.

        Raises:
            FrameTooLarge: the line is longer than the protocol allows; the connection is of no further use.
        """
        raise NotImplementedError

    def write(self, line: bytes) -> None:
        """Queue a line; never blocks. Writing to a closed connection does nothing."""
        raise NotImplementedError

    def pending_bytes(self) -> int:
        """Bytes queued that the peer has not taken yet."""
        return 0

    def close(self) -> None:
        """End the connection after what is queued has been sent."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the connection now, dropping what is queued."""
        self.close()


class SocketTransport(Transport):
    """Lines over an asyncio stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read_line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ValueError:
            raise FrameTooLarge from None
        except (ConnectionError, OSError):
            return b""

    def write(self, line: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(line)

    def pending_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


class MemoryTransport(Transport):
    """One end of a pair that lives in this process; see `memory_pair`."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.peer: Optional[MemoryTransport] = None

    async def read_line(self) -> bytes:
        return await self._incoming.get()

    def write(self, line: bytes) -> None:
        if self.peer is not None:
            self.peer._incoming.put_nowait(line)

    def close(self) -> None:
        if self.peer is not None:
            self.peer._incoming.put_nowait(b"")
            self.peer.peer = None
            self.peer = None
        self._incoming.put_nowait(b"")


def memory_pair() -> tuple[MemoryTransport, MemoryTransport]:
    """Two connected ends."""
    one, other = MemoryTransport(), MemoryTransport()
    one.peer, other.peer = other, one
    return one, other


async def connect(path: Path) -> SocketTransport:
    """Connect to a session's socket.

    Raises:
        FileNotFoundError, ConnectionRefusedError: nobody listens there.
        WorkbenchError: ``foreign-socket`` when another user owns the socket or answers on it.
    """
    refuse_foreign_socket(path)
    reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_FRAME_BYTES)
    uid = peer_uid(writer.get_extra_info("socket"))
    if uid is not None and uid != os.getuid():
        writer.close()
        raise _foreign(path, uid)
    return SocketTransport(reader, writer)


def refuse_foreign_socket(path: Path) -> None:
    """Raise ``foreign-socket`` if `path` exists and belongs to another user; FileNotFoundError if it is absent."""
    owner = path.lstat().st_uid
    if owner != os.getuid():
        raise _foreign(path, owner)


def _foreign(path: Path, uid: int) -> WorkbenchError:
    return WorkbenchError(
        "foreign-socket",
        f"The session socket {path} belongs to another user (uid {uid}).",
        f"Set {RUNTIME_VARIABLE} to a directory of your own, or choose another --session name.",
    )


def peer_uid(connection: socket.socket) -> Optional[int]:
    """The user id of the process at the other end, or None where the system does not tell (unix(7), SO_PEERCRED)."""
    if not sys.platform.startswith("linux"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)
