from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import GAUGES, TWO_GPUS, MakeApp, screen_text, wait_until
from workbench.doctor.selftest import STEPS
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.ui import app as app_module
from workbench.ui.app import WorkbenchApp
from workbench.ui.benches.doctor import DoctorBench
from workbench.ui.benches.doctor_facts import fact_rows
from workbench.ui.benches.doctor_self_test import TITLES
from workbench.ui.gauges import Gauges
from workbench.ui.widgets.row_list import RowList

OTHER = "/opt/conda/envs/llm/bin/python"
CAUSE = "driver-too-old-for-wheel-cuda"


def the_list(app: WorkbenchApp) -> RowList:
    return app.screen_stack[0].query_one("#doctor-list", RowList)


def cursor_key(app: WorkbenchApp) -> str:
    row = the_list(app).row
    return row.key if row else ""


async def examined(pilot: Pilot[int]) -> None:
    app: Any = pilot.app
    await wait_until(pilot, lambda: "✖ broken" in screen_text(app) and app.gauges, "first report")


async def choose_other(pilot: Pilot[int], key: str, row: str = f"environment:{OTHER}") -> None:
    """Open a picker of environments and choose a row of it."""
    app: Any = pilot.app
    await pilot.press(key)
    await wait_until(pilot, lambda: len(app.screen_stack) == 2 and "conda" in screen_text(app), "picker")
    app.screen.query_one(RowList).move_to(row)
    await pilot.press("enter")


# --- Self-test ---------------------------------------------------------------------------------------------


def test_the_steps_shown_are_the_steps_run() -> None:
    assert tuple(TITLES) == STEPS


