"""``workbench vram``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from workbench.cli import vram_text
from workbench.cli.common import DTYPES, Common, ask, common_options, long_dtype, model_name, with_session
from workbench.cli.output import print_exact, print_json
from workbench.cli.shell import complete_model
from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import (
    EstimateMemory,
    FitPlan,
    GpusSurveyed,
    ListRulesOfThumb,
    MeasureMemory,
    MemoryEstimated,
    MemoryMeasured,
    MemorySimulated,
    OpenPlan,
    PlanFitted,
    PlanOpened,
    PlanWritten,
    RulesOfThumbListed,
    SimulateMemory,
    SurveyGpus,
    WritePlan,
)
from workbench.vram.plan import MAX_TOKENS, plan_from_dict, plan_to_dict
from workbench.vram.plan_file import MOST_DATASET_TOKENS

JOBS = click.Choice(["inference", "full", "lora", "qlora"])
QUANTS = click.Choice(["none", "nf4", "fp4", "int8"])
KV_DTYPES = click.Choice([*DTYPES.choices, "fp8", "int8", "int4", "int2"])
OPTIMIZERS = click.Choice(["adamw", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd"])
ATTENTIONS = click.Choice(["sdpa", "flash", "efficient", "eager"])
PARALLELS = click.Choice(["ddp", "fsdp", "zero1", "zero2", "zero3", "tp", "pp"])
MOST_SIMULATED = 12
"""Sets of changes that --fit with --simulate tries."""
LORA_EXAMPLE = "r=16,targets=q_proj+v_proj,dtype=fp32"

_PLAN_OPTIONS = (
    click.option("--job", type=JOBS, default=None, help="What is done with the model.  [default: inference]"),
    click.option("--quant", type=QUANTS, default=None, help="bitsandbytes on load; nf4 under --job qlora."),
    click.option("--double-quant/--no-double-quant", default=None, help="Quantize the 4-bit block constants too."),
    click.option("--dtype", type=DTYPES, default=None, metavar="auto|fp32|bf16|fp16", help="Of what is not quantized."),
    click.option("--batch", type=click.IntRange(1, MAX_TOKENS), default=None, help="Sequences at once on one GPU."),
    click.option("--seq", type=click.IntRange(1, MAX_TOKENS), default=None, help="Prompt or training tokens each."),
    click.option("--new-tokens", type=click.IntRange(0, MAX_TOKENS), default=None, help="Generated for each prompt."),
    click.option("--kv-dtype", type=KV_DTYPES, default=None, metavar="auto|bf16|fp8|int4|…", help="Of the KV cache."),
    click.option("--cache", type=click.Choice(["dynamic", "static"]), default=None, help="Kind of KV cache."),
    click.option("--optimizer", type=OPTIMIZERS, default=None, help="Of a training job."),
    click.option("--fused/--foreach", "fused", default=None, help="How torch's AdamW steps."),
    click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=None, help="Recompute activations."),
    click.option("--attention", type=ATTENTIONS, default=None, help="Attention kernel."),
    click.option("--lora", default=None, metavar=LORA_EXAMPLE, help="Also alpha, dropout, rslora, dora, save."),
    click.option("--kbit-prepare/--no-kbit-prepare", default=None, help="peft's float32 upcast of the rest (qlora)."),
    click.option("--keep-outputs/--drop-outputs", default=None, help="Whether the loop keeps the logits alive."),
    click.option("--padded/--packed", default=None, help="Whether batches hold padding."),
    click.option("--chunked-loss/--whole-loss", default=None, help="Loss on pieces of the sequence."),
    click.option("--accumulation", type=click.IntRange(1, 2**20), default=None, help="Batches for each step."),
    click.option("--offload", type=click.Choice(["none", "optimizer"]), default=None, help="State kept on the CPU."),
    click.option("--gpus", "gpu_count", type=click.IntRange(1, 65_536), default=None, help="GPUs that share the job."),
    click.option("--parallel", type=PARALLELS, default=None, help="How they share it."),
)


def plan_options(command: Any) -> Any:
    """Add the options that make a plan."""
    for option in reversed(_PLAN_OPTIONS):
        command = option(command)
    return command


def _finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("not a number.")
    return value


@click.command("vram")
@click.argument("model", callback=model_name, shell_complete=complete_model, required=False)
@plan_options
@click.option("--gpu", "gpus", multiple=True, metavar="NAME|SIZE", help="Hold against this GPU; repeatable.")
@click.option("--simulate", is_flag=True, help="Run the step on tensors without data too, in a child process.")
@click.option("--measure", is_flag=True, help="Run this plan for real too, two steps, in a child process.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default=None, help="With --measure: where it runs."
)
@click.option("--solve", type=click.Choice(["batch", "seq"]), default=None, help="Find the largest that fits.")
@click.option("--fit", "make_fit", is_flag=True, help="Make the cheapest changes with which it fits the first --gpu.")
@click.option(
    "--survey",
    is_flag=True,
    help="Every GPU of the catalogue, those of --gpu or the plan first: fits or not, largest batch, longest sequence.",
)
@click.option(
    "--dataset-tokens",
    type=click.IntRange(0, MOST_DATASET_TOKENS),
    default=None,
    help="Tokens of the data set, for time and money.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(0, 10_000, min_open=True),
    default=None,
    callback=_finite,
    help="Times through it.",
)
@click.option("--code", is_flag=True, help="Print the code for this plan instead.")
@click.option("--trl", is_flag=True, help="As --code, with TRL's SFTTrainer.")
@click.option("--markdown", is_flag=True, help="Print the budget as Markdown.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), default=None, help="Open a saved plan.")
@click.option("--save", type=click.Path(path_type=Path), default=None, help="Save the plan as TOML.")
@click.option("--overwrite", is_flag=True, help="With --save: replace a file that is there.")
@click.option("--rules-of-thumb", is_flag=True, help="Well-known teaching tables beside the right numbers.")
@common_options
def command(common: Common, model: str | None, gpus: tuple[str, ...], **options: Any) -> int:
    """Bytes that a job on MODEL takes, by category, what to change and what it costs.

    Exit code 1 means that no GPU named fits it.
    """
    if options["rules_of_thumb"]:
        return _print_rules(common)
    _refuse_lone_options(options)
    asked = _Asked(model or "", list(gpus), options)

    async def work(session: SessionClient) -> int:
        await asked.open(session)
        if options["code"] or options["trl"] or options["markdown"]:
            return await asked.print_text(session, common)
        if options["survey"]:
            return await asked.print_survey(session, common)
        return await asked.print_budget(session, common)

    return with_session(common, work)


def _refuse_lone_options(options: dict[str, Any]) -> None:
    """Options that mean nothing without another, or beside one.

    Raises:
        WorkbenchError: ``bad-option``.
    """
    for lone, needs in (("overwrite", "save"), ("device", "measure")):
        if options[lone] and not options[needs]:
            raise WorkbenchError("bad-option", f"--{lone} without --{needs}.", f"Add --{needs}, or leave it out.")
    printed = [f"--{name}" for name in ("code", "trl", "markdown", "survey") if options[name]]
    if len(printed) > 1 and printed != ["--code", "--trl"]:
        raise WorkbenchError("bad-option", f"{' and '.join(printed)} print different things.", "Give one of them.")
    run = [f"--{name}" for name in ("simulate", "measure", "solve") if options[name]]
    if printed and run:
        raise WorkbenchError("bad-option", f"{printed[0]} prints nothing of {run[0]}.", "Give one of them.")


def _refuse_training_options(options: dict[str, Any], job: str) -> None:
    """Options that mean nothing where nothing is trained: who gives them forgot the job.

    Raises:
        WorkbenchError: ``bad-option``.
    """
    training = ("lora", "optimizer", "fused", "gradient_checkpointing", "chunked_loss", "accumulation", "kbit_prepare")
    given = [f"--{name.replace('_', '-')}" for name in training if options[name] not in (None, False)]
    if job == "inference" and given:
        raise WorkbenchError("bad-option", f"{given[0]} means nothing for inference.", "Add --job lora, qlora or full.")


class _Asked:
    """What the command line asks for, with the plan file filled in."""

    def __init__(self, model: str, gpus: list[str], options: dict[str, Any]) -> None:
        self.model, self.gpus, self.options = model, gpus, options
        self.plan: dict[str, Any] = {}
        self.dataset_tokens: int = options["dataset_tokens"] or 0
        self.epochs: float = options["epochs"] or 1.0
        self.fitted: PlanFitted | None = None
        self.not_simulated = ""
        """Why the plan that was made to fit is not simulated, where it cannot be."""

    async def open(self, session: SessionClient) -> None:
        """Read the plan file if there is one, put the options over it, make it fit and save it if asked to."""
        if self.options["plan_file"] is not None:
            kept = await ask(session, OpenPlan(str(self.options["plan_file"].absolute())), PlanOpened)
            self.model = self.model or kept.model
            self.gpus = self.gpus or kept.gpus
            self.plan = dict(kept.plan)
            self.dataset_tokens = self.dataset_tokens or kept.dataset_tokens
            self.epochs = self.options["epochs"] or kept.epochs
        if not self.model:
            raise WorkbenchError("bad-option", "No model is named.", "Name one: workbench vram MODEL --job qlora.")
        self.plan.update(plan_of(self.options, self.plan))
        _refuse_training_options(self.options, str(self.plan.get("job", "inference")))
        if self.options["make_fit"]:
            await self._make_it_fit(session)
        if self.options["save"] is not None:
            await self._save(session)

    async def _save(self, session: SessionClient) -> None:
        path = str(self.options["save"].absolute())
        try:
            await ask(session, self._write("toml", path, self.options["overwrite"]), PlanWritten)
        except WorkbenchError as error:
            if error.kind != "file-exists":
                raise
            raise WorkbenchError(error.kind, error.message, "Choose another name, or add --overwrite.") from None

    def _write(self, form: str, path: str = "", overwrite: bool = False) -> WritePlan:
        return WritePlan(self.model, self.plan, self.gpus, form, path, overwrite, self.dataset_tokens, self.epochs)

    async def print_text(self, session: SessionClient, common: Common) -> int:
        """The code or the page."""
        form = "markdown" if self.options["markdown"] else "trl" if self.options["trl"] else "code"
        text = (await ask(session, self._write(form), PlanWritten)).text
        if common.as_json:
            print_json("vram", {"model": self.model, "plan": self.plan, form: text})
        else:
            print_exact(text, end="")
        return 0

    async def print_survey(self, session: SessionClient, common: Common) -> int:
        """Every GPU, those that are named first; exit code 1 if none of those fits, or of all where none is named."""
        rows = (await ask(session, SurveyGpus(self.model, self.plan, self.gpus), GpusSurveyed)).rows
        if common.as_json:
            print_json("vram", {"model": self.model, "plan": self.plan, "gpus": rows})
        else:
            vram_text.print_head(self.model, plan_to_dict(plan_from_dict(self.plan)), [])
            vram_text.print_survey(rows)
        named = [row for row in rows if row["named"]]
        return 0 if any(row["fits"] for row in named or rows) else 1

    async def print_budget(self, session: SessionClient, common: Common) -> int:
        """The budget; exit code 1 if there are GPUs and none fits."""
        request = EstimateMemory(
            self.model, self.plan, self.gpus, self.options["solve"] or "", self.dataset_tokens, self.epochs
        )
        simulated = None
        if self.options["simulate"] and not self.not_simulated:
            simulated = await ask(session, SimulateMemory(self.model, self.plan), MemorySimulated)
        if self.options["measure"]:
            await ask(session, MeasureMemory(self.model, self.plan, self.options["device"] or "auto"), MemoryMeasured)
        # Asked for last: a simulation and a measurement that are kept are held against it.
        result = (await ask(session, request, MemoryEstimated)).result
        if self.fitted is not None:
            changes, total = self.fitted.changes, self.fitted.total_bytes
            result["fitted"] = {
                "changes": changes,
                "total_bytes": total,
                "fits": self.fitted.fits,
                "by": self.fitted.by,
                "not_simulated": self.not_simulated,
            }
        if simulated is not None:
            result["simulation"] = simulated.simulation
        if common.as_json:
            print_json("vram", result)
        else:
            vram_text.print_budget(result)
        return 1 if result["gpus"] and not any(gpu["fits"] for gpu in result["gpus"]) else 0

    async def _make_it_fit(self, session: SessionClient) -> None:
        if not self.gpus:
            raise WorkbenchError("bad-option", "--fit needs a GPU to fit.", "Name it with --gpu, by name or size.")
        for _ in range(MOST_SIMULATED):
            self.fitted = await ask(session, FitPlan(self.model, self.gpus[0], self.plan), PlanFitted)
            if not self.options["simulate"] or not self.fitted.fits or self.fitted.by != "estimate":
                break
            # A simulation that refuses the plan is kept, so that the next set of changes goes further.
            try:
                await ask(session, SimulateMemory(self.model, self.fitted.plan), MemorySimulated)
            except WorkbenchError as error:
                if error.kind != "unsupported-plan":
                    raise
                self.not_simulated = error.message
                break
        if self.fitted is not None:
            self.plan = dict(self.fitted.plan)


def plan_of(options: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The fields of a plan that the options give; those not given are left out.

    Args:
        options: as the command got them; None for what was not typed.
        kept: the plan of a file, which decides what the job is where no option says.
    """
    names = {
        **{"job": "job", "quant": "quant", "double_quant": "double_quant", "batch": "batch", "seq": "sequence_length"},
        **{"new_tokens": "new_tokens", "cache": "cache", "optimizer": "optimizer", "fused": "fused"},
        **{"gradient_checkpointing": "gradient_checkpointing", "attention": "attention"},
        **{"kbit_prepare": "kbit_prepare", "keep_outputs": "keep_outputs", "padded": "padded"},
        **{"chunked_loss": "chunked_loss", "accumulation": "accumulation", "offload": "offload"},
        **{"gpu_count": "gpus", "parallel": "parallel"},
    }
    plan = {field: options[name] for name, field in names.items() if options[name] is not None}
    for name in ("dtype", "kv_dtype"):
        if options[name] is not None:
            plan[name] = long_dtype(options[name])
    if not kept:
        plan.setdefault("dtype", "auto")
        if plan.get("job") == "qlora":
            plan.setdefault("quant", "nf4")
            plan.setdefault("double_quant", plan["quant"] in ("nf4", "fp4"))
    if options["lora"] is not None:
        plan["lora"] = {**kept.get("lora", {}), **parse_lora(options["lora"])}
    return plan


