"""Environment variables that decide how models run, with every secret masked. Stdlib only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

MASK = "***"

_PREFIXES = (
    "ACCELERATE_",
    "AMD_",
    "BNB_",
    "CUBLAS_",
    "CUDA_",
    "CUDNN_",
    "GPU_",
    "HF_",
    "HIP_",
    "HSA_",
    "HUGGINGFACE_",
    "HUGGING_FACE_",
    "KMP_",
    "MIOPEN_",
    "NCCL_",
    "NVIDIA_",
    "PYTORCH_",
    "ROCM_",
    "ROCR_",
    "SAFETENSORS_",
    "TORCH_",
    "TORCHINDUCTOR_",
    "TRANSFORMERS_",
    "TRITON_",
    "VLLM_",
    "XFORMERS_",
)
_NAMES = frozenset(
    (
        "CC",
        "CONDA_DEFAULT_ENV",
        "CONDA_PREFIX",
        "CXX",
        "DISABLE_TELEMETRY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LIBRARY_PATH",
        "MKL_NUM_THREADS",
        "MKL_THREADING_LAYER",
        "NO_PROXY",
        "OMP_NUM_THREADS",
        "PIP_CONFIG_FILE",
        "PIP_EXTRA_INDEX_URL",
        "PIP_INDEX_URL",
        "PIP_REQUIRE_VIRTUALENV",
        "PYTHONHOME",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
        "PYTHONSAFEPATH",
        "REQUESTS_CA_BUNDLE",
        "SLURM_JOB_ID",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TOKENIZERS_PARALLELISM",
        "UV_INDEX_URL",
        "VIRTUAL_ENV",
        "XDG_CACHE_HOME",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    )
)
# Not shown, but needed to look at the box with the client's eyes.
_CARRIED = frozenset(
    (
        "APPTAINER_CONTAINER",
        "COLAB_GPU",
        "COLAB_RELEASE_TAG",
        "CONDA_EXE",
        "HOME",
        "KAGGLE_KERNEL_RUN_TYPE",
        "KUBERNETES_SERVICE_HOST",
        "LANG",
        "LC_ALL",
        "PATH",
        "PIPX_HOME",
        "POETRY_VIRTUALENVS_PATH",
        "PYENV_ROOT",
        "SINGULARITY_CONTAINER",
        "TEMP",
        "TMP",
        "WORKON_HOME",
    )
)
# Variables that name files: a session's working directory is not its client's.
_LISTS_OF_PATHS = ("LD_LIBRARY_PATH", "LIBRARY_PATH", "PATH", "PYTHONPATH")
_PATHS = (
    *("CUDA_HOME", "CUDA_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TMPDIR", "TORCH_HOME"),
    *("TRANSFORMERS_CACHE", "XDG_CACHE_HOME"),
)
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|TOKENS|SECRET|SECRETS|PASSWORD|PASSWD|PASS|PAT|KEY|APIKEY|CREDENTIAL|CREDENTIALS|AUTH|COOKIE)(?:_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    # Words are a name such as hf_hub_download; a token has digits and capitals among its letters.
    r"(?:hf_(?![a-z]{2,14}(?:_[a-z]{2,14}){0,4}(?![\w-]))|api_org_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|nvapi-|AKIA|AIza)"
    r"[A-Za-z0-9_\-]{8,200}"
    r"|eyJ[A-Za-z0-9_\-]{8,2000}\.[A-Za-z0-9_\-]{8,2000}(?:\.[A-Za-z0-9_\-]{0,2000})?"
)
_URL_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,20}://)[^\s/@'\"]{1,500}@")
_QUERY_SECRET = re.compile(
    r"([?&](?:[A-Za-z_\-]{0,30}(?:token|secret|key|signature|password))=)[^&\s'\"]{1,2000}", re.IGNORECASE
)
# Values of digits only are settings such as max_new_token=512.
_ASSIGNED = re.compile(
    r"\b([A-Za-z0-9_]{0,40}?(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|credentials?|cookie)"
    r"(?![A-Za-z0-9])(?:_[A-Za-z0-9_]{1,30})?['\"]?\s{0,3}[=:]\s{0,3})(?!\d+\b)(\"[^\"\n]{4,500}\"|'[^'\n]{4,500}'|[^\s'\"&]{4,500})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(\b(?:Bearer|Basic)\s{1,3})[A-Za-z0-9._~+/=\-]{8,2000}", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether a variable of this name is taken for a secret whatever its value."""
    return _SECRET_NAME.search(name) is not None


def mask_value(name: str, value: str) -> str:
    """The value as it may be shown: secrets replaced, credentials in URLs too."""
    if value and is_secret(name):
        return MASK
    return mask_text(value)


def mask_text(text: str) -> str:
    """Free text (an error message, a command line) without the tokens and credentials in it."""
    text = _URL_CREDENTIALS.sub(rf"\1{MASK}@", text)
    text = _QUERY_SECRET.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return _SECRET_VALUE.sub(MASK, text)


def matters(name: str) -> bool:
    """Whether a variable belongs in a report."""
    return name in _NAMES or name.startswith(_PREFIXES)


def relevant_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that matter, sorted by name, masked."""
    return {name: mask_value(name, environ[name]) for name in sorted(environ) if matters(name)}


def carried_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of a client's environment a session needs to examine the box in its place.

    Secrets are masked before they leave the client, relative paths are made absolute.
    """
    carried = {}
    for name, value in environ.items():
        if matters(name) or name in _CARRIED:
            if name in _LISTS_OF_PATHS:
                value = os.pathsep.join(_absolute(part) for part in value.split(os.pathsep) if part)
            elif name in _PATHS:
                value = _absolute(value)
            carried[name] = mask_value(name, value)
    return carried


def _absolute(path: str) -> str:
    return path if not path or path.startswith("~") else os.path.join(os.getcwd(), path)


def child_environment(carried: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that stands for the client: its variables in place of this process's own.

    What this process was given beyond that (by its own start, by another client) must not be examined; what was
    masked is left out.
    """
    own = {name: value for name, value in os.environ.items() if not (matters(name) or name in _CARRIED)}
    return {**own, **{name: value for name, value in carried.items() if MASK not in value}}
