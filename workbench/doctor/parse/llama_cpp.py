"""What llama.cpp and its Python package print when they load a model: whether the GPU takes part. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft

_MARKS = (
    "llama_",
    "llama.cpp",
    "llama-cpp",
    "llama cpp",
    "llm_load",
    "ggml",
    "load_tensors",
    "n_gpu_layers",
    "n-gpu-layers",
)
_NOT_BUILT = re.compile(
    r"not compiled with GPU offload support|no usable GPU found"
    r"|\A(?!.{0,300}bitsandbytes).{0,300}compiled without (?:GPU|CUDA|cuBLAS) support",
    re.I,
)
# The build's features; a build for CUDA or Metal says 1. Newer releases name the kinds of GPU in place of BLAS.
_NO_BLAS = re.compile(r"\bBLAS ?[=:] ?0\b")
_NO_LAYER = re.compile(r"offloaded 0/\d{1,4} layers to GPU")
_WANTED = re.compile(
    r"n[_-]gpu[_-]layers[\"']?\s{0,3}[=:, ]\s{0,3}-?[1-9]|(?:^|\s)-ngl[= ]-?[1-9]"
    r"|\b(?:GPU|cuBLAS|CUDA)\b.{0,40}\b(?:not|isn't|doesn't|don't|never)\b"
    r"|\b(?:not|nothing|isn't|doesn't|don't|never|how|only|want|get)\b.{0,60}\bGPU\b"
    r"|\bGPU\b.{0,20}\b(?:idle|unused|at 0 ?%|0 ?% (?:used|utili[sz]ation))"
    r"|\b(?:built|build|compiled?|installed|reinstalled)\b.{0,80}\b(?:with|for)\b.{0,20}\b(?:GPU|CUDA|cuBLAS|ROCm|hipBLAS)\b"
    r"|-D(?:GGML|LLAMA)_(?:CUDA|CUBLAS|HIPBLAS|HIP|METAL|VULKAN)=(?:on|1|true)\b",
    re.I,
)
# scikit-build-core reads flags from CMAKE_ARGS (or SKBUILD_CMAKE_ARGS); under another name they change nothing.
_MISSPELT_FLAGS = re.compile(
    r"(?<![A-Z_])(?!(?:SKBUILD_)?CMAKE_ARGS=)[A-Z_]{4,20}=[\"']?-D(?:GGML|LLAMA)_\w{2,20}=.{0,200}\bllama[-_]cpp[-_]python\b"
)


# A build for a GPU loads its backend, or counts the devices, when it starts.
_GPU_AT_WORK = re.compile(
    r"loaded (?:CUDA|ROCm|HIP|Vulkan|SYCL|Metal|MTL) backend|found [1-9]\d? (?:CUDA|ROCm|Vulkan|SYCL) devices?"
    r"|ggml_metal_init: (?:found|picking)",
    re.I,
)
_SOME_LAYER = re.compile(r"offloaded [1-9]\d{0,3}/\d{1,4} layers to GPU")
_MANY_LAYERS = re.compile(
    r"(?:pass\w{0,3}|set\w{0,4}|with|given?) (?:the )?n_gpu_layers|n_gpu_layers (?:has|have) no effect"
    r"|\b(?:chang|set|try|tried|vary|increas)\w{0,4} (?:the )?n_gpu_layers\b|\bn_gpu_layers to -?\d"
    r"|n[_-]gpu[_-]layers[\"']?\s{0,3}[=: ]\s{0,3}-?[1-9]|(?:^|\s)-ngl[= ]-?[1-9]|N_GPU_LAYERS=-?[1-9]"
)
_SLOW = re.compile(
    r"\btakes? (?:about |around |up to |over )?(?:\d{1,3}|several|some|a few|many) (?:minutes|mins?|hours)\b"
    r"|\b(?:slow|not faster|no faster|takes? (?:too|very) long|not us(?:ed|ing) (?:by )?(?:the |my )?GPU"
    r"|GPU (?:is )?(?:idle|not used|unused)|\b0\.\d{1,3} ?(?:tok|t/s)"
    r"|GPU is not used|\b(?:near|nearly|almost) 0 ?%? (?:usage|utili[sz]ation)|(?:throughput|speed) is (?:\w+ )?low"
    r"|\bhigh CPU|CPU (?:occupation|usage|load|utili[sz]ation) is (?:\w+ )?high|\bruns? on (?:the )?CPU\b"
    r"|(?:don't|doesn't|not|cannot|can't|unable to|isn't|never).{0,30}\bGPU\b"
    r"|CPU (?:is )?(?:busy|at 100|only)|only (?:the )?CPU)",
    re.I,
)
_ANSWERS_WRONGLY = re.compile(r"\b(?:gibberish|garbage|nonsense|garbled)\b", re.I)
# With several GPUs at work, more of them are slower than one.
_SEVERAL = re.compile(
    r"\b(?:both|two|[2-8]x?|multiple|second) ?(?:GPUs?|[AHLV]\d{2,3}s?)\b|tensor_split|split_mode", re.I
)
# Its installer brings a llama.cpp of its own, and says itself why that runs on the CPU.
_INSTALLER = re.compile(r"Unsloth Studio Installer|unsloth studio setup")
_OTHER_LOADER = re.compile(r"auto_?gptq|exllama|autoawq", re.I)
_OWN_FORMAT = re.compile(r"llama[._-]?cpp|\bgg(?:uf|ml)\b", re.I)
_GPU = re.compile(r"\b(?:GPU|CUDA|RTX|GTX|GeForce|Graphics card)\b", re.I)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Note that llama.cpp ran, and that it was built for the CPU, or given no layers, where a GPU is asked for."""
    if not any(mark in line for line in lines for mark in _MARKS):
        return
    at_work = _first(lines, _GPU_AT_WORK)
    cause = _first(lines, _NOT_BUILT) or _first(lines, _MISSPELT_FLAGS) or _first(lines, _NO_BLAS)
    if cause is None or at_work:
        if not (at_work and cause):
            _without_layers(lines, draft, at_work)
        elif _NOT_BUILT.search(lines[cause - 1]) and not _first(lines, _NO_LAYER):
            draft.saw("llama.cpp")
            draft.errors.append(ErrorFact("llama-cpp-warns-in-vain", mask_text(lines[cause - 1].strip()[:300]), cause))
        return
    draft.saw("llama.cpp")
    if _NOT_BUILT.search(lines[cause - 1]) or any(_first(lines, sign) for sign in (_WANTED, _NO_LAYER, _SLOW)):
        draft.errors.append(ErrorFact("llama-cpp-cpu-build", mask_text(lines[cause - 1].strip()[:300]), cause))


