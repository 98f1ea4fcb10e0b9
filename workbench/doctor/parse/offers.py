"""What pip was offered of a package in vain: versions, the Pythons that others want, the index. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft
from workbench.doctor.versions import normalize, older, parse_version, satisfies

_MAX_LINES = 40
_MAX_LINE = 20_000
_MARK = "satisfies the requirement"
_FROM = r"\(from(?! versions)[^()]{1,300}(?:\([^()]{0,60}\)[^()]{0,200}){0,3}\)"
_ASKED = re.compile(
    rf"{_MARK} (?P<package>[A-Za-z][\w.-]{{0,60}})(?:\[[\w,-]{{1,60}}\])? ?(?P<spec>[<>=!~][^\s(;]{{1,80}})?"
    rf"(?: ?;[^()]{{0,200}})?(?: ?{_FROM}){{0,3}} ?\(from versions: ?(?P<offered>[^)]{{0,{_MAX_LINE}}})"
)
# A terminal breaks its line within a word too.
_TORN = re.compile(r"\((?=[a-z ]{13,14}:)f ?r ?o ?m ?v ?e ?r ?s ?i ?o ?n ?s")
_WANTS = re.compile(r"(?P<version>\d[\w.+!-]{0,30}) Requires-Python (?P<python>[<>=!~][\d.*,<>=!~ ]{1,40}?)(?=;|$)")
_INDEX = re.compile(
    r"(?:(?<!extra)(?<!extra-)index-url[= ]|(?<![\w-])-i |Looking in indexes: )(?P<url>https?://[^\s,'\"]{4,120})"
)
_EXTRA = re.compile(r"--extra-index-url|Looking in indexes: [^\n]{4,200}, ?https?://")


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the last requirement that no version satisfied."""
    number = next((number for number in range(len(lines) - 1, -1, -1) if _MARK in lines[number]), None)
    if number is None:
        return
    # A line that was wrapped by the terminal or by who wrote it down goes on in the next ones.
    told = " ".join(" ".join(line[:_MAX_LINE].split()) for line in lines[number : number + 4])
    asked = _ASKED.search(_TORN.sub("(from versions", told))
    if asked is None:
        return
    offered = [version.strip() for version in asked["offered"].split(",")]
    offered = [version for version in offered if parse_version(version)]
    above = [line[:_MAX_LINE] for line in lines[max(0, number - _MAX_LINES) : number + 1]]
    spec = (asked["spec"] or "").rstrip(",.;'\"`")
    values = {
        "package": normalize(asked["package"]),
        "spec": spec,
        "oldest": offered[0] if offered else "",
        "newest": _newest(offered),
        "nearest": _nearest(offered, spec),
        "wants": _wanted(above, spec),
        "index": _index(above),
        "unreached": _unreached(above),
    }
    text = mask_text(" ".join(lines[number].split())[:400])
    draft.errors.append(
        ErrorFact("pip-offers", text, number + 1, {name: item for name, item in values.items() if item})
    )


def _newest(offered: Sequence[str]) -> str:
    """The last one that is a release."""
    releases = [version for version in offered if not re.search(r"\d(?:a|b|rc|\.dev)\d", version)]
    return (releases or list(offered) or [""])[-1]


def _nearest(offered: Sequence[str], spec: str) -> str:
    """Of the versions offered the first one after that which was asked for, else the last one before it."""
    asked = re.search(r"(?:==|~=|>=?)\s?(\d[\w.]{0,30})", spec)
    releases = [version for version in offered if not re.search(r"\d(?:a|b|rc|\.dev)\d", version)]
    if asked is None or not releases:
        return ""
    same = [version for version in releases if version.startswith(asked[1].rpartition(".")[0] + ".")]
    later = [version for version in same or releases if not older(version, asked[1])]
    return later[0] if later else (same or releases)[-1]


def _wanted(lines: Sequence[str], spec: str) -> str:
    """The Pythons that a version wants which was asked for, and left out because of this Python."""
    found = [match for line in lines if "Requires-Python" in line for match in _WANTS.finditer(line)]
    fits = [match for match in found if spec and satisfies(match["version"], spec)]
    return fits[-1]["python"].replace(" ", "") if fits else ""


def _index(lines: Sequence[str]) -> str:
    """The one index that was asked, where it is not PyPI."""
    if any(map(_EXTRA.search, lines)):
        return ""
    found: Optional[re.Match[str]] = next(filter(None, (_INDEX.search(line[:600]) for line in reversed(lines))), None)
    url = mask_text(found["url"]) if found else ""
    return "" if re.match(r"https?://pypi\.org/", url) else url


# Why the index was not reached, in the words of pip's own retries; else any page that was skipped.
_UNREACHED = (
    (
        "name",
        re.compile(
            r"name resolution|getaddrinfo failed|Name or service not known|nodename nor servname|NameResolution"
        ),
    ),
    (
        "certificate",
        re.compile(r"CERTIFICATE_VERIFY_FAILED|confirming the ssl certificate|SSLError|certificate verify failed"),
    ),
    ("ssl", re.compile(r"SSL module is not available")),
    ("proxy", re.compile(r"ProxyError|Cannot connect to proxy|407 Proxy")),
    (
        "time",
        re.compile(
            r"timed out|Connection refused|Network is unreachable|unreachable host|connection failed|ConnectTimeout"
        ),
    ),
)


def _unreached(lines: Sequence[str]) -> str:
    told = [line[:1200] for line in lines if "Retry" in line or "Could not fetch URL" in line or "broken by" in line]
    return next((name for name, pattern in _UNREACHED if any(map(pattern.search, told))), "")
