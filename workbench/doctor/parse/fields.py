"""Lines of the form ``name: value``, as collect_env, transformers env and python -m bitsandbytes print them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Callable, Optional

from workbench.doctor.installed import NAMED
from workbench.doctor.parse.draft import Draft
from workbench.doctor.versions import parse_version

_FIELD = re.compile(r"[\s*•`-]{0,12}([A-Za-z🤗][^:=\n]{0,60}?)\s{0,40}:\s{0,60}(\S.{0,600})?$")
_GPU = re.compile(
    r"^\s{0,8}(?:GPU models and configuration\s{0,4}:\s{0,4})?GPU\s(\d{1,3})(?:-(\d{1,3})|[,\d]{2,40})?:\s"
    r"(\S.{1,80}?)\s{0,4}(?:\((?:UUID|Compute Capability).{0,80})?$"
)
_NOTHING = frozenset(("", "n/a", "none", "could not collect", "no cuda", "not found", "not installed", "unknown"))
_BNB_HEADER = re.compile(r"bitsandbytes v(\d{1,2}\.\d{1,3}\.\d{1,3}[\w.]{0,10})")
_BNB_BINARY = re.compile(r"\s{0,4}bin (\S{3,300})[/\\]libbitsandbytes_\w{2,40}\.(?:so|dll)\b")
_BNB_CHECKOUT = re.compile(r"((?:/(?!\w*-packages/)[\w.~+-]{1,60}){0,8}/bitsandbytes/bitsandbytes)/[\w/]{2,40}\.py\b")
# bitsandbytes writes a ROCm 6.0 as a CUDA 60, and the RDNA 3 of a gfx1100 as a capability of 11.0.
_OF_ROCM = re.compile(r"CUDA_VERSION=[5-9]\d\b|cuda_version_string='[5-9]\d'")
_CAPABILITY = re.compile(r"[Cc]ompute [Cc]apability(?: among GPUs detected)?:\s{0,2}\(?(\d{1,2})[.,]\s{0,2}(\d)\)?")
_PLATFORM_MACHINE = re.compile(r"(x86_64|aarch64|arm64|AMD64|ppc64le)")
_VERSIONED = (
    "transformers huggingface-hub safetensors accelerate deepspeed tokenizers peft trl bitsandbytes xformers numpy "
    "diffusers datasets flash-attn triton vllm torchvision torchaudio torchao pip scipy"
)
_PACKAGES = frozenset(_VERSIONED.split())

# The questions of an issue's form stand as headings above their answers.
_HEADING = re.compile(r"\s{0,3}#{1,6}\s{1,4}([A-Za-z][^:#\n]{1,40}?)\s{0,4}[?:]?\s{0,4}$")

Handler = Callable[[Draft, str], None]


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take what the fields say."""
    in_bitsandbytes = False
    taken: set[str] = set()
    for line in itertools.chain.from_iterable(map(_entries, lines)):
        if "bitsandbytes v" in line:
            header = _BNB_HEADER.search(line)
            if header:
                in_bitsandbytes = True
                draft.saw("bitsandbytes")
                draft.put(draft.bitsandbytes, version=header[1], installed=True)
                draft.package("bitsandbytes", header[1])
        if "bitsandbytes/bitsandbytes/" in line:
            # A folder of sources, which comes before what pip installs.
            checkout = _BNB_CHECKOUT.search(line)
            draft.put(draft.bitsandbytes, location=checkout[1] if checkout else None)
        if "libbitsandbytes" in line:
            chosen = _BNB_BINARY.match(line)
            draft.put(draft.bitsandbytes, location=chosen[1] if chosen else None)
        if "apability" in line:
            _capability(line, draft)
        if ":" not in line:
            continue
        if "GPU " in line:
            gpu = _GPU.match(line)
            if gpu:
                for index in range(int(gpu[1]), min(int(gpu[2] or gpu[1]), 15) + 1):
                    name_gpu(draft, index, gpu[3])
                continue
        field = _FIELD.match(line)
        if field:
            name = " ".join(field[1].replace("`", "").replace("🤗", "").lower().split())
            value = (field[2] or "").strip(" \t`*")
            if _take(draft, name, value, in_bitsandbytes) and re.match(r"\S{0,2}\d", value):
                taken.add(name)
    if len(taken) >= _VERSIONS_IN_A_LIST:
        draft.saw("list of versions")


