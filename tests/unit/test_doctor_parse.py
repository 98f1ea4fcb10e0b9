from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.draft import REMARKS
from workbench.doctor.parse.report import parse_report
from workbench.doctor.report import to_json, to_text

DATA = Path(__file__).parent.parent / "data" / "doctor"
FRAGMENTS = [
    line for path in sorted(DATA.glob("*.txt")) for line in path.read_text(encoding="utf-8").splitlines() if line
]
MEGABYTE = 1_000_000


def test_old_smi_table_gives_memory_power_and_mode() -> None:
    facts = parse_report(
        "| NVIDIA-SMI 470.199.02   Driver Version: 470.199.02   CUDA Version: 11.4     |\n"
        "|   0  NVIDIA GeForce ...  Off  | 00000000:01:00.0 Off |                  N/A |\n"
        "| 30%   57C    P2   126W / 350W |  22712MiB / 24265MiB |      7%   E. Process |\n"
        "|                               |                      |                  N/A |\n"
        "|   1  NVIDIA A100 80G...  Off  | 00000000:21:00.0 Off |                    2 |\n"
        "| N/A   41C    P8    34W / 300W |      8MiB / 81920MiB |      0%      Default |\n"
        "|                               |                      |              Enabled |\n"
        "+-----------------------------------------------------------------------------+\n"
        "| Processes:                                                                  |\n"
        "|    0   N/A  N/A      1533      C   /usr/bin/python3                22700MiB |\n"
    )
    assert (facts.driver.version, facts.driver.cuda) == ("470.199.02", "11.4")
    assert facts.gpus is not None
    first, second = facts.gpus
    assert first.memory_used_bytes == 22712 * 2**20
    assert first.memory_bytes == 24265 * 2**20
    assert (first.power_watts, first.power_limit_watts, first.temperature_celsius) == (126, 350, 57)
    assert (first.utilization_percent, first.compute_mode, first.ecc_uncorrected) == (7, "E. Process", None)
    assert first.processes is not None
    assert (first.processes[0].pid, first.processes[0].memory_bytes) == (1533, 22700 * 2**20)
    assert (second.mig, second.ecc_uncorrected) == (True, 2)
    assert diagnose(facts).facts.gpus[1].compute_capability == "8.0"  # type: ignore[index]


def test_smi_610_banner_has_other_words() -> None:
    facts = parse_report("| NVIDIA-SMI 610.43.02    KMD Version: 610.47.01    CUDA UMD Version: 13.3 |")
    assert (facts.driver.version, facts.driver.cuda) == ("610.47.01", "13.3")


def test_whole_gpu_name_replaces_a_cut_one_from_either_side() -> None:
    table = "|   0  NVIDIA GeForce ...  Off  | 00000000:01:00.0 Off |                  N/A |"
    named = "GPU models and configuration: GPU 0: NVIDIA GeForce RTX 3090"
    for text in (f"{table}\n{named}", f"{named}\n{table}"):
        gpus = parse_report(text).gpus
        assert gpus is not None
        assert [gpu.name for gpu in gpus] == ["NVIDIA GeForce RTX 3090"]


def test_collect_env_of_a_cpu_build_says_could_not_collect_since_2_13() -> None:
    facts = parse_report("PyTorch version: 2.13.0\nCUDA used to build PyTorch: Could not collect\n")
    assert facts.torch.build == "cpu"


def test_a_form_that_put_all_fields_into_one_line() -> None:
    facts = parse_report(
        "Collecting environment information... PyTorch version: 2.2.1+cu118 Is debug build: False CUDA used to build "
        "PyTorch: 11.8 ROCM used to build PyTorch: N/A OS: Ubuntu 20.04.5 LTS (x86_64) GCC version: (Ubuntu "
        "9.4.0-1ubuntu1~20.04.1) 9.4.0 Clang version: Could not collect Libc version: glibc-2.31 Python version: "
        "3.8.10 (default, Nov 22 2023, 10:22:35) [GCC 9.4.0] (64-bit runtime) Is CUDA available: True CUDA runtime "
        "version: 11.8.89 GPU models and configuration: GPU 0: NVIDIA A100-SXM4-80GB GPU 1: NVIDIA A100-SXM4-80GB "
        "Nvidia driver version: 535.104.05 cuDNN version: Could not collect [pip3] numpy==1.24.4 [pip3] torch==2.2.1"
    )
    assert (facts.torch.version, facts.torch.cuda_available) == ("2.2.1+cu118", True)
    assert (facts.python.version, facts.driver.version) == ("3.8.10", "535.104.05")
    assert [gpu.name for gpu in facts.gpus or ()] == ["NVIDIA A100-SXM4-80GB"] * 2
    assert facts.package("numpy") == "1.24.4"
    facts = parse_report(
        "- `transformers` version: 4.45.2 - Platform: Linux-5.15.0-x86_64-with-glibc2.35 - Python version: 3.10.12 - "
        "Huggingface_hub version: 0.25.1 - Safetensors version: 0.4.5 - PyTorch version (GPU?): 2.4.1+cu121 (True)"
    )
    assert (facts.package("transformers"), facts.package("safetensors")) == ("4.45.2", "0.4.5")
    assert (facts.torch.version, facts.torch.cuda_available) == ("2.4.1+cu121", True)


