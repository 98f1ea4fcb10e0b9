"""What an error that no table knows still tells: packages that do not fit each other, or one that is missing.

Needs the tables.
"""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.changes import (
    PYTHON,
    Change,
    Verdict,
    by_time,
    change_of,
    change_of_call,
    installed_version,
    judge,
    month_of,
    pip_name,
    release_of_that_time,
)
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.tables import table
from workbench.doctor.versions import normalize, older, satisfies

# Import names for what people run models with. Any other name may be the user's own file, or anybody's package: nothing
# is offered to be installed for those.
_KNOWN_NAMES = (
    "accelerate auto_gptq awq bitsandbytes cv2 datasets deepspeed diffusers einops evaluate flash_attn gguf gptqmodel "
    "gradio hf_transfer huggingface_hub librosa liger_kernel lightning llama_cpp ninja numpy onnxruntime optimum "
    "packaging pandas peft PIL pytorch_lightning ray safetensors scipy sentence_transformers sentencepiece sklearn "
    "soundfile tensorboard tiktoken timm tokenizers torchao torchaudio torchvision transformers trl unsloth "
    "unsloth_zoo vllm wandb xformers yaml ctranslate2 faster_whisper fastapi flashinfer flax jax jaxlib keras "
    "langchain onnx openai optax orbax pydantic sglang tensorflow"
)
_KNOWN = frozenset(_KNOWN_NAMES.split())
_FAMILY = frozenset(("accelerate", "diffusers", "optimum", "peft", "trl", "unsloth", "unsloth-zoo"))
"""Packages that are written against transformers, whatever else they call."""
_PIP_CHECK = "https://pip.pypa.io/en/stable/cli/pip_check/"
_REQUIRED = re.compile(
    r"\b(?P<package>[A-Za-z][\w-]{1,40}) with minimum required version (?P<minimum>\d[\w.]{0,20}) is not installed"
    r"|(?:[Rr]equires?|[Nn]eeds?|[Pp]lease (?:install|upgrade(?: to)?)) (?:the )?[`'\"]?"
    r"(?P<asked>[A-Za-z][\w-]{1,40})[`'\"]? ?\(?(?P<spec>(?:>=|==|~=|<=?|>) ?\d[\w.]{0,20}(?<!\.))"
)
_RESTART = "Restart the notebook kernel or the program, in case it was upgraded while running."

_MISSING = re.compile(r"No module named '?(?P<module>\w{1,60})'?(?![\w.])")
_NAME = re.compile(
    r"cannot import name '(?P<name>\w{1,80})' from (?P<half>partially initialized module )?'(?P<module>[\w.]{1,120})'"
    r"|No module named '(?P<path>\w{1,60}\.[\w.]{1,100})'"
    r"|(?P<half2>partially initialized )?module '(?P<owner>[\w.]{1,120})' has no attribute '(?P<attribute>\w{1,80})'"
)
_CALL = re.compile(
    r"(?P<call>[\w.<>]{1,120})\(\) got (?:an unexpected keyword argument|multiple values for argument) "
    r"'(?P<argument>\w{1,80})'"
    r"|(?P<positional>[\w.<>]{1,120})\(\) (?:takes|missing) [\w ]{1,60}positional argument"
    r"|(?:type object |')(?P<object>[A-Za-z]\w{1,60})'? (?:object )?has no attribute '(?P<member>\w{1,80})'"
    r"|name '(?P<undefined>\w{1,80})' is not defined"
)
# Classes and functions by the package that they are of; the first pattern that fits counts.
_OWNERS = (
    (re.compile(r"_?[Uu]nsloth\w+"), "unsloth"),
    (
        re.compile(r"(?:SFT|DPO|PPO|GRPO|KTO|ORPO|CPO|Reward|RLOO|BCO|XPO|NashMD|OnlineDPO|GKD)(?:Trainer|Config)"),
        "trl",
    ),
    (re.compile(r"Lora\w*|Peft\w+|IA3\w*"), "peft"),
    (re.compile(r"Accelerator\w*|GradientAccumulationPlugin|DataLoaderConfiguration|PartialState"), "accelerate"),
    (re.compile(r"(?:Seq2Seq)?Trainer|(?:Seq2Seq)?TrainingArguments|is_\w+_available"), "transformers"),
    (re.compile(r"\w+(?:For[A-Z][A-Za-z]{5,40}|LMHeadModel|TokenizerFast)"), "transformers"),
    (re.compile(r"\w+(?:DiffusionPipeline|DiffusionXLPipeline)|UNet2DConditionModel|AutoencoderKL"), "diffusers"),
)
# Who calls a package, where no traceback tells: transformers' Trainer is built on accelerate.
_USUAL_CALLER = {"accelerate": "transformers"}
# What people write by hand, for its spelling.
_SPELLED = (
    "LoraConfig PeftModel PeftConfig TaskType AutoModelForCausalLM AutoModel AutoTokenizer AutoConfig AutoProcessor "
    "BitsAndBytesConfig TrainingArguments Trainer SFTTrainer SFTConfig DPOTrainer DPOConfig GenerationConfig Dataset "
    "DatasetDict load_dataset Accelerator StableDiffusionPipeline FastLanguageModel"
)


