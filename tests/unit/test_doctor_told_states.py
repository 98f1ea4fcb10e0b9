"""States and errors that people tell in a sentence where a program would have printed them."""

from __future__ import annotations

import re

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
    "vLLM stopped: the KV cache got no memory, another vllm is on the same card": "gpu-memory-not-free-at-start",
    "24 GB and 128k context: it says to reduce max model len": "context-larger-than-kv-cache",
    "sglang does not find flashinfer": "flashinfer-missing",
    "The TGI shard failed, docker has only 64 MB shm": "shm-too-small",
    "llama.cpp server was compiled without CUDA so -ngl has no effect": "llama-cpp-built-for-cpu",
    "ollama ps shows 100% CPU; my driver is 450": "ollama-finds-no-gpu",
    "start_linux.sh of text-generation-webui installed the CPU version": "torch-cpu-only",
    "ComfyUI portable: torch got 2.9 cu130 while my driver is 546": "driver-too-old-for-wheel-cuda",
    "xformers is built for torch 2.3.1 while there is torch 2.4": "xformers-torch-mismatch",
    "whisperx wants cudnn 8 and torch 2.6 brings cudnn 9": "cudnn-library-missing",
    "In the docker image flash attention 2 isn't installed": "flash-attn-missing",
    "LLaMA-Factory requires trl<=0.9.6, I've trl 0.14": "transformers-pin-conflict",
    "deepspeed on Windows cannot be built: async_io misses libaio": "deepspeed-without-aio",
    "NCCL times out at the first all-reduce": "collective-timed-out",
    "torchrun: the address is already in use 29500": "port-in-use",
    "The rdma devices are not visible in my container": "rdma-not-in-container",
    "2 nodes with different torch versions hang": "machines-of-different-versions",
    "GPUDirect does not work, nvidia_peermem isn't loaded": "peer-memory-not-loaded",
    "ACS is enabled in the BIOS, and P2P between the GPUs hangs": "gpus-do-not-exchange-data",
    "I can't pickle a local object with num_workers on Windows": "workers-cannot-be-pickled",
    "On Windows: An attempt has been made to start a new process": "main-guard-missing",
    "bf16 isn't supported on my T4, training with bf16=True fails": "bf16-unsupported-gpu",
    "A GPTQ model needs optimum and gptqmodel": "gptq-library-missing",
    "AWQ isn't supported on compute capability 7.0": "awq-needs-turing",
    "flash_attn undefined symbol after I upgraded torch": "flash-attn-built-for-other-torch",
    "mamba-ssm wheel for another torch: undefined symbol": "extension-built-for-other-torch",
    "The driver went from 535 to 550 and now CUDA does nothing until a reboot": "driver-library-version-mismatch",
    "CUDA_HOME is /usr/local/cuda-11.8 though torch is cu121, apex fails": "nvcc-torch-cuda-mismatch",
    "apt replaced my driver with 560, which doesn't support my K80": "gpu-too-old-for-driver",
    "With the open kernel modules my 1080 Ti (Pascal) is not detected": "gpu-too-old-for-open-modules",
    "The P40 does not start: Above 4G decoding is disabled": "gpu-without-address-range",
    "GPU passthrough in Proxmox: error 43 in the Windows guest": "windows-stopped-the-gpu",
    "In the VM torch complains about AVX, the cpu type is kvm64": "cpu-lacks-instructions",
    "vGPU without a licence gets slow": "vgpu-without-licence",
    "podman: no GPU in the container, CDI wasn't generated": "container-finds-no-cdi-device",
    "kubectl describe node doesn't list nvidia.com/gpu": "cluster-has-no-free-gpu",
    "The GPU operator's driver pod crashes, the host already has a driver": "driver-module-in-use",
    "Singularity without --nv: torch doesn't see cuda": "container-without-gpu-runtime",
    "After daemon-reload the container loses the GPU": "container-lost-gpu",
    "libnccl.so.2 undefined symbol ncclCommRegister": "nvidia-wheel-version-mismatch",
    "torch 1.13.1 with python 3.11 on Windows can't be found": "no-torch-wheel-for-python",
    "uv sync replaced my cu124 torch by another": "uv-took-another-torch",
    "pytorch-cuda=12.1 pulls pytorch 2.1 py3.11_cpu_0": "torch-cpu-only",
    "On the login node __cuda is missing": "conda-sees-no-driver",
    "My GPU is an RTX 4070, and torch was compiled as 2.3.1+cpu.": "torch-cpu-only",
    "The swap is full when I merge the LoRA": "main-memory-full-told",
    "unsloth needs a GPU with capability of 7.0, mine is a P40": "app-needs-newer-compute-capability",
    "The driver is 470 and the wheel is for CUDA 13.0": "driver-too-old-for-wheel-cuda",
    "Docker Desktop shows no GPU since its WSL integration is off": "docker-desktop-without-wsl",
    "docker from snap doesn't see the nvidia GPU": "engine-finds-no-driver",
    "I mounted /usr/lib/x86_64-linux-gnu into the container, and now nothing starts": "host-libraries-in-container",
    "The libcuda of the image is older than the host's": "driver-userspace-mismatch",
    "iJIT_NotifyEvent after conda install pytorch": "mkl-too-new-for-torch",
    "poetry takes torch from PyPI": "poetry-takes-torch-from-pypi",
    "My pip is 9.0.1 and finds no wheel": "pip-too-old",
    "pypi is unreachable from the GPU node": "package-index-not-reached",
    "The compute nodes have no internet; from_pretrained hangs": "node-without-internet",
    "The wheel for sentencepiece isn't there for Python 3.13": "no-matching-distribution",
    "The rust compiler is missing for the wheel of tokenizers": "rust-missing",
    "I copied the folder, but config.json isn't found": "model-files-missing",
    "My model path is wrong: Repo id must be something else": "model-folder-not-there",
    "The tokenizer.model file is missing after the conversion": "tokenizer-files-missing",
    "ChatGLM's tokenizer has no attribute sp_tokenizer": "model-code-too-old",
    "datasets can't load the script of a dataset any more": "datasets-without-scripts",
    "torch.load: weights_only error since 2.6": "checkpoint-refused-by-weights-only",
    "torchcodec can't find the libs of ffmpeg": "torchcodec-does-not-load",
    "merge_and_unload is not possible with 8 bit": "adapter-not-merged-into-quantized",
    "The peft config has an unexpected key 'corda_config'": "peft-import-error",
    "An adapter trained with peft 0.15 can't be loaded with 0.6": "peft-import-error",
    "wandb asks for login and the script hangs in Slurm": "tracker-asks-for-a-key",
    "pandas and numpy are binary incompatible": "numpy2-with-old-torch",
    "apply_chat_template doesn't exist in my transformers 4.30": "transformers-older-than-chat-templates",
    "fp8 fails on a 3090": "fp8-needs-newer-gpu",
    "evaluate.load('rouge') can't connect": "hub-hard-to-reach",
    "np.float is gone": "numpy-too-new-for-package",
    "pkg_resources is gone from setuptools 80": "setuptools-mismatch",
    "pyarrow has no attribute PyExtensionType": "package-versions-do-not-fit",
    "tensorboard isn't installed, the Trainer fails": "tensorboard-missing",
    "einops / timm missing for the remote code of the model": "module-missing",
    "Unrecognized model type gemma3, transformers is 4.47": "transformers-too-old-for-model",
    "ROCm says no supported GPU on my 5700 XT; rocminfo lists gfx1010": "rocm-gfx-unsupported",
    "rocBLAS: no Tensile files for gfx1032": "rocm-gfx-unsupported",
    "amdgpu-install failed because kernel 6.11 isn't supported": "amd-module-not-built",
    "The iGPU (gfx1036) is selected instead of my 7900XTX": "integrated-gpu-comes-first",
    "torch.xpu does not find my Arc, the level-zero driver is missing": "xpu-not-available",
    "intel_extension_for_pytorch 2.1 with torch 2.3: incompatible versions": "ipex-of-another-torch",
    "torch_npu and torch versions don't match": "torch-npu-not-the-paired-one",
    "Under Rosetta python is x86_64, mps is not there": "intel-python-on-mac",
    "Docker on my Mac has no GPU": "container-finds-no-cdi-device",
    "Windows on ARM (Snapdragon): no torch wheel": "no-torch-wheel-for-platform",
    "My antivirus deleted a DLL of cublas": "antivirus-removes-file",
    "pip install on Windows: path too long": "windows-long-paths",
    "Windows: torch.distributed, and there is no NCCL": "nccl-not-on-this-system",
    "The kernel ends: the launch timed out": "gpu-watchdog",
    "An alpine image can't install torch": "musl-alpine",
    "The slim image lacks gcc": "missing-compiler-or-python-headers",
    "Slurm job killed: exceeded memory limit": "main-memory-full-told",
    "The job asks for 1 GPU but the script uses tensor parallel 4": "parallel-size-larger-than-machine",
    "conda is not activated in the sbatch script": "two-interpreters",
    "module load cuda/11.2 sets LD_LIBRARY_PATH and torch fails": "ld-library-path-shadows-nvidia-wheels",
    "Colab: after pip install of numpy a restart is needed": "stale-notebook-kernel",
    "torch was upgraded by pip install of another, torchvision mismatches": "torch-replaced-by-install",
    "flash-attn build fails, CUDA 12.1 nvcc vs torch 12.4": "nvcc-torch-cuda-mismatch",
}
FACTS = {
    "LD_LIBRARY_PATH points to /usr/local/cuda-11.2/lib64": ("environment", "LD_LIBRARY_PATH"),
    "nvcc comes from apt, version 10.1": ("toolkit", "nvcc"),
    "It has an Intel UHD only, and the program wants CUDA": ("platform", "gpu_vendors"),
    "pip uses Python 2.7": ("errors", "package-of-python-2"),
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
    "Ollama runs on the CPU of my Mac as it should.",
    "bf16 is not slower there.",
    "wandb is not needed, and tensorboard is installed.",
    "torch has no effect on that, numpy no longer has this problem.",
    "pip 25.3 found all wheels.",
)


