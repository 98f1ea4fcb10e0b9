"""Programs with GPU code of their own: what is told of them is not told of torch."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.other_programs import PROGRAMS
from workbench.doctor.parse.report import parse_report
from workbench.doctor.tables import faults, message_of


@pytest.mark.parametrize(
    ("text", "finding", "said"),
    [
        ("LM Studio does not detect my GPU. Windows 11, RTX 4070", "program-sees-no-gpu", "Ctrl+Shift+R"),
        ("koboldcpp is not using my GPU, linux mint", "program-sees-no-gpu", "--gpulayers"),
        ("GPT4All isn't using the GPU", "program-sees-no-gpu", "gpt4all[cuda]"),
        ("whisper.cpp built with make: GPU is not used, RTX 3080", "program-sees-no-gpu", "-DGGML_CUDA=1"),
        ("GPU not detected by tensorflow 2.15, Windows 11", "tensorflow-without-gpu", '"tensorflow<2.11"'),
        ("tensorflow does not use the GPU of my MacBook Pro", "tensorflow-without-gpu", "tensorflow-metal"),
        ("jax doesn't see my GPU, ubuntu 22.04", "jax-without-cuda", "jax[cuda12]"),
        ("paddleocr does not use GPU, paddlepaddle 2.6 is here", "program-sees-no-gpu", "paddlepaddle-gpu"),
        ("xgboost: GPU not used", "program-sees-no-gpu", 'device="cuda"'),
        ("jellyfin does not detect the GPU", "program-sees-no-gpu", "nvidia-smi"),
        (
            "ollama of conda-forge: https://anaconda.org/conda-forge/ollama\nGPU is not used during inference",
            "ollama-without-gpu-runners",
            "build='*cuda*'",
        ),
    ],
)
def test_a_program_without_torch_is_helped_by_its_own_means(text: str, finding: str, said: str) -> None:
    findings = diagnose(parse_report(text + "\n")).findings
    assert [found.id for found in findings] == [finding]
    assert said in "\n".join(findings[0].fix)
    assert "torch" not in findings[0].title


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("my torch does not see the GPU, and neither does LM Studio", "no-cuda-gpus-available"),
        ("ComfyUI with onnxruntime: GPU not detected", "no-cuda-gpus-available"),
        (
            "LM Studio does not detect my GPU, Ubuntu\n$ nvidia-smi\nNVIDIA-SMI has failed because it couldn't "
            "communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.",
            "kernel-module-not-loaded",
        ),
    ],
)
def test_torch_and_a_driver_that_is_down_come_first(text: str, finding: str) -> None:
    assert diagnose(parse_report(text + "\n")).findings[0].id == finding


def test_every_program_that_is_known_has_a_row() -> None:
    told = {message_of(row) for row in faults()}
    assert {f"{name or 'program'}-sees-no-gpu" for name, _ in PROGRAMS} <= told


@pytest.mark.parametrize(
    ("text", "id", "step"),
    [
        (
            "ImportError: DLL load failed while importing _pywrap_tensorflow_internal: x",
            "tensorflow-does-not-load",
            "VC",
        ),
        ("transformers/utils\nFailed to load the native TensorFlow runtime.", "tensorflow-in-the-way", "uninstall"),
        (
            "docker, alpine 3.6\nImportError: Error relocating /usr/lib/python2.7/site-packages/tensorflow/python/"
            "_pywrap_tensorflow_internal.so: __sprintf_chk: symbol not found",
            "musl-alpine",
            "Debian or Ubuntu image",
        ),
    ],
)
def test_tensorflow_that_does_not_load_is_transformers_concern_only_where_that_is_named(
    text: str, id: str, step: str
) -> None:
    found = diagnose(parse_report(f"{text}\n")).findings
    assert [each.id for each in found if each.caused_by is None] == [id]
    assert step in found[0].fix[0]


@pytest.mark.parametrize(
    ("text", "id", "step"),
    [
        (
            "cmake finished without errors, then: llama-server -m a.gguf -ngl 99\n"
            "warning: no usable GPU found, --gpu-layers option will be ignored\n"
            "warning: one possible reason is that llama.cpp was compiled without GPU support\n",
            "llama-cpp-built-for-cpu",
            "type -a llama-server",
        ),
        (
            "from llama_cpp import Llama\nwarning: no usable GPU found, --gpu-layers option will be ignored\n",
            "llama-cpp-built-for-cpu",
            "nvcc --version",
        ),
        (
            "container nvcr.io/nvidia/tritonserver:24.05-py3\nModuleNotFoundError: No module named 'tensorrt_llm'\n",
            "image-without-this-backend",
            "-trtllm-python-py3",
        ),
        (
            "ImportError: /home/u/.local/lib/python3.10/site-packages/sgl_kernel/common_ops.abi3.so: undefined symbol: "
            "_ZN3c104cuda9SetDeviceEa\nPyTorch: 2.9.0.dev20250722+cu128\nsglang: 0.4.9.post2\ntriton: 3.3.1\n",
            "extension-built-for-other-torch",
            "sglang[all]==",
        ),
    ],
)
def test_the_program_that_runs_decides_what_is_typed(text: str, id: str, step: str) -> None:
    found = diagnose(parse_report(text)).findings
    assert [each.id for each in found if each.caused_by is None] == [id]
    assert step in found[0].fix[0]
