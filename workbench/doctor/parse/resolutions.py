"""Why uv, Poetry, conda, mamba or pixi find no solution, in the words of each. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft

_MAX_LINES, _MAX_LINE = 60, 600
_STARTS = re.compile(
    r"No solution found when resolving|[Vv]ersion solving failed|SolverProblemError|LibMambaUnsatisfiableError"
    r"|UnsatisfiableError|Could not solve for environment|Encountered problems while solving|PackagesNotFoundError"
    r"|ResolvePackageNotFound|Cannot solve the request because|failed to solve (?:the "
    r")?(?:conda|environment|requirements)"
    r"|Cannot install .{3,400} because these package versions"
    r"|requirements are\s+unsatisfiable|we can conclude that"
)
_FRAME = re.compile(r"^[\s│|┃×╰─▶├└>]{0,40}")
_PLATFORM = re.compile(
    r"(?:Platform: |platform[: ]{1,2}|for )(?P<name>(?:linux|osx|win)-(?:64|32|arm64|aarch64|ppc64le))\b"
)
_SPEC = r"(?:[<>=!~^]=? ?[\w.*+]{1,30}(?:,? ?(?=[<>=!~])|)){1,4}"
_NAME = r"[A-Za-z][\w.-]{0,60}"
_EXTRAS = r"(?:\[[\w, -]{1,60}\])?(?:\{[^{}]{1,200}\})?"

# "kind": the patterns that tell it, the surest first. A name that ends a sentence keeps no dot.
_KINDS = (
    (
        "python",
        (
            rf"the current Python version \((?P<have>[^)]{{1,12}})\) does not satisfy Python "
            rf"?(?P<wants>[<>=!~][\d.,<>=!*]{{1,30}})"
            rf"(?: and (?P<name>{_NAME}){_EXTRAS}(?:==(?P<version>[\w.+]{{1,30}}))? depends on Python)?",
            rf"(?P<name>{_NAME})-(?P<version>\d[\w.]{{0,20}})-\w{{1,40}} requires python "
            rf"(?P<wants>[<>=!~*\d][\w.,<>=!*|]{{0,40}}),? "
            r"but none of the providers can be installed",
            rf"(?P<name>{_NAME}) (?P<version>\[[^\]]{{1,60}}\]|\d[\w.]{{0,20}})\*{{0,2}} would require python "
            rf"(?P<wants>[<>=!~*\d][\w.,<>=!*|]{{0,40}})",
        ),
    ),
    (
        "range",
        (
            rf"the requested Python version \((?P<range>[^)]{{2,30}})\) does not satisfy Python ?"
            rf"(?P<wants>[<>=!~][\d.,<>=!*]{{1,30}}) and "
            rf"(?P<name>{_NAME}){_EXTRAS}(?:==(?P<version>[\w.+]{{1,30}}))? depends",
            rf"(?P<name>{_NAME}) (?:\((?P<version>[^)]{{1,40}})\) )?requires Python "
            rf"(?P<wants>[<>=!~^][\d.,<>=!* ]{{1,40}}?),? [a-z]",
        ),
    ),
    (
        "virtual",
        (
            rf"nothing provides (?P<virtual>__\w{{2,20}})[^\n]{{0,60}}? needed by "
            rf"(?P<name>{_NAME}?)-(?P<version>\d[\w.]{{0,20}})",
        ),
    ),
    (
        "index",
        (
            rf"(?P<name>{_NAME}) was found on (?P<index>https?://[^\s,]{{4,120}}),? but not at the requested version",
            rf"only (?P<name>{_NAME})(?P<offered>{_SPEC}) is available.{{0,800}}may be available on a subsequent "
            rf"index",
        ),
    ),
    ("offline", (rf"(?P<name>{_NAME}){_EXTRAS} (?:was|were) not found in the cache",)),
    ("no-build", (rf"(?P<name>{_NAME}){_EXTRAS}(?P<spec>{_SPEC})? has no usable wheels",)),
    (
        "tags",
        (
            rf"(?:all versions of )?(?P<name>{_NAME}){_EXTRAS}(?P<spec>{_SPEC})? (?:has|have) no wheels with a "
            rf"matching (?P<tag>Python|platform)",
        ),
    ),
    (
        "absent",
        (
            rf"(?P<name>{_NAME}){_EXTRAS} (?:was|were) not found in (?:the package registry|the provided package "
            rf"locations)",
            rf"(?P<name>{_NAME}) =?[^ ]{{0,40}} ?\*?,? ?does not exist \(perhaps a typo",
            rf"nothing provides (?:requested )?(?P<name>(?!__){_NAME}) [^\n]{{0,40}}?needed by "
            rf"(?P<needed_by>{_NAME}?)-(?P<version>\d[\w.]{{0,20}})",
            rf"(?:ResolvePackageNotFound|PackagesNotFoundError): ?[^-]{{0,120}}- (?:\S{{1,80}}::)?(?P<name>{_NAME})",
            rf"there are no versions of (?P<name>{_NAME}){_EXTRAS} and",
            rf"No candidates were found for (?P<name>{_NAME})",
        ),
    ),
    (
        "unpublished",
        (
            rf"only (?P<name>{_NAME}){_EXTRAS}(?P<offered>{_SPEC}) (?:is|are) available",
            rf"there (?:is|are) no versions? of (?P<name>{_NAME}){_EXTRAS}(?P<spec>{_SPEC})?",
            rf"depends on (?P<name>{_NAME}) \((?P<spec>[^)]{{1,60}})\) which doesn't match any versions",
        ),
    ),
)
_BOTH = re.compile(
    rf"(?P<asker>your project|{_NAME}) depends on both (?P<one>{_NAME}) \((?P<spec>[^)]{{1,60}})\) and "
    rf"(?P<two>{_NAME}) \((?P<spec2>[^)]{{1,60}})\)"
)
# In a tree of conda's these words stand where a package does.
_NO_ASKER = frozenset(("it", "would", "which", "that", "and", "also"))
_CONDA_COMMAND = re.compile(
    r"\b(?:conda|mamba|micromamba)(?:\.exe)? (?:create|install|env)\b.{0,200}\bpython ?={1,2} ?(?P<python>3\.\d{1,2})"
)
_ASKS = re.compile(
    rf"(?P<asker>your project|your "
    rf"workspace|you|{_NAME}(?:\[[\w,-]{{1,60}}\])?)(?:{_EXTRAS})(?:==(?P<version>[\w.+]{{1,30}})"
    rf"| \((?P<version2>[^)]{{1,40}})\))? (?:depends? on|requires?) (?P<name>{_NAME}){_EXTRAS}"
    rf"(?: ?(?P<spec>{_SPEC})| \((?P<spec2>[^)]{{1,60}})\))?"
)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the explanation of the last attempt, as one sentence and by what it tells."""
    number = next((number for number, line in enumerate(lines) if _STARTS.search(line[:_MAX_LINE])), None)
    if number is None:
        return
    # Poetry says what it comes to in its last line.
    above = [
        at
        for at in range(max(0, number - 30), number)
        if re.match(r"\W{0,12}(?:\[\w+\]\W{0,4})?(?:Because |The current project's )", lines[at])
    ]
    number = above[0] if above else number
    region = [line[:_MAX_LINE] for line in lines[number : number + _MAX_LINES]]
    told = " ".join(" ".join(_FRAME.sub("", line).split()) for line in region)
    values = {"told": told[:6000], **_kind(told), **_asker(told)}
    platform = next(filter(None, (_PLATFORM.search(line[:_MAX_LINE]) for line in lines)), None)
    values["platform"] = platform["name"] if platform else ""
    typed = next(filter(None, (_CONDA_COMMAND.search(line[:_MAX_LINE]) for line in lines)), None)
    values["python"] = typed["python"] if typed else ""
    text = mask_text(" ".join(lines[number].split())[:400])
    kept = {name: value.rstrip(".,;:") if name != "told" else value for name, value in values.items() if value}
    draft.errors.append(ErrorFact("resolution", text, number + 1, kept))


