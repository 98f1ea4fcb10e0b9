"""AMD's GPUs on Windows: which build of torch drives which card, and how each web UI is told. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, PASSED, Result, Rule, evidence, gpu_names, seen

BUILDS = "https://rocm.nightlies.amd.com/v2/"
# https://github.com/ROCm/TheRock/blob/main/RELEASES.md: the indexes that have wheels for Windows.
_INDEXES = (
    (r"gfx110\d", "gfx110X-all"),
    (r"gfx1150", "gfx1150"),
    (r"gfx1151", "gfx1151"),
    (r"gfx120\d", "gfx120X-all"),
)
_FORK = "https://github.com/lshqqytiger/stable-diffusion-webui-amdgpu"


_WEB_UIS = ("sd-webui", "sd-webui-amd")


def steps(facts: Facts, remove: str = "") -> tuple[str, ...]:
    """What drives this AMD card on Windows, beginning with what fits it best."""
    gfx = target(facts)
    index = index_of(gfx)
    own = (
        (
            *((remove,) if remove else ()),
            fixes.install(facts, "torch", "torchvision", "torchaudio", options=f"--pre --index-url {BUILDS}{index}/"),
        )
        if index
        else ()
    )
    other = _directml(facts)
    if facts.platform.program in _WEB_UIS and own and facts.error("rocm-installed-told"):
        return _into_the_web_ui(facts, own)
    if facts.platform.program in _WEB_UIS:
        # It installs a CUDA build of torch again when it starts.
        return (*other, *(f"or, in the environment of a program that leaves torch alone: {step}" for step in own[-1:]))
    if own:
        return (*own, f"or {other[0]}", *other[1:])
    newer = f"Cards of RX 7000 and newer have builds of AMD's own: {BUILDS}"
    return (*other, newer if gfx is None else "or Linux, or WSL 2, with a ROCm build of torch")


def _into_the_web_ui(facts: Facts, own: tuple[str, ...]) -> tuple[str, ...]:
    """AMD's own builds where somebody has taken them already, and the web UI runs with another torch."""
    if facts.python.kind == "conda":
        return (*own, 'python -c "import torch; print(torch.__version__, torch.cuda.is_available())"   # …+rocm… True')
    command = own[-1].replace("python -m ", "")
    return (
        f"In webui-user.bat: set TORCH_COMMAND={command}   # and delete the folder venv: the web UI installs torch by "
        "itself when it starts",
        f"or, in its venv (venv\\Scripts\\activate): {'; '.join(own)}",
    )


def index_of(gfx: Optional[str]) -> Optional[str]:
    """The name of AMD's index of wheels for Windows that has this target."""
    return next((name for pattern, name in _INDEXES if gfx and re.fullmatch(pattern, gfx)), None)


def _directml(facts: Facts) -> tuple[str, ...]:
    if facts.platform.program in _WEB_UIS:
        switch = (
            "In webui-user.bat: set COMMANDLINE_ARGS=--use-directml   # or --use-zluda, faster, with AMD's HIP SDK; "
            "delete the folder venv, and start it again"
        )
        clone = f"git clone {_FORK}   # the web UI itself runs on NVIDIA's cards only; this is its version for AMD"
        return (switch,) if facts.platform.program == "sd-webui-amd" else (clone, switch)
    if facts.platform.program == "comfyui":
        return (
            f"{fixes.install(facts, 'torch-directml')}   # and start it with --directml: python main.py --directml, or "
            "in the line of the portable build's run_nvidia_gpu.bat",
        )
    pictures = facts.error("makes-pictures")
    if "fooocus" in f"{pictures.text if pictures else ''}{facts.python.prefix or ''}".lower():
        return (
            fixes.uninstall(facts, "torch", "torchvision", "torchaudio", "xformers"),
            fixes.install(facts, "torch-directml"),
            "In run.bat: .\\python_embeded\\python.exe -s Fooocus\\entry_with_update.py --directml   # and start "
            "with it from then on",
        )
    return (
        fixes.install(facts, "torch-directml") + "   # Python 3.8 to 3.12; the device is torch_directml.device()",
        "or the program's own version for DirectML or ZLUDA, where it has one",
    )


def target(facts: Facts) -> Optional[str]:
    """The gfx target of the one kind of AMD card that is there."""
    found = {gpu.compute_capability for gpu in facts.gpus or () if (gpu.compute_capability or "").startswith("gfx")}
    return found.pop() if len(found) == 1 else None


def zluda_finds_no_gpu(facts: Facts) -> Result:
    """ZLUDA stands in for CUDA, and AMD's HIP below it shows no card, or none that it has code for."""
    error = facts.error("no-cuda-gpus", "no-nvidia-driver", "torch-not-compiled-with-cuda", "needs-gpu")
    if error is None or facts.platform.program != "zluda" or facts.has_nvidia():
        return PASSED
    gfx = target(facts)
    return [
        Finding(
            "zluda-finds-no-gpu",
            "error",
            "ZLUDA finds no GPU: AMD's HIP SDK below it is missing, or too old for this card",
            "ZLUDA translates CUDA's calls to HIP's, from the HIP SDK for Windows. RX 9000 came with HIP SDK 6.4; "
            "older or smaller cards need rocBLAS libraries made for them.",
            {**evidence(gpus=gpu_names(facts), gfx=gfx), **seen(error)},
            (
                "Install the newest AMD driver and the HIP SDK (6.4 or newer for RX 9000): "
                "https://www.amd.com/en/developer/resources/rocm-hub/hip-sdk.html; restart Windows",
                "echo %HIP_PATH%; hipinfo   # must name the card; %HIP_PATH%bin belongs on PATH",
                "Delete the program's venv and ZLUDA folder, and install again with its newest version",
                *(f"or without ZLUDA: {step}" for step in steps(facts)[:1]),
            ),
            "https://github.com/patientx/ComfyUI-Zluda",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (zluda_finds_no_gpu,)