def test_every_row_has_a_sentence_here() -> None:
    rows = [re.compile(row["says"], re.I | re.ASCII) for row in table("told")["told"]]
    assert [row.pattern for row in rows if not any(map(row.search, [*TOLD, *FACTS]))] == []


@pytest.mark.parametrize("text", TOLD)
def test_state_is_taken_from_a_sentence(text: str) -> None:
    assert diagnose(parse_report(f"{text}\n")).findings[0].id == TOLD[text]


@pytest.mark.parametrize("text", FACTS)
def test_fact_is_taken_from_a_sentence(text: str) -> None:
    section, name = FACTS[text]
    told = getattr(parse_report(f"{text}\n"), section)
    names = [error.id for error in told] if section == "errors" else told
    assert name in names if isinstance(names, (list, dict)) else getattr(told, name)


@pytest.mark.parametrize("text", SOUND)
def test_no_state_is_taken_from_what_is_supposed_done_on_purpose_or_a_program(text: str) -> None:
    diagnosis = diagnose(parse_report(f"{text}\n"))
    assert not [finding.id for finding in diagnosis.findings if finding.severity == "error"]


def test_printed_facts_come_before_told_ones() -> None:
    printed = "PyTorch version: 2.5.1+cu124\nIs CUDA available: True\nCUDA used to build PyTorch: 12.4\n"
    facts = parse_report(printed + "Another colleague's torch was built without CUDA.\n")
    assert facts.torch.build == "cuda"
