from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


def test_a_checkout_or_an_old_copy_gives_torch_a_compiled_part_of_another_release() -> None:
    finding = first(
        ">>> import torch\nTraceback (most recent call last):\n"
        '  File "/home/me/.local/lib/python2.7/site-packages/torch/__init__.py", line 228, in <module>\n'
        "    class BFloat16Storage(_C.BFloat16StorageBase, _StorageBase):\n"
        "AttributeError: 'module' object has no attribute 'BFloat16StorageBase'\n"
    )
    assert finding.id == "duplicate-torch-installs"
    assert "uninstall" in finding.fix[0]


def test_what_another_package_asks_torch_for_is_no_mixed_install() -> None:
    finding = first(
        "AttributeError: module 'torch._C' has no attribute '_jit_set_inline_everything_mode'\n"
        "Traceback (most recent call last):\n"
        '  File "/opt/envs/a/lib/python3.10/site-packages/fastai/basics.py", line 267, in <module>\n'
        "    torch._C._jit_set_inline_everything_mode(True)\n"
        "AttributeError: module 'torch._C' has no attribute '_jit_set_inline_everything_mode'\n"
    )
    assert finding.id == "package-versions-do-not-fit"


@pytest.mark.parametrize("name", ["_cuda_setDevice", "_cuda_getCurrentRawStream", "_scatter"])
def test_what_only_a_cuda_build_has_tells_of_a_cpu_build(name: str) -> None:
    finding = first(
        '  File "/opt/envs/a/lib/python3.10/site-packages/torch/cuda/__init__.py", line 326, in set_device\n'
        f"    torch._C.{name}(device)\n"
        f"AttributeError: module 'torch._C' has no attribute '{name}'\n"
    )
    assert finding.id == "torch-cpu-only"


def test_leftovers_of_a_removal_are_told_only_where_nothing_else_is() -> None:
    warning = "WARNING: Ignoring invalid distribution ~orch (c:\\python310\\lib\\site-packages)\n"
    assert first(warning).id == "torch-removal-broke-off"
    assert first(warning + "AssertionError: Torch not compiled with CUDA enabled\n").id == "torch-cpu-only"


def test_a_missing_codec_of_a_source_build_is_no_torch_of_another_release() -> None:
    finding = first(
        "OSError: /usr/lib/python3.9/site-packages/torchaudio/_torchaudio.so: undefined symbol: WavpackGetMode\n"
    )
    assert finding.id != "torchvision-torch-mismatch"


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [("1.13.1", "torchtext==0.14.*"), ("2.1.2", "torchtext==0.16.*"), ("2.6.0", "torch==2.3.1")],
)
def test_torchtext_counts_along_with_torchvision_and_ends_with_torch_2_3(torch: str, wanted: str) -> None:
    finding = first(
        f"torch=={torch}\nOSError: /usr/lib/python3.10/site-packages/torchtext/lib/libtorchtext.so: undefined symbol: "
        "_ZN2at4_ops10select_int4callERKNS_6TensorElN3c106SymIntE\n"
    )
    assert finding.id == "torchvision-torch-mismatch"
    assert finding.title.startswith("torchtext ")
    assert wanted in finding.fix[0]


def test_vllm_beside_a_newer_card_is_not_accused() -> None:
    report = diagnose(
        parse_report("GPU models and configuration: GPU 0: Tesla P100\nGPU 1: NVIDIA A10\n[pip3] vllm==0.9.1\n")
    )
    assert "app-needs-newer-compute-capability" not in [finding.id for finding in report.findings]


def test_versions_in_backticks_are_read() -> None:
    facts = parse_report(
        "I use torch `2.1.0` with torchvision `0.17.0`\nRuntimeError: operator torchvision::nms does not exist\n"
    )
    assert (facts.torch.version, facts.package("torchvision")) == ("2.1.0", "0.17.0")


def test_xformers_before_0_0_22_is_taken_from_the_package_index() -> None:
    finding = first(
        "torch 2.0.1+cu118\nCollecting xformers==0.0.19\nCollecting torch==2.0.0 (from xformers==0.0.19)\n"
        "  Downloading torch-2.0.0-cp310-cp310-manylinux1_x86_64.whl (619.9 MB)\n"
    )
    assert finding.id == "torch-replaced-by-pip"
    assert finding.fix[0].endswith("--no-deps xformers==0.0.21")


def test_a_checkout_in_the_way_is_told_by_the_type_that_lacks_a_name() -> None:
    finding = first('AttributeError: type object "torch._C.FloatTensorBase" has no attribute "masked_copy_"\n')
    assert finding.id == "duplicate-torch-installs"


def test_torchs_own_module_without_a_symbol_is_torch_that_does_not_come_up() -> None:
    finding = first(
        '  File "/home/me/lib/python2.7/site-packages/torch/__init__.py", line 84, in <module>\n'
        "    from torch._C import *\n"
        "ImportError: /opt/lib/python3.6/site-packages/torch/_C.so: undefined symbol: _ZN5torch3jit5Value13set\n"
    )
    assert finding.id == "torch-import-broken"


def test_a_text_that_a_notebook_shows_of_the_source_was_not_said() -> None:
    report = parse_report(
        "Cell In[4], line 1\n----> 1 from unsloth import FastLanguageModel\n\n"
        "File /usr/lib/python3.10/dist-packages/unsloth/__init__.py:154\n    144         warnings.warn(\n"
        '    145             "Unsloth: CUDA is not linked properly."\\\n    151         )\n'
        "--> 154 from .models import *\n"
    )
    assert report.error("needs-gpu") is None


def test_a_library_of_triton_that_does_not_start_wants_the_newer_runtime_first() -> None:
    finding = first(
        "ImportError: DLL load failed while importing libtriton: A dynamic link library (DLL) initialization routine "
        "failed.\n"
    )
    assert finding.id == "triton-missing-or-wrong"
    assert finding.fix[0].startswith("winget install")


def test_the_library_that_langchains_vllm_misses_is_vllms() -> None:
    finding = first(
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory\n\n"
        "/usr/lib/python3.10/dist-packages/langchain/llms/vllm.py in validate_environment(cls, values)\n"
        "     79             from vllm import LLM as VLLModel\n"
    )
    assert finding.title.startswith("vLLM was built for CUDA 12")
