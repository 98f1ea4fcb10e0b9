"""Rules about flash-attn: built for one torch, CUDA, Python and C++ ABI."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, MODEL_BENCHES, PASSED, Result, Rule, cuda_major, evidence, seen
from workbench.doctor.rules.fetched_wheels import ready_wheels, without_nvcc
from workbench.doctor.tables import build_of
from workbench.doctor.versions import at_least, minor_name, older, release_of


def flash_attn_mismatch(facts: Facts) -> Result:
    """flash-attn was built for another torch."""
    absent = _without_its_part(facts)
    error = facts.error("flash-attn-symbol") or absent
    step = facts.probe("flash-attn")
    version, torch = facts.package("flash-attn"), facts.torch.version
    built = re.search(r"torch(\d{1,2}\.\d{1,2})", version or "")
    differs = bool(built and torch and built[1] != minor_name(torch))
    failed = step is not None and step.status in ("failed", "crashed", "timeout")
    if error is None and step is None and built is None:
        return None
    if error is None and not failed and not differs:
        return PASSED
    release = minor_name(torch)
    third = error is not None and "flash_attn_3" in error.text
    return [
        Finding(
            "flash-attn-built-for-other-torch",
            "error",
            "flash-attn is here without its compiled part"
            if absent is not None and absent is error
            else f"flash-attn{' 3' if third else ''} was compiled for another torch",
            "Its extension looks for C++ symbols that this torch does not have: another torch minor, another C++ "
            "ABI (wheels "
            "changed theirs with torch 2.7), or another CUDA major.",
            {
                **evidence(
                    flash_attn=version,
                    torch__version=torch,
                    cxx11_abi=facts.torch.cxx11_abi,
                    detail=step.detail[:200] if step else None,
                ),
                **seen(error),
            },
            _flash_attn_3(facts)
            if third
            else (
                fixes.uninstall(facts, "flash-attn"),
                *flash_attn_wheel(facts, release),
                "or do without: attn_implementation='sdpa'",
            ),
            ISSUES + "Dao-AILab/flash-attention/issues/853",
            affects=MODEL_BENCHES,
            observed=error is not None or failed,
        )
    ]


def _without_its_part(facts: Facts) -> Optional[ErrorFact]:
    """Its Python files alone, as a setup leaves them that skipped the build and found no wheel."""
    error = facts.error("extension-absent")
    return error if error is not None and "'flash_attn_2_cuda'" in error.text else None


def _flash_attn_3(facts: Facts) -> tuple[str, ...]:
    """It is a package of its own, for Hopper, compiled from the folder hopper of the same repository."""
    return (
        fixes.uninstall(facts, "flash_attn_3")
        + "   # for Hopper cards alone; programs take flash-attn 2 or torch's own "
        "attention where it is missing",
        "or compile it against the torch that is here, with its nvcc: git clone "
        "https://github.com/Dao-AILab/flash-attention && cd flash-attention/hopper && "
        "python -m pip install --no-build-isolation --no-cache-dir .",
        "or upgrade torch to the release that it was compiled for: its symbols aoti_torch_… came with torch 2.9",
    )


def flash_attn_wheel(facts: Facts, torch: Optional[str]) -> tuple[str, ...]:
    if fixes.on_windows(facts):
        url = ready_wheels(facts, build_of("flash-attn"))
        return (
            f"Install a wheel that others made, for exactly this torch, CUDA and Python: {url}   # by its address: "
            "python -m pip install --no-deps <address of the .whl>; the project itself makes none for Windows",
        )
    of_image = (facts.platform.image or "").startswith("nvcr.io/nvidia/pytorch")
    if of_image or (facts.torch.version and not torch_builds.is_published(facts.torch.version)):
        return _flash_attn_compiled(facts)  # no wheel is made for a vendor's own build
    wanted = ", ".join(
        filter(
            None,
            (
                f"torch{torch}" if torch else "your torch",
                _flash_attn_cuda(facts) or "your CUDA major",
                _python_tag(facts) or "your Python",
                _abi(facts),
            ),
        )
    )
    return (
        *without_nvcc(facts, "flash-attn"),
        f"{'or by hand: install' if facts.torch.build in (None, 'cuda') else 'Install'} the wheel for {wanted} from "
        "https://github.com/Dao-AILab/flash-attention/releases",
        *_flash_attn_compiled(facts),
    )


def _abi(facts: Facts) -> Optional[str]:
    """The C++ ABI of the torch that is here, as the wheels' names tell it.

    Every torch has c10::Error, in one ABI: the extension that misses it was compiled for the other. Else the wheels of
    torch changed theirs with 2.7 (https://github.com/pytorch/pytorch/issues/149044), of 2.6 only some had.
    """
    error = facts.error("flash-attn-symbol")
    missed = re.search(r"_ZN3c105ErrorC[12]E\w*?(?:(?P<new>__cxx11)|Ss)", error.text if error else "")
    known = facts.torch.cxx11_abi
    if missed:
        known = not missed["new"]
    elif known is None and facts.torch.version and torch_builds.is_published(facts.torch.version):
        known = True if at_least(facts.torch.version, "2.7") else False if older(facts.torch.version, "2.6") else None
    return None if known is None else f"cxx11abi{str(known).upper()}"


def _flash_attn_compiled(facts: Facts) -> tuple[str, ...]:
    """Without the variable its setup fetches a ready-made wheel, the one that does not fit."""
    return (
        fixes.export(
            facts, "FLASH_ATTENTION_FORCE_BUILD", "TRUE", "or compile it, with nvcc: else pip fetches a wheel"
        ),
        fixes.install(facts, "flash-attn", options="--no-build-isolation --no-cache-dir"),
    )


def _flash_attn_cuda(facts: Facts) -> Optional[str]:
    """The CUDA in the name of a release's wheel: cu118 as a whole, from 12 on the major alone."""
    major = cuda_major(facts)
    return None if major is None else "cu118" if major == 11 else f"cu{major}"


def _python_tag(facts: Facts) -> Optional[str]:
    numbers = release_of(facts.python.version)
    return f"cp{numbers[0]}{numbers[1]}" if numbers else None


RULES: tuple[Rule, ...] = (flash_attn_mismatch,)
