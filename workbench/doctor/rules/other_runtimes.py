"""Rules about CUDA libraries that programs other than torch look for: CTranslate2, ONNX Runtime. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, from_message, seen
from workbench.doctor.tables import minimum_driver, table
from workbench.doctor.versions import at_least, older

# How CTranslate2 begins what CUDA tells it (src/cuda/utils.h).
OF_CTRANSLATE2 = "CUDA failed with error"


def cudnn_missing(facts: Facts) -> Result:
    """A program other than torch looks for cuDNN through the system's loader."""
    error = facts.error("cudnn-library-missing")
    if error is None:
        return PASSED
    others = [facts.error(name) for name in ("torch-library-missing", "onnxruntime-provider")]
    if any(other is not None and other.line == error.line for other in others):
        return PASSED
    told = (error.values.get(name) for name in ("library", "missing", "dll", "asked", "part"))
    library = next(filter(None, told), "cuDNN")
    if library.startswith("libcuda."):
        return PASSED
    part = error.values.get("part")
    # CTranslate2 before 4.5 opens the parts of cuDNN 8 itself.
    of_ctranslate2 = older(facts.package("ctranslate2"), "4.5") or (
        facts.error("of-ctranslate2") is not None and not facts.package("ctranslate2")
    )
    if part and not (part.endswith(".8") and of_ctranslate2):
        return [_part_not_loaded(facts, error, part)]
    major = error.values.get("major", "")
    return [
        Finding(
            "cudnn-library-missing",
            "error",
            f"A program looks for {library} and does not find it",
            "torch finds the cuDNN of its own wheels, other programs (CTranslate2 in faster-whisper, onnxruntime) only "
            "one on the loader's path, and of the major version that they were built for.",
            {**evidence(library=library, torch__version=facts.torch.version), **seen(error)},
            _of_tensorflow(facts) or _cudnn_fix(facts, major, library, error.values.get("folder")),
            ISSUES + "SYSTRAN/faster-whisper/issues/516",
            affects=("chat",),
            observed=True,
        )
    ]


def _of_tensorflow(facts: Facts) -> tuple[str, ...]:
    """TensorFlow's own way to its cuDNN: https://www.tensorflow.org/install/pip."""
    if facts.error("of-tensorflow") is None or facts.error("of-ctranslate2") is not None:
        return ()
    if fixes.on_windows(facts):
        return (
            "conda install -y -c conda-forge cudatoolkit=11.2 cudnn=8.1.0   # in a conda environment with "
            "'tensorflow<2.11', the last with a GPU in Windows; brings what is copied in vain by hand",
            "or, by hand: cuDNN's folder bin on PATH, and zlibwapi.dll in it, which cuDNN 8 loads too",
            "or WSL 2: python -m pip install 'tensorflow[and-cuda]'",
        )
    return (
        fixes.install(facts, "tensorflow[and-cuda]", upgrade=True) + "   # brings the cuDNN that it was built with",
        "unset LD_LIBRARY_PATH   # where another cuDNN stands there",
    )


def _part_not_loaded(facts: Facts, error: ErrorFact, part: str) -> Finding:
    """A part of cuDNN that cuDNN itself opens while a program runs, with no word on why it does not load."""
    told = 'nvidia.cudnn.__path__[0] + "/lib"'
    return Finding(
        "cudnn-library-missing",
        "error",
        f"cuDNN does not load its own part {part}: it is on no path of the loader, or of another release",
        "cuDNN opens its parts by name when they are first needed, and takes the first of that name: from "
        "LD_LIBRARY_PATH, from the system, else beside its own file.",
        {**evidence(library=part, torch__version=facts.torch.version), **seen(error)},
        (
            f"export LD_LIBRARY_PATH=$({fixes.run_python(facts)} -c 'import nvidia.cudnn; print({told})')"
            ":$LD_LIBRARY_PATH   # the parts of torch's own release come first; in the shell that starts the program",
            "ldconfig -p | grep libcudnn   # one of the system's that is older or newer goes: sudo apt remove "
            "libcudnn8 libcudnn9-cuda-12; conda remove cudnn",
            "in WSL: export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH",
        ),
        "https://docs.nvidia.com/deeplearning/cudnn/latest/api/overview.html",
        affects=("chat",),
        observed=True,
    )