def _kind(told: str) -> dict[str, str]:
    for kind, patterns in _KINDS:
        for pattern in patterns:
            found = re.search(pattern, told)
            if found:
                return {"kind": kind, **{name: value for name, value in found.groupdict().items() if value}}
    return {}


def asks(told: str) -> list[tuple[str, str, str]]:
    """Who asks for which versions of what: asker with its version, name, specifier, in the order told."""
    # The last sentence of Poetry's names the project itself.
    own = re.search(rf"(?<=So, because )({_NAME})(?= depends on )", told)
    told = re.sub(rf"\b{re.escape(own[1])}(?= depends on )", "your project", told) if own else told
    # "a depends on b (1.0) which depends on c (>=2)"
    told = re.sub(rf"({_NAME}) \(([^)]{{1,40}})\) which depends on ", r"\1 (\2), \1 (\2) depends on ", told)
    found = []
    typed = re.search(r"Cannot install (.{3,400}?) because these package versions", told)
    for part in re.split(r", | and ", typed[1]) if typed else ():
        match = re.fullmatch(rf"({_NAME})(?:\[[\w,-]{{1,60}}\])?({_SPEC})", part.strip())
        found += [("your project", match[1], match[2])] if match else []
    if typed:
        # pip that goes back through all releases of a package lists them as pins; nobody asked for those.
        return [] if all(spec.startswith("==") for _, _, spec in found) else found
    for both in _BOTH.finditer(told):
        found += [(both["asker"], both["one"], both["spec"]), (both["asker"], both["two"], both["spec2"])]
    for match in _ASKS.finditer(told):
        if match["asker"] in _NO_ASKER or match["name"] == "both":
            continue
        spec = (match["spec"] or match["spec2"] or "").replace(" ", "").rstrip(",")
        version = match["version"] or match["version2"] or ""
        found.append((f"{match['asker']} {version}".strip(), match["name"].rstrip("."), spec))
    return found


# uv names what a constraint asks for without who asks.
_CONSTRAINED = re.compile(
    rf"depends on (?P<name>{_NAME}){_EXTRAS}{_SPEC} and (?P=name)(?P<spec>{_SPEC}), we can conclude"
)


def constraints(told: str) -> list[tuple[str, str]]:
    """What stands beside a requirement in uv's explanation without anybody who asks for it."""
    return [(found["name"], found["spec"].replace(" ", "")) for found in _CONSTRAINED.finditer(told)]


def wheels_told(told: str) -> str:
    """For which Pythons or systems there are wheels, by uv's hint; ``""`` where it gives none."""
    hint = re.search(
        r"following (?:platforms?|[\w ]{2,40}): ((?:`[\w.+-]{2,60}`,? ?){1,20})",
        told,
    )
    return hint[1].replace("`", "").strip(", ") if hint else ""


def _asker(told: str) -> dict[str, str]:
    """Who asks for the package that is at fault, and for which versions of it."""
    name = _kind(told).get("name", "").rstrip(".")
    found = next(((asker, spec) for asker, wanted, spec in asks(told) if name and wanted == name), None)
    return {"asker": found[0], "asked": found[1]} if found else {}
