"""That a fix for Windows is typed in Windows' own words, whatever row of the tables it comes from."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.facts import ErrorFact, Facts, PlatformFacts
from workbench.doctor.parse.report import parse_report
from workbench.doctor.rules import plain
from workbench.doctor.shells import for_micromamba, for_powershell
from workbench.doctor.tables import faults, table
from workbench.doctor.typed_steps import in_environment

WINDOWS = Facts(origin="report", platform=PlatformFacts(system="Windows"))


@pytest.mark.parametrize(
    ("step", "put"),
    [
        ("export USE_TF=0   # before Python starts", '$env:USE_TF = "0"   # before Python starts'),
        ("or: export A_B=1 CC=x,y, and run again", 'or: $env:A_B = "1"; $env:CC = "x,y", and run again'),
        ("echo 1   # then: export HF_HUB_OFFLINE=1", 'echo 1   # then: $env:HF_HUB_OFFLINE = "1"'),
        ("export PATH=<its folder>:$PATH", '$env:Path = "<its folder>;$env:Path"'),
        ("unset HF_TOKEN HF_HOME", "Remove-Item Env:HF_TOKEN, Env:HF_HOME"),
        ("CUDA_VISIBLE_DEVICES=0 python train.py", '$env:CUDA_VISIBLE_DEVICES = "0"; python train.py'),
        ("rm -rf ~/.triton/cache && python x.py", "Remove-Item -Recurse -Force $HOME/.triton/cache; python x.py"),
        ("rm -rf ~/.cache/torch_extensions", r"Remove-Item -Recurse -Force $env:LOCALAPPDATA\torch_extensions"),
        ("python -m pip list | grep -iE '^torch|vllm'", "python -m pip list | Select-String '^torch|vllm'"),
        ("x 2>&1 | grep -n -m5 -iE 'error'", "x 2>&1 | Select-String 'error' | Select-Object -First 5"),
        ("which -a python pip   # two?", "where.exe python pip   # two?"),
        ("python3 -m venv .venv && source .venv/bin/activate", r"python -m venv .venv; .venv\Scripts\activate"),
        ("sudo nvidia-smi -pl 200   # less", "nvidia-smi -pl 200   # in a terminal as administrator; less"),
        ("ls -lL <folder>   # how large?", "dir <folder>   # how large?"),
        ("pip install -U 'a<2' 'b[c]>=1'; python x.py", 'pip install -U "a<2" "b[c]>=1"; python x.py'),
    ],
)
def test_what_powershell_has_is_said_in_its_words(step: str, put: str) -> None:
    assert for_powershell((step,)) == (put,)


def test_what_is_of_linux_alone_comes_last_and_says_so() -> None:
    steps = ("sudo ldconfig", "unset LD_LIBRARY_PATH   # why", "nvidia-smi")
    assert for_powershell(steps) == (
        "nvidia-smi",
        "On Linux: sudo ldconfig",
        "On Linux: unset LD_LIBRARY_PATH   # why",
    )
    assert for_powershell(steps[:2]) == steps[:2]  # a fault of Linux, whatever the report says of Windows


@pytest.mark.parametrize(
    "step",
    [
        "or a ready-made wheel, which compiles nothing; source that one",
        "In a container: export HF_TOKEN=<token>",
        "On Linux: sudo ldconfig && export A_B=1",
        "Add iommu=pt in /etc/default/grub; sudo reboot",
    ],
)
def test_sentences_and_other_places_stay(step: str) -> None:
    assert for_powershell((step, "nvidia-smi")) == (step, "nvidia-smi")


def test_what_goes_into_wsl_keeps_its_order() -> None:
    steps = ("wsl --update", "in it: sudo apt install python3-venv && source env/bin/activate")
    assert for_powershell(steps) == steps
    inside = Facts(origin="report", platform=PlatformFacts(system="Windows", container="docker"))
    assert in_environment(inside, ("export USE_TF=0",)) == ("export USE_TF=0",)


_FOR_UNIX_SHELLS = re.compile(
    r"\b(?:export [A-Z_\d]+=[\w.-]+$|unset [A-Z]|which -a)|^[A-Z_\d]{4,}=\S+ python|\| grep -i "
)


def test_no_row_for_windows_begins_in_the_words_of_another_shell() -> None:
    rows = [*faults(), *table("symptoms")["symptom"]]
    wrong = []
    for row in rows:
        error = ErrorFact(row["id"], "x")
        steps = tuple(plain._step(WINDOWS, plain._filled(step, error)) for step in plain._steps(WINDOWS, row, error))
        put = in_environment(WINDOWS, steps)
        commands = [step.partition("   # ")[0] for step in put]
        here = [
            step for step in commands if not re.search(r"\b(?:Linux|WSL|container|image|machine|node|host)\b", step)
        ]
        if put != steps:
            wrong += [(row["id"], step) for step in here if _FOR_UNIX_SHELLS.search(step) and "/" not in step]
            assert not put[0].startswith("On Linux: "), row["id"]
    assert len(rows) > 800
    assert wrong == []


def test_a_report_of_windows_gets_windows_commands() -> None:
    text = (
        "OS: Microsoft Windows 11 Pro\nPython version: 3.10.11\n"
        "ModuleNotFoundError: No module named 'transformers'\nRequirement already satisfied: transformers in c:\\py\n"
        "transformers 4.40.0\n"
    )
    steps = diagnose(parse_report(text)).findings[0].fix
    assert any("where.exe python" in step for step in steps)
    assert not any("which -a" in step for step in steps)


def test_a_mac_is_asked_with_its_own_programs() -> None:
    mac = Facts(origin="report", platform=PlatformFacts(system="Darwin"))
    steps = ("sudo systemctl restart x", "sudo dmesg | grep -iE 'out of memory|oom' | tail -3; free -h   # was it so?")
    assert in_environment(mac, steps) == (
        "log show --last 1h --predicate 'eventMessage CONTAINS \"memorystatus\"' | tail -3; sysctl -n hw.memsize; "
        "memory_pressure | tail -1   # was it so?",
        "On Linux: sudo systemctl restart x",
    )
    assert in_environment(mac, steps[:1]) == steps[:1]


@pytest.mark.parametrize(
    ("step", "cell"),
    [
        ("python -m pip install -U 'peft>=0.18'   # newer", "%pip install -U 'peft>=0.18'   # newer"),
        ("or, to keep it: python -m pip uninstall -y x", "or, to keep it: %pip uninstall -y x"),
        ("pip uninstall -y x && pip install y", "!pip uninstall -y x && pip install y"),
        ("nvidia-smi   # is it there?", "!nvidia-smi   # is it there?"),
        (
            "export A_B=1 C_D='x y'   # before torch",
            'import os; os.environ.update(A_B="1", C_D="x y")   # before torch',
        ),
        ("hf auth login   # a token", "from huggingface_hub import notebook_login; notebook_login()   # a token"),
        ("pip: python -m pip install x", "pip: python -m pip install x"),
        ("unset HF_TOKEN", 'import os; os.environ.pop("HF_TOKEN", None)'),
        ("export LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH", "export LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH"),
        ("Restart the notebook kernel or the program.", "Restart the notebook kernel or the program."),
        ("model.to('cuda')", "model.to('cuda')"),
    ],
)
def test_a_notebook_is_told_what_a_cell_takes(step: str, cell: str) -> None:
    colab = Facts(origin="report", platform=PlatformFacts(system="Linux", service="colab"))
    assert in_environment(colab, (step,)) == (cell,)
    assert in_environment(replace(colab, platform=PlatformFacts(system="Linux")), (step,)) == (step,)


def test_what_keeps_a_variable_stands_in_one_cell() -> None:
    kaggle = Facts(origin="report", platform=PlatformFacts(system="Linux", service="kaggle"))
    steps = ("eval $(python -c 'print(\"T=1\")')", "python -m pip install torch==$T")
    assert in_environment(kaggle, steps)[0].startswith("%%bash")
    assert in_environment(kaggle, steps)[1:] == steps


def test_micromamba_takes_the_place_of_conda_as_a_command_only() -> None:
    """Words, paths and other commands stay."""
    steps = ("conda install -y -c conda-forge gxx", "or: conda activate dl   # a conda environment", "python x.py")
    assert for_micromamba(steps) == (
        "micromamba install -y -c conda-forge gxx",
        "or: micromamba activate dl   # a conda environment",
        "python x.py",
    )
