"""A name or module that a package does not have. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import PYTHON, change_of, installed_version, pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.unknown.apart import changed
from workbench.doctor.rules.unknown.instead import another_copy
from workbench.doctor.rules.unknown.packages import again, callers_of, known_imports, may_install
from workbench.doctor.tables import build_of, names_read, names_text, packages_read, table
from workbench.doctor.versions import at_least, older

_NAME = re.compile(
    r"cannot import name '(?P<name>\w{1,80})' from (?P<half>partially initialized module )?"
    r"'(?P<module>\w{1,60}(?:\.\w{1,60}){0,6})"
    r"|No module named '(?P<path>\w{1,60}\.[\w.]{1,100})'"
    r"|(?P<half2>partially initialized )?module '?(?P<owner>[\w.]{1,120})'? has no attribute '?(?P<attribute>\w{1,80})"
)

# What people write by hand, for its spelling.
_SPELLED = (
    "LoraConfig PeftModel PeftConfig TaskType AutoModelForCausalLM AutoModel AutoTokenizer AutoConfig AutoProcessor "
    "BitsAndBytesConfig TrainingArguments Trainer SFTTrainer SFTConfig DPOTrainer DPOConfig GenerationConfig Dataset "
    "LlamaForCausalLM LlamaTokenizer LlamaConfig "
    "DatasetDict load_dataset Accelerator StableDiffusionPipeline FastLanguageModel"
)


# What a title or a sentence leaves out: where the name was to come from.
_ALONE = re.compile(r"cannot import name '(?P<name>\w{4,80})'(?! from)")


def _only_owner(text: str) -> str:
    """The package that a name alone stands for: the only one of those read that ever had it at its top."""
    found = _ALONE.search(text)
    if found is None:
        return ""
    at_top = re.compile(rf"(?<![\w.(]){found['name']}(?![\w.(])")
    owners = [package for package in packages_read() if at_top.search(names_text(package))]
    return owners[0].replace("-", "_") if len(owners) == 1 else ""


def name_missing(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A name or module that a package does not have."""
    asked = error.values.get("module") or _only_owner(error.text)
    found = _NAME.search(f"{error.text} from '{asked}'" if asked else error.text)
    if found is None:
        return None
    module = found["module"] or found["owner"] or found["path"]
    path = ".".join(filter(None, (module, found["name"] or found["attribute"])))
    package = pip_name(module)
    below = path.split(".", 2)[-1] if package == "protobuf" else path.split(".", 1)[-1]
    python = change_of(PYTHON, path, facts.python.version)
    # A package may have a name that Python's own library has too: typing_extensions.Self.
    if python is not None and module.split(".")[0] == python.name.split(".")[0]:
        return changed(facts, error, PYTHON, python, path)
    change = change_of(package, below, installed_version(facts, package))
    first = module.split(".")[0]
    callers = callers_of(error)
    asked_by_package = bool(callers and callers[0])  # code of a program of one's own may mean a file beside it
    if "(unknown location)" in error.text and found["name"] and first not in known_imports():
        return _bare_folder(facts, error, first)
    installed = change or first in known_imports() or first == "torch" or package in callers or asked_by_package
    if not installed and not re.search(rf"-packages[/\\]{first}\b", error.text) and package not in facts.packages:
        return None
    shadow = _shadowed(error, first, bool(found["half"] or found["half2"])) or _not_the_package(
        facts, error, package, first, path
    )
    if shadow is not None:
        return shadow
    own = below.split(".")[-1]
    if (
        package == "diffusers"
        and change is None
        and _WITH_TRANSFORMERS.search(below)
        and not facts.package("transformers")
    ):
        return _without_transformers(facts, error, own)
    if package == "transformers" and _OF_TENSORFLOW.match(own) and older(installed_version(facts, package), "5.0"):
        return _without_tensorflow(facts, error, own)
    if found["path"] and own.startswith("_") and (package in callers[:1] or own == f"_{first}"):
        return _compiled_part_missing(facts, error, package, path)
    if found["attribute"] and change is None and not asked_by_package and _is_module(package, below):
        return _not_imported_yet(error, package, f"{found['owner']}.{own}")
    return (
        _misspelled(error, package, found["name"] or found["attribute"] or "")
        or another_copy(facts, error, package, below)
        or changed(facts, error, package, change, below)
    )


