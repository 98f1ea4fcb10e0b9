"""Where torch has no wheel, or another one than the index brings: the first thing to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

DATA = Path(__file__).parent.parent / "data" / "doctor"
OFFERED = "ERROR: Could not find a version that satisfies the requirement torch=={asked} (from versions: {offered})\n"


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("no-torch-wheel-for-platform--m2-under-rosetta", "cpython-3.10-macos-aarch64"),
        ("no-torch-wheel-for-platform--title-repeats-the-error", "python -m pip install torch==2.2.2 'numpy<2'"),
        ("no-torch-wheel-for-platform--uv-on-intel-imac", "uv add torch==2.2.2"),
        ("no-torch-wheel-for-platform--cuda-build-on-mac", "torch==2.5.1   # without +cu124"),
        ("aarch64-cpu-only-wheel--old-nano", "torch-1.10.0-cp36-cp36m-linux_aarch64.whl"),
        ("torch-cpu-only--wants-the-cpu", "device='cpu'"),
    ],
)
def test_first_fix_is_for_this_very_machine(name: str, step: str) -> None:
    assert step in first((DATA / f"{name}.txt").read_text(encoding="utf-8")).fix[0]


def test_a_release_older_than_all_that_is_offered_is_not_for_want_of_a_newer_mac() -> None:
    text = OFFERED.format(asked="1.7.1", offered="2.0.0, 2.0.1, 2.1.0, 2.2.1, 2.2.2")
    assert first(f"On my Mac, Python 3.11\n{text}").id == "no-torch-wheel-for-python"


def test_windows_offered_up_to_2_2_2_is_no_intel_mac() -> None:
    text = OFFERED.format(asked="2.4.0", offered="2.2.0, 2.2.1, 2.2.2")
    assert first(f"Windows 11, C:\\Users\\me\\venv\n{text}").id != "no-torch-wheel-for-platform"


def test_a_named_build_on_linux_is_on_another_index_only() -> None:
    text = OFFERED.format(asked="2.5.1+cu124", offered="2.4.1, 2.5.0, 2.5.1, 2.6.0")
    assert first(f"Ubuntu 22.04, Python 3.11.9\n{text}").id == "torch-build-on-another-index"


def test_a_torch_that_the_driver_runs_is_told_apart_from_the_one_that_is_imported() -> None:
    text = (DATA / "driver-too-old-for-wheel-cuda--named-torch-would-run.txt").read_text(encoding="utf-8")
    found = first(text)
    assert "2.2.1+cu118, which is named, runs with this driver" in found.why
    assert not any("450.80" in step for step in found.fix)


@pytest.mark.parametrize(
    ("text", "title", "step"),
    [
        (
            "torch 1.10.1+cu113, torchvision 0.9.0\nRuntimeError: operator torchvision::nms does not exist",
            "torchvision 0.9.0 does not belong to torch 1.10.1",
            "torch_stable.html --no-deps --force-reinstall torchvision==0.11.2+cu113",
        ),
        (
            "torch 2.6.0+cu124\n"
            "NotImplementedError: Could not run 'torchvision::nms' with arguments from the 'CUDA' backend.",
            "torchvision is a build without CUDA, beside torch 2.6.0+cu124",
            "whl/cu124 torch==2.6.0 torchvision==0.21.0",
        ),
    ],
)
def test_torchvision_comes_in_the_release_and_build_of_the_torch_that_is_there(
    text: str, title: str, step: str
) -> None:
    finding = first(f"On Ubuntu 22.04\n{text}\n")
    assert finding.id == "torchvision-torch-mismatch"
    assert finding.title.startswith(title)
    assert step in finding.fix[0]


def test_a_script_that_says_torch_was_built_without_cuda_is_believed() -> None:
    text = (
        "I have an RTX 3060.\nPyTorch version: 2.5.1\nPyTorch built with CUDA: {}\ntorch.cuda.is_available(): False\n"
    )
    assert first(text.format("False")).id == "torch-cpu-only"
    assert first(text.format("True")).id != "torch-cpu-only"
