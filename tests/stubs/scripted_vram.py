"""What a scripted session says of memory plans: the shapes of the real replies, with numbers of plain formulas.

The model is one of 8 B parameters in 32 layers; a GPU's name is looked up in the real catalogue.
"""

from __future__ import annotations

from bisect import bisect
from typing import Any

from tests.stubs import scripted_data
from workbench.errors import WorkbenchError
from workbench.models.gpus import Gpu, parse_gpu
from workbench.session import protocol
from workbench.vram.plan import Plan, changed, check_plan, plan_from_dict, plan_to_dict

GIB, MIB = 2**30, 2**20
GPUS = (("NVIDIA L4", 22.0), ("NVIDIA RTX 3060", 11.6))
"""Of the scripted box."""
PARAMETERS = 8_030_261_248
CONTEXT = 131_072
NAMES = ("weights", "adapters", "gradients", "optimizer", "activations", "kv_cache", "logits", "overhead")
PER_PARAMETER = {"none": 2.0, "int8": 1.1, "nf4": 0.75, "fp4": 0.75}
SURVEYED = ("T4", "L4", "RTX 4090", "A100 SXM 80GB", "H200")


def budget_of(plan: Plan) -> dict[str, int]:
    """Bytes by category and in all."""
    tokens = plan.batch * plan.sequence_length
    sizes = dict.fromkeys(NAMES, 0)
    share = plan.gpus if plan.parallel in ("tp", "pp", "fsdp", "zero3") else 1
    sizes["weights"] = int(PARAMETERS * (PER_PARAMETER[plan.quant] - 0.05 * plan.double_quant)) // share
    if plan.has_adapters:
        sizes["adapters"] = plan.lora.r * 10 * MIB
        sizes["optimizer"] = 2 * sizes["adapters"] // (4 if "8bit" in plan.optimizer else 1)
    elif plan.trains:
        sizes["gradients"] = 2 * PARAMETERS // share
        sizes["optimizer"] = 4 * PARAMETERS // share
    if plan.trains:
        sizes["activations"] = tokens * MIB * (1 if plan.gradient_checkpointing else 18)
        sizes["logits"] = tokens * 1_800_000 // (4 if plan.chunked_loss else 1)
    else:
        sizes["kv_cache"] = (tokens + plan.batch * plan.new_tokens) * 131_072
        sizes["activations"] = tokens * 90_000
    sizes["overhead"] = 512 * MIB + sum(sizes.values()) // 25
    return sizes | {"total": sum(sizes.values())}


def _checked(given: dict[str, Any]) -> Plan:
    plan = plan_from_dict(given)
    check_plan(plan)
    return plan


def gpus_of(names: list[str]) -> list[Gpu]:
    return [parse_gpu(name) for name in names] or [Gpu(name, int(size * GIB)) for name, size in GPUS]


def fit_of(gpu: Gpu, total: int) -> dict[str, Any]:
    free = gpu.capacity_bytes - total
    verdict = "no" if free < 0 else "tight" if free < gpu.capacity_bytes // 20 else "fits"
    return {
        "name": gpu.name, "capacity_bytes": gpu.capacity_bytes, "fits": free >= 0, "free_bytes": free,
        "verdict": verdict, "notes": ["No bf16 in hardware: choose float16."] if gpu.bf16 is False else [],
    }  # fmt: skip


CHANGES: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"chunked_loss": True}, "chunked loss", "nothing in quality; needs TRL's or Liger's loss"),
    ({"gradient_checkpointing": True}, "gradient checkpointing", "about 30 % more time"),
    ({"quant": "nf4", "double_quant": True}, "NF4 weights", "some quality; slower prefill"),
    ({"lora_targets": ["q_proj", "v_proj"], "lora_r": 8}, "adapters on q, v only", "less that can be learned"),
)


