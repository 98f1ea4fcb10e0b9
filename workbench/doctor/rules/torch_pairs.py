"""Rules about torchvision, torchaudio and torchtext, each built for one release of torch."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import companions, jetson
from workbench.doctor.rules.common import ISSUES, MODEL_BENCHES, PASSED, Result, Rule, evidence, is_jetson, seen
from workbench.doctor.rules.matching_builds import cuda_of_library
from workbench.doctor.tables import WHEELS, companion, companion_of, table, torch_release
from workbench.doctor.torch_builds import is_published
from workbench.doctor.versions import local_tag, minor_name, older


def torchvision_mismatch(facts: Facts) -> Result:
    """torchvision (or torchaudio) belongs to another torch."""
    library = companions.wants_other_cuda(facts)
    error = facts.error("torchvision-nms", "torchvision-symbol", "torchaudio-symbol", "torchtext-symbol") or library
    broken_off = _load_broken_off(facts) if error is None else None
    error = error or broken_off
    torch, vision = facts.torch.version, facts.package("torchvision")
    pair = companion("torchvision", vision)
    wrong = bool(pair and torch and minor_name(torch) != minor_name(pair[0]))
    tags = _tags_differ(vision, torch)
    audio = _torchaudio_differs(facts)
    step = facts.probe("torchvision")
    if error is None and (pair is None or torch is None) and not audio:
        return None
    if error is None and not (wrong or tags or audio):
        return PASSED
    told = _named(error) if error else "torchaudio" if audio else ""
    name = "torchvision" if (wrong or tags) and told != "torchtext" else told or "torchvision"
    major = cuda_of_library(library.values.get("library")) if library and library is error else None
    fails = error is not None or (step is not None and step.status != "passed")
    return [
        Finding(
            "torchvision-torch-mismatch",
            "error" if fails or wrong or tags else "warning",
            f"torchvision is a build without CUDA, beside {_torch_here(facts)}"
            if error is not None and "backend" in error.values
            else _title(facts, name, broken_off is not None, major),
            "Its compiled part was made for another torch, so that it does not load, or its operators do not register; "
            "inside transformers this shows as 'Failed to import … processing_auto'.",
            {
                **evidence(
                    torchtext=facts.package("torchtext") if name == "torchtext" else None,
                    torchvision=vision,
                    torchaudio=facts.package("torchaudio"),
                    torch__version=torch,
                    belongs_to=pair[0] if pair else None,
                ),
                **seen(error),
            },
            _reinstall_pair(facts, name),
            ISSUES + "pytorch/vision/issues/8985",
            affects=MODEL_BENCHES,
            observed=fails,
        )
    ]


def _title(facts: Facts, name: str, broken_off: bool, major: Optional[str]) -> str:
    what = " ".join(filter(None, (name, facts.package(name))))
    torch = _torch_here(facts)
    of_xformers = _torch_of_xformers(facts)
    if of_xformers:
        return f"torchvision and xformers do not belong to {torch}: xformers was built for torch {of_xformers}"
    if broken_off:
        return f"{what} does not load: most likely it does not belong to {torch}"
    return f"{what} does not belong to {torch}" + (f": it was built for CUDA {major}" if major else "")


def _torch_here(facts: Facts) -> str:
    return f"torch {facts.torch.version}" if facts.torch.version else "the torch here"


def _named(error: ErrorFact) -> str:
    """The package that an error is about."""
    of_cut = error.values.get("name") or error.values.get("other")
    return f"torch{of_cut}" if of_cut else error.values.get("importer") or error.id.split("-")[0]


def _load_broken_off(facts: Facts) -> Optional[ErrorFact]:
    """A traceback that is cut off where torch loads a companion's compiled part, or within the path of its file."""
    load, cut, last = (facts.error(name) for name in ("companion-load-cut", "traceback-cut", "unknown-error"))
    if load is None:
        return None
    if "arrow" in load.values and cut is None and last is None:
        return load
    ends_there = cut is not None and cut.values.get("callers", "").split(",")[0] in ("torch", _named(load))
    return load if ends_there or (last is not None and re.fullmatch(r"OSError: [~/]\S*", last.text)) else None


def _tags_differ(vision: Optional[str], torch: Optional[str]) -> bool:
    a, b = local_tag(vision), local_tag(torch)
    return bool(a and b and re.match(r"cu|cpu|rocm", a) and re.match(r"cu|cpu|rocm", b) and a != b)