def _cudnn_fix(facts: Facts, major: str, library: str, folder: Optional[str]) -> tuple[str, ...]:
    if folder:
        there = fixes.export(
            facts, "LD_LIBRARY_PATH", f"{folder}:$LD_LIBRARY_PATH", "it is there, on no path of the loader"
        )
        return (there, *((f"or: {_newer_ctranslate2(facts)}",) if major in ("", "8") else ()))
    if fixes.on_windows(facts) or library.endswith(".dll"):
        newer = (_newer_ctranslate2(facts),) if major in ("", "8") else ()
        return (
            *newer,
            "or put the folder torch\\lib of this environment on PATH",
            "or, for a program that is an .exe of its own: cuBLAS's and cuDNN's DLLs beside it, "
            "https://github.com/Purfview/whisper-standalone-win/releases/tag/libs",
        )
    if major == "9":
        return (" && ".join(_cudnn_wheel(facts, "9", "12")),)
    cuda = _cuda_in_use(facts)
    of_its_time = _cudnn_wheel(facts, "8", "11" if older(cuda, "12.0") else "12")
    # CTranslate2 from 4 on wants CUDA 12 itself.
    if older(cuda, "12.0"):
        return (
            *of_its_time,
            "CTranslate2 4 wants CUDA 12: with CUDA 11 it is " + fixes.install(facts, "ctranslate2<4"),
        )
    # The library itself is anybody's, its parts are opened by CTranslate2 alone.
    if library.startswith("libcudnn.so") and not (facts.package("ctranslate2") or facts.error("of-ctranslate2")):
        return (
            *of_its_time,
            f"or, where it is CTranslate2 (faster-whisper, WhisperX) that asks: {_newer_ctranslate2(facts)}",
        )
    return (_newer_ctranslate2(facts), f"or: {of_its_time[0]}", *of_its_time[1:])


def _newer_ctranslate2(facts: Facts) -> str:
    newer = fixes.install(facts, "ctranslate2>=4.5", upgrade=True)
    return f"{newer}   # takes cuDNN 9, the one of torch 2.4 and newer"


def _cudnn_wheel(facts: Facts, cudnn: str, cuda: str) -> tuple[str, ...]:
    """cuDNN and cuBLAS from NVIDIA's wheels, and the loader told of them."""
    packages = (f"nvidia-cudnn-cu{cuda}=={cudnn}.*", f"nvidia-cublas-cu{cuda}")
    paths = "nvidia.cudnn.__path__[0] + '/lib:' + nvidia.cublas.__path__[0] + '/lib'"
    return (
        fixes.install(facts, *packages),
        f'export LD_LIBRARY_PATH=$(python -c "import nvidia.cudnn, nvidia.cublas; print({paths})"):$LD_LIBRARY_PATH'
        "   # in the shell that starts the program",
    )


def _cuda_in_use(facts: Facts) -> Optional[str]:
    """The CUDA of torch, of the toolkit that is there or told of, or of the driver."""
    told = facts.toolkit.installed[0] if facts.toolkit.installed else None
    return facts.torch.cuda or facts.toolkit.nvcc or told or facts.driver.cuda


def cublas_of_another_major(facts: Facts) -> Result:
    """CTranslate2 was made for another CUDA major than the one that is known to be here."""
    error = facts.error("cublas-missing")
    wanted = (error.values.get("major") or error.values.get("wanted")) if error else None
    cuda = _cuda_in_use(facts)
    if error is not None and "library" in error.values:
        return [_cublas_on_linux(facts, error, error.values["library"], error.values["number"], cuda)]
    if error is None or wanted is None or cuda is None or cuda.split(".")[0] == wanted:
        return PASSED
    newer = older(cuda, "12.0")
    if wanted not in ("11", "12"):
        return PASSED
    step = (
        fixes.install(facts, "ctranslate2<4", "faster-whisper==0.10.1") + "   # the last for CUDA 11"
        if newer
        else fixes.install(facts, "ctranslate2", "faster-whisper", upgrade=True) + "   # made for CUDA 12 and cuDNN 9"
    )
    return [
        Finding(
            "cublas-library-missing",
            "error",
            f"CTranslate2 (faster-whisper) wants cuBLAS of CUDA {wanted}, and CUDA {cuda} is here",
            "It loads cuBLAS through the system's own search path; the number in the file's name is the CUDA major "
            "that it was made for. CTranslate2 3 was made for CUDA 11, 4 for CUDA 12.",
            {**evidence(cuda=cuda, torch__version=facts.torch.version), **seen(error)},
            (
                step,
                f"or cuBLAS of CUDA {wanted} beside it, where the driver takes it: "
                + fixes.install(facts, f"nvidia-cublas-cu{wanted}", f"nvidia-cudnn-cu{wanted}"),
                "and their bin folders (site-packages/nvidia/cublas/bin, .../cudnn/bin) on PATH before it starts.",
            ),
            "https://github.com/SYSTRAN/faster-whisper#gpu",
            affects=("chat",),
            observed=True,
        )
    ]


