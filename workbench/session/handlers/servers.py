"""OpenAI-compatible servers: those of this machine, or the one at an address."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Optional

from workbench.chat.remote_servers import Server, describe_server, find_servers, unlisted_server
from workbench.errors import WorkbenchError
from workbench.session.protocol import FindServers, RemoteModel, Request, ServersFound
from workbench.session.runtime import Context, Handler, Runtime, Stage

KNOWN_SECONDS = 300.0
"""For how long what was found of a server is taken for true; another one may listen there later."""


@dataclass
class _Known:
    servers: dict[str, tuple[float, Server]] = field(default_factory=dict)

    def note(self, url: str, server: Server) -> None:
        self.servers[url] = (time.monotonic(), server)

    def find(self, url: str) -> Optional[Server]:
        noted, server = self.servers.get(url, (0.0, None))
        return server if server is not None and time.monotonic() - noted < KNOWN_SECONDS else None


def server_of(remote: RemoteModel, context: Context) -> Server:
    """The server that a request names, asked only if it was not a short while ago. Raises WorkbenchError."""
    known = _known(context.runtime)
    found = known.find(remote.url)
    if found is None:
        try:
            found = describe_server(remote.url, remote.api_key, context.job)
        except WorkbenchError as error:
            if error.kind != "server-not-found" or not remote.model:
                raise
            found = unlisted_server(remote.url)
        known.note(remote.url, found)
    return found


def forget_server(remote: RemoteModel, context: Context) -> None:
    """Ask anew next time: an answer of it failed."""
    _known(context.runtime).servers.pop(remote.url, None)


def _known(runtime: Runtime) -> _Known:
    known: _Known = runtime.services.setdefault("servers", _Known())
    return known


def _find(request: FindServers, context: Context) -> ServersFound:
    if request.url:
        found = [describe_server(request.url, request.api_key, context.job)]
        _known(context.runtime).note(request.url, found[0])
    else:
        found = find_servers(context.job)
    for server in found:
        if not server.note:
            _known(context.runtime).note(server.url, server)
    return ServersFound([asdict(server) for server in found])


HANDLERS: dict[type[Request], Handler] = {FindServers: Handler((Stage("children", _find),))}
