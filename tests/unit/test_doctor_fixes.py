"""That a fix works where it is offered: the build for the driver, the way round what cannot be changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.doctor import fixes
from workbench.doctor.diagnose import diagnose
from workbench.doctor.facts import Facts, GpuFacts, Install, PlatformFacts, PythonFacts, TorchFacts
from workbench.doctor.findings import Finding
from workbench.doctor.fixes import install
from workbench.doctor.parse.report import parse_report
from workbench.doctor.rules.unknown import apart
from workbench.doctor.tables import faults, gpu_capability, table, torch_release, torch_releases
from workbench.doctor.typed_steps import in_environment
from workbench.doctor.versions import minor_name, older, parse_version, satisfies

DATA = Path(__file__).parent.parent / "data" / "doctor"
TOO_OLD = "RuntimeError: The NVIDIA driver on your system is too old (found version {}). Please update it\n"


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


def of_file(name: str) -> Finding:
    return first((DATA / f"{name}.txt").read_text(encoding="utf-8"))


def builds(finding: Finding) -> list[str]:
    return re.findall(r"whl/(\w+)", "\n".join(finding.fix))


@pytest.mark.parametrize(
    ("found", "family"), [("11000", "cu11"), ("11040", "cu11"), ("12020", "cu12"), ("12080", "cu12")]
)
@pytest.mark.parametrize("torch", ["", "PyTorch version: 2.11.0+cu130\nCUDA used to build PyTorch: 13.0\n"])
def test_the_cuda_that_torch_found_chooses_the_build(found: str, family: str, torch: str) -> None:
    finding = first(torch + TOO_OLD.format(found))
    assert finding.id == "driver-too-old-for-wheel-cuda"
    assert builds(finding)
    assert all(name.startswith(family) for name in builds(finding))
    assert finding.evidence["driver.cuda"] == f"{found[:2]}.{int(found[2:]) // 10}"


def test_a_driver_of_cuda_10_gets_another_driver_or_an_old_build_and_no_newer_torch() -> None:
    driver, build = first(TOO_OLD.format("10010")).fix
    assert driver.startswith("Update the NVIDIA driver to 450.80.02 or newer")
    assert "torch==1.8.1+cu101 " in build
    kept = first("PyTorch version: 1.7.1\n" + TOO_OLD.format("10010")).fix
    assert kept[1].endswith("torch==1.7.1+cu101")
    assert "cu101" not in "".join(first(TOO_OLD.format("11000")).fix)


def test_conda_says_by_its_toolkit_what_torch_needs() -> None:
    rows = "cudatoolkit               10.2.89              hfd86e86_1\npytorch                   1.7.1\n"
    finding = first(TOO_OLD.format("10010") + rows)
    assert finding.evidence["torch.cuda"] == "10.2"
    assert finding.fix[-2:] == (
        "Update the NVIDIA driver to 440.33 or newer, then reboot.",
        "or the build for the driver's CUDA: conda install -y pytorch==1.7.1 cudatoolkit=10.1 -c pytorch",
    )


def test_an_unknown_driver_is_asked_for_beside_the_build() -> None:
    finding = first("Cuda compilation tools, release 10.2, V10.2.89\nPyTorch version: 2.1.0+cpu\nOS: Windows 10\n")
    assert finding.id == "torch-cpu-only"
    assert "nvidia-smi must show CUDA 12.0 or newer" in finding.fix[1]
    assert builds(finding) == ["cu121", "cu118"]


def test_a_blackwell_gpu_tells_enough_of_its_driver() -> None:
    text = "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation"
    assert builds(first(text)) == ["cu128"]
    assert not any("nvidia-smi" in step for step in first(text).fix)


def test_an_image_is_mended_as_an_image() -> None:
    text = (
        "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation.\n"
        "docker run --name x -d -p 9997:9997 -e HOME=/data -v /x:/x --gpus all someone/inference:1.5 serve -H 0.0.0.0\n"
    )
    assert "the image someone/inference:1.5" in first(text).fix[0]
    assert "FROM someone/inference:1.5" in first(text).fix[1]
    assert parse_report("docker run --rm --gpus all nvidia/cuda:12.4.1-base nvidia-smi").platform.image is None


def test_companions_that_a_folder_lists_move_along() -> None:
    text = (
        "AssertionError: Torch not compiled with CUDA enabled\n- Python:Python 3.8.6\n"
        "- torchaudio-2.0.1+cu118.dist-info\n"
        "- torchvision-0.15.1+cu118.dist-info\n| NVIDIA-SMI 527.56  Driver Version: 527.56  CUDA Version: 12.0 |\n"
    )
    finding = first(text)
    assert "torch torchvision torchaudio" in finding.fix[0]
    assert "torchvision" in finding.fix[1]
    assert "torchaudio" in finding.fix[1]
    assert parse_report(text).python.version == "3.8.6"


def test_fields_in_markdown_are_read() -> None:
    facts = parse_report("- __PyTorch__ v1.3.0\n- __Python__ '3.6.9 |Anaconda'\n**CUDA used to build PyTorch: 12.4**\n")
    assert (facts.torch.version, facts.torch.cuda, facts.python.version) == ("1.3.0", "12.4", "3.6.9")


def test_a_release_without_a_wheel_for_this_python_is_not_python_without_wheels() -> None:
    text = (
        "Python 3.11.0 (main, Oct 24 2022, 18:26:48) [MSC v.1933 64 bit (AMD64)]\n"
        "ERROR: Could not find a version that satisfies the requirement torch==1.12.1+cu113 (from versions: none)\n"
    )
    finding = first(text)
    assert finding.title == "torch==1.12.1+cu113 has no wheel for Python 3.11.0"
    assert "3.10" in finding.fix[0]
    assert "--index-url" in finding.fix[-1]


def test_windows_never_gets_a_bare_install_of_torch() -> None:
    facts = Facts(platform=PlatformFacts(system="Windows"), torch=TorchFacts(installed=False))
    assert "--index-url" in diagnose(facts).findings[0].fix[-1]


def test_without_a_gpu_the_cpu_index_is_named() -> None:
    copies = (Install("2.8.0", "/a/torch"), Install("2.7.0", "/b/torch"))
    facts = Facts(
        platform=PlatformFacts(system="Linux", machine="x86_64", gpu_vendors=(), devices=()),
        gpus=(),
        torch=TorchFacts(installed=True, version="2.8.0", build="cuda", cuda="12.8", installs=copies),
    )
    finding = next(item for item in diagnose(facts).findings if item.id == "duplicate-torch-installs")
    assert finding.fix[-1].endswith("--index-url https://download.pytorch.org/whl/cpu torch==2.8.0")


def test_what_is_there_but_on_no_path_is_put_on_it() -> None:
    finding = of_file("cudnn-library-missing--on-no-loader-path")
    assert re.match(r"export LD_LIBRARY_PATH=/\S+/nvidia/cudnn/lib:", finding.fix[0])


def test_a_pinned_neighbour_is_upgraded_or_kept_with_it() -> None:
    finding = of_file("huggingface-hub-import-error--held-back")
    commands = [step for step in finding.fix if " install " in step]
    assert "tokenizers" in commands[0]
    assert "transformers" in commands[0]
    assert '"accelerate<0.32" "huggingface-hub<0.18,>=0.16.4"' in commands[1]
    assert '"peft<0.14"' in "".join(of_file("transformers-import-error--pinned").fix)


def test_a_wheel_from_a_newer_system_is_compiled_here() -> None:
    finding = of_file("glibc-too-old--one-wheel")
    assert finding.fix[0].startswith("FLASH_ATTENTION_FORCE_BUILD=TRUE python -m pip install")
    assert not any("torch==2.6.0" in step for step in finding.fix)


def test_numpy_1_is_not_offered_where_it_has_no_wheels() -> None:
    text = "PyTorch version: 2.2.0+cu121\nPython version: {}\nFailed to initialize NumPy: _ARRAY_API not found\n"
    assert "numpy<2" in first(text.format("3.12.1")).fix[0]
    assert not any("numpy<2" in step for step in first(text.format("3.13.0")).fix)


def test_two_environments_the_broken_one_counts() -> None:
    good = "PyTorch version: 2.6.0+cu124\nCUDA used to build PyTorch: 12.4\nIs CUDA available: True\n"
    bad = "PyTorch version: 2.6.0+cpu\nCUDA used to build PyTorch: None\nIs CUDA available: False\n"
    shared = "Nvidia driver version: 550.54.14\nGPU 0: NVIDIA L4\n"
    for text in (good + shared + bad, bad + good + shared):
        facts = parse_report(text)
        assert (facts.torch.version, facts.torch.cuda_available) == ("2.6.0+cpu", False)
        assert facts.driver.version == "550.54.14"
        assert first(text).id == "torch-cpu-only"
    assert diagnose(parse_report(good + shared)).verdict == "healthy"


@pytest.mark.parametrize(
    "told", ["I'm using Mac OSX with no CUDA support", "Since I don't have a GPU I don't need CUDA."]
)
def test_cuda_is_not_offered_to_a_machine_that_cannot_have_it(told: str) -> None:
    finding = first(f"AssertionError: Torch not compiled with CUDA enabled\n{told}\n")
    assert finding.id == "torch-cpu-only"
    assert "no NVIDIA GPU" in finding.title
    assert builds(finding) == []


def test_a_name_that_a_program_of_ones_own_misses_is_no_reason_to_upgrade() -> None:
    text = "ImportError: cannot import name 'PeftSavingCallback' from 'trl.trainer.utils' (/x/trl/trainer/utils.py)\n"
    assert "was written for" in first(text).fix[0]
    text = "cannot import name 'EncoderDecoderCache' from 'transformers' (/x/site-packages/transformers/__init__.py)\n"
    assert '"peft<0.14"' in first(f"RuntimeError: Failed to import transformers.trainer\n{text}").fix[0]


def test_a_driver_update_is_always_offered_beside_an_older_build() -> None:
    finding = first("docker run -it --gpus=all gcr.io/someone/thing:latest\n" + TOO_OLD.format("11080"))
    assert "Update the NVIDIA driver of the host to 525.60.13 or newer" in finding.fix[0]
    assert "gcr.io/someone/thing:latest" in finding.fix[-1]


@pytest.mark.parametrize(
    ("torch", "asked", "command"),
    [
        ("2.1.2", "transformers>=4.37", "python -m pip install -U 'transformers>=4.37,<4.56'"),
        ("2.1.2", "transformers", "python -m pip install -U 'transformers<4.56'"),
        ("2.1.2", "transformers<4.50", "python -m pip install -U 'transformers<4.50'"),
        ("2.9.0", "transformers>=4.37", "python -m pip install -U 'transformers>=4.37,<5'"),
        (None, "transformers", "python -m pip install -U transformers"),
    ],
)
def test_an_upgrade_of_transformers_stays_within_what_the_torch_that_is_here_takes(torch, asked, command) -> None:
    assert install(Facts(origin="report", torch=TorchFacts(version=torch)), asked, upgrade=True) == command


@pytest.mark.parametrize(
    ("here", "asked", "command"),
    [
        # peft 0.14 imports a name of transformers 4.43, which its metadata do not ask for.
        ("transformers 4.41.2", "peft>=0.14", "'peft>=0.14' 'transformers>=4.43,<5'"),
        ("transformers 4.41.2 torch 2.1.2", "peft", "peft 'transformers>=4.43,<4.56'"),
        ("transformers 4.45.0", "peft", "peft"),
        # What pip would replace torch for, or what would bring a transformers that this torch does not run.
        ("torch 1.13.1", "accelerate", "'accelerate<1.3.0'"),
        ("torch 2.1.2", "trl>=0.12", "'trl>=0.12,<0.23.0' 'transformers<4.56'"),
        ("torch 2.4.1 transformers 4.44.0", "trl>=0.12", "'trl>=0.12' 'transformers<5.15'"),
        ("torch 2.4.1 transformers 4.57.0", "trl>=0.12", "'trl>=0.12'"),
        # Where what is asked for needs a newer torch, torch goes along, with all that is bound to it.
        ("torch 2.1.2", "trl>=1.0", "'trl>=1.0' torch"),
        ("torch 2.1.2 torchvision 0.16.2", "transformers>=5", "'transformers>=5' torch torchvision"),
        ("torch 2.1.2 torchvision 0.16.2 xformers 0.0.23", "torch", "torch torchvision xformers"),
        # What stays is not broken by what goes up, or goes along.
        ("transformers 4.48.0", "huggingface-hub", "'huggingface-hub<1.0'"),
        ("transformers 4.48.0", "huggingface-hub>=1.3", "'huggingface-hub>=1.3'"),
        # What is not there yet comes in a release that those bear which are there.
        ("peft 0.17.1", "transformers", "'transformers<5'"),
        ("numpy 1.26.4", "pyarrow", "'pyarrow<26.0'"),
        ("numpy 1.26.4 pyarrow 14.0.1", "pyarrow", "pyarrow 'numpy>=2'"),
        ("accelerate 0.30.1 transformers 4.44.2", "peft", "peft 'accelerate>=0.32,<1'"),
        ("transformers 4.52.4 huggingface-hub 0.32.4", "datasets", "'datasets<5.1.0'"),
        ("transformers 4.52.4", "vllm>=0.10.2", "'vllm>=0.10.2'"),  # it brings a transformers of its own
        ("autoawq 0.2.5", "transformers>=4.50", "'transformers>=4.50,<5' 'autoawq>=0.2.7'"),
        ("autoawq 0.2.8", "transformers>=4.50", "'transformers>=4.50,<5'"),
        ("diffusers 0.24.0", "huggingface-hub>=0.20,<0.26", "'huggingface-hub>=0.20,<0.26'"),
        ("torch 2.1.2", "git+https://github.com/huggingface/peft", "git+https://github.com/huggingface/peft"),
    ],
)
def test_an_upgrade_breaks_nothing_that_stays(here: str, asked: str, command: str) -> None:
    words = here.split()
    packages = dict(zip(words[::2], words[1::2], strict=True))
    facts = Facts(origin="report", torch=TorchFacts(version=packages.get("torch")), packages=packages)
    assert install(facts, asked, upgrade=True) == f"python -m pip install -U {command}"


def test_what_brings_a_new_hub_names_the_transformers_that_bears_none() -> None:
    here = Facts(origin="report", packages={"transformers": "4.57.1"})
    assert install(here, "diffusers") == "python -m pip install transformers diffusers"
    assert install(here, "datasets<4") == "python -m pip install 'datasets<4'"
    assert install(here, "einops") == "python -m pip install einops"
    assert install(Facts(absent=frozenset({"transformers"})), "diffusers").endswith(" diffusers")


LOADING = '  File "/p/lib/python3.11/site-packages/{}/__init__.py", line 3, in <module>\n'


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        # The one that asks is named, and first: it stays, and pip brings what else it asks for.
        (
            LOADING.format("transformers") + "ModuleNotFoundError: No module named 'httpx'",
            "python -m pip install transformers httpx",
        ),
        # What stands above transformers may want a newer one; pip finds out.
        (
            LOADING.format("sentence_transformers") + LOADING.format("transformers") + "ImportError: "
            "tokenizers>=0.11.1,!=0.11.3,<0.14 is required for a normal functioning of this module, but found "
            "tokenizers==0.20.3.",
            "python -m pip install sentence-transformers transformers",
        ),
        (
            LOADING.format("transformers") + "ImportError: tokenizers>=0.11.1,!=0.11.3,<0.14 is required for a normal "
            "functioning of this module, but found tokenizers==0.20.3.",
            'python -m pip install "tokenizers>=0.11.1,!=0.11.3,<0.14" transformers',
        ),
        # Not beyond the major that the name came in, nor beyond what the asker bears.
        (
            LOADING.format("peft") + "ModuleNotFoundError: No module named 'transformers.modeling_layers'\n\n"
            "peft 0.18.0\ntransformers 4.51.1",
            'python -m pip install peft "transformers>=4.52,<5"',
        ),
        (
            LOADING.format("diffusers") + "ImportError: cannot import name 'cached_download' from 'huggingface_hub' "
            "(/p/lib/python3.11/site-packages/huggingface_hub/__init__.py)",
            'python -m pip install transformers huggingface-hub "diffusers>=0.29"',
        ),
        # The error that was seen comes before what is only too old beside it.
        (
            LOADING.format("trl") + "ImportError: cannot import name 'top_k_top_p_filtering' from 'transformers' "
            "(/p/lib/python3.11/site-packages/transformers/__init__.py)\n\ntrl 0.7.1\naccelerate 0.23.0\n"
            "transformers 4.51.0",
            'python -m pip install transformers "trl>=0.8"',
        ),
    ],
)
def test_pip_is_told_who_has_to_go_on_working(lines: str, first: str) -> None:
    steps = diagnose(parse_report("Traceback (most recent call last):\n" + lines + "\n")).findings[0].fix
    assert first in [step.split("   # ")[0] for step in steps][:2]


def test_an_upgrade_with_torch_is_not_bound_by_the_one_that_goes() -> None:
    facts = Facts(origin="report", torch=TorchFacts(version="2.1.2"))
    assert install(facts, "torch", "transformers", upgrade=True) == "python -m pip install -U torch transformers"


def test_what_belongs_to_an_exact_torch_is_named_where_pip_would_not_see_to_it() -> None:
    facts, forced = Facts(origin="report"), "--force-reinstall"
    assert install(facts, "torch==2.1.1", "torchvision", "torchaudio", options=forced) == (
        "python -m pip install --force-reinstall torch==2.1.1 torchvision 'torchaudio==2.1.*' 'numpy<2'"
    )
    assert install(facts, "torch==1.13.1", "torchaudio").endswith("torch==1.13.1 'torchaudio==0.13.*'")
    assert install(facts, "torch==2.8.0", "torchaudio") == "python -m pip install torch==2.8.0 'torchaudio==2.8.*'"
    assert install(facts, "torch", "torchaudio") == "python -m pip install torch torchaudio"


@pytest.mark.parametrize(
    ("step", "index"),
    [
        ("python -m pip install torch", "cu126"),
        ("or: python -m pip install -U torch torchvision   # the newest", "cu126"),
        ("python -m pip install --force-reinstall torch", "cu124"),  # the build that is here, anew
        ("python -m pip install torch==1.13.1", "cu117"),
        ("uv pip install 'torch>=2.0' torchvision", "cu126"),
        ("python -m pip install torch setuptools wheel", ""),
        ("python -m pip install torch --index-url https://example.org", ""),
        ("python -m pip install torch-directml", ""),
        ("python -m pip install torch, then the rest", ""),
        ("python -m pip install torchvision", ""),
    ],
)
def test_on_windows_torch_comes_from_an_index_with_cuda_builds(step: str, index: str) -> None:
    facts = Facts(origin="report", platform=PlatformFacts(system="Windows"), torch=TorchFacts(version="2.6.0+cu124"))
    (put,) = in_environment(facts, (step,))
    assert re.findall(r"whl/(\w+)", put) == ([index] if index else [])
    assert put.replace(f" --index-url https://download.pytorch.org/whl/{index}", "").replace('"', "'") == step
    assert in_environment(Facts(origin="report", platform=PlatformFacts(system="Linux")), (step,)) == (step,)


def test_a_requirement_stands_in_the_quotes_that_every_shell_knows_where_none_is_told() -> None:
    step = "python -m pip install 'numpy<2'   # not 'numpy<3'"
    assert in_environment(Facts(origin="report"), (step,)) == ("python -m pip install \"numpy<2\"   # not 'numpy<3'",)


def test_an_amd_gpu_gets_no_cuda_build() -> None:
    facts = Facts(origin="report", platform=PlatformFacts(system="Linux"), gpus=(GpuFacts(name="x", vendor="amd"),))
    assert "whl/rocm" in in_environment(facts, ("python -m pip install -U torch",))[0]


def test_a_server_and_its_transformers_are_upgraded_in_one_command() -> None:
    text = (
        "ValueError: The checkpoint you are trying to load has model type `qwen3_moe` but Transformers does not "
        "recognize this architecture.\n(EngineCore_0 pid=1) File /x/site-packages/vllm/config.py, line 1, in __init__\n"
        "vllm serve x\n"
    )
    commands = [step for step in first(text).fix if " install " in step]
    assert "vllm" in commands[0]
    assert "transformers" in commands[0]
    assert not any("transformers" in step and "vllm" not in step for step in commands)


def test_what_has_no_wheels_for_this_system_is_not_offered_to_pip() -> None:
    finding = first("OS: Windows 11\nPython 3.10.11\nModuleNotFoundError: No module named 'vllm'\n")
    assert finding.id == "module-missing"
    assert finding.fix[0].startswith("wsl --install")


def test_to_keep_one_the_other_goes_below_the_release_that_is_here() -> None:
    finding = of_file("accelerate-import-error--named-in-a-sentence")
    kept = next(step for step in finding.fix if "to keep" in step)
    assert '"diffusers<0.33"' in kept  # 0.33.1 is here, and does not work


@pytest.mark.parametrize(
    ("platform", "put"),
    [
        (PlatformFacts(system="Linux", os="Ubuntu 24.04"), "sudo apt install -y build-essential libcurl4-openssl-dev"),
        (PlatformFacts(system="Linux", os="Fedora 42"), "sudo dnf install gcc gcc-c++ make libcurl-devel"),
        (PlatformFacts(system="Linux", os="Alpine Linux v3.20"), "sudo apk add build-base curl-dev"),
        (PlatformFacts(system="Darwin"), "brew install curl"),
        (
            PlatformFacts(system="Linux", container="docker"),
            "apt-get update && apt-get install -y build-essential libcurl4-openssl-dev",
        ),
    ],
)
def test_packages_of_the_system_come_by_its_own_tool(platform: PlatformFacts, put: str) -> None:
    step = "sudo apt install -y build-essential libcurl4-openssl-dev && cmake -B build"
    assert in_environment(Facts(origin="report", platform=platform), (step,)) == (f"{put} && cmake -B build",)


def test_what_is_done_outside_a_container_says_so() -> None:
    inside = Facts(origin="report", platform=PlatformFacts(system="Linux", container="docker"))
    steps = ("sudo reboot", "sudo apt install -y nvidia-container-toolkit   # new", "sudo modprobe x   # on the node")
    assert in_environment(inside, steps) == (
        "sudo reboot   # on the host",
        "sudo apt install -y nvidia-container-toolkit   # on the host; new",
        "sudo modprobe x   # on the node",
    )
    assert in_environment(Facts(origin="report"), steps) == steps


def test_a_new_environment_is_offered_in_one_way() -> None:
    doctor = Path(fixes.__file__).parent
    by_hand = [path.name for path in (doctor / "rules").rglob("*.py") if "uv venv --" in path.read_text("utf-8")]
    assert by_hand == []
    made = re.compile(re.escape(fixes.new_environment("PYTHON")).replace("PYTHON", r"[\w.-]+"))
    tables = "\n".join(path.read_text("utf-8") for path in (doctor / "tables").rglob("*.toml"))
    written = re.findall(r"uv venv --[^\"]*", tables)
    assert len(written) > 10
    assert [text for text in written if not made.match(text)] == []


@pytest.mark.parametrize(
    ("system", "asked", "named"),
    [
        ("Windows", "triton", "triton-windows"),
        ("Darwin", "onnxruntime-gpu", "onnxruntime"),
        ("Linux", "tensorflow-gpu", "tensorflow[and-cuda]"),
        ("Linux", "triton", "triton"),
        (None, "triton", "triton"),
    ],
)
def test_what_does_its_work_here_is_installed_in_place_of_what_has_no_wheels(system, asked, named) -> None:
    facts = Facts(origin="report", platform=PlatformFacts(system=system))
    assert install(facts, asked).split()[-1].strip("'\"") == named


def test_numpy_stays_one_that_an_old_torch_was_built_with() -> None:
    assert install(Facts(torch=TorchFacts(version="2.1.0"), origin="report"), "numpy", "pyyaml").endswith(
        "'numpy<2' pyyaml"
    )


def test_an_nvidia_gpu_is_no_radeon_of_the_same_number() -> None:
    assert gpu_capability("GeForce GTX 760M") is None
    assert gpu_capability("AMD Radeon 760M") == "gfx1103"


def steps_of_tables() -> list[tuple[str, str]]:
    """Every step that a row of the tables may offer, with the row's id."""
    kinds = ("fix", "windows", "wsl", "mac", "rented", "named")
    rows = [*faults(), *table("symptoms")["symptom"]]
    return [(row["id"], step) for row in rows for kind in kinds for step in row.get(kind, ())]


