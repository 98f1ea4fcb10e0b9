"""Package lists: pip list, pip freeze, uv pip list, conda list, collect_env's own lists, pip's install log."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.doctor.facts import Conflict
from workbench.doctor.installed import NAMED
from workbench.doctor.parse.draft import Draft
from workbench.doctor.versions import normalize

_PIN = re.compile(
    r"\s{0,12}(?:\[(pip3?|conda)\]\s{1,4})?([A-Za-z0-9][\w.-]{0,80})(?:\[[\w,-]{0,60}\])?"
    r"===?([0-9][\w.+!-]{0,60})\s{0,8}(?:[;#].*)?$"
)
_SPACED_PIN = re.compile(r"\s{0,12}(?P<none>(?!))?([A-Za-z][\w.-]{0,80}) {1,2}== {1,2}(\d[\w.+!-]{0,60})\s{0,8}$")
_ROW = re.compile(
    r"[\s*•-]{0,12}([A-Za-z0-9][\w.-]{0,80})\s{1,80}v?(\d[\w+!-]{0,40}(?:\.[\w+!-]{1,40}){0,6})[.,;]?"
    r"(?:\s{1,40}\S.{0,200})?$"
)
# "accelerate - 0.27.0", as people write a list down.
_TOLD_ROW = re.compile(r"(\s{0,12}(?:[*•-] )?[A-Za-z][\w.-]{0,60}) [-–] v?(\d{1,4}\.\d[\w.+!-]{0,40}\s{0,8})$")
_DASHED = re.compile(
    r"\s{0,12}([A-Za-z][\w.]{0,40}(?:-[A-Za-z][\w.]{0,40}){0,4})-(\d{1,4}(?:\.\w{1,20}){1,4}(?:\+\w{1,20})?)[.,;]?\s{0,8}"
)
_CONDA_BARE = re.compile(
    r"\s{0,8}(pytorch|libtorch|pytorch-gpu|pytorch-cpu)\s{1,60}(\d[\w.+!-]{0,60})\s{1,60}"
    r"((?:py|cpu|cuda|gpu)\w*[\d_]\S{0,80})"
)
_CONDA_TAGGED = re.compile(
    r"\s{0,12}\[conda\]\s{1,4}([A-Za-z0-9_][\w.-]{0,80})\s{1,60}(\d[\w.+!-]{0,60})(?:\s{1,60}(\S{1,80}))?"
)
_CONDA_ROW = re.compile(
    r"\s{0,8}([a-z0-9_][\w.-]{0,80})\s{1,60}(\d[\w.+!-]{0,60})\s{1,60}(\S{1,80})(?:\s{1,40}\S{1,60})?\s{0,10}$"
)
_INSTALLED = re.compile(r"([A-Za-z0-9][\w.]{0,60}(?:-[A-Za-z_][\w.]{0,40}){0,6})-(\d[\w.+!]{0,40})")
_CONFLICT = re.compile(
    r"(?P<package>[A-Za-z0-9][\w.-]{1,60}) (?P<version>\d[\w.+]{0,40}) requires "
    r"(?P<asked>[A-Za-z0-9][\w.\[\]-]{1,60} ?(?:[<>=!~][^;\n]{1,100}?)?)(?:; [^\n]{1,100}?)?, "
    r"(?:but you(?:'ll)? have (?P<name>[\w.-]{2,60}) (?P<have>\d[\w.+]{0,40}) which is incompatible"
    r"|which is not installed)"
)
# The same as people shorten it: without pip's verdict at the end, or alone in its line without what is there.
_BOUND = r"[<>=!~]{1,3} ?\d[\w.+*!]{0,20}"
_ASKS = (
    r"(?P<package>[A-Za-z0-9][\w.-]{1,60}) (?P<version>\d[\w.+]{0,40}) requires "
    rf"(?P<asked>[A-Za-z0-9][\w.\[\]-]{{1,60}} ?{_BOUND}(?:, ?{_BOUND}){{0,3}})"
)
_CONFLICT_TOLD = re.compile(
    rf"{_ASKS},? (?:but|and|found|while|yet) (?:you(?:'ll)? have |have |got |found )?"
    r"(?P<name>[A-Za-z][\w.-]{1,60}) (?:version )?(?P<have>\d[\w.+]{0,40}(?<!\.))"
)
_CONFLICT_ALONE = re.compile(rf"(?:ERROR: )?{_ASKS}\.?(?P<name>)(?P<have>)")
_DIST_INFO = re.compile(r"[\s*•-]{0,6}([A-Za-z0-9][\w.]{0,60})-(\d[\w.+!]{0,40})\.dist-info[/\\]?\s{0,4}")


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the packages that any list names."""
    mode = ""
    satisfied: list[tuple[str, str]] = []
    fetched: dict[str, str] = {}
    for index, line in enumerate(lines):
        text = line.strip()
        if not text:
            # One blank line inside a list is often an artefact of pasting; two end it.
            mode = mode if mode and index + 1 < len(lines) and lines[index + 1].strip() else ""
            continue
        mode = _mode(text, mode, draft)
        if " requires " in text and _conflict(text[:600], draft):
            continue
        if text.endswith(".dist-info"):
            installed = _DIST_INFO.fullmatch(line)
            if installed:
                draft.package(installed[1], installed[2], "named")
        elif text.startswith("Name: "):
            _shown(lines[index : index + _SHOWN_LINES], draft)
        elif text.startswith("Collecting torch") and "==" in text:
            _collected(text, draft)
        elif "==" in text:
            _pin(line, draft)
        elif text.startswith("[conda]"):
            _conda(_CONDA_TAGGED.match(line), draft, "[conda]")
        elif mode == "conda":
            _conda(_CONDA_ROW.match(line), draft, "conda list")
        elif text.startswith("Requirement already satisfied: "):
            satisfied += _SATISFIED.findall(text[:600])
        elif text.startswith("Downloading ") and (wheel := _DOWNLOADED.match(text)):
            fetched[normalize(wheel[1])] = wheel[2]
        elif text.startswith("Successfully installed"):
            draft.saw("pip install")
            for name, version in _INSTALLED.findall(text[:4000]):
                draft.package(name, version, "pip install")
        elif text.startswith("cudatoolkit ") and _CONDA_ROW.match(line):
            _conda(_CONDA_ROW.match(line), draft, "conda list")
        elif text.startswith(("pytorch", "libtorch")) and _CONDA_BARE.match(line):
            _conda(_CONDA_BARE.match(line), draft, "conda list")
        elif " - " in text or " – " in text:
            _row(_TOLD_ROW.sub(r"\1 \2", line), draft, mode)
        elif "  " in text or mode == "pip" or text.count(" ") == 1 or text.startswith(("- ", "* ")):
            _row(line, draft, mode)
        elif "-" in text and " " not in text:
            _dashed(line, draft)
    for name, version in satisfied:  # what was installed after that, or is fetched for an upgrade, counts before it
        draft.package(name, fetched.get(normalize(name), version), "pip install")


