"""What several rules ask of the facts."""

from __future__ import annotations

import re
from typing import Callable, Optional

from workbench.doctor.facts import ErrorFact, Facts, GpuFacts
from workbench.doctor.findings import Finding
from workbench.doctor.tables import Kernels, arch_numbers, covers, torch_kernels, variant_of
from workbench.doctor.versions import at_least, older, release_of

Result = Optional[list[Finding]]
Rule = Callable[[Facts], Result]

ALL_GPU_BENCHES = ("chat", "vram", "architecture")
MODEL_BENCHES = ("chat", "architecture", "vram")
ISSUES = "https://github.com/"
PASSED: list[Finding] = []


def cuda_works(facts: Facts) -> Optional[bool]:
    """Whether CUDA was seen working; this outranks whatever versions say."""
    if facts.torch.kernel_ok or facts.torch.cuda_available:
        return True
    return facts.torch.cuda_available


# Reports in which "CUDA available: False" is one line of many that nobody asked about.
_LISTS_EVERYTHING = frozenset(("collect_env", "transformers env", "bitsandbytes"))


def no_gpu_told(facts: Facts) -> bool:
    """Whether a paste tells, as a complaint of its own, that torch has no CUDA: by asking it, or without a list."""
    told = facts.torch.cuda_available is False and facts.origin == "report"
    return told and (facts.error("cuda-answered") is not None or not set(facts.formats) & _LISTS_EVERYTHING)


def cuda_major(facts: Facts) -> Optional[int]:
    """CUDA major version of the torch build."""
    numbers = release_of(facts.torch.cuda)
    return numbers[0] if facts.torch.build == "cuda" and numbers else None


def capabilities(facts: Facts) -> list[tuple[GpuFacts, str]]:
    """NVIDIA GPUs whose compute capability is known."""
    return [(gpu, gpu.compute_capability) for gpu in facts.nvidia_gpus() if gpu.compute_capability]


def torch_code(facts: Facts) -> Optional[Kernels]:
    """The kernels in the installed torch: as it says itself, else as the table says for its build."""
    if facts.torch.build != "cuda":
        return None
    if facts.torch.arch_list:
        codes, ptx = arch_numbers(facts.torch.arch_list)
        if not codes and ptx is None:
            return None
        return Kernels(
            (*codes, ptx) if ptx and ptx not in codes else codes, ptx is not None, "torch.cuda.get_arch_list()"
        )
    variant = variant_of(facts.torch.cuda)
    return torch_kernels(facts.torch.version, variant, facts.platform.machine) if variant else None


def uncovered(facts: Facts) -> Optional[list[tuple[GpuFacts, str]]]:
    """GPUs for which the installed torch has no code; None when either side is unknown."""
    code, gpus = torch_code(facts), capabilities(facts)
    if code is None and gpus and facts.torch.build in (None, "cuda"):
        first = _first_unknown(facts.torch.version, facts.torch.cuda)
        return [(gpu, capability) for gpu, capability in gpus if first and at_least(capability, first)] or None
    if code is None or not gpus:
        return None
    highest_ptx = arch_numbers(facts.torch.arch_list or ())[1] if facts.torch.arch_list else None
    ptx = highest_ptx if facts.torch.arch_list else (code.arch[-1] if code.ptx else None)
    return [(gpu, capability) for gpu, capability in gpus if covers(code.arch, capability, ptx) is False]


def _first_unknown(version: Optional[str], cuda: Optional[str]) -> Optional[str]:
    """The capability from which on no build of a torch has code, whatever else it was built with."""
    # Ampere came with CUDA 11, which torch has been built with since 1.7; Blackwell with torch 2.7.
    if older(version, "1.7") or (older(cuda, "11.0") and older(version, "2.0")):
        return "8.0"
    if older(version, "2.0") and older(cuda, "11.8"):
        return "9.0"  # https://docs.nvidia.com/cuda/hopper-compatibility-guide/
    return "10.0" if older(version, "2.7") else None


def evidence(**items: object) -> dict[str, str]:
    """Evidence as text, leaving out what is unknown; double underscores become dots."""
    return {name.replace("__", "."): str(value) for name, value in items.items() if value not in (None, "", ())}


def seen(error: Optional[ErrorFact]) -> dict[str, str]:
    """A message as evidence, with the line it stands on."""
    return {} if error is None else {f"message, line {error.line}" if error.line else "message": error.text}


def gpu_names(facts: Facts) -> Optional[str]:
    """The GPUs in one phrase, such as ``2 x NVIDIA A100``."""
    names = [gpu.name for gpu in facts.gpus or () if gpu.name]
    if not names:
        return None
    return ", ".join(
        f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )


def from_message(facts: Facts, ids: tuple[str, ...], make: Callable[[ErrorFact], Finding]) -> Result:
    """A finding when one of the messages `ids` was seen. Silence says nothing, so without one: passed."""
    error = facts.error(*ids)
    return [make(error)] if error else PASSED


def how_it_ended(status: str, signal: Optional[str], detail: str) -> str:
    """How a step that was tried live ended, in a phrase."""
    if status == "timeout":
        return f"it {detail}"
    if signal:
        return f"the process dies with {signal}"
    first = next((line for line in detail.splitlines() if line.strip()), status)
    return first[:160]


def last_lines(text: str) -> Optional[str]:
    """The end of what a step printed; None if it printed nothing."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-4:])[:600] or None


# https://developer.nvidia.com/cuda-gpus: Nano, TX2, Xavier and Orin; no card has them.
_TEGRA = ("5.3", "6.2", "7.2", "8.7")


def is_jetson(facts: Facts) -> bool:
    """Whether a GPU is one of NVIDIA's Jetson boards, which have builds of torch of their own."""
    if any(gpu.compute_capability in _TEGRA for gpu in facts.gpus or ()):
        return True
    named = [gpu.name or "" for gpu in facts.gpus or ()] + [facts.platform.kernel or "", facts.platform.os or ""]
    return any(re.search(r"jetson|\borin|xavier|tegra\b|\bjetpack|\bl4t\b", name.lower()) for name in named)


# Until it had placeholders for them, transformers left out what needs torch where there is none.
_NEEDS_TORCH = re.compile(
    r"cannot import name '(?!TF|Flax)(?:\w*Model|\w+For[A-Z]\w+|\w+WithLMHead|AdamW|Trainer)'"
    r"(?=$|\n| from '?transformers)"
)


def model_left_out(facts: Facts) -> Optional[ErrorFact]:
    """A model class that transformers is said not to have, of a report without torch."""
    if facts.torch.installed is not False or not older(facts.package("transformers"), "4.0"):
        return None
    return next((error for error in facts.errors if _NEEDS_TORCH.search(error.text)), None)
