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
    "memlock-or-nccl--create-qp": "echo '* - memlock unlimited'",
    "memlock-or-nccl--in-a-slurm-job": "echo '* - memlock unlimited'",
    "build-isolation-hides-torch--cpu-torch-on-windows": "python -m pip install setuptools wheel ninja packaging",
    "cuda-home-unset--nvcc-runs-and-torch-does-not-look": 'python -c "import torch; print(torch.__version__',
    "cuda-home-unset--cuda-by-anaconda": "conda install -y -c nvidia/label/cuda-",
    "cuda-home-unset--said-to-be-set-on-windows": "$env:CUDA_HOME = (Get-ChildItem",
    "triton-missing-or-wrong--common-with-a-space": "python -m pip install -U --index-url",
    "triton-missing-or-wrong--common-from-a-checkout": "git pull   # in the checkout of unsloth",
    "triton-missing-or-wrong--gone-on-windows": "C:\\apps\\ComfyUI_windows_portable\\python_embeded\\python.exe -m pip "
    'install "triton-windows<3.3"',
    "flash-attn-built-for-other-torch--dll-alone": "python -m pip uninstall -y flash-attn",
    "missing-compiler-or-python-headers--sgl-image": "apt-get update && apt-get install -y build-essential python$(",
    "torchvision-torch-mismatch--xformers-names-the-torch": "python -m pip install --index-url "
    "https://download.pytorch.org/whl/cu121 torch==2.1.0 torchvision",
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


def test_what_is_asked_to_be_set_is_not_said_to_be_set() -> None:
    unset = "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root."
    asked = f"{unset}\nFailed to build. Please set CUDA_HOME or CUDA_PATH to your toolkit and try again."
    assert diagnose(parse_report(asked)).findings[0].title.endswith("there is no toolkit")


def test_on_linux_the_torch_of_a_build_is_one_with_cuda() -> None:
    text = (
        '  File "/tmp/pip-build-env-ab12cd34/overlay/lib/python3.11/site-packages/torch/utils/a.py", line 1\n'
        "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root."
    )
    assert diagnose(parse_report(text)).findings[0].id == "cuda-home-unset"


def test_a_queue_pair_that_is_not_permitted_is_no_matter_of_locked_memory() -> None:
    text = "misc/ibvwrap.cc:160 NCCL WARN Call to ibv_create_qp failed with error Operation not permitted"
    assert not any("locked memory (ulimit" in finding.title for finding in diagnose(parse_report(text)).findings)


def test_wheels_of_flash_attn_for_windows_are_looked_for_where_there_are_some() -> None:
    steps = first_steps((DATA / "flash-attn-built-for-other-torch--dll-alone.txt").read_text(encoding="utf-8"))
    assert "flash-attention-prebuild-wheels" in steps[1]
    assert not any("Dao-AILab/flash-attention/releases" in step for step in steps)


def test_in_a_slurm_job_no_docker_is_asked_for() -> None:
    steps = first_steps((DATA / "memlock-or-nccl--in-a-slurm-job.txt").read_text(encoding="utf-8"))
    assert not any("docker" in step for step in steps)
    assert any("slurm.conf" in step for step in steps)


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
