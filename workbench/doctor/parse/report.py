"""A pasted report of another machine: any mixture of known formats, truncated, quoted, in any order."""

from __future__ import annotations

import re
from dataclasses import replace

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact, Facts, Install
from workbench.doctor.parse import (
    arch_list,
    builds,
    commands,
    fields,
    interpreters,
    llama_cpp,
    machine,
    nvidia_smi,
    offers,
    ollama,
    packages,
    prose,
    resolutions,
    shell,
    sources,
    unsloth,
    windows,
)
from workbench.doctor.parse.clean import numbered_lines
from workbench.doctor.parse.draft import REMARKS, Draft
from workbench.doctor.parse.exceptions import callers_of_message, cut_traceback, import_at_the_end, last_exception
from workbench.doctor.parse.memory import with_memory
from workbench.doctor.parse.messages import find_messages
from workbench.doctor.parse.notebook import with_notebook
from workbench.doctor.parse.numpy_abi import with_numpy_files, with_numpy_user
from workbench.doctor.parse.outside_copies import copy_outside, other_checkout
from workbench.doctor.parse.own_files import own_file_in_the_way
from workbench.doctor.parse.repositories import of_the_last_attempt, with_repository
from workbench.doctor.parse.symptoms import explains_idle_gpu, find_symptom, is_symptom, tells_of_two_pythons
from workbench.doctor.parse.syntax import newer_python_wanted
from workbench.doctor.parse.tongues import in_english
from workbench.doctor.system import xids_in
from workbench.doctor.tables import conda_cudas, names_text
from workbench.doctor.versions import local_tag, parse_version


def parse_report(text: str) -> Facts:
    """The facts that a paste gives; what it does not give stays unknown.

    Understands ``python -m torch.utils.collect_env`` (vLLM's too), ``python -m bitsandbytes``, ``nvidia-smi``,
    ``pip list``, ``pip freeze``, ``uv pip list``, ``conda list``, ``transformers env``, ``nvcc --version``, and error
    messages and tracebacks. Never raises on its input, and takes time linear in it.

    Args:
        text: the paste; at most about two million characters of it are read.
    """
    lines, numbers = numbered_lines(text)
    lines = broken_environment(lines)
    draft = Draft()
    nvidia_smi.read(lines, draft)
    fields.read(lines, draft)
    machine.read_raw(text, draft)
    packages.read(lines, draft)
    unsloth.read(lines, draft)
    llama_cpp.read(lines, draft)
    shell.read(lines, draft)
    commands.read(lines, draft)
    fields.read_forms(lines, draft)
    draft.errors += find_messages(lines)
    _torch_of_xformers(draft)
    builds.read(lines, draft)
    offers.read(lines, draft)
    resolutions.read(lines, draft)
    sources.read(lines, draft)
    prose.read(in_english(lines, not draft.complaints), draft)
    machine.read(lines, draft)
    windows.read(lines, draft)
    arch_list.read(lines, draft)
    interpreters.read(lines, draft)
    ollama.read(lines, draft)
    _conclude(draft, lines)
    draft.errors = [replace(error, line=numbers[error.line - 1] if error.line else 0) for error in draft.errors]
    facts = draft.facts()
    driver = replace(facts.driver, error=mask_text(facts.driver.error)) if facts.driver.error else facts.driver
    return replace(facts, driver=driver, duplicates=_copies(draft))


def _torch_of_xformers(draft: Draft) -> None:
    """The torch that xformers says is here, which is surer than what sentences say of torch."""
    built = next((error for error in draft.errors if error.id == "xformers-extensions"), None)
    if built and built.values.get("have") and draft.torch.get("version") is None:
        draft.put(draft.torch, version=built.values["have"], installed=True)


_OF_TORCH = re.compile(
    r"[\s*]{0,6}(?:PyTorch version|(?:CUDA|ROCM|HIP) used to build PyTorch|Is CUDA available)\s?:"
    r"|\s{0,4}\[(?:pip3?|conda)\]\s"
)
_AVAILABLE = re.compile(r"[\s*]{0,6}Is CUDA available\s{0,4}:\s{0,4}(True|Yes|False|No)\b", re.IGNORECASE)
_CPU_ROW = re.compile(r"\s{0,8}(?:pytorch|libtorch)\s{1,60}(\d[\w.]{0,20})\s{1,60}\S{0,60}cpu")


def broken_environment(lines: list[str]) -> list[str]:
    """`lines` without what a working environment says of its torch, where the paste shows a broken one beside it.

    What the two share, the machine, stays; so do the numbers of the lines.
    """
    starts = [number for number, line in enumerate(lines) if "PyTorch version" in line and ":" in line]
    working, broken = [], 0
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        answer = next(filter(None, map(_AVAILABLE.match, lines[start:end])), None)
        if answer and answer[1].lower() in ("true", "yes"):
            working.append((start, end))
        broken += bool(answer and answer[1].lower() in ("false", "no"))
    versions = {match[1] for start, _ in working if (match := re.search(r":\s{0,4}(\d[\w.]{0,20})", lines[start]))}
    rows = [match[1] for match in map(_CPU_ROW.match, lines) if match]
    if not working or not (broken or any(row not in versions for row in rows)):
        return lines
    inside = {number for start, end in working for number in range(start, end) if _OF_TORCH.match(lines[number])}
    row = re.compile(r"\s{0,8}(?:py)?torch\s{1,60}(?:" + "|".join(map(re.escape, versions or {"-"})) + r")\s")
    return ["" if number in inside or row.match(line) else line for number, line in enumerate(lines)]


