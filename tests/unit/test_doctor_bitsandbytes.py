"""bitsandbytes, accelerate and bfloat16 in pasted reports: what the first fix says, and where no rule may speak."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.parse.report import parse_report

DATA = Path(__file__).parent.parent / "data" / "doctor"


def first_fix(name: str) -> tuple[str, ...]:
    return diagnose(parse_report((DATA / f"{name}.txt").read_text(encoding="utf-8"))).findings[0].fix


def diagnosed(text: str) -> Report:
    return diagnose(parse_report(text))


def ids(report: Report) -> list[str]:
    return [finding.id for finding in report.findings]


FIXES = {
    # The wheels obey the variable too, so that an upgrade alone changes nothing.
    "bnb-cuda-version-override--legacy-loader": ("unset BNB_CUDA_VERSION", "bitsandbytes<0.45"),
    "bnb-source-install-not-compiled--override-checkout": ("unset BNB_CUDA_VERSION",),
    # 0.50 is no longer linked with cuSPARSE, and so asks for no nvJitLink.
    "bnb-missing-runtime-lib--nvjitlink13": ('"bitsandbytes>=0.50"', "nvidia.cu13"),
    # Which torch is there is not known, and pip would replace one before 2.4.
    "bnb-missing-runtime-lib--cusparse11-loader": ("nvidia-cusparse-cu11", "export LD_LIBRARY_PATH=$(python -c"),
    "bnb-missing-runtime-lib--legacy-own-cuda": ("nvidia-cusparse-cu11",),
    # Colab's torch is new: 0.44 would have no library for its CUDA.
    "bnb-legacy-loader--setup-failed-alone": ("%pip install -U bitsandbytes",),
    "bnb-too-old-for-windows--error-alone": ('"bitsandbytes<0.45"',),
    "bnb-no-lib-for-cuda--windowspath": (r"E:\Forge\webui\venv\Scripts\activate",),
    "bnb-int8-old-gpu--m40": ('"bitsandbytes<0.47"', "load_in_4bit=True"),
    "bnb-unsupported-on-macos--container": ("MLX or llama.cpp", "--python 3.12"),
    "bnb-wheel-without-rocm--int8params": ("--python 3.12", "/whl/rocm", '"bitsandbytes>=0.50"'),
    "accelerate-message-without-cuda--installed-in-vain": ("torch.cuda.is_available()", "--index-url"),
    "accelerate-message-without-cuda--colab": ("Restart", "T4"),
    # CUDA 11.4 and Python 3.8 are JetPack 5's: newer sources do not build there.
    "bnb-jetson--jetpack5-in-prose": ("-b 0.44.1", "COMPUTE_CAPABILITY=87"),
    "bnb-legacy-loader--orin-by-capability": ("-b 0.44.1", "COMPUTE_CAPABILITY=87"),
    "bnb-source-install-not-compiled--rocm-of-system": ("Move /srv/build/bitsandbytes", '"bitsandbytes>=0.50"'),
    "bf16-unsupported-gpu--t4": ("--dtype half",),
}


@pytest.mark.parametrize("name", FIXES)
def test_fix_holds_what_mends_it_in_this_order(name: str) -> None:
    steps = "\n".join(first_fix(name))
    places = [steps.find(word) for word in FIXES[name]]
    assert -1 not in places, steps
    assert places == sorted(places), steps


@pytest.mark.parametrize(
    ("cuda", "wanted"), [("117", '"bitsandbytes<0.45"'), ("121", '"bitsandbytes<0.46"'), ("128", " bitsandbytes")]
)
def test_checkout_gives_way_to_a_release_that_takes_the_torch_of_its_cuda(cuda: str, wanted: str) -> None:
    text = (
        "Could not find the bitsandbytes CUDA binary at "
        f"PosixPath('/work/bitsandbytes/bitsandbytes/libbitsandbytes_cuda{cuda}.so')\n"
        "Could not load bitsandbytes native library: /work/bitsandbytes/bitsandbytes/libbitsandbytes_cpu.so: cannot "
        "open shared object file: No such file or directory\n"
        '  File "/work/bitsandbytes/bitsandbytes/cextension.py", line 109, in <module>\n'
    )
    finding = diagnosed(text).findings[0]
    assert finding.id == "bnb-source-install-not-compiled"
    assert any(step.endswith(f"--no-deps{wanted}" if wanted[0] == " " else wanted) for step in finding.fix)


def test_variable_in_a_help_text_is_not_set() -> None:
    text = (
        "BNB_CUDA_VERSION=XXX can be used to load a bitsandbytes that is different from the PyTorch CUDA version.\n"
        "If this was unintended set the variable to an empty string: export BNB_CUDA_VERSION=\n"
        "To override this behavior set the BNB_CUDA_VERSION=<version string, e.g. 122> environmental variable\n"
    )
    assert "BNB_CUDA_VERSION" not in parse_report(text).environment
    assert "bnb-cuda-version-override" not in ids(diagnosed(text))


def test_bitsandbytes_without_gpu_is_no_llama_cpp() -> None:
    text = (
        "% python fine_tune_llama_2.py\n/Users/u/lib/python3.11/site-packages/bitsandbytes/cextension.py:34: "
        "UserWarning: The installed version of bitsandbytes was compiled without GPU support. n_gpu_layers=35\n"
    )
    assert "llama-cpp-built-for-cpu" not in ids(diagnosed(text))


def test_a_card_that_somebody_knows_to_lack_bfloat16_is_no_fault() -> None:
    text = "My V100 does not support bf16, so I train in fp16. ModuleNotFoundError: No module named 'peft'\n"
    assert ids(diagnosed(text))[0] != "bf16-unsupported-gpu"


def test_library_of_cuda_that_another_package_misses_is_not_said_of_bitsandbytes() -> None:
    text = (
        '  File "/v/lib/python3.10/site-packages/vllm/_custom_ops.py", line 8, in <module>\n    import vllm._C\n'
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory\n"
        "bitsandbytes==0.45.0\n"
    )
    assert "bnb-missing-runtime-lib" not in ids(diagnosed(text))


def test_old_loader_that_guessed_another_cuda_than_torchs_is_itself_the_cause() -> None:
    text = (
        "CUDA SETUP: Detected CUDA version 117\n"
        "CUDA SETUP: Loading binary /v/lib/python3.10/site-packages/bitsandbytes/libbitsandbytes_cuda117.so...\n"
        "libcusparse.so.11: cannot open shared object file: No such file or directory\n"
    )
    assert ids(diagnosed(text))[0] == "bnb-legacy-loader"


@pytest.mark.parametrize("machine", ["x86_64", ""])
def test_the_wheel_for_every_system_is_no_fault_on_x86(machine: str) -> None:
    text = f"Linux box 6.8.0 {machine} GNU/Linux\nUsing cached bitsandbytes-0.42.0-py3-none-any.whl (105.0 MB)\n"
    assert "bnb-wheel-for-other-processor" not in ids(diagnosed(text))


TITLES = {
    # Up to 0.49 the number is 10 * major + minor: 84 is ROCm 7.14.
    "bnb-no-lib-for-rocm--rocm84": "ROCm 7.14",
    "bnb-source-install-not-compiled--rocm-of-system": "ROCm 6.3 of torch",
    "bnb-legacy-loader--v100-cuda-setup": "0.37",
}


@pytest.mark.parametrize("name", TITLES)
def test_title_says_what_the_loader_only_hints_at(name: str) -> None:
    report = diagnosed((DATA / f"{name}.txt").read_text(encoding="utf-8"))
    assert TITLES[name] in report.findings[0].title
    assert "bnb-wheel-without-rocm" not in ids(report)
    assert "bnb-no-lib-for-cuda" not in ids(report)


def test_early_branch_for_rocm_is_not_taken_for_one_of_cuda() -> None:
    library = "/opt/env/lib/python3.10/site-packages/bitsandbytes/libbitsandbytes_"
    report = diagnosed(
        f"Could not find the bitsandbytes CUDA binary at PosixPath('{library}hip_nohipblaslt.so')\n"
        f"Could not load bitsandbytes native library: {library}cpu.so: cannot open shared object file: No such file\n"
    )
    assert ids(report)[0] == "bnb-source-install-not-compiled"
    assert "for ROCm" in report.findings[0].title
    assert "bnb-no-lib-for-cuda" not in ids(report)


def test_notebook_loads_the_libraries_itself() -> None:
    text = "Google Colab\nOSError: libcusparse.so.11: cannot open shared object file: No such file or directory\n"
    text += "Could not load bitsandbytes native library: libcusparse.so.11: cannot open shared object file\n"
    steps = "\n".join(diagnosed(text).findings[0].fix)
    assert "ctypes.CDLL" in steps
    assert "LD_LIBRARY_PATH" not in steps


@pytest.mark.parametrize(
    ("number", "rocm"), [("80", "ROCm 7.10"), ("84", "ROCm 7.14"), ("72", "ROCm 7.2"), ("63", "ROCm 6.3")]
)
def test_number_in_the_name_of_a_rocm_library(number: str, rocm: str) -> None:
    text = "RuntimeError: Configured ROCm binary not found at /srv/env/lib/python3.12/site-packages/bitsandbytes/"
    assert diagnosed(f"{text}libbitsandbytes_rocm{number}.so\n").findings[0].title.endswith(rocm)


def test_python_of_a_portable_program_by_the_path_in_its_traceback() -> None:
    folder = r"H:\ui\python_env"
    text = "The card is an RX 7900 XTX (gfx1100)\n"
    text += f'  File "{folder}\\Lib\\site-packages\\torch\\cuda\\__init__.py", line 584, in _lazy_init\n'
    steps = diagnosed(text + "AssertionError: Torch not compiled with CUDA enabled\n").findings[0].fix
    assert steps[0].startswith(f"{folder}\\python.exe -m pip")


SPLIT = "bitsandbytes/cextension.py in <module>\n    major, minor = map(int, torch.version.cuda.split('.'))\n"
NONE = "AttributeError: 'NoneType' object has no attribute 'split'\n"


@pytest.mark.parametrize("torch", ["torch 2.0.1+rocm5.4.2", "torch-2.1.0+rocm5.6"])
def test_cuda_of_torch_that_is_none_under_rocm_is_a_bitsandbytes_without_rocm(torch: str) -> None:
    report = diagnosed(f"{torch}\n{SPLIT}{NONE}")
    assert ids(report)[0] == "bnb-wheel-without-rocm"
    assert ids(diagnosed(f"{torch}\nmy_config.py: name.split('.')\n{NONE}"))[:1] != ["bnb-wheel-without-rocm"]


def test_egg_on_a_rocm_machine_is_not_said_to_lack_cuda() -> None:
    folder = "/home/u/venv/lib/python3.12/site-packages/bitsandbytes-0.43.3-py3.12-linux-x86_64.egg/bitsandbytes/"
    report = diagnosed(
        f"Could not find the bitsandbytes CUDA binary at PosixPath('{folder}libbitsandbytes_rocm61.so')\n"
        f"Could not load bitsandbytes native library: {folder}libbitsandbytes_cpu.so: cannot open shared object file: "
        "No such file or directory\n"
    )
    assert "ROCm 6.1" in report.findings[0].title
    assert any("--index-url https://download.pytorch.org/whl/rocm" in step for step in report.findings[0].fix)
    assert "bnb-no-lib-for-cuda" not in ids(report)


@pytest.mark.parametrize(("loss", "first"), [("0.0", True), ("nan", True), ("0.53", False)])
def test_loss_of_zero_on_a_card_before_turing_is_int8s_own(loss: str, first: bool) -> None:
    report = diagnosed(
        f"Tesla V100-SXM2-32GB, train_loss is {loss}\npip install bitsandbytes==0.38.0\n"
        "bin /home/u/env/lib/python3.10/site-packages/bitsandbytes/libbitsandbytes_cuda116_nocublaslt.so\n"
    )
    assert (ids(report)[:1] == ["bnb-int8-old-gpu"] and report.findings[0].severity == "error") is first


@pytest.mark.parametrize(
    ("text", "title", "step"),
    [
        (
            "RTX 5090, bitsandbytes 0.45\nError no kernel image is available for execution on the device at line 9 in "
            "file /src/csrc/ops.cu",
            "bitsandbytes has no kernels",
            "pip install -U bitsandbytes",
        ),
        (
            "Could not find the bitsandbytes ROCm binary at PosixPath('/v/lib/python3.11/site-packages/bitsandbytes/"
            "libbitsandbytes_rocm62.so')",
            "bitsandbytes has no library for ROCm 6.2",
            "/whl/rocm",
        ),
        (
            "NVIDIA Jetson AGX Orin, aarch64\nThe installed version of bitsandbytes was compiled without GPU support.\n"
            "libbitsandbytes_cpu.so: cannot open shared object file",
            "This bitsandbytes was compiled without CUDA",
            "COMPUTE_CAPABILITY=87",
        ),
        (
            "TypeError: Params4bit.__new__() got an unexpected keyword argument '_is_hf_initialized'",
            "bitsandbytes is too old for transformers",
            "pip install -U bitsandbytes",
        ),
    ],
)
def test_library_that_is_asked_for_decides_what_is_installed(text: str, title: str, step: str) -> None:
    report = diagnosed(f"{text}\n")
    assert report.findings[0].title.startswith(title)
    assert step in report.findings[0].fix[0]