@pytest.mark.parametrize(
    ("line", "container"),
    [
        ("- 是否使用 Docker 部署（是/否）：否", None),
        ("Do you run it in docker? no", None),
        ("- 是否使用 Docker 部署（是/否）：是", "docker"),
        ("I run it in docker, no idea which image", "docker"),
    ],
)
def test_a_question_of_a_form_that_is_answered_with_no(line: str, container: str | None) -> None:
    assert parse_report(f"{line}\nRuntimeError: No CUDA GPUs are available\n").platform.container == container


def test_what_a_form_shows_as_an_example_is_no_fact() -> None:
    platform = parse_report(" - OS: [e.g. Ubuntu 16.04] Mac M1\nNo matching distribution found for torch\n").platform
    assert (platform.system, platform.os) == ("Darwin", "Mac M1")


def test_bitsandbytes_writes_a_rocm_as_a_cuda_with_a_capability() -> None:
    specs = (
        "CUDA specs: CUDASpecs(highest_compute_capability=({}), cuda_version_string='{}', cuda_version_tuple=(6, 0))"
    )
    for capability, version, vendor in (("11, 0", "60", None), ("8, 6", "121", "nvidia")):
        (gpu,) = parse_report(specs.format(capability, version)).gpus or ()
        assert gpu.vendor == vendor


def test_nvcc_version_is_not_torchs_cuda() -> None:
    facts = parse_report("PyTorch version: 2.8.0+cu128\nCUDA runtime version: 11.5.119\n")
    assert facts.toolkit.nvcc == "11.5"
    assert diagnose(facts).facts.torch.cuda == "12.8"


@pytest.mark.parametrize(
    ("text", "build", "cuda"),
    [
        ("OS: Microsoft Windows 11 Pro\n[pip3] torch==2.6.0", "cpu", None),
        ("OS: Ubuntu 22.04 LTS (x86_64)\n[pip3] torch==2.11.0", "cuda", "13.0"),
        ("OS: Ubuntu 22.04 LTS (aarch64)\n[pip3] torch==2.8.0", "cpu", None),
        ("Platform: macOS-15.1-arm64-arm-64bit\ntorch==2.8.0", "mps", None),
        ("torch==2.8.0", None, None),
        ("torch==2.8.0\nnvidia-cuda-runtime-cu12==12.8.90", "cuda", "12.8"),
        (
            "# packages in environment at /opt/conda:\npytorch 2.1.0 py3.10_cuda11.8_cudnn8.7.0_0 pytorch",
            "cuda",
            "11.8",
        ),
    ],
)
def test_build_behind_a_bare_version(text: str, build: str | None, cuda: str | None) -> None:
    torch = diagnose(parse_report(text)).facts.torch
    assert (torch.build, torch.cuda) == (build, cuda)


def test_python_prompt_answers_are_read_even_when_quoted() -> None:
    session = ">>> import torch\n>>> torch.__version__\n'2.13.0+cu130'\n>>> torch.cuda.is_available()\nFalse\n"
    for text in (session, "".join(f"> {line}\n" for line in session.splitlines())):
        facts = parse_report(text)
        assert facts.torch.version == "2.13.0+cu130"
        assert facts.torch.cuda_available is False


def test_advice_printed_by_programs_is_not_a_setting() -> None:
    facts = parse_report(
        "export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:<path_to_cuda_dir/lib64>\n"
        "   export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/path/to/cuda-12.x/lib64\n"
        "export BNB_CUDA_VERSION=\n"
    )
    assert facts.environment == {}


def test_secrets_in_a_paste_are_masked_everywhere() -> None:
    facts = parse_report(
        "HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz\n"
        "HTTPS_PROXY=http://me:hunter2@proxy:3128\n"
        "OSError: We couldn't connect to 'https://me:hunter2@huggingface.co' with token hf_abcdefghijklmnop\n"
    )
    shown = repr(facts)
    assert "hunter2" not in shown
    assert "hf_abcdefgh" not in shown
    assert facts.environment["HF_TOKEN"] == "***"
    assert facts.environment["HTTPS_PROXY"] == "http://***@proxy:3128"


