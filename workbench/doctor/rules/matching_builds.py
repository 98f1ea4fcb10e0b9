"""How to get the build of a compiled package that fits the torch and the CUDA at hand. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.tables import table, variant_of
from workbench.doctor.versions import minor_name, older, release_of

# Modules that are not named after the package that brings them.
_MODULES = {
    "awq_ext": "autoawq-kernels",
    "awq_v2_ext": "autoawq-kernels",
    "exl_ext": "autoawq-kernels",
    "exlv2_ext": "autoawq-kernels",
    "awq_inference_engine": "autoawq-kernels",
    "awq": "autoawq-kernels",
    "autogptq": "auto-gptq",
    "auto_gptq": "auto-gptq",
    "exllama_kernels": "auto-gptq",
    "exllamav2_kernels": "auto-gptq",
    "exllamav2_ext": "exllamav2",
    "selective_scan_cuda": "mamba-ssm",
    "causal_conv1d_cuda": "causal-conv1d",
    "cupyx": "cupy",
    "cupy_backends": "cupy",
    "tsnecuda": "tsnecuda",
}

_SHOWS = 'python -c "import torch; print(torch.__version__, torch.version.cuda)"'
# The same for the shell, where the versions are not known.
_TELLS = (
    "eval $(python -c \"import torch; v = torch.__version__.split('+')[0].split('.'); print('T=' + '.'.join(v), "
    "'M=' + '.'.join(v[:2]), 'C=' + ('cu' + torch.version.cuda.replace('.', '') if torch.version.cuda else 'cpu'))\")"
    "   # the versions of this torch"
)
_SHELL = {"torch": "$T", "minor": "$M", "tag": "$C"}

# Wheels with CUDA's libraries, by the library's name; and the CUDA major of those whose own number is another one.
_RUNTIMES = {
    "cudart": "cuda-runtime",
    "cublas": "cublas",
    "cublasLt": "cublas",
    "cufft": "cufft",
    "curand": "curand",
    "cusolver": "cusolver",
    "cusparse": "cusparse",
    "nvrtc": "cuda-nvrtc",
}
_CUDA_OF = {"cufft": {"10": "11", "11": "12", "12": "13"}, "curand": {}, "cusolver": {}}
_LIBRARY = re.compile(
    r"lib(?P<name>cudart|cublasLt|cublas|cufft|curand|cusolver|cusparse|nvrtc)\.so\.(?P<major>\d{1,2})"
)


def cuda_of_library(library: Optional[str]) -> Optional[str]:
    """The CUDA major that a library's file belongs to, such as 11 for ``libcudart.so.11.0``; None if it tells not."""
    found = _LIBRARY.match(library or "")
    if found is None:
        return None
    return _CUDA_OF[found["name"]].get(found["major"]) if found["name"] in _CUDA_OF else found["major"]


def runtime_of(facts: Facts, library: Optional[str]) -> tuple[str, ...]:
    """The library itself, from NVIDIA's wheels, beside whatever torch brings, and on the loader's path."""
    found, major = _LIBRARY.match(library or ""), cuda_of_library(library)
    if found is None or major not in ("11", "12") or fixes.on_windows(facts):
        return (f"conda install -y -c conda-forge cudatoolkit={major}",) if found and major in ("9", "10") else ()
    names = dict.fromkeys(("cuda-runtime", _RUNTIMES[found["name"]]))
    folders = " + ':' + ".join(f"nvidia.{name.replace('-', '_')}.__path__[0] + '/lib'" for name in names)
    modules = ", ".join(f"nvidia.{name.replace('-', '_')}" for name in names)
    return (
        f"ls -d /usr/local/cuda-{major}*   # a toolkit of it? export LD_LIBRARY_PATH=<its folder>/lib64; else:",
        fixes.install(facts, *(f"nvidia-{name}-cu{major}" for name in names)),
        f'export LD_LIBRARY_PATH=$(python -c "import {modules}; print({folders})"):$LD_LIBRARY_PATH',
    )


