"""What is asked last, of an error that none of the other rules has explained. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, evidence, gpu_names, seen
from workbench.doctor.rules.guess import guessed_error
from workbench.doctor.rules.libraries import library_error
from workbench.doctor.rules.pairs import declared
from workbench.doctor.rules.plain import symptoms, weak_messages
from workbench.doctor.rules.unknown.likely import likely_apart
from workbench.doctor.rules.unknown.names import import_cut
from workbench.doctor.rules.unknown.own_modules import own_module
from workbench.doctor.rules.unknown.packages import callers_of


def unexplained(facts: Facts, findings: Iterable[Finding]) -> list[Finding]:
    """What can be said of an error that `findings` do not explain; and that a healthy verdict cannot be given."""
    findings = list(findings)
    if any(finding.severity == "error" and finding.observed for finding in findings):
        return []
    broken_off = facts.error("import-cut")
    apart = import_cut(facts, broken_off) if broken_off else None
    if apart is not None:
        return [apart]
    cut = facts.error("traceback-cut")
    if cut is not None:
        return [] if any(finding.severity == "error" for finding in findings) else symptoms(facts) or [_cut(cut)]
    weak = weak_messages(facts)
    error = facts.error("unknown-error")
    if weak and error is None:
        return weak
    error = error or facts.error("extension-symbol")
    if facts.error("launched-program-failed") and error is not None and "CalledProcessError" not in error.text:
        weak = [finding for finding in weak if finding.id != "cause-stands-above"]  # what stands above is there
    own = own_module(facts, error) if error else None
    guessed = [own] if own else library_error(facts, error) if error else None
    # A message that a rule knows, and that no rule found to fit here, still says something in its own words.
    error = error or _failure(facts)
    guessed = guessed or (guessed_error(facts, error) if error else None)
    if guessed or weak:
        return guessed or weak
    declares = declared(facts, error) if facts.origin == "report" and error else None
    if declares is not None:
        return [declares]
    if any(finding.severity != "info" for finding in findings):
        return []
    told = symptoms(facts)
    if told:
        return told
    likely = likely_apart(facts, error) if error is not None else None
    if likely is not None:
        return [likely]
    if error is not None:
        return [_unrecognised(error)]
    declares = declared(facts) if facts.origin == "report" else None
    if declares is not None:
        return [declares]
    return _cuda_unavailable(facts)


# Words of a known message that tell of a failure, where no rule found that it fits the rest of a paste.
_FAILED = re.compile(r"\b\w{0,40}Error: |ould not load |cannot open shared object|[Ff]ailed to initialize|\bfatal: ")
_NO_MORE_THAN_A_WARNING = re.compile(
    r"[Ww]arning|\bWARN\b|\bW\d? |ignore|harmless|cuInit|ldconfig|Could not set the permissions on", re.IGNORECASE
)


def _failure(facts: Facts) -> Optional[ErrorFact]:
    """A message of a paste that tells of a failure; what a program went on after is none."""
    if facts.origin != "report":
        return None
    told = (error for error in facts.errors if _FAILED.search(error.text))
    return next((error for error in told if not _NO_MORE_THAN_A_WARNING.search(error.text)), None)


# A sentence in which a library tells its user what to do.
_TELLS_TO = re.compile(
    r"(?:^|[.:;!,\n]\s?|\()((?:[Pp]lease|[Yy]ou (?:need|must|should|have to|can|may)|[Mm]ake sure|[Tt]ry|[Cc]onsider"
    r"|[Uu]se|[Ss]et|[Ii]nstall|[Uu]pgrade|[Uu]pdate|[Rr]un|[Ee]nsure|[Dd]owngrade|[Rr]emove|[Dd]isable|[Ee]nable)\b[^\n]{8,240}?)"
    r"(?:[.!](?=\s|$)|\)(?=[\s.]|$)|$)",
    re.M,
)


def _unrecognised(error: ErrorFact) -> Finding:
    package = next(filter(None, callers_of(error)), "")
    where = package or "the package that the traceback ends in"
    told = _TELLS_TO.search(error.text.partition(": ")[2])
    return Finding(
        "unrecognised-error",
        "warning",
        "Could not be judged: the report holds an error that is not known here",
        "No rule explains it, so nothing is said about its cause."
        + (f" It was raised in {package}." if package else "")
        # No step of the fix: those are copied into a shell, and this is anybody's text.
        + (f" The message itself asks: {told[1].strip()}." if told else ""),
        {**evidence(raised_in=package), **seen(error)},
        (f"Search the message in the issues of {where}.",),
        ISSUES + "search?type=issues",
        observed=True,
    )


def _cut(error: ErrorFact) -> Finding:
    packages = [name for name in callers_of(error) if name]
    return Finding(
        "traceback-cut",
        "warning",
        "Could not be judged: the traceback breaks off before the line that names the error",
        "The last line of a traceback says what failed."
        + (f" This one goes through {', '.join(packages[:4])}." if packages else ""),
        seen(error),
        ("Paste the report again with everything down to the last line of the traceback, and with pip list.",),
        "https://docs.python.org/3/tutorial/errors.html",
        observed=True,
    )


def _cuda_unavailable(facts: Facts) -> list[Finding]:
    """A CUDA build that sees no GPU, where nothing in a paste tells why."""
    torch = facts.torch
    if facts.origin != "report" or torch.build != "cuda" or torch.cuda_available is not False:
        return []
    if facts.has_nvidia() is False or _no_gpu_expected(facts):
        return []
    return [
        Finding(
            "cuda-unavailable-unexplained",
            "warning",
            "Could not be judged: CUDA is not available to this torch, and the report does not tell why",
            "The build is one for CUDA. Either the machine has no NVIDIA GPU, or its driver does not answer, or the "
            "process may not see it.",
            evidence(torch__version=torch.version, torch__cuda=torch.cuda, gpu=gpu_names(facts)),
            (
                "nvidia-smi   # does the driver answer?",
                'python -c "import torch; torch.zeros(1).cuda()"   # its message names the cause',
            ),
            "https://docs.pytorch.org/docs/stable/generated/torch.cuda.is_available.html",
        )
    ]


def _no_gpu_expected(facts: Facts) -> Optional[bool]:
    return facts.platform.system == "Darwin" or (facts.gpus == () and facts.driver.version is None)