_VERSIONS_IN_A_LIST = 4
"""So many lines of a name and a version are no sentence of a person, but what a program prints of its environment."""
_TAG = re.compile(r"^\[[A-Z][\w ]{1,24}\] (?=[A-Z][\w ]{2,24}: )")
_DICT = re.compile(r"\s{0,8}\{?'[\w .,-]{2,40}': (?:'[^']{0,200}'|\w{2,8}), '[\w .,-]{2,40}': ")


def _entries(line: str) -> tuple[str, ...]:
    """The entries of a dict of texts, as Python prints it, each as a line; another line without its program's tag."""
    if len(line) > 20_000 or not _DICT.match(line):
        return (_TAG.sub("", line),)
    entries = re.split(r"(?<=['\w]), '", line)[:100]
    return tuple(entry.replace("': ", ": ").replace(": '", ": ").strip("{}' \t") for entry in entries)


def read_forms(lines: Sequence[str], draft: Draft) -> None:
    """Take the answers of an issue's form, where nothing that a program printed says it."""
    for number, line in enumerate(lines):
        if "#" in line:
            _answered(lines, number, draft)


def _answered(lines: Sequence[str], number: int, draft: Draft) -> None:
    """What stands below the heading of a form."""
    heading = _HEADING.match(lines[number][:80])
    handler = _FIELDS.get(" ".join(heading[1].lower().split())) if heading else None
    if handler is not None:
        answer = next((line.strip() for line in lines[number + 1 : number + 4] if line.strip()), "")
        if answer and len(answer) < 200 and not answer.startswith(("#", "_No response")):
            handler(draft, answer)


def name_gpu(draft: Draft, index: int, name: str) -> None:
    """Give a GPU its name; a whole name replaces one that a narrow table cut short."""
    gpu = draft.gpu(index)
    known = gpu.get("name")
    # Some programs add the capability to the name: "RTX 5090 (SM_120)".
    name = re.sub(r"\s{0,4}\((?:sm|compute)[_ ]?\d{2,3}a?\)\s{0,4}$", "", name, flags=re.IGNORECASE)
    if known is None or known.endswith("..."):
        gpu["name"] = name.strip()
    vendor = gpu_vendor(name)
    if vendor:
        draft.put(gpu, vendor=vendor)


def gpu_vendor(name: str) -> Optional[str]:
    """The maker of a GPU by its name."""
    if re.search(r"nvidia|geforce|tesla|quadro|\bRTX\b|\bGTX\b|\b[AHLVTPB]\d{2,3}\b", name, re.IGNORECASE):
        return "nvidia"
    if re.search(r"\bamd\b|radeon|instinct|\bRX \d{4}|\bMI\d{3}", name, re.IGNORECASE):
        return "amd"
    return "apple" if re.search(r"apple m\d", name, re.IGNORECASE) else None


def _capability(line: str, draft: Draft) -> None:
    match = _CAPABILITY.search(line)
    match = match or re.search(r"highest_compute_capability=\((\d{1,2}), (\d)\)", line)
    if match and ("ighest" in line or "CUDA_VERSION=" in line):
        gpu = draft.gpu(0)
        draft.put(gpu, compute_capability=f"{match[1]}.{match[2]}")
        if int(match[1]) < 100 and not _OF_ROCM.search(line):
            draft.put(gpu, vendor="nvidia")
    version = re.search(r"CUDA_VERSION=(\d{2})(\d{1,2})\b", line)
    if version:
        draft.put(draft.torch, cuda=f"{version[1]}.{version[2]}")


def _take(draft: Draft, name: str, value: str, in_bitsandbytes: bool) -> bool:
    """Whether the field is one that is known."""
    handler = _FIELDS.get(name)
    if handler is not None:
        handler(draft, value)
    elif in_bitsandbytes and name in ("cuda", "hip"):
        if value.lower() not in _NOTHING:
            draft.put(draft.torch, **{name: value.split()[0]})
        elif name == "cuda" and draft.torch.get("cuda") is None:
            draft.put(draft.torch, build=None)
    else:
        package = name[: -len(" version")] if name.endswith(" version") else name
        package = "transformers" if name == "transformer version" else package
        package = package.replace("_", "-")
        if package not in _PACKAGES and package not in NAMED:
            return False
        _package(draft, package, value)
    return True


