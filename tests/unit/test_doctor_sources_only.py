"""Packages that come as sources, and setups that a newer Python no longer runs: what to type first."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

FAILED = "error: subprocess-exited-with-error\n  × Getting requirements to build wheel did not run successfully.\n"


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


@pytest.mark.parametrize(
    ("text", "title", "step"),
    [
        (
            "Python 3.10, Ubuntu 22.04\n  ERROR: Failed building wheel for fairseq\n",
            "fairseq comes as sources only",
            "sudo apt install build-essential python3.10-dev",
        ),
        (
            "  ERROR: Failed building wheel for openai-whisper\n",
            "openai-whisper comes",
            "pip install -U openai-whisper",
        ),
        (
            f"pip install basicsr\n{FAILED}      KeyError: '__version__'\n",
            "The setup of basicsr is too old for Python 3.13",
            "uv venv --seed --python 3.12",
        ),
        (
            f"pip install openai-whisper==20240930\n{FAILED}      KeyError: '__version__'\n",
            "The setup of openai-whisper is too old",
            "pip install -U openai-whisper",
        ),
        (
            "Windows 10, Python 3.11\n  ERROR: Failed building wheel for webrtcvad\n"
            "error: Microsoft Visual C++ 14.0 or greater is required.\n",
            "A package wants to be compiled",
            "pip install webrtcvad-wheels",
        ),
    ],
)
def test_no_step_asks_for_a_wheel_that_the_index_has_not(text: str, title: str, step: str) -> None:
    finding = first(text)
    assert finding.title.startswith(title)
    assert step in finding.fix[0]
    assert not any("--only-binary" in each for each in finding.fix)


def test_what_has_wheels_is_still_taken_as_one() -> None:
    assert "--only-binary :all: pyarrow" in first("  ERROR: Failed building wheel for pyarrow\n").fix[0]


def test_whisper_that_computes_on_the_processor_beside_a_gpu_has_a_torch_without_cuda() -> None:
    said = "transcribe.py:115: UserWarning: FP16 is not supported on CPU; using FP32 instead\n"
    assert first(said + "I have a RTX 3060\n").id == "no-cuda-gpus-available"
    assert not diagnose(parse_report(said)).findings


def test_ctranslate2_names_its_own_cuda_not_that_of_torch() -> None:
    text = "RuntimeError: CUDA {}driver version is insufficient for CUDA runtime version\n"
    ours = first("faster_whisper\n" + text.format("failed with error CUDA "))
    assert "CTranslate2" in ours.title
    assert any("ctranslate2<4" in step for step in ours.fix)
    assert "CTranslate2" not in first(text.format("")).title


def test_deepspeed_on_windows_compares_its_toolkit_with_a_torch_that_has_none() -> None:
    text = (
        "C:\\Users\\u\\vall-e> pip install deepspeed\nRequirement already satisfied: torch in c:\\u\\py (1.13.1)\n"
        "  Using cached deepspeed-0.7.7.tar.gz (712 kB)\n  Preparing metadata (setup.py) ... error\n"
        '  error: subprocess-exited-with-error\n    op_builder\\builder.py", line 89, in assert_no_cuda_mismatch\n'
    )
    assert "compares the CUDA toolkit" in first(text).title
    assert "compares the CUDA toolkit" not in first(text.replace("(1.13.1)", "(1.13.1+cu117)")).title


def test_a_release_with_a_wheel_comes_before_the_tools_for_one_without() -> None:
    text = (
        "Windows 11, Python 3.12\npip install sentencepiece\n  Using cached sentencepiece-0.1.99.tar.gz (2.6 MB)\n"
        f"{FAILED}ModuleNotFoundError: No module named 'cmake'\n"
    )
    finding = first(text)
    assert "--only-binary :all: sentencepiece" in finding.fix[0]
    assert any("install cmake" in step for step in finding.fix[1:])