def suggestions_of(plan: Plan, capacity: int | None) -> list[dict[str, Any]]:
    before, found = budget_of(plan)["total"], []
    for change, title, costs in CHANGES:
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in change.items()}
        try:
            after_plan = changed(plan, **values)
            check_plan(after_plan)
        except WorkbenchError:
            continue
        after = budget_of(after_plan)["total"]
        if before - after > 0:
            fits = None if capacity is None else after <= capacity
            found.append({
                "change": change, "title": title, "costs": costs, "price": 1, "saves_bytes": before - after,
                "total_bytes": after, "fits": fits,
            })  # fmt: skip
    return found


def modules(request: protocol.EstimateModules) -> list[protocol.Message]:
    """A tenth of the model for each module."""
    sizes = budget_of(_checked(request.plan))
    names = ("weights", "adapters", "gradients", "optimizer", "kv_cache")
    whole = {"parameters": PARAMETERS, **{name: sizes[name] for name in names}}
    part = {name: size * len(request.modules) // 10 for name, size in whole.items()}
    return [protocol.ModulesEstimated(part, whole)]


def estimate(request: protocol.EstimateMemory) -> list[protocol.Message]:
    """A budget as the contract of ``workbench vram --json`` says."""
    try:
        plan, gpus = _checked(request.plan), gpus_of(request.gpus)
        if plan.has_adapters and "no_such_proj" in plan.lora.targets:
            raise WorkbenchError("bad-lora", "The model has no module no_such_proj.", "It has q_proj and v_proj.")
    except WorkbenchError as error:
        return [protocol.Failed(error.kind, error.message, error.remedy)]
    sizes = budget_of(plan)
    tensors = {name: sizes[name] for name in NAMES[:-1]}
    phases = ("forward", "backward", "optimizer") if plan.trains else ("prefill", "decode")
    capacity = max(gpu.capacity_bytes for gpu in gpus)
    warnings = []
    if plan.sequence_length > CONTEXT:
        warnings.append(f"{plan.sequence_length:,} tokens are beyond the model's context of {CONTEXT:,}.")
    if plan.prepares_kbit:
        warnings.append("peft's k-bit preparation turns embeddings, head and norms to float32: 1.96 GiB more.")
    known = {"activations": "table", "logits": "table", "overhead": "rule"}
    return [protocol.MemoryEstimated({
        "model": request.model, "plan": plan_to_dict(plan), "estimate": sizes,
        "known": {name: known.get(name, "exact") for name in NAMES},
        "why": {name: f"how {name} is known" for name in NAMES},
        "allocated_bytes": sum(tensors.values()), "peak_phase": phases[0],
        "phases": [
            {"name": name, **tensors, "total": sum(tensors.values()) * (10 - i) // 10} for i, name in enumerate(phases)
        ],
        "static": {"parameters": PARAMETERS, "quant_state": 111_000_448}, "context_length": CONTEXT,
        "warnings": warnings, "suggestions": suggestions_of(plan, capacity) if request.suggest else [],
        "cost": cost_of(request, plan), "launch": ["python train.py"],
        "solved": solved_of(request.solve, plan, gpus), "stored": None, "simulation": None, "measurement": None,
        "gpus": [fit_of(gpu, sizes["total"]) for gpu in gpus], "versions": {"torch": "2.13.0"},
    })]  # fmt: skip


def cost_of(request: protocol.EstimateMemory, plan: Plan) -> dict[str, Any]:
    tokens = round(request.dataset_tokens * request.epochs)
    per_step = plan.batch * plan.sequence_length * plan.accumulation
    time = {"low": tokens / 2000, "high": tokens / 900} if tokens else None
    return {
        "flops_per_token": 46_890_221_568, "matmul_parameters": 7_504_658_432,
        "training_flops": 46_890_221_568 * tokens or None, "tokens_per_step": per_step if plan.trains else None,
        "steps": -(-tokens // per_step) or None, "seconds_per_step": {"low": 1.0, "high": 2.4} if plan.trains else None,
        "seconds": time if plan.trains else {"low": 8.4, "high": 14.2}, "prefill_seconds": None,
        "tokens_per_second": {"low": 18.4, "high": 31.3},
        "usd": {"low": tokens / 2000 / 3600, "high": tokens / 225 / 3600} if tokens else None, "kwh": None,
        "chinchilla_tokens": [10 * PARAMETERS, 20 * PARAMETERS, 40 * PARAMETERS],
        "notes": ["Prices of 2026-05, public comparison pages."],
    }  # fmt: skip


def solved_of(what: str, plan: Plan, gpus: list[Gpu]) -> list[dict[str, Any]] | None:
    if not what:
        return None
    field = "batch" if what == "batch" else "sequence_length"
    found = []
    for gpu in gpus:
        value = bisect(range(1, 2**20), gpu.capacity_bytes, key=lambda n: _total(plan, field, n)) or None
        beyond = field == "sequence_length" and (value or 0) + plan.new_tokens > CONTEXT
        found.append({
            "gpu": gpu.name, "field": field, "value": value, "total_bytes": 0, "beyond_context": beyond,
            "capacity_bytes": gpu.capacity_bytes, "is_bound": False,
        })  # fmt: skip
    return found


def _total(plan: Plan, field: str, value: int) -> int:
    return budget_of(changed(plan, **{field: value}))["total"]


def survey(request: protocol.SurveyGpus) -> list[protocol.Message]:
    plan = _checked(request.plan)
    rows = []
    for name in SURVEYED:
        gpu = parse_gpu(name)
        total = budget_of(plan)["total"]
        most = [n for n in (1, 2, 4, 8, 16, 32, 64) if _total(plan, "batch", n) <= gpu.capacity_bytes]
        longest = [n for n in (512, 1024, 2048, 4096, 8192) if _total(plan, "sequence_length", n) <= gpu.capacity_bytes]
        rows.append({
            **fit_of(gpu, total), "total_bytes": total, "largest_batch": most[-1] if most else None,
            "longest_sequence": longest[-1] if longest else None,
        })  # fmt: skip
    return [protocol.JobProgressed("gpus", 3, 5, "gpus"), protocol.GpusSurveyed(rows)]


def fit(request: protocol.FitPlan) -> list[protocol.Message]:
    plan, capacity = _checked(request.plan), parse_gpu(request.gpu).capacity_bytes
    made = []
    while budget_of(plan)["total"] > capacity:
        found = suggestions_of(plan, capacity)
        if not found:
            break
        change = {key: tuple(v) if isinstance(v, list) else v for key, v in found[0]["change"].items()}
        plan = changed(plan, **change)
        made.append(found[0])
    total = budget_of(plan)["total"]
    return [protocol.PlanFitted(plan_to_dict(plan), made, total, total <= capacity)]


def draw(request: protocol.DrawCurve) -> list[protocol.Message]:
    plan = _checked(request.plan)
    points = []
    for value in request.values:
        points.append({"value": value, **budget_of(changed(plan, **{request.field_name: value}))})
    last = request.values[len(request.values) // 2]
    return [protocol.CurveDrawn(points, [{"value": last, "category": "activations", "before": "weights"}])]


SIMULATION: dict[str, Any] = {
    "allocated_bytes": 13 * GIB, "reserved_bytes": 14 * GIB, "requested_bytes": 13 * GIB - 64 * MIB,
    "workspace_bytes": 16 * MIB, "context_bytes": 512 * MIB, "peak_phase": "backward", "peak_step": 0,
    "phases": [
        {"name": name, "step": 0, "peak_bytes": int(size * GIB), "reserved_bytes": int(size * GIB) + 200 * MIB}
        for name, size in (("forward", 11.2), ("backward", 13.0), ("optimizer", 8.1))
    ],
    "timeline": [
        {"phase": phase, "step": 0, "live_bytes": int(size * GIB / 10)}
        for phase, sizes in (
            ("forward", (78, 82, 86, 90, 95, 99, 104, 112)),
            ("backward", (112, 130, 126, 119, 108, 97, 90, 84)),
            ("optimizer", (81, 81)),
        )
        for size in sizes
    ],
    "owners": [
        {"module": "lm_head", "operator": "mm", "category": "logits", "bytes": 2 * GIB, "count": 1},
        {"module": "model.layers.*.mlp.[@click=app.quit]down_proj[/x]", "operator": "to_copy",
         "category": "activations", "bytes": 900 * MIB, "count": 32},
    ],
    "warnings": [], "device": "simgpu", "layers": 32, "layers_run": 4, "operators": 12_345, "seconds": 9.8,
    "versions": {"torch": "2.13.0"}, "format_version": 1,
}  # fmt: skip


def simulate(request: protocol.SimulateMemory) -> list[protocol.Message]:
    """A run, 2 % above the estimate; none is kept."""
    plan = _checked(request.plan)
    if request.only_kept:
        return [protocol.MemorySimulated(request.model, request.plan, None)]
    sizes = {name: round(size * 1.02) for name, size in budget_of(plan).items()}
    scale = (sizes["total"] - sizes["overhead"]) / (13 * GIB)
    sizes["requested_bytes"] = round(13 * GIB * scale) + SIMULATION["workspace_bytes"]
    points = [point | {"live_bytes": round(point["live_bytes"] * scale)} for point in SIMULATION["timeline"]]
    steps: list[protocol.Message] = [protocol.JobProgressed("forward", i, 4, "layers") for i in range(1, 4)]
    found = {**SIMULATION, **sizes, "timeline": points}
    return [*steps, protocol.MemorySimulated(request.model, request.plan, found)]


def measure(request: protocol.MeasureMemory) -> list[protocol.Message]:
    """A run on the CPU, which has no overhead, 1 % above the estimate's tensors; none is kept."""
    plan = _checked(request.plan)
    if request.only_kept:
        return [protocol.MemoryMeasured(request.model, request.plan, None)]
    sizes = {name: round(size * 1.01) for name, size in budget_of(plan).items()} | {"overhead": 0}
    found = sizes | {
        "total": sum(sizes[name] for name in NAMES),
        "device": "CPU",
        "device_kind": "cpu",
        "weights_from": "random",
        "notes": [],
    }
    errors = {"estimate": {"total": -0.99}}
    steps: list[protocol.Message] = [protocol.JobProgressed("load", 2, 32, "layers")]
    return [*steps, protocol.MemoryMeasured(request.model, request.plan, found, errors)]


def kept(_request: protocol.ListMeasurements) -> list[protocol.Message]:
    """Two measurements, of the scripted model and of another."""
    plan = Plan(job="qlora", quant="nf4", sequence_length=512)
    measured = {
        **{"device": "CPU", "device_kind": "cpu", "weights_from": "checkpoint", "peak_phase": "backward"},
        **{"allocated_bytes": 3 * GIB, "total": 3 * GIB, "step_seconds": [12.0, 6.9], "versions": {"torch": "2.13.0"}},
    }
    points = [
        {"id": number, "measured_at": 1.79e9 - number, "model": model, "plan": plan_to_dict(plan)}
        | {"measurement": measured}
        for number, model in ((2, "llama-3.1-8b"), (1, "tiny-llama"))
    ]
    return [protocol.MeasurementsListed(points)]


STANDING_PLAN = Plan(quant="nf4", sequence_length=812, new_tokens=1)


def standing(_request: protocol.MeasureLoaded) -> list[protocol.Message]:
    """What a model that was loaded in NF4 holds on the CPU after its last answer."""
    sizes = {**dict.fromkeys(NAMES, 0), "weights": GIB, "kv_cache": 64 * MIB}
    found = {**sizes, "total": GIB + 64 * MIB, "device": "CPU", "device_kind": "cpu", "notes": []}
    errors = {"estimate": {"weights": 0.0, "kv_cache": 0.0}}
    return [protocol.MemoryMeasured(scripted_data.MODEL.name, plan_to_dict(STANDING_PLAN), found, errors)]


def write(request: protocol.WritePlan) -> list[protocol.Message]:
    plan = _checked(request.plan)
    if request.path.endswith("there.py") and not request.overwrite:
        return [protocol.Failed("file-exists", f"{request.path} is there already.", "Choose another name.")]
    text = {
        "code": f"# {plan.job} [/x]\nmodel = load()\n", "trl": "from trl import SFTTrainer\n",
        "toml": "schema = 1\n", "markdown": f"# VRAM of {request.model}\n",
    }[request.form]  # fmt: skip
    return [protocol.PlanWritten(text, request.path)]


def open_plan(request: protocol.OpenPlan) -> list[protocol.Message]:
    if "none" in request.path:
        return [protocol.Failed("no-file", f"{request.path}: No such file.", "Give the file of a plan.")]
    plan = Plan(job="qlora", quant="nf4", double_quant=True, sequence_length=777)
    return [protocol.PlanOpened("llama-3.1-8b", plan_to_dict(plan), ["RTX 4090"], 5_000_000, 2.0)]


RULES = protocol.RulesOfThumbListed(
    [
        {
            "title": "7B, full fine-tuning", "model": "llama-2-7b", "thumb": "12 bytes a parameter: 84 GB",
            "thumb_bytes": 84 * 10**9, "right_bytes": 66 * 10**9, "ratio": 66 / 84, "plan": {},
            "estimate": {"weights": 14 * 10**9, "optimizer": 27 * 10**9, "gradients": 14 * 10**9, "total": 66 * 10**9},
            "why": "torch's AdamW keeps its moments in bf16.",
        },
        {
            "title": "Mixtral-8x7B in 4 bit", "model": "mixtral-8x7b-v0.1", "thumb": "46.7 / 2 = 23 GB",
            "thumb_bytes": 23_350_000_000, "right_bytes": 93 * 10**9, "ratio": 3.98, "plan": {},
            "estimate": {"weights": 92 * 10**9, "overhead": 10**9, "total": 93 * 10**9},
            "why": "The fused experts are not quantized.",
        },
    ],
    ["GB and GiB mixed: 7 % apart.", "The loss of a large vocabulary is left out."],
)  # fmt: skip


def break_even(request: protocol.BreakEvenWithApi) -> list[protocol.Message]:
    tokens = request.answers_per_day * request.agent_multiplier * request.plan["new_tokens"]
    return [protocol.BrokenEven({
        "tokens_per_day": {"low": 3e6, "high": 9e6}, "gpu_capacity_per_day": {"low": 1.5e6, "high": 2.7e6},
        "api_usd_per_day": tokens / 1e6, "gpu_usd_per_day": {"low": 19.2, "high": 72.0},
        "tokens_asked_per_day": round(tokens), "cheaper": "gpu" if tokens > 7.2e7 else "api",
        "notes": ["API price of now, as given."],
    })]  # fmt: skip


SCRIPTS: dict[type[protocol.Request], Any] = {
    protocol.EstimateMemory: estimate,
    protocol.SurveyGpus: survey,
    protocol.FitPlan: fit,
    protocol.DrawCurve: draw,
    protocol.EstimateModules: modules,
    protocol.SimulateMemory: simulate,
    protocol.MeasureMemory: measure,
    protocol.ListMeasurements: kept,
    protocol.MeasureLoaded: standing,
    protocol.WritePlan: write,
    protocol.OpenPlan: open_plan,
    protocol.ListRulesOfThumb: lambda request: [RULES],
    protocol.BreakEvenWithApi: break_even,
}
