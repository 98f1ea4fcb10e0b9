"""Runs the app on a terminal with hostile strings in all that a session can say; for a test to read its bytes."""

from __future__ import annotations

import dataclasses

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from workbench.session import protocol
from workbench.settings import Settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.gauges import Gauges, GpuGauge

HOSTILE = (
    "X\x1b]52;c;ZXZpbA==\x07\x1b]0;pwned\x07\x1b[2J\x9b31m\x90q\x9c\x1bP+q\x1b\\"
    "\x1b]8;;http://evil\x1b\\\u202eabc\u2066[@click=app.quit]y[/] [/nope] \x00\x08\x0e\x7f \u200b"
)


class RawSession(ScriptedSession):
    """Its client hands strings on as they are, so that the app's own last gate is what is tested."""

    async def open(self):  # type: ignore[no-untyped-def]
        client = await super().open()
        client._sanitize = False
        return client


def main() -> None:
    model = dataclasses.replace(data.MODEL, name=HOSTILE, quant=HOSTILE, device=HOSTILE)
    session = RawSession(dataclasses.replace(data.STATUS, model=model, torch_version=HOSTILE))
    report = {
        "verdict": "broken",
        "findings": [{"id": HOSTILE, "severity": "error", "title": HOSTILE, "why": HOSTILE, "fix": [HOSTILE]}],
        "facts": {HOSTILE: {HOSTILE: HOSTILE}},
    }
    session.script(protocol.Diagnose, lambda request: [protocol.Diagnosed(report)])
    session.script(protocol.ListModels, lambda request: [protocol.ModelsListed([{"name": HOSTILE, "kind": "hub"}])])
    tree = {"name": HOSTILE, "class": HOSTILE, "parameters": 1, "children": [{"name": HOSTILE}]}
    block = {"kind": "attention", "label": HOSTILE, "path": HOSTILE, "line": HOSTILE}
    stage = {"name": HOSTILE, "path": HOSTILE, "repeat": 1, "blocks": [block]}
    inspection = {"architecture": HOSTILE, "tree": tree, "diagram": [stage]}
    inspection["explained"] = [{"key": HOSTILE, "label": HOSTILE, "chip": HOSTILE}]
    session.script(protocol.InspectModel, lambda request: [protocol.ModelInspected(inspection)])
    budget = {"estimate": {HOSTILE: 5, "total": 5}, "gpus": [{"name": HOSTILE}], "warnings": [HOSTILE]}
    session.script(protocol.EstimateMemory, lambda request: [protocol.MemoryEstimated(budget)])
    words = [protocol.TokensGenerated(HOSTILE, 1, "c1"), protocol.TokensGenerated(f"\n\n```{HOSTILE}\n{HOSTILE}", 2)]
    session.script(protocol.Generate, lambda request: [*words, protocol.Generated("c1", {"text": f"# {HOSTILE}"})])
    session.script(protocol.ReadLog, lambda request: [protocol.LogRead(HOSTILE, (HOSTILE,))])
    gauges = Gauges(gpus=(GpuGauge(HOSTILE, 1, 2, 3),))
    app = WorkbenchApp(
        Settings(), session.open, model=HOSTILE, make_gauges=lambda: lambda: gauges, remember=False, bench="doctor"
    )
    app.run()


if __name__ == "__main__":
    main()
