"""Finding OpenAI-compatible servers and telling which kind one is. Stdlib only.

A kind is known by the ``owned_by`` that its model list names (vLLM, SGLang, llama.cpp, LM Studio, Ollama's library),
else by a path that only it has. Nothing but ``GET`` is asked, and a key goes to the address that it was given for.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from workbench.chat.remote_http import Address, check_key, parse_address, read_json
from workbench.chat.remote_kinds import KINDS, Kind, can, cannot
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.text import one_line

PORTS = (8000, 8001, 8080, 8081, 30000, 11434, 1234, 5000, 3000, 4000)
"""vLLM and transformers serve, llama.cpp and TGI, SGLang, Ollama, LM Studio, others."""
LOCAL_SECONDS = 1.5
NAMED_SECONDS = 15.0
_MOST_MODELS = 1000
_MOST_NAMED = 6
_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
    "library": "ollama",
    "organization_owner": "lmstudio",
}


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server.

    Attributes:
        url: of its API, such as ``http://localhost:8000/v1``.
        kind: ``vllm``, ``sglang``, ``llama.cpp``, ``ollama``, ``tgi``, ``lmstudio``, ``transformers`` or ``unknown``.
        title: the kind as people call it.
        models: as the server names them; may be empty where it tells none.
        context_lengths: by model, where the server tells.
        can: options and abilities, by name: ``temperature``, ``top_k``, ``logprobs``, ``raw``, ``extend`` …
        cannot: what is not to be had there, a line each.
        note: what hinders, such as a key that is asked for.
    """

    url: str
    kind: str
    title: str
    models: tuple[str, ...] = ()
    context_lengths: dict[str, int] = field(default_factory=dict)
    can: tuple[str, ...] = ()
    cannot: tuple[str, ...] = ()
    note: str = ""


def find_servers(job: Job = SILENT, ports: tuple[int, ...] = PORTS, seconds: float = LOCAL_SECONDS) -> list[Server]:
    """The servers at the usual ports of this machine; all ports are asked at once.

    Raises:
        JobCancelled: if the job is stopped.
    """
    found: list[Server] = []
    with concurrent.futures.ThreadPoolExecutor(len(ports)) as pool:
        waiting = [pool.submit(_look_at_port, port, seconds, job) for port in ports]
        for done, future in enumerate(waiting, 1):
            server = future.result()
            job.progress("ports", done, len(ports), "ports")
            if server is not None:
                found.append(server)
    return found


def describe_server(url: str, api_key: str = "", job: Job = SILENT, seconds: float = NAMED_SECONDS) -> Server:
    """The server at an address.

    Raises:
        WorkbenchError: ``bad-url``, ``no-server``, ``server-unauthorized``, ``not-openai`` … if none answers there.
        JobCancelled: if the job is stopped.
    """
    address = parse_address(url)
    key = check_key(api_key)
    note = ""
    if key and address.scheme == "http" and not address.is_local:
        note = f"The key goes to {address.host} unencrypted."
    try:
        listed, _software = read_json(address, "/models", key, seconds, job)
    except WorkbenchError as error:
        # Some serve answers but no list; transformers serve fails to list while its cache is empty.
        if error.kind not in ("server-not-found", "server-failed", "server-refused"):
            raise
        kind = _by_its_paths(address, seconds, job)
        if kind is None and error.kind != "server-failed":
            raise
        return _server(address, kind or KINDS["unknown"], [], note)
    entries = _entries(listed)
    if entries is None:
        raise WorkbenchError(
            "not-openai",
            f"{address.url} lists no models as an OpenAI-compatible server does.",
            "Check the port and the path, which usually ends in /v1.",
        )
    kind = _by_its_owner(entries) or _by_its_paths(address, seconds, job) or KINDS["unknown"]
    return _server(address, kind, entries, note)


def unlisted_server(url: str) -> Server:
    """A server that lists no models, of which nothing is known but its address. Raises WorkbenchError ``bad-url``."""
    return _server(parse_address(url), KINDS["unknown"], [], "")


