"""Rules about GPUs that a program does not see though the driver works: hidden by a variable, rights, or a job."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import web_uis
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    ISSUES,
    PASSED,
    Result,
    Rule,
    cuda_works,
    evidence,
    gpu_names,
    no_gpu_told,
    seen,
)
from workbench.doctor.rules.hand_in import ASK_DOCKER, ask_batch_system, wsl_steps


def cuda_visible_devices_wrong(facts: Facts) -> Result:
    """CUDA_VISIBLE_DEVICES hides every GPU or names one that is not there."""
    unallocated = facts.error("no-dev-files")
    value = facts.environment.get("CUDA_VISIBLE_DEVICES", "NoDevFiles" if unallocated else None)
    if value is None or cuda_works(facts):
        return PASSED
    shown = value.strip().strip("'\"")
    # People name one card and have eight; only a program's list counts them.
    listed = facts.origin == "live" or not {"nvidia-smi", "collect_env"}.isdisjoint(facts.formats)
    fault = _visible_fault(shown, len(facts.nvidia_gpus()) if facts.gpus and listed else None)
    if fault is None and facts.error("no-cuda-gpus") and shown.startswith("$"):
        fault = f"is set to {shown}, which is no number here"
    if fault is None and facts.error("no-cuda-gpus") and not facts.gpus and re.fullmatch(r"[1-9]\d{0,3}", shown):
        fault = f"names GPU {shown}, which is not there"
    if fault is None and (facts.error("no-cuda-gpus") or facts.torch.cuda_available is False):
        fault = _no_device_name(shown)
    if fault is None:
        return PASSED
    by_slurm = shown == "NoDevFiles"
    # On a box without any GPU there is nothing to hide.
    nothing_to_hide = facts.gpus == () and not facts.has_nvidia() and not by_slurm and not facts.error("no-cuda-gpus")
    return [
        Finding(
            "cuda-visible-devices-wrong",
            "info" if nothing_to_hide else "error",
            "CUDA_VISIBLE_DEVICES hides every GPU" if fault == "hides all" else f"CUDA_VISIBLE_DEVICES {fault}",
            "CUDA shows a process only the devices listed there, up to the first one that does not exist; torch "
            "then says "
            "'No CUDA GPUs are available' although nvidia-smi lists them.",
            {
                **evidence(gpus=gpu_names(facts)),
                "CUDA_VISIBLE_DEVICES": repr(value),
                **seen(unallocated or facts.error("no-cuda-gpus")),
            },
            ("Ask Slurm for a GPU: srun --gres=gpu:1 …, or #SBATCH --gres=gpu:1 in the script",)
            if by_slurm
            else (
                *_out_of_program(facts),
                *_out_of_container(facts),
                _typed_anew(facts)
                or fixes.unset(facts, "CUDA_VISIBLE_DEVICES", "or set it to indices from 0, before the process starts"),
            ),
            ISSUES + "KeYang8/WITT/issues/34",
            affects=ALL_GPU_BENCHES,
            observed=facts.error("no-cuda-gpus") is not None or facts.torch.cuda_available is False,
        )
    ]


def _out_of_program(facts: Facts) -> tuple[str, ...]:
    """A program that sets the variable for itself is not reached by the shell's."""
    if facts.error("devices-set-in-program") is None:
        return ()
    if fixes.on_windows(facts):
        return (_find_variable(facts),)
    return (
        "grep -rlE 'environ.*CUDA_VISIBLE_DEVICES' --include='*.py' . | xargs sed -i -E "
        "'/environ.*CUDA_VISIBLE_DEVICES/s/^( *)/\\1pass  # /'   # in the program's folder: takes the lines out that "
        "set it; the shell's variable counts then",
    )


def _out_of_container(facts: Facts) -> tuple[str, ...]:
    """What a compose file or a pod sets is taken out there."""
    if facts.origin != "report" or facts.platform.container not in ("docker", "podman", "kubernetes"):
        return ()
    return (
        "Take CUDA_VISIBLE_DEVICES out of the container's environment (compose file, pod, -e), then make it anew: "
        "docker compose up -d   # 'all' is a word of NVIDIA_VISIBLE_DEVICES; inside, the GPUs count from 0",
    )