def test_every_torch_that_the_tables_name_is_on_the_index_that_they_name() -> None:
    checked = 0
    for row, step in steps_of_tables():
        tags = re.findall(r"download\.pytorch\.org/whl/(cu\d{2,3})\b", step)
        for version, local in re.findall(r"\btorch==(\d+\.\d+\.\d+)(?:\+(cu\d{2,3}))?", step):
            release = torch_release(version)
            if release is None:
                assert version in table("torch")["old"], (row, step)
                continue
            assert parse_version(version) <= parse_version(release.latest), (row, step)
            assert not (tags or local) or {*tags, *filter(None, [local])} & set(release.variants), (row, step)
            for name, other in re.findall(r"\b(torchvision|torchaudio)==(\d+\.\d+)", step):
                mine = minor_name(release.torchvision if name == "torchvision" else version)
                others = [*re.findall(r"\btorch==(\d+\.\d+)", step)]
                assert other == mine or len(set(others)) > 1, (row, step)
            checked += 1
        known = {name for release in torch_releases() for name in release.variants}
        assert set(tags) <= known | {"cu113", "cu110"}, (row, step)
    assert checked > 4


def test_the_tables_name_only_versions_that_can_be_read_and_ranges_that_hold_something() -> None:
    for row, step in steps_of_tables():
        for specifier in re.findall(r"(?<![\w.-])[a-z][\w-]+((?:[<>=!~]=|<|>)\d[\w.*,<>=!~]*)", step):
            clauses = [clause for clause in specifier.rstrip(".,").split(",") if re.match(r"[<>=!~]", clause)]
            floor = next((clause[2:] for clause in clauses if clause.startswith(">=")), None)
            end = next((clause[1:] for clause in clauses if re.match(r"<\d", clause)), None)
            assert not (floor and end) or older(floor, end), (row, step)
            bound = re.sub(r"[<>=!~]+", "", clauses[0])
            assert satisfies(bound.replace(".*", ".0"), clauses[0].replace(".*", ".0")) is not None, (row, step)


