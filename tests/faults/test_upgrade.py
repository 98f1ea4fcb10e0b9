"""The workbench or the interpreter's packages are upgraded under the running worker."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

import workbench
from tests.faults.box import Box, alive, bare_python, pid_of, refused, until
from tests.faults.table import fault
from workbench.session import protocol
from workbench.session.changes import LOOK_AGAIN_SECONDS


@pytest.fixture
def copy(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workbench that workers of this test run, so that it can be changed under them."""
    target = tmp_path / "installed" / "workbench"
    source = Path(workbench.__file__).parent
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "_data"))
    monkeypatch.setattr(workbench, "__file__", str(target / "__init__.py"))
    return target


@pytest.fixture
def python_with_torch(tmp_path: Path) -> tuple[str, Path]:
    """An interpreter whose environment says that it has torch, and the folder of its packages."""
    python = bare_python(tmp_path / "env")
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (packages / "torch-2.0.dist-info").mkdir()
    (packages / "torch-2.0.dist-info" / "METADATA").touch()
    return python, packages


def upgrade(file: Path, old: str, new: str) -> None:
    """What an upgrade does to a file."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    os.utime(file, (time.time() + 5, time.time() + 5))


async def settled() -> None:
    """Longer than the worker takes what it saw last for true."""
    await asyncio.sleep(LOOK_AGAIN_SECONDS)


@fault(
    "the workbench upgraded under an idle worker",
    "a file of its package rewritten",
    "the next client ends it and starts the new one by itself",
)
async def test_upgraded_idle(box: Box, copy: Path) -> None:
    first = await box.open()
    await box.detach()
    await settled()
    upgrade(copy / "session" / "protocol.py", "class Hello(", "# newer\nclass Hello(")
    second = await box.open()
    assert pid_of(second) != pid_of(first)
    assert second.welcome is not None
    assert not second.welcome.outdated
    await until(lambda: not alive(pid_of(first)))
    third = await box.open()
    assert pid_of(third) == pid_of(second)


@fault(
    "the workbench upgraded under a worker in use",
    "a name that a module not yet imported needs is renamed",
    "one line says that it changed and how to restart; the others keep their session",
)
async def test_upgraded_in_use(box: Box, copy: Path) -> None:
    client = await box.open()
    await settled()
    upgrade(copy / "session" / "handlers" / "architecture.py", "FamiliesListed,\n", "FamiliesListedNow,\n")
    error = await refused(client.ask(protocol.ListFamilies(), protocol.FamiliesListed))
    assert error.kind == "session-outdated"
    assert "architecture.py" in error.message
    assert "session stop" in error.remedy
    assert "FamiliesListedNow" in error.details
    second = await box.open()
    assert pid_of(second) == pid_of(client)
    assert second.welcome is not None
    assert "changed under this session" in second.welcome.outdated
    upgrade(copy / "session" / "handlers" / "architecture.py", "FamiliesListedNow,\n", "FamiliesListed,\n")
    await second.ask(protocol.Shutdown(force=True), protocol.ShutdownNoted)
    await until(lambda: client.lost is not None)


@fault(
    "packages upgraded under an idle worker",
    "a dist-info folder replaced in its environment",
    "the next client starts a new one by itself; a new package alone changes nothing",
)
async def test_packages_upgraded(box: Box, python_with_torch: tuple[str, Path]) -> None:
    python, packages = python_with_torch
    first = await box.open(python=python)
    await box.detach()
    await settled()
    (packages / "extra-1.0.dist-info").mkdir()
    same = await box.open(python=python)
    assert pid_of(same) == pid_of(first)
    (packages / "torch-2.0.dist-info").rename(packages / "torch-2.1.dist-info")
    await settled()
    await box.detach()
    second = await box.open(python=python)
    assert pid_of(second) != pid_of(first)


@fault(
    "packages broken under a worker in use",
    "torch removed from its environment between two requests",
    "one line names the package that changed and how to restart",
)
async def test_packages_broken(box: Box, python_with_torch: tuple[str, Path]) -> None:
    python, packages = python_with_torch
    client = await box.open(python=python)
    await settled()
    shutil.rmtree(packages / "torch-2.0.dist-info")
    error = await refused(client.ask(protocol.LoadModel("tiny-llama"), protocol.ModelLoaded))
    assert error.kind == "session-outdated"
    assert "torch-2.0" in error.message


@fault(
    "a worker of an older version",
    "its version differs from the client's",
    "replaced by itself while idle; kept with its model or with other clients",
)
async def test_older_version(box: Box) -> None:
    first = await box.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "__version__", "999.0")
        assert pid_of(await box.open()) == pid_of(first)
        await box.detach()
        assert pid_of(await box.open()) != pid_of(first)
        await until(lambda: not alive(pid_of(first)))


@fault(
    "the workbench removed under the worker",
    "its folder moved away",
    "what is imported goes on; the rest is one line",
)
async def test_removed(box: Box, copy: Path) -> None:
    whole = copy.parent / "whole"
    client = await box.open()
    await settled()
    copy.rename(whole)
    await client.ask(protocol.GetStatus(), protocol.StatusReported)
    error = await refused(client.ask(protocol.ListFamilies(), protocol.FamiliesListed))
    assert error.kind == "session-outdated"
    whole.rename(copy)
    await box.detach()