async def test_self_test_shows_each_step_as_it_comes_and_leads_to_the_finding(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    gate = session.hold(protocol.RunSelfTest, before=2)
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await pilot.press("t")
        await wait_until(pilot, lambda: "2 of 5 steps done" in screen_text(app))
        text = screen_text(app)
        assert "✖ failed   GPU, a kernel run   1.8 s   410 MiB" in text
        assert "▸ running  inference" in text
        assert "· waiting  training step" in text
        gate.set()
        await wait_until(pilot, lambda: "4 passed, 1 failed" in screen_text(app))
        assert cursor_key(app) == "step:gpu"
        assert "the NVIDIA driver on your system" in screen_text(app)
        await pilot.press("enter")
        await wait_until(pilot, lambda: cursor_key(app) == f"finding:{CAUSE}")


async def test_self_test_is_cancelled_by_escape_and_keeps_what_ran(session: ScriptedSession, make_app: MakeApp) -> None:
    session.hold(protocol.RunSelfTest, before=2)
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await pilot.press("t")
        await wait_until(pilot, lambda: "2 of 5 steps done" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: "3 not run" in screen_text(app))
        assert session.asked(protocol.Cancel)
        assert "▸ running" not in screen_text(app)


async def test_self_test_runs_in_the_environment_shown_and_goes_into_the_export(
    session: ScriptedSession, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "v")
        await wait_until(pilot, lambda: "✔ healthy" in screen_text(app))
        await pilot.press("t")
        await wait_until(pilot, lambda: "4 passed, 1 failed" in screen_text(app))
        assert session.others[OTHER].asked(protocol.RunSelfTest)
        assert not session.asked(protocol.RunSelfTest)
        await pilot.press("E", "e")
        await wait_until(pilot, lambda: (tmp_path / "workbench-doctor-llm.md").exists())
    saved = json.loads((tmp_path / "workbench-doctor-llm.json").read_text())
    assert saved == {**data.HEALTHY, "self_test": data.SELF_TEST}
    assert "### Self-test" in (tmp_path / "workbench-doctor-llm.md").read_text()


async def test_a_failing_self_test_says_why(session: ScriptedSession, make_app: MakeApp) -> None:
    session.script(
        protocol.RunSelfTest, lambda request: [protocol.Failed("no-child", "No child can be started.", "Go.")]
    )
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await pilot.press("t")
        await wait_until(pilot, lambda: "No child can be started." in screen_text(app))
        assert "▸ running" not in screen_text(app)


# --- Other environments ------------------------------------------------------------------------------------


async def test_another_environment_is_examined_by_its_own_interpreter_and_named(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        assert "report of  /home/ada/envs/train/bin/python · this session's interpreter" in screen_text(app)
        await choose_other(pilot, "v")
        await wait_until(pilot, lambda: "✔ healthy" in screen_text(app))
        assert session.asked_others == [OTHER]
        text = screen_text(app)
        assert f"another one (b goes back)  {OTHER}" in text
        assert f"workbench --python {OTHER}" in text
        await pilot.press("b")
        await wait_until(pilot, lambda: "this session's interpreter" in screen_text(app))
        assert "✖ broken" in screen_text(app)
        assert len(session.asked(protocol.Diagnose)) == 1


async def test_again_examines_the_environment_shown(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "v")
        await wait_until(pilot, lambda: "✔ healthy" in screen_text(app))
        await pilot.press("r")
        await wait_until(pilot, lambda: len(session.others[OTHER].asked(protocol.Diagnose)) == 2)
        assert "another one" in screen_text(app)


async def test_an_environment_that_cannot_be_started_says_so_and_leaves_the_way_back(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    other = session.others[OTHER] = ScriptedSession()
    other.refuse = WorkbenchError("worker-start-failed", "It ended at once.", "Look at its log.", "Traceback")
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "v")
        await wait_until(pilot, lambda: "It ended at once." in screen_text(app))
        assert "✖ broken" not in screen_text(app)
        await pilot.press("b")
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        assert "It ended at once." not in screen_text(app)


async def test_losing_the_other_session_is_told_in_the_bench_and_leaves_the_own_alone(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    other = session.others[OTHER] = ScriptedSession()
    other.hold(protocol.Diagnose)
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "v")
        await wait_until(pilot, lambda: other.asked(protocol.Diagnose))
        other.kill()
        await wait_until(pilot, lambda: "SIGKILL" in screen_text(app))
        assert app.session.attached


async def test_escape_stops_the_examination_of_another_environment(session: ScriptedSession, make_app: MakeApp) -> None:
    other = session.others[OTHER] = ScriptedSession()
    other.hold(protocol.Diagnose)
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "v")
        await wait_until(pilot, lambda: other.asked(protocol.Diagnose))
        await wait_until(pilot, lambda: f"Examining {OTHER}" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: other.asked(protocol.Cancel))
        await wait_until(pilot, lambda: "Stopped. r examines again." in screen_text(app))


async def test_environments_are_searched_and_a_broken_one_is_not_taken(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await pilot.press("v")
        await wait_until(pilot, lambda: "lab/.venv" in screen_text(app))
        await pilot.press(*"broken")
        await wait_until(pilot, lambda: "train" not in screen_text(app).partition("CUDA")[2])
        assert "its base interpreter /opt/python3.10 is gone" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert len(app.screen_stack) == 2
        assert session.asked_others == []


async def test_a_paste_without_anything_known_is_not_called_healthy(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    empty = {"verdict": "healthy", "passed": 27, "unknown": 57, "findings": [], "facts": {"formats": [], "errors": []}}
    session.script(protocol.DiagnoseText, lambda request: [protocol.Diagnosed(empty)])
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await pilot.press("p")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2)
        app.screen.query_one(TextArea).text = "hello"
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: "? unknown" in screen_text(app))
        assert "healthy" not in screen_text(app)
        assert "GPU NOW" not in screen_text(app)
        await pilot.press("t")
        await pilot.pause()
        assert not session.asked(protocol.RunSelfTest)


async def test_a_report_is_read_once_however_often_the_session_changes_meanwhile(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        gate = session.hold(protocol.DiagnoseText)
        await pilot.press("p")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2)
        app.screen.query_one(TextArea).text = "PyTorch version: 2.9.0"
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: session.asked(protocol.DiagnoseText))
        for queued in range(1, 4):
            lane = protocol.LaneStatus("quick", "diagnose_text", queued=queued)
            session.set_status(lanes=(lane,))
            await wait_until(pilot, lambda lane=lane: app.session.lane("quick") == lane)
            await pilot.pause()
        gate.set()
        await wait_until(pilot, lambda: app.query_one(DoctorBench).view.final)
        assert len(session.asked(protocol.DiagnoseText)) == 1