def _package(draft: Draft, package: str, value: str) -> None:
    if value.lower().startswith(("not found", "not installed", "n/a")):
        draft.missing(package)
        return
    word = value.split()[0] if value.split() else ""
    if parse_version(word) and re.match(r"v?\d", word):
        draft.package(package, word)
        if package == "bitsandbytes":
            draft.put(draft.bitsandbytes, version=word, installed=True)


def _known(value: str) -> Optional[str]:
    return None if value.lower() in _NOTHING else value


def _torch_version(draft: Draft, value: str) -> None:
    word = (_known(value) or "").replace("`", " ").strip("'\" ").removeprefix("torch==").split()
    word = [item.rstrip(",;") for item in word]
    if word and re.match(r"\d{1,2}\.\d", word[0]):
        draft.put(draft.torch, version=word[0], installed=True)
        draft.package("torch", word[0], "import torch")
    elif value.lower().startswith(("not installed", "not found")):
        draft.put(draft.torch, installed=False)
    flag = re.search(r"\((True|False|CUDA|NA|CPU|XPU|MPS|cuda|cpu)\)", value)
    if flag:
        available = {"true": True, "cuda": True, "false": False, "na": False, "cpu": False}.get(flag[1].lower())
        draft.put(draft.torch, cuda_available=available)


def _xformers_cuda(draft: Draft, value: str) -> None:
    draft.put(draft.torch, cuda_available={"available": True, "not available": False}.get(value.lower()))


def _debug_build(draft: Draft, value: str) -> None:
    draft.saw("collect_env")


def _transformers_torch(draft: Draft, value: str) -> None:
    draft.saw("transformers env")
    _torch_version(draft, value)


def _build_cuda(draft: Draft, value: str) -> None:
    draft.saw("collect_env")
    if _known(value) and re.match(r"\d", value):
        # torch 1.x for CUDA 9 and 10 names the patch too, 10.1.243, which no driver's number has.
        patch = re.fullmatch(r"((?:9|10)\.\d)\.\d{1,4}", value.split()[0])
        draft.put(draft.torch, cuda=patch[1] if patch else value.split()[0], build="cuda")
        return
    # "Could not collect" is what torch 2.13 prints for None: with a torch that is there, it means a CPU or ROCm build.
    draft.torch.setdefault("no_cuda", True)


def _printed_cuda(draft: Draft, value: str) -> None:
    """``torch.version.cuda`` under the name that scripts print it by; a number may be that of a toolkit or driver."""
    if value.lower() == "none":
        draft.torch.setdefault("no_cuda", True)


def _build_hip(draft: Draft, value: str) -> None:
    if _known(value) and re.match(r"\d", value):
        draft.put(draft.torch, hip=value.split()[0], build="rocm")


def _available(draft: Draft, value: str) -> None:
    if draft.torch.get("version"):  # the two together are collect_env's, or as good as that
        draft.saw("collect_env")
    draft.put(draft.torch, cuda_available={"true": True, "yes": True, "false": False, "no": False}.get(value.lower()))


def _driver(draft: Draft, value: str) -> None:
    match = re.match(r"(\d{3}\.\d{2,3}(?:\.\d{1,3})?)", value)
    if match:
        draft.put(draft.driver, version=match[1])
    elif value.lower() == "could not collect":
        # collect_env runs nvidia-smi for this; it was not there or gave nothing.
        draft.put(draft.driver, smi=False)


def _collect_env_driver(draft: Draft, value: str) -> None:
    draft.saw("collect_env")
    _driver(draft, value)


def _toolkit(draft: Draft, value: str) -> None:
    match = re.match(r"(?:Cuda compilation tools, )?(?:release )?(\d{1,2}\.\d{1,2})", value)
    if match:
        draft.put(draft.toolkit, nvcc=match[1])


def _python(draft: Draft, value: str) -> None:
    match = re.search(r"(\d\.\d{1,2}(?:\.\d{1,2})?(?:(?:rc|a|b)\d)?)", value[:40])
    if match:
        draft.put(draft.python, version=match[1])
    if re.search(r"anaconda|conda-forge", value, re.IGNORECASE):
        draft.put(draft.python, kind="conda")
    bits = re.search(r"\((\d\d)-bit", value)
    if bits:
        draft.put(draft.python, bits=int(bits[1]))


