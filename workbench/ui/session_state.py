"""What the screen knows of the model session: a frozen record and the pure function that folds events into it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Union

from workbench.errors import WorkbenchError
from workbench.text import sanitize

if TYPE_CHECKING:
    # Making the protocol's dataclasses takes a quarter of the time to a first frame, which needs none of them.
    from workbench.session.protocol import LaneStatus, LoadModel, ModelStatus, SessionStatus, StatusChanged

STARTING = "starting"
ATTACHED = "attached"
LOST = "lost"


@dataclass(frozen=True)
class SessionState:
    """One moment of the session as the app sees it."""

    connection: str = STARTING
    """``starting``, ``attached`` or ``lost``."""
    chosen: str = ""
    """The model of every bench, as the user named it; empty when none is chosen yet."""
    refused: WorkbenchError | None = None
    """Why the chosen model cannot be had; None while nothing is known against it."""
    own_load: LoadModel | None = None
    """The load that this app asked for last, and `own_model` what came of it in this session."""
    own_model: ModelStatus | None = None
    status: SessionStatus | None = None
    """The worker's last snapshot; kept after a loss, so that the screen can say what was there."""
    error: WorkbenchError | None = None
    """Why there is no session, while `connection` is ``lost``."""
    silent_seconds: int = 0
    """How long the worker has not answered although it is there; 0 while it does."""
    attachments: int = 0
    """How often the app has attached; a change tells benches to ask again."""

    @property
    def attached(self) -> bool:
        """Whether requests are answered now."""
        return self.connection == ATTACHED

    @property
    def model(self) -> ModelStatus | None:
        """The loaded model; None when none is loaded or nobody knows."""
        return self.status.model if self.status and self.attached else None

    @property
    def chosen_is_loaded(self) -> bool:
        """Whether the model in memory is the one that the benches show."""
        # What the session tells has been made safe to show.
        return self.model is not None and self.model.name in (self.chosen, sanitize(self.chosen))

    @property
    def standing_load(self) -> LoadModel | None:
        """The load of this app that the model in memory came from; None if another client loaded it."""
        return self.own_load if self.model is not None and self.model == self.own_model else None

    @property
    def model_job(self) -> str:
        """Wire name of the request that the model lane runs; empty when it is idle."""
        lane = self.lane("model")
        return lane.job if lane else ""

    def lane(self, name: str) -> LaneStatus | None:
        """A lane by name; None while nobody knows."""
        lanes = self.status.lanes if self.status and self.attached else ()
        return next((lane for lane in lanes if lane.name == name), None)


@dataclass(frozen=True)
class Attaching:
    """A session is being looked for or started."""


@dataclass(frozen=True)
class Attached:
    """A worker answered."""

    status: SessionStatus


@dataclass(frozen=True)
class Lost:
    """There is no session: it could not be started, or it went away."""

    error: WorkbenchError


@dataclass(frozen=True)
class Silent:
    """The worker has not answered for so many seconds; 0 when it answers again."""

    seconds: int


@dataclass(frozen=True)
class ModelChosen:
    """The user named the model of every bench."""

    name: str


@dataclass(frozen=True)
class ModelRefused:
    """There is no such model, or it cannot be used."""

    name: str
    error: WorkbenchError


@dataclass(frozen=True)
class LoadedHere:
    """A load that this app asked for is done."""

    request: LoadModel
    model: ModelStatus


SessionEvent = Union[Attaching, Attached, Lost, Silent, ModelChosen, ModelRefused, LoadedHere, "StatusChanged"]


def reduce(state: SessionState, event: SessionEvent) -> SessionState:
    """The state after an event; the same object when nothing changed."""
    if isinstance(event, Attaching):
        return replace(state, connection=STARTING, error=None)
    if isinstance(event, Attached):
        return replace(
            state,
            connection=ATTACHED,
            status=event.status,
            error=None,
            own_load=None,
            own_model=None,
            silent_seconds=0,
            chosen=state.chosen or _loaded(event.status),
            attachments=state.attachments + 1,
        )
    if isinstance(event, Lost):
        return replace(state, connection=LOST, error=event.error, silent_seconds=0)
    if isinstance(event, Silent):
        return replace(state, silent_seconds=event.seconds)
    if isinstance(event, ModelChosen):
        if event.name == state.chosen and state.refused is None:
            return state
        return replace(state, chosen=event.name, refused=None)
    if isinstance(event, ModelRefused):
        return replace(state, refused=event.error) if event.name == state.chosen else state
    if isinstance(event, LoadedHere):
        return replace(state, own_load=event.request, own_model=event.model)
    if event.status == state.status:
        return state
    # Another client may load a model; who has chosen none means that one.
    return replace(state, status=event.status, chosen=state.chosen or _loaded(event.status))


def _loaded(status: SessionStatus) -> str:
    return status.model.name if status.model else ""
