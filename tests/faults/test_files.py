"""Files that are damaged, or places that cannot be written: nothing saved is lost, nothing is overwritten."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.box import Box, one_clear_line, refused
from tests.faults.table import fault
from workbench.errors import WorkbenchError
from workbench.paths import config_dir, state_dir, write_atomic
from workbench.session import protocol
from workbench.settings import load_settings, save_setting, settings_path
from workbench.ui.theme import load_themes, theme_or_fallback

UNWRITABLE = "/sys/workbench"
"""Nobody can make a folder there, root neither."""


def workbench(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "workbench", *arguments], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@fault(
    "settings file damaged",
    "cut TOML, NUL bytes, no UTF-8, wrong types, unknown names, a directory",
    "defaults and one line each; the file is left as it is",
)
def test_settings(tmp_path: Path) -> None:
    path = settings_path()
    path.parent.mkdir(parents=True)
    for content in (
        b"[ui\n",
        b"\0" * 100,
        b"\xff\xfe",
        b'[ui]\ntheme = 3\n[session]\nkeep_model_minutes = "x"\n',
        b"[a]",
    ):
        path.write_bytes(content)
        settings = load_settings()
        assert settings.ui.theme == "dark"
        assert settings.warnings
        assert all("\n" not in line for line in settings.warnings)
        if b"theme" not in content and content != b"[a]":
            with pytest.raises(WorkbenchError) as caught:
                save_setting("ui", "theme", "light")
            one_clear_line(caught.value)
            assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    assert load_settings().warnings


@fault(
    "settings cannot be saved",
    "a file limit of 0 bytes; a home that nobody can write to",
    "said; the old file is whole",
)
def test_settings_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    save_setting("ui", "theme", "dark")
    before = settings_path().read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(WorkbenchError) as caught:
            save_setting("ui", "theme", "light")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(settings_path()) in one_clear_line(caught.value).message
    assert settings_path().read_bytes() == before
    assert os.listdir(settings_path().parent) == ["settings.toml"]
    monkeypatch.setenv("XDG_CONFIG_HOME", UNWRITABLE)
    with pytest.raises(WorkbenchError) as caught:
        save_setting("ui", "theme", "light")
    assert UNWRITABLE in one_clear_line(caught.value).message


@fault(
    "process killed while it saves a file",
    "SIGKILL at eight moments of a stream of saves",
    "the old or the new one, never a mixture",
)
def test_killed_while_saving(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom workbench.paths import write_atomic\n"
        "print(flush=True)\n"
        "for number in range(100000):\n"
        "    write_atomic(Path(sys.argv[1]), bytes([48 + number % 10]) * 300_000)\n"
    )
    target = tmp_path / "kept"
    write_atomic(target, b"0" * 300_000)
    for round_ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.003 * round_ + 0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        data = target.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1


@fault(
    "theme damaged", "no TOML, colours that are none, a name of a path", "the built-in one, and a line that says why"
)
def test_theme() -> None:
    folder = config_dir() / "themes"
    folder.mkdir(parents=True)
    (folder / "cut.toml").write_text("[colors\n")
    (folder / "odd.toml").write_bytes(b"\xff\0")
    (folder / "grey.toml").write_text('name = "grey"\n[colors]\nbackground = "soup"\n')
    for name in ("cut", "odd", "grey", "absent", "../../etc/passwd", "\x1b]0;x\x07"):
        _theme, line = theme_or_fallback(name)
        assert line
        assert "\n" not in line
        assert "\x1b" not in line
    load_themes()


@fault(
    "settings and themes that are no files",
    "a pipe that nobody writes to; a link to /dev/zero; 50 GiB of nothing; a loop of links in the themes' place",
    "not waited for, not read; the defaults and a line that says why",
)
def test_no_files(tmp_path: Path) -> None:
    folder = config_dir() / "themes"
    folder.mkdir(parents=True)
    for path in (settings_path(), folder / "odd.toml"):
        os.mkfifo(path)
        (lines := list(load_settings().warnings)).extend(load_themes().failures)
        path.unlink()
        path.symlink_to("/dev/zero")
        lines += [*load_settings().warnings, *load_themes().failures]
        path.unlink()
        with path.open("wb") as file:
            file.truncate(50 * 2**30)
        lines += [*load_settings().warnings, *load_themes().failures]
        path.unlink()
        assert sum("not a regular file" in line for line in lines) == 2
        assert sum("larger than" in line for line in lines) == 1
    shutil.rmtree(folder)
    folder.symlink_to(folder)
    theme, line = theme_or_fallback("dark")
    assert theme.name == "dark"
    assert "themes" in line or "dark.toml" in line


@fault(
    "history database damaged",
    "noise, half a file, another program's tables",
    "kept under another name, a new one begun, said",
)
async def test_history(box: Box) -> None:
    path = state_dir() / "conversations.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    other = path.with_name("other.db")
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE shopping (item TEXT)")
    db.close()
    damaged = (b"\x00noise" * 2000, other.read_bytes()[:5000], other.read_bytes())
    for number, content in enumerate(damaged, 1):
        for journal in ("-wal", "-shm"):
            Path(f"{path}{journal}").unlink(missing_ok=True)
        path.write_bytes(content)
        client = await box.open()
        listed = await client.ask(protocol.ListConversations(), protocol.ConversationsListed)
        assert listed.conversations == []
        kept = [
            file for file in path.parent.glob("conversations.db.damaged-*") if file.name[-4:] not in ("-wal", "-shm")
        ]
        assert len(kept) == number
        assert any(content[100:4000] in file.read_bytes() for file in kept)
        await client.ask(protocol.Shutdown(force=True), protocol.ShutdownNoted)
        await box.detach()


@fault("history of a newer version", "a higher schema number", "said what to do; the file is not touched")
async def test_newer_history(box: Box) -> None:
    path = state_dir() / "conversations.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    client = await box.open()
    error = await refused(client.ask(protocol.ListConversations(), protocol.ConversationsListed))
    assert error.kind == "store-newer"
    assert path.read_bytes() == before


@fault(
    "home cannot be written",
    "state, configuration and cache in a place of the kernel",
    "commands work; what is not kept is said",
)
async def test_read_only_home(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, UNWRITABLE)
    client = await box.open()
    error = await refused(client.ask(protocol.ListConversations(), protocol.ConversationsListed))
    assert UNWRITABLE in error.message
    counted = await client.ask(
        protocol.CountTokens([{"name": "a", "text": "some words"}], ["tiny-llama"]), protocol.TokensCounted
    )
    assert counted.result


@fault("disk full under the worker", "RLIMIT_FSIZE 0: log, farewell and history cannot grow", "answers; ends in order")
async def test_full_disk(box: Box) -> None:
    client = await box.open()
    assert client.welcome is not None
    resource.prlimit(client.welcome.status.pid, resource.RLIMIT_FSIZE, (0, 0))
    for _ in range(3):
        await client.ask(protocol.ListFamilies(), protocol.FamiliesListed)
    error = await refused(client.ask(protocol.ListConversations(), protocol.ConversationsListed))
    assert str(state_dir()) in error.message
    log = await client.ask(protocol.ReadLog(), protocol.LogRead)
    assert log.path
    await client.ask(protocol.Shutdown(force=True), protocol.ShutdownNoted)


@fault(
    "session log damaged",
    "a directory, a link elsewhere, noise in its place",
    "the session goes on; the link is not followed",
)
async def test_log(box: Box, tmp_path: Path) -> None:
    log = box.files.log
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    log.symlink_to(elsewhere)
    client = await box.open()
    await client.ask(protocol.ReadLog(), protocol.LogRead)
    assert elsewhere.read_text() == "mine"
    log.unlink()
    log.mkdir()
    await client.ask(protocol.ReadLog(), protocol.LogRead)
    log.rmdir()
    log.write_bytes(b"\xff\x00\x1b]0;x\x07" * 1000)
    await client.ask(protocol.ReadLog(), protocol.LogRead)


@fault(
    "model cache damaged", "noise in place of a converted model and of a Hub snapshot", "the file named, or made anew"
)
async def test_cache(box: Box) -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "workbench"
    for folder in (cache, Path(os.environ["HF_HOME"]) / "hub"):
        folder.mkdir(parents=True, exist_ok=True)
    snapshot = Path(os.environ["HF_HOME"]) / "hub" / "models--someone--broken" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_bytes(b"\xff" * 40)
    (snapshot / "config.json").write_text('{"model_type": ')
    (cache / "skeletons").write_bytes(b"\xff")
    client = await box.open()
    listed = await client.ask(protocol.ListModels(), protocol.ModelsListed)
    assert any(model["name"] == "tiny-llama" for model in listed.models)
    one_clear_line(await refused(client.ask(protocol.InspectModel("someone/broken"), protocol.ModelInspected)))


@fault(
    "output of a command closed early", "a closed pipe; a full device", "ends quietly; or one line and a failure code"
)
def test_closed_output(private_home: Path) -> None:
    command = [sys.executable, "-m", "workbench", "--version"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