def guessed_error(facts: Facts, error: ErrorFact) -> Optional[list[Finding]]:
    """A finding on an unknown exception, where its own words are enough for one."""
    finding = _together(facts, error) or _required(facts, error) or _missing(facts, error)
    finding = finding or _name(facts, error) or _call(facts, error)
    return [finding] if finding else None


def decided_name(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """The finding on a name that a package does not have, where a table, the time or the spelling tells why."""
    finding = _name(facts, error)
    sure = finding is not None and (finding.id != "package-versions-do-not-fit" or "too old" in finding.title)
    return finding if sure else None


def callers_of(error: ErrorFact) -> tuple[str, ...]:
    """Pip names of the packages in the traceback, the one that raised first; ``""`` is a program of one's own."""
    names = error.values.get("callers", error.values.get("importer", ""))
    return tuple(pip_name(name) if name else "" for name in names.split(",")) if names else ()


def _required(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A package that the message itself asks for, with the version that it wants."""
    found = _REQUIRED.search(error.text)
    if found is None:
        return None
    name = normalize(found["package"] or found["asked"])
    wanted = f">={found['minimum']}" if found["minimum"] else "".join((found["spec"] or "").split())
    have = installed_version(facts, name)
    sure = name in ("torch", PYTHON) or may_install(facts, name)
    # "requires ndim >= 2" is about no package.
    if not wanted or satisfies(have, wanted) or (found["asked"] and not sure):
        return None
    return Finding(
        "required-version-missing",
        "error",
        f"The program asks for {name}{wanted}, and has {have or 'an older one or none'}",
        "It looks for this version when it starts, and refuses to go on without it.",
        {**evidence(**{name.replace("-", "_"): have}, asked_by=error.values.get("importer")), **seen(error)},
        (
            _what_is_asked_for(facts, name, wanted),
            f"{fixes.python_command(facts)} -m pip show {name}   # is it installed for this very Python?",
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


def _what_is_asked_for(facts: Facts, name: str, wanted: str) -> str:
    if name == PYTHON:
        return "An environment with such a Python: uv venv --python '" + wanted + "' .venv"
    if name == "torch":
        return f"{fixes.fresh_torch(facts, upgrade=True)}   # a torch {wanted}"
    if not may_install(facts, name):
        return "Install it as its project's page says; the message names it."
    return fixes.install(facts, f"{name}{wanted}", upgrade=True)


def _together(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """Two packages that are known to part ways at some release of one of them."""
    for row in table("changes")["together"]:
        if not re.search(row["match"], error.text) or older(installed_version(facts, row["new"]), row["since"]):
            continue
        beside = [name for name in callers_of(error) if name not in ("", row["new"])]
        if "after" in row and row["after"] not in (error.values.get("callers") or ""):
            continue
        old = row["old"] or (beside[0] if beside else "")
        change = Change(row["new"], row["what"], False, row["since"], row["source"])
        return _finding(facts, error, Verdict(old, row["new"], change), _what(row))
    return None


def _what(row: dict[str, Any]) -> str:
    return f"{row['new']} {row['what']}, from {row['since']} on"


def _missing(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _MISSING.search(error.text)
    if found is None:
        return None
    module = found["module"]
    change = change_of(PYTHON, module, facts.python.version)
    if change is not None:
        return _changed(facts, error, PYTHON, change, module)
    if module not in _KNOWN:
        return None
    name = pip_name(module)
    return Finding(
        "module-missing",
        "error",
        f"{name} is not installed where this program runs",
        "It was never installed, or into another Python than the one that runs the program.",
        {**evidence(needed_by=error.values.get("importer")), **seen(error)},
        (
            fixes.install(facts, name),
            f'{fixes.python_command(facts)} -c "import sys; print(sys.executable)"   # which Python it is',
        ),
        f"https://pypi.org/project/{name}/",
        affects=("chat",),
        observed=True,
    )


def _name(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A name or module that a package does not have."""
    told = f"{error.text} from '{error.values['module']}'" if error.values.get("module") else error.text
    found = _NAME.search(told)
    if found is None:
        return None
    module = found["module"] or found["owner"] or found["path"]
    path = ".".join(filter(None, (module, found["name"] or found["attribute"])))
    package = pip_name(module)
    below = path.split(".", 2)[-1] if package == "protobuf" else path.split(".", 1)[-1]
    python = change_of(PYTHON, path, facts.python.version)
    if python is not None:
        return _changed(facts, error, PYTHON, python, path)
    change = change_of(package, below, installed_version(facts, package))
    first = module.split(".")[0]
    callers = callers_of(error)
    asked_by_package = bool(callers and callers[0])  # code of a program of one's own may mean a file beside it
    installed = change or first in _KNOWN or first == "torch" or package in callers or asked_by_package
    if not installed and not re.search(rf"-packages[/\\]{first}\b", error.text) and package not in facts.packages:
        return None
    shadow = _shadowed(error, first, bool(found["half"] or found["half2"]))
    if shadow is not None:
        return shadow
    if found["path"] and below.split(".")[-1].startswith("_") and package in callers[:1]:
        return _compiled_part_missing(facts, error, package, path)
    return _misspelled(error, package, found["name"] or found["attribute"] or "") or _changed(
        facts, error, package, change, below
    )


def _shadowed(error: ErrorFact, module: str, half: bool) -> Optional[Finding]:
    """A file of one's own that has the name of a package."""
    own = re.search(rf"\(([^()\n]{{0,200}}[/\\]{module}(?:\.py|[/\\]\w{{1,40}}\.py))\)", error.text)
    if not half or own is None or re.search(r"(?:site|dist)-packages", own[1]):
        return None
    return Finding(
        "package-shadowed",
        "error",
        f"A file of your own is imported in place of {module}",
        "Python looks first where the program stands: a file or folder of a package's name there hides the package.",
        {**evidence(file=own[1]), **seen(error)},
        (f"Rename {own[1]}, and remove the __pycache__ beside it.",),
        "https://docs.python.org/3/tutorial/modules.html#the-module-search-path",
        affects=("chat",),
        observed=True,
    )


def _compiled_part_missing(facts: Facts, error: ErrorFact, package: str, path: str) -> Finding:
    return Finding(
        "package-incomplete",
        "error",
        f"{package} is installed without its compiled part, {path}",
        "The compiled part was made for another Python or system, or an install broke off: its files were copied, or "
        "installed by another Python than the one that runs.",
        {**evidence(**{package.replace("-", "_"): facts.package(package)}, python=facts.python.version), **seen(error)},
        (
            again(facts, package),
            f'{fixes.python_command(facts)} -c "import sys; print(sys.version, sys.executable)"   # which Python runs',
        ),
        "https://docs.pydantic.dev/latest/errors/usage_errors/",
        affects=("chat",),
        observed=True,
    )


def _misspelled(error: ErrorFact, package: str, name: str) -> Optional[Finding]:
    meant = next((word for word in _SPELLED.split() if word.lower() == name.lower() and word != name), None)
    if meant is None:
        return None
    return Finding(
        "name-misspelled",
        "error",
        f"{name} is spelled {meant} in {package}",
        "Python takes capitals for other letters. Nothing is wrong with what is installed.",
        seen(error),
        (f"Write {meant} in the program.",),
        f"https://pypi.org/project/{package}/",
        affects=("chat",),
        observed=True,
    )


def _changed(facts: Facts, error: ErrorFact, package: str, change: Optional[Change], name: str) -> Optional[Finding]:
    callers = callers_of(error)
    caller = callers[0] if callers else ""
    if caller == package and change is None:
        return _half_upgraded(facts, error, package, name)
    if not callers and change is None and re.search(r"(?:^|\.)_[a-z]\w*\.", name) and package in _MATURE:
        return _half_upgraded(facts, error, package, name)  # only a package's own files ask for what is private
    beside = next((other for other in callers if other not in ("", package)), "")
    caller = beside if caller == package else caller
    verdict = judge(facts, caller, package, change)
    if verdict is not None:
        return _finding(facts, error, verdict, _words(verdict, name))
    return None if package == PYTHON else _undecided(facts, error, caller, package, name)


def _words(verdict: Verdict, name: str) -> str:
    change = verdict.change
    if change is None:
        return f"it has not, or no more, {name}"
    where = f"{change.package} {change.version}" if change.version else f"a later release of {change.package}"
    return f"{change.name} came with {where}" if change.added else f"{change.name} is gone since {where}"


def _titled(facts: Facts, package: str) -> str:
    named = {"": "The program", PYTHON: "Python"}.get(package, package)
    version = installed_version(facts, package) if package else None
    return f"{named} {version}" if version else named


def _finding(facts: Facts, error: ErrorFact, verdict: Verdict, words: str) -> Finding:
    old, new = _titled(facts, verdict.old), _titled(facts, verdict.new)
    new = new[0].lower() + new[1:] if not verdict.new else new
    versions = {name.replace("-", "_"): installed_version(facts, name) for name in (verdict.old, verdict.new) if name}
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{old} is too old for {new}: {words}",
        "Each release of a package is written for the releases of the others that were there in its time."
        if verdict.change is None or not verdict.change.version
        else "The two have parted ways at that release; one of them has to move.",
        {**evidence(**versions), **seen(error)},
        (*_steps(facts, verdict), _RESTART),
        verdict.change.source if verdict.change else _PIP_CHECK,
        affects=("chat",),
        observed=True,
    )


def _steps(facts: Facts, verdict: Verdict) -> tuple[str, ...]:
    change, old, new = verdict.change, verdict.old, verdict.new
    if PYTHON in (old, new):
        return _other_python(facts, verdict)
    steps = []
    if old == "torch":
        bound = f" (at least {change.version})" if change and change.version else ""
        companions = [name for name in ("torchvision", "torchaudio") if facts.package(name)]
        steps.append(fixes.fresh_torch(facts, *companions, upgrade=True) + f"   # a newer torch{bound}")
    elif old and not may_install(facts, old):
        steps.append(f"Upgrade {old}, in the way it was installed")
    elif old:
        floor = f">={change.version}" if change and change.added and change.version and change.package == old else ""
        steps.append(fixes.install(facts, f"{old}{floor}", upgrade=True))
    pinned = _kept_back(facts, verdict)
    if pinned:
        steps.append(pinned if not steps else f"or, to keep {old} as it is: {pinned}")
    elif new and new != "torch" and not steps and may_install(facts, new):
        steps.append(fixes.install(facts, new, upgrade=True))
    return tuple(steps)


def _kept_back(facts: Facts, verdict: Verdict) -> str:
    """The command that takes the newer of the two back to where they fitted."""
    change, new = verdict.change, verdict.new
    if not new or new == "torch":
        return "a release of the program or package above that was made for this torch" if new and verdict.old else ""
    if change is not None and not change.added:
        return fixes.install(facts, f"{new}<{change.version}") if change.version else ""
    if not may_install(facts, new):
        return ""
    born = month_of(verdict.old, installed_version(facts, verdict.old))
    release = release_of_that_time(new, born[0] + 1) if born and born[1] else None
    return fixes.install(facts, f"{new}=={release}.*") if release else ""


def _other_python(facts: Facts, verdict: Verdict) -> tuple[str, ...]:
    change = verdict.change
    version = change.version if change else ""
    minor = int(version.split(".")[1]) if version else 12
    if verdict.old == PYTHON:
        return (f"An environment with a newer Python: uv venv --python {version or '3.12'} .venv",)
    steps = [fixes.install(facts, verdict.old, upgrade=True)] if may_install(facts, verdict.old) else []
    alternative = f"an environment with an older Python: uv venv --python 3.{minor - 1} .venv"
    return (*steps, f"or: {alternative}" if steps else alternative)


def _half_upgraded(facts: Facts, error: ErrorFact, package: str, name: str) -> Finding:
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{package} does not fit itself: {name} is not where another of its files looks for it",
        "It was upgraded while a program had it in memory, or an install over it left files of two versions.",
        {**evidence(**{package.replace("-", "_"): installed_version(facts, package)}), **seen(error)},
        (
            "Restart the notebook kernel or the program.",
            f"If it stays: {again(facts, package)}",
        ),
        _PIP_CHECK,
        affects=("chat",),
        observed=True,
    )


