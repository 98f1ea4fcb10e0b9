"""Rules about GPUs that a build of torch, or of another program, holds no code for. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import own_kernels
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    ISSUES,
    PASSED,
    Result,
    Rule,
    capabilities,
    evidence,
    gpu_names,
    seen,
    torch_code,
    uncovered,
)
from workbench.doctor.tables import (
    Kernels,
)
from workbench.doctor.versions import at_least, older, release_of


def wheel_lacks_gpu_arch(facts: Facts) -> Result:
    """torch has no code for a GPU of this capability, newer or older than what it was built for."""
    error = facts.error("unsupported-capability", "gpu-too-old-for-torch") or _out_of_range(facts)
    missing = uncovered(facts)
    code = torch_code(facts)
    if error is None and missing is None:
        return None
    if facts.torch.kernel_ok or (error is None and not missing):
        return PASSED
    gpu, capability = next(iter(missing or capabilities(facts)), (None, None))
    name = (gpu.name if gpu else None) or "this GPU"
    new = capability is not None and bool(at_least(capability, "10.0"))
    shown = f"sm_{capability.replace('.', '')}" if capability else "its capability"
    # What the warning lists is the torch that runs; a newer one that is told of stands in another environment.
    elsewhere = new and error is not None and at_least(facts.torch.version, "2.7") and not missing
    return [
        Finding(
            "torch-wheel-lacks-gpu-arch",
            "error",
            f"The program runs with another torch than {facts.torch.version}, which has no kernels for {name} ({shown})"
            if elsewhere
            else f"This torch has no kernels for {name} ({shown})",
            (
                "The GPU is newer than this build: Blackwell needs torch 2.7 or newer built with CUDA 12.8 or newer."
                if new
                else "The GPU is newer than this build, which was made before there was one of its kind."
                if _beyond(code, capability)
                else "The GPU is older than what this build still carries: wheels have left out 3.5 since torch 1.3, "
                "and CUDA 12 no longer compiles for it."
                if capability and older(capability, "3.7")
                else "The GPU is older than what this build still carries; CUDA 13 builds start at 7.5, and torch "
                "2.14 with "
                "CUDA 12.6 is the last for Maxwell, Pascal and Volta."
            )
            + " Every operation on it ends in 'no kernel image is available'.",
            {
                **evidence(
                    gpu=name,
                    compute_capability=capability,
                    torch__version=facts.torch.version,
                    torch__cuda=facts.torch.cuda,
                    kernels=" ".join(code.arch) if code else None,
                ),
                **seen(error or facts.error("no-kernel-image")),
            },
            (
                *(_IN_ITS_OWN if elsewhere else ()),
                *_other_accelerator(facts, capability),
                *_arch_fix(facts, capability),
            ),
            ISSUES + ("pytorch/pytorch/issues/150733" if new else "pytorch/pytorch/issues/190385"),
            affects=ALL_GPU_BENCHES,
            observed=error is not None or facts.error("no-kernel-image") is not None or facts.torch.kernel_ok is False,
        )
    ]


_IN_ITS_OWN = (
    'python -c "import torch, sys; print(sys.executable, torch.__version__)"   # with the program\'s own Python (its '
    "venv, python_embeded): that is the one to mend, with that very python.exe in the commands below",
)


def _other_accelerator(facts: Facts, capability: Optional[str]) -> tuple[str, ...]:
    """Kaggle still lends the P100, for which its image's torch has no code any more (Kaggle/kaggle-cli 1151)."""
    if facts.platform.service != "kaggle" or not older(capability, "7.0"):
        return ()
    return ("Settings, Accelerator: GPU T4 x2   # the torch of Kaggle's image has no code for the P100 any more",)


def _beyond(code: Optional[Kernels], capability: Optional[str]) -> bool:
    """Whether a GPU is newer than all that a build has code for."""
    numbers = [release_of(item) or (0, 0) for item in code.arch] if code else []
    wanted = release_of(capability)
    # No build has yet left out Turing or anything newer for its age.
    return wanted is not None and wanted > max(numbers, default=(7, 4))


def _out_of_range(facts: Facts) -> Optional[ErrorFact]:
    """torch's note on the capabilities it was built for; one minor beyond them on the same major still runs."""
    error = facts.error("capability-range")
    if error is None:
        return None
    have, low, high = (release_of(error.values.get(name)) for name in ("cc", "low", "high"))
    if have is None or low is None or high is None:
        return None
    return error if have < low or have[0] > high[0] else None


