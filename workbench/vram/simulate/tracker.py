"""Watches every operator and records which storages it makes and when they go. Needs torch."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, Callable, Optional

from workbench.vram.simulate.kernels import Rule
from workbench.vram.simulate.trace import NO_LAYER, Trace

# In these phases work goes along lists of parameters, so that an operator belongs to the layer of what it works on.
_LIST_PHASES = ("load", "prepare", "optimizer", "zero-grad")
# cuBLAS keeps a workspace for each thread that multiplies matrices; the backward pass has a thread of its own.
_MULTIPLYING_PHASES = ("forward", "backward", "prefill")


class Scopes:
    """Which module is at work, kept by hooks on every module, and to which group of layers it belongs."""

    def __init__(self, group_of: Callable[[str], tuple[str, int]]) -> None:
        self._group_of = group_of
        self._stack: list[tuple[str, int]] = []
        self._names: dict[int, tuple[str, int]] = {}
        self.current: tuple[str, int] = ("", NO_LAYER)

    def name(self, path: str) -> tuple[str, int]:
        """A module's path with ``*`` for its layer's number, and the group of that layer."""
        return self._group_of(path)

    def watch(self, torch: Any, model: Any) -> Any:
        """Follow the modules of `model` from now on; returns handles to remove."""
        self._names = {id(module): self._group_of(path) for path, module in model.named_modules()}
        registry = torch.nn.modules.module
        return [
            registry.register_module_forward_pre_hook(self._enter),
            registry.register_module_forward_hook(self._leave, always_call=True),
        ]

    def reset(self, current: tuple[str, int]) -> None:
        """Forget modules that were left by an exception, as checkpointing leaves them."""
        self._stack.clear()
        self.current = current

    @property
    def is_inside(self) -> bool:
        """Whether a module's forward runs."""
        return bool(self._stack)

    def _enter(self, module: Any, inputs: Any) -> None:
        self._stack.append(self.current)
        self.current = self._names.get(id(module), self.current)

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        if self._stack:
            self.current = self._stack.pop()