def _no_device_name(value: str) -> Optional[str]:
    """A word where CUDA wants numbers or UUIDs: it then shows none, as torch's own reading of the variable tells.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/cuda/__init__.py (_parse_visible_devices)
    """
    first = value.split(",")[0].strip()
    word = re.fullmatch(r"[A-Za-z][\w:.-]{1,20}", first) and not first.startswith(("GPU-", "MIG-"))
    return f"is '{first}', which is neither a number nor a UUID" if word else None


def _visible_fault(value: str, count: Optional[int]) -> Optional[str]:
    if value in ("", "-1", "void", "none", "NoDevFiles"):
        return "hides all"
    first = value.split(",")[0].strip()
    if re.fullmatch(r"-?\d{1,6}", first):
        index = int(first)
        if index < 0:
            return "hides all"
        if count is not None and index >= count:
            return f"names GPU {index}, but there are only {count}"
    return None


# What torch says of a GPU that it sees, and has no code for.
_SEEN_BY_TORCH = ("unsupported-capability", "gpu-too-old-for-torch", "no-kernel-image")


def no_cuda_gpus(facts: Facts) -> Result:
    """torch sees no device, and nothing more precise is known."""
    error = facts.error("no-cuda-gpus", "needs-gpu")
    if error is None and (not no_gpu_told(facts) or facts.error(*_SEEN_BY_TORCH)):
        return PASSED
    if error is None and (facts.torch.build in ("cpu", "mps") or facts.platform.system == "Darwin"):
        return PASSED
    if error is None and facts.torch.build == "rocm" and facts.has_amd():
        return PASSED  # rocm_no_device tells of it
    hip = facts.error("hip-no-gpus")
    if error is None and hip is not None and "no hip gpus" in hip.text.lower():
        return PASSED  # only a build for ROCm says so
    alone = facts.error("no-gpu-in-machine")
    if alone is not None and not _WONDERS.search(alone.text) and not facts.has_nvidia() and not facts.has_amd():
        return [_without_gpu(facts, error or alone)]
    answered = error is not None and error.id == "no-cuda-gpus"
    windows = fixes.on_windows(facts) and not answered and facts.torch.build is None
    by_conda = not answered and _by_conda(facts)
    return [
        Finding(
            "no-cuda-gpus-available",
            "error",
            "The file was saved from a GPU, and the program wants it on a CPU without being told so"
            if _load_on_cpu(facts) and facts.error("cpu-asked")
            else "torch sees no GPU: its usual builds have no code for AMD's"
            if not answered and facts.has_amd() and not facts.nvidia_gpus()
            else "torch sees no GPU; on Windows it is most likely the build without CUDA"
            if windows
            else "torch sees no GPU; most likely the container was started without it"
            if not answered and facts.platform.container and not facts.error("gpus-handed-in")
            else "torch sees no GPU; most likely this cloud machine has no NVIDIA driver"
            if _plain_cloud_image(facts)
            else "torch sees no GPU; most likely it is a build without CUDA, which conda brings unless told"
            if by_conda
            else "torch sees no GPU though the driver answers: most likely CUDA_VISIBLE_DEVICES names none of them"
            if answered and not (facts.platform.container or facts.platform.service or ask_batch_system(facts))
            else "torch sees no GPU"
            if answered or facts.torch.build == "cuda" or facts.driver.error
            else "torch sees no GPU; most likely it is a build without CUDA",
            "The driver answered, but offered no device to this process: CUDA_VISIBLE_DEVICES, a job scheduler, or a "
            "container limited to other devices."
            if answered
            else "Most often torch is a build without CUDA, which is what pip brings on Windows; else the driver is "
            "missing or too old, or CUDA_VISIBLE_DEVICES hides the GPU.",
            {
                **evidence(gpus=gpu_names(facts), driver=facts.driver.version, torch__version=facts.torch.version),
                **evidence(cuda_available=facts.torch.cuda_available),
                **seen(error),
            },
            _look_for_gpu(facts, answered),
            ISSUES + ("KeYang8/WITT/issues/34" if answered else "pytorch/pytorch/issues/30664"),
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


# "It says that my machine has no GPU, though it has one."
_WONDERS = re.compile(r"\b(?:says?|said|thinks?|claims?|complain\w*|tells?|told|believes?|though|but|as if)\b", re.I)


def _without_gpu(facts: Facts, error: ErrorFact) -> Finding:
    """The machine has no GPU, as its owner says: nothing is wrong with what is installed."""
    return Finding(
        "no-cuda-gpus-available",
        "error",
        "The program asks for a GPU, and this machine has none",
        "No driver and no build of torch makes one. What trains or serves with CUDA alone (Unsloth, vLLM's usual "
        "wheels, 4-bit models of bitsandbytes before 0.49) does not run here; much else does on the processor.",
        {**evidence(torch__version=facts.torch.version), **seen(error)},
        (
            "Run it where there is an NVIDIA GPU: Colab (Runtime, Change runtime type, T4), Kaggle, a rented one",
            "or, where the program has a way without CUDA: device='cpu' in place of 'cuda' or .cuda()",
            "To chat with a model here: llama.cpp or Ollama with a GGUF of it, which needs no GPU",
        ),
        "https://docs.pytorch.org/docs/stable/notes/device.html",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def _by_conda(facts: Facts) -> bool:
    """Whether torch came with conda, as far as is told without a word on CUDA."""
    return facts.python.kind == "conda" and facts.torch.build is None and facts.torch.asked_cuda is None


_CLOUD_DRIVER = (
    "sudo apt update && sudo apt install -y ubuntu-drivers-common && sudo ubuntu-drivers install --gpgpu && sudo "
    "reboot   # a cloud's plain image has no NVIDIA driver; nvidia-smi must answer then. Or start from one with it: "
    "AWS's Deep Learning AMI, Google's Deep Learning VM"
)


def _plain_cloud_image(facts: Facts) -> bool:
    """A machine of a cloud on which nothing tells of a driver, nor of a torch without CUDA."""
    bare = not facts.platform.container and facts.platform.service is None and not facts.platform.wsl
    told = facts.error("cloud-machine") is not None and not fixes.on_windows(facts)
    return told and bare and facts.driver.version is None and facts.torch.build is None and not _by_conda(facts)


def _typed_anew(facts: Facts) -> str:
    """The command of the paste with GPU 0, where it was typed with the number of another one."""
    typed = facts.error("devices-set-on-command")
    if typed is None or typed.values["value"].startswith("0"):
        return ""
    command = f"CUDA_VISIBLE_DEVICES=0 {typed.values['command']}"
    return f"{command}   # the {typed.values['value']} typed before it names no GPU here: nvidia-smi -L lists them"


def _find_variable(facts: Facts) -> str:
    look = (
        "findstr /s /n CUDA_VISIBLE_DEVICES *.py *.bat *.ps1"
        if fixes.on_windows(facts)
        else "grep -rn CUDA_VISIBLE_DEVICES --include='*.sh' --include='*.py' . ~/.bashrc"
    )
    return f"{look}   # in the program's folder: change the number there to one that nvidia-smi -L lists, as 0"


def _look_for_gpu(facts: Facts, answered: bool) -> tuple[str, ...]:
    if not answered and facts.has_amd() and not facts.nvidia_gpus():
        return _for_amd(facts)
    hidden = _typed_anew(facts) or (
        fixes.unset(facts, "CUDA_VISIBLE_DEVICES")
        if "CUDA_VISIBLE_DEVICES" in facts.environment
        else _find_variable(facts)
    )
    asked = ask_batch_system(facts)
    if answered and facts.error("in-ray-actor") and not facts.environment.get("CUDA_VISIBLE_DEVICES"):
        return (
            "@ray.remote(num_gpus=1)   # on the actor or task that needs one, or .options(num_gpus=1): Ray hides all "
            "GPUs from those that ask for none (Ray Serve: ray_actor_options={'num_gpus': 1})",
            "ray status   # does Ray know of the GPUs? else, on each machine: ray stop; ray start ... --num-gpus=<n>",
            hidden,
        )
    if answered:
        return (*asked, hidden, "nvidia-smi -L   # the numbers there are; 0 is the first")
    inside = (
        (
            *(() if facts.error("gpus-handed-in") else (ASK_DOCKER,)),
            "ls -l /dev/nvidia*   # in the container: without nvidia-uvm there, nvidia-smi works and CUDA does not: "
            "start it with --gpus all, or name /dev/nvidia-uvm beside the others",
        )
        if facts.platform.container
        else wsl_steps(facts)
        if facts.platform.wsl
        else ()
    )
    on_cpu = _load_on_cpu(facts)
    wanted = bool(on_cpu) and facts.error("cpu-asked") is not None
    return (
        *(on_cpu if wanted else ()),
        *asked,
        *inside,
        *((_CLOUD_DRIVER,) if _plain_cloud_image(facts) else ()),
        *_build_and_driver(facts),
        hidden,
        *(() if wanted else on_cpu),
    )


def _build_and_driver(facts: Facts) -> tuple[str, ...]:
    """A build with CUDA and the driver, what is known to be there last."""
    asks = (
        f'{fixes.python_command(facts)} -c "import torch; print(torch.__version__, torch.version.cuda)"   # in the '
        "program's own environment: +cpu or None is a build without CUDA"
    )
    where = "https://www.nvidia.com/drivers" if fixes.on_windows(facts) else "sudo ubuntu-drivers install"
    driver = f"nvidia-smi   # must list the GPU; if not, install the driver ({where}) and reboot"
    if facts.torch.build == "cuda":
        return (driver, asks)
    conda = "conda remove -y pytorch torchvision torchaudio cpuonly   # those of them that conda list names"
    anew = (*((conda,) if _by_conda(facts) else ()), *fixes.reinstall_torch(facts))
    if web_uis.installs_torch_itself(facts):
        return (web_uis.torch_anew(facts), driver, asks)
    # Of a build that nothing tells of, the look comes first: what follows takes a torch away that may be sound.
    return (f"{asks}; then:", *anew, driver) if facts.torch.build is None else (*anew, asks, driver)


def _load_on_cpu(facts: Facts) -> tuple[str, ...]:
    """A file that was saved from a GPU can be read without one."""
    error = facts.error("needs-gpu")
    if error is None or "deserialize object on a CUDA device" not in error.text:
        return ()
    how = "torch.load(path, map_location='cpu')   # in the program, where it loads the file"
    if facts.error("cpu-asked"):
        return (f"{how}: it was saved from a GPU, and is to run on the CPU",)
    return (f"or without a GPU: {how}",)


def _for_amd(facts: Facts) -> tuple[str, ...]:
    """torch's usual builds have nothing for AMD's GPUs."""
    if fixes.on_windows(facts):
        return (
            "pip's torch for Windows has no code for AMD's GPUs: take AMD's own wheels for Windows, where the card is "
            "listed (RX 7000 and newer): https://rocm.docs.amd.com/projects/radeon-ryzen/en/latest/",
            "or Linux or WSL 2 with the ROCm build, where the card is listed",
            "or llama.cpp built with Vulkan, or torch-directml (an older torch)",
        )
    return (
        fixes.install(
            facts,
            "torch",
            "torchvision",
            options=f"--force-reinstall --index-url {fixes.rocm_index(facts, newest=True)}",
        ),
        "rocminfo | grep gfx   # must list the card; the user has to be in the groups render and video",
    )


RULES: tuple[Rule, ...] = (
    cuda_visible_devices_wrong,
    no_cuda_gpus,
)
