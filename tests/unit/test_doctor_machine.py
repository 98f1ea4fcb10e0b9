"""The machine under Python, told in few words: what each message must give, and a like one that must not give it."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.parse.report import parse_report

OOM = (
    "RuntimeError: CUDA out of memory. Tried to allocate {} (GPU 0; {} total capacity; {} already allocated; {} free; "
)
NO_LIBRARY = (
    "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file"
)

FIRES = {
    "memory in the words of newer releases": (
        "gpu-memory-held-by-other-process",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of "
        "23.64 GiB "
        "of which 101.88 MiB is free. Including non-PyTorch memory, this process has 11.50 GiB memory in use. Of the "
        "allocated memory 10.20 GiB is allocated by PyTorch, and 800.55 MiB is reserved by PyTorch but unallocated.",
    ),
    "a docker that is not the host's": (
        "engine-finds-no-driver",
        "| NVIDIA-SMI 530.30.02   Driver Version: 530.30.02    CUDA Version: 12.1 |\n" + NO_LIBRARY,
    ),
}
SILENT = {
    "a restart that was made": (
        "machine-loses-power",
        "After a restart of the PC the training fails, it restarts from step 0",
    ),
    "two machines that go well": (
        "network-interface-not-found",
        "torchrun --nnodes=2 trains on two machines, and the loss is nan",
    ),
    "a device that is set in the code, and taken": (
        "devices-changed-after-the-count",
        "os.environ['CUDA_VISIBLE_DEVICES'] = '1' is in my code. RuntimeError: x",
    ),
    "an index of a list": ("invalid-device-index", "IndexError: list index out of range, torchrun on 2 GPUs"),
    "memory that is short in training": (
        "validation-needs-more-memory",
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\nThe loss on the validation set was fine",
    ),
    "a GPU that is busy": ("gpu-waits-for-data", "GPU utilization is 98 % in training, and it is slow"),
    "a cool card": ("gpu-slowed-by-heat", "Training gets slower and slower on my GPU, 61C"),
    "several machines, and a process for each GPU": (
        "accelerate-processes-of-all-machines",
        "- num_processes: 8\n- machine_rank: 0\n- num_machines: 2",
    ),
    "memory that is short, and a model saved before": (
        "saving-needs-more-memory",
        "I am saving the model with FSDP, fine. Later: CUDA out of memory. Tried to allocate 2.00 GiB",
    ),
    "one GPU that is there": (
        "one-of-several-gpus-seen",
        "torch.cuda.device_count() returns 2 on my two GPUs, and it is slow",
    ),
    "a card off the bus": ("gsp-does-not-answer", "NVRM: Xid (PCI:0000:44:00): 79, GPU has fallen off the bus."),
    "two GPUs that are faster": (
        "several-gpus-no-faster-than-one",
        "Training on 2 GPUs is twice as fast as on one, why?",
    ),
    "a notebook with its GPU": (
        "colab-without-gpu",
        "On Colab torch.cuda.is_available() returns True\nRuntimeError: x",
    ),
    "another machine than Colab": (
        "colab-without-gpu",
        "It works on Colab. Here torch.cuda.is_available() returns False",
    ),
    "a worker outside a container": (
        "shm-too-small",
        "RuntimeError: DataLoader worker (pid(s) 25) exited unexpectedly",
    ),
    "a system error on one machine": (
        "network-interface-not-found",
        "NCCL error: nccl_helper.h:77 unhandled system error",
    ),
    "what nvidia-smi shows": ("device-nodes-made-late", "After the reboot nvidia-smi works, and torch is slow"),
    "a vGPU that is not busy": ("vgpu-without-licence", "GRID V100D-8C, License Status : Licensed\nRuntimeError: x"),
    "a card that is busy": ("vgpu-without-licence", "Tesla V100, all CUDA-capable devices are busy or unavailable"),
    "who killed it": ("host-memory-exhausted", "I killed the process and started it again"),
    "the first GPU alone": ("every-process-on-the-first-gpu", "The first GPU has 24 GB of memory. What fits?"),
    "a device map that works": ("tensors-on-different-devices", "device_map='auto' puts it on multiple GPUs, nice"),
    "an arch list that lacks the card": (
        "app-needs-newer-compute-capability",
        "CUDA error: no kernel image available\nRTX 5090, torch.cuda.get_arch_list() has no sm_120",
    ),
    "one python": ("two-interpreters", 'python3 -c "import torch; print(torch.cuda.is_available())"\nTrue, not False'),
    "several GPUs, none of which hangs": ("gpus-do-not-exchange-data", "Two RTX 4090, no NVLink, training is slow"),
    "a training that goes on": (
        "cuda-unknown-error",
        "after resuming from checkpoint-500 torch.cuda.is_available() returns False, time.sleep(5)",
    ),
    "a kernel of CUDA": (
        "cuda-unknown-error",
        "torch sees no GPU; the new CUDA kernel 5.1 of my extension is launched",
    ),
    "a suspended machine on Windows": ("cuda-unknown-error", "Windows 11, after sleep torch sees no GPU"),
    "two GPUs of one kind": ("gpu-numbers-differ", "GPU 0 and GPU 1 are both 4090, nvidia-smi lists them"),
    "the open modules, named": (
        "gpu-needs-open-kernel-modules",
        "I use the NVIDIA open kernel modules 580 and torch is slow",
    ),
    "a device that another program lists": ("driver-lists-no-gpu", "adb: No devices were found in the list today"),
    "a Jetson in which CUDA works": ("aarch64-cpu-only-wheel", "On my Jetson torch.cuda.is_available() returns True"),
    "a Windows that is new enough": (
        "wsl-windows-too-old",
        "Windows 10 [Version 10.0.19045.2728], WSL 2\nFailed to initialize NVML: GPU access blocked by the operating "
        "system",
    ),
    "an older Windows in which CUDA works": (
        "wsl-windows-too-old",
        "Windows 10 2004, WSL 2, torch.cuda.is_available() returns True",
    ),
    "a card in TCC mode, and no WSL": (
        "wsl-gpu-in-tcc-mode",
        "|   0  Tesla P100-PCIE... TCC   | 00000000:04:00.0 Off |                    0 |\ntorch sees no GPU",
    ),
    "memory that is all torch's own": (
        "gpu-memory-held-by-other-process",
        OOM.format("2.00 GiB", "24.00 GiB", "20.00 GiB", "1.10 GiB") + "22.10 GiB reserved in total by PyTorch)",
    ),
    "memory kept for later, of the same process": (
        "gpu-memory-held-by-other-process",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 "
        "GiB of "
        "which 1.12 GiB is free. Of the allocated memory 60.50 GiB is allocated by PyTorch, and 16.73 GiB is reserved "
        "by "
        "PyTorch but unallocated.",
    ),
    "little free": (
        "gpu-memory-refused-though-free",
        OOM.format("2.00 GiB", "24.00 GiB", "20.00 GiB", "1.90 GiB") + "22.10 GiB reserved in total by PyTorch)",
    ),
    "the library of a program inside": (
        "engine-finds-no-driver",
        "OSError: libnvidia-ml.so.1: cannot open shared object file: No such file or directory",
    ),
    "the driver's folder, and CUDA works": (
        "driver-beside-the-path",
        "ls /usr/local/nvidia/lib64\ntorch.cuda.is_available() returns True",
    ),
    "a permission of something else": ("device-rules-refused", "open /data/x: operation not permitted"),
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


def test_the_engine_is_asked_for_the_gpu_before_the_toolkit_is_installed() -> None:
    started = "docker run -it test\nbash: nvidia-smi: command not found\n"
    assert judged(started).findings[0].fix[0].startswith("docker run --gpus all")
    refused = 'docker run --gpus all test\ndocker: could not select device driver "" with capabilities: [[gpu]].'
    assert "keyring" in judged(refused).findings[0].fix[0]


def test_killed_in_wsl_is_mended_in_windows() -> None:
    assert ".wslconfig" in judged("In WSL 2\nLoading model ...\nKilled").findings[0].fix[0]
    assert ".wslconfig" not in judged("Loading model ...\nKilled").findings[0].fix[0]


def test_the_fabric_is_mended_on_the_host() -> None:
    fabric = "H100 80GB HBM3, driver 545.23.08\nError 802: system not yet initialized\n"
    assert "nvidia-fabricmanager-545=545.23.08*" in judged(fabric).findings[0].fix[0]
    assert "fabric-manager-545.23.08" in judged("OS: CentOS 7\n" + fabric).findings[0].fix[0]
    assert "another machine" in judged("with hf jobs\n" + fabric).findings[0].fix[0]


def test_the_driver_of_a_rented_machine_is_not_updated() -> None:
    refused = "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver"
    assert "RunPod" in judged("on vast.ai\n" + refused).findings[0].fix[0]
    assert "RunPod" not in " ".join(judged(refused).findings[0].fix)


def test_what_the_toolkit_says_is_said_on_the_host() -> None:
    mismatch = "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch"
    assert judged(mismatch).findings[0].fix[0] == "sudo reboot"


def test_flash_attention_is_taken_out_where_a_models_own_code_takes_it() -> None:
    told = "RTX 2080 Ti\nRuntimeError: FlashAttention only supports Ampere GPUs or newer."
    assert "sdpa" in judged(told).findings[0].fix[0]
    assert "uninstall" in judged("trust_remote_code=True\n" + told).findings[0].fix[0]


def test_what_is_known_to_work_around_a_hang_is_not_the_first_step() -> None:
    hang = "vLLM hangs with TP=2 on two RTX 4090 over PCIe"
    assert "NCCL_P2P_DISABLE" in judged(hang).findings[0].fix[0]
    assert "IOMMU" in judged(hang + "; it does not hang with NCCL_P2P_DISABLE=1").findings[0].fix[0]


def test_a_container_of_lxc_gets_its_driver_from_the_host() -> None:
    assert "host" in judged("docker in my LXC on Proxmox\n" + NO_LIBRARY).findings[0].fix[0]
    assert "context" in judged(FIRES["a docker that is not the host's"][1]).findings[0].fix[0]


def test_a_system_given_out_as_a_whole_gets_its_own_steps() -> None:
    refused = "Error response from daemon: unknown or invalid runtime name: nvidia"
    assert "Extra Parameters" in " ".join(judged("Unraid 6.12, Ollama\n" + refused).findings[0].fix)
    assert "restart docker" in judged("Debian 12, Ollama\n" + refused).findings[0].fix[0]


def test_who_takes_the_other_gpus_away_decides_what_to_set() -> None:
    error = "\nRuntimeError: CUDA error: invalid device ordinal"
    assert "--gpus-per-node" in judged("srun --gpus-per-task=1 python train.py" + error).findings[0].fix[0]
    assert "MIG-<UUID>" in judged("an A100 with MIG instances" + error).findings[0].fix[0]
    assert "nproc_per_node" in judged("torchrun --nproc_per_node=4 train.py" + error).findings[0].fix[0]
    assert "cuda:0" in judged("device = cuda:1" + error).findings[0].fix[0]
    saved = "RuntimeError: Attempting to deserialize object on CUDA device 3 but torch.cuda.device_count() is 1."
    assert "map_location" in judged(saved).findings[0].fix[0]


def test_a_screens_limit_of_time_is_windows_own_inside_wsl() -> None:
    assert "TdrDelay" in judged("vLLM in WSL2\nRuntimeError: CUDA driver error: device not ready").findings[0].fix[0]


def test_what_gives_more_main_memory_depends_on_the_machine() -> None:
    killed = "\n[ERROR] exits with return code = -9"
    assert "--mem=" in judged("srun python train.py" + killed).findings[0].fix[0]
    assert "swapfile" in judged("python train.py" + killed).findings[0].fix[0]
    assert "nvme" in judged("offload_optimizer: device: cpu" + killed).findings[0].fix[0]
    assert "High-RAM" in judged("'/content/output/model'" + killed).findings[0].fix[0]


def test_how_validation_comes_to_need_less_depends_on_what_runs_it() -> None:
    full = "\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert "no_grad" in judged("out of memory in validation" + full).findings[0].fix[0]
    assert "eval_accumulation_steps" in judged("transformers==4.46.0\nOOM in evaluation" + full).findings[0].fix[0]
    assert "batch=" in judged("YOLO: out of memory in val" + full).findings[0].fix[0]


def test_a_card_beyond_its_makers_clocks_goes_back_to_them_first() -> None:
    fault = "\nRuntimeError: CUDA error: an illegal memory access was encountered"
    assert "maker" in judged("my card is overclocked" + fault).findings[0].fix[0]
    assert "maker" not in judged("the card is not overclocked" + fault).findings[0].fix[0]


def test_a_plain_image_of_a_cloud_lacks_the_driver() -> None:
    blind = "\ntorch.cuda.is_available() returns False"
    assert "ubuntu-drivers" in judged("an EC2 instance, Ubuntu 22.04" + blind).findings[0].fix[0]
    assert "ubuntu-drivers" not in judged("EC2 instance, torch 2.6.0+cpu" + blind).findings[0].fix[0]
