"""What a paste tells of torch and its GPU without a list of versions: the cause, what is not it, and the command."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.parse.report import parse_report

OLD_OOM = (
    "CUDA out of memory. Tried to allocate 4.00 GiB (GPU 0; 10.73 GiB total capacity; 4.41 GiB already allocated; "
    "1.75 GiB free; {} cached)"
)
UP_TO_THE_LAST = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.5.1 (from versions: 2.2.0, 2.2.1, 2.2.2)"
)
OFFERED = "ERROR: Could not find a version that satisfies the requirement torch==2.0.1+cu118 (from versions: {})"
NO_CUDA = "CUDA available: False\nCUDA devices: 0\nPyTorch version: 1.10.0\nCUDA version: {}\n"
CUDNN = "with torch=1.6 and cuda={}: RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
MAC = (
    "On a mid-2014 MacBook Pro with NVIDIA GeForce 750M, CUDA driver 410.130\nAssertionError: Found no NVIDIA driver "
    "on your system."
)
CONDA = "`conda install -c pytorch pytorch=1.9.0 torchvision cudatoolkit={}`, then torch.cuda.is_available=False"

FIRES = {
    "a script prints torch.version.cuda": ("torch-cpu-only", NO_CUDA.format("None")),
    "True from the torch of another Python": (
        "torch-cpu-only",
        "In the notebook `torch.cuda.is_available()` returns `True`, in a script False\nPyTorch version: 1.13.1\n"
        "Is debug build: False\nCUDA used to build PyTorch: Could not collect\nOS: Ubuntu 20.04",
    ),
    "conda has no such build": ("torch-cpu-only", CONDA.format("11.3")),
    "an old torch in its own words": (
        "torch-cpu-only",
        "RuntimeError: Cannot initialize CUDA without ATen_cuda library",
    ),
    "a program in its own words": ("no-cuda-gpus-available", "RuntimeError: PyTorch is not able to access CUDA"),
    "a sentence only": ("no-cuda-gpus-available", "I have CUDA 12.2, my gpu is supported, but can't run on cuda"),
    "a sentence in Chinese": ("no-cuda-gpus-available", "装好了，但是无法使用gpu，一直是cpu"),
    "a Mac has no CUDA": ("torch-cpu-only", MAC),
    "a name that PyPI does not have": ("torch-build-on-another-index", OFFERED.format("1.13.1, 2.0.0, 2.0.1, 2.1.0")),
    "NCCL's invalid usage": (
        "two-processes-on-one-gpu",
        "RuntimeError: NCCL error in: ProcessGroupNCCL.cpp:957, invalid usage, NCCL version 21.0.3",
    ),
    "empty files of the driver": (
        "container-driver-files-empty",
        "ImportError: /usr/lib/x86_64-linux-gnu/libcuda.so.1: file too short",
    ),
    "an operator of torchvision": (
        "torchvision-torch-mismatch",
        "RuntimeError: Failed to register operator torchvision::_new_empty_tensor_op. The symbolic name must match",
    ),
    "a head too large for the card": (
        "flash-backward-needs-datacenter-gpu",
        "RuntimeError: Expected is_sm80 || is_sm90 to be true, but got false.",
    ),
    "cuDNN of CUDA 10": ("torch-wheel-lacks-gpu-arch", CUDNN.format("10.1")),
    "a card beside a processor's graphics": (
        "no-cuda-gpus-available",
        "Windows 11, integrated Radeon 780m and a dedicated 4070, pytorch does not see my GPU",
    ),
    "only the index of the CPU was asked": (
        "torch-cpu-only",
        "In wsl it automatically installs the cpu version of torch\nuv pip install torch==2.6.0 --index-url "
        "https://download.pytorch.org/whl/cpu",
    ),
    "a card newer than most": (
        "no-kernel-image",
        "GPU 0: NVIDIA H100 PCIe\nRuntimeError: CUDA error: no kernel image is available for execution on the device",
    ),
    "a module in other words": ("module-missing", "# Bug\n No module found transformers\n"),
    "memory in words beside a template": (
        "gpu-memory-full-told",
        'Not enough memory for Qwen3-30B-A3B on RTX4090 24 Gb\n    # token = "hf_...", # use one if using gated models '
        "like meta-llama/Llama-2-7b-hf\n)",
    ),
    "a voice program in Chinese": ("no-cuda-gpus-available", "Win11, RTX 3060, 很遗憾您这没有能用的显卡来支持您训练"),
    "a web UI's warning": (
        "no-cuda-gpus-available",
        "F:\\ui>python server.py --load-in-8bit\nWarning: no GPU has been detected.\nGigabyte RTX 4080",
    ),
    "the wrong build in Chinese": ("no-cuda-gpus-available", "自动安装的torch选择的是cpu版，有显卡的电脑"),
    "a cut traceback below a sentence": (
        "no-cuda-gpus-available",
        'Said my GPU is unable to run Torch.\nTraceback (most recent call last):\n  File "C:\\ui\\launch.py", line 3',
    ),
    "a build's traceback without its end": (
        "build-isolation-hides-torch",
        "pip install unsloth xformers gives ModuleNotFoundError: No module named 'torch'\n\nerror (here below):\n\n\n\n"
        '  File "C:\\Temp\\pip-build-env-b2gf9a1h\\overlay\\Lib\\build_meta.py", line 333, in '
        "get_requires_for_build_wheel",
    ),
    "a worker that was killed": (
        "host-memory-exhausted",
        "RuntimeError: DataLoader worker (pid 4161) is killed by signal: Killed.",
    ),
    "a download that breaks off": (
        "download-broke-off",
        "WARNING: Connection timed out while downloading.\nERROR: Could not install packages due to an OSError: "
        "[WinError 32] Another program is using this file",
    ),
    "a full disk, cut": ("hf-cache-disk-full", "OSError: [Errno 28] No space left on devi"),
    "two libraries of two versions": (
        "torch-import-broken",
        "    from torch._C import *\nImportError: /e/site-packages/torch/_C.cpython-36m-x86_64-linux-gnu.so: undefined "
        "symbol: nvrtcGetProgramLogSize",
    ),
    "kernels for LoRA in vLLM": (
        "lora-kernels-need-newer-gpu",
        "vllm/model_executor/models/qwen2.py, punica.py RuntimeError: CUDA error: no kernel image is available, V100",
    ),
    "WSL and a card that it does not take": (
        "wsl-shows-no-gpu",
        "nvidia-container-cli: initialization error: WSL environment detected but no adapters were found: unknown",
    ),
    "sound, and a cut traceback": (
        "torchcodec-does-not-load",
        'Traceback (most recent call last):\n  File "/e/torchcodec/_core/_metadata.py", line 16, in <module>\n'
        "    from torchcodec._core.ops import (",
    ),
    "memory of an old torch": ("out-of-memory", OLD_OOM.format("3.78 GiB")),
    "memory of an old torch, held by others": ("gpu-memory-held-by-other-process", OLD_OOM.format("0.20 GiB")),
    "a checkout hides the installed torch": (
        "started-in-unbuilt-source",
        '  File "torch/__init__.py", line 48, in <module>\nImportError: No module named _dl',
    ),
    "the system's Python has no library": (
        "python-library-missing",
        '  File "/home/u/.local/lib/python3.7/site-packages/torch/__init__.py", line 81, in <module>\n'
        "ImportError: libpython3.7m.so.1.0: cannot open shared object file: No such file or directory",
    ),
    "8 bits over several cards": (
        "data-parallel-by-accident",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (511x2 and 3x4096)\n4xV100, load_in_8bit=True",
    ),
    "uv syncs first": ("uv-took-another-torch", "each `uv run` reinstalls torch to a version without cuda"),
    "uv saw no driver": (
        "uv-took-another-torch",
        "uv pip install vllm --torch-backend=auto\nthere are 4 GPUs, and it installs torch==2.7.1+cpu",
    ),
}
SILENT = {
    "a number is some CUDA's": ("torch-cpu-only", NO_CUDA.format("10.2")),
    "conda has this build": ("torch-cpu-only", CONDA.format("11.1")),
    "an index with such names": (
        "torch-build-on-another-index",
        OFFERED.format("2.1.0+cu118, 2.1.1+cu118, 2.2.0+cu118"),
    ),
    "a card of CUDA 10's time": ("torch-wheel-lacks-gpu-arch", "RTX 2080 Ti " + CUDNN.format("10.1")),
    "cuDNN of CUDA 11": ("torch-wheel-lacks-gpu-arch", CUDNN.format("11.8")),
    "an old card": ("torch-wheel-lacks-gpu-arch", "GTX 1080 " + CUDNN.format("10.1")),
    "a build for the CPU that nobody complains of": (
        "torch-cpu-only",
        "pip install torch==2.6.0 --index-url https://download.pytorch.org/whl/cpu\nValueError: a bug of my own",
    ),
    "a card of AMD's": (
        "no-cuda-gpus-available",
        "Ryzen 7 with Radeon RX 7900 XTX, torch is 2.6.0 from the rocm index",
    ),
    "kernels for the model in vLLM": (
        "lora-kernels-need-newer-gpu",
        "vllm/worker.py RuntimeError: CUDA error: no kernel image is available, V100",
    ),
    "a torch that is missing": (
        "build-isolation-hides-torch",
        "ModuleNotFoundError: No module named 'torch'\nBuilding wheels for x in pip-build-env-a1b2c3 done",
    ),
    "a file in use": ("download-broke-off", "Could not install packages due to an OSError: [WinError 32] in use"),
    "a full card is no missing one": ("no-cuda-gpus-available", "can't run on gpu: RuntimeError: CUDA out of memory."),
    "the installed torch is broken itself": (
        "started-in-unbuilt-source",
        '  File "/v/site-packages/torch/__init__.py", line 9, in <module>\nImportError: No module named torch._C',
    ),
    "shapes on one card": (
        "data-parallel-by-accident",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (511x2 and 3x4096)\nload_in_8bit=True",
    ),
    "uv takes what it should": (
        "uv-took-another-torch",
        "uv pip install vllm --torch-backend=auto\n4 GPUs, and it installs torch==2.7.1+cu128",
    ),
}


def judged(text: str) -> Report:
    return diagnose(parse_report(text))


@pytest.mark.parametrize("name", FIRES)
def test_the_first_finding_is_the_cause(name: str) -> None:
    expected, text = FIRES[name]
    assert [finding.id for finding in judged(text).findings][:1] == [expected]


@pytest.mark.parametrize("name", SILENT)
def test_a_like_report_does_not_give_it(name: str) -> None:
    unexpected, text = SILENT[name]
    assert unexpected not in [finding.id for finding in judged(text).findings]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (
            "torch==2.1.0\nThe detected CUDA version (11.8) mismatches the version that was used to compile PyTorch "
            "(12.1). Please make sure to use the same CUDA versions.",
            "whl/cu118 torch==2.1.2",
        ),
        (
            "The detected CUDA version (12.2) mismatches the version that was used to compile\nPyTorch (11.3). Please "
            "make sure to use the same CUDA versions.",
            "whl/cu126 torch",
        ),
        (
            "Unable to load any of {libcudnn_cnn.so.9.1.0, libcudnn_cnn.so.9.1, libcudnn_cnn.so.9, libcudnn_cnn.so}",
            "&& export LD_LIBRARY_PATH=",
        ),
        (
            "Linux x 4.9.140-tegra aarch64, Jetson Nano, Python version: 3.6.9\n"
            "ERROR: No matching distribution found for onnxruntime-gpu",
            "Jetson_Zoo",
        ),
        (
            "ImportError: dlopen(/v/site-packages/torch/_C.cpython-38-darwin.so, 2): Library not loaded: "
            "@rpath/libc++.1.dylib",
            "install -U torch",
        ),
        (
            "ImportError: dlopen(/v/site-packages/torch/_C.cpython-37m-darwin.so, 9): Symbol not found: "
            "_mkl_serv_inspector_loaded",
            "conda install -y --force-reinstall mkl",
        ),
        ("torch==2.8.0 torchcodec==0.9\nRuntimeError: Could not load libtorchcodec.", "torchcodec==0.7"),
        (
            "D:\\x> docker run\ninitialization error: load library failed: libnvidia-ml.so.1: no such file",
            "WSL 2 based",
        ),
        ("runpod, RTX A6000: Found no NVIDIA driver on your system", "another one"),
        ("DataLoader worker (pid 41) is killed by signal: Killed.", "num_workers=2"),
        ("RuntimeError: CUDA error: invalid device ordinal\nusing world size: 2", "torchrun --nproc_per_node"),
        ("Collecting torch\n  Downloading torch.whl\nOSError: [Errno 28] No space left on device", "TMPDIR=~/tmp"),
        ("CUDA out of memory\nmodel = AutoModel.from_pretrained('x')", "The model in fewer bits"),
        ("CUDA out of memory\n loss.backward()", "gradient accumulation"),
        ("torch==1.12.1+cu113, Torch is not able to use GPU", "nvidia-smi   # must list the GPU"),
        (NO_CUDA.format("None"), "torch==1.10.0+cu113"),
        (CONDA.format("11.3"), "cudatoolkit=11.1"),
        (OFFERED.format("2.0.0, 2.0.1"), "--index-url https://download.pytorch.org/whl/cu118 torch==2.0.1"),
        (
            "torch==2.5.1+cu121\nModuleNotFoundError: No module named 'torchaudio'",
            'whl/cu121 "torchaudio==2.5.*" torch==',
        ),
        ("ImportError: No module named torchvision", 'torchvision "torch==$(python -c'),
        (f"MacBook Pro M3\n{UP_TO_THE_LAST}", "macos-aarch64"),
        (f"an old MacBook\n{UP_TO_THE_LAST}", "torch==2.2.2"),
        ("On a GB200 machine (aarch64) pip install torch resulted in the CPU version of torch", "whl/cu128"),
    ],
)
def test_the_fix_is_for_this_machine(text: str, step: str) -> None:
    assert any(step in line for line in judged(text).findings[0].fix)


@pytest.mark.parametrize(
    ("text", "alpine"),
    [
        ("FROM python:3.12-alpine\n", True),
        ("FROM node:20-alpine AS web\nFROM python:3.12-slim\n", False),
        ("docker run -it --rm python:3.12-alpine sh\n", True),
        ("It works in python:3.12-slim, unlike in alpine.\n", False),
    ],
)
def test_an_image_tells_its_system(text: str, alpine: bool) -> None:
    assert (parse_report(text + OFFERED.format("none")).platform.libc == "musl") is alpine


def test_an_alpine_image_is_no_fault_where_torch_is_not_missed() -> None:
    said = judged("FROM python:3.12-alpine\nModuleNotFoundError: No module named 'yaml'")
    assert "musl-alpine" not in [finding.id for finding in said.findings]
