"""What the worker holds between requests, and what a handler sees of it. Stdlib only; the model libraries come late."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.packages import need
from workbench.session.lanes import LaneJob
from workbench.session.protocol import Event, LoadModel, ModelStatus, Reply


@dataclass
class TorchState:
    """Whether this interpreter's torch has been imported, and how that went."""

    state: str = "not imported"
    version: str = ""
    error: str = ""


@dataclass
class LoadedSlot:
    """The one loaded model with what belongs to it; touched by the model lane only."""

    status: ModelStatus
    loaded: Any
    """`workbench.models.load.LoadedModel`."""
    tokenizer: Any
    """`workbench.tokens.tokenizer.TextTokenizer`."""
    generator: Any
    """`workbench.chat.generate.Generator`."""
    request: LoadModel
    """What was asked for, so that asking again does nothing."""


@dataclass
class Runtime:
    """State of one worker, shared by its handlers.

    Attributes:
        changed: thread-safe; says that `SessionStatus` has changed.
        next_job: thread-safe; queues work of the session's own on the model lane before all that waits there, under the
            wire name of a request.
    """

    session: str
    changed: Callable[[], None]
    next_job: Callable[[str, Callable[[LaneJob], Any]], None] = lambda _name, _run: None
    torch: TorchState = field(default_factory=TorchState)
    slot: Optional[LoadedSlot] = None
    tokens_per_second: Optional[float] = None
    conversation_id: str = ""
    model_used_at: float = field(default_factory=time.monotonic)
    services: dict[str, Any] = field(default_factory=dict)
    """What a handler module keeps between requests, by its own name: caches, the conversation store."""
    _import_lock: threading.Lock = field(default_factory=threading.Lock)

    def import_torch(self, job: Job) -> None:
        """Import torch and transformers once; every handler that needs them calls this first.

        Raises:
            WorkbenchError: ``missing-package`` or ``broken-package``, naming the interpreter and the remedy.
        """
        with self._import_lock:
            if self.torch.state == "ready":
                return
            self.torch.state = "importing"
            self.changed()
            job.progress("import", 0, 2, "packages", "torch")
            try:
                torch = need("torch", "Running models")
                self.torch.version = str(torch.__version__)
                job.progress("import", 1, 2, "packages", "transformers")
                need("transformers", "Running models")
            except WorkbenchError as error:
                self.torch.state = "missing" if error.kind == "missing-package" else "broken"
                self.torch.error = error.message
                self.changed()
                raise
            self.torch.state, self.torch.error = "ready", ""
            job.progress("import", 2, 2, "packages")
            self.changed()

    def torch_seen(self) -> TorchState:
        """How torch stands, also when another handler imported it on its way."""
        torch = sys.modules.get("torch")
        if self.torch.state == "not imported" and hasattr(torch, "__version__"):
            return TorchState("ready", str(getattr(torch, "__version__", "")))
        return self.torch

    def require_slot(self) -> LoadedSlot:
        """The loaded model.

        Raises:
            WorkbenchError: ``no-model``.
        """
        if self.slot is None:
            raise WorkbenchError(
                "no-model", "No model is loaded.", "Name one: workbench chat MODEL; in the app ctrl+o."
            )
        self.touch_model()
        return self.slot

    def touch_model(self) -> None:
        """Start the model's idle time anew."""
        self.model_used_at = time.monotonic()


@dataclass(frozen=True)
class Context:
    """What a handler gets beside its request."""

    runtime: Runtime
    job: LaneJob
    carried: Any = None
    """What the handler's previous stage returned."""
    finish: Callable[[Reply], None] = lambda _reply: None
    """Ends the request later; for a handler that returned `LATER`. Thread-safe."""

    def emit(self, event: Event) -> None:
        """Send an event to the client that asked."""
        self.job.emit(event)


LATER = Reply()
"""Returned by a handler whose reply will come through `Context.finish`."""


@dataclass(frozen=True)
class Stage:
    """One step of a request on one lane; the last stage returns the `Reply`, or an earlier one that has it already."""

    lane: str
    run: Callable[[Any, Context], Any]


@dataclass(frozen=True)
class Handler:
    """How a request type is answered.

    Attributes:
        stages: run one after the other, each on its lane.
        outlives_client: whether a request goes on when the client that asked goes away.
    """

    stages: tuple[Stage, ...]
    outlives_client: Callable[[Any], bool] = lambda _request: False


def always(_request: Any) -> bool:
    """For a `Handler` whose requests all go on without their client."""
    return True


def quick(run: Callable[[Any, Context], Any]) -> Handler:
    """A handler of one stage on the quick lane."""
    return Handler((Stage("quick", run),))


def resident_bytes() -> int:
    """Resident set size of this process (proc(5), second field of statm); 0 where unknown."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def device_bytes() -> Optional[int]:
    """Bytes that torch's allocator holds on all GPUs; None without an initialised CUDA context."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not getattr(cuda, "is_initialized", bool)():
        return None
    return sum(int(cuda.memory_reserved(index)) for index in range(cuda.device_count()))
