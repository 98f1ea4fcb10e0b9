"""Rules about llama.cpp and what is built on it: which of them runs decides what makes it newer or compiles it."""

from __future__ import annotations

import re

from workbench.doctor import fixes, system_packages
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import Result, from_message, seen
from workbench.doctor.rules.ollama import update

_NAMES = {"CUBLAS": "CUDA", "HIPBLAS": "HIP"}
"""Options that got another name when all of them got another prefix."""


def too_old_for_model(facts: Facts) -> Result:
    """The model's file holds what this release cannot read."""

    def make(error: ErrorFact) -> Finding:
        architecture = error.values.get("architecture")
        what = f"the architecture '{architecture}' of the model's file" if architecture else "the model's file"
        program, newer = _newer(facts)
        return Finding(
            "llama-cpp-too-old-for-model",
            "error",
            f"This {program} is too old for {what}" if not architecture else f"This {program} does not know {what}",
            "The file is whole: new architectures, tokenizers and quantizations come with new releases, and what is "
            "built on llama.cpp (llama-cpp-python, Ollama, LM Studio) carries one of its own.",
            seen(error),
            (
                *newer,
                "Where the newest does not know it either: the release or fork that the model's page names, or "
                "another file of the model",
            ),
            "https://github.com/ggml-org/llama.cpp#models",
            affects=("chat", "architecture"),
            observed=True,
        )

    return from_message(facts, ("llama-cpp-too-old-for-model",), make)


def _newer(facts: Facts) -> tuple[str, tuple[str, ...]]:
    """What it is that reads the file, and the steps to its newest release."""
    if facts.error("ollama-told"):
        newest = f"{update(facts)}   # then ollama -v: server and client must both be new"
        if facts.error("modelfile-of-two-files"):
            return "Ollama", (_without_pictures(facts), f"or: {newest}")
        return "Ollama", (newest, f"or, for a model from hf.co with a file for pictures: {_without_pictures(facts)}")
    if facts.error("llama-cpp-python-told"):
        return "llama-cpp-python", (fixes.install(facts, "llama-cpp-python", upgrade=True),)
    if facts.error("lm-studio-told"):
        return "LM Studio", ("In LM Studio: Ctrl+Shift+R (runtimes), update llama.cpp; then load the model again",)
    if facts.error("llama-cpp-image-told"):
        return "llama.cpp", ("docker pull ghcr.io/ggml-org/llama.cpp:server-cuda   # the tag that is used, anew",)
    if facts.error("llama-cpp-of-brew"):
        return "llama.cpp", (
            "brew update && brew upgrade llama.cpp   # or brew install --HEAD llama.cpp: what is not released yet",
        )
    if facts.error("llama-cpp-built-here"):
        return "llama.cpp", _built_anew(facts)
    return "llama.cpp", (
        f"{fixes.install(facts, 'llama-cpp-python', upgrade=True)}   # or the newest llama.cpp, Ollama or LM Studio",
    )


def _without_pictures(facts: Facts) -> str:
    """How Ollama is given a model's first file only."""
    shown, made = "ollama show --modelfile <model>", "ollama create <name> -f Modelfile"
    why = "the first FROM only: with a second one (mmproj, for pictures) Ollama takes the older of its two engines"
    if fixes.on_windows(facts):
        return f"{shown} > Modelfile, delete its second line FROM, then {made}   # keeps {why}"
    return f"{shown} | awk '!/^FROM/ || !n++' > Modelfile && {made}   # keeps {why}"


def _built_anew(facts: Facts) -> tuple[str, ...]:
    cuda = bool(facts.has_nvidia() or facts.error("ggml-devices"))
    option = "-DGGML_CUDA=ON" if cuda else "-DGGML_VULKAN=ON" if facts.has_amd() else ""
    configure = f"cmake -B build {option}".rstrip()
    joined = "; " if fixes.on_windows(facts) else " && "
    build = joined.join(("git pull", configure, "cmake --build build --config Release -j"))
    return (f"{build}   # in the folder llama.cpp, beside build",)


def option_renamed(facts: Facts) -> Result:
    """The build is told an option by the name that it had before July 2024."""

    def make(error: ErrorFact) -> Finding:
        old = error.values["old"]
        new = _NAMES.get(old, old)
        configure = f"cmake -B build -DGGML_{new}=ON"
        joined = "; " if fixes.on_windows(facts) else " && "
        itself = f"{configure}{joined}cmake --build build --config Release   # in a fresh build folder"
        steps = (_by_pip(facts, f"-DGGML_{new}=on"), itself)
        by_pip = facts.error("build-failed") or facts.error("llama-cpp-python-told")
        return Finding(
            "llama-cpp-option-renamed",
            "error",
            f"llama.cpp has renamed its CMake options: LLAMA_{old} is now GGML_{new}",
            "From July 2024 on they begin with GGML_; the old names end the configuration.",
            seen(error),
            steps if by_pip else (itself, f"llama-cpp-python: {steps[0]}"),
            "https://github.com/ggml-org/llama.cpp/blob/master/docs/build.md",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("llama-cpp-option-renamed",), make)


def _by_pip(facts: Facts, arguments: str) -> str:
    command = "python -m pip install --force-reinstall --no-cache-dir llama-cpp-python"
    if fixes.on_windows(facts):
        return f"$env:CMAKE_ARGS = '{arguments}'; {command}"
    return f"CMAKE_ARGS='{arguments}' {command}"


def ready_wheel(facts: Facts) -> tuple[str, ...]:
    """llama-cpp-python as a ready-made wheel: with CUDA where a GPU is told of, or the build was asked for it."""
    asked = facts.error("cuda-home") or facts.error("llama-cpp-option-renamed")
    for_gpu = facts.error("for-gpu-told") and not facts.has_amd() and facts.platform.system != "Darwin"
    with_gpu = bool(facts.has_nvidia() or facts.toolkit.nvcc or asked or for_gpu)
    wheels = f"https://abetlen.github.io/llama-cpp-python/whl/{'cu124' if with_gpu else 'cpu'}"
    command = fixes.install(facts, "llama-cpp-python", options=f"--only-binary :all: --extra-index-url {wheels}")
    other = "" if with_gpu else ", without a GPU (whl/cu124: for an NVIDIA one)"
    return (f"{command}   # a ready-made wheel, for Python 3.10 to 3.12{other}; else, to compile it:",)


def without_toolkit(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """What brings llama.cpp with CUDA where nvcc is missing; nothing where something else is compiled."""
    python = facts.error("llama-cpp-python-told") is not None
    if not python and not re.search("llama|ggml", error.values.get("where", "")):
        return ()
    if fixes.on_windows(facts):
        toolkit = "Install the CUDA toolkit (https://developer.nvidia.com/cuda-downloads), and open a new window"
    else:
        names = {"dnf": "cuda-toolkit", "pacman": "cuda", "zypper": "cuda-toolkit"}
        toolkit = (
            f"{system_packages.install(facts, 'nvidia-cuda-toolkit', **names)}   # brings nvcc, in WSL too; then the "
            "same command; RTX 50: CUDA 12.8 or newer from https://developer.nvidia.com/cuda-downloads"
        )
    return (*(ready_wheel(facts) if python else ()), toolkit)


RULES = (too_old_for_model, option_renamed)
