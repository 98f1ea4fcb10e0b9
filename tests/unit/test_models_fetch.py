"""Fetching for real: huggingface_hub against a small Hub on this machine, pip against a folder and a slow index."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from workbench import paths
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models import hub_cache, samples
from workbench.models.download import choose_files
from workbench.models.fetch import fetch
from workbench.models.resolve import resolve

TINY = paths.data_dir("sample_models") / "tiny-llama"
SECRET = "hf_" + "s3cretS3cret" * 2


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub's interface as huggingface_hub asks for; `stall_after` bytes it stops sending weights."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}
    stall_after: ClassVar[int | None] = None
    status: ClassVar[int] = 200
    released: ClassVar[threading.Event] = threading.Event()
    authorization: ClassVar[list[str | None]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.authorization.append(self.headers.get("Authorization"))
        path = self.path.split("?")[0]
        if self.status != 200:
            code = {"X-Error-Code": "RepoNotFound" if self.status == 404 else "GatedRepo", "X-Error-Message": "no"}
            self.send(b"{}", body, self.status, **code)
        elif path.startswith("/api/models/org/tiny"):
            self.send(self.info(), body)
        elif "/resolve/" in path and path.rsplit("/", 1)[1] in self.files:
            content = self.files[path.rsplit("/", 1)[1]]
            tag = hashlib.sha256(content).hexdigest()
            self.send(content, body, 200, ETag=f'"{tag}"', **{"X-Repo-Commit": "b" * 40})
        else:
            self.send(b"{}", body, 404)

    def info(self) -> bytes:
        import json

        files = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
        return json.dumps({"id": "org/tiny", "sha": "b" * 40, "siblings": files}).encode()

    def send(self, content: bytes, body: bool, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        if self.stall_after is not None and len(content) > self.stall_after:
            self.wfile.write(content[: self.stall_after])
            self.wfile.flush()
            self.released.wait(60)
            return
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.files = {file.name: file.read_bytes() for file in TINY.iterdir()}
    Hub.files |= {"pytorch_model.bin": b"x" * 1000, "README.md": b"hello", "tf_model.h5": b"x"}
    Hub.stall_after, Hub.status, Hub.released, Hub.authorization = None, 200, threading.Event(), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield Hub
    Hub.released.set()
    server.shutdown()
    server.server_close()


class Recorder(Job):
    """Keeps the progress and asks to stop when `stop` says so of it."""

    def __init__(self, stop: Callable[[str, int], bool] = lambda phase, done: False) -> None:
        self.seen: list[tuple[str, int, int | None, str]] = []
        self.stop = stop
        self.stopped_at = 0.0

    def progress(self, phase: str, done: int, total: int | None = None, unit: str = "", detail: str = "") -> None:
        self.seen.append((phase, done, total, unit))
        if self.stop(phase, done) and not self.stopped_at:
            self.stopped_at = time.monotonic()

    def check(self) -> None:
        if self.stopped_at:
            raise JobCancelled


def left_in_cache() -> list[str]:
    """Everything in our cache and the Hub's that is no lock."""
    found = []
    for base in (paths.cache_dir(), hub_cache.cache_folder()):
        for folder, _, names in os.walk(base):
            found += [os.path.join(folder, name) for name in names if ".lock" not in os.path.join(folder, name)]
    return [name for name in found if not name.endswith("CACHEDIR.TAG")]


def test_hub_model_arrives_with_byte_progress(hub: type[Hub]) -> None:
    job = Recorder()
    found = fetch(resolve("org/tiny"), job)
    assert (found.kind, found.formats, found.fetchable) == ("hub", ("safetensors",), False)
    snapshot = Path(found.path or "")
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in snapshot.iterdir()} == wanted
    for name in wanted:
        assert (snapshot / name).read_bytes() == hub.files[name]
    total = sum(len(hub.files[name]) for name in wanted)
    assert job.seen[-1] == ("download", total, total, "bytes")
    assert not list(hub_cache.cache_folder().rglob("*.incomplete"))


