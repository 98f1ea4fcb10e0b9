"""Holding plans against GPUs, and what follows from them."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Optional

from workbench.architecture import config as reading
from workbench.architecture.cache import load_skeleton
from workbench.architecture.skeleton import Skeleton
from workbench.doctor import nvidia
from workbench.doctor.commands import Command, Output
from workbench.errors import WorkbenchError
from workbench.models.resolve import ResolvedModel, resolve
from workbench.paths import write_atomic
from workbench.session.handlers.architecture import config_of
from workbench.session.handlers.known_needs import KnownNeeds
from workbench.session.handlers.measured_points import measured_beside
from workbench.session.protocol import (
    BreakEvenWithApi,
    BrokenEven,
    CurveDrawn,
    DrawCurve,
    EstimateMemory,
    EstimateModules,
    FitPlan,
    GpusSurveyed,
    ListRulesOfThumb,
    MemoryEstimated,
    ModulesEstimated,
    OpenPlan,
    PlanFitted,
    PlanOpened,
    PlanWritten,
    Request,
    RulesOfThumbListed,
    SurveyGpus,
    WritePlan,
)
from workbench.session.runtime import Context, Handler, Runtime, quick
from workbench.vram.activations import table
from workbench.vram.code import code_for
from workbench.vram.cost import break_even, cost
from workbench.vram.curves import curve, overtakes
from workbench.vram.estimate import Estimate, Estimator, fits
from workbench.vram.gpus import Gpu, catalogue, parse_gpu
from workbench.vram.markdown import to_markdown
from workbench.vram.module_bytes import module_bytes
from workbench.vram.parallel import check_parallel, launch_commands
from workbench.vram.plan import Plan, check_plan, plan_from_dict, plan_to_dict
from workbench.vram.plan_file import PlanFile, open_plan, save_plan, to_toml
from workbench.vram.prices import ApiPrice, load_prices
from workbench.vram.reference_tables import GPT3, WHY_TABLES_MISLEAD, reference_tables
from workbench.vram.shares import CATEGORIES
from workbench.vram.simulate.result import Simulation
from workbench.vram.solve import FIELDS, Solver, gpu_table
from workbench.vram.stored import disagreement, published_weights, stored_weights
from workbench.vram.suggestions import make_it_fit, suggestions

NVIDIA_SMI_SECONDS = 5.0
KEPT_MODELS = 4


def _present_gpus(runtime: Runtime) -> list[Gpu]:
    """The NVIDIA GPUs of this box, asked for once per worker: they do not change, and nvidia-smi takes its time.

    What the catalogue knows of such a GPU (bandwidth, throughput) is taken from there.
    """
    found: Optional[list[Gpu]] = runtime.services.get("gpus")
    if found is None:
        query = Command(*nvidia.QUERY).finish(time.monotonic() + NVIDIA_SMI_SECONDS)
        nothing = Output(None, "")
        found = [
            _known_gpu(gpu.name, gpu.index, gpu.memory_bytes)
            for gpu in nvidia.gpus_from(query, nothing, nothing) or ()
            if gpu.name and gpu.memory_bytes
        ]
        runtime.services["gpus"] = found
    return found


def _known_gpu(name: str, index: Optional[int], memory_bytes: int) -> Gpu:
    label = f"{name} #{index}"
    try:
        listed = parse_gpu(name)
    except WorkbenchError:
        return Gpu(name=label, capacity_bytes=memory_bytes, source="nvidia-smi")
    values = {**asdict(listed), "name": label, "capacity_bytes": memory_bytes, "source": "nvidia-smi"}
    return Gpu(**values)


def _gpus(names: list[str], runtime: Runtime) -> list[Gpu]:
    return [parse_gpu(name) for name in names] or _present_gpus(runtime)


def checked_plan(given: dict[str, Any], skeleton: Skeleton) -> Plan:
    """The plan of a request, refused if it means nothing for this model."""
    plan = plan_from_dict(given)
    check_plan(plan)
    check_parallel(plan, skeleton)
    return plan


def estimator_of(name: str, context: Context) -> tuple[ResolvedModel, Estimator]:
    """The model and its estimator, which is kept: a plan is edited with every key."""
    resolved = resolve(name, context.job)
    config = config_of(resolved, {})
    kept: dict[str, tuple[dict[str, Any], Estimator]] = context.runtime.services.setdefault("estimators", {})
    found = kept.get(resolved.name)
    if found is None or found[0] != config:
        while len(kept) >= KEPT_MODELS:
            kept.pop(next(iter(kept)))
        skeleton = load_skeleton(config, context.job)
        if resolved.path is None:
            stored = published_weights(resolved.hub_id, skeleton)
        else:
            stored = stored_weights(resolved.path, resolved.config)
        estimator = Estimator(skeleton, stored, disagreement(resolved.path, skeleton))
        found = kept[resolved.name] = (config, estimator)
    return resolved, found[1]


def _estimate(request: EstimateMemory, context: Context) -> MemoryEstimated:
    gpus = _gpus(request.gpus, context.runtime)
    resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    return MemoryEstimated(_result(resolved, plan, estimator, gpus, request, context.runtime))


def _result(
    resolved: ResolvedModel,
    plan: Plan,
    estimator: Estimator,
    gpus: list[Gpu],
    request: EstimateMemory,
    runtime: Runtime,
) -> dict[str, Any]:
    budget = estimator.estimate(plan)
    skeleton = estimator.skeleton
    config = config_of(resolved, {})
    known = KnownNeeds(config, [gpu.name for gpu in gpus], runtime)
    found = fits(budget, gpus, plan, known(plan))
    first = gpus[0] if gpus else None
    price = load_prices().of(first) if first is not None else None
    largest = max((gpu.capacity_bytes for gpu in gpus), default=None)
    trained = budget.static["trainable_parameters"]
    spent = cost(skeleton, plan, first, price, request.dataset_tokens, request.epochs, trained)
    proposed = suggestions(skeleton, plan, largest, estimator, known) if request.suggest else ()
    measured = measured_beside(config, plan, budget, [gpu.name for gpu in gpus], runtime)
    return {
        "model": resolved.name,
        "plan": plan_to_dict(plan),
        "estimate": _bytes_of(budget),
        "known": {category.name: category.known for category in budget.categories},
        "why": {category.name: category.why for category in budget.categories},
        "allocated_bytes": budget.allocated,
        "peak_phase": budget.peak_phase,
        "phases": [{**asdict(phase), "total": phase.total} for phase in budget.phases],
        "static": budget.static,
        "context_length": reading.context_length(reading.text_config(skeleton.config)),
        "warnings": [*budget.warnings, *measured.warnings],
        "suggestions": [asdict(suggestion) for suggestion in proposed],
        "cost": asdict(spent),
        "launch": list(launch_commands(plan, _loadable(resolved))),
        "solved": _solved(request.solve, skeleton, plan, gpus, estimator) if request.solve else None,
        "stored": asdict(estimator.stored) if estimator.stored is not None else None,
        "simulation": _without_timeline(known.simulation(plan)),
        "measurement": measured.measurement,
        "errors": measured.errors,
        "gpus": [asdict(fit) for fit in found],
        "versions": table()["versions"],
    }


def _without_timeline(simulation: Optional[Simulation]) -> Optional[dict[str, Any]]:
    """A simulation without its long timeline: `SimulateMemory` gives it whole."""
    return asdict(replace(simulation, timeline=())) if simulation is not None else None


def _bytes_of(budget: Estimate) -> dict[str, int]:
    return {name: getattr(budget, name) for name in (*CATEGORIES, "total")}


def _solved(what: str, skeleton: Skeleton, plan: Plan, gpus: list[Gpu], estimator: Estimator) -> list[dict[str, Any]]:
    if not gpus:
        raise WorkbenchError(
            "bad-option", "No GPU on this box to solve for.", "Name one, by name or size, such as 24GiB."
        )
    solver = Solver(skeleton, plan, estimator)
    field = FIELDS.get(what, what)
    return [{"gpu": gpu.name, **asdict(solver.largest(field, gpu.capacity_bytes))} for gpu in gpus]


def _survey(request: SurveyGpus, context: Context) -> GpusSurveyed:
    resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    named = [parse_gpu(name) for name in request.gpus]
    others = [gpu for gpu in catalogue() if gpu.name not in {one.name for one in named}]
    known = KnownNeeds(config_of(resolved, {}), [gpu.name for gpu in named], context.runtime)(plan)
    rows = gpu_table(estimator.skeleton, plan, [*named, *others], context.job, estimator, known)
    return GpusSurveyed([{**asdict(row), "named": number < len(named)} for number, row in enumerate(rows)])


def _fit(request: FitPlan, context: Context) -> PlanFitted:
    resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    gpu = parse_gpu(request.gpu)
    known = KnownNeeds(config_of(resolved, {}), [gpu.name], context.runtime)
    found = make_it_fit(estimator.skeleton, plan, gpu.capacity_bytes, estimator, known)
    changes = [asdict(change) for change in found.changes]
    return PlanFitted(plan_to_dict(found.plan), changes, found.total_bytes, found.fits, found.by)


def _draw(request: DrawCurve, context: Context) -> CurveDrawn:
    _resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    points = curve(estimator, plan, request.field_name, request.values, context.job)
    return CurveDrawn(
        [{"value": point.value, **point.bytes} for point in points], [asdict(one) for one in overtakes(points)]
    )


def _estimate_modules(request: EstimateModules, context: Context) -> ModulesEstimated:
    _resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    if estimator.stored is not None and estimator.stored.stays_packed:
        raise WorkbenchError(
            "not-covered",
            "This checkpoint is quantized already: what its modules take is not told one by one.",
            "The plan's total is exact.",
        )
    part, whole = (asdict(module_bytes(estimator.skeleton, plan, names)) for names in (request.modules, [""]))
    return ModulesEstimated(part, whole)


def _write(request: WritePlan, context: Context) -> PlanWritten:
    resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    file = PlanFile(request.model, plan, tuple(request.gpus), request.dataset_tokens, request.epochs)
    path = Path(request.path) if request.path else None
    if request.form == "toml":
        return PlanWritten(to_toml(file), str(save_plan(file, path, request.overwrite)) if path else "")
    if request.form in ("code", "trl"):
        text = code_for(plan, _loadable(resolved), "trl" if request.form == "trl" else "trainer")
    elif request.form == "markdown":
        gpus = _gpus(request.gpus, context.runtime)
        asked = EstimateMemory(request.model, request.plan, request.gpus, "", request.dataset_tokens, request.epochs)
        text = to_markdown(_result(resolved, plan, estimator, gpus, asked, context.runtime))
    else:
        raise WorkbenchError(
            "bad-option", f"No form {request.form!r:.40} of a plan.", "Choose toml, code, trl or markdown."
        )
    return PlanWritten(text, _put(text, path, request.overwrite))


def _loadable(resolved: ResolvedModel) -> str:
    """What ``from_pretrained`` takes: the folder where there is one, else the name."""
    return str(resolved.path) if resolved.path is not None else resolved.hub_id or resolved.name


def _put(text: str, path: Optional[Path], overwrite: bool) -> str:
    if path is None:
        return ""
    if path.exists() and not overwrite:
        raise WorkbenchError("file-exists", f"{path} is there already.", "Choose another name, or overwrite it.")
    if not path.parent.is_dir():
        raise WorkbenchError("cannot-write", f"There is no folder {path.parent}.", "Make it, or choose another place.")
    try:
        write_atomic(path, text.encode("utf-8"), mode=0o644)
    except OSError as error:
        raise WorkbenchError("cannot-write", f"{path}: {error.strerror or error}.", "Choose another place.") from None
    return str(path)


def _open(request: OpenPlan, _context: Context) -> PlanOpened:
    found = open_plan(Path(request.path))
    return PlanOpened(found.model, plan_to_dict(found.plan), list(found.gpus), found.dataset_tokens, found.epochs)


def _rules_of_thumb(_request: ListRulesOfThumb, context: Context) -> RulesOfThumbListed:
    def skeleton_of(name: str) -> Skeleton:
        config = GPT3 if name == "gpt3" else config_of(resolve(name, context.job), {})
        return load_skeleton(config, context.job)

    rows = reference_tables(skeleton_of, context.job)
    return RulesOfThumbListed([asdict(row) for row in rows], list(WHY_TABLES_MISLEAD))


def _break_even(request: BreakEvenWithApi, context: Context) -> BrokenEven:
    _resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    gpu = parse_gpu(request.gpu)
    prices = load_prices()
    price = prices.of(gpu)
    if price is None:
        raise WorkbenchError("no-price", f"No price for {gpu.name}.", "Put one into prices.toml.")
    api = prices.apis.get(request.api) if request.api else None
    if request.api and api is None:
        raise WorkbenchError("no-price", f"No API called {request.api!r:.60} in prices.toml.", "Put it in.")
    if api is None:
        if request.output_per_million <= 0 or request.input_per_million < 0:
            raise WorkbenchError(
                "no-price", "The API has no price.", "Give dollars for a million tokens in and out, or name an entry."
            )
        api = ApiPrice(request.input_per_million, request.output_per_million, "now", "as given")
    found = cost(estimator.skeleton, plan, gpu, price)
    result = break_even(found, plan, price, api, request.answers_per_day, request.agent_multiplier)
    return BrokenEven(asdict(result))


HANDLERS: dict[type[Request], Handler] = {
    EstimateMemory: quick(_estimate),
    SurveyGpus: quick(_survey),
    FitPlan: quick(_fit),
    DrawCurve: quick(_draw),
    EstimateModules: quick(_estimate_modules),
    WritePlan: quick(_write),
    OpenPlan: quick(_open),
    ListRulesOfThumb: quick(_rules_of_thumb),
    BreakEvenWithApi: quick(_break_even),
}
