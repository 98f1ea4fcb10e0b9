"""Rules about packages that were compiled against another major release of NumPy."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, MODEL_BENCHES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.rules.notebooks import RESTART
from workbench.doctor.rules.unknown.packages import may_install
from workbench.doctor.versions import at_least, older


def numpy_abi(facts: Facts) -> Result:
    """NumPy 2 under a torch built for NumPy 1."""
    error = facts.error("numpy-abi", "numpy-dtype-size")
    itself = facts.error("numpy-mixed")
    if itself is not None and "dtype size changed" in itself.text:
        return PASSED  # it is NumPy's own generator that does not fit
    torch, numpy = facts.torch.version, facts.package("numpy")
    bound = "2.4.1" if facts.platform.system == "Windows" else "2.3"
    clash = bool(older(torch, bound) and at_least(numpy, "2.0"))
    step = facts.probe("numpy")
    if error is None and (torch is None or numpy is None):
        return None
    if step is not None and step.status == "passed" and error is None:
        return PASSED
    if error is None and not clash:
        return PASSED
    if error is not None and _numpy_is_older(facts):
        return PASSED
    changed = _changed_under_notebook(error)
    if error is not None and changed:
        return [changed]
    package = _compiled_for_numpy_1(error)
    # torch itself never says the second of these.
    known = bool(torch and numpy) or bool(package) or _built_for_numpy_1(error) == ""
    other = error is not None and not clash and (error.id == "numpy-dtype-size" or known)
    return [
        Finding(
            "numpy2-with-old-torch",
            "error",
            _title(torch, numpy, package, other, _built_for_numpy_1(error) == "torch"),
            "NumPy 2 changed its binary interface; torch takes it from 2.3 on (Windows: 2.4.1)."
            if not other
            else "NumPy 2 changed its binary interface; what was compiled for NumPy 1 has to become newer.",
            {**evidence(torch__version=torch, numpy=numpy, package=package), **seen(error)},
            _numpy_fix(facts, error, other, package),
            ISSUES + "pytorch/pytorch/issues/107302",
            affects=MODEL_BENCHES,
            observed=error is not None or (step is not None and step.status != "passed"),
        )
    ]


def _title(torch: Optional[str], numpy: Optional[str], package: str, other: bool, by_torch: bool) -> str:
    here = f"torch {torch}" if torch else "torch"
    if not other:
        return f"{here} was built for NumPy 1, but NumPy {numpy or '2'} is installed"
    less = bool(older(numpy, "2.0"))
    if less and by_torch:
        return f"{here} finds no NumPy that it can use, though NumPy {numpy} is told of"
    return f"{package or 'A compiled package here'} was built for NumPy 1, but " + (
        f"another NumPy than {numpy} is loaded" if less else f"NumPy {numpy or '2'} is installed"
    )


# https://github.com/numpy/numpy/blob/main/numpy/_core/code_generators/cversions.txt: NumPy 2.0 has 0x12, and 0x2000000
# where the whole interface is numbered.
_API_OF_NUMPY_2, _ABI_OF_NUMPY_1, _ABI_OF_NUMPY_2 = 0x12, 0x1000000, 0x2000000


def _numpy_is_older(facts: Facts) -> bool:
    """Whether it is said in numbers that NumPy is older than what torch was compiled with, not a NumPy 2."""
    told = facts.error("numpy-older-than-build")
    have = int(told.values["have"], 16) if told is not None and told.values.get("have") else None
    return have is not None and (have < _API_OF_NUMPY_2 or _ABI_OF_NUMPY_1 <= have < _ABI_OF_NUMPY_2)


def _changed_under_notebook(error: Optional[ErrorFact]) -> Optional[Finding]:
    """A NumPy 1 that was put in the place of NumPy 2 while a notebook held that in memory: it is right already."""
    put = error.values.get("numpy_put", "") if error else ""
    if error is None or not error.values.get("notebook") or not (put in ("<2", "<2.0") or older(put or None, "2")):
        return None
    return Finding(
        "stale-notebook-kernel",
        "error",
        "The notebook still holds NumPy 2 in memory, in whose place an older one was installed",
        "A module that is imported already stays as it was until the session ends; what was compiled for the NumPy on "
        "the disk then meets the one in memory.",
        {**evidence(numpy_installed=put), **seen(error)},
        (
            RESTART,
            "Install before the first import: the installing cell at the top of the notebook, and a restart after it.",
        ),
        "https://numpy.org/doc/stable/user/troubleshooting-importerror.html",
        affects=MODEL_BENCHES,
        observed=True,
    )


_LEAD_TO_TORCH = ("transformers", "torchvision", "torchaudio", "ultralytics")


def _built_for_numpy_1(error: Optional[ErrorFact]) -> str:
    """The package whose compiled part refuses NumPy 2, by the frames around its message; ``""`` where none tells."""
    return error.values.get("package", "") if error else ""


def _compiled_for_numpy_1(error: Optional[ErrorFact]) -> str:
    """That package, under its name on the index; ``""`` where it is torch."""
    named = _built_for_numpy_1(error)
    return pip_name(named) if named not in ("", "torch", *_LEAD_TO_TORCH) else ""


def _numpy_fix(facts: Facts, error: Optional[ErrorFact], other: bool, package: str) -> tuple[str, ...]:
    if other and not package and _built_for_numpy_1(error) == "torch" and older(facts.package("numpy"), "2.0"):
        return (
            fixes.install(facts, "numpy<2", options="--force-reinstall --no-cache-dir"),
            f'{fixes.python_command(facts)} -c "import numpy; print(numpy.__version__, numpy.__file__)"   # in the '
            "environment of the program: which copy is it, and does it load by itself?",
            "or a newer torch: " + fixes.fresh_torch(facts, upgrade=True),
        )
    older_numpy, upgrade = fixes.install(facts, "numpy<2"), "or upgrade the package that the message names"
    if package and may_install(facts, package):
        upgrade = f"or: {fixes.install(facts, package, upgrade=True)}"
    if not other:
        upgrade = "or: " + fixes.fresh_torch(facts, upgrade=True)
    # NumPy 1.26, the last before 2, has wheels up to Python 3.12.
    if at_least(facts.python.version, "3.13"):
        return (upgrade[4:].strip(),)
    in_notebook = facts.platform.service in ("colab", "kaggle") or bool(error and error.values.get("notebook"))
    return (older_numpy, *((f"then: {RESTART}",) if in_notebook else ()), upgrade)


RULES: tuple[Rule, ...] = (numpy_abi,)