def test_message_wrapped_by_a_mail_program_is_found() -> None:
    facts = parse_report("> The NVIDIA driver on your system is too\n> old (found version 11040).\n")
    error = facts.error("driver-too-old")
    assert error is not None
    assert error.values["found"] == "11040"


def test_first_of_two_errors_comes_first() -> None:
    facts = parse_report(
        "operator torchvision::nms does not exist\nNameError: name 'str2optimizer32bit' is not defined\n"
    )
    assert [error.id for error in facts.errors] == ["torchvision-nms", "bnb-str2optimizer"]


def test_pip_conflict_lines_become_conflicts() -> None:
    facts = parse_report("torchaudio 2.8.0 requires torch==2.8.0, but you have torch 2.9.1 which is incompatible.\n")
    assert facts.conflicts is not None
    assert facts.conflicts[0].requires == "torch==2.8.0"
    assert facts.conflicts[0].found == "2.9.1"


def test_report_inside_one_line_of_json_is_read() -> None:
    log = '{"log": "' + "PyTorch version: 2.6.0+cpu\\nIs CUDA available: False\\n" + "x" * 5000 + '"}'
    assert parse_report(log).torch.cuda_available is False


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=80)), max_size=40), st.randoms())
def test_any_mixture_of_lines_is_read_without_exception(lines: list[str], random: object) -> None:
    random.shuffle(lines)  # type: ignore[attr-defined]
    diagnose(parse_report("\n".join(lines)))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_bytes_are_read_without_exception(data: bytes) -> None:
    diagnose(parse_report(data.decode("latin-1")))
    diagnose(parse_report(data.decode("utf-8", "replace")))


UNITS = (
    *("a", "\n", " ", ">", "> \n", "| ", "a: ", "1.", "/", "\\n", "\x1b[", "\x1b]", "&;", "│", "=", "'", "a b\t"),
    *("GPU 0: \n", "NVRM: Xid (\n", "|   0  NVIDIA X |\n", "torch==2.1\n", "libbitsandbytes_cuda", "http://"),
    *("cannot open shared object file\n", "File x/lib/python3.10/site-packages/\n", "<details>"),
    "torch 2 requires numpy<2 which is incompatible\n",
    *("torch " + "-" * 580 + "\n", "huggingface permission denied " + "." * 3900 + "\n"),
)


