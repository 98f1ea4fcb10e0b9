"""Rules about bitsandbytes as a whole: missing, not usable, or not for what is asked of it."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts, ProbeStep
from workbench.doctor.findings import Finding
from workbench.doctor.rules.bnb_library import (
    BNB,
    QUANTIZED,
    fitting_release,
    is_installed,
    leave_checkout,
    upgrade,
)
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, capabilities, cuda_works, evidence, seen
from workbench.doctor.tables import newer_than_table
from workbench.doctor.versions import at_least, older

_NOT_LOADED = "bitsandbytes does not load its GPU library"


def missing(facts: Facts) -> Result:
    """bitsandbytes is not installed."""
    error = facts.error("bnb-required")
    absent = facts.bitsandbytes.installed is False or facts.lacks("bitsandbytes")
    if error is None and not absent:
        return None if is_installed(facts) is None else PASSED
    if is_installed(facts) and error is not None and not absent:
        return _stale(facts, error)
    # Somebody who pasted a report without any trouble of this kind did not ask for it.
    if error is None and facts.origin != "live":
        return PASSED
    if error is not None and not absent and facts.platform.system == "Darwin":
        return PASSED  # what pip has for Macs is judged by itself
    # Only an import, or a look at what is installed, tells that it is not there; transformers says the same of one
    # that is too old, and some of its releases say so whenever torch has no GPU.
    certain = absent or error is None or "o module named" in error.text or "metadata was found" in error.text
    return [_absent(facts, error) if certain else _unusable(facts, error)]


def _absent(facts: Facts, error: Optional[ErrorFact]) -> Finding:
    return Finding(
        "bitsandbytes-missing",
        "error" if error else "warning",
        "bitsandbytes is not installed: no 4-bit or 8-bit loading",
        "int8, NF4 and FP4 are done by bitsandbytes; full-precision models load without it.",
        {**evidence(interpreter=facts.python.executable), **seen(error)},
        (*fixes.preparation(facts), fixes.install(facts, fitting_release(facts))),
        BNB,
        affects=QUANTIZED,
        observed=True,
    )


def _unusable(facts: Facts, error: Optional[ErrorFact]) -> Finding:
    """Missing or too old, and a paste that does not tell which."""
    look = "import torch; print(torch.cuda.is_available())"
    return Finding(
        "bitsandbytes-missing",
        "error",
        "transformers finds no bitsandbytes that it can use: it is missing or too old",
        "It says the same in both cases, and with transformers 4.32 to 4.42, or bitsandbytes before 0.43.1, also where "
        "torch sees no GPU.",
        {**evidence(transformers=facts.package("transformers")), **seen(error)},
        (
            *fixes.preparation(facts),
            upgrade(facts),
            f'{fixes.python_command(facts)} -c "{look}"   # False: mend that first',
            "Restart the notebook kernel or the program: it looks only once.",
        ),
        ISSUES + "huggingface/transformers/issues/24539",
        affects=QUANTIZED,
        observed=True,
    )


def _stale(facts: Facts, error: ErrorFact) -> Result:
    if "latest version" not in error.text and "pgrade your" not in error.text and "install -U" not in error.text:
        return PASSED
    old = older(facts.bitsandbytes.version, "0.43.1")
    return [
        Finding(
            "bitsandbytes-too-old",
            "error",
            f"bitsandbytes {facts.bitsandbytes.version} is too old for this transformers"
            if facts.bitsandbytes.version and not _blames_gpu(facts)
            else "transformers asks for a newer bitsandbytes, or CUDA is not there",
            "transformers 4.32 to 4.42 say the same whenever torch has no CUDA, later ones do so for bitsandbytes "
            "before 0.43.1, which needs it to be imported."
            if old or _blames_gpu(facts)
            else "Each transformers names the oldest bitsandbytes that it takes; transformers 5 wants 0.46.1.",
            {
                **evidence(bitsandbytes=facts.bitsandbytes.version, transformers=facts.package("transformers")),
                **seen(error),
            },
            (upgrade(facts),),
            ISSUES + "huggingface/transformers/issues/24539",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def _blames_gpu(facts: Facts) -> bool:
    """Whether this transformers may mean the GPU by it; 4.43 is the first that does not for newer bitsandbytes."""
    return not cuda_works(facts) and not at_least(facts.package("transformers"), "4.43")


def int8_old_gpu(facts: Facts) -> Result:
    """LLM.int8() has its fast path from 7.5 on only."""
    error = facts.error("bnb-slow-int8", "bnb-cublaslt", "bnb-int8-loss")
    old = [(gpu, capability) for gpu, capability in capabilities(facts) if older(capability, "7.5")]
    if error is None and not capabilities(facts):
        return None
    if not is_installed(facts) and error is None:
        return PASSED
    if error is None and not old:
        return PASSED
    fails = error is not None and error.id != "bnb-slow-int8"
    if error is not None and error.id == "bnb-cublaslt" and not old:
        return [_int8_fails(facts, error)]
    return [
        Finding(
            "bnb-int8-old-gpu",
            "error" if fails else "info",
            "int8 gives wrong numbers here: this GPU is below compute capability 7.5"
            if error is not None and error.id == "bnb-int8-loss"
            else "int8 is slow or fails on GPUs below compute capability 7.5",
            "The fast path of LLM.int8() needs int8 tensor cores; without them values overflow in float16, so that a "
            "loss becomes 0 or nan. NF4 works from 6.0 on.",
            {
                **evidence(gpu=old[0][0].name if old else None, compute_capability=old[0][1] if old else None),
                **seen(error),
            },
            (
                *_slow_but_working(facts, error),
                "Load in 4 bits (NF4) in place of int8: load_in_4bit=True, with float16 to compute in; bitsandbytes "
                "from 0.39 on",
            ),
            BNB + "issues/529",
            affects=QUANTIZED,
            observed=error is not None,
        )
    ]


def _slow_but_working(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """From 0.37 on what the tensor cores cannot do is computed in 16 bits; wheels have had no code for Maxwell since
    0.47: https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.45.0/CHANGELOG.md."""
    if error is None or error.id != "bnb-cublaslt":
        return ()
    maxwell = any(older(capability, "6.0") for _, capability in capabilities(facts))
    step = fixes.install(facts, "bitsandbytes<0.47", upgrade=True) if maxwell else upgrade(facts)
    return (*leave_checkout(facts), f"{step}   # newer ones compute it in 16 bits on such cards, slowly; or:")


def _int8_fails(facts: Facts, error: Optional[ErrorFact]) -> Finding:
    """The multiplication of int8 is refused, by a GPU that is not known to be too old for it."""
    return Finding(
        "bnb-int8-fails",
        "error",
        "bitsandbytes' multiplication of int8 fails on this GPU, or with what is left of its memory",
        "Releases before 0.45 used layouts of cuBLASLt that Hopper and newer GPUs do not have and that older ones than "
        "7.5 never had; the same message comes where the model does not fit beside what else is on the GPU.",
        {**evidence(bitsandbytes=facts.bitsandbytes.version), **seen(error)},
        (
            fixes.install(facts, "bitsandbytes>=0.45", upgrade=True),
            "or 4 bits in place of int8, which every GPU from 6.0 on has: load_in_4bit=True (LLaMA-Factory: "
            "quantization_bit: 4)",
            "nvidia-smi   # is memory left? else all layers on one GPU: device_map={'': 0}",
        ),
        BNB + "issues/538",
        affects=QUANTIZED,
        observed=True,
    )


def triton_ops(facts: Facts) -> Result:
    """bitsandbytes before 0.45 imports a module that triton 3 no longer has."""
    error = facts.error("triton-ops")
    version, triton = facts.bitsandbytes.version, facts.package("triton")
    if error is None and (version is None or triton is None):
        return None
    if error is None and not (older(version, "0.45.0") and at_least(version, "0.40.0") and at_least(triton, "3.0")):
        return PASSED
    return [
        Finding(
            "bnb-too-old-for-triton",
            "error" if error else "warning",
            f"bitsandbytes {version or ''} is too old for triton {triton or '3'}".replace("  ", " "),
            "It imports triton.ops, which triton 3 (torch 2.4 and newer) no longer has.",
            {**evidence(bitsandbytes=version, triton=triton), **seen(error)},
            (*leave_checkout(facts), upgrade(facts)),
            BNB + "issues/1492",
            affects=QUANTIZED,
            observed=error is not None,
        )
    ]


def unusable(facts: Facts) -> Result:
    """bitsandbytes does not work and nothing more precise is known; most often CUDA itself is the cause."""
    error = facts.error(
        "bnb-setup-failed", "bnb-no-gpu-support", "bnb-str2optimizer", "bnb-no-device", "bnb-required-cpu"
    )
    step = facts.probe("bitsandbytes")
    failed = step is not None and step.status in ("failed", "crashed", "timeout")
    if error is None and step is None:
        return None
    if error is None and not failed:
        return PASSED
    if facts.bitsandbytes.works:
        return PASSED
    loaded = facts.probe("self-test load-4bit")
    if loaded is not None and loaded.status == "passed" and step is not None:
        return [_works_without_library(facts, step, loaded)]
    detail = step.detail.strip().splitlines()[0][:200] if step and step.detail.strip() else None
    version = facts.bitsandbytes.version
    newer = " This release is newer than the tables." if newer_than_table("bitsandbytes", version) else ""
    no_gpu = cuda_works(facts) is False
    return [
        Finding(
            "bitsandbytes-unusable",
            "warning" if _went_on(facts, error) else "error",
            ("Quantization wants a GPU, and torch sees none" if error.id == "bnb-no-device" else _NOT_LOADED)
            if error
            else f"bitsandbytes fails: {detail or (step and step.status)}",
            (
                "It takes the GPU library only when torch sees a GPU."
                if no_gpu or (error is not None and error.id == "bnb-no-device")
                else "Its native library did not load or has no code for this device."
            )
            + newer,
            {
                **evidence(
                    bitsandbytes=version,
                    torch__version=facts.torch.version,
                    library=facts.bitsandbytes.library,
                    detail=detail,
                ),
                **seen(error),
            },
            _when_not_loaded(facts, no_gpu),
            BNB + "issues/631",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def _went_on(facts: Facts, error: Optional[ErrorFact]) -> bool:
    """Whether bitsandbytes only warned as it was imported, and the program ended at another import after that."""
    ended = facts.error("library-import")
    warned = error is not None and error.id in ("bnb-no-gpu-support", "bnb-str2optimizer") and "Error" not in error.text
    return warned and ended is not None and error is not None and ended.line > error.line


def _when_not_loaded(facts: Facts, no_gpu: bool) -> tuple[str, ...]:
    """An upgrade comes first where the release may be one that guesses where CUDA is, or a checkout is what runs."""
    checks = (
        f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.is_available())"',
        f"{fixes.python_command(facts)} -m bitsandbytes   # its own diagnosis",
    )
    if no_gpu:
        return checks
    left = leave_checkout(facts)
    told = at_least(facts.bitsandbytes.version, "0.43.0")
    return (*checks, upgrade(facts)) if told and not left else (*left, upgrade(facts), *checks)


def _works_without_library(facts: Facts, step: ProbeStep, loaded: ProbeStep) -> Finding:
    return Finding(
        "bitsandbytes-unusable",
        "warning",
        "bitsandbytes' native library does not load; 4 bits still work, by PyTorch's own operations",
        "The self-test loaded a model in 4 bits and ran it, so quantization works here. Without the native library it "
        "is slow, and 8-bit optimizers are not there.",
        evidence(
            bitsandbytes=facts.bitsandbytes.version,
            detail=step.detail.strip()[:300],
            self_test=loaded.detail[:200],
        ),
        (upgrade(facts), f"{fixes.python_command(facts)} -m bitsandbytes   # its own diagnosis"),
        BNB + "issues/631",
        affects=QUANTIZED,
        observed=True,
    )


RULES: tuple[Rule, ...] = (
    triton_ops,
    missing,
    unusable,
    int8_old_gpu,
)
