"""What a library's own sentence asks for, in the words of many libraries."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report
from workbench.doctor.rules.unknown.demands import packages_asked, releases_asked


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        ("FSDP2 requires PyTorch >= 2.6.0", "torch>=2.6.0"),
        ("Using `torch.distributed.pipelining` requires PyTorch 2.4.0 or later.", "torch>=2.4.0"),
        ("Building a device_mesh requires to have torch>=2.2.0", "torch>=2.2.0"),
        ("fp16 mixed precision with MPS device requires a Pytorch >= 2.5.0", "torch>=2.5.0"),
        ("DeepSpeed version must be >= 0.9.3. Please update DeepSpeed.", "deepspeed>=0.9.3"),
        ("Please install torchdata version 0.8.0 or higher to use it.", "torchdata>=0.8.0"),
        ("gptqmodel requires optimum version `1.24.0` or higher to be installed.", "optimum>=1.24.0"),
        ("Your transformers version is too old, please upgrade it to >= 4.53.1", "transformers>=4.53.1"),
        ("The version of PEFT you are using is not compatible, please use a version >= 0.18.0", "peft>=0.18.0"),
        ("`torchao` was not found or is too old. Ensure that `torchao >= 0.6.1` is installed", "torchao>=0.6.1"),
        (
            "incompatible version of gptqmodel. Found version `1.2.3`, but only versions `2.0.0` or higher",
            "gptqmodel>=2.0.0",
        ),
        ("Context parallelism is only available in PyTorch 2.6 and later versions.", "torch>=2.6"),
        ("please upgrade `optimum` package to a version superior than 1.15.0 .", "optimum>=1.15.0"),
        (
            "incompatible version of auto-gptq. Found version 0.3.1, but only version above 0.4.99 are supported",
            "auto-gptq>=0.4.99",
        ),
        (
            "incompatible version of GPT-QModel (`gptqmodel` package). Found version 1.4.0, but only versions >= 1.6.0",
            "gptqmodel>=1.6.0",
        ),
        ("Found an incompatible version of numpy. Found version 2.1.0, but expected numpy<2.0. ", "numpy<2.0"),
        ("Your transformers version is too old, please upgrade it to > 4.52", "transformers>=4.52"),
        (
            "The version of PEFT you are using is not compatible, please use a version that is at least 0.6.0",
            "peft>=0.6.0",
        ),
        ("You need `peft` 0.14.0 at least to use `lora_bias` in LoRAs.", "peft>=0.14.0"),
        ("please make sure to upgrade your `transformers` version to at least 4.27.0.dev0", "transformers>=4.27.0"),
        ("AttnProcessor2_0 requires PyTorch 2.0, to use it, please upgrade PyTorch to 2.0.", "torch>=2.0"),
        ("Torch version must be 2.5 or higher to use symmetric memory. Current version: 2.4.0", "torch>=2.5"),
        ("Unsupported PyTorch version for this model. Minimum required is 2.1.0, got: 2.0.1", "torch>=2.1.0"),
        ("fp6 is only supported in torchao <= 0.14.1.", "torchao<=0.14.1"),
    ],
)
def test_a_release_is_asked_for_in_many_words(sentence: str, asked: str) -> None:
    assert asked in [name + wanted for name, wanted, _ in releases_asked(sentence)]
    [finding] = diagnose(parse_report(f"Traceback (most recent call last):\nImportError: {sentence}")).findings
    assert finding.id == "required-version-missing"
    assert asked in f"{finding.title} {finding.fix[0]}"


@pytest.mark.parametrize(
    ("sentence", "package"),
    [
        ("LlamaProcessor requires the 🤗 Datasets library but it was not found in your environment.", "datasets"),
        ("LlamaForCausalLM requires the Torchvision library but it was not found in your environment.", "torchvision"),
        ("Pegasus requires the librosa library. But that was not found in your environment.", "librosa"),
        ("LayoutLM requires the OpenCV library but it was not found in your environment.", "opencv-python"),
        ("To set CPU affinity the `nvidia-ml-py` package must be available.", "nvidia-ml-py"),
        ("The required package 'scipy' is not installed. Please install it to continue.", "scipy"),
        ("bitsandbytes must be installed and the model must be quantized in 4bits.", "bitsandbytes"),
        ("You must have `gradio` installed to use `WebhooksServer`.", "gradio"),
        ("make sure you have the latest version of `accelerate` installed.", "accelerate"),
        ("Please pip install rarfile", "rarfile"),
        ("Applying the VAD filter requires the onnxruntime package", "onnxruntime"),
        (
            "The checkpoint seems to have been quantized with `gguf`. Install `gguf` to load quantized checkpoints.",
            "gguf",
        ),
        ("gptqmodel (`pip install gptqmodel`) is required in order to load quantized weights.", "gptqmodel"),
        ("To load it, please update your `peft` installation - `pip install -U peft`.", "peft"),
        ("fused RMSNorm needs Triton, which is not installed in this environment.", "triton"),
    ],
)
def test_a_package_is_missed_in_many_words(sentence: str, package: str) -> None:
    assert package in packages_asked(sentence)
    [finding] = diagnose(parse_report(f"Traceback (most recent call last):\nImportError: {sentence}")).findings
    assert finding.id in ("module-missing", "bitsandbytes-unusable")
    assert f" {package}" in finding.fix[0]


@pytest.mark.parametrize(
    "sentence",
    [
        "the operation requires ndim >= 2",
        "the model requires hidden_size at least 64",
        "step 3 or later",
        "the file is not found",
        "the model is not available",
        "num_heads must be >= 8",
        "ZeRO stage 3 is not currently supported on PyTorch >= 2.9.",
        "Triton >= 3.4.0 and < 3.7.1 on Hopper GPUs produces incorrect results",
    ],
)
def test_what_is_no_package_is_not_installed(sentence: str) -> None:
    findings = diagnose(parse_report(f"Traceback (most recent call last):\nValueError: {sentence}")).findings
    assert not [step for finding in findings for step in finding.fix if "pip install" in step]


def test_a_release_that_is_there_is_not_asked_for() -> None:
    text = "torch==2.7.0\nTraceback (most recent call last):\nImportError: FSDP2 requires PyTorch >= 2.6.0"
    assert "required-version-missing" not in {finding.id for finding in diagnose(parse_report(text)).findings}


@pytest.mark.parametrize(
    ("sentence", "step"),
    [
        ("vLLM is not available. Please install vLLM with `pip install trl[vllm]` to use it.", '-U "trl[vllm]"'),
        ("To decode 'mp3' files, please install 'torchaudio'.", "torch==2.7.0"),
        ("Triton needs to be installed to use these kernels", "install triton==3.3.1"),
    ],
)
def test_what_is_installed_leaves_the_torch_that_is_here(sentence: str, step: str) -> None:
    report = f"torch==2.7.0\nTraceback (most recent call last):\nImportError: {sentence}"
    [finding] = diagnose(parse_report(report)).findings
    assert step in finding.fix[0]
