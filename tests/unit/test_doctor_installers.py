"""Installers and their surroundings in pasted reports: conda, WSL, notebooks, PowerShell."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report


def roots(text: str) -> list[Finding]:
    return [finding for finding in diagnose(parse_report(f"{text}\n")).findings if finding.caused_by is None]


@pytest.mark.parametrize(
    ("text", "id", "step"),
    [
        (
            "On Kaggle, I get:\nRuntimeError: No GPU found. A GPU is needed for quantization.",
            "colab-without-gpu",
            "Kaggle: Settings, Accelerator",
        ),
        (
            "On Kaggle: pip install trl\nWARNING: Retrying (Retry(total=4)) after connection broken by "
            "'NewConnectionError': Temporary failure in name resolution: /simple/trl/",
            "name-not-resolved",
            "Settings, Internet on",
        ),
        (
            "bash: nvidia-smi: command not found   (WSL2, Ubuntu, RTX 4070 on Windows 11)",
            "nvidia-smi-missing",
            "/usr/lib/wsl/lib/nvidia-smi",
        ),
        (
            "feature:/linux-64::__cuda==11.4=0\n  - pytorch -> __cuda >=12\nYour version: __cuda==11.4",
            "conda-sees-an-old-driver",
            "Update the NVIDIA driver",
        ),
        ("pip._vendor.urllib3.exceptions.IncompleteRead", "download-broke-off", "--timeout 120"),
        (
            ".\\venv\\Scripts\\activate : File cannot be loaded because running scripts is disabled on this system.",
            "powershell-refuses-scripts",
            "Set-ExecutionPolicy -Scope CurrentUser RemoteSigned",
        ),
    ],
)
def test_first_step_is_that_of_the_place(text: str, id: str, step: str) -> None:
    found = roots(text)
    assert [finding.id for finding in found] == [id]
    assert step in found[0].fix[0]


def test_a_gpu_that_quantization_misses_elsewhere_is_no_notebooks_setting() -> None:
    assert roots("RuntimeError: No GPU found. A GPU is needed for quantization.")[0].id == "bitsandbytes-unusable"


@pytest.mark.parametrize(
    ("text", "id", "step"),
    [
        (
            "k8s: the pod runs, but nvidia-smi: command not found",
            "container-without-gpu-runtime",
            "resources.limits: {nvidia.com/gpu: 1}",
        ),
        (
            "apptainer: torch.cuda.is_available() is False in the container, nvidia-smi works on the node",
            "container-without-gpu-runtime",
            "--nv",
        ),
        (
            "Jetson Nano, JetPack 4.6, Python 3.8\nimport torch\nImportError: libcudart.so.10.2: cannot open shared "
            "object file: No such file or directory",
            "extension-built-for-other-cuda",
            "cat /etc/nv_tegra_release",
        ),
        (
            "CentOS Linux 7.9.2009 (Core)\nImportError: /lib64/libstdc++.so.6: version `GLIBCXX_3.4.26' not found "
            "(required by /home/u/venv/lib/python3.9/site-packages/torch/_C.so)",
            "libstdcxx-too-old",
            "conda create -y -p ~/libstdcxx",
        ),
    ],
)
def test_first_step_is_that_of_the_cluster_or_the_board(text: str, id: str, step: str) -> None:
    found = roots(text)
    assert found[0].id == id
    assert step in found[0].fix[0]


@pytest.mark.parametrize(
    ("text", "id", "step"),
    [
        (
            "cudaGetDeviceCount returned 35 -> CUDA driver version is insufficient for CUDA runtime version",
            "driver-too-old-for-wheel-cuda",
            "Update the NVIDIA driver",
        ),
        (
            "error C1189: #error:  -- unsupported Microsoft Visual Studio version! Only the versions between 2017 and "
            "2022 (inclusive) are supported!",
            "host-compiler-too-new-for-nvcc",
            "CUDA 12.4 or newer",
        ),
        (
            "dmesg: NVRM: Xid 119, Timeout after 6s of waiting for RPC response from GPU0 GSP",
            "gsp-does-not-answer",
            "sudo reboot",
        ),
    ],
)
def test_a_toolkit_without_torch_gets_no_step_for_torch(text: str, id: str, step: str) -> None:
    found = roots(text)
    assert found[0].id == id
    assert step in found[0].fix[0]
    assert not any("pip" in each or "apt install gcc" in each for each in found[0].fix)