def test_cancelled_hub_download_stops_at_once_and_leaves_nothing(hub: type[Hub]) -> None:
    # huggingface_hub writes ten megabytes at a time.
    real = hub.files["model.safetensors"]
    hub.files["model.safetensors"], hub.stall_after = bytes(30_000_000), 25_000_000
    job = Recorder(stop=lambda phase, done: phase == "download" and done > 5_000_000)
    with pytest.raises(JobCancelled):
        fetch(resolve("org/tiny"), job)
    assert left_in_cache() == []
    assert not resolve("org/tiny").has_weights
    hub.files["model.safetensors"], hub.stall_after = real, None
    hub.released.set()
    assert fetch(resolve("org/tiny")).has_weights


@pytest.mark.parametrize(
    ("status", "kind", "says"), [(404, "unknown-model", "no repository org/tiny"), (403, "gated", "accept its terms")]
)
def test_refusal_of_the_hub_is_one_line(
    status: int, kind: str, says: str, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.status = status
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(WorkbenchError, match=says) as caught:
        fetch(resolve("org/tiny"))
    assert f"Bearer {SECRET}" in hub.authorization
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value) + caught.value.details
    assert left_in_cache() == []


def test_full_disk_is_said_before_anything_is_downloaded(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    huge = json.dumps(
        {"id": "org/tiny", "siblings": [{"rfilename": "config.json"}, {"rfilename": "a.safetensors", "size": 10**17}]}
    )
    monkeypatch.setattr(Hub, "info", lambda self: huge.encode())
    with pytest.raises(WorkbenchError, match="are free") as caught:
        fetch(resolve("org/tiny"))
    assert caught.value.kind == "no-disk-space"


def test_offline_is_said_with_a_remedy() -> None:
    with pytest.raises(WorkbenchError, match="HF_HUB_OFFLINE is set") as caught:
        fetch(resolve("org/tiny"))
    assert caught.value.kind == "no-network"
    assert caught.value.remedy


def test_nothing_listens_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WorkbenchError, match="the Hub cannot be reached") as caught:
        fetch(resolve("org/tiny"))
    assert caught.value.kind == "no-network"


GGUF_BYTES = b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + bytes(32)


def wheel_bytes() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("wb_tiny_weights/model.gguf", GGUF_BYTES + bytes(3_000_000))
        archive.writestr("wb_tiny_weights/__init__.py", "raise SystemExit('must not run')")
        meta = "Metadata-Version: 2.1\nName: wb-tiny-weights\nVersion: 1.0\n"
        archive.writestr("wb_tiny_weights-1.0.dist-info/METADATA", meta)
        archive.writestr("wb_tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("wb_tiny_weights-1.0.dist-info/RECORD", "")
    return content.getvalue()


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[samples.SampleSource]:
    """A sample whose first source is the Hub (offline) and whose second a wheel in a folder that pip looks into."""
    wheel = wheel_bytes()
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "wb_tiny_weights-1.0-py3-none-any.whl").write_bytes(wheel)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    data = tmp_path / "data"
    data.mkdir()
    (data / "manifest.toml").write_text(
        f"""
        [packed]
        title = "Packed"
        [[packed.sources]]
        kind = "hub"
        repo = "org/packed"
        [[packed.sources]]
        kind = "pypi"
        package = "wb-tiny-weights"
        version = "1.0"
        file = "wb_tiny_weights-1.0-py3-none-any.whl"
        sha256 = "{hashlib.sha256(wheel).hexdigest()}"
        size_bytes = {len(wheel)}
        member = "wb_tiny_weights/model.gguf"
        """
    )
    monkeypatch.setattr(paths, "data_dir", lambda name: data)
    samples.samples.cache_clear()
    yield samples.samples()["packed"].sources[1]
    samples.samples.cache_clear()


@pytest.fixture
def manifest(packaged: samples.SampleSource) -> Iterator[Callable[[str, str], None]]:
    def change(old: str, new: str) -> None:
        path = paths.data_dir("sample_models") / "manifest.toml"
        path.write_text(path.read_text().replace(old, new))
        samples.samples.cache_clear()

    return change


