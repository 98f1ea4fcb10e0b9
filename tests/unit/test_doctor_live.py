"""Environments that are really broken: virtual environments with packages that do not import, crash or hang."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import workbench
from workbench.doctor import gather
from workbench.doctor.diagnose import diagnose
from workbench.doctor.gather import gather_light, gather_live
from workbench.doctor.report import to_json, to_text

ROOT = str(Path(workbench.__path__[0]).parent)
EXAMINE = f"""
import json, sys
sys.path.append({ROOT!r})
from workbench.doctor.child import Limits
from workbench.doctor.diagnose import diagnose
from workbench.doctor.gather import gather
from workbench.doctor.report import to_json
facts = gather(limits=Limits(float(sys.argv[1]), float(sys.argv[2])))
third = sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "numpy", "bitsandbytes"))
print(json.dumps({{"report": to_json(diagnose(facts)), "imported": third}}))
"""
TORCH_VERSION = "from typing import Optional\n__version__ = '{version}'\ncuda: Optional[str] = {cuda}\nhip = None\n"


class Venv:
    """An environment of one test."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"
        self.packages = next(folder.glob("lib/python3.*/site-packages"))

    def package(self, name: str, version: str, init: str = "", folder: Path | None = None, requires: str = "") -> Path:
        base = folder or self.packages
        package = base / name.replace("-", "_")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(init)
        info = base / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        requirement = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}\n")
        return package

    def torch(self, init: str, version: str = "2.8.0+cu128", cuda: str = "'12.8'", folder: Path | None = None) -> Path:
        package = self.package("torch", version, init, folder)
        (package / "version.py").write_text(TORCH_VERSION.format(version=version, cuda=cuda))
        return package

    def examine(self, limit_seconds: float = 60.0, idle_seconds: float = 15.0, **environ: str) -> dict[str, Any]:
        """The JSON report that a worker under this interpreter gives."""
        done = subprocess.run(
            [str(self.python), "-c", EXAMINE, str(limit_seconds), str(idle_seconds)],
            capture_output=True,
            text=True,
            env={**os.environ, **environ},
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["imported"] == [], "the examining process must not import what it examines"
        report: dict[str, Any] = answer["report"]
        return report


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


@pytest.fixture
def venv(pristine: Path, tmp_path: Path) -> Venv:
    folder = tmp_path / "env"
    shutil.copytree(pristine, folder, symlinks=True)
    return Venv(folder)


def finding(report: dict[str, Any], id: str) -> dict[str, Any]:
    return next(item for item in report["findings"] if item["id"] == id)


def probe(report: dict[str, Any], step: str) -> dict[str, Any]:
    return next(item for item in report["facts"]["probes"] if item["step"] == step)


def test_environment_without_torch(venv: Venv) -> None:
    report = venv.examine()
    assert report["verdict"] == "broken"
    first = report["findings"][0]
    assert first["id"] == "torch-missing"
    assert str(venv.python) in " ".join(first["fix"])
    assert "ensurepip" in first["fix"][0]
    assert report["facts"]["torch"]["installed"] is False
    assert report["facts"]["probes"] == []


def test_torch_whose_import_raises_names_the_library(venv: Venv) -> None:
    message = "libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12"
    venv.torch(f"raise ImportError({message!r})")
    report = venv.examine(LD_LIBRARY_PATH="/usr/local/cuda-12.1/lib64")
    ids = [item["id"] for item in report["findings"]]
    assert ids[0] == "ld-library-path-shadows-nvidia-wheels"
    assert finding(report, "torch-import-broken")["caused_by"] == ids[0]
    assert probe(report, "torch")["status"] == "failed"
    assert probe(report, "cuda")["status"] == "skipped"


def test_innermost_of_wrapped_errors_comes_first(venv: Venv) -> None:
    venv.torch(
        "try:\n    raise OSError('libfirst.so: cannot open')\n"
        "except OSError as e:\n    raise RuntimeError('later') from e"
    )
    assert venv.examine()["facts"]["torch"]["import_error"].splitlines()[0] == "OSError: libfirst.so: cannot open"


def test_torch_that_segfaults_is_a_finding(venv: Venv) -> None:
    venv.torch("import os, signal, sys\nprint('last words', file=sys.stderr)\nos.kill(os.getpid(), signal.SIGSEGV)")
    report = venv.examine()
    first = report["findings"][0]
    assert first["id"] == "torch-import-broken"
    assert "SIGSEGV" in first["title"]
    step = probe(report, "torch")
    assert (step["status"], step["signal"]) == ("crashed", "SIGSEGV")
    assert "last words" in step["stderr"]


def test_torch_that_ends_the_process_gives_its_exit_code(venv: Venv) -> None:
    venv.torch("import os\nos._exit(7)")
    assert probe(venv.examine(), "torch")["exit_code"] == 7


def test_torch_that_sleeps_is_ended_early_and_the_line_is_named(venv: Venv) -> None:
    package = venv.torch("import time\nfrom torch import waits\n")
    (package / "waits.py").write_text("import time\ndef forever():\n    time.sleep(600)\nforever()\n")
    report = venv.examine(limit_seconds=60.0, idle_seconds=2.0)
    step = probe(report, "torch")
    assert step["status"] == "timeout"
    assert step["seconds"] < 20
    assert step["stuck"]["where"] == f"{package / 'waits.py'} line 3 in forever"
    first, *others = report["findings"]
    assert first["id"] == "torch-import-hangs"
    assert first["title"] == "import torch hangs: it waits in torch/waits.py line 3 in forever"
    assert "faulthandler" in first["fix"][0]
    assert not any("install" in line for line in first["fix"])
    assert "torch-import-broken" not in [item["id"] for item in others]


def test_torch_that_keeps_busy_is_slow_not_hung(venv: Venv) -> None:
    venv.torch("while True: pass")
    first = venv.examine(limit_seconds=3.0, idle_seconds=1.5)["findings"][0]
    assert first["title"].startswith("import torch takes longer than 3 s")
    assert "still working" in first["why"]


def test_gpu_that_does_not_come_up_is_not_torchs_fault(venv: Venv) -> None:
    venv.torch(
        working_torch().replace("def is_available(self): return True", "def is_available(self): time.sleep(600)")
    )
    report = venv.examine(idle_seconds=2.0)
    first = report["findings"][0]
    assert first["id"] == "cuda-hangs"
    assert first["fix"][0].startswith("nvidia-smi")
    assert probe(report, "torch")["status"] == "passed"
    assert probe(report, "kernel")["status"] in ("passed", "timeout")


def test_prints_of_native_code_do_not_disturb_the_probe(venv: Venv) -> None:
    venv.torch('import os\nos.write(1, b\'noise\\n{"step": "torch", "event": "end"}\\n\')\nraise ImportError(\'x\')')
    assert probe(venv.examine(), "torch")["detail"] == "ImportError: x"


WORKING_TORCH = """
import time
import types
from torch import version
__version__ = version.__version__
_C = types.SimpleNamespace(_GLIBCXX_USE_CXX11_ABI=True, _cuda_getArchFlags=lambda: {flags!r})
backends = types.SimpleNamespace(mps=None, cudnn=types.SimpleNamespace(version=lambda: 91002))
class Properties:
    name, major, minor, total_memory, uuid = {gpu!r}, {major}, {minor}, 2**34, 'u'
class Cuda:
    def is_available(self): return {available}
    def device_count(self): return int({available})
    def init(self):
        if not {available}: raise RuntimeError({error!r})
    def get_device_properties(self, index): return Properties
    def get_arch_list(self): return []
cuda = Cuda()
class Number:
    def __init__(self, value): self.value = value
    def sum(self): return self
    def item(self): return self.value
    def __float__(self): return self.value
class Tensor:
    def __add__(self, other): return Number(128.0)
    def __matmul__(self, other): return Number(512.0)
    def numpy(self):
        {numpy}
def ones(*shape, device='cpu'):
    if device != 'cpu' and {kernel!r}: raise RuntimeError({kernel!r})
    return Tensor()
"""


def working_torch(
    available: bool = True,
    error: str = "",
    kernel: str = "",
    numpy: str = "return []",
    gpu: tuple[str, int, int] = ("NVIDIA L4", 8, 9),
) -> str:
    return WORKING_TORCH.format(
        flags="sm_75 sm_80 sm_86 sm_90 sm_100 sm_120",
        available=available,
        error=error,
        kernel=kernel,
        numpy=numpy,
        gpu=gpu[0],
        major=gpu[1],
        minor=gpu[2],
    )


def test_what_torch_sees_becomes_facts(venv: Venv) -> None:
    venv.torch(working_torch())
    report = venv.examine()
    torch = report["facts"]["torch"]
    assert (torch["cuda_available"], torch["kernel_ok"], torch["cuda"]) == (True, True, "12.8")
    assert torch["arch_list"] == ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
    gpu = report["facts"]["gpus"][0]
    assert (gpu["name"], gpu["compute_capability"], gpu["bf16"], gpu["fp8"]) == ("NVIDIA L4", "8.9", True, True)
    assert not [item for item in report["findings"] if item["severity"] == "error"]


def test_driver_too_old_as_torch_says_it(venv: Venv) -> None:
    said = "The NVIDIA driver on your system is too old (found version 12020)."
    venv.torch(working_torch(available=False, error=said), version="2.12.0+cu130", cuda="'13.0'")
    first = venv.examine()["findings"][0]
    assert first["id"] == "driver-too-old-for-wheel-cuda"
    assert first["evidence"]["driver.cuda"] == "12.2"
    assert "580.65.06" in " ".join(first["fix"])


def test_kernel_that_does_not_run_names_the_missing_architecture(venv: Venv) -> None:
    said = "CUDA error: no kernel image is available for execution on the device"
    venv.torch(working_torch(kernel=said, gpu=("Tesla P100-PCIE-16GB", 6, 0)), version="2.12.0+cu130", cuda="'13.0'")
    report = venv.examine()
    first = report["findings"][0]
    assert first["id"] == "torch-wheel-lacks-gpu-arch"
    assert first["evidence"]["compute_capability"] == "6.0"
    assert "cu126" in " ".join(first["fix"])
    assert report["facts"]["torch"]["kernel_ok"] is False


def test_numpy_of_the_wrong_abi(venv: Venv) -> None:
    venv.torch(
        working_torch(numpy="raise RuntimeError('Numpy is not available')"), version="2.2.2+cu121", cuda="'12.1'"
    )
    venv.package("numpy", "2.1.0")
    assert venv.examine()["findings"][0]["id"] == "numpy2-with-old-torch"


def test_bitsandbytes_without_a_library(venv: Venv) -> None:
    venv.torch(working_torch())
    venv.package("bitsandbytes", "0.47.0", "raise OSError('libbitsandbytes_cpu.so: cannot open shared object file')")
    report = venv.examine()
    assert report["findings"][0]["id"] == "bnb-source-install-not-compiled"
    assert finding(report, "bitsandbytes-unusable")["caused_by"] == "bnb-source-install-not-compiled"


def test_bitsandbytes_that_lacks_torchs_cuda(venv: Venv) -> None:
    venv.torch(working_torch(), version="2.9.0+cu130", cuda="'13.0'")
    package = venv.package(
        "bitsandbytes", "0.47.0", "raise RuntimeError('Configured CUDA binary not found at x_cuda130.so')"
    )
    for name in ("cpu", "cuda126", "cuda128"):
        (package / f"libbitsandbytes_{name}.so").touch()
    report = venv.examine()
    first = report["findings"][0]
    assert first["id"] == "bnb-no-lib-for-cuda"
    assert first["evidence"]["ships"] == "126 128"


def test_crash_of_one_step_does_not_hide_the_others(venv: Venv) -> None:
    venv.torch(working_torch())
    venv.package("bitsandbytes", "0.50.0", "import os, signal\nos.kill(os.getpid(), signal.SIGABRT)")
    venv.package("numpy", "2.1.0")
    report = venv.examine()
    assert probe(report, "bitsandbytes")["signal"] == "SIGABRT"
    assert probe(report, "kernel")["status"] == "passed"
    assert probe(report, "numpy")["status"] == "passed"


def test_two_copies_of_torch(venv: Venv, tmp_path: Path) -> None:
    venv.torch(working_torch())
    other = tmp_path / "elsewhere"
    venv.torch(working_torch(), version="2.4.0+cu121", cuda="'12.1'", folder=other)
    report = venv.examine(PYTHONPATH=str(other))
    assert report["findings"][0]["id"] == "duplicate-torch-installs"
    assert report["facts"]["torch"]["version"] == "2.4.0+cu121"


def test_unmet_requirements_are_found_as_pip_check_would(venv: Venv) -> None:
    venv.torch(working_torch())
    venv.package("torchvision", "0.23.0", requires="torch==2.7.1")
    venv.package("peft", "0.18.0", requires='nonexistent>=2; python_version < "3.0"')
    venv.package("trl", "0.20.0", requires="datasets>=3.0")
    conflicts = venv.examine()["facts"]["conflicts"]
    assert {(item["package"], item["requires"], item["found"]) for item in conflicts} == {
        ("torchvision", "torch==2.7.1", "2.8.0+cu128"),
        ("trl", "datasets>=3.0", None),
    }


def test_package_in_the_current_directory_shadows_nothing(
    venv: Venv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.torch(working_torch())
    shadow = tmp_path / "project" / "torch"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise ImportError('the wrong torch')")
    monkeypatch.chdir(shadow.parent)
    assert probe(venv.examine(), "torch")["status"] == "passed"


def test_secrets_never_leave(venv: Venv) -> None:
    venv.torch("import os\nraise ImportError('https://me:hunter2@host failed with ' + os.environ['HF_TOKEN'])")
    text = json.dumps(
        venv.examine(HF_TOKEN="hf_abcdefghijklmnopqrstuv", PIP_INDEX_URL="https://u:pw12345@index/simple")
    )
    assert "hunter2" not in text
    assert "pw12345" not in text
    assert "hf_abcdef" not in text
    assert '"HF_TOKEN": "***"' in text


def test_cancelling_ends_a_hanging_probe(venv: Venv) -> None:
    venv.torch("import time\ntime.sleep(600)")
    code = EXAMINE.replace(
        "facts = gather(limits=Limits(float(sys.argv[1]), float(sys.argv[2])))",
        "import time\n"
        "from workbench.job import Job\nfrom workbench.errors import JobCancelled\n"
        "started = time.monotonic()\n"
        "class Soon(Job):\n"
        "    def check(self):\n"
        "        if time.monotonic() > started + 2: raise JobCancelled\n"
        "try:\n    gather(Soon())\nexcept JobCancelled:\n    print('cancelled'); sys.exit(0)\n",
    )
    done = subprocess.run(
        [str(venv.python), "-c", code, "60", "15"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "cancelled"


FAKE_SMI = """#!/bin/sh
case "$1" in
--query-gpu=index,compute_cap*) {capability} ;;
--query-gpu=*)
  echo "0, NVIDIA A100-SXM4-40GB, GPU-aa, 40960, 1024, 12, 35, 61.52, 400.00, 4, 16, Disabled, Default, 0, 535.104.05"
  echo "1, Tesla T4, GPU-bb, 15360, 15000, [N/A], 44, [N/A], 70.00, 3, 8, [N/A], Exclusive_Process, [N/A], 535.104" ;;
--query-compute-apps=*) echo "GPU-bb, 4242, /usr/bin/python3, 14900" ;;
"") {plain} ;;
esac
"""
BANNER = "| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2     |"


def put_smi(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capability: str = "", plain: str = f"echo '{BANNER}'"
) -> None:
    folder.mkdir(exist_ok=True)
    script = folder / "nvidia-smi"
    script.write_text(FAKE_SMI.format(capability=capability or "echo '0, 8.0'; echo '1, 7.5'", plain=plain))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_nvidia_smi_lists_becomes_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_smi(tmp_path / "bin", monkeypatch)
    facts = gather_light()
    assert (facts.driver.version, facts.driver.cuda, facts.driver.error) == ("535.104.05", "12.2", None)
    assert facts.gpus is not None
    first, second = facts.gpus
    assert (first.name, first.compute_capability, first.memory_bytes) == ("NVIDIA A100-SXM4-40GB", "8.0", 40960 * 2**20)
    assert (first.power_watts, first.pcie_generation, first.pcie_width, first.mig) == (61.52, 4, 16, False)
    assert (second.utilization_percent, second.power_watts, second.mig, second.ecc_uncorrected) == (None,) * 4
    assert second.processes is not None
    assert (second.processes[0].pid, second.processes[0].memory_bytes) == (4242, 14900 * 2**20)
    assert first.processes == ()


def test_old_nvidia_smi_without_compute_capability_still_lists_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_smi(
        tmp_path / "bin", monkeypatch, capability="echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2"
    )
    gpus = diagnose(gather_light()).facts.gpus
    assert gpus is not None
    assert [gpu.compute_capability for gpu in gpus] == ["8.0", "7.5"]


def test_complaint_of_nvidia_smi_becomes_the_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_smi(
        tmp_path / "bin",
        monkeypatch,
        capability="exit 18",
        plain="echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
    )
    report = diagnose(gather_light())
    assert report.findings[0].id == "driver-library-version-mismatch"


def test_nvidia_smi_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "COMMAND_LIMIT_SECONDS", 0.5)
    put_smi(tmp_path / "bin", monkeypatch, plain="exec sleep 600")
    assert diagnose(gather_light()).findings[0].id == "driver-does-not-answer"


@pytest.mark.model
def test_this_environment_is_healthy_and_its_report_short() -> None:
    updates: list[int] = []
    facts = gather_live(gather_light(), on_update=lambda found: updates.append(len(found.probes)))
    report = diagnose(facts)
    assert report.verdict == "healthy", [item.id for item in report.findings]
    assert updates == sorted(updates)
    assert facts.bitsandbytes.works is True
    assert len(to_text(to_json(report)).splitlines()) <= 8


@pytest.mark.model
def test_real_bitsandbytes_without_its_libraries(venv: Venv) -> None:
    import bitsandbytes

    source = Path(bitsandbytes.__file__).parent
    info = next(source.parent.glob("bitsandbytes-*.dist-info"))
    shutil.copytree(source, venv.packages / "bitsandbytes", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copytree(info, venv.packages / info.name)
    (venv.packages / "zz.pth").write_text(str(source.parent))
    report = venv.examine()
    assert report["findings"][0]["id"] == "bnb-source-install-not-compiled"
    assert report["facts"]["torch"]["cuda_available"] is not None