def parse_lora(text: str) -> dict[str, Any]:
    """``r=16,targets=q_proj+v_proj,dtype=fp32,rslora`` as fields of the adapters.

    Raises:
        WorkbenchError: ``bad-option`` naming the part that cannot be read.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        if key in ("rslora", "dora") and (not equals or value in ("true", "false")):
            found[key] = value != "false"
        elif key in ("r", "alpha") and value.isascii() and value.isdigit():
            found[key] = int(value)
        elif key == "dropout" and value.isascii() and value.replace(".", "", 1).isdigit():
            found[key] = float(value)
        elif key == "dtype" and value:
            found[key] = long_dtype(value)
        elif key in ("targets", "save") and value:
            found["modules_to_save" if key == "save" else key] = value.split("+")
        else:
            raise WorkbenchError("bad-option", f"--lora: {part!r:.60} cannot be read.", f"Example: {LORA_EXAMPLE}")
    return found


def _print_rules(common: Common) -> int:
    async def work(session: SessionClient) -> RulesOfThumbListed:
        return await ask(session, ListRulesOfThumb(), RulesOfThumbListed)

    reply = with_session(common, work)
    if common.as_json:
        print_json("vram", {"rules_of_thumb": reply.rows, "why": reply.why})
    else:
        vram_text.print_rules(reply.rows, reply.why)
    return 0