def _arch_fix(facts: Facts, capability: Optional[str]) -> tuple[str, ...]:
    if not capabilities(facts):
        return (
            "nvidia-smi --query-gpu=name,compute_cap --format=csv   # the capability decides",
            "10.0 and newer (Blackwell): "
            + fixes.install(
                facts, "torch>=2.7", options="--index-url https://download.pytorch.org/whl/cu128", upgrade=True
            ),
            "7.0 and older (Volta, Pascal, Maxwell): "
            + fixes.install(facts, "torch==2.14.1", options="--index-url https://download.pytorch.org/whl/cu126"),
        )
    if (facts.package("vllm") or facts.error("of-vllm")) and at_least(capability, "10.0"):
        return (
            fixes.install(facts, "vllm>=0.10.2", upgrade=True)
            + "   # it pins its torch, so that torch alone cannot be "
            "replaced; from 0.10 on that is one for CUDA 12.8",
            "where that contradicts what the program pins, vLLM in an environment of its own: "
            f"{fixes.new_environment(folder='vllm')} && uv pip install --python vllm vllm --torch-backend=auto",
        )
    fix = fixes.reinstall_torch(facts)
    if older(capability, "3.0"):
        # CUDA 8 was the last for Fermi (2.x); torch's own code asks for 3.0 at the least since its first binaries.
        return (
            "No torch can use this GPU, and none can be compiled for it: take the CPU, "
            + fixes.install(facts, "torch", options="--index-url https://download.pytorch.org/whl/cpu"),
            "or llama.cpp on the CPU; or another card, from 5.0 on (GTX 900 and newer)",
        )
    if "No published torch wheel" in fix[-1] and capability and older(capability, "3.7"):
        return (
            "Compile torch from source with CUDA 11, the last for this GPU: export TORCH_CUDA_ARCH_LIST="
            f"{capability}, then python setup.py install",
            "or take wheels of that time: torch 1.2 and older carry 3.5",
            "or llama.cpp on the CPU, or another card",
        )
    return fix


