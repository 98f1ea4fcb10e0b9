"""Tries things that may crash or hang, one JSON line per event on standard output. Needs torch inside functions.

Run as a child process of the interpreter under examination; see `workbench.doctor.probing`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any, Callable, TextIO

from workbench.doctor.inside_child import STDERR_OFFSET, answer_with_stacks, stderr_offset

Data = dict[str, Any]


def probe_torch() -> Data:
    """Import torch."""
    started = time.perf_counter()
    import torch

    seconds = time.perf_counter() - started
    data: Data = {
        "version": str(torch.__version__),
        "location": os.path.dirname(os.path.abspath(torch.__file__ or "")),
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "import_seconds": round(seconds, 3),
        "cxx11_abi": getattr(torch._C, "_GLIBCXX_USE_CXX11_ABI", None),
        "mps": bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available()),
    }
    flags = getattr(torch._C, "_cuda_getArchFlags", None)
    if data["cuda"] or data["hip"]:
        # get_arch_list() is empty without a usable GPU; the flags compiled in are there always.
        data["arch_list"] = (flags() or "").split() if flags else list(torch.cuda.get_arch_list())
    else:
        data["arch_list"] = []
    return data


def probe_cuda() -> Data:
    """Initialise CUDA (or ROCm) and list the devices."""
    import torch

    available = bool(torch.cuda.is_available())
    data: Data = {"cuda_available": available, "device_count": int(torch.cuda.device_count()), "devices": []}
    if not available and (torch.version.cuda or getattr(torch.version, "hip", None)):
        try:
            torch.cuda.init()
        except Exception as error:
            data["cuda_error"] = f"{type(error).__name__}: {error}"
    if available:
        torch.cuda.init()
        data["cudnn"] = _cudnn(torch)
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gfx = str(getattr(properties, "gcnArchName", "")).split(":")[0]
            data["devices"].append(
                {
                    "name": properties.name,
                    "compute_capability": gfx if torch.version.hip else f"{properties.major}.{properties.minor}",
                    "memory_bytes": int(properties.total_memory),
                    "uuid": str(getattr(properties, "uuid", "") or ""),
                    "pci": int(getattr(properties, "pci_bus_id", -1)),
                }
            )
    return data


def _cudnn(torch: Any) -> Any:
    try:
        version = torch.backends.cudnn.version()
    except Exception as error:
        return f"broken: {error}"
    return None if version is None else str(version)


def probe_kernel() -> Data:
    """Run an addition and a matrix product on every GPU, and compare with the right answer."""
    import torch

    if not torch.cuda.is_available():
        values = torch.ones(8, 8)
        if float((values @ values).sum()) != 512.0:
            raise RuntimeError("an 8x8 matrix product on the CPU gave a wrong result")
        return {"device": "cpu"}
    for index in range(torch.cuda.device_count()):
        values = torch.ones(8, 8, device=f"cuda:{index}")
        if float((values + values).sum().item()) != 128.0 or float((values @ values).sum().item()) != 512.0:
            raise RuntimeError(f"cuda:{index} gave a wrong result for an 8x8 sum or matrix product")
    return {"device": "cuda", "kernel_ok": True}


def probe_bitsandbytes() -> Data:
    """Let bitsandbytes choose and load its native library, and see that it is the one for this GPU."""
    import torch

    [cextension] = _inner_modules("bitsandbytes", "cextension")
    version = str(getattr(sys.modules.get("bitsandbytes"), "__version__", ""))
    _forget("bitsandbytes")
    native = getattr(cextension, "lib", None)
    # The loader's objects answer to every attribute name, so look at what they really hold.
    held = vars(native) if native is not None and hasattr(native, "__dict__") else {}
    handle = held.get("_lib", native if hasattr(native, "_name") else None)
    # Without a native library the handle is an object that answers any name with a function.
    name = getattr(handle, "_name", "")
    library = os.path.basename(name) if isinstance(name, str) else ""
    backend = next((name for name in ("cuda", "rocm", "xpu", "cpu") if name in library), "none")
    data: Data = {"version": version, "backend": backend, "library": library or None}
    if held.get("error_msg") is not None or handle is None:
        error = str(held.get("formatted_error") or held.get("error_msg") or "no native library was loaded")
        raise ProbeFailure(error, {**data, "load_error": error})
    if torch.cuda.is_available() and backend == "cpu":
        error = f"torch sees a GPU, but bitsandbytes was compiled without GPU support: it loaded {library}"
        raise ProbeFailure(error, {**data, "load_error": error})
    data["works"] = True
    return data


def _inner_modules(package: str, *names: str) -> list[Any]:
    """The modules of a package that do what is to be tried, without what its ``__init__`` costs besides.

    That of bitsandbytes imports the torch compiler, that of transformers reads the source of all its models: seconds.
    Where it does not go that way, the package is taken as everyone takes it, and what that raises is what is wrong.
    """
    import importlib.machinery
    import importlib.metadata
    import types

    spec = importlib.machinery.PathFinder.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"No module named {package!r}")
    front = types.ModuleType(package)
    front.__path__ = list(spec.submodule_search_locations)
    front.__spec__ = spec
    front.__file__ = spec.origin
    try:
        front.__version__ = importlib.metadata.version(package)  # type: ignore[attr-defined]
    except importlib.metadata.PackageNotFoundError:
        front.__version__ = ""  # type: ignore[attr-defined]
    sys.modules[package] = front
    try:
        return [importlib.import_module(f"{package}.{name}") for name in names]
    except Exception:
        _forget(package)
        importlib.import_module(package)
        return [importlib.import_module(f"{package}.{name}") for name in names]


def _forget(package: str) -> None:
    """What is tried after this must not find half a package."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def probe_numpy() -> Data:
    """Hand a tensor to numpy, which fails when the two were built for different numpy ABIs."""
    import torch

    torch.ones(2).numpy()
    return {}


