"""Rules about xformers: built for one release of torch and one Python."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.tables import WHEELS, companion, companion_of, newest_python, variant_of
from workbench.doctor.versions import at_least, minor_name, release_of, satisfies


def xformers_mismatch(facts: Facts) -> Result:
    """xformers belongs to another torch."""
    error = facts.error("xformers-extensions")
    version, torch = facts.package("xformers"), facts.torch.version
    pair = companion("xformers", version)
    if error is None and (pair is None or torch is None):
        return None
    built = error.values.get("built") if error else None
    wanted = built or (pair[0] if pair else None)
    other_python = _built_for_other_python(facts, error)
    if other_python is not None:
        return [other_python]
    if error is None and (
        satisfies(torch, wanted) if wanted and wanted.startswith(">") else release_of(torch, 3) == release_of(wanted, 3)
    ):
        return PASSED
    return [
        Finding(
            "xformers-torch-mismatch",
            "error" if facts.error("attention-kernel-missing") else "warning",
            "xformers has no kernels for a Mac: its extensions are compiled for CUDA"
            if facts.platform.system == "Darwin"
            else f"xformers {version or ''} was built for torch {wanted or 'of another version'}".replace("  ", " ")
            + (f", not {torch}" if torch else ""),
            "Its CUDA extensions do not load. Installing it through pip may silently replace torch by the one it pins.",
            {**evidence(xformers=version, torch__version=torch, needs=wanted), **seen(error)},
            (
                *_xformers_or_none(facts),
                *(
                    ()
                    if torch
                    else (
                        "or, to keep it, the one for this very torch: "
                        + fixes.install(
                            facts, "xformers", options="-U --index-url " + WHEELS + "/<the cuXXX of torch>"
                        ),
                    )
                ),
            ),
            ISSUES + "facebookresearch/xformers/issues/1275",
            affects=("chat",),
            observed=error is not None,
        )
    ]


def _built_for_other_python(facts: Facts, error: Optional[ErrorFact]) -> Optional[Finding]:
    """An xformers whose torch is the right one, and whose Python is not."""
    values = error.values if error else {}
    built, have = values.get("built"), values.get("have")
    if error is None or not built or built != have or not values.get("python") or values["python"] == values["runs"]:
        return None
    tag = f"cp{values['runs'].replace('.', '')}"
    return Finding(
        "xformers-torch-mismatch",
        "warning",
        f"xformers was built for Python {values['python']}, and this is {values['runs']}",
        "A compiled module fits the Python that it was built with; its torch is the right one.",
        {**evidence(xformers=facts.package("xformers"), torch__version=have), **seen(error)},
        (
            fixes.uninstall(facts, "xformers") + "   # SDPA in torch does the same work",
            f"or a wheel of it for {tag} and this torch from where the torch came from, with --no-deps",
            "or compile it against the torch that is here: "
            + fixes.install(facts, "xformers", options="--no-deps --no-build-isolation --no-binary xformers"),
        ),
        ISSUES + "facebookresearch/xformers",
        affects=("chat",),
        observed=True,
    )


def _xformers_for_torch(facts: Facts) -> tuple[str, ...]:
    version = companion_of("xformers", facts.torch.version)
    variant = variant_of(facts.torch.cuda) if facts.torch.build == "cuda" else None
    if version is None or variant is None or not torch_builds.is_published(facts.torch.version):
        return ()
    last, python = newest_python("xformers", version), minor_name(facts.python.version)
    if last and python != last and at_least(python, last):
        return ()
    # Its builds by CUDA version stand on torch's index from 0.0.22 on, older ones on the package index alone.
    options = "--no-deps" + (f" --index-url {WHEELS}/{variant}" if at_least(version, "0.0.22") else "")
    return (fixes.install(facts, f"xformers=={version}", options=options),)


def _xformers_or_none(facts: Facts) -> tuple[str, ...]:
    """The one for this torch, where there is one: some programs run on it alone, such as vLLM before 0.5."""
    exact = _xformers_for_torch(facts)
    without = fixes.uninstall(facts, "xformers") + "   # SDPA in torch does the same work"
    return (*exact, f"or without it, where the program can: {without}") if exact else (without,)


RULES: tuple[Rule, ...] = (xformers_mismatch,)