def no_kernel_image(facts: Facts) -> Result:
    """'no kernel image' where torch itself covers the GPU, or where that is not known."""
    error = facts.error("no-kernel-image", "invalid-device-function")
    if error is None or facts.torch.hip:
        return PASSED
    covered = uncovered(facts) == []
    old = next((gpu for gpu, capability in capabilities(facts) if older(capability, "7.5")), None)
    who = re.search(r"\[(TensorRT-LLM|TRT|vLLM|onnxruntime)[\]:]|(bitsandbytes)\S{0,40}[\\/]ops\.\w{2,3}", error.text)
    # What CUDA_CHECK_RETURN of bitsandbytes prints, whose wheels are built in /src.
    bnb = re.search(r"at line \d{1,4} in file \S{0,80}csrc[\\/]ops\.cu", error.text) is not None
    own = own_kernels.package_named(error.text)
    ggml = facts.error("ggml-devices") is not None and not who
    unnamed = "An extension" if covered else "Some library"
    library = "bitsandbytes" if bnb else (who[1] or who[2]) if who else own or ("llama.cpp" if ggml else unnamed)
    old_torch = "/THC/" in error.text or "\\THC\\" in error.text  # torch's own folder up to 1.10
    # From 2.8 on the default build is one for CUDA 12.8 or 13, without the oldest cards.
    unsure = facts.torch.version is None or (facts.torch.cuda is None and at_least(facts.torch.version, "2.8"))
    bare = not covered and unsure and not (who or bnb or ggml or own)
    capability = next((item for _, item in capabilities(facts)), None)
    told = _raised_by_torch(error) or facts.platform.service == "kaggle"  # whose image is meant
    dropped = bare and older(capability, "7.5") and told
    too_new = bare and at_least(capability, "9.0") and not facts.torch.installed
    vllm = too_new and bool(facts.package("vllm") or facts.error("of-vllm"))
    title = (
        "This torch is too old for this GPU"
        if old_torch
        else "This torch, most likely, has no kernels for a GPU as old as this one"
        if dropped
        else "This vLLM, most likely, is older than this GPU: its kernels, or those of its torch, have no code for it"
        if vllm
        else "This torch, most likely, is older than this GPU and has no kernels for it"
        if too_new
        else f"{library} has no kernels for this GPU"
    )
    return [
        Finding(
            "app-needs-newer-compute-capability" if covered else "no-kernel-image",
            "error",
            title,
            (
                "torch itself covers the GPU, so the code comes from an extension (vLLM, AWQ, flash-attn, exllama) "
                "built for "
                if covered
                else "It has code for the cards of its time, 2021 and before, and none for "
                if old_torch
                else "The code that was launched was not built for "
            )
            + ("cards as old as this one." if dropped else "newer cards." if old or not covered else "other cards."),
            {**evidence(gpus=gpu_names(facts), torch__version=facts.torch.version), **seen(error)},
            _build_of_llama_cpp(facts)
            if ggml
            else fixes.reinstall_torch(facts, keep_release=False)
            if old_torch
            else own_kernels.compiled_anew(facts, own, capability)
            if own
            else own_kernels.newer_vllm(facts)
            if vllm
            else (*_other_accelerator(facts, capability), *_other_build(facts, error)),
            ISSUES + "vllm-project/vllm/issues/1284",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _build_of_llama_cpp(facts: Facts) -> tuple[str, ...]:
    """llama.cpp, or a program that brings it along, in a build for the GPU; ARCHS in its log lists what it has."""
    capability = next((capability for _, capability in capabilities(facts)), None)
    number = capability.replace(".", "") if capability else "<compute capability without its point>"
    return (
        "The newest release of the program that brings llama.cpp along: its builds take in newer cards (RTX 50 from "
        "CUDA 12.8 on) and leave out old ones, which its builds with Vulkan still run.",
        f"or compiled here: cmake -B build -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES={number} && cmake --build build "
        "--config Release -j",
    )


def _other_build(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    capability = next((capability for _, capability in capabilities(facts)), None)
    if re.search(r"[\\/]ops\.(?:cu|hip)\b", error.text):
        note = "its newest release has code for more cards" + (", and for ROCm" if "ops.hip" in error.text else "")
        return (f"{fixes.install(facts, 'bitsandbytes', upgrade=True)}   # {note}",)
    target = f"compute capability {capability}" if capability else "the GPU's compute capability"
    image = facts.platform.image
    old = older(capability, "7.0") or (capability is None and "vllm" in error.text.lower())
    newest = at_least(capability, "9.0") and facts.torch.version is None and not image
    hopper = older(capability, "10.0")
    # The default builds have left out what is older than Turing; what torch itself says was launched by torch.
    unsure = facts.torch.version is None or (facts.torch.cuda is None and at_least(facts.torch.version, "2.8"))
    left_out = older(capability, "7.5") and unsure and not image and _raised_by_torch(error)
    fresh = fixes.fresh_torch(facts, "torchvision", upgrade=True) if newest else ""
    covered = uncovered(facts) == []
    build = (
        f"{fixes.install(facts, '<package>', upgrade=True)}   # where the traceback ends: its newest release "
        f"has code for {target}, or build it with TORCH_CUDA_ARCH_LIST={capability}"
        if covered and at_least(capability, "10.0")
        else "See in the traceback which package launched the kernel; install its build for this GPU or build it with "
        f"TORCH_CUDA_ARCH_LIST={capability or 'the capability that nvidia-smi --query-gpu=compute_cap gives'}."
    )
    return (
        *(
            (f"Take a tag of the image {image} whose programs were built for {target}, or build them so.",)
            if image
            else ()
        ),
        *((f"{fresh}   # {_FIRST_FOR[hopper]}",) if newest else ()),
        *(_build_for_old_cards(facts, capability) if left_out and capability else ()),
        *(_which_code(facts) if not image and capability is None and _raised_by_torch(error) else ()),
        *((("If torch is new enough: " if newest else "") + build,) if not image else ()),
        *(("For cards below 7.0 use llama.cpp in place of vLLM.",) if old else ()),
        *((f"Where there is none, the program does not run on a card of {target}.",) if image else ()),
    )


_FIRST_FOR = {
    False: "Blackwell needs torch 2.7 or newer with CUDA 12.8 or newer",
    True: "Hopper needs torch 2.0 or newer with CUDA 11.8 or newer",
}


def _which_code(facts: Facts) -> tuple[str, ...]:
    """What to look at where neither the card nor torch's build is known, and what follows from it."""
    if facts.error("blackwell-told"):
        newer = fixes.install(facts, "torch", "torchvision", upgrade=True)
        return (f"{newer} --index-url https://download.pytorch.org/whl/cu128   # {_FIRST_FOR[False]}",)
    return (
        f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.get_device_capability(), '
        'torch.cuda.get_arch_list(), torch.__version__)"   # the first must be in the list; where it is not:',
        "newer than the list (12.0: RTX 50): "
        f"{fixes.install(facts, 'torch', 'torchvision', upgrade=True)} --index-url https://download.pytorch.org/whl/cu128",
        "older than the list (6.x, 7.0): "
        f"{fixes.install(facts, 'torch==2.7.1', 'torchvision')} --index-url https://download.pytorch.org/whl/cu126",
    )


def _raised_by_torch(error: ErrorFact) -> bool:
    other = re.search(r"ollama|ggml|llama.?cpp", error.text, re.IGNORECASE)
    words = r"AcceleratorError|RuntimeError|CUDA error: no kernel|\b(?i:py)?[Tt]orch\b"
    return not other and re.search(words, error.text) is not None


def _build_for_old_cards(facts: Facts, capability: str) -> tuple[str, ...]:
    return (
        fixes.uninstall(facts, "torch", "torchvision", "torchaudio")
        + "   # in the program's own environment, where it brings one",
        f"{fixes.fresh_torch(facts, 'torchvision')}   # the build that still has {capability}: default builds start "
        f"at 7.5",
        "A program that cannot change its torch: its download for older cards, or its release from before the change",
    )


RULES: tuple[Rule, ...] = (wheel_lacks_gpu_arch, no_kernel_image)