def _importer(name: str) -> Callable[[], Data]:
    def probe() -> Data:
        module = __import__(name)
        return {"version": str(getattr(module, "__version__", "")), "location": str(getattr(module, "__file__", ""))}

    probe.__doc__ = f"Import {name}."
    return probe


def probe_transformers() -> Data:
    """Import transformers, which checks its pins, and see whether it accepts the torch that is there."""
    _, utils = _inner_modules("transformers", "dependency_versions_check", "utils")
    front = sys.modules["transformers"]
    available = bool(utils.is_torch_available())
    data: Data = {"version": str(getattr(front, "__version__", "")), "location": str(getattr(front, "__file__", ""))}
    _forget("transformers")
    if not available:
        raise RuntimeError("transformers does not accept the installed torch (Disabling PyTorch)")
    return data


STEPS: dict[str, Callable[[], Data]] = {
    "torch": probe_torch,
    "cuda": probe_cuda,
    "kernel": probe_kernel,
    "bitsandbytes": probe_bitsandbytes,
    "numpy": probe_numpy,
    "safetensors": _importer("safetensors"),
    "tokenizers": _importer("tokenizers"),
    "accelerate": _importer("accelerate"),
    "torchvision": _importer("torchvision"),
    "transformers": probe_transformers,
    "flash-attn": _importer("flash_attn"),
    "xformers": _importer("xformers.ops"),
}


class ProbeFailure(Exception):
    """A step failed, but found out something on the way."""

    def __init__(self, message: str, data: Data) -> None:
        super().__init__(message)
        self.data = data


def _explain(error: BaseException) -> str:
    # Libraries wrap the cause several times over; the innermost error is the one that says what is wrong.
    chain = [error]
    while len(chain) < 20:
        inner = chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__)
        if inner is None or inner in chain:
            break
        chain.append(inner)
    lines: list[str] = []
    for item in reversed(chain):
        text = str(item) if isinstance(item, ProbeFailure) else f"{type(item).__name__}: {item}"
        if not any(text in line or str(item) in line for line in lines):
            lines.append(text)
    return "\n".join(lines)[:6000]


def run_step(name: str, out: TextIO) -> None:
    """Run one step and write what came of it."""

    def tell(**event: Any) -> None:
        out.write(json.dumps({"step": name, **event}) + "\n")
        out.flush()

    sys.stderr.flush()
    tell(event="start", **{STDERR_OFFSET: stderr_offset()})
    started = time.perf_counter()
    try:
        data = STEPS[name]()
        status, detail = "passed", ""
    except BaseException as error:
        data = error.data if isinstance(error, ProbeFailure) else {}
        status, detail = "failed", _explain(error)
    sys.stderr.flush()
    tell(event="end", status=status, seconds=round(time.perf_counter() - started, 3), detail=detail, data=data)


def main() -> None:
    """Run the steps named on the command line."""
    # Native libraries print to file descriptor 1; what we say goes over a copy of it.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer_with_stacks()
    # Nothing that these imports make is garbage, and looking for some takes a sixth of their time.
    gc.disable()
    for name in sys.argv[1:]:
        run_step(name, out)
    # Tearing down a broken driver can crash; all has been said.
    os._exit(0)


if __name__ == "__main__":
    main()
