"""What Ollama's log tells of its search for a GPU, and where Ollama runs. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft
from workbench.doctor.parse.fields import name_gpu

_MAX_LINE = 1500
_OLLAMA = re.compile(r"\bollama\b", re.I)
_LOG = re.compile(r"\bsource=\w+\.go:\d+ msg=")
# Its own words for each outcome, of all releases since 0.1; the first kind that a log has names the cause.
_OUTCOMES = (
    (
        "ollama-gpu-not-supported",
        re.compile(
            r"amdgpu (?:\[\d+\] (?P<gfx0>gfx\w{3,5}) )?is not supported(?:.*?\bgpu_type=(?P<gfx1>gfx\w{3,5}))?"
            r"|filtering device which didn't fully initialize.*?\bcompute=(?P<gfx2>gfx\w{3,5})"
            r"|unsupported Radeon iGPU detected"
            r"|CUDA GPU is too old\. Compute Capability detected: (?P<capability>\d\.\d)"
        ),
    ),
    (
        "ollama-without-gpu-runners",
        re.compile(r"no compatible rocm library found|no suitable rocm found|unable to verify rocm library"),
    ),
    (
        "ollama-driver-does-not-start",
        re.compile(
            r"(?:nvml vram|cudart|cuda driver library|nvcuda|cuda) init(?:ialization)? (?:failure|err(?:or)?): ?"
            r"(?P<code>\d{1,3})"
            r"|cuda driver library failed to get device context,? (?P<context>\d{1,3})"
            r"|(?P<symbol>symbol lookup for cu\w{3,40} failed)"
            r"|(?P<none>no nvidia devices detected)(?:\"? library=| by library )"
        ),
    ),
    (
        "ollama-gpu-hidden",
        re.compile(
            r"user overrode visible devices\"? "
            r"(?P<variable>(?:CUDA|ROCR|HIP|GGML_VK)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL)="
            r"(?P<value>\S{1,80})"
        ),
    ),
    ("ollama-discovery-timeout", re.compile(r"failed to finish discovery before timeout")),
)
_RUNNERS = re.compile(r"Dynamic LLM libraries\"? ?(?:runners=\"?)?\[(?P<runners>[\w ]{2,120})\]")
# Of what lies in lib/ollama nothing is for the GPU that was found (llm/server.go).
_NONE_FITS = re.compile(r"\bcompatible (?:gpu )?libraries\"? ?(?:compatible)?=\[ ?\]")
_GPU_RUNNER = re.compile(r"\b(?:cuda|rocm|metal|oneapi|vulkan)")
_GPU_SEEN = re.compile(
    r"\blibrary=(?:cuda|CUDA|rocm|ROCm)\b|Radeon GPU detected|Nvidia GPU detected|gpu_type=gfx", re.I
)
_OFFLOAD = re.compile(
    r"msg=\"?offload(?: to \w+)?\"?.{0,200}?layers\.(?:model|requested)=(?P<all>-?\d{1,3}) "
    r"layers\.(?:offload|real)=(?P<some>\d{1,3})"
)
_FREE = re.compile(r"memory\.available=\"\[?(?P<free>[\d. GMiB]{3,120})\]?\"")
_NEEDED = re.compile(r"memory\.required\.full=\"(?P<needed>[\d.]{1,8} [GM]iB)\"")
_NO_GPU = re.compile(
    r"no compatible (?:amdgpu devices|GPUs were discovered)|\bno (?:nvidia or amd )?gpu detected|no GPU detected"
    r"|msg=\"inference compute\" id=(?:0|cpu) library=cpu|library=cpu variant"
    r"|entering low vram mode.*total vram\"?=\"?0 B",
    re.I,
)
_PS = re.compile(
    r"\b100% CPU\b|\bollama (?:only )?(?:uses|is using|runs on|keeps using) (?:only )?(?:the |my )?CPU\b", re.I
)
_SPLIT = re.compile(r"\b(?P<on_cpu>\d{1,2})%/\d{1,2}% CPU/GPU\b")
_COMPLAINT = re.compile(
    r"\b(?:\w{2,6}n't|can't|cannot|isn't|is not|not|n't|never|without|no) (?:\w+ ){0,2}?"
    r"(?:detect|us(?:ed?|ing)\b|see\b|find|found|recogni[sz]e|support|work|be(?:ing)? (?:used|loaded|found|detected))"
    r"|\b(?:only|falls? back to|falling back to|instead|runs? on|keeps?)\b.{0,20}\bCPU\b|100% CPU"
    r"|\b(?:GPU|nvidia-smi)\b.{0,16}(?<!\d)0 ?%|\b(?:want|like) to use (?:my |the |a )?GPU"
    r"|\bhow (?:can|do|to) (?:i |we )?.{0,20}\bGPU\b"
    r"|只用|没有使用|没有用到|使われ|nicht (?:erkannt|benutzt|verwendet)"
    r"|не (?:использует|видит)|no (?:usa|detecta)",
    re.I,
)
_OLLAMA_DOES = re.compile(
    r"\bollama (?:itself )?(?:uses|does|works|runs|can|is using|has no)\b(?![^.]{0,30}\bCPU)", re.I
)
_GPU_WORD = re.compile(r"\bG?PUs?\b|\bROCm\b|\bCUDA\b|Radeon|\b[RG]TX\b|\bRX ?\d{3,4}|\bArc [AB]\d{3}|显卡|グラ", re.I)
_INTEL_MAC = re.compile(r"\bMac\w*\b.{0,40}\b(?:Intel|i[3579])\b|\bIntel\b.{0,12}\bMac\w*|\bMacBook \w+ 201\d\b", re.I)
_WORKED_BEFORE = re.compile(
    r"\bafter (?:some|a|an|several|a few|sometimes|about|\d{1,3})\b.{0,24}(?:hours?|days?|time|while|idle|minutes)"
    r"|\b(?:stops?|stopped|no longer) (?:using|accessing|recogni\w+)|\bat first\b"
    r"|\brestarting (?:the|docker|it)\b.{0,30}"
    r"\b(?:helps?|helped|fixes|fixed|works?|again)|过一(?:段时间|会儿)|运行一段时间|しばらく",
    re.I,
)
_IN_DOCKER = re.compile(
    r"\bdocker (?:logs|exec|compose|run)\b|docker-compose|ollama/ollama(?::[\w.-]+)?\b(?!/(?:issues|blob|pull))", re.I
)
_FROM_CONDA = re.compile(
    r"conda-forge/(?:linux-64/)?ollama\b|\b(?:conda|mamba|micromamba|pixi) (?:install|add|create)\b.{0,80}\bollama\b"
    r"|^ollama {2,40}\d[\d.]{2,10} {2,40}\w{1,30} {2,20}conda-forge"
)
_AS_SERVICE = re.compile(r"\bollama\[\d{1,8}\]:|journalctl|systemctl|/usr/share/ollama|Started [Oo]llama", re.I)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Note what Ollama said of its GPU, or what is told of Ollama and a GPU that it does not use."""
    short = [(number, line[:_MAX_LINE]) for number, line in enumerate(lines, 1)]
    if not any(_OLLAMA.search(line) for _, line in short) and not any(_LOG.search(line) for _, line in short):
        return
    error = _outcome(short)
    if error is not None and error.id == "ollama-gpu-hidden" and not _none_found(short):
        error = None  # the devices that were named are there
    error = error or _no_runners(short) or _too_large(short) or _none_found(short) or _told(short)
    if error is None:
        return
    if any(_WORKED_BEFORE.search(line) for _, line in short):
        error = replace(error, values={**error.values, "later": "yes"})
    draft.saw("ollama")
    # llama.cpp speaks in the same log, and is not set up by its own switches there.
    draft.errors = [other for other in draft.errors if not other.id.startswith("llama-cpp-")] + [error]
    if draft.torch.get("version") is None:
        draft.torch.pop("cuda_available", None)  # what was told is told of Ollama
    gfx = error.values.get("gfx")
    if gfx and not draft.gpus:
        name_gpu(draft, 0, f"AMD {gfx}")
    if any(_IN_DOCKER.search(line) and "://" not in line for _, line in short):
        draft.put(draft.platform, container="docker")
    if any("/app/plugins/" in line or "flatpak" in line.lower() for _, line in short):
        draft.platform["container"] = "flatpak"
    if any(_INTEL_MAC.search(line) for _, line in short):
        draft.put(draft.platform, system="Darwin", machine="x86_64")
    if any(_AS_SERVICE.search(line) for _, line in short):
        draft.put(draft.platform, service="systemd")


