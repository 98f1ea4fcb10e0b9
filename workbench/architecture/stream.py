"""What each layer and its parts do to the residual stream. Needs torch: worker only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from workbench.architecture.anatomy import Layer
from workbench.architecture.figures import Ledger, Measured, measure
from workbench.architecture.outliers import ChannelWatch
from workbench.architecture.passes import Hooks, first_tensor, hidden_input

_TOLERANCE = 0.02
"""Share of what the parts give by which their sum may miss what the layer adds, rounding apart."""


@dataclass
class StreamNotes:
    """Numbers under which a layer's figures stand in the ledger.

    Attributes:
        output: the stream that leaves the layer.
        norms: norm at the first position, mean norm at the others.
        sums: mean norm of the entering stream; then the Frobenius norms of what the plain sum misses, of the plain
            contributions, of what the chained outputs miss, of the chained contributions, of the leaving stream.
        plain: mean norms of the parts' outputs, in the order of running.
        chained: mean norms of the differences from one part's output to the next.
        parts: indices of the parts that ran, in that order.
        dtype: of the stream.
    """

    output: Measured
    norms: int
    sums: Optional[int] = None
    plain: int = -1
    chained: int = -1
    parts: tuple[int, ...] = ()
    dtype: str = ""


@dataclass
class _Running:
    """One layer while it runs."""

    entering: Any
    given: dict[int, Any] = field(default_factory=dict)
    """Output of each part as the very object, to see whether a norm takes it next."""
    added: dict[int, Any] = field(default_factory=dict)
    """A copy of what the part, and the norm behind it, gave."""
    norm_of: Optional[int] = None


class StreamWatch:
    """Follows the residual stream through the layers.

    Args:
        ledger: takes the figures.
        inputs: gathers what enters the linear layers.
        stream: gathers what leaves the layers.
        multiplier: the config's factor of every contribution, such as Granite's ``residual_multiplier``.
    """

    def __init__(self, ledger: Ledger, inputs: ChannelWatch, stream: ChannelWatch, multiplier: float) -> None:
        self.notes: dict[int, StreamNotes] = {}
        self._ledger = ledger
        self._inputs = inputs
        self._stream = stream
        self._multiplier = multiplier
        self._running: Optional[_Running] = None
        # An encoder reads the prompt, its decoder one token: channels are counted in the first stack alone.
        self._stack = ""

    def watch(self, hooks: Hooks, layer: Layer, on_output: Callable[[Layer, Any, Any], None]) -> None:
        """Hook a layer and its parts; `on_output(layer, entering, leaving)` gets the streams without batch."""
        hooks.before(layer.module, lambda args, kwargs: self._enter(args, kwargs))
        self._stack = self._stack or layer.stack
        counted = layer.stack == self._stack
        for index, part in enumerate(layer.parts):
            if counted:
                hooks.before(part.modules[0], lambda args, kwargs: self._note_input(layer.index, args, kwargs))
            hooks.after(part.modules[-1], lambda output, index=index: self._note_part(index, output))  # type: ignore[misc]
        for child in layer.module.children():
            if "norm" in type(child).__name__.lower():
                hooks.before(child, lambda args, kwargs: self._note_norm(args, kwargs))
                hooks.after(child, lambda output: self._note_normed(output))
        hooks.after(layer.module, lambda output: self._leave(layer, output, on_output))

    def _enter(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        entering = hidden_input(arguments, keywords)
        # A copy: Falcon adds in place.
        self._running = None if entering is None else _Running(entering.detach().clone())

    def _note_input(self, layer: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        values = hidden_input(arguments, keywords)
        if values is not None:
            self._inputs.take(layer, values)

    def _note_part(self, index: int, output: Any) -> None:
        values = first_tensor(output)
        if self._running is not None and values is not None:
            self._running.given[index] = values
            self._running.added[index] = values.detach().clone()

    def _note_norm(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        running = self._running
        if running is not None:
            taken = hidden_input(arguments, keywords)
            running.norm_of = next((index for index, given in running.given.items() if given is taken), None)

    def _note_normed(self, output: Any) -> None:
        running = self._running
        if running is not None and running.norm_of is not None:
            running.added[running.norm_of] = output.detach().clone()
            running.norm_of = None

    def _leave(self, layer: Layer, output: Any, on_output: Callable[[Layer, Any, Any], None]) -> None:
        leaving = first_tensor(output)
        running, self._running = self._running, None
        if leaving is None or leaving.dim() < 2:
            return
        if layer.stack == self._stack:
            self._stream.take(layer.index, leaving)
        flat = leaving.detach().reshape(-1, leaving.shape[-1])
        notes = StreamNotes(measure(leaving, self._ledger), self._ledger.put(_first_and_rest(flat)))
        entering = None if running is None else running.entering
        if running is not None and entering is not None and entering.numel() == leaving.numel():
            before = entering.reshape(flat.shape).float()
            self._note_sums(notes, running, before, flat.float(), str(leaving.dtype))
        self.notes[layer.index] = notes
        on_output(layer, _unbatched(entering), _unbatched(leaving))

    def _note_sums(self, notes: StreamNotes, running: _Running, entering: Any, leaving: Any, dtype: str) -> None:
        import torch

        added = {index: values for index, values in running.added.items() if values.numel() == leaving.numel()}
        if not added:
            return
        outputs = [values.reshape(leaving.shape).float() for values in added.values()]
        plain = [values * self._multiplier for values in outputs]
        chained = [after - before for before, after in zip([entering, *outputs], outputs)]
        total, whole = sum(plain), sum(chained)
        sums = (leaving - entering - total, total, leaving - outputs[-1], whole, leaving)
        entered = _first_and_rest(entering)[1]
        notes.sums = self._ledger.put(torch.stack([entered, *(values.norm() for values in sums)]))
        notes.plain = self._ledger.put(torch.stack([_first_and_rest(values)[1] for values in plain]))
        notes.chained = self._ledger.put(torch.stack([_first_and_rest(values)[1] for values in chained]))
        notes.parts = tuple(added)
        notes.dtype = dtype.replace("torch.", "")

    def contributions(self, layer: int) -> dict[int, tuple[float, float]]:
        """Norm and share of what each part of a layer adds; empty where that is not the sum the layer makes."""
        notes = self.notes[layer]
        if notes.sums is None:
            return {}
        entered, missed, plain, missed_chained, chained, left = self._ledger.read(notes.sums)
        rounding = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}.get(notes.dtype, 1.6e-2) * left
        # Bloom's and MPT's parts give the stream with what they add.
        ways = [(missed, plain, notes.plain), (missed_chained, chained, notes.chained)]
        for error, size, number in ways:
            if error <= _TOLERANCE * size + rounding:
                norms = self._ledger.read(number)
                return {part: (norm, norm / entered if entered else 0.0) for part, norm in zip(notes.parts, norms)}
        return {}

    def norms(self, layer: int) -> tuple[Optional[float], Optional[float]]:
        """Norm at the first position, and the mean of the others; None where not finite."""
        first, rest = self._ledger.read(self.notes[layer].norms)
        return _finite(first), _finite(rest)


def _unbatched(stream: Any) -> Any:
    return stream[0] if stream is not None and stream.dim() > 2 else stream


def _first_and_rest(values: Any) -> Any:
    """L2 norm at the first position and mean of those at the others; both the same for one position."""
    import torch

    norms = values.float().norm(dim=-1)
    return torch.stack((norms[0], norms[1:].mean() if len(norms) > 1 else norms[0]))


def _finite(value: float) -> Optional[float]:
    return value if abs(value) < float("inf") else None
