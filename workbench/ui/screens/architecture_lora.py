"""LoRA targets: what an adapter takes hold of, trains and weighs, as peft would make it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import AdapterCounted, CountAdapter
from workbench.text import format_bytes
from workbench.ui.benches.architecture_tree import Node, real_names
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import CloserLook
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.bars import left, legend_mark, right, stacked_bar
from workbench.ui.widgets.row_list import Row, RowList, gap, heading
from workbench.ui.widgets.value_list import ValueList

OWN = "own"
RANKS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
BIASES = ["none", "all", "lora_only"]


def _value(key: str, label: str, group: str, kind: str, value: Any, line: str, **more: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"least": None, "most": None, "step": None, "choices": []}
    return {**plain, "key": key, "label": label, "group": group, "kind": kind, "value": value, "line": line, **more}


FIELDS: tuple[dict[str, Any], ...] = (
    _value("preset", "preset", "targets", "choice", "all-linear", "A usual choice of targets."),
    _value("targets", "names", "targets", "text", "all-linear", "Names or their ends: q_proj, v_proj."),
    _value("regex", "or a regex", "targets", "text", "", "Matches whole module names; goes before the names."),
    _value("exclude", "but not", "targets", "text", "", "Names or their ends that are left out."),
    _value("layers", "layers", "targets", "text", "", "Only these: 0-15, 20. Empty takes all."),
    _value("r", "rank", "adapter", "integer", 16, "Width of the two matrices.", least=1, choices=RANKS),
    _value("alpha", "alpha", "adapter", "number", 32, "The adapter is scaled by alpha / rank.", least=0, step=8),
    _value("rslora", "rsLoRA", "adapter", "boolean", False, "Scale by alpha / √rank, so that large ranks still learn."),
    _value("dora", "DoRA", "adapter", "boolean", False, "Train a magnitude for each output too."),
    _value("bias", "biases", "adapter", "choice", "none", "Biases that are trained.", choices=BIASES),
    _value("modules_to_save", "whole modules", "adapter", "text", "", "Ends of names trained and saved whole."),
    _value("dtype", "dtype", "adapter", "choice", "float32", "Of the adapter.", choices=["float32", "model"]),
)  # fmt: skip


@dataclass
class Adapting:
    """What the screen keeps while it is closed."""

    values: dict[str, Any] = field(default_factory=lambda: {item["key"]: item["value"] for item in FIELDS})
    parameters: list[str] = field(default_factory=list)
    """Parameters that a preset targets besides modules."""
    undone: list[dict[str, Any]] = field(default_factory=list)


class LoraScreen(CloserLook):
    """The adapter's options left; what it trains, weighs and takes hold of right.

    Args:
        root: the model's tree, to mark what is matched.
        counted: told of the modules that are adapted and the rank.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "undo", "Undo the last edit", show=False),
        Binding("R", "reset", "Back to the defaults", show=False),
        Binding("y", "copy", "Copy as a peft LoraConfig", show=False),
    ]
    KEYS = (("◂ ▸ enter", "edit"), ("u", "undo"), ("y", "copy LoraConfig"), ("?", "keys"))

    def __init__(
        self,
        link: SessionLink,
        model: str,
        adapting: Adapting,
        root: Node,
        counted: Callable[[set[str], int], None],
    ) -> None:
        super().__init__(link, "architecture-lora", f"LoRA on {short_name(model)}")
        self._model = model
        self.adapting = adapting
        self._root = root
        self._counted = counted
        self._presets: list[dict[str, Any]] = []

    def parts(self) -> Iterable[Widget]:
        yield Horizontal(
            Vertical(ValueList(id="lora-values"), Static(id="lora-line"), id="lora-left"),
            RowList(id="lora-figures"),
            id="lora-body",
        )

    def on_mount(self) -> None:
        self._show_values()
        self.query_one(ValueList).focus()
        self.count()

    def _show_values(self) -> None:
        values = self.adapting.values
        fields = [item | {"value": values[item["key"]], "original": item["value"]} for item in FIELDS]
        fields[0]["choices"] = [*(preset["name"] for preset in self._presets), OWN]
        self.query_one(ValueList).set_fields(fields, set())

    @on(RowList.Highlighted, "#lora-values")
    def explain(self, message: RowList.Highlighted) -> None:
        data = message.row.data
        line = str(data["line"])
        if data["key"] == "preset":
            line = next((preset["line"] for preset in self._presets if preset["name"] == data["value"]), line)
        elif data["kind"] == "text" and data["value"]:
            line += " Typing none empties it."
        self.query_one("#lora-line", Static).update(Content.styled(line, "$muted"))

    # --- Editing -------------------------------------------------------------------------------------------

    @on(ValueList.Edited)
    def edited(self, message: ValueList.Edited) -> None:
        adapting, value = self.adapting, message.value
        adapting.undone.append(dict(adapting.values))
        adapting.values[message.key] = "" if value is None else value
        if message.key == "preset":
            preset = next((preset for preset in self._presets if preset["name"] == value), None)
            if preset is not None:
                adapting.values |= {"targets": ", ".join(preset["targets"]), "regex": ""}
                adapting.parameters = list(preset["target_parameters"])
        elif message.key in ("targets", "regex"):
            adapting.values["preset"], adapting.parameters = OWN, []
        self._show_values()
        self.count()

    def action_undo(self) -> None:
        if self.adapting.undone:
            self.adapting.values = self.adapting.undone.pop()
            self._show_values()
            self.count()
        else:
            self.say("Nothing to undo.")

    def action_reset(self) -> None:
        fresh = Adapting()
        self.adapting.undone.append(dict(self.adapting.values))
        self.adapting.values, self.adapting.parameters = fresh.values, []
        self._show_values()
        self.count()

    # --- Counting ------------------------------------------------------------------------------------------

    @work(group="count", exclusive=True, exit_on_error=False)
    async def count(self) -> None:
        """Ask what the adapter comes to; a later edit replaces this one."""
        try:
            plan = plan_of(self.adapting.values, self.adapting.parameters)
        except ValueError as error:
            self.say(Content.assemble(("✖ ", "bold $bad"), (str(error), "$bad")))
            return
        reply = await self.ask(CountAdapter(self._model, plan), AdapterCounted)
        figures = self.query_one("#lora-figures", RowList)
        figures.set_class(reply is None, "-stale")
        if reply is None:
            return
        self.say(" ".join(reply.result["notes"]))
        if reply.presets != self._presets:
            self._presets = reply.presets
            self._show_values()
        matched = set(reply.result["matched"])
        self._counted(matched, int(self.adapting.values["r"] or 1))
        figures.set_rows(figure_rows(reply.result, self._root, matched))

    def action_copy(self) -> None:
        try:
            plan = plan_of(self.adapting.values, self.adapting.parameters)
        except ValueError:
            return
        self.copy(peft_code(plan), "the LoraConfig")


