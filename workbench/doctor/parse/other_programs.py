"""Programs and libraries with GPU code of their own: "sees no GPU", said of them, is not said of torch. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact

# The first that is named is the one; what is built on llama.cpp stands before it.
_NAMES = (
    ("lm-studio", r"LM[ -]?Studio|\blms (?:load|log|server|runtime)"),
    ("koboldcpp", r"kobold[ .]?cpp"),
    ("gpt4all", r"GPT4All"),
    ("localai", r"LocalAI\b"),
    ("whisper-cpp", r"whisper[._ -]?cpp|whisper-cli"),
    ("ctransformers", r"ctransformers"),
    ("llamafile", r"llamafile"),
    ("llama-cpp", r"llama[._ -]?cpp|llama-(?:server|cli|bench)"),
    ("tensorflow", r"tensorflow|\btf\.(?:test|config)|keras"),
    ("jax", r"\bjax(?:lib)?\b|\bflax\b"),
    ("paddle", r"paddle(?:paddle|ocr)?\b"),
    ("onnxruntime", r"onnx ?runtime|CUDAExecutionProvider|insightface|rembg\b"),
    ("ctranslate2", r"faster[_ -]whisper|ctranslate2"),
    ("xgboost", r"xgboost"),
    ("lightgbm", r"lightgbm"),
    ("cupy", r"\bcupy\b"),
    ("numba", r"\bnumba\b"),
    ("opencv", r"opencv|\bcv2\b"),
    ("", r"blender|ffmpeg|davinci|jellyfin|plex\b|frigate|folding@home|obs studio|immich"),
)
PROGRAMS = tuple((name, re.compile(rf"(?<![\w/.]){pattern}", re.I)) for name, pattern in _NAMES)
_OWN_PACKAGE_FOR_METAL = ("tensorflow",)
# Where one of these is named too, it is torch that sees no GPU.
_OF_TORCH = re.compile(
    r"torch|(?<!c)transformers\b|diffusers|comfy|stable[ -]diffusion|web[ -]?ui\b|vllm|sglang|cuda\.is_available"
    r"|fooocus|forge\b|invoke ?ai|whisperx|bitsandbytes|peft\b|unsloth|exllama|yolo|ultralytics|easyocr"
    r"|sentence[_-]trans",
    re.I,
)


def blind(lines: Sequence[str], tells: Callable[[str], object], mac: bool = False) -> Optional[ErrorFact]:
    """What a paste tells of a program other than torch that sees no GPU.

    Args:
        lines: those of the paste.
        tells: whether a line says that a GPU is not seen.
        mac: whether it is told of a Mac, whose GPU most of them take through Metal, or not at all.

    Returns:
        A fact ``<program>-sees-no-gpu``, of a program that has no row of its own ``program-sees-no-gpu``; none where
        the paste names torch, what is built on it, or no program at all.
    """
    if any(_OF_TORCH.search(line) for line in lines):
        return None
    named = next((name for name, pattern in PROGRAMS if any(map(pattern.search, lines))), None)
    if named is None or (mac and named not in _OWN_PACKAGE_FOR_METAL):
        return None
    line, number = next(((line, number) for number, line in enumerate(lines, 1) if tells(line)), ("", 0))
    return ErrorFact(f"{named or 'program'}-sees-no-gpu", mask_text(line.strip()[:300]), number)