def _torchaudio_differs(facts: Facts) -> bool:
    audio, torch = facts.package("torchaudio"), facts.torch.version
    # Same number as torch and pinned up to 2.10; 2.11 is the last and takes any torch from there on.
    if not audio or not torch or not older(audio, "2.11") or older(audio, "2.0"):
        return False
    return minor_name(audio) != minor_name(torch)


def _reinstall_pair(facts: Facts, name: str) -> tuple[str, ...]:
    """The pair for the torch that is here, after the one that was here before something replaced torch alone."""
    if name == "torchtext":
        return companions.torchtext_steps(facts)
    if is_jetson(facts):
        return jetson.torchvision_steps(facts)
    back, here = _torch_of_companions(facts), _pair_of_this_torch(facts, name)
    return (back, f"or, for the torch that is here now: {here[0]}", *here[1:]) if back else here


def _torch_of_xformers(facts: Facts) -> str:
    """The torch that xformers names as its own, where nothing else says which one torchvision belongs to.

    Two that do not fit the torch that is here say that it is torch that was replaced.
    """
    error = facts.error("xformers-extensions")
    built, have = (error.values.get(key) or "" for key in ("built", "have")) if error else ("", "")
    tag = local_tag(built) or ""
    if not tag.startswith("cu") or built == have or facts.package("torchvision") or torch_release(built) is None:
        return ""
    return built


def _with_xformers(facts: Facts, built: str) -> str:
    release, number = torch_release(built), built.split("+")[0]
    vision = f"torchvision=={release.torchvision}" if release and release.latest == number else "torchvision"
    options = f"--index-url {WHEELS}/{local_tag(built)}"
    step = fixes.install(facts, f"torch=={number}", vision, "torchaudio", options=options)
    return f"{step}   # the torch that xformers here was built for"


def _torch_of_companions(facts: Facts) -> str:
    """The command that brings a torch back whose companions are still there, each with the tag of its CUDA."""
    of_xformers = _torch_of_xformers(facts)
    if of_xformers:
        return _with_xformers(facts, of_xformers)
    vision = facts.package("torchvision") or ""
    pair, tag = companion("torchvision", vision), local_tag(vision) or ""
    if not pair or not tag.startswith("cu") or not facts.torch.version or local_tag(facts.torch.version):
        return ""
    audio = ["torchaudio"] if facts.package("torchaudio") else []
    exact = pair[0] if pair[0].count(".") > 1 else f"{pair[0]}.*"
    wanted = (f"torch=={exact}", f"torchvision=={vision.split('+')[0]}", *audio)
    return fixes.install(facts, *wanted, options=f"--index-url {WHEELS}/{tag}") + "   # the one before"


def _pair_of_this_torch(facts: Facts, name: str) -> tuple[str, ...]:
    release = torch_release(facts.torch.version)
    if release is None and facts.torch.version is None:
        # A newer torch may want a newer driver, and other packages here were made for this one.
        both = fixes.fresh_torch(facts, *dict.fromkeys(("torchvision", name)), upgrade=True)
        return (companions.for_this_torch(facts, name), f"or a newer torch with its own: {both}")
    old_pair = companion_of("torchvision", facts.torch.version) if release is None else None
    if old_pair and is_published(facts.torch.version):
        return (_old_pair(facts, old_pair),)
    if release is None:
        sound = ["torchaudio"] if facts.error("torchaudio-symbol") else []
        return (fixes.fresh_torch(facts, "torchvision", *sound, upgrade=True),)
    version = str(facts.torch.version).split("+")[0]
    pin = f"torchvision=={release.torchvision}" if version == release.latest else "torchvision"
    tag = local_tag(facts.torch.version)
    options = "--force-reinstall --no-cache-dir" + (
        f" --index-url https://download.pytorch.org/whl/{tag}" if tag else ""
    )
    audio = ["torchaudio"] if facts.package("torchaudio") else []
    if ".dev" in version:
        nightly = f"--pre -U --index-url {WHEELS}/nightly/{tag or 'cpu'}"
        together = fixes.install(facts, "torch", "torchvision", *audio, options=nightly)
        return (f"{together}   # nightly builds belong together by their day, and old ones are taken away",)
    return (fixes.install(facts, f"torch=={version}", pin, *audio, options=options),)


def _old_pair(facts: Facts, vision: str) -> str:
    """torchvision for a torch before 1.13, from the page of old wheels where the build has a tag."""
    tag = local_tag(facts.torch.version)
    page = f"-f {table('torch')['old']['page']} " if tag else ""
    pin = f"torchvision=={vision}+{tag}" if tag else f"torchvision=={vision}"
    return fixes.install(facts, pin, options=f"{page}--no-deps --force-reinstall")


RULES: tuple[Rule, ...] = (torchvision_mismatch,)
