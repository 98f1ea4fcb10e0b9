"""Rules on facts that no paste gives, and the commands that findings offer."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from workbench.doctor.compare import compare
from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.facts import (
    BitsandbytesFacts,
    Conflict,
    DiskFacts,
    DriverFacts,
    ErrorFact,
    Facts,
    GpuFacts,
    Install,
    PlatformFacts,
    ProbeStep,
    PythonFacts,
    ToolkitFacts,
    TorchFacts,
    facts_from_dict,
)
from workbench.doctor.findings import Finding
from workbench.doctor.fixes import install, reinstall_torch, uninstall
from workbench.doctor.parse.report import parse_report
from workbench.doctor.report import to_json, to_markdown, to_text
from workbench.doctor.tables import (
    bitsandbytes_release,
    covers,
    driver_cuda,
    gpu_capability,
    newer_than_table,
    transformers_release,
)
from workbench.doctor.torch_builds import choose_wheel, is_published
from workbench.doctor.versions import marker_holds, parse_requirement, parse_version, satisfies
from workbench.errors import WorkbenchError

L4 = GpuFacts(index=0, name="NVIDIA L4", vendor="nvidia", memory_bytes=23034 * 2**20, memory_used_bytes=2**20)

SOUND = Facts(
    platform=PlatformFacts(
        system="Linux",
        os="Ubuntu 24.04 LTS",
        kernel="6.8.0-45-generic",
        machine="x86_64",
        libc="glibc",
        libc_version="2.39",
        container="",
        wsl=False,
        service="",
        shm_total_bytes=2**35,
        memlock_bytes=-1,
        disks=(DiskFacts("HF cache", "/home/u/.cache", 2**40, 10**6, True),),
        gpu_vendors=("nvidia",),
        devices=("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"),
        modules=("nvidia", "nvidia_uvm"),
        secure_boot=False,
        xids=(),
        c_compiler="/usr/bin/gcc",
    ),
    python=PythonFacts(
        version="3.12.4", bits=64, executable="/home/u/my envs/train/bin/python", kind="venv", pip="25.0"
    ),
    torch=TorchFacts(
        installed=True,
        version="2.8.0+cu128",
        build="cuda",
        cuda="12.8",
        arch_list=("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"),
        installs=(Install("2.8.0+cu128", "/x/torch"),),
        cuda_available=True,
        device_count=1,
        kernel_ok=True,
    ),
    driver=DriverFacts("570.133.20", "12.8", "570.133.20", "570.133.20", "/lib/libcuda.so.1", True),
    toolkit=ToolkitFacts(nvcc="", installed=(), compat=()),
    bitsandbytes=BitsandbytesFacts(
        True, "0.47.0", ("cpu", "cuda126", "cuda128"), "libbitsandbytes_cuda128.so", "cuda", works=True
    ),
    gpus=(L4,),
    packages={
        "torch": "2.8.0",
        "transformers": "4.56.1",
        "huggingface-hub": "0.34.4",
        "tokenizers": "0.22.0",
        "accelerate": "1.10.1",
        "bitsandbytes": "0.47.0",
        "numpy": "2.2.6",
        "triton": "3.4.0",
        "torchvision": "0.23.0",
        "peft": "0.17.1",
    },
    absent=("pynvml",),
    conflicts=(),
    probes=tuple(
        ProbeStep(name, "passed") for name in ("torch", "cuda", "kernel", "bitsandbytes", "numpy", "transformers")
    ),
)


def broken(**changes: object) -> Facts:
    """The sound environment with some sections replaced, and nothing seen working."""
    torch = replace(SOUND.torch, cuda_available=False, kernel_ok=None)
    return replace(SOUND, **{"torch": torch, **changes})  # type: ignore[arg-type]


def ids(report: Report) -> list[str]:
    return [finding.id for finding in report.findings]


def test_sound_environment_is_healthy() -> None:
    report = diagnose(SOUND)
    assert ids(report) == []
    assert report.verdict == "healthy"
    assert len(to_text(to_json(report)).splitlines()) == 5


def torch(**changes: object) -> TorchFacts:
    return replace(SOUND.torch, **{"cuda_available": False, "kernel_ok": None, **changes})  # type: ignore[arg-type]


CASES = {
    "torch-missing": replace(
        SOUND, torch=TorchFacts(installed=False, installs=()), absent=("torch",), packages={}, probes=()
    ),
    "torch-import-broken": broken(probes=(ProbeStep("torch", "crashed", detail="x", signal="SIGILL"),)),
    "cuda-does-not-start": broken(),
    "kernel-launch-failed": replace(
        SOUND, torch=torch(cuda_available=True, kernel_ok=False), probes=(ProbeStep("kernel", "failed", detail="boom"),)
    ),
    "driver-library-version-mismatch": broken(driver=replace(SOUND.driver, library="575.57.08")),
    "kernel-module-not-loaded": broken(
        platform=replace(SOUND.platform, modules=(), devices=()), driver=DriverFacts(smi=False), gpus=None
    ),
    "nouveau-loaded": broken(
        platform=replace(SOUND.platform, modules=("nouveau",), devices=()), driver=DriverFacts(smi=False), gpus=None
    ),
    "container-without-gpu-runtime": broken(
        platform=replace(SOUND.platform, container="docker", devices=()), driver=DriverFacts(smi=False), gpus=None
    ),
    "cuda-unknown-error": broken(platform=replace(SOUND.platform, devices=("/dev/nvidiactl", "/dev/nvidia0"))),
    "driver-does-not-answer": broken(driver=replace(SOUND.driver, error="nvidia-smi did not answer in time")),
    "gpu-fallen-off-the-bus": replace(SOUND, platform=replace(SOUND.platform, xids=(31, 79))),
    "wsl-libcuda": broken(platform=replace(SOUND.platform, wsl=True), driver=replace(SOUND.driver, libcuda="")),
    "cuda-compat-on-unsupported-gpu": broken(
        toolkit=replace(SOUND.toolkit, compat=("/usr/local/cuda/compat",)),
        gpus=(GpuFacts(0, "NVIDIA GeForce RTX 3090", "nvidia"),),
    ),
    "compute-mode-exclusive": broken(gpus=(replace(L4, compute_mode="Exclusive_Process"),)),
    "python-32-bit": replace(SOUND, python=replace(SOUND.python, bits=32)),
    "torch-newer-than-tables": replace(SOUND, torch=replace(SOUND.torch, version="2.99.0+cu128"), packages={}),
    "bitsandbytes-missing": replace(SOUND, bitsandbytes=BitsandbytesFacts(installed=False), packages={}),
    "transformers-missing": replace(SOUND, absent=("transformers",), packages={}),
    "accelerate-missing": replace(SOUND, absent=("accelerate",), packages={"transformers": "4.56.1"}),
    "requirement-conflicts": replace(SOUND, conflicts=(Conflict("trl", "0.20", "datasets>=3", None),)),
    "hf-cache-disk-full": replace(
        SOUND, platform=replace(SOUND.platform, disks=(DiskFacts("HF cache", "/c", 2**30, 10, True),))
    ),
    "hf-home-unwritable": replace(
        SOUND, platform=replace(SOUND.platform, disks=(DiskFacts("HF cache", "/c", 2**40, 10, False, "0"),))
    ),
    "shm-too-small": replace(SOUND, platform=replace(SOUND.platform, container="docker", shm_total_bytes=2**26)),
    "gpu-memory-held-by-other-process": replace(SOUND, gpus=(replace(L4, memory_used_bytes=20 * 2**30, processes=()),)),
    "mig-mode": replace(SOUND, gpus=(replace(L4, mig=True),)),
    "cuda-wheel-on-amd": broken(
        platform=replace(SOUND.platform, gpu_vendors=("amd",), devices=("/dev/kfd",), modules=("amdgpu",)),
        driver=DriverFacts(smi=False),
        gpus=(),
    ),
    "vllm-torch-mismatch": replace(SOUND, packages={"vllm": "0.11.2"}),
    "bnb-cuda-version-override": replace(
        SOUND, environment={"BNB_CUDA_VERSION": "118"}, bitsandbytes=replace(SOUND.bitsandbytes, works=None)
    ),
    "pynvml-deprecated": replace(SOUND, packages={**SOUND.packages, "pynvml": "12.0.0"}, absent=()),
    "hf-gated-model": replace(SOUND, errors=(ErrorFact("hf-gated", "Cannot access gated repo"),)),
    "rocm-no-device": broken(
        torch=torch(build="rocm", cuda=None, hip="6.4", version="2.9.1+rocm6.4", arch_list=None),
        platform=replace(SOUND.platform, gpu_vendors=("amd",)),
        gpus=(),
        driver=DriverFacts(),
        errors=(ErrorFact("hip-no-gpus", "No HIP GPUs are available"),),
    ),
    "transformers-pin-conflict": replace(
        SOUND,
        errors=(ErrorFact("pin-conflict", "…", 0, {"package": "safetensors", "spec": ">=0.4.3", "found": "0.3.1"}),),
    ),
    "nvidia-wheel-version-mismatch": replace(
        SOUND,
        packages={**SOUND.packages, "nvidia-nvjitlink-cu12": "12.6.85", "nvidia-cuda-runtime-cu12": "12.8.90"},
    ),
    "triton-missing-or-wrong": replace(SOUND, packages={**SOUND.packages, "triton": "3.1.0"}),
}


@pytest.mark.parametrize("name", list(CASES))
def test_rule_fires_on_its_facts_and_not_on_sound_ones(name: str) -> None:
    report = diagnose(CASES[name])
    assert ids(report)[0] == name, ids(report)
    rendered = to_json(report)
    assert name in to_text(rendered)
    assert name in to_markdown(rendered)
    assert name not in ids(diagnose(SOUND))


def test_seen_working_outranks_version_arithmetic() -> None:
    old_driver = replace(
        SOUND, driver=DriverFacts("470.161.03", "11.4"), gpus=(replace(L4, name="NVIDIA A800-SXM4-80GB"),)
    )
    assert "driver-too-old-for-wheel-cuda" not in ids(diagnose(old_driver))
    assert ids(diagnose(broken(driver=old_driver.driver)))[0] == "driver-too-old-for-wheel-cuda"


def test_gpu_without_an_nvidia_driver_is_no_fault_of_a_cpu_box() -> None:
    cloud = broken(
        platform=replace(SOUND.platform, gpu_vendors=(), devices=(), modules=()), driver=DriverFacts(smi=False), gpus=()
    )
    assert diagnose(cloud).verdict == "healthy"


@pytest.mark.parametrize(
    ("driver", "gpu", "python", "expected"),
    [
        ("550.54.15", "NVIDIA L4", "3.12", ("2.14.1", "cu126")),
        ("580.82.07", "NVIDIA L4", "3.12", ("2.15.0", "cu132")),
        ("470.256.02", "NVIDIA GeForce RTX 3090", "3.11", ("2.7.1", "cu118")),
        ("570.86.10", "NVIDIA GeForce RTX 5090", "3.12", ("2.11.0", "cu128")),
        ("580.95.05", "Tesla V100-SXM2-16GB", "3.12", ("2.14.1", "cu126")),
        ("580.95.05", "NVIDIA GeForce GTX 1080 Ti", "3.9", ("2.8.0", "cu126")),
        ("470.256.02", "Tesla K80", "3.10", ("2.5.1", "cu118")),
        ("470.256.02", "NVIDIA GeForce RTX 5090", "3.12", None),
    ],
)
def test_wheel_for_driver_gpu_and_python(driver: str, gpu: str, python: str, expected: tuple[str, str] | None) -> None:
    capability = gpu_capability(gpu)
    facts = Facts(
        platform=PlatformFacts(system="Linux", machine="x86_64", libc="glibc", libc_version="2.35"),
        python=PythonFacts(version=python),
        driver=DriverFacts(version=driver, cuda=driver_cuda(driver)),
        gpus=(GpuFacts(0, gpu, "nvidia", capability),),
    )
    wheel = choose_wheel(facts, keep_release=False)
    assert (wheel and (wheel.version, wheel.variant)) == expected


def test_installed_release_is_kept_when_one_of_its_builds_fits() -> None:
    facts = replace(SOUND, torch=replace(SOUND.torch, version="2.8.0+cpu", build="cpu", cuda=None), gpus=(L4,))
    wheel = choose_wheel(facts)
    assert wheel is not None
    assert (wheel.version, wheel.variant) == ("2.8.0", "cu129")


def test_driver_that_no_wheel_takes_must_be_updated_first() -> None:
    facts = Facts(
        platform=PlatformFacts(system="Linux", machine="x86_64"),
        driver=DriverFacts(version="470.256.02", cuda="11.4"),
        gpus=(GpuFacts(0, "NVIDIA GeForce RTX 5090", "nvidia", "12.0"),),
    )
    steps = reinstall_torch(facts)
    assert steps[0].startswith("Update the NVIDIA driver to")


@pytest.mark.parametrize(
    ("kind", "prefix", "expected"),
    [
        ("venv", None, ["/home/u/my envs/train/bin/python", "-m", "pip", "install", "numpy<2"]),
        ("conda", None, ["/home/u/my envs/train/bin/python", "-m", "pip", "install", "numpy<2"]),
        ("uv", None, ["uv", "pip", "install", "--python", "/home/u/my envs/train/bin/python", "numpy<2"]),
        ("pipx", "/home/u/.local/pipx/venvs/tool", ["pipx", "runpip", "tool", "install", "numpy<2"]),
    ],
)
def test_commands_are_those_of_this_environment(kind: str, prefix: str | None, expected: list[str]) -> None:
    facts = replace(SOUND, python=replace(SOUND.python, kind=kind, prefix=prefix))
    assert shlex.split(install(facts, "numpy<2")) == expected
    assert "uninstall" in uninstall(facts, "torch")


def test_every_command_offered_can_be_read_by_a_shell() -> None:
    for facts in CASES.values():
        for finding in diagnose(facts).findings:
            for step in finding.fix:
                if step.startswith(("/", "'/", "python", "uv ", "pip", "sudo", "export", "docker")):
                    shlex.split(step, comments=True)


@pytest.mark.parametrize(
    ("arch", "capability", "ptx", "expected"),
    [
        (("6.0",), "6.1", None, True),
        (("8.6",), "8.9", None, True),
        (("8.0", "8.6"), "8.7", None, False),
        (("10.0",), "10.3", None, True),
        (("12.0",), "12.1", None, True),
        (("9.0",), "12.0", None, False),
        (("9.0",), "12.0", "9.0", True),
        (("7.5",), "7.0", "7.5", False),
        (("8.0",), "gfx1100", None, None),
    ],
)
def test_code_runs_on_the_same_major_or_from_older_ptx(
    arch: tuple[str, ...], capability: str, ptx: str | None, expected: bool | None
) -> None:
    assert covers(arch, capability, ptx) is expected


def test_versions_newer_than_the_tables_are_reasoned_about_and_said_so() -> None:
    assert driver_cuda("999.10") == "13.4"
    assert newer_than_table("torch", "2.16.0")
    assert transformers_release("6.1.0") == transformers_release("5.23.0")
    facts = broken(
        torch=torch(version="3.0.0+cu150", cuda="15.0", arch_list=None), driver=DriverFacts("615.10", "13.4")
    )
    first = diagnose(facts).findings[0]
    assert first.id == "driver-too-old-for-wheel-cuda"
    assert "tables end" in first.why


@pytest.mark.parametrize(
    ("version", "cuda"), [("0.41.3", "122"), ("0.43.1", "124"), ("0.45.5", "128"), ("0.47.0", "129"), ("0.50.2", "132")]
)
def test_bitsandbytes_release_ships_its_newest_library(version: str, cuda: str) -> None:
    row = bitsandbytes_release(version)
    assert row is not None
    assert max(row["cuda"], key=int) == cuda


VERSIONS = [
    *("1.0", "1.0.0", "1.0.1", "1.1", "1.10", "1.2rc1", "1.2"),
    *("1.2.post1", "1.2.dev3", "2.0", "2.0.0a1", "2.8.0+cu128", "0.0.29.post3", "12.8.90"),
]
SPECIFIERS = [
    *(">=1.0", "<2.0", ">=1.0,<2.0", "==1.2", "==1.2.*", "!=1.2", "~=1.1", "~=1.0.0", ">1.2", "<=1.2", "==2.8.0", ""),
    *("!=1.0.*", "==2.8.0+cu128", ">=0.0.29", "<1.2", ">=1.10,!=1.12.0"),
]


@pytest.mark.parametrize("specifier", SPECIFIERS)
def test_specifiers_agree_with_the_packaging_library(specifier: str) -> None:
    for version in VERSIONS:
        expected = SpecifierSet(specifier).contains(Version(version), prereleases=True)
        assert satisfies(version, specifier) is expected, (version, specifier)


def test_versions_sort_as_the_packaging_library_sorts_them() -> None:
    public = [version.split("+")[0] for version in VERSIONS]
    ours = sorted(public, key=lambda text: parse_version(text).key)  # type: ignore[union-attr]
    theirs = sorted(public, key=Version)
    assert [Version(text) for text in ours] == [Version(text) for text in theirs]


@pytest.mark.parametrize("text", ["", "latest", "not-a-version", "=1", ">=", "1 2"])
def test_what_is_no_version_is_unknown(text: str) -> None:
    assert satisfies(text, ">=1") is not True or text == "1 2"
    with pytest.raises(InvalidSpecifier):
        SpecifierSet(">=" + text + " x")
    assert satisfies("1.0", ">=" + text + " x") is None


def test_markers() -> None:
    values = {"python_version": "3.9", "sys_platform": "linux", "platform_system": "Linux", "extra": ""}
    assert marker_holds('python_version < "3.10" and sys_platform == "linux"', values) is True
    assert marker_holds('extra == "dev"', values) is False
    assert (
        marker_holds('(sys_platform == "win32" or platform_system != "Darwin") and python_version >= "3.9"', values)
        is True
    )
    assert marker_holds("sys_platform in 'linux darwin'", values) is True
    assert marker_holds("nonsense ~~ 3", values) is None
    requirement = parse_requirement('torch[opt]>=2.0,<3; python_version >= "3.9"')
    assert requirement is not None
    assert (requirement.name, requirement.specifier) == ("torch", ">=2.0,<3")


def test_facts_survive_their_json_form_and_bad_ones_are_refused() -> None:
    report = to_json(diagnose(SOUND))
    assert facts_from_dict(report["facts"]) == diagnose(SOUND).facts
    with pytest.raises(WorkbenchError, match=r"facts\.gpus"):
        facts_from_dict({"gpus": "many"})
    with pytest.raises(WorkbenchError):
        facts_from_dict([1])
    assert facts_from_dict({"unknown": 1}) == Facts()


def test_markdown_shows_foreign_text_as_text() -> None:
    evil = "<script> @everyone #1 `x` [a](b) | c \x1b[31m"
    facts = replace(SOUND, gpus=(replace(L4, name=evil),), packages={"evil": "```"}, environment={"HF_HOME": "````"})
    text = to_markdown(to_json(diagnose(facts)))
    assert "<script>" not in text
    assert "@everyone" not in text
    assert "\x1b" not in text
    assert "`````text" in text


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


CHECKOUT = (
    "WARNING: BNB_CUDA_VERSION=124 environment variable detected; loading libbitsandbytes_cuda124.so.\n"
    "Could not find the bitsandbytes CUDA binary at PosixPath('/w/bitsandbytes/libbitsandbytes_cuda124.so')\n"
)
NO_CPU_LIBRARY = (
    "Could not load bitsandbytes native library: /w/bitsandbytes/libbitsandbytes_cpu.so: cannot open shared "
)


def test_a_checkout_without_libraries_comes_before_the_variable_that_names_one() -> None:
    report = diagnose(parse_report(CHECKOUT + NO_CPU_LIBRARY + "object file: No such file or directory\n"))
    assert ids(report)[0] == "bnb-source-install-not-compiled"
    assert {finding.id: finding.caused_by for finding in report.findings}["bnb-cuda-version-override"] == ids(report)[0]
    assert first(CHECKOUT).id == "bnb-cuda-version-override"


@pytest.mark.parametrize(
    ("python", "torch", "expected"), [("2.2.5", "1.7.0+cu110", False), ("2.5", "2.3.0", False), ("2.17", "2.7.0", True)]
)
def test_the_glibc_of_an_old_interpreter_file_is_no_fault(python: str, torch: str, expected: bool) -> None:
    text = f"PyTorch version: {torch}\nOS: CentOS Linux 7 (x86_64)\nLibc version: glibc-{python}\nPython version: 3.8\n"
    assert "glibc-too-old" not in ids(diagnose(parse_report(text)))
    failed = text + "ERROR: No matching distribution found for torch\n"
    assert ("glibc-too-old" in ids(diagnose(parse_report(failed)))) is expected


@pytest.mark.parametrize("torch", ["", "torch==2.7.1+cu126\n"])
def test_no_fix_has_holes_where_versions_are_unknown(torch: str) -> None:
    finding = first("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory\n" + torch)
    assert finding.id == "extension-built-for-other-cuda"
    assert not any("torch  " in step or "None" in step or "of torch." in step for step in finding.fix), finding.fix
    assert any("2.7" in step for step in finding.fix) is bool(torch)


NVJITLINK = "ImportError: libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12\n"


def test_the_library_path_is_unset_only_where_it_is_set_and_torch_repaired_only_where_it_is_known() -> None:
    known = "PyTorch version: 2.8.0+cu128\n"
    path = "LD_LIBRARY_PATH=/usr/local/cuda-12.1/lib64\n"
    assert [step.split("   #")[0] for step in first(path + NVJITLINK).fix] == ["unset LD_LIBRARY_PATH"]
    assert not any("unset" in step for step in first(known + NVJITLINK).fix)
    repaired = first(path + known + NVJITLINK).fix[-1]
    assert repaired.endswith("--force-reinstall --index-url https://download.pytorch.org/whl/cu128 torch==2.8.0")
    assert not any("torch==2" in step for step in first(NVJITLINK).fix)


@pytest.mark.parametrize(
    ("version", "published"),
    [
        *(("2.8.0+cu128", True), ("2.8.0", True), ("2.9.1+cpu", True), ("2.4.0+rocm6.1", True), (None, False)),
        *(("2.10.0.dev20251024+cu130", False), ("2.7.0a0+git1234567", False), ("2.6.0a0+ecf3bae40a.nv25.01", False)),
        *(("2.1.2.post101", False), ("2.8.0+git12ab", False)),
    ],
)
def test_nightlies_and_builds_from_source_are_not_looked_for_on_the_stable_index(
    version: str | None, published: bool
) -> None:
    assert is_published(version) is published
    facts = replace(SOUND, torch=torch(version=version, build="cpu", cuda=None, installed=True))
    install_step = reinstall_torch(facts)[-1]
    assert ("torch==2.10.0.dev" in install_step or "a0" in install_step or "post" in install_step) is False
    assert any("nightly" in step for step in reinstall_torch(facts)) is (version is not None and not published)


def test_a_live_environment_without_pip_gets_one_before_the_repair() -> None:
    python = replace(SOUND.python, pip="", executable="/v/bin/python")
    facts = replace(broken(errors=(ErrorFact("nvjitlink", NVJITLINK),), python=python), environment={}, probes=())
    fix = diagnose(facts).findings[0].fix
    assert fix[0].startswith("/v/bin/python -m ensurepip")
    assert "--force-reinstall" in fix[1]


CONDA = (
    "PyTorch version: 2.3.0\nIs CUDA available: False\nOS: Ubuntu 22.04 LTS (x86_64)\n"
    "GPU models and configuration: GPU 0: NVIDIA L4\nNvidia driver version: 550.54.15\n"
    "[conda] pytorch                   2.3.0           cpu_generic_py310h1 conda-forge\n"
    "[conda] torchvision               0.18.0          cpu_py310h2 conda-forge\n"
    "[conda] numpy                     2.1.0           py310h1 conda-forge\n"
)


def test_a_conda_report_gets_conda_commands_for_what_conda_installed() -> None:
    fix = first(CONDA).fix
    assert fix[0].startswith("conda activate ")
    assert fix[1] == "conda remove -y pytorch torchvision"
    assert fix[2].startswith("python -m pip install --index-url")
    assert "uninstall" not in " ".join(fix)
    facts = diagnose(parse_report(CONDA)).facts
    assert install(facts, "numpy<2") == "conda install -y -c conda-forge 'numpy<2'"
    assert install(facts, "numpy<2", "peft").startswith("python -m pip")


def test_a_conda_environment_named_in_a_path_is_activated_before_pip() -> None:
    text = "/home/me/miniconda3/envs/train/lib/python3.10/site-packages/transformers/__init__.py\n" + (
        "ImportError: tokenizers>=0.21,<0.22 is required for a normal functioning of this module, but found "
        "tokenizers==0.20.0\n"
    )
    assert first(text).fix[0].startswith("conda activate train ")
    assert not any("conda" in step for step in first(text.replace("miniconda3/envs", "venvs")).fix)


WINDOWS = "OS: Microsoft Windows 11 Pro\nPyTorch version: 2.6.0+cu124\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("set CUDA_VISIBLE_DEVICES=-1\nIs CUDA available: False\n", "Remove-Item Env:CUDA_VISIBLE_DEVICES"),
        ("[pip3] numpy==2.1.0\nRuntimeError: Numpy is not available\n", 'python -m pip install "numpy<2"'),
        ("set HF_HUB_OFFLINE=1\nOfflineModeIsEnabled: offline mode is enabled\n", "Remove-Item Env:HF_HUB_OFFLINE"),
        ("OSError: [Errno 28] No space left on device\n", '$env:HF_HOME = "D:\\hf"'),
    ],
)
def test_windows_reports_get_commands_of_windows(text: str, expected: str) -> None:
    steps = [step for finding in diagnose(parse_report(WINDOWS + text)).findings for step in finding.fix]
    assert any(step.startswith(expected) for step in steps), steps
    assert not any(re.search(r"\bunset\b|bashrc|\bexport\b|sudo|'numpy", step) for step in steps), steps


def test_no_wheel_is_named_for_a_gpu_that_is_not_known() -> None:
    unknown = first("RuntimeError: this GPU is not compatible with the current PyTorch installation\n")
    assert unknown.id == "torch-wheel-lacks-gpu-arch"
    assert "compute_cap" in unknown.fix[0]
    named = (
        "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation\n"
    )
    assert "nvidia-smi" not in first(named).fix[0]


@pytest.mark.parametrize(
    ("cc", "low", "high", "faulty"),
    [("6.1", "7.0", "12.0", True), ("12.0", "5.0", "9.0", True), ("12.1", "8.0", "12.0", False)],
)
def test_a_minor_beyond_the_range_of_torch_still_runs(cc: str, low: str, high: str, faulty: bool) -> None:
    text = (
        f"    Found GPU0 NVIDIA Card which is of cuda capability {cc}.\n"
        "    Minimum and Maximum cuda capability supported by this version of PyTorch is\n"
        f"    ({low}) - ({high})\n"
    )
    assert ("torch-wheel-lacks-gpu-arch" in ids(diagnose(parse_report(text)))) is faulty


def test_only_what_a_finding_rests_on_explains_it() -> None:
    without = replace(
        SOUND,
        torch=TorchFacts(installed=False, installs=()),
        absent=("torch",),
        packages={},
        probes=(),
        python=replace(SOUND.python, version="3.11.2"),
    )
    explains = {item.name: item.explains for item in compare(without, SOUND)}
    assert explains["python.version"] == ()
    assert "torch-missing" in explains["torch.installed"]


TRACE = '  File "/v/lib/python3.11/site-packages/optimum/gptq/quantizer.py", line 12, in <module>\n'


@pytest.mark.parametrize(
    ("text", "name", "step"),
    [
        (
            TRACE + "ModuleNotFoundError: No module named 'einops'\n",
            "module-missing",
            "python -m pip install optimum einops",
        ),
        (
            TRACE + "ModuleNotFoundError: No module named 'cv2'\n",
            "module-missing",
            "python -m pip install optimum opencv-python",
        ),
        (
            TRACE + "ImportError: cannot import name 'ones' from 'gptqmodel.utils' (/v/site-packages/gptqmodel/u.py)\n",
            "package-versions-do-not-fit",
            "python -m pip install -U optimum gptqmodel",
        ),
        (
            TRACE + "AttributeError: module 'torchao.quantization' has no attribute 'int4'\n",
            "package-versions-do-not-fit",
            "python -m pip install -U optimum torchao",
        ),
        (
            TRACE + "ModuleNotFoundError: No module named 'my_own_file'\n",
            "module-missing",
            "python -m pip install optimum",
        ),
        ("ImportError: cannot import name 'helper' from 'utils' (/home/me/utils.py)\n", "unrecognised-error", "Search"),
        ("AttributeError: module 'config' has no attribute 'lr'\n", "unrecognised-error", "Search"),
    ],
)
def test_an_unknown_exception_is_taken_at_its_word_and_no_unknown_name_is_installed(
    text: str, name: str, step: str
) -> None:
    finding = first(text)
    assert finding.id == name
    assert finding.fix[0].startswith(step)


def test_a_build_that_was_never_published_is_told_from_a_python_without_wheels() -> None:
    line = "ERROR: Could not find a version that satisfies the requirement torch=={} (from versions: 2.5.1+cu121)\n"
    never = first(line.format("2.6.0+cu121"))
    assert never.id == "torch-build-not-published"
    assert never.fix[0].endswith("/cu126 torch==2.6.0")
    assert first(line.format("2.5.0+cu121")).id == "no-torch-wheel-for-python"


def test_an_nvcc_in_the_paste_tells_that_a_cpu_torch_is_not_wanted() -> None:
    nvcc = "Cuda compilation tools, release 12.6, V12.6.20\n"
    assert first(nvcc + "torch==2.3.1+cpu\n").id == "torch-cpu-only"
    assert not diagnose(parse_report("torch==2.3.1+cpu\n")).findings
    assert not diagnose(parse_report(nvcc + "torch==2.3.1+cu121\n")).findings


def test_a_torch_too_old_for_some_package_is_not_blamed_on_a_transformers_that_is_not_there() -> None:
    text = "torch==2.0.1+cu118\nAttributeError: module 'torch' has no attribute 'float8_e4m3fn'\n"
    assert first(text).title == "A package in the traceback needs torch 2.1, but 2.0.1+cu118 is installed"
    assert not any("transformers" in step for step in first(text).fix)
    assert first(text + "transformers==4.51.0\n").title.startswith("transformers 4.51.0 needs")


def test_hiding_gpus_is_a_fault_only_where_there_are_some() -> None:
    hidden = replace(SOUND, environment={**SOUND.environment, "CUDA_VISIBLE_DEVICES": ""})
    hidden = replace(hidden, probes=(), torch=replace(hidden.torch, cuda_available=False, kernel_ok=False))
    found = {finding.id: finding.severity for finding in diagnose(hidden).findings}
    assert found["cuda-visible-devices-wrong"] == "error"
    platform = replace(hidden.platform, gpu_vendors=(), devices=(), modules=())
    bare = replace(hidden, gpus=(), driver=DriverFacts(smi=False), platform=platform)
    found = {finding.id: finding.severity for finding in diagnose(bare).findings}
    assert found["cuda-visible-devices-wrong"] == "info"


def test_the_usual_torch_on_a_machine_without_a_gpu_is_no_fault_of_its_container() -> None:
    said = ProbeStep("cuda", "failed", detail="RuntimeError: Found no NVIDIA driver on your system.")
    platform = replace(SOUND.platform, container="docker", devices=(), modules=(), gpu_vendors=())
    facts = broken(platform=platform, driver=DriverFacts(smi=False, libcuda=""), gpus=(), probes=(said,))
    assert not [finding for finding in diagnose(facts).findings if finding.severity == "error"]
    for changes in ({"environment": {"NVIDIA_VISIBLE_DEVICES": "all"}}, {"platform": replace(platform, wsl=True)}):
        assert [finding for finding in diagnose(replace(facts, **changes)).findings if finding.severity == "error"]


def test_packages_that_an_empty_environment_lacks_are_one_line() -> None:
    full = replace(SOUND, packages={**SOUND.packages, **{f"helper-{n}": "1.0" for n in range(40)}})
    empty = replace(SOUND, packages={}, torch=TorchFacts(installed=False))
    rows = [item for item in compare(full, empty) if item.name.startswith("packages")]
    folded = [item for item in rows if item.name.endswith("of them")]
    assert len(folded) == 1
    assert "helper-0" in folded[0].left
    assert folded[0].right == "not installed"
    assert any(item.name == "packages.torch" and "torch-missing" in item.explains for item in rows)


PLEASE_UPGRADE = (
    "ImportError: Using `bitsandbytes` 8-bit quantization requires the latest version of bitsandbytes: "
    "`pip install -U bitsandbytes`\n"
)


@pytest.mark.parametrize(
    ("text", "id", "title", "option"),
    [
        ("ModuleNotFoundError: No module named 'bitsandbytes'\n", "bitsandbytes-missing", "is not installed", ""),
        (PLEASE_UPGRADE, "bitsandbytes-missing", "missing or too old", "-U "),
        (
            "transformers==5.1.0\nbitsandbytes==0.44.0\n" + PLEASE_UPGRADE,
            "bitsandbytes-too-old",
            "0.44.0 is too",
            "-U ",
        ),
        (
            "transformers==4.40.0\nbitsandbytes==0.44.0\n" + PLEASE_UPGRADE,
            "bitsandbytes-too-old",
            "or CUDA is not",
            "-U ",
        ),
    ],
)
def test_please_upgrade_bitsandbytes_says_only_what_is_known(text: str, id: str, title: str, option: str) -> None:
    finding = first(text)
    assert (finding.id, title in finding.title) == (id, True), finding.title
    assert finding.fix[0] == f"python -m pip install {option}bitsandbytes"


def test_a_gated_repository_is_no_missing_one() -> None:
    missing = "RepositoryNotFoundError: 401 Client Error. Repository Not Found for url: https://huggingface.co/a/b/c."
    assert diagnose(parse_report(missing)).findings[0].id == "hf-no-such-repository"
    gated = diagnose(parse_report(missing + "\nAccess to model a/b is restricted.")).findings
    assert [finding.id for finding in gated] == ["hf-gated-model"]


def test_python_for_an_old_torch_has_wheels_on_every_system() -> None:
    asked = "ERROR: Could not find a version that satisfies the requirement torch==1.13.1 (from versions: 2.0.0, 2.0.1)"
    assert "Python 3.10 " in diagnose(parse_report(asked)).findings[0].fix[0]
