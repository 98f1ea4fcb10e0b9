"""Two environments side by side: what differs, and which difference explains a fault."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.derive import derive
from workbench.doctor.diagnose import diagnose
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.text import one_line

ABSENT = "not installed"
MAX_ONE_SIDED = 12
"""More packages than these that only one side has, and that explain nothing, are told in one line."""

# Facts that differ between any two runs and explain nothing.
_VOLATILE = frozenset(
    (
        "memory_available_bytes",
        "shm_free_bytes",
        "import_seconds",
        "prefix",
        "location",
        "executable",
        "user_site",
        "disks",
    )
)
# What a finding rests on: evidence names that are not fact names themselves.
_EVIDENCE_FACTS = {
    "driver": ("driver.version",),
    "driver.cuda": ("driver.cuda",),
    "gpus": ("gpus",),
    "gpu": ("gpus",),
    "compute_capability": ("gpus",),
    "python": ("python.version",),
    "kernels": ("torch.arch_list",),
    "kernel_module": ("driver.kernel_module",),
    "library": ("driver.library",),
    "machine": ("platform.machine",),
    "glibc": ("platform.libc_version",),
    "os": ("platform.os",),
    "kernel": ("platform.kernel",),
    "modules": ("platform.modules",),
    "container": ("platform.container",),
    "devices": ("platform.devices",),
    "nvcc": ("toolkit.nvcc",),
    "ships": ("bitsandbytes.libraries",),
}


@dataclass(frozen=True)
class Difference:
    """One fact that is not the same in two environments."""

    name: str
    """Such as ``torch.version``, ``packages.numpy`` or ``environment.LD_LIBRARY_PATH``."""
    left: Optional[str]
    right: Optional[str]
    explains: tuple[str, ...] = ()
    """Ids of findings that one side has and the other has not, and that rest on this fact."""


def compare(left: Facts, right: Facts) -> list[Difference]:
    """What differs, those differences first that explain a fault of one side.

    A fact unknown on either side is no difference.
    """
    a, b = derive(left), derive(right)
    faults = _one_sided(left, right)
    differences = list(_differences(a, b))
    explaining: dict[str, list[str]] = {item.name: [] for item in differences}
    for finding, here, there in faults:
        for name in _explaining(finding, here, there, [item.name for item in differences]):
            explaining[name].append(finding.id)
    differences = [dataclasses.replace(item, explains=tuple(explaining[item.name])) for item in differences]
    order = {finding.id: rank for rank, (finding, _, _) in enumerate(faults)}
    return sorted(
        _folded(differences),
        key=lambda item: (
            not item.explains,
            min((order[id] for id in item.explains), default=0),
            _weight(item.name),
            item.name,
        ),
    )


def _folded(differences: list[Difference]) -> list[Difference]:
    """One line for the packages that an emptier environment lacks."""
    for side in ("left", "right"):
        lacking = [
            item
            for item in differences
            if item.name.startswith("packages.") and getattr(item, side) == ABSENT and not item.explains
        ]
        if len(lacking) > MAX_ONE_SIDED:
            names = one_line(" ".join(item.name.partition(".")[2] for item in lacking), 200)
            told = {"left": names, "right": names, side: ABSENT}
            differences = [item for item in differences if item not in lacking]
            differences.append(Difference(f"packages, {len(lacking)} of them", told["left"], told["right"]))
    return differences


def _explaining(finding: Finding, here: Facts, there: Facts, names: list[str]) -> list[str]:
    """Those differing facts that a fault of `here` rests on, and with which of `there` it would be gone.

    Where none of them alone takes it away, as when it was seen in a message, all that it rests on are named.
    """
    resting = [name for name in names if _rests_on(finding, name)]
    turned = [name for name in resting if not _still(finding, _with_fact(here, there, name))]
    return turned or resting


def _still(finding: Finding, facts: Facts) -> bool:
    return any(item.id == finding.id for item in diagnose(facts).findings)


def _with_fact(here: Facts, there: Facts, name: str) -> Facts:
    """`here` with one fact of `there`, and with those that never differ apart from it."""
    section, _, key = name.partition(".")
    if section == "torch" or name in ("packages.torch", "packages.pytorch"):
        packages = {**here.packages, **{key: there.packages[key] for key in ("torch",) if key in there.packages}}
        seen = {name: getattr(there.torch, name) for name in _OF_TORCH}
        return dataclasses.replace(here, torch=dataclasses.replace(here.torch, **seen), packages=packages)
    if section == "gpus":
        platform = dataclasses.replace(here.platform, gpu_vendors=there.platform.gpu_vendors)
        return dataclasses.replace(here, gpus=there.gpus, platform=platform)
    if section in ("driver", "bitsandbytes"):
        return dataclasses.replace(here, **{section: getattr(there, section)})
    if section in ("packages", "environment"):
        values = {k: v for k, v in getattr(here, section).items() if k != key}
        values.update({k: v for k, v in getattr(there, section).items() if k == key})
        absent = tuple(name for name in here.absent if name != key) + ((key,) if key in there.absent else ())
        mixed: Any = {section: values, "absent": absent if section == "packages" else here.absent}
        return dataclasses.replace(here, **mixed)
    own, other = getattr(here, section, None), getattr(there, section, None)
    if not dataclasses.is_dataclass(own) or not hasattr(other, key):
        return here
    changed: Any = dataclasses.replace(typing.cast(Any, own), **{key: getattr(other, key)})
    return dataclasses.replace(here, **{section: changed})


_OF_TORCH = ("installed", "version", "build", "cuda", "hip", "arch_list", "cuda_available", "kernel_ok")


def _one_sided(left: Facts, right: Facts) -> list[tuple[Finding, Facts, Facts]]:
    """Findings that only one side has, the more serious first, each with the facts of its side and the other's."""
    reports = (diagnose(left), diagnose(right))
    ids = [{finding.id for finding in report.findings} for report in reports]
    sides = (reports[0].facts, reports[1].facts)
    return [
        (finding, sides[side], sides[1 - side])
        for side, report in enumerate(reports)
        for finding in report.findings
        if finding.id not in ids[1 - side] and finding.severity != "info"
    ]


