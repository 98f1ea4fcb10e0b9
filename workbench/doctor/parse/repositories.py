"""Which model or folder an error of the Hub is about, and what was said of earlier attempts. Stdlib only."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from workbench.doctor.facts import ErrorFact

_MAX_LINE = 600
_MAX_SIDES = 16
_MAX_SIDE = 160
_SIDE = re.compile(r"The user requested|\d(?:\+\w{1,20})? depends on ")
_ABOUT_THE_HUB = frozenset(
    ("hf-no-such-repository", "hf-gated", "hf-refused", "hf-offline", "model-files-missing", "hf-token-invalid")
)
_REPOSITORY = re.compile(
    r"(?:huggingface\.co|hf-mirror\.com)/(?:api/(?:models|datasets)/|datasets/)?"
    r"(?P<name>(?!docs/|settings/|models\b|join\b|blog/|spaces/)[\w.-]{1,96}/[\w.-]{1,96}?)"
    r"(?=/(?:resolve|raw|tree|blob|revision)\b|[.,:]?(?:[\s'\")]|$))"
)
_QUOTED = re.compile(
    r"Can't load (?:tokenizer|the configuration|the model|image processor|feature extractor|processor)\w*"
    r"(?: of)?(?: for)? '(?P<name>[^'\n]{1,200})'"
    r"|(?P<name2>[^\s'\"]{2,200}) does not appear to have (?:a file|files) named"
    r"|found in directory (?P<name3>[^\s'\"]{2,200}?)[.,]?(?:\s|$)"
    r"|['\"]?(?P<name4>[^\s'\"]{2,200})['\"]? is not a local folder and is not a valid model identifier"
)


def with_repository(error: ErrorFact, lines: Sequence[str]) -> ErrorFact:
    """An error with what stands around it: the repository or folder that is named, who asks pip for what."""
    if error.id == "pip-sides":
        # Without its line breaks, as some paste it, all stands behind the colon.
        behind = lines[error.line - 1].partition("caused by:")[2].replace(" The user requested", "\nThe user requested")
        listed = itertools.chain(behind.split("\n"), itertools.islice(lines, error.line, error.line + _MAX_SIDES))
        return replace(
            error, values={"sides": "\n".join(line[:_MAX_SIDE].strip() for line in listed if _SIDE.search(line))}
        )
    if error.id not in _ABOUT_THE_HUB or error.values.get("name"):
        return error
    for pattern in (_QUOTED, _REPOSITORY):
        for line in lines:
            found = pattern.search(line[:_MAX_LINE])
            name = next(filter(None, found.groupdict().values()), None) if found else None
            if name:
                return replace(error, values={**error.values, "name": name})
    return error


# "Upgraded it. Now it results in this:"
_AFTER_AN_ATTEMPT = re.compile(
    r"\bnow (?:it|i|we|the|this|there|that|am|getting)\b.{0,50}"
    r"\b(?:error|result|fail|get|got|say|throw|show|give|fac|have|is)"
    r"|^\s{0,4}now[,:]? .{0,40}error\b|\b(?:a )?(?:new|another|different) error\b.{0,30}(?::|$)"
    r"|现在(?:又|报|出现|变成)|又(?:报|出现)了?(?:新的|另|下面|以下|如下)",
    re.IGNORECASE,
)


def of_the_last_attempt(errors: Sequence[ErrorFact], lines: Sequence[str]) -> list[ErrorFact]:
    """`errors` without those that were gone when the next one came, where somebody tells of both in turn."""
    marks = [number for number, line in enumerate(lines, 1) if _AFTER_AN_ATTEMPT.search(line[:_MAX_LINE])]
    if not marks or not errors:
        return list(errors)
    after = [error for error in errors if error.line > marks[-1]]
    if not after:
        return list(errors)
    behind = "\n".join(line[:_MAX_LINE] for line in lines[marks[-1] :])
    return [error for error in errors if error.line > marks[-1] or error.text[:60] in behind]
