"""Builds of packages that failed, in the words of pip, old pip, uv and setuptools. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.commands import last_install, name_of, uses_uv
from workbench.doctor.parse.draft import Draft
from workbench.doctor.versions import normalize

_MARKS = (
    "subprocess-exited-with-error",
    "failed building wheel for",
    "metadata-generation-failed",
    "could not build wheels for",
    "failed to build installable wheels",
    "failed-wheel-build-for-install",
    "build backend returned an error",
    "build backend failed to",
    "failed to fetch wheel",
    "failed to build `",
    "failed to build '",
    "failed to build: `",
    "failed to download and build",
    "maturin failed",
    "newer than pyo3's maximum supported version",
    "failed to run custom build command for",
    "did not run successfully",
    'setup.py egg_info" failed',
    "command errored out with exit status",
    "finished with status 'error'",
    "... error",
)
# pip's last word, before it had quotes: the names of what was not built.
_ENDS = re.compile(r"\s{0,8}(?:ERROR: )?Failed to build [A-Za-z][\w.-]{1,60}(?: [A-Za-z][\w.-]{1,60}){0,4}\s*$")
_NAME = r"[`'\"]?(?P<package>[A-Za-z][\w.-]{1,60}?)[`'\"]?(?:==?(?P<version>\d[\w.+]{0,30}?))?"
# What names the package most surely comes first.
# What is compiled from Rust, and stands in a sentence with its version where no log names it.
_RUST = "tokenizers|pydantic-core|tiktoken|safetensors|hf-xet|outlines-core|jiter|rpds-py|orjson|cryptography"
_NAMED = tuple(
    re.compile(pattern)
    for pattern in (
        rf"Failed building wheel for {_NAME}(?:\s|$)",
        rf"Could not build wheels for {_NAME}(?:[\s,]|$)",
        rf"installable wheels for some pyproject\.toml based projects \({_NAME}[),]",
        rf"Failed to (?:download and )?build:? {_NAME}[`'\"]?(?:\s|$|\))",
        rf"Failed to fetch wheel:? {_NAME}(?:\s|$)",
        rf"Building wheel for {_NAME} \([\w. 0-9]{{2,20}}\) ?(?:\.\.\.|did not|: finished with status 'error')",
        rf"^\s{{0,6}}╰─> {_NAME}\s*$",
        rf"Running setup\.py (?:install|develop|bdist_wheel) for {_NAME}(?:\s|$)",
        rf"Building wheels for collected packages: {_NAME}\s*$",
        r"pip-(?:install|req-build|wheel)-\w{6,10}[/\\](?P<package>[A-Za-z][\w.-]{1,60}?)(?:_[0-9a-f]{32})?[/\\]",
        r"/(?P<package>[A-Za-z][\w.-]{1,60}?)-(?P<version>\d[\w.]{1,30})\.tar\.gz",
        r"(?:Downloading|Using cached) "
        r"(?P<package>[A-Za-z][\w.-]{1,60}?)-(?P<version>\d[\w.]{1,30})\.(?:tar\.gz|zip)",
        r"(?:Cloning|Updated|Updating|Collecting) "
        r"(?:git\+)?https?://\S{1,120}/(?P<package>[A-Za-z][\w.-]{1,60}?)(?:\.git)?"
        r"(?:[@#]\S{0,120})?(?:\s|$)",
        r"(?:Processing|Obtaining) (?:file://)?[^\s:]{0,200}/(?P<package>[A-Za-z][\w-]{1,60})(?:\s|$)",
        rf"Collecting {_NAME}(?:[<>=!~\s(@]|$)",
        rf"(?<![\w.-])(?P<package>{_RUST})==(?P<version>\d[\w.]{{1,20}})",
        r"pip3? install (?:-\S+ ){0,6}(?P<package>[A-Za-z][\w-]{1,60}?)"
        r"(?:[=<>~!]=?(?P<version>\d[\w.]{0,30}))?(?:\s|$)",
    )
)
_EXCEPTION = re.compile(r"^[\s│|]{0,20}(?P<error>[A-Za-z_][\w.]{0,60}(?:Error|Exception): \S.{0,300})")
_LAST = re.compile(r"^[\s│|]{0,20}(?P<error>(?:(?:fatal )?error|FAILED|CMake Error)(?:\[\w{1,8}\])?:? .{3,300})")
# A wheel for the stable ABI (cp38-abi3) is one for every later Python too.
# What a linker does not find; the last word of a build is then only that the command failed.
_LINKED = re.compile(
    r"(?P<error>(?:LINK : )?fatal error LNK11(?:81|04): .{3,120}|ld(?:\.exe)?: "
    r"(?:cannot find -l|library not found for -l|library ').{2,80})"
)
_COMMAND = re.compile(r"error: (?:command|subprocess)\b")
_PYTHON_TAG = re.compile(r"[-_.](?:cpython-|cp)3(\d{1,2})(?![\d.]|-abi3)")
# torch only warns where its empty build environment has no numpy.
_MISSING = re.compile(r"(?<!initialize NumPy: )No module named '?(?P<module>\w{1,60})(?![\w.])")
_NO_REASON = re.compile(
    r"subprocess|metadata-generation|failed-wheel|Failed building|Could not build|CalledProcess|Failed to"
)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the first build that failed, unless the install came to a good end after all."""
    text = "\n".join(lines).lower()
    if not any(mark in text for mark in (*_MARKS, "failed to build ")):
        return
    marked = [number for number, line in enumerate(lines) if _is_mark(line)]
    if not marked:
        return
    if any(line.lstrip().startswith("Successfully installed") for line in lines[marked[-1] :]):
        return
    package, version = _package(lines, marked)
    values = {"version": version, **_typed(lines, marked, package, draft), **_reason(lines, marked)}
    first = marked[0]
    text = mask_text(" ".join(lines[first].split())[:400])
    draft.errors.append(ErrorFact("build-failed", text, first + 1, {k: v for k, v in values.items() if v}))
    draft.saw("build log")
    version_tag = next(filter(None, map(_PYTHON_TAG.search, lines)), None)
    if version_tag:
        draft.put(draft.python, version=f"3.{version_tag[1]}")
    if any(".win-amd64-" in line[:1000] for line in lines):
        draft.put(draft.platform, system="Windows")
    told = {error.id for error in draft.errors}
    if values.get("module") == "torch" and "build-without-torch" not in told:
        error = next((error for error in draft.errors if error.id == "no-module-torch"), None)
        draft.errors.append(ErrorFact("build-without-torch", error.text if error else text, first + 1))


