"""The screens over the VRAM bench, on a scripted session."""

from __future__ import annotations

from typing import Any

from textual.widgets import Input

from tests.stubs import scripted_vram as stub
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from tests.ui.test_vram_bench import MODEL, bench_of, fields, gib, last, opened, settled
from workbench.session import protocol
from workbench.ui.benches.vram_plan import Draft
from workbench.ui.widgets.memory_bar import CATEGORIES, look_of, memory_bar
from workbench.ui.widgets.memory_plot import Scale, stacked_plot, timeline_plot, x_labels
from workbench.ui.widgets.row_list import RowList
from workbench.vram.plan import Plan


def said(app: Any) -> str:
    return " ".join(screen_text(app).split())


async def test_the_table_of_gpus_is_sorted_and_chosen_from(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        gate = session.hold(protocol.SurveyGpus, before=1)
        await pilot.press("t")
        await wait_until(pilot, lambda: "gpus 3 of 5 gpus" in said(app) and "escape stops it" in said(app))
        gate.set()
        await wait_until(pilot, lambda: "4 of 5 hold the plan's" in said(app))
        rows = app.screen.query_one("#gpus-rows", RowList)
        assert rows.rows[0].key == "T4"
        assert "✖ no" in screen_text(app)
        assert "✔ fits" in screen_text(app)
        assert rows.row is not None
        assert rows.row.key == "L4", "the cursor is on the first that fits"
        await pilot.press("s")
        assert rows.rows[0].key == "A100 SXM 80GB", "by name"
        await pilot.press("y")
        assert "L4\tfits" in app.clipboard
        await pilot.press(*"H2")
        await wait_until(pilot, lambda: rows.row is not None and rows.row.key == "H200", "typing looks for a GPU")
        await pilot.press("enter", "enter")
        await wait_until(pilot, lambda: len(app.screen_stack) == 1)
        await settled(app, pilot, session)
        assert last(session).gpus == ["H200"]
        assert "H200 · " in screen_text(app)


async def test_kept_measurements_are_listed_and_one_is_planned(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("h")
        await wait_until(pilot, lambda: "2 kept, the newest first" in said(app))
        assert "qlora nf4 1 × 512" in said(app)
        await wait_until(pilot, lambda: "steps took 12 s, 6.9 s. torch 2.13.0" in said(app))
        await pilot.press("y")
        assert "\tllama-3.1-8b\tqlora nf4 1 × 512\tCPU\t3221225472" in app.clipboard
        await pilot.press("enter")
        await settled(app, pilot, session)
        plan = bench_of(app).draft.plan
        assert (plan.job, plan.quant, plan.sequence_length) == ("qlora", "nf4", 512)


async def test_plots_over_every_field_of_the_job(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        bench_of(app).change(Draft(Plan(job="lora"), "A100 SXM 80GB"))
        await settled(app, pilot, session)
        await pilot.press("p")
        await wait_until(pilot, lambda: "[sequence]" in screen_text(app) and "activations" in screen_text(app))
        assert "✖ does not fit with tokens from about" in said(app)
        assert "most is activations, before that weights" in said(app)
        await pilot.press("right")
        await wait_until(pilot, lambda: "[batch]" in screen_text(app))
        await wait_until(pilot, lambda: session.asked(protocol.DrawCurve)[-1].field_name == "batch")
        await pilot.press("right")
        await wait_until(pilot, lambda: session.asked(protocol.DrawCurve)[-1].field_name == "lora_r")
        assert session.asked(protocol.DrawCurve)[-1].values[-1] == 256
        await wait_until(pilot, lambda: "[LoRA rank]" in screen_text(app))
        await pilot.press("y")
        await wait_until(pilot, lambda: app.clipboard.startswith("lora_r\tweights"))


async def test_time_and_money_and_the_break_even(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("d")
        await wait_until(pilot, lambda: "the API is cheaper" in screen_text(app))
        assert "18 – 31" in screen_text(app), "tokens a second, a range of two figures"
        assert "/home/me/.config/workbench/prices.toml" in screen_text(app)
        form = app.screen.query_one("#money-fields")
        form.move_to("answers")  # type: ignore[attr-defined]
        await pilot.press("right", "right")
        form.move_to("agent")  # type: ignore[attr-defined]
        await pilot.press("right", "right")
        await wait_until(pilot, lambda: "the GPU is cheaper" in screen_text(app))
        asked = session.asked(protocol.BreakEvenWithApi)[-1]
        assert (asked.answers_per_day, asked.agent_multiplier, asked.input_per_million) == (100_000, 5.0, 0.15)
        await pilot.press("escape")
        bench_of(app).change(Draft(Plan(job="qlora", quant="nf4"), "RTX 4090"))
        await pilot.press("d")
        await wait_until(pilot, lambda: "State the data set's tokens" in screen_text(app))
        app.screen.query_one("#money-fields").move_to("dataset_tokens")  # type: ignore[attr-defined]
        await pilot.press("enter", *"5000000", "enter")
        await wait_until(pilot, lambda: "2,442" in screen_text(app), "steps of 2,048 tokens")
        await pilot.press("escape")
        assert bench_of(app).draft.dataset_tokens == 5_000_000, "the plan has it too"


async def test_two_plans_side_by_side(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 44)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("c")
        await wait_until(pilot, lambda: "[full]" in screen_text(app))
        await pilot.press("k")
        await wait_until(pilot, lambda: "Kept" in screen_text(app))
        await pilot.press("escape")
        fields(app).move_to("quant")
        await pilot.press("right")
        await settled(app, pilot, session)
        await pilot.press("c")
        await wait_until(pilot, lambda: "[kept]" in screen_text(app) and "≠ quantize nf4 none" in said(app))
        both = [stub.budget_of(Plan(quant=quant))["weights"] for quant in ("nf4", "none")]
        assert f"weights {gib(both[0])} GiB {gib(both[1])} GiB +{gib(both[1] - both[0])} GiB" in said(app)
        await pilot.press("y")
        assert "quantize" in app.clipboard
        await pilot.press("enter")
        await wait_until(pilot, lambda: bench_of(app).draft.plan.quant == "none")
        await pilot.press("u")
        await wait_until(pilot, lambda: bench_of(app).draft.plan.quant == "nf4")


async def test_rules_of_thumb_stand_beside_the_right_numbers(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("r")
        await wait_until(pilot, lambda: "84.0 66.0 ×0.79 too high 7B, full fine-tuning" in said(app))
        assert "torch's AdamW keeps its moments in bf16." in said(app)
        await pilot.press("down")
        await wait_until(pilot, lambda: "The fused experts are not quantized." in said(app))
        assert "23.4 93.0 ×3.98 too low" in said(app)


async def test_the_numbers_can_be_questioned(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, session)
        await pilot.press("w")
        await wait_until(pilot, lambda: "how weights is known" in screen_text(app))
        assert f"{stub.budget_of(Plan())['weights']:,}" in screen_text(app)
        await pilot.press("y")
        assert "8,030,261,248" in app.clipboard


async def test_the_plan_leaves_as_code_and_file_and_comes_back(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(app, pilot, session)
        await pilot.press("o")
        await wait_until(pilot, lambda: "# inference [/x]" in screen_text(app))
        await pilot.press("y")
        assert app.clipboard.startswith("# inference [/x]\nmodel")
        await pilot.press("s")
        path = app.screen.query_one("#out-path", Input)
        assert path.value.endswith(f"{MODEL}-train.py")
        path.value = "/x/there.py"
        await pilot.press("enter")
        await wait_until(pilot, lambda: "enter again replaces it" in said(app))
        assert session.asked(protocol.WritePlan)[-1].overwrite is False
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Saved /x/there.py." in screen_text(app))
        assert session.asked(protocol.WritePlan)[-1].overwrite is True
        await pilot.press("right", "right")
        await wait_until(pilot, lambda: "schema = 1" in screen_text(app))
        await pilot.press("o")
        path.value = "/none.toml"
        await pilot.press("enter")
        await wait_until(pilot, lambda: "/none.toml: No such file." in screen_text(app))
        path.value = "/p.toml"
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(app.screen_stack) == 1)
        draft = bench_of(app).draft
        assert (draft.plan.job, draft.plan.sequence_length, draft.gpu) == ("qlora", 777, "RTX 4090")
        assert (draft.dataset_tokens, draft.epochs) == (5_000_000, 2.0)
        await pilot.press("u")
        await wait_until(pilot, lambda: bench_of(app).draft == Draft())


async def test_every_screen_tells_its_keys_and_what_fails(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot, session)
        failed = protocol.Failed("bad-plan", "No [such] thing.", "Do another.")
        for request in (protocol.SurveyGpus, protocol.DrawCurve, protocol.ListRulesOfThumb, protocol.WritePlan):
            session.script(request, lambda request: [failed])
        for key in ("t", "p", "r", "o"):
            await pilot.press(key)
            await wait_until(pilot, lambda: "✖ No [such] thing. Do another." in screen_text(app), key)
            await pilot.press("question_mark")
            await wait_until(pilot, lambda: "Show every key" in screen_text(app))
            await pilot.press("escape", "escape")
            await wait_until(pilot, lambda: len(app.screen_stack) == 1)


# --- Bars and plots ----------------------------------------------------------------------------------------


def test_a_bar_shows_parts_free_room_and_where_the_capacity_ends() -> None:
    bar = memory_bar({"weights": 50, "logits": 25}, 100, 41).plain
    assert bar == "█" * 20 + "▞" * 10 + "·" * 10 + "┃"
    over = memory_bar({"weights": 150, "logits": 50}, 100, 41).plain
    assert over.index("┃") == 20, "half of it fits"
    assert len(over) == 41
    assert "┃" not in memory_bar({"weights": 5}, 0, 20).plain
    assert "▚" in memory_bar({"weights": 10_000, "activations": 1}, 20_000, 30).plain, "the smallest part is seen"


def test_categories_of_one_job_differ_in_texture_alone() -> None:
    for left_out in ("kv_cache", "adapters"):
        looks = [look_of(name)[0] for name in CATEGORIES if name != left_out]
        assert len(set(looks)) == len(looks)


def test_plots_reach_as_high_as_the_bytes_they_show() -> None:
    points = [{"weights": 10 * 2**30, "logits": n * 2**30} for n in range(11)]
    lines = [line.plain for line in stacked_plot(points, 15 * 2**30, 30, 11)]
    assert len(lines) == 11
    assert lines[0].startswith("  20.0 ┤")
    assert lines[0].rstrip()[-1] == "▞"
    assert "█" not in lines[0]
    assert [line[8] for line in lines[:10]] == [" "] * 2 + ["┄"] + [" "] * 2 + ["█"] * 5, "weights alone at the left"
    assert sum("┄" in line for line in lines) == 1
    drawn = [line.plain for line in timeline_plot([1, 4, 2], ["forward", "backward", "backward"], 0, 32, 6)]
    assert "│forward" in drawn[-1]
    assert "│backward" in drawn[-1]
    assert drawn[0].count("█") == 8, "the peak is a third of the width"
    assert Scale(2**20, 4).unit == "MiB"
    labels = x_labels([256, 300, 512, 700, 1024], 40).plain
    assert labels.split() == ["256", "512", "1,024"]