def _cublas_on_linux(facts: Facts, error: ErrorFact, library: str, wanted: str, cuda: Optional[str]) -> Finding:
    """CTranslate2 opens cuBLAS by its name (src/cuda/cublas_stub.cc), through the loader."""
    there = f", and CUDA {cuda} is here" if cuda and cuda.split(".")[0] != wanted else ""
    cudnn = "8" if wanted == "11" or older(facts.package("ctranslate2"), "4.5") else "9"
    return Finding(
        "cublas-library-missing",
        "error",
        f"CTranslate2 (faster-whisper) does not find {library}, cuBLAS of CUDA {wanted}{there}",
        "It opens that library by its name, through the loader's own path; the number is the CUDA major that it was "
        "made for, and another major does not serve. The driver takes older majors too: a wheel beside what is here "
        "is enough.",
        {**evidence(library=library, cuda=cuda, torch__version=facts.torch.version), **seen(error)},
        (
            *_cudnn_wheel(facts, cudnn, wanted),
            f"or, with a toolkit of CUDA {wanted} on the system: export "
            f"LD_LIBRARY_PATH=$(ls -d /usr/local/cuda-{wanted}*/lib64 | tail -1):$LD_LIBRARY_PATH",
        ),
        "https://github.com/SYSTRAN/faster-whisper#gpu",
        affects=("chat",),
        observed=True,
    )


def onnxruntime_provider(facts: Facts) -> Result:
    """ONNX Runtime is the build for the GPU, and its CUDA part finds not all of its libraries."""

    def make(error: ErrorFact) -> Finding:
        version, row = _onnxruntime(facts, error)
        wants = f"CUDA {row['cuda']} and cuDNN {row['cudnn']}" if row else "the CUDA and cuDNN that it was built with"
        missing = error.values.get("missing") or error.values.get("dll")
        return Finding(
            "onnxruntime-libraries-missing",
            "error",
            "ONNX Runtime's CUDA part does not load: "
            + (f"it does not find {missing}" if missing else f"it wants {wants}"),
            "The file that the message names is there; what is missing is one that it needs: the libraries of CUDA or "
            "cuDNN, of another major than is installed, or in folders that are not on PATH. Until then it runs on the "
            "CPU.",
            {**evidence(onnxruntime_gpu=version, needs=wants if row else None, missing=missing), **seen(error)},
            _onnxruntime_fix(facts, error, row),
            _ORT,
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("onnxruntime-provider",), make)


_ORT = "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#requirements"
_OF_CUDA = re.compile(r"(?:lib)?cu(?:dart|blas|blasLt|fft|rand|sparse)(?:64_|\.so\.)(?P<number>\d{1,2})")
_OF_CUDNN = re.compile(r"(?:lib)?cudnn\w*?(?:64_|\.so\.)(?P<number>\d)")


def _onnxruntime(facts: Facts, error: ErrorFact) -> tuple[Optional[str], Optional[dict[str, Any]]]:
    """The release and its row of the table; where the release is unknown, what the missing library tells."""
    version = facts.package("onnxruntime-gpu") or error.values.get("release")
    rows = table("onnxruntime")["release"]
    if version:
        return version, next((row for row in reversed(rows) if at_least(version, row["since"])), None)
    missing = error.values.get("missing") or error.values.get("dll") or ""
    cudnn, cuda = _OF_CUDNN.search(missing), _OF_CUDA.search(missing)
    if error.values.get("cuda"):
        return None, {"cuda": error.values["cuda"], "cudnn": error.values.get("cudnn", "9")}
    if cudnn:
        return None, {"cuda": "11.8 or 12" if cudnn["number"] == "8" else "12", "cudnn": cudnn["number"]}
    if cuda and cuda["number"] in ("10", "11", "12", "13"):
        newer = cuda["number"] in ("12", "13")
        return None, {"cuda": cuda["number"] if newer else "11.8", "cudnn": "9" if newer else "8"}
    return None, None


