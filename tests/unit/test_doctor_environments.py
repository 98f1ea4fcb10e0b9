from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import workbench
from workbench.doctor.compare import ABSENT, compare
from workbench.doctor.environment import mask_text, mask_value, relevant_environment
from workbench.doctor.environments import find_environments
from workbench.doctor.facts import DriverFacts, Facts, GpuFacts, TorchFacts
from workbench.doctor.parse.report import parse_report
from workbench.errors import JobCancelled
from workbench.job import Job

ROOT = str(Path(workbench.__path__[0]).parent)


def make_environment(prefix: Path, config: str | None, torch: str | None = None, cuda: str | None = None) -> Path:
    packages = prefix / "lib" / "python3.12" / "site-packages"
    packages.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(sys.executable)
    if config is None:
        (prefix / "conda-meta").mkdir()
        (prefix / "conda-meta" / "python-3.12.4-h1_0.json").write_text("{}")
    else:
        (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion_info = 3.12.4\n{config}")
    if torch:
        (packages / "torch").mkdir()
        (packages / "torch" / "__init__.py").touch()
        (packages / "torch" / "version.py").write_text(f"__version__ = '{torch}'\ncuda: str = {cuda!r}\nhip = None\n")
        info = packages / f"torch-{torch}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: torch\nVersion: {torch}\n\n")
    return prefix


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_EXE", "PYENV_ROOT", "WORKON_HOME", "PIPX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return folder


def test_finds_environments_of_every_kind_with_their_torch(home: Path) -> None:
    make_environment(home / "work" / "train" / ".venv", "uv = 0.9.1\n", "2.8.0+cu128", "12.8")
    make_environment(home / "plain", "", "2.6.0+cpu")
    make_environment(home / ".cache/pypoetry/virtualenvs/api-x-py3.12", "")
    make_environment(home / ".local/share/pipx/venvs/ruff", "")
    make_environment(home / "miniconda3" / "envs" / "llm", None, "2.5.1", "12.4")
    make_environment(home / ".pyenv" / "versions" / "3.12.1", "")
    shutil.rmtree(home / ".pyenv" / "versions" / "3.12.1")
    found = {item.name: item for item in find_environments()}
    assert found["train/.venv"].kind == "uv"
    assert (found["train/.venv"].torch, found["train/.venv"].cuda) == ("2.8.0+cu128", "12.8")
    assert (found["plain"].kind, found["plain"].torch_build, found["plain"].cuda) == ("venv", "cpu", None)
    assert found["api-x-py3.12"].kind == "poetry"
    assert found["ruff"].kind == "pipx"
    assert (found["llm"].kind, found["llm"].python_version, found["llm"].cuda) == ("conda", "3.12.4", "12.4")
    assert found["llm"].python == str(home / "miniconda3/envs/llm/bin/python")
    json.dumps([asdict(item) for item in found.values()])


def test_current_environment_comes_first_and_once(home: Path) -> None:
    found = find_environments()
    assert found[0].current
    assert os.path.realpath(found[0].prefix) == os.path.realpath(sys.prefix)
    assert sum(item.current for item in found) == 1
    assert len({os.path.realpath(item.prefix) for item in found}) == len(found)


def test_environment_whose_interpreter_is_gone_says_so(home: Path) -> None:
    prefix = make_environment(home / "gone", "")
    (prefix / "bin" / "python").unlink()
    (prefix / "bin" / "python").symlink_to("/nowhere/python3.12")
    item = next(item for item in find_environments() if item.name == "gone")
    assert "/nowhere/python3.12" in item.broken


def test_looks_into_directories_that_are_asked_for(home: Path, tmp_path: Path) -> None:
    make_environment(tmp_path / "far" / "away" / "venv", "")
    assert not any(item.name == "away/venv" for item in find_environments())
    assert any(item.name == "away/venv" for item in find_environments(extra=(str(tmp_path / "far"),)))


def test_search_can_be_cancelled(home: Path) -> None:
    class Cancelled(Job):
        def check(self) -> None:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        find_environments(Cancelled())


def test_difference_that_explains_the_fault_comes_first() -> None:
    works = parse_report(
        "PyTorch version: 2.8.0+cu128\nIs CUDA available: True\nNvidia driver version: 570.86.10\n"
        "GPU models and configuration: GPU 0: NVIDIA L4\nPython version: 3.12.3 (64-bit runtime)\nnumpy==2.2.6\n"
    )
    fails = parse_report(
        "PyTorch version: 2.12.0+cu130\nIs CUDA available: False\nNvidia driver version: 550.54.15\n"
        "GPU models and configuration: GPU 0: NVIDIA L4\nPython version: 3.12.3 (64-bit runtime)\nnumpy==2.1.0\n"
    )
    differences = compare(works, fails)
    explaining = {item.name for item in differences if "driver-too-old-for-wheel-cuda" in item.explains}
    # CUDA 13 would not run on the other side's driver either, so the driver is not what makes the difference.
    assert {"torch.cuda", "torch.version"} <= explaining
    assert "driver.version" not in explaining
    assert "packages.numpy" not in explaining
    names = [item.name for item in differences]
    assert names.index("driver.version") < names.index("packages.numpy")
    assert "python.version" not in names
    assert "gpus" not in names


