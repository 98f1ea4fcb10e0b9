"""What an error that no table knows still tells: a module that is missing, a name that a package does not have."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen

# Import name to the name of the package, for what people run models with. Any other name may be the user's own file, or
# anybody's package: nothing is offered to be installed for those.
_SAME_NAME = (
    "accelerate auto_gptq bitsandbytes datasets deepspeed diffusers einops evaluate flash_attn gguf gptqmodel gradio "
    "hf_transfer huggingface_hub librosa liger_kernel lightning ninja numpy onnxruntime optimum packaging "
    "pandas peft pytorch_lightning ray safetensors scipy sentence_transformers sentencepiece soundfile tensorboard "
    "tiktoken timm tokenizers torchao torchaudio torchvision transformers trl unsloth vllm wandb xformers"
)
_PACKAGES = {
    "PIL": "pillow",
    "awq": "autoawq",
    "cv2": "opencv-python",
    "llama_cpp": "llama-cpp-python",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    **{name: name.replace("_", "-") for name in _SAME_NAME.split()},
}
_MISSING = re.compile(r"No module named '?(\w{1,60})'?(?![\w.])")
_MISMATCH = re.compile(
    r"cannot import name '(?P<name>\w{1,80})' from '(?P<package>[A-Za-z]\w{0,60})[\w.]{0,80}'"
    r"|No module named '(?P<package2>[A-Za-z]\w{0,60})(?P<module>\.[\w.]{1,80})'"
    r"|module '(?P<package3>[A-Za-z]\w{0,60})[\w.]{0,80}' has no attribute '(?P<attribute>\w{1,80})'"
)


def guessed_error(facts: Facts, error: ErrorFact) -> Optional[list[Finding]]:
    """A finding on an unknown exception, where its own words are enough for one."""
    missing = _MISSING.search(error.text)
    if missing and missing[1] in _PACKAGES:
        return [_missing(facts, error, missing[1])]
    mismatch = _MISMATCH.search(error.text)
    if mismatch is None:
        return _raised_inside(facts, error)
    package = mismatch["package"] or mismatch["package2"] or mismatch["package3"]
    installed = package in _PACKAGES or package == "torch" or re.search(rf"-packages[/\\]{package}\b", error.text)
    if not installed:
        return None
    return [
        _mismatch(facts, error, package, mismatch["name"] or (mismatch["module"] or "")[1:] or mismatch["attribute"])
    ]


# Names and arguments that do not exist, met inside an installed package: it was written for another one.
_INSIDE = re.compile(
    r"NameError: name '(?P<name>\w{1,80})' is not defined|(?P<call>[\w.]{1,80})\(\) got an unexpected keyword argument "
    r"'(?P<argument>\w{1,80})'|object has no attribute '(?P<attribute>\w{1,80})'"
)


def _raised_inside(facts: Facts, error: ErrorFact) -> Optional[list[Finding]]:
    importer = error.values.get("importer", "")
    inside = _INSIDE.search(error.text)
    if inside is None or importer not in _PACKAGES or importer in ("numpy", "pandas", "scipy"):
        return None
    what = inside["name"] or inside["argument"] or inside["attribute"]
    name = _PACKAGES[importer]
    return [
        Finding(
            "package-versions-do-not-fit",
            "error",
            f"{name} uses {what}, which the package that it calls does not have",
            "It was written for another version of a package beside it, most often transformers.",
            {**evidence(importer=name, **{name.replace("-", "_"): facts.package(name)}), **seen(error)},
            (
                fixes.install(facts, name, *(() if name == "transformers" else ("transformers",)), upgrade=True),
                "If that does not mend it, take the release of transformers that this one names in its requirements: "
                f"{fixes.python_command(facts)} -c \"import importlib.metadata as m; print(m.requires('{name}'))\"",
                "Restart the notebook kernel or the program, in case it was upgraded while running.",
            ),
            "https://pip.pypa.io/en/stable/cli/pip_check/",
            affects=("chat",),
            observed=True,
        )
    ]


def _missing(facts: Facts, error: ErrorFact, module: str) -> Finding:
    name = _PACKAGES[module]
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


def _mismatch(facts: Facts, error: ErrorFact, package: str, name: str) -> Finding:
    importer = error.values.get("importer", "")
    other = importer if importer and importer != package else ""
    pip_name = _PACKAGES.get(package, package.replace("_", "-"))
    both = [word for word in (_PACKAGES.get(other, ""), pip_name if package in _PACKAGES else "") if word]
    if other:
        why = f"{other} was written for another version of {package}: newer, if the name came later, else older."
    else:
        why = "The program was written for another version, or files of two versions are mixed after an upgrade."
    restart = "Restart the notebook kernel or the program, in case it was upgraded while running."
    steps = [fixes.install(facts, *both, upgrade=True)] if both else []
    if package == "torch":
        steps = [
            f"Upgrade torch to the release that {other or 'the package in the traceback'} asks for, with the "
            "torchvision and torchaudio that belong to it",
            f"or take a release of {other or 'that package'} that was made for this torch",
        ]
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{other or 'Something'} asks {package} for {name}, which this version does not have",
        why,
        {**evidence(**{pip_name.replace("-", "_"): facts.package(pip_name)}, importer=importer), **seen(error)},
        (*steps, restart),
        "https://pip.pypa.io/en/stable/cli/pip_check/",
        affects=("chat",),
        observed=True,
    )