def _undecided(facts: Facts, error: ErrorFact, caller: str, package: str, name: str) -> Finding:
    """Two that do not fit, and nothing tells for certain which of them is too old."""
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{caller or 'Something'} asks {package} for {name}, which this version does not have",
        _why_undecided(caller, package, _likely_old(package, name)),
        {**evidence(**{package.replace("-", "_"): installed_version(facts, package)}, importer=caller), **seen(error)},
        (*_steps_undecided(facts, caller, package, _likely_old(package, name)), _RESTART),
        _PIP_CHECK,
        affects=("chat",),
        observed=True,
    )


def _why_undecided(caller: str, package: str, likely: str) -> str:
    if not caller:
        return "The program was written for another version, or files of two versions are mixed after an upgrade."
    written = f"{caller} was written for another version of {package}: "
    if likely == "caller":
        return written + "most likely an older one, since what stands deep in a package is moved without notice."
    if likely == "package":
        return written + "most likely a newer one, which brought the name."
    return written + "newer, if the name came later, else older."


def _steps_undecided(facts: Facts, caller: str, package: str, likely: str) -> tuple[str, ...]:
    if package == "torch":
        return (
            f"Upgrade torch to the release that {caller or 'the package in the traceback'} asks for, with the "
            "torchvision and torchaudio that belong to it",
            f"or take a release of {caller or 'that package'} that was made for this torch",
        )
    safe = [name for name in (caller, package) if may_install(facts, name)]
    check = "python -m pip check   # what the installed packages ask of each other, and do not get"
    if likely == "caller" and caller and caller not in safe:
        return (f"Upgrade {caller}, or the program that it belongs to; or take an older {package}.", check)
    return (fixes.install(facts, *safe, upgrade=True), check) if safe else (check,)


