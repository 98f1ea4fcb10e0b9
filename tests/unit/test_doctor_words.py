"""What a paste says in few words: each message with the finding it must give, and a like one that must not give it."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.facts import Facts
from workbench.doctor.fixes import install
from workbench.doctor.parse.report import parse_report
from workbench.doctor.report import summary, to_json

SMI = "| NVIDIA-SMI {0}    Driver Version: {0}    CUDA Version: {1} |\n"
BLIND = "Pytorch does not see GPUs\n"
CONDA = "conda install pytorch torchvision {} -c pytorch\n"
LIBCUDA = "Could not load library libcudnn_cnn_infer.so.8. Error: {}: cannot open shared object file\n"
BNB_ENVIRON = (
    'Traceback (most recent call last):\n  File "/home/u/lib/python3.9/site-packages/{}", line 66, in report\n'
    "    lib_path = os.environ['LD_LIBRARY_PATH'].strip()\nKeyError: 'LD_LIBRARY_PATH'"
)

FIRES = {
    "a card newer than flash-attn": (
        "app-needs-newer-compute-capability",
        '"FlashAttention only supports Ampere GPUs or newer" on my RTX 5060 Ti',
    ),
    "OOM, the word": ("gpu-memory-full-told", "ComfyUI OOM with Flux on 12GB"),
    "a build told behind the number": (
        "torch-wheel-lacks-gpu-arch",
        "我的显卡是GTX 1080 Ti，装了torch 2.8.0 cu128，报错 no kernel image is available for execution on the device",
    ),
    "an extension, after torch was replaced": (
        "app-needs-newer-compute-capability",
        "After upgrading to torch 2.7.0+cu128 for my RTX 5060 Ti: no kernel image is available for execution",
    ),
    "nvcc that a setup refuses": (
        "toolkit-too-old-for-package",
        "RuntimeError: CUDA 12.8 or higher is required for GPUs with compute capability 12.0",
    ),
    "what is needed beside what is there": ("packages-known-apart", "I have transformers 4.30 and need peft 0.15"),
    "pins of one's own": ("xformers-torch-mismatch", "I pinned torch 2.3.0 and xformers 0.0.28"),
    "a package named alone": ("module-missing", "ImportError: open_clip"),
    "nvcc, in a sentence": ("cuda-home-unset", "I installed CUDA 12.9 on Windows, but the build says nvcc not found"),
    "an extension of one's own": (
        "no-kernel-image",
        'pip install mamba-ssm worked, but on the H200 it fails with "no kernel image"',
    ),
    "no GPU for a web UI": (
        "torch-cpu-only",
        "The machine has no GPU. Stable Diffusion WebUI says: Torch not compiled with CUDA enabled",
    ),
    "llama.cpp's memory": ("out-of-memory", "llama-server ends with CUDA out of memory"),
    "a card newer than the driver": (
        "driver-too-old-for-wheel-cuda",
        "I have an RTX 5090 with driver 550, and torch says the NVIDIA driver is too old",
    ),
    "triton, missing in a sentence": (
        "triton-missing-or-wrong",
        'I get an error "no module named triton" and wonder what it is for',
    ),
    "a driver of CUDA 10.1, a toolkit of 10.2": (
        "driver-too-old-for-wheel-cuda",
        BLIND + CONDA.format("cudatoolkit=10.2") + SMI.format("418.67", "10.1"),
    ),
    "the CUDA of an index": (
        "driver-too-old-for-wheel-cuda",
        BLIND
        + "pip install torch --index-url https://download.pytorch.org/whl/cu121\n"
        + SMI.format("470.82.01", "11.4"),
    ),
    "the system keeps the GPU": (
        "wsl-gpu-blocked",
        "In WSL 2\nFailed to initialize NVML: GPU access blocked by the operating system",
    ),
    "a GPU that the kernel does not take": (
        "gpu-unknown-to-kfd",
        "Unable to open /dev/kfd read-write: Cannot allocate memory\nigor is member of render group\n"
        "[ 3.5] kfd kfd: amdgpu: PITCAIRN  not supported in kfd",
    ),
    "no memory is no permission": ("kfd-without-memory", "Unable to open /dev/kfd read-write: Cannot allocate memory"),
    "a portable Python": (
        "missing-compiler-or-python-headers",
        "D:\\py\\Lib\\site-packages\\triton\\windows_utils.py:315: UserWarning: Failed to find Python libs.\n"
        "C:/Temp/cuda_utils.c:14: error: include file 'Python.h' not found",
    ),
    "a variable that bitsandbytes wants": ("bnb-legacy-loader", BNB_ENVIRON.format("bitsandbytes/__main__.py")),
    "a build without Intel GPUs": (
        "torch-without-backend",
        "RuntimeError: PyTorch is not linked with support for xpu devices",
    ),
    "a Mac": (
        "bnb-unsupported-on-macos",
        "bin /Users/u/miniconda3/lib/python3.10/site-packages/bitsandbytes/libbitsandbytes_cpu.so\n"
        "/Users/u/miniconda3/lib/python3.10/site-packages/bitsandbytes/cextension.py:34: UserWarning: The installed "
        "version of bitsandbytes was compiled without GPU support.",
    ),
    "NCCL and the pod's shared memory": (
        "shm-too-small",
        "[3] include/shm.h:28 NCCL WARN Call to posix_fallocate failed : No space left on device",
    ),
    "libcuda in WSL, where torch works": (
        "libcuda-not-visible",
        'Ubuntu Subsystem on Windows\ntorch.cuda.is_available() returns True\n"' + LIBCUDA.format("libcuda.so") + '"',
    ),
    "a worker's bus error, cut": ("shm-too-small", "ERROR: Unexpected bus error encountered in worker. This might be"),
    "shared memory in another language": ("shm-too-small", "多卡训练时 shm 不足，worker 退出"),
    "a GPU that does nothing, in Chinese": (
        "no-cuda-gpus-available",
        "- win10\n- 两张4090，回答很慢，GPU没动静，只有CPU 60%",
    ),
    "a GPU that is not found, in German": ("no-cuda-gpus-available", "Meine Grafikkarte (RTX 3070) wird nicht erkannt"),
    "a GPU that is not used, in Spanish": ("no-cuda-gpus-available", "No usa la tarjeta gráfica, tengo una RTX 3060"),
    "a GPU that is not used, in Japanese": ("no-cuda-gpus-available", "RTX 4070ですが、GPUが使われていない"),
    "a GPU that is not found, in Korean": ("no-cuda-gpus-available", "RTX 4070 그래픽 카드를 인식하지 못합니다"),
    "a message that breaks off": ("torch-cpu-only", "RTX 3080, torch not compiled with CUDA"),
    "a warning on a GPU's node": (
        "no-cuda-gpus-available",
        "UserWarning: User provided device_type of 'cuda', but CUDA is not available. Disabling\nNvidia v100 node",
    ),
    "the package index on aarch64": (
        "aarch64-cpu-only-wheel",
        "On a GH200 pip install torch gives me the CPU version of torch",
    ),
    "a pod": ("container-without-gpu-runtime", "In the pod torch.cuda.is_available() returns False"),
    "podman": ("container-without-gpu-runtime", "podman run -it pytorch/pytorch\n>>> torch.cuda.is_available()\nFalse"),
    "a pod without nvidia-smi": (
        "container-without-gpu-runtime",
        'kubectl exec p -- nvidia-smi\nexec: "nvidia-smi": executable file not found in $PATH',
    ),
    "an untrusted certificate behind which no server is": (
        "tls-interception",
        "HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded (Caused by SSLError("
        "SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed')))",
    ),
    "an old loader on an old system": (
        "libstdcxx-too-old",
        "CUDA SETUP: PyTorch settings found: CUDA_VERSION=121\n/usr/lib64/libstdc++.so.6: version `CXXABI_1.3.9' not "
        "found (required by /e/lib/python3.9/site-packages/bitsandbytes/libbitsandbytes_cuda121.so)",
    ),
    "an AMD card that the message does not name": (
        "rocm-gfx-unsupported",
        "My card is gfx1032\nCUDA error: invalid device function",
    ),
    "SYCL of another release": (
        "oneapi-of-other-release",
        "ImportError: /v/lib/python3.10/site-packages/intel_extension_for_pytorch/lib/libintel-ext-pt-gpu.so: "
        "undefined symbol: _ZNK4sycl3_V16detail12buffer_plain22get_allocator_internalEv",
    ),
}
SILENT = {
    "torch that an install left alone": ("torch-replaced-by-install", "I installed lm_eval, and torch still has CUDA"),
    "a packed program that works": ("packed-program-lacks-cuda", "PyInstaller packs my program, and it uses the GPU"),
    "a wheel of mmcv": ("mmcv-without-wheel", "mim install mmcv took the wheel, which version of mmdet fits"),
    "a conflict that an upgrade mended": (
        "requirement-conflicts",
        "vllm 0.8.5 requires transformers>=4.51.1 and I have that already, how do I start it",
    ),
    "triton's server, and Windows": (
        "no-matching-distribution",
        "The Triton inference server does not start in docker on Windows: how do I give it the GPU?",
    ),
    "numpy, which torch only warns of": (
        "module-missing",
        "  × Failed to build `vllm==0.7.2`\nUserWarning: Failed to initialize NumPy: No module named 'numpy'",
    ),
    "an override for a card without builds": (
        "amd-override-of-another-gpu",
        "GPU: AMD Radeon RX 6700 XT (gfx1031)\nHSA_OVERRIDE_GFX_VERSION=10.3.0 python a.py\n"
        "Memory access fault by GPU node-1 (Agent handle: 0x1) on address 0x7f0.",
    ),
    "sources of vLLM on Linux": (
        "no-matching-distribution",
        "Collecting vllm\n  Downloading vllm-0.9.1.tar.gz (8.7 MB)",
    ),
    "sources that were built on Windows": (
        "no-matching-distribution",
        "C:\\u>pip install vllm\n  Downloading vllm-0.9.1.tar.gz (8.7 MB)\nSuccessfully installed vllm-0.9.1",
    ),
    "sources of what has wheels there": (
        "no-matching-distribution",
        "C:\\u>pip install peft\n  Downloading peft-0.9.1.tar.gz (1.7 MB)\ncopying build\\lib\\peft\\a.py",
    ),
    "a size that was given": ("shm-too-small", "docker run --shm-size=16g --gpus all image\nRuntimeError: no"),
    "a bus error of something else": ("shm-too-small", "Bus error: 10 in a plug-in of the editor"),
    "what somebody supposes": ("no-cuda-gpus-available", "如果GPU没有使用，会怎样？ torch 2.4"),
    "another machine's processor": (
        "aarch64-cpu-only-wheel",
        "Linux x86_64, no aarch64. I removed the CPU version of torch",
    ),
    "a pod in which CUDA works": ("container-without-gpu-runtime", "In the pod torch.cuda.is_available() returns True"),
    "a server's own refusal": ("proxy-in-the-way", "HTTPError: 404 Client Error: Not Found for url: https://x.org"),
    "a library's own symbol": ("docker-desktop-too-old", "ImportError: named symbol not found in my_extension.so"),
    "mps that is only named": ("mps-not-in-this-torch", "device = 'mps' if mps else 'cpu'\nRuntimeError: x"),
    "the CPU beside a GPU": ("no-cuda-gpus-available", "it works on the CPU, but on the GPU I get noise"),
    "free memory of a pod": ("cluster-has-no-free-gpu", "0/1 nodes are available: 1 Insufficient memory."),
    "Python's name": ("python-library-missing", "I built libpython3.11 myself\nRuntimeError: x"),
    "a connection that is made": ("connection-broken-off", "https://x.org: connection established\nRuntimeError: x"),
    "a good copy": ("gpus-copy-wrong", "x.to('cuda:1') gives tensor([1., 2.], device='cuda:1')"),
    "a GPU at work": ("gpu-hardly-used", "GPU utilization is 98 %, and it is slow"),
    "a new driver": ("driver-too-old-told", "显卡驱动是最新的"),
    "a mirror that works": ("hub-hard-to-reach", "Huggingface的镜像很快"),
    "room on the disk": ("disk-full-told", "磁盘还有500G空间，请问模型多大"),
    "no OOM": ("gpu-memory-full-told", "I lowered the batch size so that no OOM happens in training; is it fine?"),
    "memory for the model": ("gpu-memory-full-told", "显存有24G，请问能跑什么模型"),
    "memory that is enough": ("main-memory-full-told", "内存有64G，请问够吗"),
    "Apple's GPU, right": ("mps-computes-wrongly", "MPS is faster than the CPU here"),
    "nothing of the trade": ("too-little-told", "Why does my bread not rise?"),
    "a card that the message is not about": ("rocm-gfx-unsupported", "built for gfx900;gfx906;gfx1030\nCUDA error: x"),
    "a driver of CUDA 11.4 runs 11.8 too": (
        "driver-too-old-for-wheel-cuda",
        BLIND + CONDA.format("pytorch-cuda=11.8") + SMI.format("470.82.01", "11.4"),
    ),
    "two commands, and nobody knows which one counts": (
        "driver-too-old-for-wheel-cuda",
        BLIND + CONDA.format("pytorch-cuda=12.1") + CONDA.format("pytorch-cuda=11.8") + SMI.format("470.82.01", "11.4"),
    ),
    "NVML fails for another reason": ("wsl-gpu-blocked", "In WSL 2\nFailed to initialize NVML: Unknown Error"),
    "a group that is not the user's": (
        "gpu-unknown-to-kfd",
        "Unable to open /dev/kfd read-write: Permission denied\nigor is not member of render group",
    ),
    "a group that is the user's": (
        "gpu-device-not-allowed",
        "/dev/kfd is there\nigor is member of render group\nRuntimeError: something else",
    ),
    "headers of another kind": (
        "missing-compiler-or-python-headers",
        "C:/Temp/a.c:14: error: include file 'numpy.h' not found",
    ),
    "the same variable in a program of one's own": ("bnb-legacy-loader", BNB_ENVIRON.format("train.py")),
    "another backend's sentence": ("torch-without-backend", "This wheel is linked with support for xpu devices"),
    "CPU build on Linux": (
        "bnb-unsupported-on-macos",
        "/home/u/lib/python3.10/site-packages/bitsandbytes/cextension.py:34: UserWarning: The installed "
        "version of bitsandbytes was compiled without GPU support.",
    ),
    "a torch that the build finds": (
        "build-isolation-hides-torch",
        "pip install flash-attn works, it finds torch. Is it fast?",
    ),
    "an update that went well": ("xformers-torch-mismatch", "I updated xformers, and training is slow on my GPU"),
    "a Jetson at work": ("aarch64-cpu-only-wheel", "On a Jetson Orin I installed torch, and it is slow on the GPU"),
    "a path after a colon": ("cuda-home-malformed", "PATH=/bin:/usr/local/cuda/bin/nvcc\nRuntimeError: x"),
    "a symbol of another library": (
        "flash-attn-built-for-other-torch",
        "flash-attn is there\nundefined symbol: _ZN3foo3barEv",
    ),
    "an answer that is right": ("proxy-catches-local-requests", "res=<Response [200]>\nRuntimeError: x"),
    "a server with its GPU": ("server-image-needs-gpu", "text_generation_launcher: Shard ready\nRuntimeError: x"),
    "a toolkit that is new enough": (
        "toolkit-too-old-for-package",
        "pip install flash-attn with CUDA 12.8 is slow, why?",
    ),
    "a new card at work": ("torch-wheel-lacks-gpu-arch", "On my RTX 5090 training is slow, what can I do?"),
    "an old card without ROCm": ("rocm-gfx-unsupported", "My RX 570 with DirectML fails with an error"),
    "another number of cuInit": ("no-cuda-gpus-available", "cuInit error 999\nRuntimeError: x"),
    "a wheel that fits": (
        "wheel-for-another-torch",
        "torch 2.4.0+cu118, Python 3.10\nmamba_ssm-2.2.2+cu118torch2.4cxx11abiFALSE-cp310-cp310-linux_x86_64.whl",
    ),
    "a name of the program's own": ("compiled-part-missing", "NameError: name 'my_function' is not defined"),
    "a GPU for xformers": ("xformers-asked-on-cpu", "device=cuda (supported: {'cuda'})\nRuntimeError: x"),
    "a notice of a version": (
        "started-in-unbuilt-source",
        "No module named 'vllm._version'\nRuntimeError: CUDA out of memory. Tried to allocate 2 GiB",
    ),
    "a script without torch": ("build-isolation-hides-torch", "python train.py\nNo module named 'torch'"),
    "as many GPUs as the server sees": (
        "parallel-size-larger-than-machine",
        "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve m --tensor-parallel-size 4 fails, why?",
    ),
    "a GPU that is new enough": ("app-needs-newer-compute-capability", "Is flash-attn supported on an A100?"),
    "a GPU that the installer saw": ("ollama-installer-saw-no-gpu", ">>> NVIDIA GPU installed.\nRuntimeError: x"),
    "a compiler of today": ("msvc-too-old-for-source", "Building for: Visual Studio 17 2022\nRuntimeError: x"),
    "code for a GPU of today": ("compiled-for-gpus-too-old", "ptxas x.compute_90.ptx, line 12; error   : Feature"),
    "a build that goes on": ("compiler-refuses-source", "[1/3] c++ -c a.cpp -o a.o\nSuccessfully built x"),
    "an old card with its build": ("torch-wheel-lacks-gpu-arch", "On a GTX 1080 with cu126 it is slow, why?"),
    "a disk that is full": ("shm-too-small", "OSError: [Errno 28] No space left on device: '/home/u/model.bin'"),
    "cuDNN itself is what is missing": (
        "libcuda-not-visible",
        "In WSL 2\n" + LIBCUDA.format("libcudnn_cnn_infer.so.8"),
    ),
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


def test_no_verdict_of_health_over_a_failure_that_no_rule_takes() -> None:
    line = "RuntimeError: libcuda.so.1: cannot open shared object file: No such file or directory"
    assert judged(line + "\ntorch.cuda.is_available() returns True").verdict == "degraded"
    assert judged("Warning, ignored: " + line + "\ntorch.cuda.is_available() returns True").verdict == "healthy"


def test_nvidia_libraries_in_a_container_are_mended_there() -> None:
    mismatch = "Failed to initialize NVML: Driver/library version mismatch"
    assert "anew" in judged(SMI.format("515.48.07", "11.7") + mismatch).findings[0].fix[0]
    assert judged(mismatch).findings[0].fix[0] == "sudo reboot"


def test_a_full_disk_stays_one_beside_a_full_dev_shm() -> None:
    text = "OSError: [Errno 28] No space left on device: '/data'\n" + FIRES["NCCL and the pod's shared memory"][1]
    assert {finding.id for finding in judged(text).findings} >= {"hf-cache-disk-full", "shm-too-small"}


def test_a_card_that_somebody_names_is_not_counted() -> None:
    told = "RTX 4090-24G*8\nCUDA_VISIBLE_DEVICES=4 python finetune.py\nRuntimeError: CUDA error"
    assert "cuda-visible-devices-wrong" not in [finding.id for finding in judged(told).findings]
    listed = "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-00000000-0000-0000-0000-000000000000)\n" + told
    assert "cuda-visible-devices-wrong" in [finding.id for finding in judged(listed).findings]


@pytest.mark.parametrize(("folder", "command"), [("deepspeed", "install -U deepspeed"), ("", "<package>")])
def test_the_package_that_a_traceback_names_is_the_one_to_upgrade(folder: str, command: str) -> None:
    line = (
        f'  File "E:\\venv\\lib\\site-packages\\{folder}\\runtime\\utils.py", line 18, in <module>\n' if folder else ""
    )
    found = judged(line + "ModuleNotFoundError: No module named 'torch._six'").findings[0]
    assert found.id == "package-too-old-for-torch"
    assert command in found.fix[-1]


def test_an_unnamed_system_leaves_no_comma() -> None:
    lines = dict(summary(to_json(judged("docker run --gpus all ghcr.io/someone/thing:1 \nRuntimeError: no"))))
    assert lines["system"] == "in docker"


def test_conda_forge_calls_torch_pytorch() -> None:
    facts = Facts(origin="report", conda=("torch", "numpy"))
    assert install(facts, "torch==2.6.0", "numpy").endswith("conda-forge pytorch==2.6.0 numpy")
    assert "pytorch" not in install(Facts(origin="report"), "torch==2.6.0")


def test_a_kepler_card_gets_what_still_knows_it() -> None:
    k20 = SMI.format("450.51.06", "11.0") + "GPU 0: Tesla K20m (UUID: GPU-00000000-0000-0000-0000-000000000000)\n"
    told = k20 + "PyTorch no longer supports this GPU because it is too old."
    first = judged(told).findings[0]
    assert (first.id, "TORCH_CUDA_ARCH_LIST=3.5" in first.fix[0]) == ("torch-wheel-lacks-gpu-arch", True)
    assert "ARCH_LIST" not in " ".join(judged(told.replace("K20m", "V100")).findings[0].fix)


@pytest.mark.parametrize(
    ("line", "there"), [("Collecting torchvision==0.18.1", True), ("Collecting torchvision", False)]
)
def test_a_companion_that_pip_fetched_is_replaced_with_torch(line: str, there: bool) -> None:
    text = "Windows 11\nCollecting torch==2.3.1\n" + line + "\nAssertionError: Torch not compiled with CUDA enabled"
    first = judged("torch 2.3.1\n" + text).findings[0]
    assert (first.id, any("torchvision" in step for step in first.fix)) == ("torch-cpu-only", there)


@pytest.mark.parametrize(
    ("text", "step", "other"),
    [
        ("gfx1032", "HSA_OVERRIDE_GFX_VERSION=10.3.0", "11.0.0"),
        ("gfx1103", "HSA_OVERRIDE_GFX_VERSION=11.0.0", "10.3.0"),
        ("gfx1201", "index-url", "HSA_OVERRIDE"),
    ],
)
def test_the_very_card_gets_its_own_override(text: str, step: str, other: str) -> None:
    finding = judged(f"HIP error: invalid device function\n  Name:    amdgcn-amd-amdhsa--{text}\n").findings[0]
    assert finding.id == "rocm-gfx-unsupported"
    assert step in finding.fix[0]
    assert other not in " ".join(finding.fix)


def test_docker_of_snap_is_replaced_before_the_toolkit_is_installed() -> None:
    refused = 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].\n'
    assert judged(refused + "sudo snap services docker").findings[0].fix[0].startswith("sudo snap remove docker")
    assert not any(step.startswith("sudo snap") for step in judged(refused).findings[0].fix)


GATED = "huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo\n"


def test_the_hub_is_logged_in_to_by_the_command_that_is_there() -> None:
    assert any("huggingface-cli login" in step for step in judged("transformers==4.41.2\n" + GATED).findings[0].fix)
    assert any("hf auth login" in step for step in judged("transformers==5.2.0\n" + GATED).findings[0].fix)


CXX = "{}/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /{}/site-packages/bitsandbytes/lib.so)"


@pytest.mark.parametrize(
    ("found", "venv", "has", "lacks"),
    [
        ("/lib/x86_64-linux-gnu", "root/venv/lib/python3.10", "ppa:ubuntu-toolchain", "$CONDA_PREFIX"),
        ("/lib/x86_64-linux-gnu", "root/miniconda3/envs/a/lib", "$CONDA_PREFIX", "ppa:"),
        ("/root/miniconda3/lib", "root/miniconda3/lib", "LD_PRELOAD", "ppa:"),
    ],
)
def test_libstdcxx_is_mended_in_the_environment_at_hand(found: str, venv: str, has: str, lacks: str) -> None:
    finding = judged(CXX.format(found, venv)).findings[0]
    assert finding.id == "libstdcxx-too-old"
    assert has in " ".join(finding.fix)
    assert lacks not in " ".join(finding.fix)
    assert finding.evidence["needed_by"] == "bitsandbytes"


def test_the_cache_that_is_locked_is_the_one_that_is_moved() -> None:
    finding = judged("PermissionError: [Errno 13] Permission denied: '/app/engine/.triton'").findings[0]
    assert (finding.id, finding.fix[0].startswith("export TRITON_CACHE_DIR=")) == ("hf-home-unwritable", True)
    assert "HF_HOME" in judged("PermissionError: [Errno 13] Permission denied: '/.cache'").findings[0].fix[0]


def test_a_batch_system_is_asked_for_the_gpu_first() -> None:
    failed = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    assert judged("#SBATCH --mem=8G\n" + failed).findings[0].fix[0].startswith("srun --gres")
    assert "srun" not in " ".join(judged(failed).findings[0].fix)