def test_an_xformers_without_a_wheel_for_this_python_is_not_offered() -> None:
    text = "PyTorch version: 2.6.0+cu124\nPython version: {}\n[pip3] torch==2.6.0+cu124\n[pip3] xformers==0.0.28\n"
    assert "xformers==0.0.29.post3" in "".join(first(text.format("3.12.4")).fix)
    assert "xformers==" not in "".join(first(text.format("3.13.0")).fix)


def test_what_a_python_is_too_old_for_asks_for_another_one() -> None:
    facts = Facts(origin="report", python=PythonFacts(version="3.8.10"))
    steps = apart._in_newer_python(facts, "huggingface-hub", ">=1.0")
    assert "no huggingface-hub >=1.0 takes Python 3.8" in steps[0]
    assert apart._in_newer_python(facts, "huggingface-hub", ">=0.20") == []


def test_nightly_builds_that_do_not_fit_come_anew_from_their_own_index() -> None:
    text = (
        "PyTorch version: 2.10.0.dev20250929+rocm7.0\n[pip3] torch==2.10.0.dev20250929+rocm7.0\n"
        "[pip3] torchvision==0.24.0+rocm6.4\nRuntimeError: operator torchvision::nms does not exist\n"
    )
    command = "".join(first(text).fix)
    assert "--pre -U --index-url https://download.pytorch.org/whl/nightly/rocm7.0 torch torchvision" in command
    assert "dev20250929" not in command