# What pip show tells of a package, one fact a line; of its requirements only those for this system.
_SHOWN = re.compile(
    r"\s{0,8}Name: (?P<name>[A-Za-z0-9][\w.-]{0,60})\n\s{0,8}Version: (?P<version>\d[\w.+!-]{0,40})\s{0,4}\n"
)
_SHOWN_LINES = 14


def _shown(lines: Sequence[str], draft: Draft) -> None:
    """A package as pip show tells of it; torch's requirements tell that it is the build for NVIDIA's GPUs on Linux."""
    match = _SHOWN.match("\n".join(line[:2000] for line in lines) + "\n")
    if match is None:
        return
    draft.saw("pip list")
    draft.package(match["name"], match["version"], "pip show")
    requires = next((line for line in lines if line.strip().startswith("Requires: ")), "")
    if normalize(match["name"]) == "torch" and "nvidia-cublas-cu" in requires:
        draft.put(draft.platform, system="Linux", machine="x86_64")


_SATISFIED = re.compile(
    r"Requirement already satisfied: ([A-Za-z0-9][\w.-]{0,60}?)(?:\[[\w,-]{0,60}\])?(?:[<>=!~][^\s]{0,80})? in "
    r".{1,300}\((\d[\w.+!]{0,40})\)$"
)
_DOWNLOADED = re.compile(r"Downloading (?:https?://\S{1,200}/)?([A-Za-z0-9][\w.]{0,60})-(\d[\w.+!]{0,40})-(?:py|cp)\d")
_COLLECTED = re.compile(r"Collecting (torchvision|torchaudio)==(\d[\w.+]{0,20})$")


