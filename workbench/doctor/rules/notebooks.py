"""Rules about notebooks: the rented ones have a GPU only where one was chosen, and all keep old packages in memory."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.changes import installed_version
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, cuda_works, evidence, seen
from workbench.doctor.rules.unknown.packages import may_install
from workbench.doctor.versions import normalize, satisfies

_FAQ = "https://research.google.com/colaboratory/faq.html#usage-limits"


def notebook_without_gpu(facts: Facts) -> Result:
    """The notebook's machine has no GPU, as it says itself or as torch finds."""
    told = facts.error("colab-without-gpu")
    service = facts.platform.service if facts.origin == "report" else None
    blind = facts.error(
        "no-cuda-gpus",
        "no-nvidia-driver",
        "needs-gpu",
        "driver-lists-no-gpu",
        "smi-cannot-communicate",
        "libcuda-missing",
        "bnb-no-device",
    )
    missed = service in ("colab", "kaggle") and (blind is not None or facts.torch.cuda_available is False)
    elsewhere = facts.platform.system in ("Windows", "Darwin") or facts.platform.wsl or bool(facts.platform.container)
    if facts.platform.system in ("Windows", "Darwin") and service is None:
        return PASSED  # a program of its own may say the same of the machine that it runs on
    if told is None and (
        not missed or elsewhere or facts.torch.build == "cpu" or cuda_works(facts) or facts.driver.version
    ):
        return PASSED
    kaggle = service == "kaggle"
    return [
        Finding(
            "colab-without-gpu",
            "error",
            "This notebook's machine has no GPU",
            "Colab and Kaggle give a GPU only where it was chosen, and not after their limit of use.",
            {**evidence(service=service, cuda_available=facts.torch.cuda_available), **seen(told or blind)},
            (
                "Kaggle: Settings, Accelerator, GPU T4 x2 (the account's phone number must be verified)"
                if kaggle
                else "Runtime, Change runtime type, T4 GPU, Save; then !nvidia-smi must list it (Kaggle: Settings, "
                "Accelerator)",
                "With a GPU chosen already: Runtime, Disconnect and delete runtime, and run again without installing "
                "another torch, which may be a build without CUDA: !pip list | grep -i torch",
                "After the limit: wait, take a paid plan, or another service.",
            ),
            _FAQ,
            affects=("chat", "vram"),
            observed=True,
        )
    ]


RESTART = "Runtime, Restart session (Jupyter: Kernel, Restart); then run the cells again without the installing one"


def version_conflict(facts: Facts) -> Result:
    """A release that pkg_resources has seen, and that is not the one which a package asks for."""
    error = facts.error("version-conflict")
    if error is None:
        return PASSED
    name, by = normalize(error.values["name"]), error.values.get("by", "")
    asked = error.values["asked"].replace(" ", "")
    here = installed_version(facts, name)
    put_since = bool(here and here != error.values["have"] and satisfies(here, asked[len(error.values["name"]) :]))
    if error.values.get("notebook") or put_since:
        return [_held_in_memory(facts, error, name, by, asked)]
    return [
        Finding(
            "required-version-missing",
            "error",
            f"{by or 'A package here'} asks for {asked}, and {name} {error.values['have']} is here",
            "It compares its requirements with what is installed when it starts, and refuses to go on.",
            {**evidence(**{name.replace("-", "_"): error.values["have"]}), **seen(error)},
            (
                _what_is_asked(facts, name, asked),
                *((f"or a newer {by}: " + fixes.install(facts, by, upgrade=True),) if may_install(facts, by) else ()),
                f"{fixes.python_command(facts)} -m pip check   # what else does not fit",
            ),
            _PKG_RESOURCES,
            affects=("chat",),
            observed=True,
        )
    ]


_PKG_RESOURCES = "https://setuptools.pypa.io/en/latest/pkg_resources.html"


def _what_is_asked(facts: Facts, name: str, asked: str) -> str:
    return fixes.install(facts, asked) if may_install(facts, name) else "Install what the message asks for."


def _held_in_memory(facts: Facts, error: ErrorFact, name: str, by: str, asked: str) -> Finding:
    return Finding(
        "stale-notebook-kernel",
        "error",
        f"The notebook still goes by {name} {error.values['have']}, and {by or 'a package'} asks for {asked}",
        "pkg_resources keeps the list of packages that it made when it was first imported; what was installed after "
        "that, it does not see.",
        {**evidence(**{name.replace("-", "_"): error.values["have"]}), **seen(error)},
        (
            RESTART,
            f"If it comes again after that: {_what_is_asked(facts, name, asked)}   # and restart once more",
        ),
        _PKG_RESOURCES,
        affects=("chat",),
        observed=True,
    )


RULES: tuple[Rule, ...] = (notebook_without_gpu, version_conflict)