# Time that grows with the square of the length would be minutes here already.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", UNITS)
def test_a_long_text_of_anything_ends(unit: str) -> None:
    length = MEGABYTE // 4
    parse_report((unit * (length // len(unit) + 1))[:length])


@pytest.mark.parametrize(
    ("text", "available"),
    [
        (
            ">>> torch.cuda.is_available()\n/x/cuda/__init__.py:52: UserWarning: CUDA unknown\n  return x\nFalse\n",
            False,
        ),
        ("python3 -c 'import torch; print(torch.cuda.is_available())'\n\nreturned False\n", False),
        ("import torch\nprint(torch.cuda.is_available())\nprint(torch.cuda.device_count())\nTrue\n1\n", True),
        (">>> torch.cuda.is_available()\n>>> flag\nFalse\n", None),
        ("if torch.cuda.is_available():\n    x = 1\nFalse\n", None),
    ],
)
def test_the_answer_to_is_available_may_stand_lines_below(text: str, available: bool | None) -> None:
    assert parse_report(text).torch.cuda_available is available


def test_full_width_colons_and_capabilities_in_names() -> None:
    facts = parse_report("GPU 0： Tesla P100-PCIE-16GB\nGPU 1：NVIDIA GeForce RTX 5090 (SM_120)\n")
    assert facts.gpus is not None
    assert [gpu.name for gpu in facts.gpus] == ["Tesla P100-PCIE-16GB", "NVIDIA GeForce RTX 5090"]


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("peft-0.5.0\n", "peft", "0.5.0"),
        ("tokenizers 0.23.1.\n", "tokenizers", "0.23.1"),
        ("- transformers 4.44.2\n", "transformers", "4.44.2"),
        ("- `xformers`: `0.0.35`\n", "xformers", "0.0.35"),
        ("- PyTorch 2.3.0+cu121\n", "torch", "2.3.0+cu121"),
    ],
)
def test_packages_named_in_other_ways_than_a_list(text: str, name: str, version: str) -> None:
    assert parse_report(text).packages == {name: version}


@pytest.mark.parametrize("text", ["step-1.5.0\n", "see version 2.0.\n", "chapter-3\n", "my-model-7b-0.1\n"])
def test_prose_names_no_packages(text: str) -> None:
    assert parse_report(text).packages == {}


@pytest.mark.parametrize(
    ("text", "system", "wsl"),
    [
        ("- [X] macOS\n- [ ] Windows\n", "Darwin", None),
        ("- [ ] macOS\n- [x] Windows\n", "Windows", None),
        ("- [X] WSL 2\n", "Linux", True),
        ("I run it on my MacBook\n", "Darwin", None),
        ("win10, python3.9\n", "Windows", None),
        ("Windows 11 with WSL2\n", "Linux", True),
        ("I run it without WSL on Windows 11\n", "Windows", None),
        ("works on macOS, Linux and Windows\n", None, None),
    ],
)
def test_systems_as_people_name_them(text: str, system: str | None, wsl: bool | None) -> None:
    platform = parse_report(text).platform
    assert (platform.system, platform.wsl) == (system, wsl)


def test_the_torch_that_xformers_names_is_the_installed_one() -> None:
    facts = parse_report("xFormers was built for:\n    PyTorch 2.1.2+cu121 with CUDA 1201 (you have 2.1.2+cpu)\n")
    message = "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. "
    assert facts.torch.version is None
    known = parse_report(
        message + "xFormers was built for:\n    PyTorch 2.1.2+cu121 with CUDA 1201 (you have 2.1.2+cpu)\n"
    )
    assert known.torch.version == "2.1.2+cpu"


def test_conda_is_known_by_rows_paths_and_banners() -> None:
    rows = parse_report("[conda] pytorch 2.1.0 py3.10_cuda11.8_cudnn8.7.0_0 pytorch\n[conda] peft 0.5.0 pypi_0 pypi\n")
    assert (rows.python.kind, rows.conda) == ("conda", ("pytorch", "torch"))
    path = parse_report('File "/home/u/miniforge3/envs/llm/lib/python3.11/site-packages/torch/__init__.py", line 1\n')
    assert (path.python.kind, path.python.prefix) == ("conda", "/home/u/miniforge3/envs/llm")
    assert parse_report("Python version: 3.10.14 | packaged by conda-forge |\n").python.kind == "conda"
    assert parse_report('File "/home/u/venvs/a/lib/python3.11/site-packages/x.py"\n').python.kind is None


def test_report_says_system_where_no_python_is_known() -> None:
    report = to_text(to_json(diagnose(parse_report("OS: Ubuntu 22.04 LTS (x86_64)\n[pip3] torch==2.8.0+cu128\n"))))
    assert "\n  system    Ubuntu" in report


@pytest.mark.timeout(20)
def test_a_megabyte_of_random_characters_is_read() -> None:
    everything = "".join(map(chr, range(1, 0x2500)))
    parse_report("".join(random.Random(1).choices(everything, k=MEGABYTE)))


def test_the_banner_of_unsloth_gives_versions_and_the_gpu() -> None:
    facts = parse_report(
        "==((====))==  Unsloth: Fast Llama patching release 2024.4\n"
        "   \\\\   /|    GPU: Tesla T4. Max memory: 14.748 GB. Platform = Linux.\n"
        "O^O/ \\_/ \\    Pytorch: 2.2.1+cu121. CUDA = 7.5. CUDA Toolkit = 12.1.\n"
        "\\        /    Bfloat16 = FALSE. Xformers = 0.0.25.post1. FA = False.\n"
    )
    assert facts.packages == {"unsloth": "2024.4", "xformers": "0.0.25.post1", "torch": "2.2.1+cu121"}
    assert [(gpu.name, gpu.compute_capability) for gpu in facts.gpus or ()] == [("Tesla T4", "7.5")]
    assert facts.torch.version == "2.2.1+cu121"
    assert facts.platform.system == "Linux"
    newer = parse_report((Path(__file__).parent.parent / "data/doctor/healthy--unsloth-banner.txt").read_text())
    assert [gpu.name for gpu in newer.gpus or ()] == ["NVIDIA L4", "NVIDIA L4"]
    assert newer.packages["triton"] == "3.3.1"
    assert parse_report("==((====))==\n").packages == {}


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("I'm using an RTX 5080 on Linux\n", "NVIDIA GeForce RTX 5080"),
        ("显卡rtx5070ti\n", "NVIDIA GeForce RTX 5070 Ti"),
        ("my 3090 is idle\n", "NVIDIA GeForce RTX 3090"),
        ("GPU3090, pytorch 1.7.0\n", "NVIDIA GeForce RTX 3090"),
        ("runs on a 7800 XT under Windows 11\n", "AMD Radeon RX 7800 XT"),
        ("on my Jetson AGX Orin\n", "NVIDIA Jetson AGX Orin"),
        ("Torch detected GPU: Tesla T4 VRAM 15102 Arch (7, 5) Cores 40\n", "Tesla T4"),
        ("Device: cuda:0 NVIDIA GeForce RTX 3080 : cudaMallocAsync\n", "NVIDIA GeForce RTX 3080"),
        ("it runs on the 3090, and not on an RTX 5090\n", None),
        ("port 3090, step 4090 of 5000\n", None),
    ],
)
def test_a_gpu_that_is_named_in_words(text: str, gpu: str | None) -> None:
    gpus = parse_report(text).gpus
    assert (gpus[0].name if gpus else None) == gpu


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Torch version is 2.5.1\n", "2.5.1"),
        ("pytorch==1.7.0, GPU3090\n", "1.7.0"),
        ("with torch 2.7.0+cu128 it fails\n", "2.7.0+cu128"),
        ("Torch 2.0.0+cu118\n", "2.0.0+cu118"),
        ("it requires torch 2.4.0\n", None),
        ("it was built for torch 2.4.0\n", None),
        ("torch 2.4.0 works, torch 2.5.0 does not\n", None),
    ],
)
def test_a_torch_that_is_named_in_words(text: str, version: str | None) -> None:
    facts = parse_report(text)
    assert (facts.torch.version or facts.package("torch")) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("I'm using wsl 1 on windows 10\n", 1),
        ("Ubuntu1804/WSL2 on windows\n", 2),
        ("Linux pc 4.4.0-19041-Microsoft #1 x86_64\n", 1),
        ("see https://learn.microsoft.com/windows/wsl\n", None),
        ("it is not WSL 2\n", None),
    ],
)
def test_wsl_as_people_name_it(text: str, version: int | None) -> None:
    platform = parse_report(text).platform
    assert platform.wsl_version == version
    assert (platform.wsl is True) == (version is not None)