def package_of(module: str) -> Optional[str]:
    """pip's name for what brings a compiled module of another name; None where the names are alike."""
    return _MODULES.get(module)


def is_cuda_extension(name: str, module: str) -> bool:
    """Whether a package is one that is compiled against torch and CUDA."""
    compiled = any(name in row["names"] for row in table("builds")["package"] if row["needs"] == "cuda")
    return compiled or _row(name) is not None or module in _MODULES or bool(re.search(r"cuda|kernel|_ext$|_C$", module))


def is_compiled_by_pip(name: str) -> bool:
    """Whether plain pip can build a package against the torch that is here."""
    row = _row(name)
    return row is None or bool(row["compile"])


def found_by_name(name: str) -> bool:
    """Whether a program that only lacks the package is served by the one that pip finds by its name."""
    return bool((_row(name) or {}).get("index"))


def matching_build(facts: Facts, name: str) -> tuple[str, ...]:
    """The steps that bring the build of `name` for the torch and CUDA at hand; empty where the table has none."""
    row = _row(name)
    if row is None:
        return ()
    if fixes.on_windows(facts) and "windows" in row:
        row = {**row, "install": row["windows"]}
    if older(facts.torch.version, row.get("until", "0")):
        row = {**row, "install": row["install_until"]}
    seen = facts.error(row["if_told"]) if "if_told" in row else None
    if seen is not None:
        row = {**row, "install": row["install_if_told"]}
    torch, cuda = facts.torch.version, facts.torch.cuda or facts.toolkit.nvcc or facts.driver.cuda
    numbers = release_of(cuda)
    values = {
        "name": name,
        "torch": str(torch).split("+")[0] if torch else None,
        "minor": minor_name(torch),
        "short": (minor_name(torch) or "").replace(".", "") or None,
        "tag": variant_of(facts.torch.cuda) if facts.torch.cuda else None,
        "major": str(numbers[0]) if numbers else None,
    }
    if seen is not None:
        version = seen.values.get("version")
        values["told"] = f"=={version}" if version else "<1.8"
    if _asks_shell(facts, row, values):
        return (_TELLS, *(_filled(facts, step, {**values, **_SHELL}) for step in row["install"]))
    unknown = any(values[word] is None for step in row["install"] for word in re.findall(r"\{(\w+)\}", step))
    asks_torch = any(f"{{{word}}}" in step for step in row["install"] for word in ("torch", "minor", "short", "tag"))
    first = () if not unknown else (_SHOWS + "   # the versions for <…> below",) if asks_torch else ("nvidia-smi",)
    return (*first, *(_filled(facts, step, values) for step in row["install"]))


def _asks_shell(facts: Facts, row: dict[str, Any], values: dict[str, Optional[str]]) -> bool:
    """Whether the shell can fill in all that is not known: the versions of a torch that is there, on no Windows."""
    wanted = {word for step in row["install"] for word in re.findall(r"\{(\w+)\}", step) if values[word] is None}
    return bool(wanted) and wanted <= set(_SHELL) and not fixes.on_windows(facts)


def _filled(facts: Facts, step: str, values: dict[str, Optional[str]]) -> str:
    unknown = {
        "torch": "<torch>",
        "minor": "<torch>",
        "short": "<torch>",
        "tag": "<cuXXX>",
        "major": "<major>",
    }
    for word, value in values.items():
        step = step.replace(f"{{{word}}}", value or unknown.get(word, ""))
    if fixes.on_windows(facts):
        command, mark, note = step.partition("   # ")
        command = re.sub(r"\b([A-Z_\d]+)=TRUE ", r'$env:\1 = "TRUE"; ', command)
        return command.replace("'", '"').replace(" && ", "; ") + mark + note
    return step


def _row(name: str) -> Optional[dict[str, Any]]:
    return next((row for row in table("extensions")["package"] if name in row["names"]), None)