# --- Compare -----------------------------------------------------------------------------------------------


async def test_compare_puts_first_what_explains_a_fault_and_escape_goes_back(
    session: ScriptedSession, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "c")
        await wait_until(pilot, lambda: "4 differences, 1 of them explains a fault" in screen_text(app))
        asked = session.asked(protocol.CompareReports)[0]
        assert asked.left["findings"][0]["id"] == CAUSE
        assert asked.right == data.HEALTHY
        text = screen_text(app)
        assert text.index("torch.cuda") < text.index(f"↳ {CAUSE}") < text.index("packages.peft")
        await pilot.press("e", "E")
        await wait_until(pilot, lambda: (tmp_path / "workbench-doctor-compared.json").exists())
        await pilot.press("escape")
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        assert "differences" not in screen_text(app)
    saved = json.loads((tmp_path / "workbench-doctor-compared.json").read_text())
    assert saved["comparison"] == data.DIFFERENCES
    assert saved["compared_with"] == OTHER
    markdown = (tmp_path / "workbench-doctor-compared.md").read_text()
    assert f"| torch.cuda | 13.0 | 12.6 | `{CAUSE}` |" in markdown


async def test_compare_with_a_pasted_report(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "c", row="paste")
        await wait_until(pilot, lambda: app.screen.query(TextArea))
        app.screen.query_one(TextArea).text = "works on my machine"
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: "≠ compared" in screen_text(app))
        assert session.asked(protocol.DiagnoseText)[0].text == "works on my machine"
        assert session.asked_others == []
        await pilot.press("enter")
        await wait_until(pilot, lambda: "EXPLAINS" in screen_text(app) and len(app.screen_stack) == 2)


async def test_compare_with_a_report_in_a_file(session: ScriptedSession, make_app: MakeApp, tmp_path: Path) -> None:
    report = tmp_path / "theirs.txt"
    report.write_text("PyTorch version: 2.9.0")
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await pilot.press("c")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2 and "conda" in screen_text(app), "picker")
        app.screen.query_one(Input).value = str(report)
        await wait_until(pilot, lambda: "use as typed" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "≠ compared" in screen_text(app))
        assert session.asked(protocol.DiagnoseText)[0].text == "PyTorch version: 2.9.0"
        assert "theirs.txt" in screen_text(app)


async def test_a_folder_without_python_is_refused_with_what_to_name(
    session: ScriptedSession, make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await pilot.press("v")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2 and "conda" in screen_text(app), "picker")
        app.screen.query_one(Input).value = f"{tmp_path}/"
        await wait_until(pilot, lambda: "use as typed" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "is a folder" in screen_text(app))
        assert "✖ broken" in screen_text(app)


async def test_an_old_python_is_examined_by_its_files_and_not_tested(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    old = {
        "python": "/opt/py37/bin/python",
        "name": "py37",
        "kind": "venv",
        "python_version": "3.7.16",
        "too_old": True,
    }
    listed = [*data.ENVIRONMENTS, old]
    session.script(protocol.ListEnvironments, lambda request: [protocol.EnvironmentsListed(listed)])
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await choose_other(pilot, "v", row=f"environment:{old['python']}")
        await wait_until(pilot, lambda: len(session.asked(protocol.Diagnose)) == 2)
        asked = session.asked(protocol.Diagnose)[1]
        assert (asked.files_of, asked.live) == (old["python"], False)
        assert session.asked_others == []
        await pilot.press("t")
        await pilot.pause()
        assert not session.asked(protocol.RunSelfTest)


# --- What comes in live ------------------------------------------------------------------------------------

MINOR = {"id": "hf-cache-small", "severity": "warning", "title": "Little room for the Hugging Face cache"}


def with_findings(*findings: dict[str, Any]) -> dict[str, Any]:
    return {**data.REPORT, "findings": list(findings)}


@pytest.mark.parametrize("moved", [False, True])
async def test_the_cursor_follows_the_cause_until_it_is_moved(
    moved: bool, session: ScriptedSession, make_app: MakeApp
) -> None:
    note = {"id": "a-note", "severity": "info", "title": "A note"}
    cause = data.REPORT["findings"][0]
    session.script(
        protocol.Diagnose,
        lambda request: [
            protocol.DiagnosisUpdated(with_findings(MINOR, note)),
            protocol.JobProgressed("probe", 0, 9, "steps", "import torch · 12 s, idle for 8 s"),
            protocol.Diagnosed(with_findings(cause, MINOR, note)),
        ],
    )
    gate = session.hold(protocol.Diagnose, before=2)
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "now: import torch · 12 s, idle for 8 s   escape stops" in screen_text(app))
        assert cursor_key(app) == "finding:hf-cache-small"
        if moved:
            await pilot.press("down")
        gate.set()
        await wait_until(pilot, lambda: str(cause["title"])[:30] in screen_text(app))
        assert cursor_key(app) == ("finding:a-note" if moved else f"finding:{CAUSE}")