def _look_at_port(port: int, seconds: float, job: Job) -> Optional[Server]:
    url = f"http://localhost:{port}"
    try:
        return describe_server(url, "", job, seconds)
    except WorkbenchError as error:
        # Much else refuses strangers with a page or without a word; these servers do it in JSON.
        if error.kind != "server-unauthorized" or not error.details:
            return None
    return _server(parse_address(url), KINDS["unknown"], [], "It asks for a key.")


def _server(address: Address, kind: Kind, entries: list[dict[str, Any]], note: str) -> Server:
    lengths = {}
    for entry in entries:
        length = entry.get("max_model_len")  # vLLM and SGLang
        if isinstance(length, int) and not isinstance(length, bool) and length > 0:
            lengths[entry["id"]] = length
    names = tuple(entry["id"] for entry in entries)
    return Server(address.url, kind.id, kind.title, names, lengths, tuple(can(kind)), tuple(cannot(kind)), note)


def _entries(listed: Any) -> Optional[list[dict[str, Any]]]:
    """The models of a list, each with an ``id``; None if it is no list of models."""
    data = listed.get("data") if isinstance(listed, dict) else None
    if data is None and isinstance(listed, dict) and listed.get("object") == "list":
        data = []  # Ollama without a model
    if not isinstance(data, list):
        return None
    named = [item for item in data if isinstance(item, dict) and isinstance(item.get("id"), str) and item["id"]]
    return None if data and not named else named[:_MOST_MODELS]


def _by_its_owner(entries: list[dict[str, Any]]) -> Optional[Kind]:
    owners = {_OWNERS.get(str(entry.get("owned_by")).lower()) for entry in entries} - {None}
    return KINDS[str(owners.pop())] if len(owners) == 1 else None


def _by_its_paths(address: Address, seconds: float, job: Job) -> Optional[Kind]:
    """By what the server has at its root, where that is its own."""
    if address.path != "/v1":
        return None
    checks: tuple[tuple[str, str, Callable[[dict[str, Any]], bool]], ...] = (
        ("ollama", "//api/version", lambda value: "version" in value),
        ("tgi", "//info", lambda value: "model_id" in value and "max_total_tokens" in value),
        ("transformers", "//openapi.json", lambda value: "/load_model" in (value.get("paths") or {})),
        ("vllm", "//version", lambda value: "version" in value),
    )
    for kind, path, fits in checks:
        job.check()
        with contextlib.suppress(WorkbenchError):
            value, _software = read_json(address, path, "", seconds, job)
            if isinstance(value, dict) and fits(value):
                return KINDS[kind]
    return None


def choose_model(server: Server, wanted: str) -> str:
    """The model to name in a request; empty where the server has one and does not say which.

    Raises:
        WorkbenchError: ``unknown-model`` if the server lists others only, or several and none is named.
    """
    where = f"{server.title} at {server.url}"
    if not wanted:
        # transformers serve lists what lies in the cache, not what it was started with; without a name it takes that.
        if server.kind == "transformers" or not server.models:
            return ""
        if len(server.models) == 1:
            return server.models[0]
        text = f"{where} has {len(server.models):,} models and none was named."
        raise WorkbenchError("unknown-model", text, f"Name one of {_names(server)}.")
    if not server.models or wanted in server.models or server.kind in ("unknown", "transformers"):
        return wanted
    tagged = f"{wanted}:latest"
    if tagged in server.models:  # Ollama's own rule for a name without a tag
        return tagged
    raise WorkbenchError("unknown-model", f"{where} has no {one_line(wanted, 60)!r}.", f"It has {_names(server)}.")


def _names(server: Server) -> str:
    names = ", ".join(one_line(name, 60) for name in server.models[:_MOST_NAMED])
    more = len(server.models) - _MOST_NAMED
    return f"{names} and {more:,} more" if more > 0 else names
