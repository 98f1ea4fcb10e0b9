"""What runs kept on this box say that a plan takes: its simulation, its measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.session.handlers.measured_points import store_of
from workbench.session.runtime import Runtime
from workbench.vram.plan import Plan
from workbench.vram.rungs import Need, needs
from workbench.vram.simulate.result import Simulation
from workbench.vram.simulate.run import cached_simulation, library_versions


class KnownNeeds:
    """Looks up what is kept of a model's plans, each simulation once; a `workbench.vram.rungs.Known`.

    Args:
        config: of the model.
        gpus: a measurement on one of these comes before others.
        runtime: whose store of measurements is asked.
    """

    def __init__(self, config: dict[str, Any], gpus: Sequence[str], runtime: Runtime) -> None:
        self._config = config
        self._gpus = gpus
        self._store = store_of(runtime)
        self._versions = library_versions()
        self._simulations: dict[Plan, Optional[Simulation]] = {}

    def __call__(self, plan: Plan) -> Sequence[Need]:
        """What the kept runs of a plan say that it takes."""
        try:
            point = self._store.find(self._config, plan, self._gpus)
        except WorkbenchError:
            # Told as a warning where the measurement itself is shown.
            point = None
        return needs(self.simulation(plan), point.measurement if point is not None else None)

    def simulation(self, plan: Plan) -> Optional[Simulation]:
        """The simulation that was made of a plan before."""
        if plan not in self._simulations:
            self._simulations[plan] = cached_simulation(self._config, plan, self._versions)
        return self._simulations[plan]