def _is_module(package: str, path: str) -> bool:
    """Whether a package has a module at `path`, by the names in it that have come or gone."""
    return bool(re.search(rf"(?<![\w.]){re.escape(path)}\.\w", names_text(package)))


def _not_imported_yet(error: ErrorFact, package: str, path: str) -> Finding:
    return Finding(
        "part-not-imported",
        "error",
        f"{path} is a module that nothing has imported: {package} offers its parts only once they are",
        "A program that never imports it lives on what another part of the package happened to import, which changes "
        "from release to release.",
        seen(error),
        (f"import {path}   # at the top of the program", f"or: from {path} import <what is used of it>"),
        "https://docs.python.org/3/reference/import.html#submodules",
        affects=("chat",),
        observed=True,
    )


def import_cut(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """An import whose error was cut off, where one of its names came after the version that is here, or is gone."""
    module = error.values.get("module", "")
    package = pip_name(module)
    version = installed_version(facts, package)
    below = module.split(".")[1:]
    names = error.values.get("names", "").split(",")
    for name in names if version else ():
        change = change_of(package, ".".join((*below, name)), version)
        if change is not None:
            return changed(facts, error, package, change, name)
    return _gone_most_likely(facts, error, package, [(name, ".".join((*below, name))) for name in names])


def _gone_most_likely(
    facts: Facts, error: ErrorFact, package: str, names: Sequence[tuple[str, str]]
) -> Optional[Finding]:
    """A cut-off import by another package of a name that newer releases have not: one of its names was not found."""
    caller = next(filter(None, callers_of(error)), "")
    if installed_version(facts, package) or not caller or not may_install(facts, caller) or caller == package:
        return None
    for name, path in names:
        change = change_of(package, path, None)
        if change is not None and not change.added:
            found = changed(facts, error, package, change, name)
            return found and replace(found, severity="warning", title=f"Likely: {found.title}")
    return None


# What transformers before 5 offers only beside a TensorFlow.
_OF_TENSORFLOW = re.compile(r"TF[A-Z]|GradientAccumulator$|TF2_WEIGHTS_NAME$|create_optimizer$|WarmUp$")


def _without_tensorflow(facts: Facts, error: ErrorFact, name: str) -> Finding:
    version = installed_version(facts, "transformers")
    return Finding(
        "tensorflow-not-found",
        "error",
        f"transformers {version} finds no TensorFlow that it can import here, and leaves out {name}",
        "Up to 4.57 its classes for TensorFlow are there only beside a TensorFlow 2 in the same Python; one that is "
        "older, in another environment, or that fails when it is imported counts as none, and so does USE_TF=0.",
        {**evidence(transformers=version, tensorflow=facts.package("tensorflow")), **seen(error)},
        (
            f'{fixes.python_command(facts)} -c "import tensorflow as tf; print(tf.__version__, tf.__file__)"'
            "   # an error here is the cause: mend it first, or else go on",
            fixes.install(facts, "tensorflow", "tf-keras", upgrade=True),
            "unset USE_TORCH; export USE_TF=1   # where USE_TORCH is set, TensorFlow is not looked for",
            "Restart the notebook kernel or the program.",
        ),
        "https://huggingface.co/docs/transformers/v4.57.1/installation",
        affects=("chat",),
        observed=True,
    )


# What diffusers has had in all its releases, beside a transformers that it can import.
_WITH_TRANSFORMERS = re.compile(r"^pipelines\.stable_diffusion\w*\.[A-Z]\w+$")


def _without_transformers(facts: Facts, error: ErrorFact, name: str) -> Finding:
    return Finding(
        "transformers-missing",
        "error",
        f"diffusers leaves out {name}: it finds no transformers that it can import here",
        "Its pipelines for texts are there only beside transformers and torch in the same Python; where those are "
        "missing, or fail when they are imported, it says nothing.",
        {**evidence(diffusers=facts.package("diffusers")), **seen(error)},
        (
            fixes.install(facts, "transformers", "accelerate", upgrade=True),
            f'{fixes.python_command(facts)} -c "import torch, transformers, diffusers.pipelines"   # what fails here?',
            "Restart the notebook kernel or the program.",
        ),
        "https://huggingface.co/docs/diffusers/installation",
        affects=("chat",),
        observed=True,
    )


def _bare_folder(facts: Facts, error: ErrorFact, module: str) -> Finding:
    """Python names no file of what it has imported: it is a folder without an __init__.py."""
    return Finding(
        "package-shadowed",
        "error",
        f"What is imported as {module} is a bare folder, and no package",
        "Without an __init__.py in it, any folder of that name is taken: the empty one of a git submodule, or a "
        "repository's own folder, in which the package lies one level deeper.",
        seen(error),
        (
            f"pip install -e ./{module}   # in the program's repository; first, where that folder is empty: git "
            "submodule update --init --recursive",
            f'{fixes.python_command(facts)} -c "import {module}; print({module}.__path__)"   # which folder it is; '
            "start the program elsewhere than beside it",
        ),
        "https://docs.python.org/3/tutorial/modules.html#the-module-search-path",
        affects=("chat",),
        observed=True,
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


def _emptied_folder(facts: Facts, error: ErrorFact, module: str, name: str) -> Finding:
    """Python knows no file of the package: only a folder of its name is there."""
    builds = " --no-build-isolation" if (build_of(name) or {}).get("needs") == "cuda" else ""
    options = f"--force-reinstall --no-deps{builds}"
    return Finding(
        "package-shadowed",
        "error",
        f"What is imported as {module} is a folder without the package: what an install or an uninstall left, or one "
        "of that name where the program starts",
        "Without an __init__.py in it any folder of that name is taken. An uninstall takes the files along that "
        "another package of the same folder needs, and one that breaks off leaves half of them.",
        seen(error),
        (
            f"{fixes.install(facts, name, options=options)}   # puts its files back",
            f'{fixes.python_command(facts)} -c "import {module}; print({module}.__path__)"   # still without, and this '
            "is no folder of site-packages? Then rename it, or start the program elsewhere",
        ),
        "https://docs.python.org/3/tutorial/modules.html#the-module-search-path",
        affects=("chat",),
        observed=True,
    )


# Packages whose name on the index belongs to somebody else.
_REALLY_CALLED = {"whisper": "openai-whisper"}


def _not_the_package(facts: Facts, error: ErrorFact, package: str, module: str, path: str) -> Optional[Finding]:
    """Something else has a package's name: it lacks what the package always had, or it is a bare folder."""
    at_top = path.split(".")[1:]
    read = names_read(package)
    since_then = at_least(installed_version(facts, package), read.get("oldest", ""))
    steady = read.get("always", "") if since_then and "partially initialized" not in error.text else ""
    always = f"{table('steady_names')['packages'].get(module, '')} {steady}"
    core = len(at_top) == 1 and at_top[0] in always.split()
    place = re.search(rf"\(((?:[A-Za-z]:|~)?[/\\][^()\n]{{0,200}}[/\\]{module}[/\\]__init__\.py)\)", error.text)
    nowhere = "(unknown location)" in error.text and module in known_imports()
    if not (core or nowhere) or (place and re.search(r"(?:site|dist)-packages", place[1])):
        return None
    name = _REALLY_CALLED.get(module, package)
    if nowhere and not core and module not in _REALLY_CALLED:
        return _emptied_folder(facts, error, module, name)
    return Finding(
        "package-shadowed",
        "error",
        f"What is imported as {module} is not the package of that name",
        "A file or folder of that name stands where the program is started, or an uninstall left an empty folder "
        "behind; Python takes the first that it finds."
        + (f" On the index, {module} is another package than {name}." if module in _REALLY_CALLED else ""),
        {**evidence(file=place[1] if place else None), **seen(error)},
        (
            f'{fixes.python_command(facts)} -c "import {module}; print({module}.__path__, {module}.__file__)"'
            "   # what it is",
            f"Rename that file or folder ({module}.py, {module}/, and __pycache__ beside it), or start the program in "
            "another folder.",
            fixes.install(facts, name, options="--force-reinstall --no-deps")
            + "   # where nothing of that name is there",
        )
        if module not in _REALLY_CALLED
        else (
            f"{fixes.uninstall(facts, module)} && {fixes.install(facts, name, upgrade=True)}",
            f"Rename a file {module}.py of your own, where there is one.",
        ),
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