def _conclude(draft: Draft, lines: list[str]) -> None:
    """What only all readers together can tell."""
    torch = draft.torch
    other = torch.get("cuda") or torch.get("hip") or (local_tag(torch.get("version")) or "").startswith("xpu")
    if torch.pop("no_cuda", False) and torch.get("version") and not other:
        draft.put(torch, build="cpu")
    if torch.get("build") == "cpu" and torch.get("cuda_available"):
        torch["cuda_available"] = False  # what answered with True is the torch of another Python
    _conda_took_cpu(draft, lines)
    taken = next((error for error in draft.errors if error.id == "conda-took-cpu"), None)
    if taken is not None:
        python = re.search(r"\bpy(3\.\d{1,2})_cpu", taken.text)
        draft.put(torch, build="cpu", installed=True)
        draft.put(draft.python, kind="conda", version=python[1] if python else None)
    if draft.platform.get("system") is None and any(name.startswith("nvidia-c") for name in draft.packages):
        # NVIDIA's runtime wheels are dependencies of the Linux wheels only.
        draft.put(draft.platform, system="Linux")
    xids = [line for line in lines if "NVRM: Xid" in line]
    if xids:
        draft.put(draft.platform, xids=xids_in("\n".join(xids)))
    draft.errors = [_completed(error, lines) for error in draft.errors]
    in_the_way = own_file_in_the_way(lines)
    outside = None if in_the_way else copy_outside(lines)
    elsewhere = None if in_the_way or outside else other_checkout(lines)
    draft.errors += [told for told in (in_the_way, outside, elsewhere, newer_python_wanted(lines)) if told]
    if any(error.id == "container-no-gpu-driver" for error in draft.errors):
        draft.put(draft.platform, container="docker")
    draft.errors += _unknown_errors(lines, {error.line for error in draft.errors if error.id not in REMARKS})
    draft.errors = [with_repository(_with_program(_of_a_model(error, lines), lines), lines) for error in draft.errors]
    draft.errors = of_the_last_attempt(draft.errors, lines)
    told = {error.id for error in draft.errors} - REMARKS
    # Of a traceback that was cut off, what was said around it tells more than its code.
    said = [line for line in lines if not line.startswith("    ")] if "traceback-cut" in told else lines
    says_little = {"traceback-cut", "import-cut", "no-framework"}
    by_sentence = next((error for error in draft.errors if is_symptom(error)), None)
    symptom = by_sentence or (None if told - says_little else find_symptom(said, bool(draft.formats or told)))
    draft.errors += [symptom] if symptom and not by_sentence else []
    if symptom and explains_idle_gpu(symptom) and torch.get("version") is None:
        torch.pop("cuda_available", None)  # told as a part of it, and not of torch
    if symptom and not draft.formats and tells_of_two_pythons(symptom):
        torch.clear()
        draft.packages.pop("torch", None)
    if draft.errors:
        draft.saw("messages")


def _completed(error: ErrorFact, lines: list[str]) -> ErrorFact:
    """A message with what the lines around it tell besides."""
    for reader in (_with_folder, _with_callers, with_memory, with_numpy_user, with_numpy_files, with_notebook):
        error = reader(error, lines)
    return error


_CONDA_ASKS_CUDA = re.compile(r"\b(?:cudatoolkit|pytorch-cuda) ?={1,2} ?(\d{1,2}(?:\.\d)?)")


_CONDA_SPEC = re.compile(r"\bpytorch={1,2}(\d\.\d{1,2}(?:\.\d)?)")


def _conda_took_cpu(draft: Draft, lines: list[str]) -> None:
    """Conda was asked for CUDA, and the torch that it brought is one for the CPU, or can be no other one."""
    build = draft.torch.get("build")
    if build not in (None, "cpu") or any(error.id == "conda-took-cpu" for error in draft.errors):
        return
    asked, wanted = next(
        ((number, found[1]) for number, line in enumerate(lines, 1) if (found := _CONDA_ASKS_CUDA.search(line[:600]))),
        (0, ""),
    )
    named = _CONDA_SPEC.search(lines[asked - 1][:600]) if asked else None
    built = conda_cudas(draft.torch.get("version") or (named[1] if named else None))
    no_other = build is None and draft.torch.get("cuda_available") is False and built and wanted not in built
    if asked and (no_other or (build == "cpu" and "torch" in draft.conda)):
        draft.errors.append(ErrorFact("conda-took-cpu", mask_text(lines[asked - 1].strip()[:300]), asked))


