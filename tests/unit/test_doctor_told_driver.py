"""What people tell of the driver in a sentence: releases, CUDA's codes, a kernel that is new."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report


def _first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


@pytest.mark.parametrize(
    ("text", "version", "cuda"),
    [
        ("torch 2.4.0+cu121, nvidia-smi shows CUDA 11.8", None, "11.8"),
        ("my driver only supports CUDA 11.4", None, "11.4"),
        ("I updated the driver to 555.42.06 and now nothing works", "555.42.06", None),
        ("I downgraded from 550.54 to driver 535.104.05", "535.104.05", None),
        ("You should have updated the driver to 555.42.02", None, None),
        ("If nvidia-smi shows CUDA 11.8, take cu118; if nvidia-smi shows CUDA 12.1, take cu121", None, None),
    ],
)
def test_the_driver_is_read_from_a_sentence(text: str, version: str, cuda: str) -> None:
    driver = parse_report(text).driver
    assert (driver.version, driver.cuda) == (version, cuda)


def test_a_torch_that_another_package_brought_is_judged_by_its_own_cuda() -> None:
    found = _first(
        "vllm upgraded my torch from 2.3.0+cu118 to 2.4.0+cu121, nvidia-smi shows CUDA 11.8, "
        "torch.cuda.is_available() is False"
    )
    assert found.id == "driver-too-old-for-wheel-cuda"
    assert "whl/cu118 torch==2.4.0" in " ".join(found.fix)


@pytest.mark.parametrize(
    "text",
    [
        "I upgraded the ubuntu kernel to 6.8 and nvidia-smi stopped working",
        "nvidia-smi no longer works since the kernel update",
        "NVIDIA-SMI has failed",
        "$ dkms status\nnvidia/535.161.07: added",
    ],
)
def test_a_driver_without_its_module_for_the_new_kernel(text: str) -> None:
    assert _first(text).id == "kernel-module-not-loaded"


def test_a_module_that_dkms_has_installed_and_a_kernel_of_cuda_are_no_fault_of_it() -> None:
    for text in (
        "nvidia/535.161.07, 6.8.0-31-generic, x86_64: installed",
        "the new attention kernel is not found on my GPU: CUDA error: no kernel image is available",
    ):
        assert "kernel-module-not-loaded" not in {item.id for item in diagnose(parse_report(text)).findings}


def test_cudnn_that_the_loader_misses_is_told_as_such_whoever_asks() -> None:
    plain = _first("ImportError: libcudnn.so.8: cannot open shared object file: No such file or directory")
    assert plain.id == "cudnn-library-missing"
    assert "nvidia-cudnn-cu12==8" in plain.fix[0]
    whisper = _first("libcudnn.so.8: cannot open shared object file: No such file or directory (faster-whisper 1.0.1)")
    assert "ctranslate2>=4.5" in whisper.fix[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("comfy launch then stops with an error 803 on my linux box", "driver-userspace-mismatch"),
        ("torch in docker: CUDA error code 804", "cuda-compat-on-unsupported-gpu"),
        ("cuda initialization failure 999 after suspend", "cuda-unknown-error"),
        ("nvidia-smi: No devices were found (RTX 3090)", "driver-lists-no-gpu"),
        ("nvidia-smi: No devices were found (RTX 5090)", "gpu-needs-open-kernel-modules"),
    ],
)
def test_a_code_is_known_without_its_words(text: str, found: str) -> None:
    assert _first(text).id == found


def test_a_number_that_is_no_code_of_cuda_is_none() -> None:
    for text in ("The mean error 803.5 is far too high", "error: step 803 of 1000 was slow", "loss error=0.804"):
        assert not {"driver-userspace-mismatch", "cuda-compat-on-unsupported-gpu"} & {
            finding.id for finding in diagnose(parse_report(text)).findings
        }
