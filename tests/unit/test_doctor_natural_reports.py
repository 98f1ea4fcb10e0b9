"""What people paste when they train and serve models: the first finding, and a piece of its fix."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report

_MISMATCH = (
    "      RuntimeError:\n      The detected CUDA version (11.8) mismatches the version that was used to compile\n"
    "      PyTorch (12.1). Please make sure to use the same CUDA versions.\n"
)
# Each: the paste, the first finding, what stands in its title, what its first step holds.
FIRST = {
    "an RTX 30 beside a torch of CUDA 10's time": (
        "One RTX3090, cuda10.1 and torch1.5.0 as the requirements ask.\n"
        "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        ("torch-wheel-lacks-gpu-arch", "RTX 3090", "torch==1.7.1+cu110"),
    ),
    "the torch that pip fetches for a build is not the one that is here": (
        ">>> torch.__version__\n'2.1.1+cu118'\nI build vllm-0.3.1 with \"pip install -e .\"\n" + _MISMATCH,
        ("nvcc-torch-cuda-mismatch", "fetched for the build", "use_existing_torch.py"),
    ),
    "vLLM as the index has it": (
        "`pip install vllm` ends in\n" + _MISMATCH,
        ("nvcc-torch-cuda-mismatch", "fetched for the build", "uv venv vllm"),
    ),
    "what trl's trainers have from transformers": (
        "transformers 5.1\nAttributeError: 'SFTTrainer' object has no attribute 'tokenizer'",
        ("package-versions-do-not-fit", "Trainer.tokenizer is gone", '"transformers<5.0"'),
    ),
    "a trainer's attribute in a sentence": (
        "On transformers 5.1 I get 'Trainer' has no attribute 'tokenizer'.",
        ("package-versions-do-not-fit", "Trainer.tokenizer is gone", '"transformers<5.0"'),
    ),
    "an actor of Ray's that asked for no GPU": (
        "vLLM inside a Ray actor, 2 x H100: RuntimeError: No CUDA GPUs are available",
        ("no-cuda-gpus-available", "the driver answers", "@ray.remote(num_gpus=1)"),
    ),
    "a replica on a machine without a GPU": (
        "kuberay: ValueError: Current node has no GPU available.",
        ("ray-has-too-few-gpus", "fewer free GPUs", "ray status"),
    ),
    "the tool llm installs for itself": (
        "llm install llm-gguf, then:\nModuleNotFoundError: No module named 'llama_cpp'",
        ("module-missing", "llama-cpp-python", "llm install llama-cpp-python"),
    ),
    "what sglang alone asks for": (
        "ImportError: cannot import name 'fused_marlin_moe' from 'sgl_kernel' (/e/site-packages/sgl_kernel/a.py)",
        ("package-versions-do-not-fit", "sglang asks sgl-kernel", "-U sglang sgl-kernel"),
    ),
    "a wheel of llama-cpp-python for who wants a GPU": (
        "change to GPU mode\nFailed to build llama-cpp-python\nERROR: Failed building wheel for llama-cpp-python",
        ("build-failed", "llama-cpp-python", "whl/cu124"),
    ),
    "without isolation it is torch's own": (
        "pip install --no-build-isolation -e . in vllm's folder\n" + _MISMATCH,
        ("nvcc-torch-cuda-mismatch", "nvcc is of CUDA 11.8, torch of CUDA 12.1", "/whl/cu118"),
    ),
    "an nvcc that fits, beside a CUDA_HOME that does not": (
        "OS: Rocky Linux 9\nnvcc version: 11.8\ntorch 2.0.1+cu118\nRuntimeError: The detected CUDA version (12.2) "
        "mismatches the version that was used to compile PyTorch (11.8). Please make sure to use the same.",
        ("nvcc-torch-cuda-mismatch", "beside the nvcc of 11.8 that fits torch", "CUDA_HOME"),
    ),
    "a file of the index in place of a program's folder": (
        'webui/server.py", line 12, in <module>\n    import modules.extensions as extensions_module\n'
        "ModuleNotFoundError: No module named 'modules.extensions'; 'modules' is not a package",
        ("package-shadowed", "program's own folder modules", "uninstall -y modules"),
    ),
    "a file of one's own in place of a package": (
        '  File "/w/train.py", line 3, in <module>\n    from datasets.features import Image\n'
        "ModuleNotFoundError: No module named 'datasets.features'; 'datasets' is not a package",
        ("package-shadowed", "datasets.py is imported", "Rename datasets.py"),
    ),
    "of the family of transformers, too": (
        "ModuleNotFoundError: No module named 'transformers.models'; 'transformers' is not a package",
        ("package-shadowed", "transformers.py is imported", "Rename transformers.py"),
    ),
    "a release that has the name, and a program that runs without it": (
        "peft-0.5.0\naccelerate-0.22.0\nImportError: cannot import name 'is_npu_available' from 'accelerate.utils' "
        "(/opt/conda/lib/python3.10/site-packages/accelerate/utils/__init__.py)",
        ("accelerate-import-error", "not the accelerate 0.22.0", "Restart"),
    ),
    "a checkout hides the installed package": (
        'Traceback (most recent call last):\n  File "/data/w/lmdeploy/lmdeploy/turbomind/turbomind.py", line 22, in '
        "<module>\n    import _turbomind as _tm  # noqa: E402\nModuleNotFoundError: No module named '_turbomind'",
        ("package-shadowed", "lmdeploy is imported from its source folder", "cd ~"),
    ),
    "LMDeploy on Windows": (
        "assert CUDA_PATH is not None, 'Can not find $env:CUDA_PATH'\nAssertionError: Can not find $env:CUDA_PATH",
        ("lmdeploy-without-cuda-toolkit", "CUDA_PATH is not set", "winget install -e --id Nvidia.CUDA"),
    ),
    "fp8 in a build for CUDA 11": (
        "With fast mode on: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmulAlgoGetHeuristic( ltHandle, "
        "computeDesc.descriptor())`. An RTX 4080, CUDA v11.8, Windows 11.",
        ("cublas-without-fp8", "does not multiply fp8", "/whl/cu126"),
    ),
    "Signal's axolotl": (
        "    from axolotl.kdf.hkdfv3 import HKDFv3\nModuleNotFoundError: No module named 'axolotl'",
        ("program-not-installed", "python-axolotl", "install python-axolotl"),
    ),
    "OpenStack's swift over ms-swift": (
        "git clone …/swift && cd swift && pip install -e '.[llm]'\npip install 'swift[seq_parallel]'\n"
        "swift web-ui: No module named 'swift.cli.main'",
        ("program-not-installed", "OpenStack's", "uninstall -y swift ms-swift"),
    ),
    "a web UI told of in a sentence": (
        "I put in the text generation web UI; at its start: \"ModuleNotFoundError: No module named 'gradio'\" error.",
        ("module-missing", "The web UI does not find gradio", "its own script"),
    ),
    "a Jetson by its prompt": (
        "(base) jetson@nx:~/FastChat$ python3 -m fastchat.serve\nAssertionError: Torch not compiled with CUDA enabled",
        ("aarch64-cpu-only-wheel", "A Jetson needs", "nv_tegra_release"),
    ),
    "a name that came to torch with 2.2": (
        "ImportError: cannot import name 'return_and_correct_aliasing' from 'torch.utils._python_dispatch'",
        ("package-versions-do-not-fit", "came with torch 2.2", "install -U torch"),
    ),
    "the harness of before 0.4": (
        "    from lm_eval.api.model import LM\nModuleNotFoundError: No module named 'lm_eval.api'",
        ("package-versions-do-not-fit", "lm-eval is too old", "lm-eval>=0.4"),
    ),
    "a release that pip fetches for an upgrade": (
        "ImportError: cannot import name 'ModelFilter' from 'huggingface_hub' (/v/huggingface_hub/__init__.py)\n"
        "Requirement already satisfied: transformers in /v/site-packages (4.25.1)\nCollecting transformers\n"
        "  Downloading transformers-4.44.1-py3-none-any.whl.metadata (43 kB)\n"
        "Requirement already satisfied: huggingface-hub in /v/site-packages (0.20.3)\nCollecting huggingface-hub\n"
        "  Downloading huggingface_hub-0.24.6-py3-none-any.whl.metadata (13 kB)",
        ("huggingface-hub-import-error", "gone since huggingface-hub 0.24", "huggingface-hub<0.24"),
    ),
    "an old packaging": (
        "---> 28 if _version.parse(pyarrow.__version__).major < 3:\n"
        "AttributeError: 'Version' object has no attribute 'major'",
        ("package-versions-do-not-fit", "packaging is too old", "install -U packaging"),
    ),
    "a title over a traceback that is cut": (
        "# Not compiled with CUDA\nI run this on a 3090, Windows.\nTraceback (most recent call last):\n"
        '  File "C:\\py\\site-packages\\torch\\nn\\modules\\module.py", line 749, in <lambda>\n'
        "    return self._apply(lambda t: t.cuda(",
        ("torch-cpu-only", "CPU build", "/whl/cu126"),
    ),
    "kernels of AutoGPTQ by the name of exllama": (
        "autgptq: CUDA extension not installed and exllama_kernels not installed",
        ("extension-built-for-other-torch", "auto-gptq is installed without kernels", "gptqmodel"),
    ),
    "AutoGPTQ is slow, not llama.cpp": (
        "text-generation-webui, autoGPTQ 0.3.2, RTX 3060\n2023-08-10 WARNING:CUDA kernels for auto_gptq are not "
        "installed, this will result in very slow inference speed.\nWARNING:CUDA extension not installed.",
        ("extension-built-for-other-torch", "auto-gptq", "gptqmodel"),
    ),
    "a pair known apart, and a traceback cut in its first frame": (
        "accelerate==0.21.0, transformers==4.37.2, peft==0.17.1\nTraceback (most recent call last):\n"
        '  File "/w/venv/lib/python3.10/site-packages/transf',
        ("packages-known-apart", "transformers 4.37.2 is too old for peft 0.17.1", "activate"),
    ),
    "a symbol of the C++ library": (
        "ImportError: /w/vendor/cuda_utils.cpython-39-x86_64-linux-gnu.so: undefined symbol: "
        "_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv",
        ("library-does-not-load", "the libstdc++ that is loaded", "LD_PRELOAD"),
    ),
    "a kernel that was not compiled": (
        "ImportError: /w/vllm/vllm/_C.abi3.so: undefined symbol: _Z24silu_and_mul_nvfp4_quantRN2at6TensorES1_S1_S1_",
        ("extension-built-for-other-cuda", "without a part of its own", "TORCH_CUDA_ARCH_LIST"),
    ),
    "Kaggle's image and the card that it has left behind": (
        "machine_shape allocates a P100, the default Kaggle image's torch has no sm_60 kernels, all operations end "
        "with cudaErrorNoKernelImageForDevice",
        ("no-kernel-image", "as old as this one", "GPU T4 x2"),
    ),
    "a command missed in a sentence": (
        "I did pip install -e . and when I run it, it says lm_eval not found.",
        ("command-not-found", "lm_eval is not found", "python -m lm_eval"),
    ),
    "a command whose package has another name": (
        "bash: whisper: command not found",
        ("command-not-found", "whisper is not found", "python -m whisper"),
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_finding_and_its_first_steps(name: str) -> None:
    text, (finding, title, step) = FIRST[name]
    first = diagnose(parse_report(text)).findings[0]
    assert first.id == finding
    assert title in first.title
    steps = [line for line in first.fix if "uninstall -y torch" not in line]
    assert step in steps[0]


# Each: a paste that is like one above, and what must not be found in it.
NOT = {
    "a torch of CUDA 10's time on a card of its time": ("RTX 2080 Ti, torch 1.5.0\nRuntimeError: x", "lacks-gpu-arch"),
    "a part of an installed package": (
        '  File "/v/lib/python3.10/site-packages/regex/regex/regex.py", line 4, in <module>\n    import _regex\n'
        "ModuleNotFoundError: No module named '_regex'",
        "package-shadowed",
    ),
    "a release that has not yet the name": (
        "accelerate-0.12.0\nImportError: cannot import name 'is_npu_available' from 'accelerate.utils'",
        "What runs is not",
    ),
    "the trainer axolotl": ("No module named 'axolotl'", "python-axolotl"),
    "a bfloat16 product": (
        "RTX 4090, cu118: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmulAlgoGetHeuristic( CUDA_R_16BF)`",
        "fp8",
    ),
    "a program that says so of a Mac": (
        "Mac mini M4\nHardware detected: CPU (no GPU backend available)",
        "colab",
    ),
    "an owner who doubts it": (
        "It says my machine has no GPU, but there is one.\ntorch.cuda.is_available() is False",
        "this machine has none",
    ),
    "a slip of the pen in one's own file": (
        '  File "/work/mine.py", line 3\n    print(f"{x}" y)\n                 ^\nSyntaxError: invalid syntax',
        "does-not-suit",
    ),
    "a Python that knows it": (
        'Python 3.11.4\n  File "/v/lib/python3.11/site-packages/pkg/a.py", line 3\n    print(f"{x}" y)\n'
        "                 ^\nSyntaxError: invalid syntax",
        "does-not-suit",
    ),
    "one clone alone": (
        '  File "/data/Tool/run.py", line 3, in <module>\n    from tool.a import b\n'
        "ImportError: cannot import name 'b' from 'tool.a' (/data/Tool/tool/a.py)",
        "copy-outside",
    ),
    "weights of a whole model": (
        "OSError: gpt2 does not appear to have a file named pytorch_model.bin or model.safetensors.",
        "adapter (LoRA)",
    ),
    "nothing where accelerate looks": (
        '  File "/v/lib/python3.11/site-packages/accelerate/hooks.py", line 9, in f\n'
        "AttributeError: 'NoneType' object has no attribute '_parameters'",
        "do not agree",
    ),
    "a file that a program does not find": ("the log says model not found", "command-not-found"),
}


@pytest.mark.parametrize("name", NOT)
def test_a_like_paste_does_not_give_it(name: str) -> None:
    text, unwanted = NOT[name]
    for finding in diagnose(parse_report(text)).findings:
        assert unwanted not in f"{finding.id} {finding.title}"