def test_only_the_gguf_of_a_wheel_is_kept(packaged: samples.SampleSource) -> None:
    job = Recorder()
    found = fetch(resolve("packed"), job)
    target = paths.cache_dir() / "models" / "packed" / "model.gguf"
    assert (found.path, found.formats) == (str(target), ("gguf",))
    assert target.read_bytes().startswith(GGUF_BYTES)
    assert left_in_cache() == [str(target)]
    assert {phase for phase, *_ in job.seen} >= {"verify", "extract"}
    assert resolve("packed").path == str(target)


def test_wrong_checksum_is_refused(packaged: samples.SampleSource, manifest: Callable[[str, str], None]) -> None:
    manifest(packaged.sha256, "0" * 64)
    with pytest.raises(WorkbenchError, match="SHA-256") as caught:
        fetch(resolve("packed"))
    assert caught.value.kind == "bad-checksum"
    assert left_in_cache() == []


def test_every_source_and_its_reason_is_named(manifest: Callable[[str, str], None]) -> None:
    manifest('version = "1.0"', 'version = "7.7"')
    with pytest.raises(WorkbenchError, match=r"Hub org/packed: HF_HUB_OFFLINE.*wb-tiny-weights 7\.7: .*7\.7") as caught:
        fetch(resolve("packed"))
    assert "\n" not in str(caught.value)
    assert left_in_cache() == []


def test_package_index_out_of_reach_is_no_network(
    packaged: samples.SampleSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:passw0rd@127.0.0.1:9/simple")
    shutil.rmtree(os.environ["PIP_FIND_LINKS"])
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(WorkbenchError, match="package index cannot be reached") as caught:
        fetch(resolve("packed"))
    assert caught.value.kind == "no-network"
    assert "passw0rd" not in caught.value.details


def test_cancel_while_a_slow_index_sends(packaged: samples.SampleSource, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, released = wheel_bytes(), threading.Event()

    class SlowIndex(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b'<a href="/wb_tiny_weights-1.0-py3-none-any.whl">wb_tiny_weights-1.0-py3-none-any.whl</a>'
            content = wheel if self.path.endswith(".whl") else page
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if content is page else "application/zip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:2_000_000])
            self.wfile.flush()
            if content is wheel:
                released.wait(60)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowIndex)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # pip writes a quarter of a megabyte at a time.
    job = Recorder(stop=lambda phase, done: done > 10_000)
    try:
        with pytest.raises(JobCancelled):
            fetch(resolve("packed"), job)
    finally:
        released.set()
        server.shutdown()
        server.server_close()
    assert any(0 < done < len(wheel) for phase, done, *_ in job.seen if phase == "download")
    assert left_in_cache() == []


def test_download_ends_with_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
    child = subprocess.Popen(
        [sys.executable, "-m", "workbench.models.download", '{"kind": "hub", "repo": "org/tiny"}'],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    connection, _ = silent.accept()
    assert child.poll() is None
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(timeout=30) == -signal.SIGKILL
    connection.close()
    silent.close()


def test_catalogue_entry_without_a_repository_is_not_fetchable() -> None:
    with pytest.raises(WorkbenchError, match="no place is known") as caught:
        fetch(resolve("llama-30b"))
    assert caught.value.kind == "not-fetchable"


def test_safetensors_are_preferred_and_other_formats_left() -> None:
    names = [
        "config.json",
        "tokenizer.model",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "consolidated.safetensors",
        "original/consolidated.00.pth",
        "onnx/model.onnx",
        "chat_template.jinja",
        "README.md",
    ]
    chosen = set(choose_files(names, [], "org/x"))
    assert chosen == {*names[:5], "chat_template.jinja"}
    pickles = [name for name in names if "safetensors" not in name]
    assert "pytorch_model.bin" in choose_files(pickles, [], "org/x")
    assert choose_files(["a.gguf", "README.md"], [], "org/x") == ["a.gguf"]
    with pytest.raises(WorkbenchError, match="2 GGUF files"):
        choose_files(["a.gguf", "b.gguf"], [], "org/x")
    with pytest.raises(WorkbenchError, match="no model"):
        choose_files(["README.md"], [], "org/x")
