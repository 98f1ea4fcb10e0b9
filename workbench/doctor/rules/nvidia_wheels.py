"""Rules about CUDA's libraries from wheels: mixed with one another or with the system's."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, MODEL_BENCHES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.versions import release_of

# A CUDA library in a folder of the system, not in one of Python's.
_OF_THE_SYSTEM = re.compile(
    r"(?<![\w/])/(?:usr|opt)/(?:(?!-packages|conda)[^\s:]){1,120}/lib(?:cudnn|cublas|nccl|nvJitLink)"
)


def nvidia_wheels(facts: Facts) -> Result:
    """The CUDA libraries that are loaded are not of one version."""
    error = facts.error("nvjitlink", "cudnn-mismatch")
    if error is not None and facts.error("bnb-missing-dependency") and "undefined symbol" not in error.text:
        error = facts.error("cudnn-mismatch")  # torch has its own, which bitsandbytes does not find
    path = facts.environment.get("LD_LIBRARY_PATH", "")
    shadow = [entry for entry in path.split(":") if re.search(r"/cuda|conda|/cudnn", entry) and "compat" not in entry]
    mismatch = _older_nvjitlink(facts)
    if error is None and not mismatch:
        # A toolkit on the path is common and mostly harmless; without trouble there is nothing to say.
        return PASSED if facts.packages or path else None
    older_cudnn = error is not None and bool(error.values.get("found"))
    # The wheel's library asks for a symbol of its neighbour, and the loader finds an older neighbour first.
    beside = error is not None and bool(error.values.get("older") or _OF_THE_SYSTEM.search(error.text))
    by_path = bool(shadow) or older_cudnn or beside
    return [
        Finding(
            "ld-library-path-shadows-nvidia-wheels" if by_path else "nvidia-wheel-version-mismatch",
            "error" if error else "warning",
            _mixed_title(error, by_path),
            "torch loads the CUDA libraries of its nvidia-* wheels as a set; one of another version in between has "
            "not the "
            "symbols that the others want.",
            {
                **evidence(
                    LD_LIBRARY_PATH=":".join(shadow) or None,
                    torch__cuda=facts.torch.cuda,
                    nvjitlink=facts.package("nvidia-nvjitlink-cu12") or facts.package("nvidia-nvjitlink"),
                    cusparse=facts.package("nvidia-cusparse-cu12") or facts.package("nvidia-cusparse"),
                ),
                **seen(error),
            },
            _one_cuda(facts, by_path),
            ISSUES + "pytorch/pytorch/issues/111469",
            affects=MODEL_BENCHES,
            observed=error is not None,
        )
    ]


_LIBRARIES = (("nccl", "NCCL"), ("cudnn", "cuDNN"), ("cublas", "cuBLAS"))


def _mixed_title(error: Optional[ErrorFact], by_path: bool) -> str:
    values = error.values if error else {}
    if values.get("found"):
        found, built = (values[name].replace(", ", ".") for name in ("found", "built"))
        return f"Another cuDNN ({found}) is loaded before the one that torch brings ({built})"
    if values.get("older"):
        return f"An older {values['older']} is found before the one that torch brings"
    if by_path:
        return "LD_LIBRARY_PATH puts other CUDA libraries before torch's own"
    wanted = re.search(r"nvJitLink\w*?_(\d{2})_(\d)", values.get("symbol", ""))
    if wanted:
        return f"An older libnvJitLink is loaded than the one of CUDA {wanted[1]}.{wanted[2]} that torch wants"
    library = next((name for prefix, name in _LIBRARIES if values.get("symbol", "").startswith(prefix)), None)
    if library:
        return f"Another {library} is loaded than the one that torch wants: it has no {values['symbol']}"
    return "torch's NVIDIA wheels are not of one CUDA version"


def _one_cuda(facts: Facts, by_path: bool) -> tuple[str, ...]:
    repair = fixes.repair_torch(facts)
    if by_path:
        note = "or take only the directories named above out of it; torch needs none"
        return (
            fixes.unset(facts, "LD_LIBRARY_PATH", note),
            *_older_copies(facts),
            *(f"or, if it stays: {step}" for step in repair[-1:]),
        )
    steps = repair or fixes.repair_in_words(facts)
    if facts.origin == "live" or fixes.on_windows(facts):
        return steps
    return (*steps, "echo $LD_LIBRARY_PATH   # if it stays: a folder with another CUDA there comes before the wheels")


def _older_copies(facts: Facts) -> tuple[str, ...]:
    if facts.error("cudnn-mismatch"):
        return ("ldconfig -p | grep cudnn; conda list cudnn   # other copies: the older one has to go",)
    error = facts.error("nvjitlink")
    older_one = error.values.get("older") if error else None
    if older_one is None:
        return ()
    name = older_one.split(".so")[0]
    return (
        f"ldconfig -p | grep {name}; conda list | grep -iE 'cublas|cudatoolkit'   # other copies: the older has to go, "
        "or the toolkit of torch's own CUDA to be installed in its place",
        *(
            ("or, where an image brings the same CUDA major itself: " + fixes.uninstall(facts, "nvidia-cublas-cu11"),)
            if older_one.endswith(".so.11")
            else ()
        ),
    )


def _older_nvjitlink(facts: Facts) -> bool:
    for suffix in ("-cu12", ""):
        link = release_of(facts.package(f"nvidia-nvjitlink{suffix}"))
        runtime = release_of(facts.package(f"nvidia-cuda-runtime{suffix}"))
        # cusparse and cusolver of a CUDA release want an nvJitLink that is at least as new.
        if link and runtime and link[0] == runtime[0] and link < runtime:
            return True
    return False


RULES: tuple[Rule, ...] = (nvidia_wheels,)