@pytest.mark.parametrize(
    ("os", "put"),
    [
        ("Ubuntu 24.04", "sudo ubuntu-drivers install && sudo reboot"),
        (
            "Fedora Linux 42",
            "sudo dnf install "
            "https://mirrors.rpmfusion.org/free/fedora/rpmfusion-free-release-$(rpm -E %fedora).noarch.rpm "
            "https://mirrors.rpmfusion.org/nonfree/fedora/rpmfusion-nonfree-release-$(rpm -E %fedora).noarch.rpm"
            " && sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda && sudo reboot",
        ),
        (
            "Rocky Linux 9.4 (Blue Onyx)",
            "sudo dnf install epel-release && sudo dnf config-manager --add-repo https://developer.download.nvidia.com/"
            "compute/cuda/repos/rhel9/x86_64/cuda-rhel9.repo && sudo dnf module install nvidia-driver:latest-dkms"
            " && sudo reboot",
        ),
        (
            "CentOS Linux 7 (Core)",
            "sudo yum install epel-release && sudo yum-config-manager --add-repo https://developer.download.nvidia.com/"
            "compute/cuda/repos/rhel7/x86_64/cuda-rhel7.repo && sudo yum install nvidia-driver-latest-dkms"
            " && sudo reboot",
        ),
        ("Arch Linux", "sudo pacman -S nvidia-open nvidia-utils && sudo reboot"),
        ("Debian GNU/Linux 12", "sudo apt install nvidia-driver && sudo reboot"),
    ],
)
def test_the_driver_comes_from_the_distribution_that_is_told(os: str, put: str) -> None:
    facts = Facts(origin="report", platform=PlatformFacts(system="Linux", os=os))
    assert in_environment(facts, ("sudo ubuntu-drivers install && sudo reboot",)) == (put,)


def test_what_belongs_to_torch_goes_along_where_it_is_missed_or_the_program_needs_it() -> None:
    old = "The NVIDIA driver on your system is too old (found version 12040).\n"
    missed = judged_steps(old + "ModuleNotFoundError: No module named 'torchvision'\n")
    assert " torchvision" in missed
    assert "torchaudio" not in missed
    web_ui = judged_steps('  File "/home/user/ComfyUI/main.py", line 1, in <module>\n' + old)
    assert " torchvision" in web_ui
    assert " torchaudio" in web_ui
    assert "torchvision" not in judged_steps(old)


def judged_steps(report: str) -> str:
    """The commands of the first finding, in one line."""
    return " ".join(diagnose(parse_report("GPU 0: NVIDIA GeForce RTX 3090\n" + report)).findings[0].fix)


def test_a_cuda_that_conda_never_had_is_named() -> None:
    path = Path(__file__).parent.parent / "data/doctor/conda-package-not-in-channels--cuda-of-the-driver.txt"
    asked = path.read_text()
    assert "torch was never built for CUDA 11.4" in diagnose(parse_report(asked)).findings[0].title
    built = diagnose(parse_report(asked.replace("11.4", "11.3"))).findings[0]
    assert "never built" not in built.title
