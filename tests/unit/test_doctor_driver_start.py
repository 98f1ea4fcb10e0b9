"""What mends a driver that does not start CUDA: on which machine, with which tool, and where nothing may be said."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.parse.report import parse_report


def judged(text: str) -> Report:
    return diagnose(parse_report(text))


NOT_LOADED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
NOUVEAU = "NVRM: nouveau, rivafb, nvidiafb or rivatv\n"
ERROR_803 = "Error 803: system has unsupported display driver / cuda driver combination\n"
ERROR_804 = "Error 804: forward compatibility was attempted on non supported HW\n"
FABRIC = "Error 802: system not yet initialized\n"

FIRST_FIX = {
    "an image's own libcuda": ("in docker\n" + ERROR_803, "export LD_LIBRARY_PATH=/usr/local/nvidia/lib64"),
    "vLLM's first process": ("(APIServer pid=1) " + ERROR_803, "export LD_LIBRARY_PATH=/usr/local/nvidia/lib64"),
    "the machine itself": ("Dell XPS, Ubuntu 22.04\n" + ERROR_803, "sudo reboot"),
    "an older driver": ("RTX 3090, docker\n" + ERROR_804, "sudo ubuntu-drivers install && sudo reboot"),
    "an older driver, Fedora": ("Fedora 40\n" + ERROR_804, "sudo dnf install akmod-nvidia"),
    "an older driver, rented": ("on runpod\n" + ERROR_804, "Take a machine with a newer driver"),
    "an older driver, WSL": ("in WSL 2\n" + ERROR_804, "Install the newest NVIDIA driver in Windows"),
    "the fabric on CentOS 7": (
        "OS: CentOS 7\nH100 80GB HBM3, driver 545.23.08\n" + FABRIC,
        "sudo yum install nvidia-fabric-manager-545.23.08",
    ),
    "nouveau where yum is called": (
        "# yum list installed | grep cuda\n" + NOUVEAU,
        "sudo dracut --force && sudo reboot",
    ),
    "nouveau where pacman is called": ("$ pacman -Q nvidia\n" + NOUVEAU, "sudo mkinitcpio -P && sudo reboot"),
    "nouveau, nothing told": (
        NOUVEAU,
        "{ sudo update-initramfs -u || sudo dracut --force || sudo mkinitcpio -P; } && sudo reboot",
    ),
    "an option of a module on NixOS": (
        "NixOS 25.05 (Warbler), RTX 3080\nnvidia_uvm: uvm_pmm_gpu.c request_free_mem_region() err -34\n",
        'boot.extraModprobeConfig = "options nvidia_uvm uvm_disable_hmm=1";',
    ),
    "another libcuda on the machine itself": (
        "NVIDIA-SMI 535.154.05  Driver Version: 535.154.05  CUDA Version: 12.3\n" + ERROR_804,
        "sudo reboot",
    ),
    "ranks of one jsrun set": (
        "jsrun -n 1 -r 1 -c 42 -g 6 -a 6 ./a\nCUDA error: all CUDA-capable devices are busy or unavailable\n",
        "jsrun -n 6 -g 1 -a 1",
    ),
    "a job of PBS": (
        "#PBS -l gpus=1\nCUDA error: all CUDA-capable devices are busy or unavailable\n",
        "nvidia-smi --query-compute-apps",
    ),
    "the word all for CUDA": (
        "docker-compose.yml:\n    environment:\n      CUDA_VISIBLE_DEVICES: all\n"
        "RuntimeError: No CUDA GPUs are available\n",
        "Take CUDA_VISIBLE_DEVICES out of the container's environment",
    ),
    "a container beside one that has the GPU": (
        "root@4728a09607c1:/opt# python3 a.py\nAssertionError: \nFound no NVIDIA driver on your system. Please check\n"
        "$ sudo docker run --gpus all nvidia/cuda:12.4.1-base-ubuntu22.04 nvidia-smi\n"
        "| NVIDIA-SMI 550.59       Driver Version: 550.59       CUDA Version: 12.4     |\n",
        "docker run --gpus all",
    ),
    "a pod of k3s": (
        "In k3s with the NVIDIA container toolkit my container's log says that it finds no NVIDIA driver.\n"
        "On the same node a test pod runs nvidia-smi fine.\n",
        "runtimeClassName: nvidia",
    ),
    "the words of torch 1.3, with a driver that runs its CUDA": (
        "THCudaCheck FAIL file=/opt/conda/conda-bld/pytorch/work/aten/src/THC/THCGeneral.cpp line=50 error=999 : "
        "unknown error\nPyTorch version: 1.3.1\nCUDA used to build PyTorch: 10.1.243\nIs CUDA available: No\n"
        "GPU models and configuration: GPU 0: GeForce GTX 1080\nNvidia driver version: 435.21\n",
        "sudo rmmod nvidia_uvm",
    ),
    "no room for CUDA's own context": (
        "CudaException: CUDA_ERROR_OUT_OF_MEMORY\n    at jcuda.driver.JCudaDriver.cuCtxCreate(JCudaDriver.java)\n",
        "nvidia-smi   # who holds how much",
    ),
    "some of WSL's GPUs run": (
        'WSL 2, Windows Server 2022:10.0.20348.2849\nwith vLLM "out of memory" comes when the number of GPUs is '
        "greater than 3, everything is normal when the number of GPUs is set to 2\n",
        "export CUDA_VISIBLE_DEVICES=0,1",
    ),
    "what was done in WSL, told on Windows": (
        "Host OS: Microsoft Windows 11 Pro 10.0.22621\nWSL2 with a fresh install of Ubuntu 22.04\n"
        "Command executed in WSL2: conda create -n rapids\n"
        "numba.cuda.cudadrv.error.CudaSupportError: Error at driver init: Call to cuInit results in "
        "CUDA_ERROR_OUT_OF_MEMORY (2)\n",
        "export CUDA_VISIBLE_DEVICES=0   # fewer GPUs",
    ),
    "nouveau, a distribution against its tool": (
        "Ubuntu 22.04, apt install alien; yum install came from a guide\n" + NOUVEAU,
        "sudo update-initramfs -u",
    ),
    "a module of Gentoo": ("Gentoo Linux\n" + NOT_LOADED, "sudo emerge @module-rebuild"),
    "a module that does not compile": (
        NOT_LOADED
        + "Error! Bad return status for module build on kernel: 6.8.0-40-generic (x86_64)\nnvidia/535.54.03\n",
        "sudo ubuntu-drivers install && sudo reboot",
    ),
    "a kernel of another vendor": (
        NOT_LOADED + "Error! Bad return status for module build on kernel: 6.8.1-xanmod1 (x86_64)\nnvidia/470.86\n",
        "sudo apt install linux-generic",
    ),
    "a branch of old cards on Arch": (
        "nvidia/470.239.06\nError! Bad return status for module build on kernel: 6.13.2-arch1-1\n$ pacman -Q linux\n",
        "sudo pacman -S linux-lts linux-lts-headers",
    ),
    "Arch's own kernels": ("Arch Linux\n==> ERROR: module not found: 'nvidia'\n", "-e '-(cachyos|zen|lts|hardened)'"),
    "a driver of two ways": (
        "installed with the .run file, later with apt\nFailed to initialize NVML: Driver/library version mismatch\n",
        "sudo reboot   # enough where",
    ),
    "an image with a driver of its own": (
        "In docker: Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 565.57\n"
        "Host: NVIDIA driver version 535.183.01\n",
        "apt-get purge",
    ),
    "a container of before an update": (
        "In docker: Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 525.60\n"
        "Host: NVIDIA driver version 535.183.01\n",
        "Make the container anew",
    ),
    "docker inside WSL": (
        "in WSL 2, docker run --gpus all\nnvidia-container-cli: initialization error: driver error: failed to process "
        "request\n",
        "wsl --update; wsl --shutdown",
    ),
    "a program that sets the variable": (
        "os.environ['CUDA_VISIBLE_DEVICES'] = '3'\nRuntimeError: No CUDA GPUs are available\n",
        "pass  # /'",
    ),
    "a shell that sets the variable": (
        "export CUDA_VISIBLE_DEVICES=3\nRuntimeError: No CUDA GPUs are available\n",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "a number in place of MIG's name": (
        "ValueError: invalid literal for int() with base 10: 'MIG-377e0049-554c-540b-93c6-d0976f8426cb'\n",
        "export CUDA_VISIBLE_DEVICES=0",
    ),
    "AMD's card and docker's --gpus": (
        'could not select device driver "" with capabilities: [[gpu]]\nGPU: AMD Radeon RX 7900 XTX\n',
        "docker run --device=/dev/kfd",
    ),
    "NVIDIA's card and docker's --gpus": (
        'could not select device driver "" with capabilities: [[gpu]]\nGPU: RTX 3060; Intel UHD Graphics\n',
        "On the host",
    ),
}


@pytest.mark.parametrize("name", FIRST_FIX)
def test_the_first_fix_is_that_of_this_machine(name: str) -> None:
    text, expected = FIRST_FIX[name]
    assert expected in judged(text).findings[0].fix[0]


SILENT = {
    "a Windows older than WSL's CUDA has no libcuda there": (
        "WSL2 on Windows 10 version 1909 (OS Build 18363.1256)\nImportError: libcuda.so.1: cannot open shared object "
        "file: No such file or directory\n",
        "libcuda-not-visible",
    ),
    "Windows itself, where WSL works": (
        "Windows 11\nIn WSL2 it works fine. With WSL2 and Ubuntu no problem either.\n"
        "Unexpected error from cudaGetDeviceCount(). Error 2: out of memory\n",
        "wsl-error-2",
    ),
    "a number in a compose file": (
        "    environment:\n      - CUDA_VISIBLE_DEVICES=0\nRuntimeError: No CUDA GPUs are available\n",
        "cuda-visible-devices-wrong",
    ),
    "a pod that waits for a GPU": (
        "kubernetes: pod is pending, 0/3 nodes are available: insufficient nvidia.com/gpu, no GPU; the GPU operator is "
        "installed\n",
        "container-without-gpu-runtime",
    ),
    "a fabric's GPU is waited for": ("H200\n" + FABRIC, "cuda-not-ready"),
    "MIG by its name alone": (
        "CUDA_VISIBLE_DEVICES=MIG-377e0049-554c-540b-93c6-d0976f8426cb python a.py\n",
        "mig-uuid",
    ),
    "UUIDs that are listed": (
        "GPU 0: NVIDIA A100 (UUID: GPU-52a3a85d-3c55-ca3a-a955-82c69ed360fc)\nSyntaxError: invalid syntax\n",
        "gpu-uuid",
    ),
    "advice on the bus": ("dmesg shows nothing of a card that may have fallen somewhere off the bus\n", "gpu-fallen"),
    "a fork with open modules": (
        "nvidia-open 570\nRuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with "
        "multiprocessing, you must use the 'spawn' start method\n",
        "kaslr-hmm-uvm",
    ),
    "open modules that work": ("nvidia-open 570, torch.cuda.is_available() True\n", "kaslr-hmm-uvm"),
    "a laptop at its NVIDIA card": ("prime-select nvidia\nRuntimeError: No CUDA GPUs are available\n", "optimus"),
    "a laptop whose GPU works": ("started with optirun\nIs CUDA available: True\n", "optimus"),
    "out of memory in WSL": (
        "in WSL\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n",
        "wsl-error-2",
    ),
    "ERR! in place of CUDA's version": (
        "NVIDIA-SMI 545.46  Driver Version: 546.80  CUDA Version: ERR!\n",
        "gpu-fallen",
    ),
    "nouveau that is blacklisted": ("nouveau is blacklisted and not loaded; the nvidia driver is fine\n", "nouveau"),
    "a fault of a kernel": ("time.sleep(3)\nCUDA error: unspecified launch failure\n", "cuda-unknown-error"),
}


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_said_of_what_is_not_told(name: str) -> None:
    text, unsaid = SILENT[name]
    assert not [finding.id for finding in judged(text).findings if finding.id.startswith(unsaid)]


def test_old_tables_of_nvidia_smi_are_read() -> None:
    table = (
        "| NVIDIA-SMI 375.26                 Driver Version: 375.26                    |\n"
        "|   0  Tesla K40m          On   | 0000:04:00.0     Off |                    0 |\n"
        "| N/A   35C    P0    63W / 235W |     74MiB / 11439MiB |      0%   E. Process |\n"
    )
    gpu = parse_report(table).nvidia_gpus()[0]
    assert (gpu.name, gpu.compute_mode) == ("Tesla K40m", "E. Process")