def _with_folder(error: ErrorFact, lines: list[str]) -> ErrorFact:
    """A library that a program does not find, with the folder where the paste shows it after all."""
    library = error.values.get("library") or error.values.get("missing") or error.values.get("other")
    if error.id != "cudnn-library-missing" or not library or error.values.get("folder"):
        return error
    path = re.compile(rf"(/[^\s:'\"]{{2,200}})/{re.escape(library)}(?:\.[\d.]{{1,8}})?(?![\w.])")
    found = next(filter(None, (path.search(line[:600]) for line in lines if library in line)), None)
    return replace(error, values={**error.values, "folder": found[1]}) if found else error


_IMPORTS = frozenset(
    ("hub-import", "library-import", "pin-conflict", "tokenizers-import", "torch-attribute", "unknown-architecture")
)


def _with_callers(error: ErrorFact, lines: list[str]) -> ErrorFact:
    """An import that fails, with the packages whose code stands above it in the traceback."""
    callers = callers_of_message(lines, error.line - 1, error.text) if error.id in _IMPORTS else ()
    return replace(error, values={**error.values, "callers": ",".join(callers)}) if any(callers) else error


_MODEL_TYPE = re.compile(r"KeyError: ['\"](?P<type>[a-z][a-z0-9]{1,20}(?:[_.-]?[a-z0-9]{1,20}){0,5})['\"](?:\s|$)")
_LOADS_MODEL = re.compile(r"configuration_auto|CONFIG_MAPPING|\bAuto\w{3,30}\.from_pretrained\(|config_class = ")


def _of_a_model(error: ErrorFact, lines: list[str]) -> ErrorFact:
    """A key that is not found while a model's configuration is read: the kind of the model."""
    found = _MODEL_TYPE.search(error.text) if error.id == "unknown-error" else None
    if found is None:
        return error
    # A name of underlines or digits that transformers has a folder for is no other program's key.
    folder = re.compile(rf"\bmodels\.{re.escape(found['type'])}\b")
    a_kind = re.search(r"[_\d]", found["type"]) and folder.search(names_text("transformers"))
    if not a_kind and not any(_LOADS_MODEL.search(line[:600]) for line in lines):
        return error
    return replace(error, id="unknown-architecture", values={**error.values, "type": found["type"]})


# Programs that compare the versions of packages when they start.
_COMPARES_VERSIONS = re.compile(r"llama[-_]?factory|DISABLE_VERSION_CHECK", re.IGNORECASE)


def _with_program(error: ErrorFact, lines: list[str]) -> ErrorFact:
    """A model that is too new, or a pin, with the program that checks versions for itself, where it is one."""
    if error.id not in ("unknown-architecture", "pin-conflict"):
        return error
    if not any(_COMPARES_VERSIONS.search(line[:600]) for line in lines):
        return error
    return replace(error, values={**error.values, "program": "llamafactory"})


def _unknown_errors(lines: list[str], told: set[int]) -> list[ErrorFact]:
    """The exception that ends the paste, where no known message stands in it; where there are none, a complaint."""
    last = last_exception(lines, told)
    if last is not None or told:
        return [last] if last else []
    good = max((number for number, line in enumerate(lines) if "Successfully installed" in line), default=-1)
    said = next((number for number in range(good + 1, len(lines)) if _COMPLAINT.match(lines[number][:400])), None)
    if said is not None:
        return [ErrorFact("unknown-error", mask_text(lines[said].strip()[:400]), said + 1)]
    return [error for error in (cut_traceback(lines), import_at_the_end(lines)) if error]


# A complaint that is no Python exception; only where nothing else is known.
_COMPLAINT = re.compile(
    r"\s{0,20}(?:error|ERROR|fatal|FATAL|Error|docker: [^:]{0,60}|(?:docker: )?Error response[^:]{0,30}): ?"
    r"(?!pip's dependency resolver does not)\S"
    r"|\s{0,20}[\w./+-]{2,40}(?:\[\d{1,9}\])?: (?:[\w ]{0,40} )?(?:error|fatal|Error): \S"
    r"|\s{0,20}[A-Z]\w{2,40}(?:NotFound|Channel|Denied|Failed|Refused|Unavailable): \S"
    r"|(?:exec|standard_init_linux\.go:\d{1,4}:) .{2,200}: (?:no such file or directory|exec format error)"
    r"|.{0,60}\b[Ff]ailed to initialize\b|.{0,60}\b[Nn]o module (?:found|called) \w"
)


def _copies(draft: Draft) -> dict[str, tuple[Install, ...]]:
    """Packages of which collect_env saw two versions: the imported one, pip's and conda's."""
    result = {}
    for name, copies in draft.copies.items():
        # The same reader twice is a second machine in the paste, not a second copy: the first one counts.
        seen: dict[str, str] = {}
        for version, source in copies:
            if source in ("import torch", "[pip3]", "[pip]", "[conda]"):
                seen.setdefault(source, version)
        if len({parse_version(version) for version in seen.values()}) > 1:
            result[name] = tuple(Install(version, source) for source, version in seen.items())
    return result
