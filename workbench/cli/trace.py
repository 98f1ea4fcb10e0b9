"""``workbench trace``."""

from __future__ import annotations

import sys
from typing import Any

import click

from workbench.architecture.traced import unpack_weights
from workbench.cli.common import DTYPES, Common, ask, common_options, decode_utf8, long_dtype, model_name, with_session
from workbench.cli.output import print_json
from workbench.cli.shell import complete_model
from workbench.cli.trace_tables import print_attention, print_trace
from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import AttentionRead, LoadModel, ModelTraced, ReadAttention, TraceModel

_JSON_POSITIONS = 64


@click.command("trace")
@click.argument("model", required=False, callback=model_name, shell_complete=complete_model)
@click.option("--prompt", required=True, metavar="TEXT|-", help="What to run; - reads standard input.")
@click.option("--chat", is_flag=True, help="Wrap the prompt in the model's chat template.")
@click.option("--layer", type=int, default=None, metavar="N", help="Also the attention weights of this layer.")
@click.option("--head", "heads", type=int, multiple=True, metavar="N", help="Show the map of this head; repeatable.")
@click.option(
    "--lens", type=int, default=5, metavar="K", show_default=True, help="Tokens of the logit lens; 0 for none."
)
@click.option("--quant", type=click.Choice(["none", "nf4", "fp4", "int8"]), default="none", show_default=True)
@click.option("--double-quant/--no-double-quant", default=False, help="Quantize the 4-bit block constants too.")
@click.option("--dtype", type=DTYPES, default="auto", metavar="auto|fp32|bf16|fp16", show_default=True)
@click.option("--device", default="auto", metavar="auto|cuda|cuda:N|cpu|mps", show_default=True)
@common_options
def command(
    common: Common,
    model: str | None,
    prompt: str,
    chat: bool,
    layer: int | None,
    heads: tuple[int, ...],
    lens: int,
    quant: str,
    double_quant: bool,
    dtype: str,
    device: str,
) -> int:
    """Run a prompt through MODEL and look at every layer; without MODEL, through what the session has loaded.

    Time is of one forward pass with nothing but time stamps. The norms of the stream leave out the first position,
    where models keep an attention sink.
    """
    if double_quant and quant not in ("nf4", "fp4"):
        raise click.UsageError(f"--double-quant goes with --quant nf4 or fp4, not {quant}.")
    if heads and layer is None:
        raise click.UsageError("--head needs --layer N.")
    text = decode_utf8(sys.stdin.buffer.read(), "standard input") if prompt == "-" else prompt
    if not text:
        raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
    load = LoadModel(model, quant, double_quant, long_dtype(dtype), device) if model else None

    async def trace(session: SessionClient) -> tuple[ModelTraced, AttentionRead | None]:
        attention = None
        if layer is not None:
            # First, as it refuses a wrong layer in a moment.
            request = ReadAttention(text, layer, list(heads), chat, load)
            attention = await ask(session, request, AttentionRead)
        # The tables show the last position only, and it is the head that costs.
        positions = _JSON_POSITIONS if common.as_json else 1
        return await ask(session, TraceModel(text, chat, lens, positions, load), ModelTraced), attention

    try:
        traced, attention = with_session(common, trace)
    except WorkbenchError as error:
        if error.kind == "no-model":
            error.remedy = "Name one: workbench trace MODEL --prompt TEXT."
        raise
    if common.as_json:
        print_json("trace", _as_json(traced, attention))
        return 0
    print_trace(traced.model, traced.result)
    if attention is not None:
        print_attention(attention.result, bool(heads))
    return 0


def _as_json(traced: ModelTraced, attention: AttentionRead | None) -> dict[str, Any]:
    """The reply, with the lens of the last position beside each layer and attention weights as numbers."""
    result = dict(traced.result)
    lens = result["lens"]
    rows = {} if lens is None else {layer: _last_cell(lens, row) for row, layer in enumerate(lens["layers"])}
    result["layers"] = [{**layer, "lens": rows.get(layer["index"])} for layer in result["layers"]]
    if attention is not None:
        maps = attention.result
        heads = [
            {"head": head["head"], "weights": _rounded(unpack_weights(head["data"], maps["queries"], maps["keys"]))}
            for head in maps["heads"]
        ]
        result["attention"] = {**maps, "heads": heads}
    model = traced.model
    about = {"model": model.name, "architecture": model.architecture, "quant": model.quant, "dtype": model.dtype}
    return {**about, **result}


def _last_cell(lens: dict[str, Any], row: int) -> list[dict[str, Any]]:
    pairs = zip(lens["ids"][row][-1], lens["probabilities"][row][-1], strict=True)
    return [{"id": token, "text": lens["texts"][str(token)], "probability": chance} for token, chance in pairs]


def _rounded(rows: list[list[float]]) -> list[list[float]]:
    return [[round(weight, 5) for weight in row] for row in rows]
