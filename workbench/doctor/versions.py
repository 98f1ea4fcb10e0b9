"""Version numbers, requirement specifiers and environment markers, as far as diagnosis needs. Stdlib only.

The environment under examination may lack the ``packaging`` library, so the subset of PEP 440 and PEP 508
that installed metadata uses is read here. Whatever is not understood is "unknown", never a verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

_VERSION = re.compile(
    r"v?(?:\d{1,4}!)?(?P<release>\d{1,9}(?:\.\d{1,9}){0,6})"
    r"(?P<pre>[-_.]?(?:a|alpha|b|beta|rc|c|pre|preview)[-_.]?\d{0,9})?"
    r"(?P<post>[-_.]?(?:post|rev|r)[-_.]?\d{0,9})?(?P<dev>[-_.]?dev[-_.]?\d{0,9})?"
    r"(?:\+(?P<local>[a-z0-9._-]{1,80}))?",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"\s*(===|==|!=|<=|>=|<|>|~=)\s*([A-Za-z0-9.*+!_-]{1,80})\s*")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]{0,100})\s*(?:\[([^\]]{0,200})\])?\s*(.{0,400})", re.S)


@dataclass(frozen=True, order=True)
class Version:
    """A version that can be compared; the local tag (``+cu128``) does not take part in comparing."""

    key: tuple[tuple[int, ...], int, int]

    @property
    def release(self) -> tuple[int, ...]:
        """The numbers, without trailing zeros."""
        return self.key[0]


def parse_version(text: Optional[str]) -> Optional[Version]:
    """A comparable version, or None if `text` does not start like one."""
    match = _VERSION.match((text or "").strip()[:120])
    if match is None:
        return None
    release = [int(part) for part in match["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    pre = match["pre"]
    stage, number = 0, 0
    if match["dev"]:
        stage, number = (-4, _number(match["dev"])) if not pre else (-3, _number(pre))
    elif pre:
        letter = pre.strip("-_.").lower()[0]
        stage, number = {"a": -3, "b": -2}.get(letter, -1), _number(pre)
    elif match["post"]:
        stage, number = 1, _number(match["post"])
    return Version((tuple(release), stage, number))


def _number(text: str) -> int:
    digits = re.search(r"\d+", text)
    return int(digits.group()) if digits else 0


def without_stage(text: Optional[str]) -> Optional[str]:
    """``5.0.0`` of ``5.0.0rc1`` or ``5.0.0.dev0``, which have what the release brings and lack what it takes away."""
    match = _VERSION.match((text or "").strip()[:120])
    return match["release"] if match else None


def local_tag(text: Optional[str]) -> Optional[str]:
    """``cu128`` of ``2.8.0+cu128``; None without one."""
    return text.split("+", 1)[1] if text and "+" in text else None


def release_of(text: Optional[str], parts: int = 2) -> Optional[tuple[int, ...]]:
    """The first `parts` numbers of a version, zero-filled, or None when it is no version."""
    version = parse_version(text)
    if version is None:
        return None
    return (version.release + (0,) * parts)[:parts]


def minor_name(text: Optional[str]) -> Optional[str]:
    """``2.8`` of ``2.8.0+cu128``."""
    numbers = release_of(text)
    return None if numbers is None else f"{numbers[0]}.{numbers[1]}"


def at_least(text: Optional[str], minimum: str) -> Optional[bool]:
    """Whether version `text` is `minimum` or newer; None when `text` is unknown."""
    version, bound = parse_version(text), parse_version(minimum)
    return None if version is None or bound is None else version >= bound


def older(text: Optional[str], bound: str) -> bool:
    """Whether version `text` is known and older than `bound`."""
    return at_least(text, bound) is False


def satisfies(version_text: Optional[str], specifier: str) -> Optional[bool]:
    """Whether a version meets a specifier set such as ``>=1.3.0,<2.0``; None when either is not understood."""
    version = parse_version(version_text)
    if version is None or version_text is None:
        return None
    for clause in filter(None, (part.strip() for part in specifier.strip().strip("()").split(","))):
        match = _CLAUSE.fullmatch(clause)
        verdict = None if match is None else _meets(version, version_text, match[1], match[2])
        if not verdict:
            return verdict
    return True


def _meets(version: Version, text: str, operator: str, bound_text: str) -> Optional[bool]:
    if operator == "===":
        return text.strip() == bound_text
    if bound_text.endswith(".*"):
        prefix = parse_version(bound_text[:-2])
        if prefix is None or operator not in ("==", "!="):
            return None
        wanted = tuple(int(part) for part in bound_text[:-2].split(".") if part.isdigit())
        padded = (version.release + (0,) * len(wanted))[: len(wanted)]
        return (padded == wanted) == (operator == "==")
    bound = parse_version(bound_text)
    if bound is None:
        return None
    if operator == "~=":
        wanted = tuple(int(part) for part in re.findall(r"\d+", bound_text.split("+")[0]))[:-1]
        return version >= bound and (version.release + (0,) * len(wanted))[: len(wanted)] == wanted
    if operator in ("==", "!="):
        same = version == bound and (local_tag(bound_text) in (None, local_tag(text)))
        return same == (operator == "==")
    if operator == "<":
        # A pre-release of the bound itself is not "less than" it (PEP 440).
        return version < bound and not (version.release == bound.release and bound.key[1] == 0)
    if operator == ">":
        # A post-release of the bound itself is not "greater than" it.
        return version > bound and not (version.release == bound.release and version.key[1] == 1 > bound.key[1])
    return version <= bound if operator == "<=" else version >= bound


@dataclass(frozen=True)
class Requirement:
    """A parsed ``Requires-Dist`` line."""

    name: str
    specifier: str
    marker: str


def normalize(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirement(text: str) -> Optional[Requirement]:
    """A requirement line, or None when it cannot be read (a direct URL counts as no constraint)."""
    match = _REQUIREMENT.fullmatch(text[:800])
    if match is None:
        return None
    rest, _, marker = match[3].partition(";")
    specifier = "" if rest.strip().startswith("@") else rest.strip().strip("()")
    return Requirement(normalize(match[1]), specifier, marker.strip())


_MARKER_TOKEN = re.compile(r"\s*(\(|\)|'[^']*'|\"[^\"]*\"|===|==|!=|<=|>=|~=|<|>|not\s+in\b|[A-Za-z_.]+)")


def marker_holds(marker: str, values: dict[str, str]) -> Optional[bool]:
    """Evaluate an environment marker (PEP 508) with `values`; None when it cannot be read."""
    if not marker.strip():
        return True
    tokens: list[str] = []
    position, text = 0, marker.strip()[:400]
    while position < len(text):
        match = _MARKER_TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1])
        position = match.end()
    try:
        result, rest = _either(tokens, values)
    except (IndexError, KeyError, ValueError):
        return None
    return None if rest else result


def _either(tokens: list[str], values: dict[str, str]) -> tuple[bool, list[str]]:
    left, tokens = _both(tokens, values)
    while tokens and tokens[0] == "or":
        right, tokens = _both(tokens[1:], values)
        left = left or right
    return left, tokens


def _both(tokens: list[str], values: dict[str, str]) -> tuple[bool, list[str]]:
    left, tokens = _term(tokens, values)
    while tokens and tokens[0] == "and":
        right, tokens = _term(tokens[1:], values)
        left = left and right
    return left, tokens


def _term(tokens: list[str], values: dict[str, str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        result, tokens = _either(tokens[1:], values)
        if tokens[0] != ")":
            raise ValueError
        return result, tokens[1:]
    left, operator, right = tokens[0], tokens[1], tokens[2]
    name = right if left[0] in "'\"" else left
    a, b = _marker_value(left, values), _marker_value(right, values)
    if operator == "in":
        return a in b, tokens[3:]
    if operator.startswith("not"):
        return a not in b, tokens[3:]
    if "version" in name and "platform_version" not in name:
        verdict = satisfies(a, f"{operator}{b}")
        if verdict is None:
            raise ValueError
        return verdict, tokens[3:]
    if operator in ("==", "!="):
        return (a == b) == (operator == "=="), tokens[3:]
    raise ValueError


def _marker_value(token: str, values: dict[str, str]) -> str:
    return token[1:-1] if token[0] in "'\"" else values[token]