def _platform(draft: Draft, value: str) -> None:
    system = "Windows" if value.startswith("Windows") else "Darwin" if value.startswith(("macOS", "Darwin")) else None
    system = system or ("Linux" if value.startswith("Linux") else None)
    machine = _PLATFORM_MACHINE.search(value)
    libc = re.search(r"(glibc|musl)-?(\d\.\d{1,2})?", value)
    kernel = re.match(r"Linux-(\S{3,80}?)-(?:x86_64|aarch64)", value)
    draft.put(
        draft.platform,
        system=system,
        machine={"AMD64": "x86_64"}.get(machine[1], machine[1]) if machine else None,
        libc=libc[1] if libc else None,
        libc_version=libc[2] if libc else None,
        kernel=kernel[1] if kernel else None,
        wsl="microsoft" in value.lower() if system == "Linux" else None,
    )


def _os(draft: Draft, value: str) -> None:
    if not _known(value):
        return
    lower = value.lower()
    system = "Windows" if "windows" in lower else "Darwin" if lower.startswith("mac") else None
    if system is None and re.search(r"linux|ubuntu|debian|centos|fedora|red hat|rocky|alma|suse|arch", lower):
        system = "Linux"
    machine = _PLATFORM_MACHINE.search(value)
    draft.put(draft.platform, os=value[:120], system=system, machine=machine[1] if machine else None)
    if "wsl" in lower:
        draft.put(draft.platform, wsl=True)


def _libc(draft: Draft, value: str) -> None:
    match = re.match(r"(glibc|musl)-?(\d\.\d{1,2})?", value)
    if match:
        draft.put(draft.platform, libc=match[1], libc_version=match[2])


# "AMD (ROCm)" is a choice of a form, and no card.
_MAKER_ALONE = re.compile(r"(?:AMD|NVIDIA)(?: GPU)? ?\((?:ROCm|CUDA)\)", re.IGNORECASE)


def _gpu_type(draft: Draft, value: str) -> None:
    name = _known(value)
    vendor = re.match(r"(cuda|nvidia|amd|rocm)\b", value, re.IGNORECASE)
    if vendor:
        kind = "amd" if vendor[1].lower() in ("amd", "rocm") else "nvidia"
        draft.put(draft.platform, gpu_vendors=(kind,))
    if name and gpu_vendor(name) and not _MAKER_ALONE.fullmatch(name):
        count = re.match(r"(\d{1,2})\s?[x×]\s", name)
        for index in range(min(int(count[1]), 16) if count else 1):
            name_gpu(draft, index, re.sub(r"^\d{1,2}\s?[x×]\s", "", name)[:80])


def _models(draft: Draft, value: str) -> None:
    if value and value.lower() not in _NOTHING and not value.startswith("GPU "):
        _gpu_type(draft, value)


_FIELDS: dict[str, Handler] = {
    "pytorch version": _torch_version,
    "is debug build": _debug_build,
    "pytorch": _torch_version,
    "torch": _torch_version,
    "torch version": _torch_version,
    "pytorch.version": _torch_version,
    "pytorch.cuda": _xformers_cuda,
    "pytorch version (gpu?)": _transformers_torch,
    "pytorch version (accelerator?)": _transformers_torch,
    "cuda used to build pytorch": _build_cuda,
    "rocm used to build pytorch": _build_hip,
    "rocm sdk used to build pytorch": _build_hip,
    "hip used to build pytorch": _build_hip,
    "cuda version": _printed_cuda,
    "torch cuda version": _printed_cuda,
    "pytorch cuda version": _printed_cuda,
    "torch.version.cuda": _printed_cuda,
    "is cuda available": _available,
    "cuda available": _available,
    "torch.cuda.is_available()": _available,
    "nvidia driver version": _collect_env_driver,
    "driver version": _driver,
    "driver": _driver,
    "nvidia proprietary driver": _driver,
    "gpu driver": _driver,
    "nvidia driver": _driver,
    "cuda driver version": _driver,
    "nvcc": _toolkit,
    "nvcc version": _toolkit,
    "cuda runtime version": _toolkit,
    "python version": _python,
    "python": _python,
    "python platform": _platform,
    "platform": _platform,
    "os": _os,
    "operating system": _os,
    "system": _os,
    "libc version": _libc,
    "libc": _libc,
    "gpu type": _gpu_type,
    "gpu": _gpu_type,
    "gpu model": _gpu_type,
    "gpu vendor": _gpu_type,
    "accelerator": _gpu_type,
    "gpu models and configuration": _models,
}
