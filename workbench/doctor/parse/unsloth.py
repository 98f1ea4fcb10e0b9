"""The banner that Unsloth prints before it loads a model: its versions, the GPU and its compute capability."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.doctor.parse.draft import Draft
from workbench.doctor.parse.fields import name_gpu

_MARK = "==((====))=="
_MAX_BANNERS = 20
_VERSION = r"(\d{1,4}\.\d{1,3}[\w.+]{0,30}?)"
_UNSLOTH = re.compile(rf"Unsloth(?: {_VERSION}:|: .{{0,60}} release {_VERSION})")
_GPU = re.compile(r"(?:GPU: )?([A-Za-z][^.\n=/\\|]{2,60})\. (?:Num GPUs = (\d{1,2})\. )?Max memory: ([\d.]{1,8}) GB")
_PLATFORM = re.compile(r"Platform(?: =|:) (Linux|Windows)\b")
_CAPABILITY = re.compile(r"\bCUDA(?: =|:) (\d{1,2}\.\d)\b")
_PACKAGES = {
    "transformers": re.compile(rf"Transformers(?: =|:) {_VERSION}\.?(?:\s|$)"),
    "vllm": re.compile(rf"vLLM: {_VERSION}\.?(?:\s|$)"),
    "triton": re.compile(rf"Triton: {_VERSION}\.?(?:\s|$)"),
    "xformers": re.compile(rf"Xformers = {_VERSION}\.?(?:\s|$)"),
}
_TORCH = re.compile(rf"\b(?:Torch|Pytorch): {_VERSION}\.?(?:\s|$)")


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take what the banners say."""
    starts = [number for number, line in enumerate(lines) if _MARK in line][:_MAX_BANNERS]
    for start in starts:
        _banner("\n".join(line[:400] for line in lines[start : start + 5]), draft)


def _banner(text: str, draft: Draft) -> None:
    unsloth = _UNSLOTH.search(text)
    if unsloth is None:
        return
    draft.saw("unsloth")
    draft.package("unsloth", unsloth[1] or unsloth[2])
    for name, pattern in _PACKAGES.items():
        found = pattern.search(text)
        if found:
            draft.package(name, found[1])
    torch = _TORCH.search(text)
    if torch:
        draft.put(draft.torch, version=torch[1], installed=True)
        draft.package("torch", torch[1], "import torch")
    platform = _PLATFORM.search(text)
    if platform:
        draft.put(draft.platform, system=platform[1])
    gpu = _GPU.search(text)
    if gpu and not draft.gpus:
        capability = _CAPABILITY.search(text)
        for index in range(min(int(gpu[2] or 1), 16)):
            name_gpu(draft, index, gpu[1].strip())
            if capability:
                draft.put(draft.gpu(index), compute_capability=capability[1])
