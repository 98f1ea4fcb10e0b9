"""Tries things that may crash or hang, one JSON line per event on standard output. Needs torch inside functions.

Run as a child process of the interpreter under examination; see `workbench.doctor.probing`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Callable, TextIO

from workbench.doctor.child import STDERR_OFFSET, stderr_offset

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
    """Load bitsandbytes' native library and take a block to NF4 and back."""
    import bitsandbytes
    import torch
    from bitsandbytes import cextension

    data: Data = {"version": str(getattr(bitsandbytes, "__version__", "")), "backend": "none"}
    native = getattr(cextension, "lib", None)
    # The loader's objects answer to every attribute name, so look at what they really hold.
    held = vars(native) if native is not None and hasattr(native, "__dict__") else {}
    error, handle = held.get("error_msg"), held.get("_lib")
    if handle is not None:
        data["library"] = os.path.basename(str(getattr(handle, "_name", "")))
        data["backend"] = next((name for name in ("cuda", "rocm", "xpu", "cpu") if name in data["library"]), "none")
    if error is not None or native is None:
        data["load_error"] = str(held.get("formatted_error") or error or "no native library was loaded")
        raise ProbeFailure(data["load_error"], data)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data["device"] = device
    try:
        block = torch.linspace(-1, 1, 4096, device=device).reshape(64, 64)
        packed, state = bitsandbytes.functional.quantize_4bit(block, quant_type="nf4")
        distance = float((bitsandbytes.functional.dequantize_4bit(packed, state) - block).abs().max())
    except Exception as failure:
        raise ProbeFailure(f"{type(failure).__name__}: {failure}", data) from failure
    # The widest gap between neighbouring NF4 levels is 0.304, so rounding is off by half of it at most.
    if not distance < 0.16:
        raise ProbeFailure(f"NF4 on {device} gave values off by {distance:.3f}", data)
    data["works"] = True
    return data


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
    """Import the part of transformers that checks its pins and pulls in torch."""
    import transformers
    from transformers import modeling_utils

    return {"version": str(transformers.__version__), "location": str(modeling_utils.__file__)}


STEPS: dict[str, Callable[[], Data]] = {
    "torch": probe_torch,
    "cuda": probe_cuda,
    "kernel": probe_kernel,
    "bitsandbytes": probe_bitsandbytes,
    "numpy": probe_numpy,
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
    for name in sys.argv[1:]:
        run_step(name, out)
    # Tearing down a broken driver can crash; all has been said.
    os._exit(0)


if __name__ == "__main__":
    main()
