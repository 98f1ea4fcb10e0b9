"""How to load the chosen model."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from workbench.session.protocol import LoadModel
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.fields import Field, Fields, Value

FOUR_BITS = ("nf4", "fp4")
FIELDS = (
    Field(
        "quant",
        "quantize",
        ("none", "int8", "nf4", "fp4"),
        "none keeps 16 or 32 bits; int8 takes about half of 16 bits, nf4 and fp4 about a quarter (bitsandbytes).",
    ),
    Field(
        "double_quant",
        "double quant",
        (False, True),
        "Quantizes the quantization constants too; saves about 0.4 bit per parameter.",
        only_with=("quant", FOUR_BITS),
    ),
    Field("dtype", "dtype", ("auto", "bfloat16", "float16", "float32"), "auto takes bf16 where the device has it."),
    Field("device", "device", ("auto", "cuda", "mps", "cpu"), "auto takes the GPU where there is one."),
)
DEFAULTS: dict[str, Value] = {"quant": "none", "double_quant": False, "dtype": "auto", "device": "auto"}


class LoadDialog(Dialog[LoadModel]):
    """Fields stepped by arrow keys; enter loads."""

    def __init__(self, model: str, plan: dict[str, object]) -> None:
        super().__init__("load-dialog")
        self._model = model
        self._values = dict(DEFAULTS)
        for field in FIELDS:
            value = plan.get(field.id)
            if isinstance(value, (str, bool)) and value in field.choices:
                self._values[field.id] = value

    def compose(self) -> ComposeResult:
        with Vertical(classes="box small"):
            yield Static(Content.assemble("Load ", (self._model, "$accent")), classes="box-title")
            yield Fields(FIELDS, self._values, id="load-fields")
            yield Static(id="load-help")
            yield Static(
                Content.assemble(
                    ("enter", "bold $accent"),
                    " loads   ",
                    ("◂ ▸", "bold $accent"),
                    " change   ",
                    ("escape", "bold $accent"),
                    " leaves",
                ),
                classes="quiet",
            )

    def on_mount(self) -> None:
        self.query_one(Fields).focus()

    @on(Fields.Highlighted)
    def explain(self, message: Fields.Highlighted) -> None:
        self.query_one("#load-help", Static).update(Content(message.row.data.help))

    @on(Fields.Submitted)
    def load(self) -> None:
        values = self.query_one(Fields).values
        self.dismiss(
            LoadModel(
                self._model,
                quant=str(values["quant"]),
                double_quant=bool(values["double_quant"]) and values["quant"] in FOUR_BITS,
                dtype=str(values["dtype"]),
                device=str(values["device"]),
            )
        )