def _rests_on(finding: Finding, name: str) -> bool:
    section, _, key = name.partition(".")
    for item in finding.evidence:
        plain = item.replace("_", "-").lower()
        if item == name or name in _EVIDENCE_FACTS.get(item, ()):
            return True
        if section == "packages" and key in (plain, item.split(" ")[0]):
            return True
        if section == "environment" and key == item:
            return True
    # A missing package has no version to show as evidence; its name stands in the finding's id.
    if finding.id == "torch-missing":
        return name in ("torch.installed", "torch.version", "packages.torch")
    return section == "packages" and finding.id == f"{key}-missing"


def _weight(name: str) -> int:
    order = ("torch", "driver", "gpus", "python", "bitsandbytes", "packages", "environment", "toolkit", "platform")
    section = name.split(".")[0]
    return order.index(section) if section in order else len(order)


def _differences(a: Facts, b: Facts) -> Iterator[Difference]:
    for section in ("platform", "python", "torch", "driver", "toolkit", "bitsandbytes"):
        yield from _section(section, getattr(a, section), getattr(b, section))
    yield from _gpus(a, b)
    yield from _packages(a, b)
    yield from _environment(a, b)


def _section(section: str, a: Any, b: Any) -> Iterator[Difference]:
    for field in dataclasses.fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if field.name in _VOLATILE or field.name == "installs" or left is None or right is None or left == right:
            continue
        yield Difference(f"{section}.{field.name}", _text(left), _text(right))
    if (
        section == "torch"
        and {a.build, b.build} >= {"cpu"}
        and a.build != b.build
        and (a.cuda is None) != (b.cuda is None)
    ):
        yield Difference("torch.cuda", _text(a.cuda), _text(b.cuda))


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return " ".join(str(item) for item in value)
    return str(value) if value is not None and value != "" else "none"


def _gpus(a: Facts, b: Facts) -> Iterator[Difference]:
    if a.gpus is None or b.gpus is None:
        return
    left, right = _gpu_text(a), _gpu_text(b)
    if left != right:
        yield Difference("gpus", left, right)


def _gpu_text(facts: Facts) -> str:
    shown = [f"{gpu.name or 'unnamed'} ({gpu.compute_capability or '?'})" for gpu in facts.gpus or ()]
    return ", ".join(shown) or "none"


def _packages(a: Facts, b: Facts) -> Iterator[Difference]:
    for name in sorted({*a.packages, *b.packages}):
        left, right = _package(a, name), _package(b, name)
        # A bare "2.8.0" in a list is the same release as an imported "2.8.0+cu128".
        if left is None or right is None or left.split("+")[0] == right.split("+")[0]:
            continue
        yield Difference(f"packages.{name}", left, right)


def _package(facts: Facts, name: str) -> Optional[str]:
    if name in facts.packages:
        return facts.packages[name]
    # Only a live look has seen everything that is installed; a paste may just not mention it.
    complete = facts.origin == "live" or name in facts.absent
    return ABSENT if complete else None


def _environment(a: Facts, b: Facts) -> Iterator[Difference]:
    for name in sorted({*a.environment, *b.environment}):
        left = a.environment.get(name, "not set" if a.origin == "live" else None)
        right = b.environment.get(name, "not set" if b.origin == "live" else None)
        if left is not None and right is not None and left != right:
            yield Difference(f"environment.{name}", left, right)