def make_tracker(
    trace: Trace, scopes: Scopes, device: str, rules: dict[str, Rule], workspace_bytes: int, check: Callable[[], None]
) -> Any:
    """A dispatch mode that records into `trace` what operators allocate on `device`.

    Args:
        trace: filled.
        scopes: says which module is at work.
        device: type of the device that counts.
        rules: workspaces by operator, see `workbench.vram.simulate.kernels`.
        workspace_bytes: what cuBLAS allocates in each thread; 0 to leave it out.
        check: called now and then; may raise.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    node_of = torch._C._current_autograd_node
    sequence_of = torch._C._autograd._get_sequence_nr
    tensor_type = torch.Tensor
    specials = _specials(torch)

    class Tracker(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.numbers: dict[int, int] = {}
            self.references: dict[int, Any] = {}
            self.phase = ""
            self.scope = NO_LAYER
            self.modules_of_nodes: dict[int, tuple[str, int]] = {}
            self.last_node: Optional[int] = None
            self.operators = 0
            self.in_list = False
            self.threads: set[str] = set()
            self.open = True

        def begin(self, phase: str, step: int) -> None:
            """Begin a phase."""
            trace.mark(phase, step)
            self.phase = phase
            self.scope = NO_LAYER
            self.last_node = None
            scopes.reset(("", NO_LAYER))
            if phase == "forward":
                self.modules_of_nodes.clear()
            thread = "backward" if phase == "backward" else "main"
            if phase in _MULTIPLYING_PHASES and thread not in self.threads and workspace_bytes:
                self.threads.add(thread)
                number = trace.allocate(workspace_bytes, "cuBLAS", "workspace", NO_LAYER, NO_LAYER)
                trace.labels[number] = "overhead"

        def empty_cache(self) -> None:
            """Record that cached memory is given back to the driver."""
            trace.emptied.append(len(trace.events))

        def label(self, tensor: Any, category: str) -> None:
            """Say what a tensor's storage is."""
            number = self.number_of(tensor)
            if number is not None:
                trace.labels[number] = category

        def number_of(self, tensor: Any) -> Optional[int]:
            """Number of a tensor's storage, or None if it is none of this device's."""
            return self.numbers.get(tensor.untyped_storage()._cdata)

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            self.operators += 1
            if not self.operators % 256:
                check()
            special = specials.get(func)
            output = func(*args, **given) if special is None else special(func, args, given)
            if not self.open:
                return output
            if self.phase == "backward":
                self._follow_backward()
            elif self.phase == "forward":
                self.modules_of_nodes.setdefault(sequence_of() - 1, scopes.current)
            rule = rules.get(func._schema.name)
            workspace = rule.size(*args, **given) if rule is not None else 0
            if rule is None or not workspace:
                self._see_all(output, func, args)
            elif rule.comes_first:
                temporary = self._temporary(func, workspace)
                self._see_all(output, func, args)
                trace.free(temporary, self.scope)
            else:
                self._see_all(output, func, args)
                trace.free(self._temporary(func, workspace), self.scope)
            return output

        def _temporary(self, func: Any, size: int) -> int:
            path, layer = scopes.current
            self.scope = layer
            return trace.allocate(size, path, f"{func._schema.name} (workspace)", layer, layer)

        def _see_all(self, output: Any, func: Any, args: Any) -> None:
            if isinstance(output, tensor_type):
                self._see(output, func, args, None)
            elif isinstance(output, (list, tuple)):
                for position, item in enumerate(output):
                    if isinstance(item, tensor_type):
                        self._see(item, func, args, position)

        def _see(self, tensor: Any, func: Any, args: Any, position: Optional[int]) -> None:
            if tensor.device.type != device:
                return
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.numbers:
                return
            path, layer = scopes.current
            if self.phase in _LIST_PHASES and layer == NO_LAYER:
                path, layer = self._parameter_scope(args, position, path)
            self.in_list = position is not None
            self.scope = layer
            number = trace.allocate(storage.nbytes(), path, func._schema.name, layer, layer)
            self.numbers[key] = number
            self.references[key] = weakref.ref(storage, self._gone(key, number))

        def _gone(self, key: int, number: int) -> Callable[[Any], None]:
            def gone(reference: Any) -> None:
                del self.numbers[key], self.references[key]
                if self.open:
                    trace.free(number, trace.layers[number] if self._frees_in_order() else self.scope)

            return gone

        def _frees_in_order(self) -> bool:
            """Whether what goes now belongs to its own layer, not to what is worked on: a list, or a loop's last."""
            return self.phase in _LIST_PHASES and (self.phase != "optimizer" or self.in_list)

        def _parameter_scope(self, args: Any, position: Optional[int], path: str) -> tuple[str, int]:
            first = args[0] if args else None
            if isinstance(first, (list, tuple)) and position is not None and position < len(first):
                first = first[position]
            if isinstance(first, tensor_type):
                number = self.number_of(first)
                if number is not None:
                    return trace.paths[number], trace.layers[number]
            # Made from nothing, such as a counter of steps, between tensors of one parameter and the next.
            return path, self.scope

        def _follow_backward(self) -> None:
            node = node_of()
            sequence = node._sequence_nr() if node is not None else None
            if sequence == self.last_node:
                return
            self.last_node = sequence
            found = self.modules_of_nodes.get(sequence) if sequence is not None else None
            scopes.reset(found if found is not None else scopes.current)

        @contextlib.contextmanager
        def working_on(self, path: str) -> Iterator[None]:
            """Attribute what is allocated to the module or parameter `path`."""
            before = scopes.current
            scopes.current = scopes.name(path)
            try:
                yield
            finally:
                scopes.current = before

    return Tracker()


def _specials(torch: Any) -> dict[Any, Callable[..., Any]]:
    """Operators that the fake mode would refuse or really run."""

    def to_copy(func: Any, args: Any, kwargs: Any) -> Any:
        # The fake mode would really copy a tensor whose value it knows, to a device that is none.
        constant = getattr(args[0], "constant", None)
        if constant is None:
            return func(*args, **kwargs)
        args[0].constant = None
        try:
            return func(*args, **kwargs)
        finally:
            args[0].constant = constant

    def grouped_mm(func: Any, args: Any, kwargs: Any) -> Any:
        # Works in every floating dtype, but its kernel for tensors without data takes bfloat16 alone.
        dtype = args[0].dtype
        if dtype == torch.bfloat16 or not isinstance(args[0], fake_type):
            return func(*args, **kwargs)
        narrow = [_like(torch, tensor, torch.bfloat16) for tensor in args[:2]]
        return _like(torch, func(*narrow, *args[2:], **{**kwargs, "out_dtype": None}), dtype)

    from torch._subclasses.fake_tensor import FakeTensor as fake_type

    found = {torch.ops.aten._to_copy.default: to_copy}
    if hasattr(torch.ops.aten, "_grouped_mm"):
        found[torch.ops.aten._grouped_mm.default] = grouped_mm
    return found


def _like(torch: Any, tensor: Any, dtype: Any) -> Any:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype, device=tensor.device)
