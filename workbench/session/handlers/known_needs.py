"""What runs kept on this box say that a plan takes: its simulation, its measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.errors import WorkbenchError
from workbench.session.handlers.measured_points import store_of
from workbench.session.runtime import Runtime
from workbench.vram.plan import Plan
from workbench.vram.rungs import Known, Need, needs
from workbench.vram.simulate.run import cached_simulation, library_versions


def known_needs(config: dict[str, Any], gpus: Sequence[str], runtime: Runtime) -> Known:
    """Looks up what is kept of a model's plans; a measurement on one of `gpus` comes before others."""
    versions = library_versions()
    store = store_of(runtime)

    def known(plan: Plan) -> Sequence[Need]:
        try:
            point = store.find(config, plan, gpus)
        except WorkbenchError:
            # Told as a warning where the measurement itself is shown.
            point = None
        return needs(cached_simulation(config, plan, versions), point.measurement if point is not None else None)

    return known
