"""Rules about more than one torch: two copies on the path, or the files of two in one folder."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, seen

EVERYTHING = ("chat", "vram", "architecture")


def duplicate_torch(facts: Facts) -> Result:
    """More than one torch on the path."""
    installs = list(facts.torch.installs or ())
    listed = facts.duplicates.get("torch", ())
    copies = installs if len(installs) > 1 else list(listed)
    mixed = facts.error("user-site-mixed")
    if len(copies) < 2 and mixed is not None:
        return [_user_site_mixed(facts, mixed)]
    if len(copies) < 2:
        return None if facts.torch.installs is None and not facts.duplicates else PASSED
    versions = {(item.version or "").split("+")[0] for item in copies}
    if len(versions) < 2 and len({item.path for item in copies}) < 2:
        return PASSED
    user = next((item.path for item in copies if "/.local/" in item.path or "AppData\\Roaming" in item.path), None)
    differ = len(versions) > 1
    return [
        Finding(
            "duplicate-torch-installs",
            "warning" if not differ else "error",
            "Two copies of torch are installed" + (f": {' and '.join(sorted(versions))}" if differ else ""),
            "Whichever stands first on the path is imported, while its companions may have been installed for the "
            "other one.",
            {f"copy {number}": f"{item.version} in {item.path}" for number, item in enumerate(copies, 1)},
            (
                *(
                    (fixes.export(facts, "PYTHONNOUSERSITE", "1", "ignore the copy in the home directory"),)
                    if user
                    else ()
                ),
                *_one_copy(facts),
            ),
            ISSUES + "huggingface/transformers/issues/29022",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _one_copy(facts: Facts) -> tuple[str, ...]:
    *before, last = fixes.reinstall_torch(facts)
    if last.startswith("No "):  # of a torch or a Python older than the tables, which all the same was installed here
        version = (facts.torch.version or "").split("+")[0]
        before = [fixes.uninstall(facts, "torch")]
        last = fixes.install(
            facts, f"torch=={version}" if version.count(".") > 1 else "torch", options="--no-cache-dir"
        )
    return (
        *(f"{step}   # repeat until none is left" if "pip uninstall " in step else step for step in before),
        last,
    )


def _user_site_mixed(facts: Facts, error: ErrorFact) -> Finding:
    imported = error.values.get("imported")
    return Finding(
        "duplicate-torch-installs",
        "error" if imported or facts.error("torch-shadowed") else "warning",
        f"{imported} is imported from the home directory, in place of the environment's own"
        if imported
        else "Packages from the home directory mix into this environment",
        "What pip put into the home directory (pip install --user, or without an activated environment) hides what the "
        "environment has.",
        seen(error),
        (
            fixes.export(facts, "PYTHONNOUSERSITE", "1", "then try again"),
            "python -m pip list --user   # what to remove there"
            + (f": python -m pip uninstall {imported}" if imported else ""),
        ),
        ISSUES + "huggingface/transformers/issues/29022",
        affects=EVERYTHING,
        observed=True,
    )


def torch_of_two_releases(facts: Facts) -> Result:
    """torch's own Python files ask its compiled part for a name that it does not have."""
    error = facts.error("torch-files-mixed")
    if error is None or len(facts.torch.installs or facts.duplicates.get("torch", ())) > 1:
        return PASSED
    path = next(
        (name for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH") if _names_torch(facts, name)), ""
    )
    return [
        Finding(
            "duplicate-torch-installs",
            "error",
            "torch's Python files and its compiled part are of two releases",
            "Two installs share one folder, as after an upgrade that broke off or pip over conda, or LD_LIBRARY_PATH "
            "or PYTHONPATH brings in the files of another torch.",
            {**evidence(torch__version=facts.torch.version, **{path: facts.environment.get(path)}), **seen(error)},
            (
                *((fixes.unset(facts, path, "it names another torch"),) if path else ()),
                *_one_copy(facts),
                *(() if path else (fixes.unset(facts, "PYTHONPATH", "and LD_LIBRARY_PATH, where they name a torch"),)),
            ),
            ISSUES + "pytorch/pytorch/issues/137247",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _names_torch(facts: Facts, name: str) -> bool:
    return "torch" in facts.environment.get(name, "")


RULES: tuple[Rule, ...] = (duplicate_torch, torch_of_two_releases)
