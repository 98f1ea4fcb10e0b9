"""Errors of imports as people tell them, without Python's quotes, colons and order."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report
from workbench.doctor.parse.told_errors import in_pythons_words


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("[Bug] No module named torch._six when training", "No module named 'torch._six'"),
        ('I get "no module named triton" on windows', "No module named 'triton'"),
        ("ModuleNotFoundError torch._six", "ModuleNotFoundError: No module named 'torch._six'"),
        ("ImportError: No module named yaml", "No module named 'yaml'"),
        ("ImportError cannot import name 'x_y'", "ImportError: cannot import name 'x_y'"),
        (
            "I can't import cached_download from huggingface_hub!",
            "cannot import name 'cached_download' from 'huggingface_hub'",
        ),
        ("AttributeError: 'LlamaTokenizer' has no attribute 'sp_model'", "'LlamaTokenizer' object has no attribute"),
        ("the module pytorch_lightning.lite cannot be found", "No module named 'pytorch_lightning.lite'"),
        ("it does not find torchvision.transforms.functional_tensor", "'torchvision.transforms.functional_tensor'"),
        ("tokenizers>=0.21 required but 0.20.3 is installed", "of this module, but found tokenizers==0.20.3"),
        ("in transformers 5 Trainer has no tokenizer argument", "got an unexpected keyword argument 'tokenizer'"),
    ],
)
def test_what_is_told_becomes_what_python_says(told: str, words: str) -> None:
    assert words in in_pythons_words(told)


@pytest.mark.parametrize(
    "told",
    [
        "/usr/bin/python3: No module named venv",
        "there is no torch.cuda problem here",
        "torch.cuda is missing in the list",
        "I cannot import torch from the notebook",
        "transformers.py is missing",
        "ModuleNotFoundError in the log",
        "the docs say that torch.compile is not available on Windows",
    ],
)
def test_what_is_no_error_stays(told: str) -> None:
    assert in_pythons_words(told) == told


@pytest.mark.parametrize(
    ("told", "title"),
    [
        ("pytorch_lightning.lite is missing\npytorch-lightning 2.0.0", "lite is gone since pytorch-lightning 2.0"),
        ("ImportError: cannot import name 'AutoModelForVision2Seq'", "gone since transformers 5.0"),
        ("ModuleNotFoundError torch._six", "it wants torch._six"),
        ("The model 'gemma3' needs newer transformers", "gemma3"),
        ("M1 mac\nzsh: illegal hardware instruction  python train.py", "a Python for Intel"),
        (
            "LibMambaUnsatisfiableError: Encountered problems while solving:\n"
            "  - nothing provides __cuda needed by pytorch-2.4.1-cuda126_generic_py312",
            "conda sees no NVIDIA driver",
        ),
        (
            "WSL Version: 2.0.9, WSL 2\nDistro Version: Ubuntu 22.04\nWindows 11, 4x RTX 3090\n"
            "With CUDA_VISIBLE_DEVICES=0,1,2,3 torch.cuda.is_available() ends in "
            "an 'out of memory' error, with three of them it does not",
            "want of pinned memory",
        ),
        ("ollama uses cpu on my PC with an RTX 3060", "Ollama finds no GPU"),
        ("A100 MIG: torch sees 0 devices", "MIG is on"),
        ("nvidia module: key was rejected, secure boot enabled", "Secure Boot"),
    ],
)
def test_the_cause_is_found_in_it(told: str, title: str) -> None:
    assert title in diagnose(parse_report(told + "\n")).findings[0].title
