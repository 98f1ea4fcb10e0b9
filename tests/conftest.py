"""Every test has a home, a runtime directory and a cache of its own; those that need the real model ask for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.launch import SessionOptions, open_session, stop_session
from workbench.session.lock import session_names

SAMPLE = "smollm2-135m-instruct"


def test_cache() -> Path:
    """Downloads and conversions kept between test runs."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workbench-tests"
    return Path(os.environ.get("WORKBENCH_TEST_CACHE") or default)


test_cache.__test__ = False  # type: ignore[attr-defined]
SHARED_CACHE = test_cache().absolute()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that load models or drive the program come first: no process is left alone with a long one."""
    heavy = {item.path for item in items if any(item.iter_markers("model")) or any(item.iter_markers("e2e"))}
    items.sort(key=lambda item: item.path not in heavy)


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home, XDG folders and a runtime directory that nobody else has; workers started in it end with the test."""
    # The path of a Unix socket must stay under 108 bytes, which tmp_path does not promise.
    runtime = Path(tempfile.mkdtemp(prefix="wb-"))
    for variable, folder in (
        ("HOME", "home"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_STATE_HOME", "state"),
        ("HF_HOME", "hf"),
    ):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.setenv("WORKBENCH_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for variable in ("NO_COLOR", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    if any(runtime.iterdir()):
        monkeypatch.setenv("WORKBENCH_RUNTIME_DIR", str(runtime))
        for name in session_names():
            with contextlib.suppress(WorkbenchError):
                asyncio.run(stop_session(name, force=True))
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(scope="session")
def libraries() -> None:
    """The model libraries, imported and left out of garbage collection, which every unload does."""
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import bitsandbytes  # noqa: F401
        import transformers.models.llama.modeling_llama  # noqa: F401
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """The real SmolLM2-135M-Instruct as a directory of bf16 safetensors, fetched and converted once."""
    pytest.importorskip("torch")
    from workbench.models.gguf_convert import ensure_directory
    from workbench.models.resolve import resolve

    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(SHARED_CACHE)
    try:
        return Path(ensure_directory(resolve(SAMPLE)))
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def shared_cache(smollm2_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets workers of this test find the real model by its sample name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(SHARED_CACHE))
    return SHARED_CACHE


Opener = Callable[..., Awaitable[SessionClient]]


@pytest.fixture
async def session_opener(private_home: Path) -> AsyncIterator[Opener]:
    """Opens clients of a real worker process and closes them after the test."""
    opened: list[SessionClient] = []

    async def opener(watch: bool = False, **options: object) -> SessionClient:
        settings = SessionOptions(**{"name": "test", **options})  # type: ignore[arg-type]
        client = await open_session(settings, client="test", watch=watch, sanitize=False)
        opened.append(client)
        return client

    yield opener
    for client in opened:
        await client.close()