def _is_mark(line: str) -> bool:
    lower = line.lower()
    if len(line) > 1000:  # a terminal's lines, padded with blanks and joined by a copy
        lower = " ".join(lower[:4000].split())
        if len(lower) > 1000:
            return False
    if lower.rstrip().endswith("... error"):
        return "wheel" in lower or "metadata" in lower or "install for" in lower or "editable" in lower
    return any(mark in lower for mark in _MARKS[:-1]) or _ENDS.match(line) is not None


def _package(lines: Sequence[str], marked: Sequence[int]) -> tuple[str, str]:
    """The package whose build failed; where only an earlier line names one, the nearest such line above."""
    near = [line[:1000] for line in lines[max(0, marked[0] - 40) : marked[-1] + 60]]
    for pattern in _NAMED:
        above = any(mark in pattern.pattern for mark in ("Collecting", "Processing", "pip3?", "Downloading"))
        pool = reversed([line[:1000] for line in lines[: marked[0] + 1]]) if above else near
        found = next(filter(None, (pattern.search(line) for line in pool)), None)
        if found:
            return normalize(found["package"]), found.groupdict().get("version") or ""
    return "", ""


def _reason(lines: Sequence[str], marked: Sequence[int]) -> dict[str, str]:
    """The last error inside the build's output: what the build itself complained of."""
    output = [line[:600] for line in lines[max(0, marked[0] - 60) : marked[-1] + 200]]
    missing = _first(_MISSING, output)
    said = [
        match["error"] for match in map(_EXCEPTION.match, output) if match and not _NO_REASON.search(match["error"])
    ]
    said = said or [m["error"] for m in map(_LAST.match, output) if m and not _NO_REASON.search(m["error"])]
    if all(map(_COMMAND.match, said[-1:])):
        said = [match["error"] for match in map(_LINKED.search, output) if match] or said
    said = [] if all(map(_COMMAND.match, said)) else said  # that a command failed is no reason
    reason = mask_text(" ".join(said[-1].split()))[:200] if said else ""
    # Only the step before the build proper asks for requirements; what compiles CUDA code imports torch there.
    early = any("getting requirements to build" in line.lower() for line in output)
    return {"reason": reason, "module": missing["module"] if missing else "", "stage": "requirements" if early else ""}


def _typed(lines: Sequence[str], marked: Sequence[int], package: str, draft: Draft) -> dict[str, str]:
    """The package, and the command that asked for it: the last one above the failure, else any."""
    install = last_install(lines[: marked[0] + 1]) or last_install(lines)
    if uses_uv(lines) or (install is not None and install.tool.startswith("uv")):
        draft.put(draft.python, kind="uv")
    target = install.target_of(package) if install else _file_of(lines[: marked[0] + 1])
    if target is None and install is not None and 1 < len(install.targets) < 8:
        target = " ".join(install.targets)  # one of them brought it along
    named = package or name_of(target or "")
    escaped = re.escape(named).replace("\\-", "[-_]")
    taken = (
        rf"(?:Collecting {escaped}==(?P<asked>\d[\w.+]{{0,30}})"
        rf"|\b{escaped}-(?P<source>\d[\w.]{{0,30}}?)\.(?:tar\.gz|zip)\b)"
    )
    asked = re.compile(taken, re.IGNORECASE) if named else None
    version = _first(asked, lines[: marked[-1] + 1]) if asked else None
    pinned = _first(_PINS_TOKENIZERS, lines) if named == "tokenizers" and not target else None
    return {
        "package": named,
        "target": mask_text(target or (f"transformers=={pinned['version']}" if pinned else "")),
        "tool": install.tool if install else "",
        "verb": install.verb if install else "",
        "pinned": "yes" if named and _first(_held(escaped), lines[: marked[-1] + 1]) else "",
        **({"version": version["asked"] or version["source"]} if version else {}),
    }


# A release of transformers asked for in a sentence, which takes an old tokenizers.
_PINS_TOKENIZERS = re.compile(r"\btransformers? ?==? ?(?P<version>[234]\.\d[\d.]{0,6}\d)\b", re.IGNORECASE)


def _held(name: str) -> re.Pattern[str]:
    """That one release, or none newer than one, is asked for."""
    return re.compile(rf"\b{name}(?:\[[\w,-]{{1,60}}\])?(?:==|~=|<=?)\d", re.IGNORECASE)


def _file_of(lines: Sequence[str]) -> str:
    """The file of requirements that pip says it reads."""
    found = _first(re.compile(r"\(from -r (\S{1,120}) \(line \d"), [line[:600] for line in lines])
    return f"-r {found[1]}" if found else ""


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> Optional[re.Match[str]]:
    return next(filter(None, map(pattern.search, lines)), None)