def _outcome(lines: list[tuple[int, str]]) -> Optional[ErrorFact]:
    for kind, pattern in _OUTCOMES:
        for number, line in lines:
            found = pattern.search(line)
            if found:
                told = {name.rstrip("012"): value for name, value in found.groupdict().items() if value}
                told.update({"code": told.pop("context")} if "context" in told else {})
                told.update({"code": "100"} if told.pop("none", None) else {})  # CUDA's number for no device
                return ErrorFact(kind, mask_text(line.strip()[:300]), number, told)
    return None


def _no_runners(lines: list[tuple[int, str]]) -> Optional[ErrorFact]:
    """Ollama listed the kinds of processor that it was packed for, and a GPU is none of them."""
    seen = any(_GPU_SEEN.search(line) for _, line in lines)
    for number, line in lines:
        if seen and _NONE_FITS.search(line):
            return ErrorFact("ollama-without-gpu-runners", mask_text(line.strip()[:300]), number)
        found = _RUNNERS.search(line)
        if found and seen and not _GPU_RUNNER.search(found["runners"]):
            return ErrorFact("ollama-without-gpu-runners", mask_text(line.strip()[:300]), number)
    return None


def _too_large(lines: list[tuple[int, str]]) -> Optional[ErrorFact]:
    """A model of which some layers, or all, stay in main memory; the last one that was loaded counts."""
    for number, line in reversed(lines):
        split = _SPLIT.search(line)
        if split:
            return ErrorFact("ollama-model-larger-than-gpu", mask_text(line.strip()[:300]), number, split.groupdict())
        found = _OFFLOAD.search(line)
        if found and (int(found["some"]) == 0 or int(found["some"]) < int(found["all"])):
            values = dict(found.groupdict())
            values.update(
                {
                    name: value
                    for item in (_FREE.search(line), _NEEDED.search(line))
                    if item
                    for name, value in item.groupdict().items()
                }
            )
            return ErrorFact("ollama-model-larger-than-gpu", mask_text(line.strip()[:300]), number, values)
        if found:
            return None
    return None


def _none_found(lines: list[tuple[int, str]]) -> Optional[ErrorFact]:
    for number, line in lines:
        if _NO_GPU.search(line):
            return ErrorFact("ollama-finds-no-gpu", mask_text(line.strip()[:300]), number)
    return None


def _told(lines: list[tuple[int, str]]) -> Optional[ErrorFact]:
    """A complaint in words: Ollama, a GPU, and that it is not used."""
    for number, line in lines:
        if (
            not _LOG.search(line)
            and not _OLLAMA_DOES.search(line)
            and (_PS.search(line) or (_COMPLAINT.search(line) and _GPU_WORD.search(line)))
        ):
            told = ErrorFact("ollama-gpu-not-used", mask_text(line.strip()[:300]), number)
            packed = any(_FROM_CONDA.search(line) for _, line in lines)
            return replace(told, id="ollama-without-gpu-runners", values={"conda": "yes"}) if packed else told
    return None
