"""Room and places: which disk or memory ran out, and which Python, pip or package a step has to reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

DATA = Path(__file__).parent.parent / "data" / "doctor"


def _first(name: str) -> Finding:
    return diagnose(parse_report((DATA / f"{name}.txt").read_text(encoding="utf-8"))).findings[0]


def _findings(text: str) -> list[Finding]:
    return list(diagnose(parse_report(text)).findings)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("no-torch-wheel-for-python--windows-3-13-asks-for-2-5-1", "uv venv --seed --python 3.12"),
        ("no-torch-wheel-for-python--compatible-release-on-3-12", "uv venv --seed --python 3.11"),
        ("gpu-memory-not-free-at-start--a-little-too-little", "--gpu-memory-utilization 0.89"),
        ("gpu-memory-not-free-at-start--the-card-of-somebody-else", "who holds the other 78.6 GiB"),
        ("hf-cache-disk-full--while-an-image-is-built", "docker system prune"),
        ("hf-cache-disk-full--swift-maps-a-data-set", "export MODELSCOPE_CACHE="),
        ("hf-cache-disk-full--the-session-s-tmpfs", "export TMPDIR="),
        ("shm-too-small--arrays-of-multiprocessing", "--ipc=host"),
        ("pip-of-another-environment--conda-envs-take-from-each-other", "conda install -y python pip"),
        ("stale-notebook-kernel--told-in-words", "Restart session"),
        ("torch-wheel-lacks-gpu-arch--out-of-the-nix-store", "nix flake update"),
        ("torch-wheel-lacks-gpu-arch--in-a-packed-program", "Take a newer release of this program"),
        ("allocator-fragmentation--some-unused-for-a-small-request", "expandable_segments:True"),
    ],
)
def test_the_first_step_reaches_what_is_full_or_old(name: str, step: str) -> None:
    assert step in _first(name).fix[0]


def test_no_other_card_is_advised_by_the_number_of_the_one_in_use() -> None:
    found = _first("gpu-memory-not-free-at-start--the-card-of-somebody-else")
    assert found.title.endswith("0.61 of 79.25 GiB")
    assert not any("CUDA_VISIBLE_DEVICES=1" in step for step in found.fix)


def test_the_full_tmpfs_is_named() -> None:
    assert _first("hf-cache-disk-full--the-session-s-tmpfs").title.startswith("/run/user/1001 is full")


def test_the_rows_of_df_say_nothing_of_which_disk_is_full() -> None:
    found = _findings(
        "OSError: [Errno 28] No space left on device\n"
        "tmpfs           3.2G  100K  3.2G   1% /run/user/1000\n/dev/sda1        98G   98G     0 100% /\n"
    )[0]
    assert found.id == "hf-cache-disk-full"
    assert "tmpfs" not in found.title


def test_linux_has_torch_2_5_for_python_3_13() -> None:
    report = (
        "Ubuntu 22.04, Python 3.13.1\n"
        "RuntimeError: CUDA error: no kernel image is available for execution on the device\n"
        "ERROR: Could not find a version that satisfies the requirement torch==2.4.1 (from versions: 2.5.0, 2.5.1)\n"
    )
    wheel = next(item for item in _findings(report) if item.id == "no-torch-wheel-for-python")
    assert "--python 3.12" in wheel.fix[0]


def test_a_path_below_a_folder_is_no_packed_program() -> None:
    text = (DATA / "torch-wheel-lacks-gpu-arch--in-a-packed-program.txt").read_text(encoding="utf-8")
    found = _findings(text.replace("torch\\", "C:\\Users\\me\\torch-env\\Lib\\site-packages\\torch\\"))[0]
    assert "Take a newer release" not in found.fix[0]


@pytest.mark.parametrize(
    "text",
    [
        # Restarted in vain: something else is the matter.
        "On Colab after I restarted the runtime the import still shows the old version, though pip install worked.",
        # A plain question on environments.
        "How do I install torch into a conda env with pip?",
    ],
)
def test_what_is_no_stale_kernel_and_no_foreign_pip(text: str) -> None:
    assert {item.id for item in _findings(text)} & {"stale-notebook-kernel", "pip-of-another-environment"} == set()


def test_kaggle_lends_a_newer_card_in_place_of_a_p100() -> None:
    found = _findings(
        'File "/kaggle/working/train.py", line 12, in <module>\nTesla P100-PCIE-16GB, torch 2.10.0+cu128\n'
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device\n"
    )[0]
    assert "GPU T4 x2" in found.fix[0]


def test_a_mac_in_one_word_has_no_cuda() -> None:
    found = _findings("AssertionError: Torch not compiled with CUDA enabled\nsame here on a Macbookpro\n")[0]
    assert "Mac" in found.title


def test_old_bitsandbytes_beside_cuda_10_needs_a_newer_torch_too() -> None:
    found = _findings(
        "CUDA SETUP: Required library version not found: libbitsandbytes_cuda100.so. Maybe you need to compile it "
        "from source?\nCUDA SETUP: Defaulting to libbitsandbytes.so...\n"
        "CUDA SETUP: CUDA detection failed! Possible reasons:\n"
    )[0]
    assert any("torch.version.cuda" in step for step in found.fix)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("numpy-older-than-build--torch-says-numpy-is-not-available", 'install -U "numpy<2"'),
        ("no-wheel-for-this-platform--uv-tool-of-a-newer-python", "uv tool run --python 3.12"),
        ("no-wheel-for-this-platform--uv-on-a-mac-with-3-13", "uv python pin 3.12"),
        ("no-wheel-for-this-platform--poetry-with-3-12", "poetry env use 3.11"),
        ("no-torch-wheel-for-platform--poetry-leaves-only-the-processor", "torch==2.2.2"),
        ("gpu-memory-held-by-other-process--in-chinese", "fuser -v /dev/nvidia*"),
    ],
)
def test_a_step_is_for_the_installer_and_the_side_that_has_to_move(name: str, step: str) -> None:
    assert any(step in word for word in _first(name).fix[:2])


def test_apple_s_own_processor_is_not_taken_for_intel_s() -> None:
    text = (DATA / "no-torch-wheel-for-platform--poetry-leaves-only-the-processor.txt").read_text(encoding="utf-8")
    assert _findings(text.replace("osx 14.5", "macOS 14.5, Apple M2"))[0].id == "no-wheel-for-this-platform"


def test_numpy_2_is_told_from_an_older_one_by_its_number() -> None:
    found = _findings(
        "UserWarning: Failed to initialize NumPy: module compiled against ABI version 0x1000009 but this version of "
        "numpy is 0x2000000 (Triggered internally at ../torch/csrc/utils/tensor_numpy.cpp:77.)\n"
        "RuntimeError: Numpy is not available\n"
    )[0]
    assert found.id == "numpy2-with-old-torch"


def test_an_old_numpy_that_is_told_of_is_not_called_numpy_2() -> None:
    text = "RuntimeError: Numpy is not available\nOSX, pip installed torch (v. 1.10.1) and numpy(1.21.4)."
    found = _findings(text)[0]
    assert "NumPy 2 is installed" not in found.title
    assert "1.21.4" in found.title
