"""Rules about programs that the shell does not find. Needs the tables."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen

# The package that brings a command, and the module that does the same without it.
_COMMANDS = {
    "accelerate": ("accelerate", "accelerate.commands.accelerate_cli"),
    "huggingface-cli": ("huggingface_hub", ""),
    "hf": ("huggingface_hub", "huggingface_hub.cli.hf"),
    "deepspeed": ("deepspeed", "deepspeed.launcher.runner"),
    "torchrun": ("torch", "torch.distributed.run"),
    "vllm": ("vllm", "vllm.entrypoints.cli.main"),
    "jupyter": ("jupyter", "jupyter"),
    "tensorboard": ("tensorboard", "tensorboard.main"),
    "streamlit": ("streamlit", "streamlit"),
    "uvicorn": ("uvicorn", "uvicorn"),
    "modelscope": ("modelscope", "modelscope.cli.cli"),
    "llamafactory-cli": ("llamafactory", "llamafactory.cli"),
    "lm_eval": ("lm-eval", "lm_eval"),
    "lm-eval": ("lm-eval", "lm_eval"),
    "swift": ("ms-swift", "swift.cli.main"),  # what the index calls swift is OpenStack's
    "whisper": ("openai-whisper", "whisper"),
    "optimum-cli": ("optimum", "optimum.commands.optimum_cli"),
    "autotrain": ("autotrain-advanced", ""),
}
_PATH = re.compile(r"[\w.@+~:/\\ -]{2,200}")


def command_not_found(facts: Facts) -> Result:
    """A command of a package that stands in no folder of PATH."""
    error = facts.error("command-not-found")
    if error is None:
        return PASSED
    command = error.values["command"].lower()
    package, module = _COMMANDS.get(command, (command, ""))
    told = facts.error("script-off-path")
    folder = told.values.get("folder", "") if told else ""
    installed = facts.package(package.replace("_", "-")) or folder
    return [
        Finding(
            "command-not-found",
            "error",
            f"{command} is not found: {'its folder' if installed else 'the environment that has it'} is not on this "
            "shell's PATH" + ("" if installed else ", or it was not installed there"),
            "pip puts a package's command into the bin folder (Windows: Scripts) of the Python that it belongs to; a "
            "shell finds it only where that environment is active.",
            {**evidence(folder=folder, installed=installed or None), **seen(error)},
            _steps(_in_its_shell(facts, error.text), command, package, module, folder),
            "https://packaging.python.org/en/latest/tutorials/installing-packages/",
            affects=("chat", "vram"),
            observed=True,
        )
    ]


def _in_its_shell(facts: Facts, text: str) -> Facts:
    """`facts` on Windows, where only its shells speak like that."""
    if facts.platform.system is None and re.search(r"cmdlet|batch file|recogni[sz]ed as|不是内部|als Name", text):
        return replace(facts, platform=replace(facts.platform, system="Windows"))
    return facts


def _steps(facts: Facts, command: str, package: str, module: str, folder: str) -> tuple[str, ...]:
    windows = fixes.on_windows(facts)
    python = fixes.python_command(facts)
    known = _PATH.fullmatch(folder) is not None
    add = _on_path(facts, folder) if known else _on_path(facts, None)
    activate = (
        r"<the environment>\Scripts\activate   # or: conda activate <name>; then the command again in this same window"
        if windows
        else "conda activate <the environment>   # or: source <venv>/bin/activate; then the command again in this shell"
    )
    instead = f"{python} -m {module} …   # in place of {command}; runs with the Python that is active" if module else ""
    if command == "llamafactory-cli":
        install = (
            fixes.install(facts, ".[torch,metrics]", options="-e")
            + "   # in LLaMA-Factory's folder, with its environment active; its requirements alone bring no command"
        )
    else:
        install = fixes.install(facts, package, upgrade=True) + "   # with the environment active"
    steps = (add, instead, activate, install) if known else (instead, activate, install, add)
    if not known and (command == "llamafactory-cli" or not instead):
        steps = (install, activate, instead, add)
    return tuple(step if number == 0 else f"or: {step}" for number, step in enumerate(filter(None, steps)))


def _on_path(facts: Facts, folder: Optional[str]) -> str:
    if fixes.on_windows(facts):
        return f'$env:Path = "{folder or "<its Scripts folder>"};$env:Path"   # for good: the environment variables'
    where = folder or "$(python3 -m site --user-base)/bin"
    return f'export PATH="{where}:$PATH"   # into ~/.bashrc or ~/.zshrc too'


RULES: tuple[Rule, ...] = (command_not_found,)