def _collected(text: str, draft: Draft) -> None:
    """A companion of torch that pip fetches with it, so that both are replaced together."""
    match = _COLLECTED.match(text)
    if match:
        draft.package(match[1], match[2], "pip install")


def _mode(text: str, mode: str, draft: Draft) -> str:
    if re.match(r"Package\s{1,80}Version", text):
        draft.saw("pip list")
        return "pip"
    if text.startswith("# packages in environment at") or re.match(r"#\s{0,4}Name\s{1,60}Version\s{1,60}Build", text):
        draft.saw("conda list")
        return "conda"
    if "uv pip list" in text or "uv pip freeze" in text:
        draft.saw("uv pip list")
    return mode


def _pin(line: str, draft: Draft) -> None:
    # People write blanks around it too; so does code, of names that are no packages.
    match = _PIN.match(line) or _SPACED_PIN.match(line)
    if match and (match.re is _PIN or normalize(match[2]) in NAMED or normalize(match[2]) == "torch"):
        draft.saw("collect_env" if match[1] else "pip freeze")
        draft.package(match[2], match[3], f"[{match[1]}]" if match[1] else "freeze")


def _row(line: str, draft: Draft, mode: str) -> None:
    match = _ROW.match(line)
    if match and match[1].lower() == "pytorch":
        draft.put(draft.torch, version=match[2], installed=True)
        draft.package("torch", match[2], "named")
        return
    # Without the table's heading only packages that we know are taken, for prose has numbers too.
    if match and (mode == "pip" or normalize(match[1]) in NAMED or match[1].startswith("nvidia-")):
        draft.saw("pip list")
        draft.package(match[1], match[2], "pip list")


def _dashed(line: str, draft: Draft) -> None:
    match = _DASHED.fullmatch(line)
    if match and normalize(match[1]) in NAMED:
        draft.package(match[1], match[2], "named")


def _conda(match: object, draft: Draft, source: str) -> None:
    if not isinstance(match, re.Match):
        return
    name, version, build = match[1], match[2], match[3] or ""
    if not build.startswith("pypi"):
        draft.put(draft.python, kind="conda")
        draft.conda.add(normalize(name))
    if name in ("pytorch", "pytorch-gpu", "pytorch-cpu") and build != "pypi_0":
        draft.package("torch", version, source)
        draft.conda.add("torch")
        _conda_build(build, draft, version)
    draft.package(name, version, source)


def _conda_build(build: str, draft: Draft, version: str) -> None:
    cuda = re.search(r"cuda_?(\d{2})\.?(\d)", build)
    python = re.match(r"py(3\.\d{1,2})_", build)
    draft.put(draft.torch, version=version, installed=True)
    draft.put(draft.python, version=python[1] if python else None)
    if cuda:
        draft.put(draft.torch, cuda=f"{cuda[1]}.{cuda[2]}", build="cuda")
    elif "cpu" in build:
        draft.put(draft.torch, build="cpu")


def _conflict(text: str, draft: Draft) -> bool:
    """Take a requirement that is not met; whether the line is about one."""
    match = _CONFLICT.search(text) or _CONFLICT_TOLD.search(text) or _CONFLICT_ALONE.fullmatch(text)
    if match is None:
        return "incompatible" in text or "not installed" in text
    if len(draft.conflicts) < 50:
        asker, have = normalize(match["package"]), match["have"] or None
        draft.conflicts.append(Conflict(asker, match["version"], match["asked"].strip(), have))
        if have:
            draft.package(match["name"], have, "pip")
        draft.package(asker, match["version"], "pip")
    return True
