"""What a library's own sentence asks for: a package, or a release of one, however it words it. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.doctor.changes import pip_name
from workbench.doctor.versions import normalize

# Packages as sentences call them, where that is neither the name of pip nor that of the import.
_CALLED = {
    "beautiful soup": "beautifulsoup4",
    "flash attention": "flash-attn",
    "flash-attention": "flash-attn",
    "flashattention2": "flash-attn",
    "gpt-qmodel": "gptqmodel",
    "huggingface hub": "huggingface-hub",
    "ipex": "intel-extension-for-pytorch",
    "jinja": "jinja2",
    "msamp": "ms-amp",
    "opencv": "opencv-python",
    "pyav": "av",
    "pytesseract": "pytesseract",
    "pytorch": "torch",
    "pytorch version": "torch",
    "transformer engine": "transformer-engine",
}
_NAME = (
    r"(?:(?:the|a|an|your|latest|version of|installation of|🤗) ){0,3}[`'\"]?(?P<name>"
    r"(?i:beautiful soup|flash attention|transformer engine|huggingface hub)|[A-Za-z][\w-]{1,40}(?:\.\w{2,20})?)[`'\"]?"
)
_PACKAGE = r"(?: (?:package|library|module))?"
_VERSION = r"v?[`'\"]?(?P<version>\d{1,4}(?:\.\d{1,4}){0,3})[`'\"]?"

_NAMED = re.compile(
    r"\b(?P<package>[A-Za-z][\w-]{1,40}) with minimum required version (?P<minimum>\d[\w.]{0,20}) is not installed"
    r"|incompatible version of (?P<found>[A-Za-z][\w-]{1,40})\. Found version [\w.]{1,20}, but only versions above "
    r"(?P<above>\d[\w.]{0,20}(?<!\.))"
    r"|(?:[Rr]equires?|[Nn]eeds?|[Ee]xpected|supported in|[Pp]lease (?:install|upgrade(?: to)?)) (?:the )?[`'\"]?"
    r"(?P<asked>[A-Za-z][\w-]{1,40})[`'\"]? ?\(?(?P<spec>(?:>=|==|~=|<=?|>) ?\d[\w.]{0,20}(?<!\.)"
    r"(?:, ?(?:<=?|!=) ?\d[\w.]{0,20}(?<!\.)){0,2})"
)
_VERSIONS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_NAME}{_PACKAGE}(?: to a)?(?: version)?(?: must be| to be| should be| to)?,? ?\(?"
        rf"(?:>=|==|>|at least|newer than|higher than|superior (?:to|than)|greater (?:or equal )?than)(?: version)? ?"
        rf"{_VERSION}",
        rf"{_NAME}{_PACKAGE}(?: versions?)? {_VERSION},? ?(?:or|and)(?: a)? (?:later|higher|newer|above|greater|up)\b",
        rf"(?:[Yy]our|[Vv]ersion of) {_NAME}(?: version)?(?:.{{0,40}} is too old| you are using is not compatible)"
        rf"[,.]? (?:[Pp]lease )?(?:upgrade|update|use)(?: it| a version)?(?: that is)?(?: to| at least| greater than)?"
        rf"(?: version)? ?(?:>=?)? ?{_VERSION}",
        rf"incompatible version of {_NAME}(?: \(`[\w-]{{2,40}}` package\))?\. Found version \S{{1,20}}, but only "
        rf"(?:versions? )?(?:above |>= ?)?{_VERSION}",
        rf"[Nn]eed {_NAME} {_VERSION} at least\b",
        rf"(?:[Uu]pgrade|[Uu]pdate) {_NAME}(?: version)? to(?: version| v\.?)? ?{_VERSION}",
        rf"{_NAME}(?: version)? must be {_VERSION} or (?:higher|later|newer)",
        rf"[Mm]inimum version for {_NAME} is (?:at least )?{_VERSION}",
        rf"(?:Unsupported|version of) {_NAME}(?: version[\w ]{{0,40}}| does not allow [^.\n]{{0,60}})?[.,] "
        rf"[Mm]inimum required is {_VERSION}",
    )
)
_PACKAGES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:[Rr]equires?|[Nn]eeds?) {_NAME}{_PACKAGE}[,.]? (?:[Bb]ut )?(?:it|that|which) (?:was|is) not "
        rf"(?:found|installed|available)",
        rf"{_NAME}{_PACKAGE} (?:is|was) not (?:installed|available|found)\b",
        rf"{_NAME}{_PACKAGE} (?:must be|is required to be|needs to be|has to be) (?:installed|available)\b",
        rf"(?:[Nn]eed to|[Pp]lease|[Mm]ust|[Mm]ake sure to|[Hh]ave to|[Ss]hould) (?:first )?install {_NAME}",
        rf"(?:must|need to|should) have {_NAME}{_PACKAGE} installed",
        rf"[Rr]equires? {_NAME}{_PACKAGE} to be (?:installed|available)",
        rf"{_NAME}{_PACKAGE} is required (?:for|to|by|but|in order)\b",
        rf"latest version of {_NAME} (?:is )?installed",
        rf"[Mm]ake sure (?:that )?{_NAME}{_PACKAGE} is installed",
        rf"[Pp]lease (?:run )?[`'\"]?pip install {_NAME}",
        r"\bInstall `(?P<name>[A-Za-z][\w-]{1,40})` to ",
        rf"{_NAME} \(`pip install [^`\n]{{2,60}}`\) is required",
        rf"(?:[Uu]pgrade|[Uu]pdate) your {_NAME} (?:version|installation)\b",
        rf"(?:[Uu]pgrade|[Uu]pdate) your installation of {_NAME}",
        rf"(?:have|using|with|[Cc]urrent) {_NAME} (?:version|installation) (?:that )?does(?: not|n't) support",
        rf"not compatible with this {_NAME} version\b",
        rf"[Rr]equires {_NAME} (?:package|library)\b",
        r"`pip install (?P<name>[A-Za-z][\w-]{1,40})` for ",
        rf"[Rr]equires that {_NAME} and \w{{2,40}} are installed",
    )
)

# "is not supported on PyTorch >= 2.9", "vLLM >= 0.28 moved it elsewhere": what is there is too new.
_REFUSED_BEFORE = re.compile(
    r"\bnot (?:\w{2,10} )?(?:supported|compatible|available) (?:on|in|with|for|by)(?: the)? ?$"
)
_REFUSED_AFTER = re.compile(r" (?:and <|moved |produces |removed |crashes |no longer )")


def releases_asked(text: str) -> Iterator[tuple[str, str, bool]]:
    """Names that a sentence wants in a release, the specifier, and whether it can be no other thing than a package.

    Such as ``("torch", ">=2.4.0", False)``.
    """
    found = _NAMED.search(text)
    if found is not None:
        minimum = found["minimum"] or found["above"]
        wanted = f">={minimum}" if minimum else "".join(found["spec"].split())
        yield _pip_name(found["package"] or found["found"] or found["asked"]), wanted, not found["asked"]
    for pattern in _VERSIONS:
        for other in pattern.finditer(text):
            if _REFUSED_BEFORE.search(text[: other.start()]) or _REFUSED_AFTER.match(text[other.end() :]):
                continue
            yield _pip_name(other["name"]), ("==" if "==" in other[0] else ">=") + other["version"], False


def packages_asked(text: str) -> list[str]:
    """The packages that a sentence calls missing, by pip's names, whether there are such packages or not."""
    return list(dict.fromkeys(_pip_name(found["name"]) for pattern in _PACKAGES for found in pattern.finditer(text)))


def _pip_name(name: str) -> str:
    called = _CALLED.get(name.lower())
    return called or normalize(pip_name(name) if name != name.title() else name)