def _without_layers(lines: Sequence[str], draft: Draft, at_work: Optional[int]) -> None:
    """A complaint about speed where nothing says that layers are to go to the GPU, or where that is said in vain."""
    if _first(lines, _ANSWERS_WRONGLY) or _first(lines, _INSTALLER):
        return
    slow = _first(lines, _NO_LAYER) or _first(lines, _SLOW)
    many = _first(lines, _MANY_LAYERS)
    if slow is not None and many and not at_work and not _first(lines, _SEVERAL) and not _first(lines, _SOME_LAYER):
        draft.saw("llama.cpp")
        draft.errors.append(ErrorFact("llama-cpp-layers-in-vain", mask_text(lines[slow - 1].strip()[:300]), slow))
        return
    if slow is None or many or _first(lines, _SEVERAL) or not _first(lines, _GPU):
        return
    # A web UI's other loaders are slow for reasons of their own.
    if _first(lines, _OTHER_LOADER) and not _first(lines, _OWN_FORMAT):
        return
    draft.saw("llama.cpp")
    draft.errors.append(ErrorFact("llama-cpp-no-layers", mask_text(lines[slow - 1].strip()[:300]), slow))


def _first(lines: Sequence[str], pattern: re.Pattern[str]) -> Optional[int]:
    return next((number for number, line in enumerate(lines, 1) if pattern.search(line[:600])), None)
