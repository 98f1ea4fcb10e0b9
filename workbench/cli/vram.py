"""``workbench vram``."""

from __future__ import annotations

from typing import Any

import click

from workbench.cli.common import DTYPES, Common, ask, common_options, long_dtype, model_name, with_session
from workbench.cli.output import console, print_json, print_text, table
from workbench.session.client import SessionClient
from workbench.session.protocol import EstimateMemory, MemoryEstimated
from workbench.text import gib


@click.command("vram")
@click.argument("model", callback=model_name)
@click.option("--job", type=click.Choice(["inference"]), default="inference", show_default=True)
@click.option("--quant", type=click.Choice(["none", "nf4", "fp4", "int8"]), default="none", show_default=True)
@click.option("--double-quant/--no-double-quant", default=False, help="Quantize the 4-bit block constants too.")
@click.option(
    "--dtype", type=DTYPES, default="auto", metavar="auto|fp32|bf16|fp16", help="Type of what is not quantized."
)
@click.option("--batch", type=click.IntRange(1, 2**20), default=1, show_default=True, help="Sequences at once.")
@click.option("--seq", type=click.IntRange(1, 2**30), default=2048, show_default=True, help="Prompt tokens each.")
@click.option("--new-tokens", type=click.IntRange(0, 2**30), default=256, show_default=True)
@click.option("--kv-dtype", type=DTYPES, default="auto", metavar="auto|fp32|bf16|fp16", help="Type of the KV cache.")
@click.option("--gpu", "gpus", multiple=True, metavar="NAME|SIZE", help="Hold against this GPU; repeatable.")
@common_options
def command(
    common: Common,
    model: str,
    job: str,
    quant: str,
    double_quant: bool,
    dtype: str,
    batch: int,
    seq: int,
    new_tokens: int,
    kv_dtype: str,
    gpus: tuple[str, ...],
) -> int:
    """Bytes that running MODEL takes, per category, and whether it fits.

    Exit code 1 means that no GPU named fits it.
    """
    plan = {
        "job": job,
        "quant": quant,
        "double_quant": double_quant,
        "dtype": long_dtype(dtype),
        "batch": batch,
        "sequence_length": seq,
        "new_tokens": new_tokens,
        "kv_dtype": long_dtype(kv_dtype),
    }

    async def estimate(session: SessionClient) -> dict[str, Any]:
        return (await ask(session, EstimateMemory(model, plan, list(gpus)), MemoryEstimated)).result

    result = with_session(common, estimate)
    if common.as_json:
        print_json("vram", result)
    else:
        _print(result)
    return 1 if result["gpus"] and not any(gpu["fits"] for gpu in result["gpus"]) else 0


def _print(result: dict[str, Any]) -> None:
    known = result.get("known", {})
    grid = table("category", "GiB", "bytes", "how known", right=("GiB", "bytes"))
    for name, count in result["estimate"].items():
        if count:
            grid.add_row(name.replace("_", " "), gib(count), f"{count:,}", known.get(name, ""))
    console().print(grid)
    for note in result.get("warnings", ()):
        print_text(note)
    for gpu in result["gpus"]:
        verdict = "fits" if gpu["fits"] else "does not fit"
        left = f"{gib(abs(gpu['free_bytes']))} GiB {'free' if gpu['free_bytes'] >= 0 else 'short'}"
        print_text(f"{gpu['name']}, {gib(gpu['capacity_bytes'])} GiB: {verdict}, {left}")
    if not result["gpus"]:
        print_text("No GPU on this box to hold it against; name one with --gpu, by name or size (--gpu 24GiB).")