def test_missing_package_explains_and_a_pastes_silence_does_not() -> None:
    left = Facts(packages={"accelerate": "1.0.0", "transformers": "4.56.1"}, torch=TorchFacts(installed=True))
    right = Facts(packages={"transformers": "4.56.1"}, absent=("accelerate",), torch=TorchFacts(installed=True))
    difference = next(item for item in compare(left, right) if item.name == "packages.accelerate")
    assert difference.right == ABSENT
    assert difference.explains == ("accelerate-missing",)
    assert not compare(left, replace(right, origin="report", absent=()))


def test_unknown_facts_and_equal_environments_differ_in_nothing() -> None:
    known = Facts(driver=DriverFacts(version="570.86.10"), gpus=(GpuFacts(0, "NVIDIA L4"),), origin="report")
    assert compare(known, known) == []
    assert compare(known, Facts(origin="report")) == []


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HF_TOKEN", "hf_abc", "***"),
        ("HF_HOME", "hf_hub_download", "hf_hub_download"),
        ("HUGGING_FACE_HUB_TOKEN", "x", "***"),
        ("NCCL_API_KEY", "x", "***"),
        ("PIP_INDEX_URL", "https://user:secret@host/simple", "https://***@host/simple"),
        ("PIP_EXTRA_INDEX_URL", "https://host/simple?token=abc&x=1", "https://host/simple?token=***&x=1"),
        ("TOKENIZERS_PARALLELISM", "false", "false"),
        ("CUDA_VISIBLE_DEVICES", "0,1", "0,1"),
        ("HF_HOME", "/data/hf_cache", "/data/hf_cache"),
        ("HF_TOKEN", "", ""),
    ],
)
def test_values_are_masked(name: str, value: str, shown: str) -> None:
    assert mask_value(name, value) == shown


def test_only_variables_that_matter_are_taken() -> None:
    taken = relevant_environment({"HF_TOKEN": "hf_x", "HOME": "/root", "MY_PASSWORD": "x", "BNB_CUDA_VERSION": ""})
    assert taken == {"BNB_CUDA_VERSION": "", "HF_TOKEN": "***"}


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdef0123456789",
        "password=abcdef0123456789",
        "token: abcdef0123456789",
        "hf_abcdef0123456789",
        "ghp_abcdef0123456789abcd",
        "https://abcdef0123456789@host",
        "api_key='abcdef0123456789'",
    ],
)
def test_secrets_in_free_text_are_masked(text: str) -> None:
    assert "abcdef" not in mask_text(f"failed: {text} (line 3)")


def interpreters() -> list[str]:
    installed = sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python"))
    usable = [str(path) for path in installed if int(path.parent.parent.name.split(".")[1]) >= 9]
    others = [shutil.which(f"python3.{minor}") or "" for minor in (9, 10, 12, 13)]
    return [*usable, *(path for path in others if path and "shims" not in path)] or [sys.executable]


@pytest.mark.parametrize("python", interpreters())
def test_whole_package_needs_only_the_standard_library(python: str) -> None:
    code = (
        "import sys, json\n"
        f"sys.path.append({ROOT!r})\n"
        "import workbench.doctor.probe, workbench.doctor.selftest_child, workbench.doctor.selftest\n"
        "from workbench.doctor.gather import gather\nfrom workbench.doctor.diagnose import diagnose\n"
        "from workbench.doctor.report import to_json, to_text\n"
        "from workbench.doctor.environments import find_environments\n"
        "from workbench.doctor.parse.report import parse_report\nfrom workbench.doctor.compare import compare\n"
        "from workbench.doctor.facts import facts_from_dict\n"
        "facts = gather()\nreport = to_json(diagnose(facts))\nto_text(report)\nfind_environments()\n"
        "again = facts_from_dict(json.loads(json.dumps(report['facts'])))\n"
        "compare(facts, parse_report('torch==2.8.0'))\nassert again == diagnose(facts).facts\n"
        "print(json.dumps([report['findings'][0]['id'], report['facts']['torch']['installed']]))\n"
    )
    done = subprocess.run([python, "-S", "-E", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["torch-missing", False]
