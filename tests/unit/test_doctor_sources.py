"""Reports as files: their encodings, the numbers of their lines, and what of them differs from another."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.doctor.compare import compare
from workbench.doctor.diagnose import diagnose
from workbench.doctor.facts import DriverFacts, Facts, GpuFacts, PlatformFacts, TorchFacts
from workbench.doctor.parse.clean import MAX_CHARACTERS
from workbench.doctor.parse.report import parse_report
from workbench.doctor.source import decode_report, read_report
from workbench.doctor.system import _disk
from workbench.errors import WorkbenchError

MESSAGE = "AssertionError: Torch not compiled with CUDA enabled"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_encoding_of_a_shell_is_read(encoding: str, tmp_path: Path) -> None:
    text = f"安装了CUDA\r\nPyTorch version: 2.4.0+cpu\r\n{MESSAGE}\r\n"
    path = tmp_path / "report.txt"
    path.write_bytes(text.encode(encoding))
    assert read_report(path) == text
    assert parse_report(decode_report(text.encode(encoding))).torch.version == "2.4.0+cpu"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_no_text_is_refused_and_not_called_healthy(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "report.bin"
    path.write_bytes(random.Random(seed).randbytes(50_000) + MESSAGE.encode())
    with pytest.raises(WorkbenchError, match="no text"):
        read_report(path)
    path.write_bytes(zlib.compress(MESSAGE.encode() * 3 + bytes(range(256))))
    with pytest.raises(WorkbenchError, match="no text"):
        read_report(path)


@pytest.mark.parametrize("text", ["\x1b[31mERROR\x1b[0m\r  5%\b\b\b\x07", "安装了CUDA却看不到显卡", "\0\0\0\0", ""])
def test_logs_of_a_terminal_are_text_in_any_encoding(text: str) -> None:
    for encoding in ("utf-8", "gb18030", "utf-16", "utf-16-le"):
        assert decode_report(f"{text}\n{MESSAGE}".encode(encoding)).endswith(MESSAGE)


def test_line_numbers_are_those_of_the_file() -> None:
    bar = "\r".join(f"{percent}%" for percent in range(100))
    for before in ("x" * 9000, bar, "a\r\n\r\nb\r", "\\n".join("abc" for _ in range(3000)), "\n" * MAX_CHARACTERS):
        text = f"{before}\n{MESSAGE}\nend"
        [error] = parse_report(text).errors
        assert text.split("\n")[error.line - 1] == MESSAGE


def test_a_file_system_without_blocks_is_not_full() -> None:
    disk = _disk("HF cache", Path("/proc/sys"))
    assert (disk.free_bytes, disk.free_inodes) == (None, None)
    report = diagnose(Facts(platform=PlatformFacts(system="Linux", disks=(disk,))))
    assert "hf-cache-disk-full" not in {finding.id for finding in report.findings}


def test_a_difference_explains_only_the_fault_that_it_makes() -> None:
    gpu = GpuFacts(index=0, name="NVIDIA L4", vendor="nvidia", compute_capability="8.9")
    good = Facts(
        platform=PlatformFacts(system="Linux", machine="x86_64"),
        torch=TorchFacts(installed=True, version="2.8.0+cu128", build="cuda", cuda="12.8"),
        driver=DriverFacts("570.133.20", "12.8"),
        gpus=(gpu,),
        packages={"torch": "2.8.0+cu128", "numpy": "2.2.0"},
    )
    bad = replace(
        good,
        torch=TorchFacts(installed=True, version="2.8.0+cpu", build="cpu"),
        driver=DriverFacts("580.95.05", "13.0"),
        packages={"torch": "2.8.0+cpu", "numpy": "2.2.1"},
    )
    explained = {item.name for item in compare(good, bad) if item.explains}
    assert explained == {"torch.version", "torch.build"}
    old = replace(good, driver=DriverFacts("470.82.01", "11.4"))
    explained = {item.name for item in compare(old, replace(bad, torch=good.torch)) if item.explains}
    assert explained == {"driver.version", "driver.cuda"}


@pytest.mark.model
def test_a_missing_native_library_is_no_function() -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    # In a process of its own, as always: it leaves half of bitsandbytes behind.
    code = "from workbench.doctor.probe import probe_bitsandbytes; print(probe_bitsandbytes()['library'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("libbitsandbytes_")
