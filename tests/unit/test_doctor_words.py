"""What a paste says in few words: each message with the finding it must give, and a like one that must not give it."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.parse.report import parse_report

SMI = "| NVIDIA-SMI {0}    Driver Version: {0}    CUDA Version: {1} |\n"
BLIND = "Pytorch does not see GPUs\n"
CONDA = "conda install pytorch torchvision {} -c pytorch\n"
LIBCUDA = "Could not load library libcudnn_cnn_infer.so.8. Error: {}: cannot open shared object file\n"

FIRES = {
    "a driver of CUDA 10.1, a toolkit of 10.2": (
        "driver-too-old-for-wheel-cuda",
        BLIND + CONDA.format("cudatoolkit=10.2") + SMI.format("418.67", "10.1"),
    ),
    "the CUDA of an index": (
        "driver-too-old-for-wheel-cuda",
        BLIND
        + "pip install torch --index-url https://download.pytorch.org/whl/cu121\n"
        + SMI.format("470.82.01", "11.4"),
    ),
    "libcuda in WSL, where torch works": (
        "libcuda-not-visible",
        'Ubuntu Subsystem on Windows\ntorch.cuda.is_available() returns True\n"' + LIBCUDA.format("libcuda.so") + '"',
    ),
}
SILENT = {
    "a driver of CUDA 11.4 runs 11.8 too": (
        "driver-too-old-for-wheel-cuda",
        BLIND + CONDA.format("pytorch-cuda=11.8") + SMI.format("470.82.01", "11.4"),
    ),
    "two commands, and nobody knows which one counts": (
        "driver-too-old-for-wheel-cuda",
        BLIND + CONDA.format("pytorch-cuda=12.1") + CONDA.format("pytorch-cuda=11.8") + SMI.format("470.82.01", "11.4"),
    ),
    "cuDNN itself is what is missing": (
        "libcuda-not-visible",
        "In WSL 2\n" + LIBCUDA.format("libcudnn_cnn_infer.so.8"),
    ),
}


def judged(text: str) -> Report:
    return diagnose(parse_report(text))


@pytest.mark.parametrize("name", FIRES)
def test_the_first_finding_is_the_cause(name: str) -> None:
    expected, text = FIRES[name]
    assert [finding.id for finding in judged(text).findings][:1] == [expected]


@pytest.mark.parametrize("name", SILENT)
def test_a_like_message_does_not_give_it(name: str) -> None:
    unexpected, text = SILENT[name]
    assert unexpected not in [finding.id for finding in judged(text).findings]


def test_no_verdict_of_health_over_a_failure_that_no_rule_takes() -> None:
    line = "RuntimeError: libcuda.so.1: cannot open shared object file: No such file or directory"
    assert judged(line + "\ntorch.cuda.is_available() returns True").verdict == "degraded"
    assert judged("Warning, ignored: " + line + "\ntorch.cuda.is_available() returns True").verdict == "healthy"