async def test_what_was_stopped_is_not_called_healthy(session: ScriptedSession, make_app: MakeApp) -> None:
    session.script(
        protocol.Diagnose,
        lambda request: [protocol.DiagnosisUpdated(data.HEALTHY), protocol.Diagnosed(data.HEALTHY)],
    )
    session.hold(protocol.Diagnose, before=1)
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "so far" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Stopped. r examines again." in screen_text(app))
        assert "✔ healthy" not in screen_text(app)
        assert "not everything" in screen_text(app)


# --- Live GPUs ---------------------------------------------------------------------------------------------


async def test_gpus_are_shown_with_load_memory_heat_power_and_who_holds_it(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, make_gauges=lambda: lambda: TWO_GPUS)
    async with app.run_test(size=(80, 40)) as pilot:
        await examined(pilot)
        await wait_until(pilot, lambda: "RTX 4090" in screen_text(app))
        lines = screen_text(app).splitlines()
        row = next(line for line in lines if "0 RTX 4090" in line)
        assert row.split() == ["0", "RTX", "4090", "35", "%", "▁▁▂▄▆████▇▅▄▃▁▁▁▂▅▇▃", "21.3", "/", "24.0", "64", "287"]
        assert any("python train.py · ada" in line and line.endswith("15.2 GiB") for line in lines)
        assert any("a process outside this container" in line for line in lines)
        the_list(app).move_to("gpu:0")
        await pilot.press("enter")
        await wait_until(pilot, lambda: "287 of 450 W" in screen_text(app) and len(app.screen_stack) == 2)
        app.gauges = Gauges(gpus=TWO_GPUS.gpus[1:])
        await wait_until(pilot, lambda: "12 of 170 W" in screen_text(app), "the open explanation lives")


