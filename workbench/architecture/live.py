"""The modules of a loaded model as they stand in memory: real dtype, device, quantization, bytes. Needs torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from workbench.architecture.tree import fold_repeats
from workbench.errors import WorkbenchError
from workbench.models.load import LoadedModel
from workbench.models.memory import own_tensors


@dataclass(frozen=True)
class LiveNode:
    """A module, a parameter or buffer, or a run of modules that are equal but for their number.

    Attributes:
        name: the last part of the dotted name; ``0-31`` for a run.
        path: the whole dotted name; of a run that of its first module.
        class_name: of a module as it stands, such as ``Linear4bit``; empty for a tensor.
        parameters: values before quantization, a tied tensor under its first name only; buffers count none.
        bytes: of memory, quantization state included; a shared tensor under its first name only.
        shape: of a tensor before quantization.
        dtype: as stored: ``uint8`` for 4-bit weights; of a module that of most of its bytes.
        device: where it is; of a module with several ``cpu, cuda:0``.
        quantization: ``nf4``, ``fp4``, ``int8`` and the like; of a module those below it; empty for none.
        tied_to: name of the tensor whose memory it shares.
        buffer: whether the tensor is a buffer, not a parameter.
        repeat: how many modules the node stands for.
        children: of a run those of one of its modules.
    """

    name: str
    path: str
    class_name: str
    parameters: int
    bytes: int
    shape: Optional[tuple[int, ...]] = None
    dtype: str = ""
    device: str = ""
    quantization: str = ""
    tied_to: Optional[str] = None
    buffer: bool = False
    repeat: int = 1
    children: tuple[LiveNode, ...] = ()


@dataclass(frozen=True)
class LiveModel:
    """A loaded model's memory.

    Attributes:
        parameters: values before quantization, tied tensors once.
        bytes: of parameters, buffers and quantization state together, each storage once.
        by_dtype: bytes by stored dtype, most first; likewise the next two.
        by_quantization: ``none`` for what is not quantized.
        device_bytes: what torch's allocator holds on the model's GPU; None on the processor.
        tree: see `LiveNode`.
    """

    parameters: int
    bytes: int
    by_dtype: dict[str, int]
    by_device: dict[str, int]
    by_quantization: dict[str, int]
    device_bytes: Optional[int]
    tree: LiveNode


def inspect_loaded(loaded: LoadedModel) -> LiveModel:
    """The modules of a loaded model.

    Raises:
        WorkbenchError: ``no-model`` if it was unloaded.
    """
    model = loaded.model
    if model is None:
        raise WorkbenchError("no-model", "The model was unloaded.", "Load it again.")
    reader = _Reader()
    tree = reader.node(model, "", "")
    return LiveModel(
        parameters=tree.parameters,
        bytes=tree.bytes,
        by_dtype=_descending(reader.by_dtype),
        by_device=_descending(reader.by_device),
        by_quantization=_descending(reader.by_quantization),
        device_bytes=_allocated(loaded.facts.device),
        tree=tree,
    )


class _Reader:
    """Walks the modules; what was met before is not counted again."""

    def __init__(self) -> None:
        self.by_dtype: dict[str, int] = {}
        self.by_device: dict[str, int] = {}
        self.by_quantization: dict[str, int] = {}
        self._owners: dict[int, str] = {}

    def node(self, module: Any, name: str, path: str) -> LiveNode:
        """A module with all below it."""
        children = self._tensors(module, path)
        below = [self.node(child, key, f"{path}.{key}" if path else key) for key, child in module.named_children()]
        children += fold_repeats(below, _signature)
        return LiveNode(
            name=name,
            path=path,
            class_name=type(module).__name__,
            parameters=sum(child.parameters for child in children),
            bytes=sum(child.bytes for child in children),
            dtype=max(children, key=lambda child: child.bytes).dtype if children else "",
            device=_joined(child.device for child in children),
            quantization=_joined(child.quantization for child in children),
            children=tuple(children),
        )

    def _tensors(self, module: Any, path: str) -> list[LiveNode]:
        found: dict[str, list[Any]] = {}
        for name, tensor in own_tensors(module):
            found.setdefault(name, []).append(tensor)
        return [self._tensor(module, path, name, tensors) for name, tensors in found.items()]

    def _tensor(self, module: Any, path: str, name: str, tensors: list[Any]) -> LiveNode:
        first, *_state = tensors
        full = f"{path}.{name}" if path else name
        owner = self._owners.get(first.untyped_storage()._cdata)
        quantization = _quantization(first)
        size = 0
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._owners:
                self._owners[storage._cdata] = full
                size += storage.nbytes()
                _add(self.by_dtype, _dtype(tensor), storage.nbytes())
                _add(self.by_device, str(tensor.device), storage.nbytes())
                _add(self.by_quantization, quantization or "none", storage.nbytes())
        shape = _shape(first)
        count = 1
        for extent in shape:
            count *= extent
        buffer = name in module._buffers
        return LiveNode(
            name=name,
            path=full,
            class_name="",
            parameters=0 if buffer or owner is not None else count,
            bytes=size,
            shape=shape,
            dtype=_dtype(first),
            device=str(first.device),
            quantization=quantization,
            tied_to=owner,
            buffer=buffer,
        )


def _shape(tensor: Any) -> tuple[int, ...]:
    """Before quantization: bitsandbytes packs two 4-bit values into a byte of one long column."""
    state = getattr(tensor, "quant_state", None)
    shape = getattr(state, "shape", None)
    return tuple(int(extent) for extent in (shape if shape is not None else tensor.shape))


def _quantization(tensor: Any) -> str:
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        nested = " double" if getattr(state, "nested", False) else ""
        return f"{getattr(state, 'quant_type', '4-bit')}{nested}"
    if type(tensor).__name__ == "Int8Params":
        return "int8"
    return "fp8" if "float8" in str(tensor.dtype) else ""


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).replace("torch.", "")


def _add(table: dict[str, int], key: str, count_bytes: int) -> None:
    table[key] = table.get(key, 0) + count_bytes


def _descending(table: dict[str, int]) -> dict[str, int]:
    return dict(sorted(table.items(), key=lambda item: -item[1]))


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted({part for value in values if value for part in value.split(", ")}))


def _allocated(device: str) -> Optional[int]:
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.memory_allocated(device))


def _signature(node: LiveNode) -> tuple[object, ...]:
    own = "#" if node.name.isdigit() else node.name
    facts = (node.class_name, node.shape, node.dtype, node.device, node.quantization, node.parameters, node.bytes)
    return (own, *facts, tuple(_signature(child) for child in node.children))
