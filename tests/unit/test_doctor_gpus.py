"""GPUs of other makes and kinds, from what their drivers and tools write."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.doctor.amd import amd_gpus, gfx_name
from workbench.doctor.commands import Output
from workbench.doctor.diagnose import diagnose
from workbench.doctor.facts import Facts, GpuFacts, PlatformFacts, ProbeStep, TorchFacts
from workbench.doctor.live import apply_step
from workbench.doctor.nvidia import gpus_from
from workbench.doctor.parse.report import parse_report
from workbench.doctor.rules.hanging import cuda_hangs, torch_import_hangs
from workbench.doctor.stuck import innermost, network_file_system

CPU_NODE = "cpu_cores_count 32\nsimd_count 0\nmem_banks_count 1\ngfx_target_version 0\nvendor_id 0\n"
GPU_NODE = (
    "cpu_cores_count 0\nsimd_count 1216\nmem_banks_count 1\nmax_waves_per_simd 8\ngfx_target_version {version}\n"
    "vendor_id 4098\ndevice_id 29857\nlocation_id 1280\nunique_id 17842935162873459211\n"
)
BANK = "heap_type 1\nsize_in_bytes {size}\nflags 0\nwidth 8192\nmem_clk_max 1300\n"


def topology(folder: Path, *versions: int) -> str:
    for number, version in enumerate((0, *versions)):
        node = folder / str(number)
        (node / "mem_banks" / "0").mkdir(parents=True)
        (node / "properties").write_text(GPU_NODE.format(version=version) if version else CPU_NODE)
        (node / "mem_banks" / "0" / "properties").write_text(BANK.format(size=192 * 2**30))
    return str(folder)


def test_amd_gpus_are_listed_without_torch_and_named_by_it(tmp_path: Path) -> None:
    gpus = amd_gpus(topology(tmp_path, 90402, 90402))
    assert [(gpu.index, gpu.vendor, gpu.compute_capability, gpu.memory_bytes) for gpu in gpus] == [
        (0, "amd", "gfx942", 192 * 2**30),
        (1, "amd", "gfx942", 192 * 2**30),
    ]
    device = {"name": "AMD Instinct MI300X", "compute_capability": "gfx942", "memory_bytes": 191 * 2**30, "uuid": ""}
    facts = Facts(torch=TorchFacts(True, "2.9.0+rocm6.4", "rocm", hip="6.4"), gpus=gpus)
    seen = apply_step(facts, ProbeStep("cuda", "passed"), {"cuda_available": True, "devices": [device, device]})
    assert seen.gpus is not None
    assert [gpu.name for gpu in seen.gpus] == ["AMD Instinct MI300X"] * 2
    findings = diagnose(seen).findings
    assert not [finding for finding in findings if "nvidia" in finding.id or "cuda" in finding.id]


@pytest.mark.parametrize(
    ("version", "name"), [(90010, "gfx90a"), (90402, "gfx942"), (110001, "gfx1101"), (120001, "gfx1201"), (0, None)]
)
def test_gfx_names(version: int, name: str | None) -> None:
    assert gfx_name(version) == name


def test_no_topology_is_no_gpu(tmp_path: Path) -> None:
    assert amd_gpus(str(tmp_path / "absent")) == ()


MIG_QUERY = (
    "0, NVIDIA A100-SXM4-40GB, GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77, 40960, 1, [N/A], 30, 45.10, 400.00, 4, 16, "
    "Enabled, Default, 0, 535.104.05\n"
    "1, NVIDIA A100-SXM4-40GB, GPU-0c9c1f6d-8d56-4a3e-b3a7-2d3cbb2f6f10, 40960, 20480, 97, 61, 331.07, 400.00, 4, 16, "
    "Disabled, Default, 0, 535.104.05\n"
)
MIG_PROCESSES = (
    "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77, 4242, /usr/bin/python3, [N/A]\n"
    "GPU-0c9c1f6d-8d56-4a3e-b3a7-2d3cbb2f6f10, 777, python, with, commas, 20000\n"
)


def test_a_gpu_in_parts_beside_a_whole_one() -> None:
    gpus = gpus_from(Output(0, MIG_QUERY), Output(0, "0, 8.0\n1, 8.0\n"), Output(0, MIG_PROCESSES))
    assert gpus is not None
    first, second = gpus
    assert (first.mig, first.utilization_percent, second.mig, second.utilization_percent) == (True, None, False, 97.0)
    assert first.processes is not None
    assert (first.processes[0].pid, first.processes[0].memory_bytes) == (4242, None)
    assert second.processes is not None
    assert second.processes[0].name == "python, with, commas"
    part = {"name": "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "compute_capability": "8.0", "memory_bytes": 20 * 2**30}
    facts = Facts(torch=TorchFacts(True, "2.9.0+cu128", "cuda", cuda="12.8"), gpus=gpus)
    seen = apply_step(facts, ProbeStep("cuda", "passed"), {"cuda_available": True, "devices": [part]})
    assert seen.gpus is not None
    assert [gpu.compute_capability for gpu in seen.gpus] == ["8.0", "8.0"]


def test_a_mac_with_its_own_gpu_raises_no_error() -> None:
    platform = PlatformFacts("Darwin", "macOS 15.1", "24.1.0", "arm64", gpu_vendors=("apple",), devices=())
    torch = TorchFacts(True, "2.9.0", "mps", arch_list=())
    facts = apply_step(
        Facts(platform=platform, torch=torch, gpus=()), ProbeStep("torch", "passed"), {"version": "2.9.0", "mps": True}
    )
    assert facts.torch.build == "mps"
    assert not [finding for finding in diagnose(facts).findings if finding.severity == "error"]


MOUNTS = """\
25 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
40 25 0:45 / /home rw,relatime shared:22 - nfs4 filer:/export/home rw,vers=4.2,hard
41 40 0:46 / /home/ada/scratch rw - ext4 /dev/sdb1 rw
42 25 0:47 / /var/lib/lxcfs rw - fuse.lxcfs lxcfs rw
43 25 0:48 / /mnt/c rw - 9p drvfs rw
"""


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/home/ada/env/lib/torch", "nfs4 from filer:/export/home at /home"),
        ("/home/ada/scratch/env", ""),
        ("/homes/env", ""),
        ("/var/lib/lxcfs/env", ""),
        ("/mnt/c/env", "9p from drvfs at /mnt/c"),
    ],
)
def test_network_file_systems(path: str, told: str) -> None:
    assert network_file_system(path, MOUNTS) == told


def hung(step: str, **stuck: str) -> Facts:
    names = {"file_system": "file system", "waits_in": "waits in"}
    told = {names.get(name, name): value for name, value in stuck.items()}
    torch = TorchFacts(True, "2.9.0+cu128", "cuda", cuda="12.8", location="/env/lib/torch")
    probe = ProbeStep(step, "timeout", 15.2, "hangs", idle_seconds=15.0, stuck=told)
    return Facts(torch=torch, probes=(probe,), gpus=(GpuFacts(0, "NVIDIA L4", "nvidia"),))


@pytest.mark.parametrize(
    ("stuck", "cause"),
    [
        (
            {"file_system": "nfs4 from filer:/x at /home", "state": "waits"},
            "its files are on nfs4 from filer:/x at /home",
        ),
        ({"driver": "/dev/nvidiactl"}, "the GPU driver does not answer"),
        ({"scanner": "CrowdStrike Falcon (falcon-sensor)"}, "CrowdStrike Falcon (falcon-sensor) checks its files"),
        ({"waits_in": "locks_lock_inode_wait"}, "another process holds a lock it waits for"),
        ({"where": "/usr/lib/python3.11/ssl.py line 9 in read"}, "it waits for the network"),
        ({"state": "waits in the kernel and cannot be interrupted"}, "its disk does not answer"),
    ],
)
def test_a_hanging_import_names_the_likely_cause(stuck: dict[str, str], cause: str) -> None:
    [finding] = torch_import_hangs(hung("torch", **stuck)) or []
    assert finding.title == f"import torch hangs: {cause}"
    assert finding.fix


def test_a_hanging_start_of_cuda_is_the_drivers() -> None:
    [finding] = cuda_hangs(hung("cuda", where="/env/lib/torch/cuda/__init__.py line 412 in _lazy_init")) or []
    assert finding.fix[0].startswith("nvidia-smi")


STACKS = """
Thread 0x00007f00 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait

Current thread 0x00007f01 (most recent call first):
  File "/env/lib/torch/_ops.py", line 7 in load
  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed
  File "/x/workbench/doctor/probe.py", line 31 in probe_torch
"""


def test_the_stack_of_the_main_thread_is_the_one_that_counts() -> None:
    assert innermost(STACKS) == "/env/lib/torch/_ops.py line 7 in load"


@pytest.mark.parametrize(
    ("sentence", "names"),
    [
        ("On my RTX 2080 it fails; I'll try an A100 tomorrow.", ["NVIDIA GeForce RTX 2080"]),
        ("I want to try it on my RTX 3090.", ["NVIDIA GeForce RTX 3090"]),
    ],
)
def test_a_card_that_is_only_wished_for_is_not_in_the_machine(sentence: str, names: list[str]) -> None:
    assert [gpu.name for gpu in parse_report(sentence).gpus or ()] == names
