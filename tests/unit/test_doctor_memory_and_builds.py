"""What is typed first where compilers, memory or AMD's cards are at fault, and where nothing of it may be said."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report

DATA = Path(__file__).parent.parent / "data" / "doctor"
FIRST_STEP = {
    "nvcc-torch-cuda-mismatch--frames-cut": "conda install -y -c nvidia/label/cuda-",
    "nvcc-torch-cuda-mismatch--pip-show": "conda activate q",
    "cuda-home-unset--conda-without-version": "conda install -y -c nvidia/label/cuda-",
    "missing-compiler-or-python-headers--python-image": "apt-get update && apt-get install -y build-essential",
    "allocator-fragmentation--old-words": "export PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:512",
    "gpu-memory-held-by-other-process--ranks": "torch.cuda.set_device(int(os.environ['LOCAL_RANK']))",
    "out-of-memory--pictures": "A smaller picture",
    "gpu-memory-not-free-at-start--intel": "ps aux",
    "cuda-wheel-on-amd--web-ui-with-own-builds": "In webui-user.bat: set TORCH_COMMAND=pip install --pre --index-url "
    "https://rocm.nightlies.amd.com/v2/gfx120X-all/ torch",
    "rocm-no-device--wsl-torch-says-no": "rm $(python -c 'import os, torch;",
    "rocm-no-device--wsl-card-not-taken": "Linux on the machine itself",
    "rocm-no-device--in-container": "docker run --device=/dev/kfd",
    "rocm-gfx-unsupported--override-in-vain": "python -m pip uninstall -y torch; python -m pip install --pre",
    "memlock-or-nccl--limits-conf": "echo '* - memlock unlimited'",
}


@pytest.mark.parametrize("name", sorted(FIRST_STEP))
def test_first_step_fits_the_machine(name: str) -> None:
    first = diagnose(parse_report((DATA / f"{name}.txt").read_text(encoding="utf-8"))).findings[0]
    assert first.fix[0].startswith(FIRST_STEP[name]), first.fix


def first_steps(text: str) -> tuple[str, ...]:
    return diagnose(parse_report(text)).findings[0].fix


def test_torch_has_looked_in_the_usual_folder_before_it_complains() -> None:
    unset = "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root."
    assert "apt install -y cuda-toolkit-" in first_steps(unset)[0]
    assert "wsl-ubuntu" in first_steps(f"In WSL2: {unset}")[0]
    assert "module load cuda" in first_steps(f"#SBATCH --gres=gpu:1\n{unset}")[0]
    assert first_steps(f"{unset}\nI already installed CUDA and set the root.")[0].startswith("export CUDA_HOME=$(ls -d")
    assert "cuda-12.1" in first_steps(f"{unset}\nI am sure that cuda12.1 is installed correctly.")[0]
    assert "/usr/local/cuda/bin" in first_steps("nvcc: command not found")[0]


def test_few_and_distant_processes_are_strangers() -> None:
    words = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 256.00 MiB. GPU 0 has a total capacity of 23.64 "
        "GiB of which 115.00 MiB is free. {} Including non-PyTorch memory, this process has 1.61 GiB memory in use. Of "
        "the allocated memory 1.18 GiB is allocated by PyTorch, and 1.34 MiB is reserved by PyTorch but unallocated."
    )
    alone = words.format("Process 2417 has 21.90 GiB memory in use.")
    distant = words.format(" ".join(f"Process {pid} has 7.00 GiB memory in use." for pid in (211, 4180, 90233)))
    assert all("fuser" in first_steps(text)[0] for text in (alone, distant))


def test_little_unused_memory_is_no_fragmentation() -> None:
    words = (
        "CUDA out of memory. Tried to allocate 112.00 MiB (GPU 1; 79.15 GiB total capacity; 77.24 GiB already "
        "allocated; 73.69 MiB free; 77.82 GiB reserved in total by PyTorch)"
    )
    assert diagnose(parse_report(words)).findings[0].id == "out-of-memory"


def test_an_old_nvidia_driver_beside_a_processor_of_amd_stays_one() -> None:
    words = (
        "AMD Ryzen 7 5800H with Radeon Graphics and an NVIDIA GeForce RTX 3060 Laptop GPU\n"
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11010)."
    )
    assert diagnose(parse_report(words)).findings[0].id == "driver-too-old-for-wheel-cuda"


def test_what_a_server_sets_aside_is_told_apart_from_what_a_dead_one_left() -> None:
    aside = "docker镜像启动vllm后，GPU显存一直占用20G左右（不管是否在用）"
    left = "使用vllm运行模型失败后一直占用gpu，将后台任务杀掉之后gpu并没有得到释放"
    assert diagnose(parse_report(aside)).findings[0].id == "server-sets-memory-aside"
    assert diagnose(parse_report(left)).findings[0].id == "gpu-memory-held-by-other-process"


def test_wheels_of_the_project_come_before_another_toolkit() -> None:
    text = (
        "RuntimeError:\n  The detected CUDA version (11.8) mismatches the version that was used to compile\n"
        "  PyTorch (12.4). Please make sure to use the same CUDA versions.\n"
        "  ERROR: Failed building wheel for flash-attn"
    )
    assert first_steps(text)[0].startswith("FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE")
