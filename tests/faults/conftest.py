"""After every row: the session works again, and when it is stopped no process of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.box import Box, end_processes, processes_of, until
from workbench.session.launch import stop_session


@pytest.fixture
async def box(private_home: Path) -> AsyncIterator[Box]:
    """A session of its own; at the end it must answer and leave nothing behind."""
    box = Box()
    yield box
    await box.must_work()
    await box.detach()
    await stop_session(box.name, force=True)
    await box.nothing_left()


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a session that lives as long as the rows of one file; what is left of it fails the last."""
    with Box.shared_environment(tmp_path_factory.mktemp("shared")) as environment:
        yield environment
        runtime = environment["WORKBENCH_RUNTIME_DIR"]
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            asyncio.run(stop_session("shared", force=True))
        try:
            asyncio.run(until(lambda: not processes_of(runtime), "processes are left behind"))
        finally:
            end_processes(processes_of(runtime))


@pytest.fixture
async def shared_box(
    private_home: Path, shared_home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Box]:
    """A session that earlier rows have used already and later ones go on with; it must answer at the end."""
    for variable, value in shared_home.items():
        monkeypatch.setenv(variable, value)
    box = Box("shared")
    yield box
    await box.must_work()
    await box.detach()