def _names(typed: str) -> list[str]:
    return [name.strip() for name in typed.split(",") if name.strip()]


def layer_numbers(typed: str) -> list[int]:
    """Numbers and ranges divided by commas.

    Raises:
        ValueError: with a few words that say what it takes.
    """
    numbers: list[int] = []
    for part in _names(typed):
        found = re.fullmatch(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?", part)
        if found is None:
            raise ValueError("layers are numbers and ranges: 0-15, 20")
        first, last = int(found[1]), int(found[2] or found[1])
        if last - first > 10_000:
            raise ValueError("layers are numbers and ranges: 0-15, 20")
        numbers += range(first, last + 1)
    return numbers


def plan_of(values: dict[str, Any], parameters: list[str]) -> dict[str, Any]:
    """The fields of a `LoraPlan`; those at their default are left out.

    Raises:
        ValueError: for layers that are no numbers.
    """
    plan: dict[str, Any] = {key: values[key] for key in ("r", "alpha", "rslora", "dora", "bias", "dtype")}
    if values["regex"]:
        plan["regex"] = values["regex"]
    else:
        plan["targets"] = _names(values["targets"])
        if parameters:
            plan["target_parameters"] = parameters
    for key in ("exclude", "modules_to_save"):
        if values[key]:
            plan[key] = _names(values[key])
    if values["layers"]:
        plan["layers"] = layer_numbers(values["layers"])
    return plan


def peft_code(plan: dict[str, Any]) -> str:
    """The plan as the Python that makes it with peft."""
    targets = plan.get("targets") or []
    modules = (
        repr(plan["regex"]) if "regex" in plan else repr(targets[0]) if targets == ["all-linear"] else repr(targets)
    )
    lines = [f"r={plan['r']}", f"lora_alpha={plan['alpha']}", f"target_modules={modules}"]
    lines += [f"{name}=True" for name, key in (("use_rslora", "rslora"), ("use_dora", "dora")) if plan[key]]
    lines += [f"bias={plan['bias']!r}"] if plan["bias"] != "none" else []
    for name, key in (
        ("exclude_modules", "exclude"),
        ("layers_to_transform", "layers"),
        ("modules_to_save", "modules_to_save"),
        ("target_parameters", "target_parameters"),
    ):
        lines += [f"{name}={plan[key]!r}"] if plan.get(key) else []
    lines.append('task_type="CAUSAL_LM"')
    return "from peft import LoraConfig\n\nconfig = LoraConfig(\n    " + ",\n    ".join(lines) + ",\n)\n"


def figure_rows(result: dict[str, Any], root: Node, matched: set[str]) -> Iterator[Row]:
    """What is trained, by component, by target, and where it stands in the tree."""
    yield _told("trainable", f"{result['trainable']:,}", f"{100 * result['share']:.3f} %")
    yield _told("adapter file", format_bytes(result["adapter_bytes"]), "adapter_model.safetensors")
    yield _told("scaling", f"{result['scaling']:g}", "of the adapter's product")
    if result["biases"]:
        yield _told("biases", f"{result['biases']:,}", "trained too")
    for name, count in result["saved"].items():
        yield _told("saved whole", f"{count:,}", name)
    yield gap("figures")
    parts = {name: count for name, count in result["by_component"].items() if count}
    whole = sum(parts.values()) or 1
    yield Row("bar", lambda width: stacked_bar(list(parts.values()), whole, min(60, width)), selectable=False)
    for index, (name, count) in enumerate(parts.items()):
        numbers = (right(f"{100 * count / whole:.1f} %", 8), right(f"{count:,}", 14, "$muted"))
        line = Content.assemble(legend_mark(index), " ", left(name.replace("_", " "), 13), *numbers)
        yield Row(f"part:{name}", line, selectable=False)
    yield gap("parts")
    yield heading("TARGETS")
    for number, target in enumerate(result["targets"]):
        yield Row(f"target:{number}", _target_line(target), target)
    yield gap("targets")
    yield heading("IN THE TREE")
    yield from _tree_rows(root, 0, matched)


def _told(label: str, value: str, more: str) -> Row:
    def line(width: int) -> Content:
        number = Content.assemble(left(label, 13, "$muted"), right(value, 12, "bold $accent"))
        return Content.assemble(number, (f"  {more}" if width >= 48 or len(more) < width - 27 else "", "$muted"))

    return Row(f"told:{label}:{more}", line, selectable=False)


def _target_line(target: dict[str, Any]) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        experts = f" × {target['experts']} experts" if target["experts"] > 1 else ""
        size = right(f"{target['in_features']:,}→{target['out_features']:,}", 16, "$muted")
        return Content.assemble(
            left(str(target["name"]), 16, "bold"),
            right(f"×{target['modules']}", 6),
            size if width >= 54 else "",
            right(f"{target['parameters']:,}", 15),
            (experts, "$muted"),
        )

    return line


def _tree_rows(node: Node, depth: int, matched: set[str]) -> Iterator[Row]:
    """The modules that hold something adapted, and those that are."""
    names = [name for name in real_names(node) if name in matched] if node.class_name else []
    below = [row for child in node.children for row in _tree_rows(child, depth + 1, matched)]
    if names or below:
        mark = Content.assemble(("  ◆ ", "bold $accent"), (f"{len(names)}", "bold")) if names else Content("")
        times = f" ×{node.count}" if node.count > 1 else ""
        name = Content.assemble("  " * depth, (node.name, "bold" if names else "$muted"), (times, "$accent"), mark)
        yield Row(f"tree:{node.key}", name, node)
        yield from below
