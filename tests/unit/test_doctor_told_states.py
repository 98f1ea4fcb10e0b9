"""States and errors that people tell in a sentence where a program would have printed them."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report
from workbench.doctor.tables import table

TOLD = {
    "My torch was built without CUDA, so training on the 3090 is slow.": "torch-cpu-only",
    "nvidia-smi shows the A100 but torch.version.cuda prints None.": "torch-cpu-only",
    "This conda environment has the cpuonly package in it.": "torch-cpu-only",
    "It is a 32-bit Python on Windows: no version satisfies the requirement torch": "python-32-bit",
    "CUDA_VISIBLE_DEVICES=-1 stood in my bashrc; torch.cuda.device_count() is 0.": "cuda-visible-devices-wrong",
    "MIG is enabled, but no instances were created; torch finds nothing": "mig-without-instances",
    "After the kernel update the nvidia module is missing.": "kernel-module-not-loaded",
    "GLIBC_2.32 not found when importing bitsandbytes on Ubuntu 20.04": "glibc-too-old",
    "GLIBCXX_3.4.29 not found, in a conda environment": "libstdcxx-too-old",
    "docker run without --gpus all, and then: Found no NVIDIA driver": "container-without-gpu-runtime",
    "In my docker container nvidia-smi is not found, on the host it works.": "container-without-gpu-runtime",
    "flash-attn does not install on Windows as there is no nvcc": "cuda-home-unset",
    "I installed llama-cpp-python without CMAKE_ARGS, n_gpu_layers is ignored": "llama-cpp-built-for-cpu",
    "TensorFlow 2.15, Windows without WSL: the GPU list is empty.": "tensorflow-without-gpu",
    "pip list has onnxruntime and onnxruntime-gpu; only CPUExecutionProvider": "gpu-libraries-of-another-framework",
    "xformers asks torch 2.1.0, I have 2.2.0: xFormers can't load C++/CUDA extensions": "xformers-torch-mismatch",
    "Python 3.13 and torch 2.4: no matching distribution found": "no-torch-wheel-for-python",
    "The Colab runtime is set to CPU, and 4-bit loading fails.": "colab-without-gpu",
    "cuda is True as root but False as normal user": "gpu-device-not-allowed",
    "I compiled bitsandbytes with cmake and got only libbitsandbytes_cpu.so": "bnb-source-install-not-compiled",
    "The safetensors file is 134 bytes, I cloned it without lfs": "weights-file-incomplete",
    "libcudnn_ops_infer.so.8 could not be loaded (faster-whisper)": "cudnn-library-missing",
    "On Windows torch.compile says that cl.exe is not found": "msvc-missing",
    "Our NFS home has its quota exceeded while the model downloads": "hf-cache-disk-full",
    "tokenizers 0.20 is installed, transformers asks for >=0.21": "tokenizers-pin-conflict",
    "SFTTrainer doesn't know the argument tokenizer any more": "package-versions-do-not-fit",
    "TrainingArguments does not accept evaluation_strategy any more": "package-versions-do-not-fit",
    "load_in_8bit is no longer accepted by from_pretrained": "package-versions-do-not-fit",
    "bnb 0.38 on Windows says it was compiled without GPU support": "bnb-too-old-for-windows",
    "On the login node torch.cuda.is_available() is False": "cuda-visible-devices-wrong",
    "Tesla M40, torch 2.9 cu128: CUDA error: no kernel image is available": "torch-wheel-lacks-gpu-arch",
    "Our driver is 535.183, the newest wheel of torch (cu130) does not find the GPU": "driver-too-old-for-wheel-cuda",
    "I pulled vllm/vllm-openai:latest, but the server's driver 525 is too old for it": "driver-too-old-for-wheel-cuda",
    "The container requires cuda>=12.4, the host has driver 535": "driver-too-old-for-image",
    "The driver supports CUDA 12.2, my image is based on nvidia/cuda:12.6.": "driver-too-old-for-image",
    "prime-select is on intel here, nvidia-smi finds no device": "optimus-gpu-asleep",
    "The second GPU vanished from nvidia-smi over night.": "gpu-fallen-off-the-bus",
    "When both cards are under load the machine reboots.": "machine-loses-power",
    "nvidia-persistenced isn't running, each start takes 30 s": "gpu-starts-slowly",
    "GH200: pip install torch brought a CPU only torch": "aarch64-cpu-only-wheel",
    "DGX Spark: vllm says no kernel image": "no-kernel-image",
    "H100 with torch 1.12 cu113: sm_90 is not in the list": "torch-wheel-lacks-gpu-arch",
    "mps doesn't support float64 on my Mac": "mps-has-no-float64",
    "Intel Mac from 2019: there is no torch newer than 2.2": "no-torch-wheel-for-platform",
    "ROCm 6.0 was installed but torch is for rocm 5.4.2: segfault": "rocm-versions-mixed",
    "The venv was moved to another folder, pip: bad interpreter": "environment-was-moved",
    "There are both conda's pytorch and pip's torch in one env": "duplicate-torch-installs",
    "With sudo pip was it installed, and my user can't import torch": "pip-of-another-environment",
    "Jupyter uses another python than my terminal": "two-interpreters",
    "The docker build has no GPU, so flash-attn finds no CUDA devices": "gpu-asked-while-building-image",
    "CUDA fails to start only inside the systemd service": "gpu-device-not-allowed",
    "CUDA gives unknown error after suspend": "cuda-unknown-error",
    "CUDA out of memory, but a zombie process holds 20 GB": "gpu-memory-held-by-other-process",
    "Other users' jobs take the whole memory of GPU 0": "gpu-memory-held-by-other-process",
    "My NVMe is mounted read-only, the cache cannot be written": "hf-home-unwritable",
    "The token is invalid: 401 whoami-v2": "hf-token-invalid",
}
SOUND = (
    "If torch was built without CUDA, reinstall it; mine is fine.",
    "I set CUDA_VISIBLE_DEVICES=-1 to force the CPU, and that works.",
    "Install the driver 570 or newer before you start.",
    "I tried docker run without --gpus all, same error.",
    "AVX = 1 | AVX2 = 1 | BLAS = 0 | SSE3 = 1",
    "This guide needs no nvcc.",
    "git lfs is not needed for the model.",
    "After the update of the driver the PC restarts, and all works.",
    "The container needs CUDA 12.4, and it works on my host.",
)


def test_every_row_has_a_sentence_here() -> None:
    rows = table("told")["told"]
    assert len(rows) <= len(TOLD)


@pytest.mark.parametrize("text", TOLD)
def test_state_is_taken_from_a_sentence(text: str) -> None:
    assert diagnose(parse_report(f"{text}\n")).findings[0].id == TOLD[text]


@pytest.mark.parametrize("text", SOUND)
def test_no_state_is_taken_from_what_is_supposed_done_on_purpose_or_a_program(text: str) -> None:
    diagnosis = diagnose(parse_report(f"{text}\n"))
    assert not [finding.id for finding in diagnosis.findings if finding.severity == "error"]


def test_printed_facts_come_before_told_ones() -> None:
    printed = "PyTorch version: 2.5.1+cu124\nIs CUDA available: True\nCUDA used to build PyTorch: 12.4\n"
    facts = parse_report(printed + "Another colleague's torch was built without CUDA.\n")
    assert facts.torch.build == "cuda"
