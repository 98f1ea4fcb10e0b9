"""What people say of a package that is imported in another release than the one that they have installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft
from workbench.doctor.versions import release_of

_NAMES = (
    r"(?:py)?torch|torchvision|transformers|tensorflow|numpy|bitsandbytes|accelerate|peft|trl|diffusers|vllm|xformers|"
    r"flash[-_]attn|triton|tokenizers|datasets|deepspeed|protobuf"
)
_PACKAGE = re.compile(rf"(?<![\w-])(?P<name>{_NAMES})(?![\w-])", re.I)
_VERSION = r"(?<![\w.])v?(?P<version>\d{1,2}\.\d{1,2}(?:\.\d{1,2})?)(?:\+\w{2,12}|\.(?:post|dev)\d{1,8})?(?![\w.]*\d)"
# "pip list shows 0.4.0", "pip show torch: Version: 2.4.0", "conda list says pytorch 2.1.0".
_LISTED = re.compile(
    rf"\b(?:pip3?|conda|uv|poetry|mamba)\b.{{0,12}}\b(?:list|show|freeze)\b[\s\S]{{0,60}}?{_VERSION}", re.I
)
# "although I installed 2.0.1", "I upgraded with pip install -U torch to 2.3".
_INSTALLED = re.compile(
    rf"\b(?:I|we|I've) (?:have |had |just )?(?:installed|upgraded|updated|reinstalled)\b[^.\n]{{0,60}}?{_VERSION}", re.I
)
# "python prints 1.6.0", "torch.__version__ gives 1.12.1", "still torch 1.10 is imported".
_IMPORTED = re.compile(
    r"(?:__version__"
    r"|\bpython(?:3)?\b(?! ?\d|\d)[^.\n]{0,20}\b(?:prints?|shows?|says|gives?|reports?|sees|takes|uses)\b"
    rf"|\bimport(?:s|ed|ing)?\b|\bnotebook\b|\bkernel\b)[\s\S]{{0,40}}?{_VERSION}"
    rf"|{_VERSION.replace('version', 'before')}[^.\n\d]{{0,20}}\b(?:is|gets) (?:still )?"
    r"(?:imported|loaded|used|taken)\b",
    re.I,
)
# The same without numbers.
_WRONG = re.compile(
    rf"\b(?:wrong|another|other|older?) (?:versions? of )?(?:the )?(?P<one>{_NAMES})(?: versions?)?\b.{{0,20}}"
    r"\b(?:is|gets|was|being) (?:still |always )?(?:being )?(?:imported|loaded|used|taken|picked)"
    rf"|\bwrong versions? of (?P<two>{_NAMES}) (?:is|gets)\b"
    rf"|\b(?P<three>{_NAMES}) (?:is|gets|was|being) (?:still )?(?:imported|loaded|taken|used|picked up)\b"
    r".{0,20}\bfrom\b.{0,90}\b(?:instead of|and not|rather than|not from)\b"
    rf"|\bstill\b.{{0,20}}\b(?P<four>{_NAMES}) of (?:env\w*|the (?:other|first|old)|[A-Z])\b"
    rf"|\b(?P<five>{_NAMES})\b.{{0,30}}\bis taken and not my\b"
    rf"|\b(?:jupyter|notebook|kernel)\b.{{0,30}}\b(?:another|different|other|old)\b.{{0,12}}"
    rf"\b(?P<six>{_NAMES})\b",
    re.I,
)
_NOT_THIS_PYTHON = re.compile(
    r"\bactivat\w{2,4}\b.{0,60}\bwhich python3?\b.{0,30}(?P<path>/usr/(?:local/)?bin/\S{0,20}python)", re.I
)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Note a package of two releases, where nothing else was complained of."""
    if draft.complaints:
        return
    text = "\n".join(lines)[:20_000]
    error = _by_numbers(text) or _in_words(lines)
    if error is not None:
        draft.errors.append(error)


def _by_numbers(text: str) -> Optional[ErrorFact]:
    imported = [found["version"] or found["before"] for found in _IMPORTED.finditer(text)]
    for pattern, how in ((_LISTED, "listed"), (_INSTALLED, "installed")):
        for found in pattern.finditer(text):
            other = next((one for one in imported if _differ(one, found["version"])), None)
            name = _PACKAGE.search(text)
            if other is not None and name is not None:
                values = {"name": _as_pip(name["name"]), how: found["version"], "imported": other}
                return ErrorFact("another-copy-told", found[0][:200], 0, values)
    return None


def _in_words(lines: Sequence[str]) -> Optional[ErrorFact]:
    for number, line in enumerate(lines, 1):
        wrong, path = _WRONG.search(line), _NOT_THIS_PYTHON.search(line)
        if wrong is not None:
            name = next(filter(None, wrong.groups()))
            return ErrorFact("another-copy-told", line[:200], number, {"name": _as_pip(name)})
        if path is not None:
            return ErrorFact("another-copy-told", line[:200], number, {"python": path["path"]})
    return None


def _differ(one: str, other: str) -> bool:
    """Whether two releases differ in the numbers that both of them have."""
    first, second = release_of(one) or (), release_of(other) or ()
    return any(a != b for a, b in zip(first, second))


def _as_pip(name: str) -> str:
    return "torch" if name.lower() == "pytorch" else name.lower().replace("_", "-")