# Packages of many years, which move and remove more names than they gain.
_MATURE = frozenset(
    (
        *_FAMILY,
        "transformers",
        "datasets",
        "torchvision",
        "torchaudio",
        "numpy",
        "scipy",
        "pandas",
        "scikit-learn",
        "jax",
    )
) - {"unsloth", "unsloth-zoo", "optimum"}


def _likely_old(package: str, name: str) -> str:
    """Who is most likely too old: a function deep in a package was removed, a class at its top came later."""
    *inside, last = name.split(".")
    if package not in _MATURE:
        return ""
    if re.match(r"[A-Z]\w*[a-z]", last):
        return "" if inside else "package"
    return "caller" if inside else ""


_INSTALLABLE = frozenset((*map(pip_name, _KNOWN), "protobuf", "pydantic-core", "typing-extensions", "urllib3", "httpx"))


def may_install(facts: Facts, package: str) -> bool:
    """Whether this is the name of a package for certain: a folder in a traceback may be called otherwise than it."""
    return package in _INSTALLABLE or package in facts.packages or package in table("changes")


def again(facts: Facts, package: str) -> str:
    """What puts the files of a package there anew."""
    if not may_install(facts, package):
        return (
            f"Install {package or 'the package that the traceback names'} again, in a build for this Python and torch."
        )
    return fixes.install(facts, package, options="--force-reinstall --no-deps --no-cache-dir")