async def test_a_new_reading_paints_only_the_cells_that_changed(
    session: ScriptedSession, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    app = make_app(session, make_gauges=lambda: lambda: TWO_GPUS)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await wait_until(pilot, lambda: "RTX 4090" in screen_text(app))
        painted: list[Any] = []
        listing = the_list(app)
        monkeypatch.setattr(listing, "refresh", lambda *regions, **options: painted.append(regions))
        first = dataclasses.replace(TWO_GPUS.gpus[0], temperature_celsius=65)
        app.gauges = Gauges(gpus=(first, TWO_GPUS.gpus[1]))
        await pilot.pause()
        assert [region.width for regions in painted for region in regions] == [1]


async def test_a_new_reading_repaints_neither_screen_nor_bench(
    session: ScriptedSession, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "SIZE_SETTLED_SECONDS", 3600.0)  # then all is painted anew
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        assert app.main.bench is not None
        repainted: list[str] = []
        for name, part in (("app", app), ("screen", app.main), ("bench", app.main.bench)):
            monkeypatch.setattr(part, "refresh", lambda *args, name=name, **options: repainted.append(name))
        app.gauges = TWO_GPUS
        await pilot.pause()
        session.set_status(tokens_per_second=17.0)
        await wait_until(pilot, lambda: "last 17 tok/s" in screen_text(app))
        assert repainted == []


async def test_without_a_gpu_one_line_says_so(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, make_gauges=lambda: lambda: Gauges(ram_total_bytes=2**35))
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await wait_until(pilot, lambda: "no NVIDIA GPU answers: no driver" in screen_text(app))
        assert sum(row.key.startswith("gpu:") for row in the_list(app).rows) == 1


async def test_a_reading_does_not_move_the_reader(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        the_list(app).move_to("facts:torch")
        for gauges in (TWO_GPUS, GAUGES, Gauges(ram_total_bytes=2**35)):
            app.gauges = gauges
            await pilot.pause()
            assert cursor_key(app) == "facts:torch"


# --- Reading -----------------------------------------------------------------------------------------------


async def test_at_eighty_columns_enter_opens_the_finding_and_escape_returns(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        assert "FIX   pip install torch==2.13.0" in screen_text(app)
        assert "affects" not in screen_text(app)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "affects Chat · VRAM" in screen_text(app))
        assert "WHAT FOLLOWS" in screen_text(app)
        await pilot.press("y")
        await pilot.pause()
        assert app.clipboard == data.REPORT["findings"][0]["fix"][0]
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(app.screen_stack) == 1)
        assert app.focused is the_list(app)


async def test_search_finds_facts_by_path_and_by_value_and_findings(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await pilot.press("slash", *"cuda 13")
        await wait_until(pilot, lambda: "torch.cuda  13.0" in screen_text(app))
        assert [row.key for row in the_list(app).rows if row.selectable] == [f"finding:{CAUSE}", "fact:torch.cuda"]
        await pilot.press("down", "enter")
        await pilot.pause()
        assert app.focused is the_list(app)
        assert cursor_key(app) == "fact:torch.cuda"
        await pilot.press("escape")
        await wait_until(pilot, lambda: "✔ passed" in screen_text(app))
        assert not app.query_one("#doctor-search", Input).display


async def test_the_whole_report_is_copied_as_markdown(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await examined(pilot)
        await pilot.press("Y")
        await wait_until(pilot, lambda: "### error:" in app.clipboard)
        assert data.REPORT["findings"][0]["fix"][0] in app.clipboard


async def test_every_fact_can_be_read(session: ScriptedSession, make_app: MakeApp) -> None:
    session.script(protocol.Diagnose, lambda request: [protocol.Diagnosed(data.HEALTHY)])
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "✔ healthy" in screen_text(app))
        for key in ("facts:probes", "facts:probes.0"):
            the_list(app).move_to(key)
            await pilot.press("enter")
        the_list(app).move_to("fact:probes.0.stderr")
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2)
        lines = [line.strip("│ ") for line in screen_text(app).splitlines()]
        assert lines.index("line two") == lines.index("line one") + 1


def test_the_tree_opens_level_by_level_and_units_are_told() -> None:
    opened = {"facts:platform", "facts:platform.disks", "facts:platform.disks.0", "facts:gpus", "facts:gpus.0"}
    rows = {row.key: row.content(80).plain for row in fact_rows(data.HEALTHY["facts"], opened)}
    assert rows["fact:platform.memlock_bytes"].endswith("unlimited")
    assert rows["fact:platform.disks.0.free_bytes"].endswith("410 GiB")
    assert rows["fact:gpus.0.temperature_celsius"].endswith("41 °C")
    assert "facts:platform.disks.1" in rows
    assert "fact:platform.disks.1.path" not in rows
    assert "xformers" in rows["fact:absent"]


def type_in_one_burst(app: WorkbenchApp, text: str) -> None:
    """As a terminal hands over what was typed ahead: all keys before the first one is handled."""
    for character in text:
        app.post_message(events.Key("slash" if character == "/" else character, character))


async def test_what_follows_the_slash_in_one_burst_is_searched_for(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        type_in_one_burst(app, "/torch")
        await wait_until(pilot, lambda: app.query_one("#doctor-search", Input).value == "torch", "search")
        assert len(app.screen_stack) == 1
        assert not session.asked(protocol.RunSelfTest)


async def test_search_keeps_the_finding_that_was_selected(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await pilot.press("j")
        selected = cursor_key(app)
        assert selected != f"finding:{CAUSE}"
        await pilot.press("slash", *"torch", "escape")
        await pilot.pause()
        assert cursor_key(app) == selected


async def test_an_empty_paste_is_not_taken(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(120, 36)) as pilot:
        await examined(pilot)
        await pilot.press("p")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2, "paste")
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert any("nothing here yet" in told.message for told in app._notifications)
        assert len(app.screen_stack) == 2
