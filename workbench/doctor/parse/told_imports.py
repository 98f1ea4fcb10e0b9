"""Packages, modules and names that people say are missing or gone, put into Python's own words. Stdlib only.

Only where no error is shown. Every pattern here is linear in its input.
"""

from __future__ import annotations

import re

# What is imported under its own name, and asked for by programs that do not install it themselves.
_MISSING = (
    r"sentencepiece|tiktoken|einops|timm|tensorboard|wandb|protobuf|jinja2|soundfile|librosa|decord|cython|scipy|pandas"
    r"|matplotlib|sklearn|cv2|gradio|safetensors|evaluate|nltk|rouge_score|sacrebleu|deepspeed|optimum|auto_gptq"
    r"|gptqmodel|awq|datasets|diffusers|transformers|peft|trl|psutil|pynvml|ftfy|omegaconf|hydra|xformers"
    r"|qwen_vl_utils|torchcodec|torchaudio|torchvision|mpi4py|fairscale|lightning|faiss|langchain|ray"
)
_NAMES = rf"(?P<name>{_MISSING})(?: ?(?:/|,|and|or) ?(?:{_MISSING})){{0,3}}"
_NOT_INSTALLED = re.compile(
    r"(?<![\w./=-])(?<!wheel for )(?<!wheel of )(?<!wheels for )(?:[Tt]he )?(?:package |module |library )?"
    rf"[`'\"]?{_NAMES}[`'\"]?(?: package| module| library)? "
    r"(?:(?:(?:is|are|was|were|has been) (?:still )?not|isn't|isn’t|wasn't|aren't) (?:been )?"
    r"(?:installed|there|found|available)|(?:is|are|was) missing)"
    r"(?! (?:in|for|with|on) (?:the )?(?:next|future|newer|python))"
    rf"|(?<![\w./=-])(?P<behind>{_MISSING}) missing\b"
    rf"|\b(?:missing|lacks|without|no|needs?|requires?) (?:the )?(?:package |module |library )"
    rf"[`'\"]?(?P<after>{_MISSING})\b",
    re.I,
)
_MODULES = (
    r"torch|numpy|np|scipy|pandas|pyarrow|transformers|datasets|diffusers|peft|trl|accelerate|huggingface_hub|gradio"
    r"|torchvision|torchaudio|triton|bitsandbytes|tensorflow|keras|jax|PIL|cv2|matplotlib|sklearn|openai|collections"
    r"|pkgutil|inspect|pydantic|langchain|nltk|xformers|vllm|networkx|protobuf|setuptools|torchtext|onnx"
)
_ALIASES = {"np": "numpy", "setuptools": "pkg_resources"}
# "scipy has no attribute 'interp'", "numpy no longer has float".
_HAS_NOT = re.compile(
    rf"(?<![\w.'\"/-])(?P<module>(?:{_MODULES})(?:\.\w{{1,40}}){{0,3}}) "
    r"(?:has no|has not got an?|no longer has(?: an?)?|doesn't have(?: an?)?|does not have(?: an?)?) "
    r"(?:attribute |member |function )?:?['\"`]?(?P<name>[A-Za-z_]\w{1,60})['\"`]?(?![\w-])"
)
# "np.float is gone", "scipy.misc.imresize was removed".
_GONE = re.compile(
    rf"(?<![\w.'\"/-])(?P<module>(?:{_MODULES})(?:\.\w{{1,40}}){{0,3}})\.(?P<name>[A-Za-z_]\w{{1,60}})(?:\(\))? "
    r"(?:is|was|has been|got|does not|doesn't|no longer)(?: now)? ?"
    r"(?:gone|removed|deleted|dropped|exists?(?: any ?more)?|not (?:there|available) any ?more)"
)
# Words of a sentence where the name would stand.
_WORD = re.compile(
    r"effect|gpu|cuda|support|access|problem|wheels?|module|attribute|this|that|these|those|the|any|such|it|to", re.I
)


def in_pythons_words(text: str) -> str:
    """`text`, in which no error is shown, with what it says is missing as Python would say it."""
    if "pkg_resources" in text and "No module" not in text:
        text = re.sub(
            r"\bpkg_resources (?:is|was|has been) (?:gone|missing|removed|not (?:there|found))",
            "ModuleNotFoundError: No module named 'pkg_resources'",
            text,
        )
    text = _HAS_NOT.sub(_no_attribute, text)
    text = _GONE.sub(_no_attribute, text)
    return _NOT_INSTALLED.sub(_no_module, text)


def _no_attribute(found: re.Match[str]) -> str:
    first, _, rest = found["module"].partition(".")
    module = ".".join(filter(None, (_ALIASES.get(first, first), rest)))
    if _WORD.fullmatch(found["name"]):
        return found[0]
    return f"AttributeError: module '{module}' has no attribute '{found['name']}'"


def _no_module(found: re.Match[str]) -> str:
    name = found["name"] or found["behind"] or found["after"]
    return f"ModuleNotFoundError: No module named '{name.lower() if name.isupper() or name.istitle() else name}'"
