"""The VRAM bench: editing a plan, what it takes, what to change, simulating, on a scripted session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from textual.widgets import Static

from tests.stubs import scripted_vram as stub
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.ui.benches.vram import VramBench
from workbench.ui.benches.vram_plan import ITEMS, Draft, edited, fields_of, values_of
from workbench.ui.widgets.plan_fields import PlanFields
from workbench.ui.widgets.row_list import RowList
from workbench.vram.plan import JOBS, Plan, plan_from_dict

MODEL = "llama-3.1-8b"
GIB = 2**30


def bench_of(app: Any) -> VramBench:
    bench: VramBench = app.main.bench
    return bench


def fields(app: Any) -> PlanFields:
    found: PlanFields = app.query_one(PlanFields)
    return found


def last(session: ScriptedSession) -> Any:
    return session.asked(protocol.EstimateMemory)[-1]


def hint(app: Any) -> str:
    return str(app.query_one("#vram-hint", Static).content)


def gib(size: float) -> str:
    return f"{size / GIB:,.2f}"


async def opened(app: Any, pilot: Any, session: ScriptedSession) -> None:
    """Until the plan was estimated with advice."""
    await wait_until(pilot, lambda: isinstance(app.main.bench, VramBench) and app.main.bench.estimate is not None)
    await settled(app, pilot, session)


async def settled(app: Any, pilot: Any, session: ScriptedSession) -> None:
    await wait_until(pilot, lambda: bench_of(app).estimate and last(session).suggest)
    await wait_until(pilot, lambda: (bench_of(app).estimate or {}).get("plan") == last(session).plan)
    # The advice comes after the bytes: with that of the plan before still shown, nothing else tells it apart.
    asking = lambda: [one for one in app.workers if one.group == "estimate" and not one.is_finished]  # noqa: E731
    await wait_until(pilot, lambda: not asking())


async def test_the_budget_follows_every_key_and_advice_comes_after(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        text = screen_text(app)
        total = stub.budget_of(Plan())["total"]
        assert gib(total) in text
        assert "NVIDIA L4" in text
        assert "✖ does not fit" in text, "on the RTX 3060"
        assert f"{(total - 11.6 * GIB) / GIB:.1f} GiB short" in text
        assert "s runs" in text
        fields(app).move_to("batch")
        asked = len(session.asked(protocol.EstimateMemory))
        await pilot.press("right", "right", "right")
        await wait_until(pilot, lambda: len(session.asked(protocol.EstimateMemory)) > asked)
        assert session.asked(protocol.EstimateMemory)[asked].suggest is False, "while keys come nothing slow is asked"
        await settled(app, pilot, session)
        assert last(session).plan["batch"] == 8
        assert gib(stub.budget_of(Plan(batch=8))["total"]) in screen_text(app)
        await pilot.press("u")
        await settled(app, pilot, session)
        assert last(session).plan["batch"] == 4
        await pilot.press("u", "u", "u")
        await wait_until(pilot, lambda: bench_of(app).draft == Draft())
        await pilot.press("right", "0")
        await wait_until(pilot, lambda: bench_of(app).draft == Draft())


async def test_only_fields_of_the_job_are_shown_and_what_must_follow_does(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        shown = lambda: [row.key for row in fields(app).rows]  # noqa: E731
        assert {"new_tokens", "kv_dtype", "cache"} <= set(shown())
        assert not {"optimizer", "lora_r", "parallel", "double_quant"} & set(shown())
        await pilot.press("left")
        await settled(app, pilot, session)
        plan = plan_from_dict(last(session).plan)
        assert (plan.job, plan.quant, plan.double_quant) == ("qlora", "nf4", True)
        assert {"lora_r", "lora_targets", "kbit_prepare", "optimizer", "fused", "dataset_tokens"} <= set(shown())
        assert "new_tokens" not in shown()
        fields(app).move_to("optimizer")
        await pilot.press("right")
        assert "fused" not in shown()
        fields(app).move_to("gpus")
        await pilot.press("right")
        assert bench_of(app).draft.plan.parallel == "ddp"
        fields(app).move_to("job")
        await pilot.press("left")
        assert (bench_of(app).draft.plan.quant, bench_of(app).draft.plan.job) == ("none", "lora")
        assert "quant" not in shown()


async def test_what_cannot_be_is_refused_where_the_cursor_is(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        fields(app).move_to("batch")
        for typed in ("0", "9" * 20):
            await pilot.press("enter", *typed, "enter")
            await wait_until(pilot, lambda typed=typed: f"✖ {typed} is out of range: 1 to 65,536" in hint(app))
            assert bench_of(app).draft.plan.batch == 1
        await pilot.press("enter", *"1.5", "enter")
        await wait_until(pilot, lambda: "✖ 1.5 is no whole number" in hint(app))
        await pilot.press("enter", "1", "5", "3", "backspace", "4", "enter")
        await wait_until(pilot, lambda: bench_of(app).draft.plan.batch == 154)
        assert "✖" not in hint(app)
        assert app.main.current == "vram", "digits typed into a field switch no bench"
        fields(app).move_to("sequence_length")
        await pilot.press("enter", *"128k", "enter")
        await wait_until(pilot, lambda: bench_of(app).draft.plan.sequence_length == 131_072)
        fields(app).move_to("batch")
        await pilot.press("enter", "9", "escape", "right")
        assert bench_of(app).draft.plan.batch == 308, "beyond the choices a step doubles"
        fields(app).move_to("dtype")
        await pilot.press("left")
        assert bench_of(app).draft.plan.dtype == "float32"
        fields(app).move_to("attention")
        await pilot.press("right")
        await wait_until(pilot, lambda: "flash attention in float32" in hint(app))
        assert bench_of(app).draft.plan.attention == "efficient", "the step goes past what cannot be"
        fields(app).move_to("gpu")
        await pilot.press("enter", *"q3", "enter")
        await wait_until(pilot, lambda: "No GPU called q3" in hint(app))
        assert bench_of(app).draft.gpu == "this box"
        await pilot.press("enter", *"24GiB", "enter")
        await wait_until(pilot, lambda: last(session).gpus == ["24GiB"])
        await pilot.press("1")
        await wait_until(pilot, lambda: app.main.current == "doctor")


async def test_what_only_the_model_refuses_is_marked_and_undone(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("left")
        fields(app).move_to("lora_targets")
        await pilot.press("enter", *"no_such_proj", "enter")
        await wait_until(pilot, lambda: "The model has no module no_such_proj" in hint(app))
        assert fields(app).wrong == "lora_targets"
        assert app.query_one("#vram-budget").has_class("-stale"), "the budget is of the last plan that can be"
        await pilot.press("u")
        await wait_until(pilot, lambda: not fields(app).wrong and not app.query_one("#vram-budget").has_class("-stale"))


async def test_suggestions_are_applied_and_the_plan_made_to_fit(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        bench_of(app).change(Draft(Plan(job="lora", batch=2, sequence_length=1024), "L4"))
        await settled(app, pilot, session)
        changes = app.query_one("#vram-changes", RowList)
        await wait_until(pilot, lambda: changes.row is not None and changes.row.data["title"] == "chunked loss")
        saved = changes.rows[0].data["saves_bytes"]
        assert f"−{gib(saved)} GiB" in screen_text(app)
        await pilot.press("tab")
        await wait_until(pilot, lambda: "nothing in quality" in hint(app))
        await pilot.press("enter")
        await settled(app, pilot, session)
        assert last(session).plan["chunked_loss"] is True
        await pilot.press("u")
        await settled(app, pilot, session)
        assert last(session).plan["chunked_loss"] is False
        await pilot.press("f")
        await wait_until(pilot, lambda: bench_of(app).draft.plan.gradient_checkpointing)
        assert session.asked(protocol.FitPlan)[-1].gpu == "L4"
        await wait_until(pilot, lambda: "✔ fits" in screen_text(app))
        await pilot.press("u")
        await wait_until(pilot, lambda: not bench_of(app).draft.plan.gradient_checkpointing)


async def test_the_largest_that_fits_is_set(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(app, pilot, session)
        await pilot.press("b")
        await wait_until(pilot, lambda: bench_of(app).draft.plan.batch > 1)
        batch = bench_of(app).draft.plan.batch
        capacity = int(22.0 * GIB)
        assert stub.budget_of(Plan(batch=batch))["total"] <= capacity < stub.budget_of(Plan(batch=batch + 1))["total"]
        bench_of(app).change(Draft(gpu="B200"))
        await pilot.press("e")
        await wait_until(pilot, lambda: bench_of(app).draft.plan.sequence_length == stub.CONTEXT - 256)
        bench_of(app).change(Draft(gpu="4GiB"))
        await pilot.press("b")
        await wait_until(pilot, lambda: "Not even a batch of 1 fits" in screen_text(app))


async def test_the_simulation_stands_beside_the_estimate(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        fields(app).move_to("job")
        await pilot.press("left")
        await settled(app, pilot, session)
        gate = session.hold(protocol.SimulateMemory, before=2)
        await wait_until(pilot, lambda: any(one.only_kept for one in session.asked(protocol.SimulateMemory)))
        await pilot.press("s")
        await wait_until(pilot, lambda: "simulating: forward 2 of 4 layers" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: "simulating" not in screen_text(app))
        assert session.asked(protocol.Cancel), "the child is killed"
        gate.set()
        await pilot.press("s")
        await wait_until(pilot, lambda: "LIVE MEMORY OVER THE STEP" in screen_text(app))
        text = screen_text(app)
        plan = bench_of(app).draft.plan
        assert gib(1.02 * stub.budget_of(plan)["total"]) in text
        assert "-2.0 %" in text, "the estimate's error against the simulation"
        assert "│forward" in text
        assert "│backward" in text
        await pilot.press("s")
        await wait_until(pilot, lambda: "AT THE PEAK, IN BACKWARD" in screen_text(app))
        assert "[@click=app.quit]down_proj[/x]" in screen_text(app), "shown, not obeyed"
        await pilot.press("y", "escape")
        assert "lm_head" in app.clipboard
        fields(app).move_to("batch")
        await pilot.press("right")
        await wait_until(pilot, lambda: "s runs" in screen_text(app), "another plan has no simulation")
        await pilot.press("u")
        await wait_until(pilot, lambda: "LIVE MEMORY OVER THE STEP" in screen_text(app), "it was kept")


async def test_a_measurement_is_shown_with_the_errors_of_the_others(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        assert "m runs" in screen_text(app)
        gate = session.hold(protocol.MeasureMemory, before=1)
        await wait_until(pilot, lambda: any(one.only_kept for one in session.asked(protocol.MeasureMemory)))
        await pilot.press("m")
        await wait_until(pilot, lambda: "measuring: load 2 of 32 layers" in screen_text(app))
        gate.set()
        await wait_until(pilot, lambda: "-1.0 %" in screen_text(app), "the estimate's error, as the session says")
        assert "Measured on CPU; tensors alone" in screen_text(app)
        weights = stub.budget_of(Plan())["weights"]
        assert gib(1.01 * weights) in screen_text(app)
        await pilot.press("s")
        await wait_until(pilot, lambda: "+1.0 %" in screen_text(app), "the simulation's")
        assert "-2.0 %" in screen_text(app), "the estimate's against the simulation"


async def test_the_length_that_tokens_measured_is_told_as_such(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("left")
        bench_of(app).take_sequence_length(1_687, 12_000_000)
        await settled(app, pilot, session)
        assert last(session).plan["sequence_length"] == 1_687
        assert last(session).dataset_tokens == 12_000_000
        text = " ".join(screen_text(app).split())
        assert "1,687 p95 of 128k" in text
        assert "the data set" in text, "its time"
        fields(app).move_to("sequence_length")
        await pilot.press("enter", *"200000", "enter")
        await wait_until(pilot, lambda: "beyond the model's context" in screen_text(app))
        assert "✖ beyond 128k" in screen_text(app)


async def test_the_plan_is_what_the_load_dialog_starts_from(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(app, pilot, session)
        fields(app).move_to("quant")
        await pilot.press("right", "l")
        await wait_until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("enter")
        await wait_until(pilot, lambda: session.asked(protocol.LoadModel))
        request = session.asked(protocol.LoadModel)[0]
        assert (request.model, request.quant, request.dtype) == (MODEL, "nf4", "bfloat16")
        await wait_until(pilot, lambda: any("f5 goes to Chat" in one.message for one in app._notifications))
        assert isinstance(app.main.bench, VramBench), "what is typed next is not put into a message"


async def test_what_fits_follows_the_simulation_and_says_what_the_estimate_says(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    def refused(request: protocol.EstimateMemory) -> list[protocol.Message]:
        reply = stub.estimate(request)[0]
        assert isinstance(reply, protocol.MemoryEstimated)
        said = {"fits": False, "free_bytes": -GIB // 2, "verdict": "no"}
        for gpu in reply.result["gpus"] if session.asked(protocol.SimulateMemory)[-1:] else []:
            rungs = {"estimate": {"fits": True, "free_bytes": 3 * GIB, "verdict": "fits"}, "simulation": said}
            gpu.update(said, by="simulation", rungs=rungs)
        return [reply]

    session.script(protocol.EstimateMemory, refused)
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("s")
        await wait_until(pilot, lambda: "✖ does not fit by simulation  0.5 GiB short" in screen_text(app))
        assert "✔ fits by estimate, 3.0 GiB free" in screen_text(app)


async def test_a_small_model_on_a_small_screen(session: ScriptedSession, make_app: MakeApp) -> None:
    result = {"estimate": {"weights": 3 * 2**20, "total": 3 * 2**20}, "gpus": []}
    session.script(protocol.EstimateMemory, lambda request: [protocol.MemoryEstimated(result)])
    app = make_app(session, bench="vram", model="tiny-gpt2")
    async with app.run_test(size=(40, 12), notifications=True) as pilot:
        await wait_until(pilot, lambda: bench_of(app) is not None and bench_of(app).estimate)
        await wait_until(pilot, lambda: "3.00" in screen_text(app) or app.query_one("#vram-right").max_scroll_y > 0)
        await pilot.resize_terminal(80, 24)
        await wait_until(pilot, lambda: "MiB" in screen_text(app) and "3.00" in screen_text(app))
        assert "No GPU on this box: t chooses one" in screen_text(app)
        await pilot.press("f")
        await wait_until(pilot, lambda: "There is no GPU on this box to fit" in screen_text(app))


async def test_copies(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("y")
        await wait_until(pilot, lambda: "quantize: none" in app.clipboard and "weights" in app.clipboard)
        assert gib(stub.budget_of(Plan())["total"]) in app.clipboard
        await pilot.press("Y")
        await wait_until(pilot, lambda: app.clipboard == f"# VRAM of {MODEL}\n")


async def test_keys_typed_fast_are_all_counted(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        gate = session.hold(protocol.EstimateMemory)
        fields(app).move_to("new_tokens")
        await pilot.press(*["right"] * 4, "left")
        assert bench_of(app).draft.plan.new_tokens == 2048, "no key waits for the session"
        await asyncio.sleep(0)
        gate.set()
        await settled(app, pilot, session)
        assert last(session).plan["new_tokens"] == 2048


@pytest.mark.parametrize("job", JOBS)
def test_every_field_of_a_job_steps_through_plans_that_can_be(job: str) -> None:
    draft = edited(Draft(), "job", job)
    for field in fields_of(draft):
        value = values_of(draft)[field.id]
        assert field.show(value)
        taken = 0
        for choice in field.choices:
            try:
                after = edited(draft, field.id, choice)
            except WorkbenchError:
                continue
            taken += 1
            shown = values_of(after)[field.id]
            assert shown == choice or field.id == "gpus"
        assert taken, field.id
    assert {item.field.id for item in ITEMS} >= set(values_of(draft)) - {"lora"}