def _onnxruntime_fix(facts: Facts, error: ErrorFact, row: Optional[dict[str, Any]]) -> tuple[str, ...]:
    cuda, cudnn = (row["cuda"], row["cudnn"]) if row else ("12", "9")
    pages = "https://developer.nvidia.com/cuda-toolkit-archive and https://developer.nvidia.com/cudnn-archive"
    of_others = (
        "" if row else " (from 1.19 on; 1.15 to 1.18: CUDA 11.8 and cuDNN 8; before: CUDA 11.4 to 11.6 and cuDNN 8)"
    )
    if fixes.on_windows(facts):
        system = (
            f"Install CUDA {cuda} and cuDNN {cudnn}{of_others}, put the bin folders of both on PATH (cuDNN: where "
            f"cudnn64_{cudnn}.dll lies), and open a new terminal: {pages}",
            *(("zlibwapi.dll beside them, which cuDNN 8 wants on Windows",) if str(cudnn).startswith("8") else ()),
        )
    else:
        system = (f"Install CUDA {cuda} and cuDNN {cudnn}{of_others}, their lib folders in LD_LIBRARY_PATH: {pages}",)
    here = _cuda_in_use(facts) or ""
    if str(cuda) == "13" and here.startswith("12"):
        last = fixes.install(facts, "onnxruntime-gpu>=1.21,<1.27")
        return (f"{last}   # the last for CUDA {here.split('.')[0]}, which is here", f"or: {system[0]}")
    if "site-packages" not in error.text and not facts.package("onnxruntime-gpu") and not error.values.get("python"):
        return system
    old = row is not None and older(str(cuda).split(" ")[0], "12.0") and "12" not in str(cuda)
    own = "13" if here.startswith("13") else "12"
    release = ">=1.27" if own == "13" else ">=1.21,<1.27"
    wheels = (
        fixes.install(facts, f"onnxruntime-gpu[cuda,cudnn]{release}", upgrade=True)
        + f"   # with the CUDA {own} and cuDNN 9 that it wants",
        "in the program, before the first session: import onnxruntime; onnxruntime.preload_dlls()   # or import torch "
        f"first, a build for CUDA {own}",
    )
    keep = tuple(f"or, for the whole system: {step}" if not number else step for number, step in enumerate(system))
    upgrade = tuple(f"or newer: {step}" if not number else step for number, step in enumerate(wheels))
    return (*system, *upgrade) if old else (*wheels, *keep)


def driver_too_old_for_ctranslate2(facts: Facts) -> Result:
    """CTranslate2 brings its CUDA in itself, whatever torch there is: 12 from its release 4 on, 11 before."""
    error = facts.error("driver-insufficient")
    if error is None or OF_CTRANSLATE2 not in error.text:
        return PASSED
    windows = fixes.on_windows(facts)
    minimum = minimum_driver(12, windows)[0]
    return [
        Finding(
            "driver-too-old-for-wheel-cuda",
            "error",
            "The NVIDIA driver is too old for this CTranslate2 (faster-whisper, WhisperX), which is built with CUDA 12",
            f"CUDA 12 needs driver {minimum} or newer; CTranslate2 up to 3.24 was built with CUDA 11.",
            {**evidence(driver=facts.driver.version, ctranslate2=facts.package("ctranslate2")), **seen(error)},
            (
                f"Update the NVIDIA driver to {minimum} or newer, then reboot; nvidia-smi must show CUDA 12 or newer",
                "or, with the driver as it is (CUDA 11.x in nvidia-smi): "
                + fixes.install(facts, "ctranslate2<4", "faster-whisper==0.10.1")
                + "   # the last for CUDA 11",
            ),
            "https://github.com/OpenNMT/CTranslate2/releases/tag/v4.0.0",
            affects=("chat",),
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (driver_too_old_for_ctranslate2, cudnn_missing, cublas_of_another_major, onnxruntime_provider)
