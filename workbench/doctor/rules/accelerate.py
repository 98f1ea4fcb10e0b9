"""Rules about accelerate: missing, too old, or blamed for what a missing GPU did."""

from __future__ import annotations

import re

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.bnb_library import is_installed
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.tables import transformers_release
from workbench.doctor.versions import older


def accelerate(facts: Facts) -> Result:
    """accelerate is missing or too old."""
    error = facts.error("accelerate-required", "accelerate-name") or facts.error("accelerate-looked-for")
    version, found = facts.package("transformers"), facts.package("accelerate")
    row = transformers_release(version)
    too_old = bool(row and found and older(found, row["accelerate"]))
    absent = facts.lacks("accelerate")
    if error is None and not too_old and not absent:
        return None if found is None else PASSED
    if error is None and absent and (facts.origin != "live" or facts.lacks("transformers")):
        return PASSED
    named = error is not None and error.id == "accelerate-name"
    if error is not None and not named and facts.platform.system == "Darwin" and "load_in_" in error.text:
        return [_quantized_on_mac(facts, error)]
    if error is not None and found and not too_old and not named and older(version, "4.43"):
        return [_accelerate_red_herring(facts, error)]
    if error is not None and found and not too_old and not named:
        return [_restart(facts, error)]
    in_vain = facts.error("installed-in-vain") is not None and not absent and not too_old and not named
    if error is not None and in_vain and _names_both(facts):
        return [_one_of_three(facts, error)]
    minimum = row["accelerate"] if row and not (named and found and not too_old) else None
    asked = re.search(r"accelerate ?>= ?(\d[\d.]{0,8}\d)", error.text) if error else None
    floor = asked[1] if asked else minimum if too_old else None
    return [
        Finding(
            "accelerate-missing",
            "error" if error or too_old else "warning",
            f"accelerate {found} is too old"
            if found
            else "accelerate is not seen by the Python of this program: not there, too old, or not restarted since"
            if in_vain and not asked
            else f"accelerate is not there, or older than {asked[1]}, where this program runs"
            if asked
            else "accelerate is not installed: no device_map, no 4-bit loading",
            "transformers hands placing and quantized loading to accelerate."
            + (f" It wants {minimum} or newer." if minimum else ""),
            {**evidence(transformers=version, accelerate=found), **seen(error)},
            (
                fixes.lift(facts, f"accelerate>={floor}")
                if floor
                else fixes.install(facts, "accelerate", *_bitsandbytes_too(facts), upgrade=True),
                *(
                    (
                        f'{fixes.python_command(facts)} -c "import sys, accelerate; print(sys.executable, '
                        'accelerate.__version__)"   # with the Python that the program runs under: is it this one?',
                    )
                    if asked or in_vain
                    else ()
                ),
                "Restart the notebook kernel or the program afterwards.",
            ),
            ISSUES + "huggingface/transformers/issues/24539",
            affects=("chat", "vram"),
            observed=error is not None,
        )
    ]


def _names_both(facts: Facts) -> bool:
    """Whether transformers asks for accelerate and bitsandbytes in one breath, as its releases before 4.43 did."""
    return any("equires " in error.text and "latest version of bitsandbytes" in error.text for error in facts.errors)


def _bitsandbytes_too(facts: Facts) -> tuple[str, ...]:
    """What such a release may mean as well; in its time torch was 2.0 to 2.3, which newer ones would replace."""
    known = is_installed(facts) or facts.platform.system == "Darwin"
    return () if known or not _names_both(facts) else ("bitsandbytes>=0.43.1,<0.46",)


def _one_of_three(facts: Facts, error: ErrorFact) -> Finding:
    """Both packages are said to be there, so that it is the third thing which such a release means by it."""
    notebook = facts.platform.service in ("colab", "kaggle")
    look = f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.is_available())"'
    torch = fixes.reinstall_torch(facts, keep_release=False)
    restart = "Restart the notebook kernel or the program: what was installed since it started is not seen by it."
    gpu = (
        ("Runtime → Change runtime type: a GPU (T4), then run all cells again; without one it says the same",)
        if notebook
        else (f"{look}   # False: torch has no CUDA here, and that is what is meant; then:", *torch)
    )
    newer = fixes.install(facts, "transformers>=4.43,<5", "accelerate", *_bitsandbytes_too(facts))
    return Finding(
        "accelerate-message-without-cuda",
        "error",
        "transformers asks for accelerate and bitsandbytes, which are said to be here: torch has no CUDA, or the "
        "program was not restarted",
        "Releases from 4.32 to 4.42 say the same where torch sees no GPU, as after plain pip on Windows, and look only "
        "once, when they are imported.",
        {**evidence(transformers=facts.package("transformers"), system=facts.platform.system), **seen(error)},
        (
            *((restart, *gpu) if notebook else (*gpu, restart)),
            f"{newer}   # where it stays: newer ones name what is really missing",
        ),
        ISSUES + "huggingface/transformers/issues/24539",
        affects=("chat", "vram"),
        observed=True,
    )


def _quantized_on_mac(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "accelerate-message-without-cuda",
        "error",
        "A Mac has no CUDA, which loading in 4 or 8 bits asks for here",
        "The message names accelerate and bitsandbytes, but came also where torch saw no NVIDIA GPU; bitsandbytes has "
        "code for Apple's machines from 0.49 on.",
        {**evidence(transformers=facts.package("transformers"), system="macOS"), **seen(error)},
        (
            fixes.install(facts, "transformers", "accelerate", "bitsandbytes>=0.49", upgrade=True),
            "or load without load_in_8bit and load_in_4bit, on device 'mps'; or a GGUF file with llama.cpp",
        ),
        ISSUES + "bitsandbytes-foundation/bitsandbytes/issues/252",
        affects=("chat", "vram"),
        observed=True,
    )


def _accelerate_red_herring(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "accelerate-message-without-cuda",
        "error",
        "transformers asks for accelerate, but means that CUDA is missing",
        "Before 4.43 the message 'requires Accelerate' also came when torch saw no GPU; accelerate is installed here.",
        {**evidence(accelerate=facts.package("accelerate"), transformers=facts.package("transformers")), **seen(error)},
        (f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.is_available())"',),
        ISSUES + "huggingface/transformers/issues/24539",
        affects=("chat", "vram"),
        observed=True,
    )


def _restart(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "stale-notebook-kernel",
        "error",
        "accelerate is installed, but the running program does not see it",
        "It was installed after the program started, or into another environment.",
        {**evidence(accelerate=facts.package("accelerate")), **seen(error)},
        ("Restart the notebook kernel or the program.", f"{fixes.python_command(facts)} -m pip show accelerate"),
        ISSUES + "huggingface/transformers/issues/24539",
        affects=("chat", "vram"),
        observed=True,
    )


RULES: tuple[Rule, ...] = (accelerate,)