@pytest.mark.parametrize(
    ("text", "package", "module"),
    [
        ("ERROR: Failed building wheel for flash_attn\n", "flash-attn", None),
        ("× Failed to build `deepspeed==0.14.2`\n", "deepspeed", None),
        ("ERROR: Could not build wheels for tokenizers, which is required\n", "tokenizers", None),
        ("Collecting apex\n  error: subprocess-exited-with-error\nNo module named 'packaging'\n", "apex", "packaging"),
    ],
)
def test_a_build_that_failed(text: str, package: str, module: str | None) -> None:
    error = parse_report(text).error("build-failed")
    assert error is not None
    assert (error.values["package"], error.values.get("module")) == (package, module)


def test_a_build_that_came_to_a_good_end_is_none() -> None:
    text = "ERROR: Failed building wheel for x\nRunning setup.py install for x ... done\nSuccessfully installed x-1.0\n"
    assert parse_report(text).errors == ()


def test_flags_of_a_build_count_as_lost_only_under_another_name_than_cmake_args() -> None:
    command = "='-DGGML_CUDA=on' pip install --no-cache-dir llama-cpp-python"
    errors = parse_report("MAKE_ARGS" + command).errors
    assert [error.id for error in errors if error.id not in REMARKS] == ["llama-cpp-cpu-build"]
    for name in ("CMAKE_ARGS", "SKBUILD_CMAKE_ARGS"):
        assert [error for error in parse_report(name + command).errors if error.id not in REMARKS] == []


def test_a_cpu_build_of_conda_is_a_fault_only_where_cuda_was_asked_for() -> None:
    row = "pytorch                   1.11.0              py3.8_cpu_0    pytorch\n"
    assert parse_report(row).errors == ()
    facts = parse_report("dependencies: [pytorch, cudatoolkit=11.3]\n" + row)
    assert [error.id for error in facts.errors] == ["conda-took-cpu"]
    assert facts.python.version == "3.8"
    cuda = row.replace("cpu_0", "cuda11.3_cudnn8.2.0_0")
    assert parse_report("conda install pytorch cudatoolkit=11.3\n" + cuda).errors == ()


def test_a_line_of_a_form_is_no_part_of_a_complaint() -> None:
    slow = "The offloaded cache was too slow for me, is the static one supported?\n"
    assert parse_report(slow + "- PyTorch version (accelerator?): 2.4.0+cu121 (CUDA)\n").errors == ()
    assert parse_report(slow + "My GPU is idle\n").errors != ()
