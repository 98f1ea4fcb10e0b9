"""HTTP as talking to a model server needs it: cancelled at once, the key kept, every fault one typed line. Stdlib only.

No client library reads the answers. huggingface_hub's `InferenceClient` (2.4), which an environment of the workbench
has anyway, was tried against the fixtures of ``tests/unit/test_chat_remote.py`` and is unfit for them: its line reader
splits at U+0085 and U+2028, so that one such character in an answer ends it with a JSON error; one unreadable line, or
``data:[DONE]`` without the blank, ends it too; a web page is an empty answer, and a connection cut in the middle a
whole one; it has neither ``/v1/models`` nor ``/v1/completions``; without a key it sends the user's Hugging Face token
to whatever server it is pointed at; and with HF_HUB_OFFLINE set it refuses localhost as well. Older releases of it, as
an interpreter under examination may have, are built on two other HTTP libraries, with faults of their own.

Redirects are not followed, they are told: so the key never reaches a server that was not named. A proxy from the
environment is used for other machines, never for this one. Certificates are verified.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import json
import queue
import re
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar

import workbench
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.text import one_line

T = TypeVar("T")

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 600.0
"""Without a single byte; a long prompt on a busy server takes minutes before its first token."""
_POLL_SECONDS = 0.05
_TOLD_SECONDS = 0.5
_BODY_BYTES = 8 * 2**20
_ERROR_BYTES = 64 * 1024
_QUEUED = 256
_SUFFIXES = ("/chat/completions", "/completions", "/models")


@dataclass(frozen=True)
class Address:
    """Where an API is, such as ``http://localhost:8000/v1``."""

    scheme: str
    host: str
    port: int
    path: str
    """Without a slash at its end; what every request's path is added to."""

    @property
    def place(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        return f"{self.scheme}://{host}" if usual else f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        return self.place + self.path

    @property
    def is_local(self) -> bool:
        """Whether it is this machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            found = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return found.is_loopback or found.is_unspecified


def parse_address(url: str) -> Address:
    """The address of an API as a person types it: ``localhost:8000``, ``https://host/v1/chat/completions`` …

    Raises:
        WorkbenchError: ``bad-url``.
    """
    text = url.strip()
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        raise _bad_url(url) from None
    host = (parts.hostname or "").lower()
    odd = not host or re.search(r"[\x00-\x20\x7f-\x9f]", url.strip()) or not (host + parts.path).isascii()
    if odd or parts.scheme not in ("http", "https") or parts.query or parts.fragment or port == 0:
        raise _bad_url(url)
    if parts.username is not None or parts.password is not None:
        raise WorkbenchError("bad-url", "The address holds a name or a password.", "Give the key apart from it.")
    path = parts.path.rstrip("/")
    for suffix in _SUFFIXES:
        path = path[: -len(suffix)] if path.endswith(suffix) else path
    return Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path or "/v1")


def _bad_url(url: str) -> WorkbenchError:
    shown = one_line(re.sub(r"//[^/@\s]*@", "//…@", url), 80)
    return WorkbenchError("bad-url", f"{shown!r} is no address of a server.", "Such as http://localhost:8000/v1")


def check_key(api_key: str) -> str:
    """The key without surrounding blanks. Raises WorkbenchError ``bad-key`` for one that no header can carry."""
    key = api_key.strip()
    if key and not re.fullmatch(r"[\x21-\x7e]{1,4096}", key):
        raise WorkbenchError("bad-key", "The API key has blanks or letters that no key has.", "Copy it again.")
    return key


class Exchange:
    """One request and its response on a connection of its own, which `end` cuts from any thread.

    Args:
        address: where the API is.
        api_key: sent as a bearer token; empty for none.
        connect_seconds: for the connection and its encryption.
        idle_seconds: without a byte from the server.
    """

    def __init__(
        self,
        address: Address,
        api_key: str = "",
        connect_seconds: float = CONNECT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.address = address
        self._key = check_key(api_key)
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._connection: Optional[http.client.HTTPConnection] = None
        self._ended = False

    def send(self, path: str, body: Optional[dict[str, Any]] = None) -> http.client.HTTPResponse:
        """POST `body`, or GET without one; the response, its status being 200.

        Args:
            path: added to the address's own path; from the server's root if it begins with two slashes.

        Raises:
            WorkbenchError: see `explain_failure` and `_refusal`.
        """
        with self.explained():
            target = path[1:] if path.startswith("//") else self.address.path + path
            data = None if body is None else json.dumps(body).encode("ascii")
            connection, target, headers = self._connected(target)
            if data is not None:
                headers["Content-Type"] = "application/json"
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connection.request("GET" if data is None else "POST", target, data, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise self._refusal(response)
            return response

    def read_json(self, path: str) -> tuple[Any, str]:
        """GET a JSON value; it and the ``Server`` header. Raises WorkbenchError."""
        response = self.send(path)
        with self.explained():
            text = response.read(_BODY_BYTES + 1)
        try:
            if len(text) > _BODY_BYTES:
                raise ValueError
            return json.loads(text), str(response.headers.get("Server") or "")
        except (ValueError, RecursionError):
            raise not_openai(self.address, text) from None

    def end(self) -> None:
        """Cut the connection; a thread that reads from it comes back at once."""
        self._ended = True
        connection = self._connection
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the connection; called by the thread that used it."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what http.client raises into a `WorkbenchError`."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise explain_failure(self.address, error, self._idle_seconds) from None

    def hidden(self, text: str) -> str:
        """`text` of the server without the key, should it repeat it."""
        return text.replace(self._key, "…") if self._key else text

    def _connected(self, target: str) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """An open connection, what to ask on it, and the headers."""
        address = self.address
        headers = {"Accept": "text/event-stream, application/json", "Connection": "close"}
        headers["User-Agent"] = f"model-workbench/{workbench.__version__}"
        proxy = _proxy_for(address)
        host, port, through = proxy or (address.host, address.port, {})
        if address.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self._connect_seconds, context=context
            )
            if proxy is not None:
                connection.set_tunnel(address.host, address.port, through)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._connect_seconds)
            if proxy is not None:
                target = address.place + target
                headers.update(through)
        self._connection = connection
        try:
            connection.connect()
        except socket.timeout:
            text = f"{address.place} does not answer within {self._connect_seconds:g} s."
            raise WorkbenchError("no-server", text, "Check the address, a firewall, the proxy.") from None
        if connection.sock is not None:
            connection.sock.settimeout(self._idle_seconds)
        if self._ended:
            raise ConnectionAbortedError
        return connection, target, headers

    def _refusal(self, response: http.client.HTTPResponse) -> WorkbenchError:
        """Any status but 200 as one line."""
        status, place = response.status, self.address.url
        body = response.read(_ERROR_BYTES)
        said = self.hidden(message_of(body))
        says = f": {one_line(said, 300)}" if said else ""
        if 300 <= status < 400:
            goes = one_line(str(response.headers.get("Location") or "another address"), 120)
            remedy = "Give that address; a redirect is not followed, so that the key stays here."
            return WorkbenchError("server-redirects", f"{place} sends to {goes}.", remedy)
        if status in (401, 403):
            remedy = "Give its key: --api-key-env NAME on the command line, the key field in the app."
            sent = "refuses the key" if self._key else "asks for a key"
            details = one_line(said, 2000) if _is_json(body) else ""
            return WorkbenchError("server-unauthorized", f"{place} {sent} (HTTP {status}){says}.", remedy, details)
        if status == 404:
            remedy = "Check the address (it usually ends in /v1) and the model's name."
            return WorkbenchError("server-not-found", f"{place} has no such path or model (HTTP 404){says}.", remedy)
        if status == 429:
            wait = one_line(str(response.headers.get("Retry-After") or ""), 20)
            remedy = f"Try again in {wait} s." if wait.isdigit() else "Try again later."
            return WorkbenchError("server-busy", f"{place} takes no more requests now (HTTP 429){says}.", remedy)
        if status >= 500:
            remedy = "See the server's own log."
            return WorkbenchError(
                "server-failed", f"{place} failed (HTTP {status}){says}.", remedy, one_line(said, 2000)
            )
        remedy = "Change what it names."
        return WorkbenchError("server-refused", f"{place} refuses the request (HTTP {status}){says}.", remedy, said)


def explain_failure(address: Address, error: Exception, idle_seconds: float) -> WorkbenchError:
    """What went wrong on the way to a server, or in the middle of its answer."""
    place, name = address.place, type(error).__name__
    details = f"{name}: {error}"
    if isinstance(error, socket.gaierror):
        return WorkbenchError("no-server", f"No machine is named {address.host}.", "Check the address.", details)
    if isinstance(error, ConnectionRefusedError):
        return WorkbenchError("no-server", f"Nothing listens at {place}.", "Start the server, or check the port.")
    if isinstance(error, ssl.SSLCertVerificationError):
        why = one_line(error.verify_message or str(error), 120)
        remedy = "Name the host as in its certificate; SSL_CERT_FILE adds an authority of your own."
        return WorkbenchError("bad-certificate", f"The certificate of {place} does not hold: {why}.", remedy, details)
    if isinstance(error, ssl.SSLError):
        remedy = "Check whether it speaks https or http."
        return WorkbenchError("no-server", f"{place} speaks no TLS that can be understood.", remedy, details)
    if isinstance(error, socket.timeout):
        text = f"{place} does not answer; the limit is {idle_seconds:.0f} s without a byte."
        return WorkbenchError("server-stalled", text, "See the server's own log, or ask again.", details)
    if isinstance(error, http.client.RemoteDisconnected):
        return WorkbenchError("server-cut", f"{place} closed the connection without an answer.", "Try again.", details)
    if isinstance(error, (http.client.IncompleteRead, ConnectionError)):
        remedy = "Ask again, and see the server's own log."
        return WorkbenchError("server-cut", f"{place} closed the connection in the middle.", remedy, details)
    if isinstance(error, (http.client.HTTPException, ValueError)):
        return WorkbenchError("not-openai", f"{place} does not speak HTTP.", "Check the port.", one_line(details))
    said = one_line(getattr(error, "strerror", None) or str(error) or name, 120)
    return WorkbenchError("no-server", f"{place} cannot be reached: {said}.", "Check the address.", details)


def not_openai(address: Address, body: bytes) -> WorkbenchError:
    """The answer of something else than an OpenAI-compatible server."""
    is_page = re.match(rb"\s*<(!doctype|html|head|body)", body, re.IGNORECASE) is not None
    what = "a web page" if is_page else "what is no JSON"
    return WorkbenchError(
        "not-openai",
        f"{address.url} answers with {what}, not as an OpenAI-compatible server.",
        "Check the port and the path, which usually ends in /v1.",
        one_line(message_of(body), 500),
    )


def message_of(body: bytes) -> str:
    """What an error's body says: OpenAI's, FastAPI's and TGI's forms, plain text, or a page without its tags."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return re.sub(r"(?is)<(script|style).*?</\1>|<[^>]*>", " ", text).strip()
    return error_message(value) or text


def error_message(value: Any) -> str:
    """The message inside an error object; empty if there is none."""
    while isinstance(value, dict):
        value = next((value[key] for key in ("error", "message", "detail") if value.get(key)), "")
    if isinstance(value, list):
        return "; ".join(filter(None, (_complaint(item) for item in value[:5])))
    return value if isinstance(value, str) else ""


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _complaint(item: Any) -> str:
    if not isinstance(item, dict):
        return item if isinstance(item, str) else ""
    where = item.get("loc")
    place = ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else ""
    return f"{place}: {item.get('msg')}" if place else str(item.get("msg") or "")


def _proxy_for(address: Address) -> Optional[tuple[str, int, dict[str, str]]]:
    """Host and port of the proxy that the environment names for `address`, with its own headers."""
    if address.is_local or urllib.request.proxy_bypass(address.host):
        return None
    proxies = urllib.request.getproxies()
    given = proxies.get(address.scheme) or proxies.get("all")
    if not given:
        return None
    parts = urllib.parse.urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme != "http" or not parts.hostname:
        return None
    headers = {}
    if parts.username:
        name, password = (urllib.parse.unquote(item or "") for item in (parts.username, parts.password))
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode("ascii")
    return parts.hostname, parts.port or 8080, headers


def read_json(address: Address, path: str, api_key: str, seconds: float, job: Job = SILENT) -> tuple[Any, str]:
    """GET a JSON value within `seconds`, all in all; it and the ``Server`` header. Raises WorkbenchError."""
    exchange = Exchange(address, api_key, seconds, seconds)

    def read() -> Iterator[tuple[Any, str]]:
        yield exchange.read_json(path)

    for value in watched(exchange, read, job, seconds):
        return value
    raise explain_failure(address, ConnectionAbortedError(), seconds)


def watched(
    exchange: Exchange,
    produce: Callable[[], Iterator[T]],
    job: Job,
    seconds: Optional[float] = None,
    waiting: Callable[[float], None] = lambda _seconds: None,
) -> Iterator[T]:
    """What `produce` yields, produced in a thread of its own, so that the caller never waits for the network.

    Args:
        exchange: cut when the caller stops, whatever the server does.
        produce: reads from the exchange.
        seconds: for everything; None for no limit.
        waiting: told, about twice a second, how long nothing has come.

    Raises:
        WorkbenchError: ``server-stalled`` after `seconds`, and whatever `produce` raises.
        JobCancelled: within a fraction of a second of the wish.
    """
    items: queue.Queue[tuple[str, Any]] = queue.Queue(_QUEUED)
    closed = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                items.put((kind, value), timeout=_POLL_SECONDS)
                return

    def work() -> None:
        try:
            for item in produce():
                put("item", item)
                if closed.is_set():
                    break
            put("end", None)
        except Exception as error:
            put("error", error)
        finally:
            exchange.close()

    threading.Thread(target=work, name="server", daemon=True).start()
    started = last = told = time.monotonic()
    try:
        while True:
            job.check()
            try:
                kind, value = items.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                now = time.monotonic()
                if seconds is not None and now - started > seconds:
                    raise explain_failure(exchange.address, socket.timeout(), seconds) from None
                if now - told >= _TOLD_SECONDS:
                    told = now
                    waiting(now - last)
                continue
            last = told = time.monotonic()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        closed.set()
        exchange.end()
