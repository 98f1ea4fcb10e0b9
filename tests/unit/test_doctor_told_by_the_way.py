"""What a report shows by the way - a path, a prompt, a kernel's log - decides the cause, or which fix holds there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report
from workbench.doctor.report import to_json, to_text

NO_TORCH = (
    "{}>pip install torch==1.5.1+cpu\n"
    "ERROR: Could not find a version that satisfies the requirement torch==1.5.1+cpu (from versions: 0.1.2)\n"
    "ERROR: No matching distribution found for torch==1.5.1+cpu\n"
)
NOUVEAU = "kernel: nouveau 0000:01:00.0: DRM: VRAM: 2048 MiB\n"
NOT_LOADED = (
    "modprobe: FATAL: Module nvidia not found.\nNVIDIA-SMI has failed because it couldn't communicate with the NVIDIA "
    "driver. Make sure that the latest NVIDIA driver is installed and running.\n"
)
OLD_LOADER = (
    "{}/cuda_setup/main.py:166: UserWarning: Welcome to bitsandbytes.\n"
    "CUDA SETUP: PyTorch settings found: CUDA_VERSION=117, Highest Compute Capability: 7.0.\n"
    "CUDA SETUP: Required library version not found: libbitsandbytes_cuda117_nocublaslt.so. Maybe you need to compile "
    "it from source?\n"
)
OVERRIDDEN = "BNB_CUDA_VERSION=114 environment variable detected; loading\nLoading: libbitsandbytes_cuda114{}.so\n"
SHADOWED = (
    "module 'torch.library' has no attribute 'register_fake'\n"
    '({}) PS C:\\Users\\u> python -c "import torch; print(torch.__file__)"\n'
    "C:\\Users\\u\\AppData\\Roaming\\Python\\Python311\\site-packages\\torch\\__init__.py\n"
)
ON_8_BITS = (
    '  File "{}/lib/python3.11/site-packages/transformers/modeling_utils.py", line 2312, in from_pretrained\n'
    "ImportError: Using `load_in_8bit=True` requires Accelerate: `pip install accelerate` and the latest version of "
    "bitsandbytes\n"
)
OLLAMA = (
    'level=DEBUG source=gpu.go:592 msg="Unable to load cudart library /usr/lib/ollama/libcudart.so.12.4.127: cudart '
    'init failure: {}"\ncudaSetDevice err: {}\n'
)
MISMATCH = (
    '  File "{}/site-packages/torch/utils/cpp_extension.py", line 387, in _check_cuda_version\n'
    "The detected CUDA version (12.2) mismatches the version that was used to compile\nPyTorch (11.7).\n"
)
NO_TOOLKIT = "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.\n{}"
HUB = (
    "ImportError: huggingface-hub>=0.24.0,<1.0 is required for a normal functioning of this module, but found "
    "huggingface-hub==0.23.4.\n{}"
)
NO_DEVICE_DRIVER = (
    'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].\n'
    "I run Docker on Windows 10\nDriver Version : {}\n"
)
GPU_IS_GONE = "RuntimeError: No CUDA GPUs are available\n"
PTX = "ptxas /tmp/x-6_gemm.ptx, line 709; error   : Feature '{}' requires .target sm_80 or higher\n"


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


def told(finding: Finding) -> str:
    return "\n".join((finding.title, *finding.fix))


CASES = {
    "the folder of a 32-bit Python": (NO_TORCH.format(r"C:\Python\Python37-32\Scripts"), "python-32-bit", ""),
    "the folder of a 64-bit one": (
        NO_TORCH.format(r"C:\Python\Python39\Scripts"),
        "no-torch-wheel-for-python",
        "Python 3.8",
    ),
    "nouveau in the kernel's log": (NOUVEAU, "nouveau-loaded", "blacklist nouveau"),
    "nouveau under NixOS": (
        NOUVEAU + "boot.extraModulePackages = [ config.boot.kernelPackages.nvidia_x11 ];\n",
        "nouveau-loaded",
        "services.xserver.videoDrivers",
    ),
    "the kernel of WSL 1": (
        "My system is ubuntu 14.04 on win10\nmodprobe: ERROR: could not open '/lib/modules/3.4.0+/modules.dep.bin'\n"
        + NOT_LOADED,
        "kernel-module-not-loaded",
        "WSL 1 has no GPU",
    ),
    "a driver without dkms": (
        NOT_LOADED + "$ dkms status\nThe program 'dkms' is currently not installed.\n",
        "kernel-module-not-loaded",
        "nvidia-uninstall",
    ),
    "a machine without a name": (
        "[root@localhost ~]# nvidia-smi\n" + NOT_LOADED,
        "kernel-module-not-loaded",
        "sudo dnf install kernel-devel",
    ),
    "a checkout of bitsandbytes": (
        OLD_LOADER.format("/home/u/bitsandbytes/bitsandbytes"),
        "bnb-source-install-not-compiled",
        "Move /home/u/bitsandbytes/bitsandbytes away",
    ),
    "bitsandbytes where pip put it": (
        OLD_LOADER.format("/home/u/.venv/lib/python3.10/site-packages/bitsandbytes"),
        "bnb-legacy-loader",
        '"bitsandbytes<0.45"',
    ),
    "a name that no library has": (OVERRIDDEN.format("_nocublaslt114"), "bnb-cuda-version-override", "unset BNB"),
    "torch from the home directory": (SHADOWED.format("work"), "duplicate-torch-installs", "PYTHONNOUSERSITE"),
    "torch without an environment": (SHADOWED.format("base"), "package-versions-do-not-fit", "torch"),
    "Homebrew's Python": (ON_8_BITS.format("/opt/homebrew"), "accelerate-message-without-cuda", "Mac"),
    "Linux's Python": (ON_8_BITS.format("/usr"), "accelerate-missing", "install -U accelerate"),
    "Ollama and the fabric": (OLLAMA.format(802, 802), "fabric-manager-not-running", "fabricmanager"),
    "Ollama and another error": (OLLAMA.format(999, 999), "ollama-driver-does-not-start", "nvidia_uvm"),
    "the torch of the build alone": (
        MISMATCH.format("/tmp/pip-build-env-4xnh4rb6/overlay/lib/python3.10"),
        "nvcc-torch-cuda-mismatch",
        "--no-build-isolation",
    ),
    "the torch that is here": (
        MISMATCH.format("/home/u/.venv/lib/python3.10"),
        "nvcc-torch-cuda-mismatch",
        "nvcc is of CUDA 12.2, torch of CUDA 11.7",
    ),
    "a toolkit for a Mac": (NO_TOOLKIT.format("How do I install it (Apple M1)?"), "cuda-home-unset", "a Mac has no"),
    "a toolkit for Linux": (NO_TOOLKIT.format(""), "cuda-home-unset", "toolkit"),
    "a program's own Python": (
        HUB.format("D:\\UI>.\\python_embeded\\python.exe -s ComfyUI\\main.py --windows-standalone-build\n"),
        "huggingface-hub-pin-conflict",
        r".\python_embeded\python.exe -m pip install",
    ),
    "a program's folder in a prompt": (
        HUB.format("F:\\ComfyUI_windows_portable>pause\n"),
        "huggingface-hub-pin-conflict",
        r"F:\ComfyUI_windows_portable\python_embeded\python.exe -m pip install",
    ),
    "a driver from before WSL": (NO_DEVICE_DRIVER.format("451.67"), "container-without-gpu-runtime", "451.67 has no"),
    "devices that a script names": (
        "$ bash scripts/run_360.sh\n" + GPU_IS_GONE,
        "no-cuda-gpus-available",
        "grep -rn CUDA_VISIBLE_DEVICES",
    ),
    "a card older than torch": (
        "GeForce GTX 670M with CUDA capability sm_21 is not compatible with the current PyTorch installation.\n",
        "torch-wheel-lacks-gpu-arch",
        "No torch can use this GPU",
    ),
    "AWQ on a Turing": (
        "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 80. Current "
        "capability: 75.\n",
        "vllm-too-old-for-awq-on-turing",
        "install -U vllm",
    ),
    "AWQ on a Volta": (
        "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. Current "
        "capability: 70.\n",
        "quantization-kernel-needs-newer-gpu",
        "GGUF",
    ),
    "a start that fails before anything forks": (
        "`cu->cuInit(0) failed -> CUDA_ERROR_NOT_INITIALIZED: initialization error`\n",
        "cuda-unknown-error",
        "nvidia_uvm",
    ),
    "a start in a forked process": (
        "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use "
        "the 'spawn' start method\n",
        "cuda-in-forked-process",
        "spawn",
    ),
    "a job's own limit": (
        "slurmstepd: error: Detected 1 oom-kill event(s) in step 6139636.0 cgroup. Some of your processes may have "
        "been killed by the cgroup out-of-memory handler.\n",
        "host-memory-exhausted",
        "more main memory than it had asked",
    ),
    "a machine's own end": ("Out of memory: Killed process 71 (python)\n", "host-memory-exhausted", "machine ran out"),
    "whose checkpoint it is": (
        'Traceback (most recent call last):\n  File "/home/u/v/lib/python3.10/site-packages/pyannote/audio/core/'
        'pipeline.py", line 244, in from_pretrained\n  File "/home/u/v/lib/python3.10/site-packages/lightning_fabric/'
        'utilities/cloud_io.py", line 51, in _load\n  File "/home/u/v/lib/python3.10/site-packages/torch/'
        'serialization.py", line 1470, in load\n_pickle.UnpicklingError: Weights only load failed.\n',
        "checkpoint-refused-by-weights-only",
        "install -U pyannote-audio",
    ),
    "instructions of newer GPUs": (PTX.format(".m16n8k16"), "app-needs-newer-compute-capability", "sm_80"),
}
NOT_SO = {
    "a driver that knows WSL": (NO_DEVICE_DRIVER.format("551.86"), "has no CUDA for WSL"),
    "a name that a library has": (OVERRIDDEN.format(""), "bitsandbytes is too old"),
    "a container without devices": (
        GPU_IS_GONE + "docker run -it nvcr.io/nvidia/pytorch:24.01-py3\n",
        "most likely CUDA_",
    ),
    "nouveau blacklisted": ("blacklist nouveau\noptions nouveau modeset=0\n" + NOT_LOADED, "nouveau driver holds"),
    "another's name": ("[u@localhost ~]$ nvidia-smi\n" + NOT_LOADED, "dnf"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_and_the_fix_that_holds_there(name: str) -> None:
    text, expected, word = CASES[name]
    finding = first(text)
    assert finding.id == expected
    assert word in told(finding)


@pytest.mark.parametrize("name", NOT_SO)
def test_where_it_is_not_so_nothing_says_it(name: str) -> None:
    text, word = NOT_SO[name]
    assert all(word not in told(finding) for finding in diagnose(parse_report(text)).findings)


@pytest.mark.parametrize(
    ("torch", "python", "wanted"),
    [
        ("torch 1.13.1+cu117", "3.8", '"bitsandbytes<0.45"'),
        ("torch 2.0.1+cu118", "3.10", '"bitsandbytes<0.46"'),
        ("torch 2.3.1+cu121", "3.9", '"bitsandbytes<0.49"'),
        ("torch 2.6.0+cu124", "3.12", "-U bitsandbytes"),
    ],
)
def test_an_upgrade_of_bitsandbytes_leaves_torch_alone(torch: str, python: str, wanted: str) -> None:
    site = f"/home/u/.venv/lib/python{python}/site-packages/bitsandbytes"
    assert wanted in told(first(f"{torch}\n{OLD_LOADER.format(site)}"))


@pytest.mark.parametrize(
    ("symbol", "torch", "abi"),
    [
        ("_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", "2.5.1", "FALSE"),
        ("_ZN3c105ErrorC2ENS_14SourceLocationESs", "2.6.0+cu126", "TRUE"),
        ("_ZN3c104cuda9SetDeviceEa", "2.8.0+cu128", "TRUE"),
        ("_ZN3c104cuda9SetDeviceEa", "2.4.1+cu121", "FALSE"),
    ],
)
def test_the_wheel_of_flash_attn_is_named_with_its_abi(symbol: str, torch: str, abi: str) -> None:
    library = "/home/u/.venv/lib/python3.10/site-packages/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so"
    finding = first(f"torch {torch}\nImportError: {library}: undefined symbol: {symbol}\n")
    assert finding.id == "flash-attn-built-for-other-torch"
    assert f"cxx11abi{abi}" in told(finding)


def test_no_abi_is_named_where_the_release_has_both() -> None:
    finding = first(
        "torch 2.6.0+cu124\nImportError: /x/flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEa\n"
    )
    assert "cxx11abi" not in told(finding)


def test_the_nearest_library_stands_in_for_a_cuda_that_none_was_built_for() -> None:
    shown = "bitsandbytes 0.43.3\ntorch 1.13.1+cu116\nRuntimeError: Configured CUDA binary not found at /x/lib{}.so\n"
    finding = first(shown.format("bitsandbytes_cuda116"))
    assert finding.id == "bnb-no-lib-for-cuda"
    assert "export BNB_CUDA_VERSION=117" in told(finding)


def test_a_gate_that_ended_the_program_comes_before_what_torch_warned_of() -> None:
    warned = (
        "UserWarning: NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch "
        "installation.\n"
    )
    gated = (
        "huggingface_hub.errors.GatedRepoError: 401 Client Error.\nCannot access gated repo for url "
        "https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json.\n"
    )
    stopped = "RuntimeError: CUDA error: no kernel image is available for execution on the device\n"
    assert [finding.id for finding in diagnose(parse_report(warned + gated)).findings][:2] == [
        "hf-gated-model",
        "torch-wheel-lacks-gpu-arch",
    ]
    assert first(warned + stopped + gated).id == "torch-wheel-lacks-gpu-arch"


@pytest.mark.parametrize(
    ("text", "container"),
    [
        ("我的系统没有使用docker，共享内存64g", None),
        ("I run it on the host, not in docker.", None),
        ("The GPU is not visible in docker.", "docker"),
        ("I use docker; outside of the container it works.", None),
        ("docker run --gpus all x: could not select device driver", "docker"),
    ],
)
def test_a_container_is_none_that_is_denied(text: str, container: str) -> None:
    assert parse_report(text).platform.container == container


def test_a_name_that_the_triton_of_this_torch_still_has_is_missed_in_an_older_one() -> None:
    text = (
        "ImportError: cannot import name 'triton_key' from 'triton.compiler.compiler' (/e/lib/python3.10/site-packages/"
        "triton/compiler/compiler.py)\nPyTorch version: {}\n"
    )
    older, newer = (diagnose(parse_report(text.format(torch))).findings[0] for torch in ("2.4.0+cu121", "2.10.0+cu128"))
    assert "gone" not in older.title
    assert any("triton==3.0.0" in step for step in older.fix)
    assert "gone since triton 3.5" in newer.title


def test_a_report_as_text_shows_a_command_whole_and_with_its_spaces() -> None:
    shown = {"severity": "error", "title": "x", "id": "x", "why": "y", "evidence": {}, "source": ""}
    step = "awk '/^ii  x/' " + "a" * 700 + "\x1b[2J"
    text = to_text({**to_json(diagnose(parse_report("torch 2.4.0+cpu"))), "findings": [{**shown, "fix": [step]}]})
    assert f"fix:  {step[:-4]}" in text
    assert "\x1b" not in text


REPORTS = Path(__file__).parent.parent / "data" / "doctor"
JETSON = (REPORTS / "bnb-jetson--compiled-without-cuda.txt").read_text(encoding="utf-8")


def test_a_bitsandbytes_without_cuda_is_compiled_on_a_jetson_and_only_there() -> None:
    first = diagnose(parse_report(JETSON)).findings[0]
    assert "-DCOMPUTE_CAPABILITY=87" in first.fix[-1]
    elsewhere = diagnose(parse_report(JETSON.replace("AGX Orin 64GB, JetPack 5.1.2", "RTX 3090")))
    assert "bnb-jetson" not in {finding.id for finding in elsewhere.findings}


def test_the_versions_that_a_model_was_made_with_are_not_those_that_are_here() -> None:
    facts = parse_report(
        "Model was trained with pyannote.audio 0.0.1, yours is 3.3.2. Bad things might happen.\n"
        "Model was trained with torch 1.10.0+cu102, yours is 2.5.1. Bad things might happen.\n"
        "Could not load library libcudnn_ops_infer.so.8. Error: libcudnn_ops_infer.so.8: cannot open shared object "
        "file: No such file or directory\n"
    )
    assert facts.torch.version == "2.5.1"
    assert "ctranslate2>=4.5" in diagnose(facts).findings[0].fix[0]


def test_a_torch_without_cuda_is_told_by_bitsandbytes_too() -> None:
    said = (
        "Could not load bitsandbytes native library: 'NoneType' object has no attribute 'split'\n"
        '  File "/home/me/env/lib/python3.10/site-packages/bitsandbytes/cuda_specs.py", line 24, in '
        "get_cuda_version_tuple\nbitsandbytes 0.43.1\n"
    )
    assert diagnose(parse_report(said + "RTX 3060\n")).findings[0].id == "torch-cpu-only"
    assert diagnose(parse_report(said + "AMD GPU, rocm-libs 6.0\n")).findings[0].id == "bnb-wheel-without-rocm"


def test_a_header_of_cuda_that_no_list_names_is_missed_too() -> None:
    said = "src/a.cu:3:10: fatal error: {}: No such file or directory\ncompilation terminated.\n"
    for header in ("cuda/std/functional", "cuda_fp8.h", "curand_kernel.h"):
        first = diagnose(parse_report(said.format(header))).findings[0]
        assert (first.id, header in first.title) == ("cuda-headers-missing", True)


def test_on_windows_no_module_of_linux_is_blamed() -> None:
    said = "CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment\n"
    assert "nvidia_uvm" in diagnose(parse_report(said + "OS: Ubuntu 22.04\n")).findings[0].title
    assert "nvidia_uvm" not in diagnose(parse_report(said + "OS: Microsoft Windows 11\n")).findings[0].title


def test_a_torch_for_the_cpu_that_got_installed_is_told_in_words() -> None:
    said = "--extra-index-url https://download.pytorch.org/whl/cu118\ntorch\ntorchvision\n\n{}\n"
    blamed = diagnose(parse_report(said.format("with this requirements.txt the torch cpu version gets installed")))
    assert blamed.findings[0].id == "torch-cpu-only"
    wanted = diagnose(parse_report(said.format("I want a torch cpu version, is it smaller when installed?")))
    assert not [finding for finding in wanted.findings if finding.severity == "error"]


def test_a_mac_with_an_amd_gpu_is_not_sent_to_rocm() -> None:
    said = "Apple Macbook, Intel 2019, AMD Radeon 5500\nAssertionError: Torch not compiled with CUDA enabled\n"
    ids = {finding.id for finding in diagnose(parse_report(said)).findings}
    assert "torch-cpu-only" in ids
    assert "cuda-wheel-on-amd" not in ids


def test_a_library_of_torchs_own_cuda_is_missing_on_the_loaders_path_and_not_another_build() -> None:
    same = (REPORTS / "extension-built-for-other-cuda--same-major.txt").read_text(encoding="utf-8")
    first = diagnose(parse_report(same)).findings[0]
    assert any("LD_LIBRARY_PATH" in step for step in first.fix)
    other = diagnose(parse_report(same.replace("libnvrtc.so.12", "libnvrtc.so.13"))).findings[0]
    assert "built for CUDA 13" in other.title


def test_a_build_beside_a_torch_for_rocm_is_sent_to_rocm() -> None:
    said = (REPORTS / "cuda-home-unset--torch-for-rocm.txt").read_text(encoding="utf-8")
    assert "ROCM_HOME" in diagnose(parse_report(said)).findings[0].fix[0]
    assert "ROCM" not in "".join(diagnose(parse_report(said.replace("+rocm6.3", "+cu126"))).findings[0].fix)


def test_a_portable_python_in_a_folder_with_blanks_is_called_as_both_shells_of_windows_take_it() -> None:
    said = (
        "D:\\my programs\\ComfyUI_windows_portable>.\\python_embeded\\python.exe -s ComfyUI\\main.py\n"
        "D:\\my programs\\ComfyUI_windows_portable\\python_embeded\\Lib\\site-packages\\torch\\cuda\\__init__.py:235: "
        "UserWarning:\nNVIDIA GeForce RTX 5070 Ti with CUDA capability sm_120 is not compatible with the current "
        "PyTorch installation.\nThe current PyTorch install supports CUDA capabilities sm_50 sm_90.\n"
    )
    fix = diagnose(parse_report(said)).findings[0].fix
    assert fix[0].startswith('pushd "D:\\my programs\\ComfyUI_windows_portable\\python_embeded"')
    assert fix[1].startswith(".\\python.exe -m pip ")


def test_bitsandbytes_that_is_missing_comes_in_a_release_that_leaves_torch_alone() -> None:
    said = "pip list\ntorch 2.3.0a0+6ddf5cf85e.nv24.4\nImportError: No module named 'bitsandbytes'\n"
    assert any("bitsandbytes<0.48" in step for step in diagnose(parse_report(said)).findings[0].fix)


def test_on_a_windows_that_its_pause_tells_the_driver_is_updated_first() -> None:
    said = "RuntimeError: The NVIDIA driver on your system is too old (found version 11070).\n"
    windows = diagnose(parse_report(said + "Press any key to continue . . .\n")).findings[0]
    assert windows.fix[0].startswith("Update the NVIDIA driver to 527.41")
    assert "pip uninstall" in diagnose(parse_report(said)).findings[0].fix[0]


def test_a_vllm_without_code_for_a_new_gpu_is_followed_as_a_whole_and_not_by_its_torch() -> None:
    said = "vLLM on an RTX 5090:\nRuntimeError: CUDA error: no kernel image is available for execution on the device\n"
    here = diagnose(parse_report(said)).findings[0]
    assert "vLLM" in here.title
    assert here.fix[0].startswith("uv pip install -U vllm")
    image = diagnose(parse_report(said + "docker run --gpus all vllm/vllm-openai:latest\n")).findings[0]
    assert image.fix[0].startswith("docker pull vllm/vllm-openai")
    alone = diagnose(parse_report(said.replace("vLLM on", "A program on"))).findings[0]
    assert "vllm" not in " ".join(alone.fix)


def test_docker_that_cannot_hand_in_a_gpu_is_not_said_to_have_been_started_without() -> None:
    said = (
        "$ docker run --gpus all -it image\n"
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].\n'
    )
    assert "container toolkit" in diagnose(parse_report(said)).findings[0].title


def test_the_index_of_an_old_torch_is_named_by_two_numbers_of_its_cuda() -> None:
    step = diagnose(parse_report("RuntimeError: operator torchvision::nms does not exist\n")).findings[0].fix[0]
    asks = step[step.index('python -c "') + len('python -c "') :].split('"')[0]
    torch = SimpleNamespace(__version__="1.1.0", version=SimpleNamespace(cuda="9.0.176"))
    told: list[str] = []
    names = {"torch": torch, "print": lambda *words: told.append(" ".join(map(str, words)))}
    exec(asks.removeprefix("import torch; "), names)
    assert "cu90" in told[0]
    assert "cu90176" not in told[0]
