"""A session that was started long ago examines what its client sees now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Opener
from workbench.doctor.environment import carried_environment
from workbench.session import protocol

SECRET = "hf_abcdefghijklmnopqrstuv"
TORCH_TELLS_ITS_ENVIRONMENT = """
import json, os, sys
raise ImportError("SEEN" + json.dumps([dict(os.environ), sys.path]))
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    torch = next(folder.glob("lib/python3.*/site-packages")) / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text(TORCH_TELLS_ITS_ENVIRONMENT)
    (torch / "version.py").write_text("__version__ = '2.9.0+cu128'\ncuda = '12.8'\n")
    return folder


def seen_by_torch(report: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    told = report["facts"]["torch"]["import_error"].partition("SEEN")[2]
    environ, path = json.loads(told)
    return environ, path


async def test_the_environment_is_the_clients_and_not_the_workers(
    session_opener: Opener, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "peft-0.9.0.dist-info").mkdir(parents=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "of_the_start")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    client = await session_opener(name="old", python=str(venv / "bin" / "python"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("PIP_INDEX_URL", "https://ada:hunter2@index/simple")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    request = protocol.Diagnose(environment=carried_environment(os.environ))
    assert SECRET not in str(request)
    assert "hunter2" not in str(request)
    report = (await client.ask(request, protocol.Diagnosed)).report
    shown = report["facts"]["environment"]
    assert shown["CUDA_VISIBLE_DEVICES"] == ""
    assert shown["HF_TOKEN"] == "***"
    assert shown["PYTHONPATH"] == str(elsewhere)
    for name in ("TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_NO_ADVISORY_WARNINGS"):
        assert name not in shown
    assert "PYTORCH_CUDA_ALLOC_CONF" not in shown
    assert report["facts"]["packages"]["peft"] == "0.9.0"
    environ, path = seen_by_torch(report)
    assert environ["CUDA_VISIBLE_DEVICES"] == ""
    assert environ["PYTHONPATH"] == path[0] == str(elsewhere)
    assert not {"PYTORCH_CUDA_ALLOC_CONF", "HF_TOKEN", "PIP_INDEX_URL", "TOKENIZERS_PARALLELISM"} & environ.keys()
    assert client.files is not None
    for file in client.files.log.parent.rglob("*"):
        assert not file.is_file() or SECRET not in file.read_bytes().decode("utf-8", "replace")


async def test_an_interpreter_too_old_for_a_worker_is_examined_by_its_files(
    session_opener: Opener, tmp_path: Path
) -> None:
    prefix = tmp_path / "legacy"
    packages = prefix / "lib" / "python3.7" / "site-packages"
    (packages / "torch").mkdir(parents=True)
    (packages / "torch" / "__init__.py").write_text("raise SystemExit('never run')")
    (packages / "torch" / "version.py").write_text("__version__ = '1.13.1+cu117'\ncuda = '11.7'\n")
    (packages / "transformers-4.30.2.dist-info").mkdir()
    (prefix / "pyvenv.cfg").write_text("home = /usr\nversion = 3.7.16\n")
    (prefix / "bin").mkdir()
    python = prefix / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 9\n")
    python.chmod(0o755)
    client = await session_opener()
    request = protocol.Diagnose(False, {}, files_of=str(python))
    report = (await client.ask(request, protocol.Diagnosed)).report
    assert report["facts"]["torch"]["version"] == "1.13.1+cu117"
    assert report["facts"]["packages"]["transformers"] == "4.30.2"
    assert report["facts"]["python"]["version"] == "3.7.16"
    finding = next(item for item in report["findings"] if item["id"] == "python-too-old-to-run")
    assert str(python) in finding["fix"][0]
