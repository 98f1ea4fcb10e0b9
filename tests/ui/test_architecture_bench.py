"""The architecture bench: tree, chips, block diagram and the loaded model, on a scripted session."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from textual.widgets import Input

from tests.stubs import scripted_architecture as stub
from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.benches.architecture_tree import as_json, as_markdown, each_of, matching, read_tree, walk
from workbench.ui.session_state import ModelChosen
from workbench.ui.widgets.block_diagram import BlockDiagram
from workbench.ui.widgets.chips import Chips
from workbench.ui.widgets.row_list import RowList

MODEL = "smollm2-135m-instruct"
COUNT = "134,515,008 parameters"
RUN = "node:model.layers.0-29"


def keys(app: Any) -> list[str]:
    return [row.key.removeprefix("node:") for row in app.query_one("#architecture-tree", RowList).rows]


def row_text(app: Any, key: str) -> str:
    listing = app.query_one("#architecture-tree", RowList)
    row = next(row for row in listing.rows if row.key == f"node:{key}")
    return str(row.content(listing.size.width).plain)


async def test_the_tree_folds_opens_lists_one_by_one_and_sorts(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: COUNT in screen_text(app))
        listing = app.query_one("#architecture-tree", RowList)
        assert "layers.0-29 ×30" in row_text(app, "model.layers.0-29")
        assert "106,202,880" in row_text(app, "model.layers.0-29")
        assert "79.0 %" in row_text(app, "model.layers.0-29")
        listing.move_to(RUN)
        await pilot.press("right")
        await wait_until(pilot, lambda: "model.layers.0-29.mlp" not in keys(app))
        await pilot.press("space")
        await wait_until(pilot, lambda: "model.layers.0-29.mlp" in keys(app))
        assert "each holds" in row_text(app, "model.layers.0-29")
        listing.move_to("node:model.layers.0-29.mlp")
        await pilot.press("enter")
        await wait_until(pilot, lambda: "model.layers.0-29.mlp.up_proj" in keys(app))
        await pilot.press("left", "left")
        await wait_until(pilot, lambda: listing.row is not None and listing.row.key == RUN)
        assert "model.layers.0-29.mlp.up_proj" not in keys(app)
        await pilot.press("x")
        await wait_until(pilot, lambda: "model.layers.29" in keys(app))
        assert sum(key.startswith("model.layers.") and key.count(".") == 2 for key in keys(app)) == 30
        await pilot.press("x", "a")
        await wait_until(pilot, lambda: "model.layers.0-29.self_attn.q_proj.weight" in keys(app))
        await pilot.press("s")
        await wait_until(pilot, lambda: keys(app)[2] == "model.layers.0-29")


async def test_a_search_shows_what_matches_and_escape_keeps_it_in_view(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: COUNT in screen_text(app))
        await pilot.press("slash", *"K_PR")
        await wait_until(pilot, lambda: "model.layers.0-29.self_attn.k_proj" in keys(app))
        assert "model.layers.0-29.mlp" not in keys(app)
        await pilot.press("enter", "escape")
        await wait_until(pilot, lambda: not app.query_one("#tree-search", Input).display)
        assert "model.norm" in keys(app)
        listing = app.query_one("#architecture-tree", RowList)
        await wait_until(pilot, lambda: listing.row is not None and listing.row.key.endswith("k_proj"))


async def test_another_model_is_asked_for_once(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: COUNT in screen_text(app))
        await pilot.press("1")
        await wait_until(pilot, lambda: app.main.current == "doctor")
        app.apply(ModelChosen("llama-3.1-8b"))
        await pilot.pause()
        assert len(session.asked(protocol.InspectModel)) == 1, "a hidden bench asks for nothing"
        await pilot.press("3")
        await wait_until(pilot, lambda: len(session.asked(protocol.InspectModel)) == 2)
        await pilot.press("1", "3")
        await pilot.pause(0.1)
        assert len(session.asked(protocol.InspectModel)) == 2


async def test_no_bar_is_drawn_for_nothing(session: ScriptedSession, make_app: MakeApp) -> None:
    tree = {
        "name": "M", "class": "M", "parameters": 1_000_000,
        "children": [{"name": "small", "parameters": 10}, {"name": "large", "parameters": 999_990}],
    }  # fmt: skip
    session.script(protocol.InspectModel, lambda request: [protocol.ModelInspected({"tree": tree})])
    app = make_app(session, bench="architecture", model="m")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "large" in screen_text(app))
        assert row_text(app, "small").rstrip().endswith("0.0 %")
        assert "━" in row_text(app, "large")


async def test_chips_keep_their_line_and_enter_explains(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: COUNT in screen_text(app))
        chips = app.query_one(Chips)
        assert chips.size.height == 1
        assert [text for row in chips.rows(78) for _, text in row][-1].endswith("more")
        chips.focus()
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: "Three query heads share a key." in screen_text(app))
        await pilot.press("n")
        await wait_until(pilot, lambda: "Queries and keys are rotated" in screen_text(app))
        await pilot.press("p", "p")
        await wait_until(pilot, lambda: "The residual stream is 576 wide." in screen_text(app))
        await pilot.press("escape", "f")
        await wait_until(pilot, lambda: "1 of 9" in screen_text(app))
        await pilot.press("question_mark")
        await wait_until(pilot, lambda: "Copy all facts" in screen_text(app))


async def test_the_diagram_follows_the_tree_and_the_tree_the_diagram(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: COUNT in screen_text(app))
        diagram, listing = app.query_one(BlockDiagram), app.query_one("#architecture-tree", RowList)
        await pilot.press("a")
        listing.move_to("node:model.layers.0-29.self_attn.k_proj.weight")
        await wait_until(pilot, lambda: diagram.selected == "model.layers.0-29.self_attn")
        assert "┃ GQA attention" in diagram.text
        listing.move_to(RUN)
        await pilot.press("x")
        listing.move_to("node:model.layers.7")
        await wait_until(pilot, lambda: diagram.selected == "model.layers.0-29")
        diagram.focus()
        await pilot.press("down", "down")
        await wait_until(pilot, lambda: diagram.selected == "model.layers.0-29.self_attn")
        diagram.select("lm_head")
        await pilot.press("enter")
        await wait_until(pilot, lambda: listing.has_focus)
        assert listing.row is not None
        assert listing.row.key == "node:lm_head"


async def test_narrow_screens_have_the_diagram_on_a_key(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: COUNT in screen_text(app))
        assert not app.query_one(BlockDiagram).display
        await pilot.press("b")
        await wait_until(pilot, lambda: "q,o 576→576" in screen_text(app))
        await pilot.press("down", "down", "down")
        await wait_until(pilot, lambda: "LlamaAttention" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.screen is app.main)
        row = app.query_one("#architecture-tree", RowList).row
        assert row is not None
        assert row.key == "node:model.layers.0-29.self_attn"


async def test_the_tree_is_live_while_the_model_is_loaded(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "from the config" in screen_text(app))
        assert not session.asked(protocol.InspectLoaded)
        session.set_status(model=data.MODEL)
        await wait_until(pilot, lambda: "live as loaded: nf4 on cuda:0" in screen_text(app))
        await pilot.press("a")
        await wait_until(pilot, lambda: "nf4" in row_text(app, "model.layers.0-29.mlp.up_proj"))
        assert "u8" in row_text(app, "model.layers.0-29.mlp.up_proj.weight")
        await pilot.press("v")
        await wait_until(pilot, lambda: "from the config" in screen_text(app))
        assert "bf16" in row_text(app, "model.layers.0-29.mlp.up_proj.weight")
        await pilot.press("v")
        session.set_status(model=None)
        await wait_until(pilot, lambda: "from the config" in screen_text(app))
        session.set_status(model=dataclasses.replace(data.MODEL, name="another"))
        await pilot.pause(0.1)
        assert len(session.asked(protocol.InspectLoaded)) == 1, "another model's modules are not this one's"


async def test_a_checkpoint_that_disagrees_is_told(session: ScriptedSession, make_app: MakeApp) -> None:
    shape = {"name": "lm_head.weight", "in_model": "8 × 4", "in_checkpoint": "4 × 8"}
    files = {
        "path": "/m", "files": [{"name": "model.bin", "kind": "pickle", "size_bytes": 2**20}], "pickle": True,
        "types": [{"type": "F16", "tensors": 3, "elements": 9, "bytes": 18, "bits_per_weight": 16.0}],
    }  # fmt: skip
    compared = {"missing": ["a.weight"], "extra": ["b.weight"], "shapes": [shape], "dtypes": []}
    result = stub.INSPECTION | {"files": files, "checkpoint": compared, "notes": ["Sizes are at bfloat16."]}
    session.script(protocol.InspectModel, lambda request: [protocol.ModelInspected(result)])
    app = make_app(session, bench="architecture", model="m")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "disagree about 3 tensors" in screen_text(app))
        assert "Sizes are at bfloat16." in screen_text(app)
        await pilot.press("w")
        await wait_until(pilot, lambda: "A pickle can run code" in screen_text(app))
        for part in ("model.bin", "1.00 MiB", "16 bits", "a.weight", "b.weight", "4 × 8 → 8 × 4"):
            assert part in screen_text(app)


async def test_rows_and_the_whole_tree_are_copied(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: COUNT in screen_text(app))
        await pilot.press("J")
        await wait_until(pilot, lambda: app.clipboard.startswith("{"))
        assert json.loads(app.clipboard)["parameters"] == 134515008
        await pilot.press("Y")
        await wait_until(pilot, lambda: app.clipboard.startswith("| module"))
        await pilot.press("down", "y")
        await wait_until(pilot, lambda: app.clipboard.startswith("model  LlamaModel"))


def test_a_run_is_listed_one_by_one_under_its_own_names() -> None:
    root = read_tree(stub.TREE)
    run = next(node for node in walk(root) if node.count == 30)
    layers = each_of(run)
    assert [layers[0].key, layers[29].key] == ["model.layers.0", "model.layers.29"]
    assert sum(layer.parameters for layer in layers) == run.parameters
    names = [node.key for node in walk(layers[7])]
    assert "model.layers.7.self_attn.q_proj.weight" in names
    assert all(node.module == node.key for node in walk(layers[7]))
    assert {node.folded.split(".mlp")[0] for node in walk(layers[7]) if ".mlp" in node.key} == {"model.layers.0-29"}


def test_search_takes_names_classes_and_dotted_names() -> None:
    root = read_tree(stub.TREE)
    assert matching(root, "rmsnorm")[0] == {
        "model.norm", "model.layers.0-29.input_layernorm", "model.layers.0-29.post_attention_layernorm",
    }  # fmt: skip
    assert matching(root, "mlp.up")[0] == {"model.layers.0-29.mlp.up_proj", "model.layers.0-29.mlp.up_proj.weight"}
    assert matching(root, "nothing like it") == (set(), set())


def test_copies_hold_every_module() -> None:
    root = read_tree(stub.TREE)
    lines = as_markdown(root).splitlines()
    assert len(lines) == 2 + len(list(walk(root)))
    assert any("`layers.0-29` ×30" in line and "106,202,880" in line for line in lines)
    told = json.loads(as_json(root))
    assert told["children"][1]["children"][0]["tied_to"] == "model.embed_tokens.weight"