def _call(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """An argument, method or name that the other side of a call does not know."""
    found = _CALL.search(error.text)
    if found is None:
        return None
    callers = callers_of(error)
    call = found["call"] or found["positional"] or found["object"] or found["undefined"]
    argument, what = found["argument"] or "", found["argument"] or found["member"] or found["undefined"] or call
    whole = call if found["call"] else ".".join(filter(None, (call, found["member"])))
    owner = _owner(call)
    change = None if found["undefined"] else change_of_call(facts, whole, argument, (*callers, owner))
    caller = callers[0] if callers else _USUAL_CALLER.get(change.package, "") if change else ""
    if change is not None:
        beside = next((name for name in callers if name not in ("", change.package)), "")
        verdict = judge(facts, caller if caller != change.package else beside, change.package, change)
        return _finding(facts, error, verdict, _words(verdict, what)) if verdict else None
    return _call_across(facts, error, call, what, callers)


def _owner(call: str) -> str:
    """The package that a class or function is of, by its name; ``""`` when that is not known."""
    return next((name for pattern, name in _OWNERS if pattern.fullmatch(call.split(".")[0])), "")


def _call_across(facts: Facts, error: ErrorFact, call: str, what: str, callers: tuple[str, ...]) -> Optional[Finding]:
    """A call between two packages of which only their releases' times can tell which is too old."""
    owner = _owner(call)
    if not callers and owner == "transformers":
        if call.startswith("is_"):  # only its own files ask it what is available
            return _half_upgraded(facts, error, owner, what)
        return _undecided(facts, error, "", owner, what)
    packages = [name for name in dict.fromkeys((*callers[:3], owner)) if name]
    family = [name for name in packages if name in _FAMILY]
    together = [family[0], "unsloth_zoo" if "unsloth" in family[0] else "transformers"] if family else []
    if not family or (callers and not callers[0] and not owner):
        return None
    others = [name for name in ("transformers", *packages) if name != family[0]]
    verdict = next(filter(None, (by_time(facts, family[0], other) for other in others)), None)
    if verdict is not None:
        return _finding(facts, error, verdict, f"{what} is not what the other side of the call knows")
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{family[0]} and a package beside it do not agree on {what}",
        "It was written for another version of a package that it calls, most often transformers.",
        {**evidence(**{family[0].replace("-", "_"): facts.package(family[0])}), **seen(error)},
        (
            fixes.install(facts, *together, upgrade=True),
            "If that does not mend it, take the release of transformers that it names in its requirements: "
            f"{fixes.python_command(facts)} -c \"import importlib.metadata as m; print(m.requires('{family[0]}'))\"",
            _RESTART,
        ),
        _PIP_CHECK,
        affects=("chat",),
        observed=True,
    )
