"""Inspecting, comparing and designing models from their configs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

from workbench.architecture import compare, design, facts, files, lora, lora_targets
from workbench.architecture.cache import load_skeleton
from workbench.architecture.checkpoint import CheckpointComparison
from workbench.architecture.compute import compute_figures
from workbench.architecture.count import count_parameters
from workbench.architecture.describe import ArchitectureFacts, describe
from workbench.architecture.diagram import diagram
from workbench.architecture.skeleton import Skeleton
from workbench.architecture.tree import TreeNode, flatten, module_tree
from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.models.resolve import ResolvedModel, resolve
from workbench.session.protocol import (
    AdapterCounted,
    CheckDesign,
    CompareModels,
    CountAdapter,
    DesignChecked,
    DesignSaved,
    FamiliesListed,
    InspectModel,
    ListFamilies,
    ModelInspected,
    ModelsCompared,
    Request,
    SaveDesign,
)
from workbench.session.runtime import Context, Handler, quick


@dataclass(frozen=True)
class _Subject:
    """A model with changes, built."""

    resolved: ResolvedModel
    config: dict[str, Any]
    skeleton: Skeleton
    notes: list[str]
    stored: Optional[files.StoredTensors] = None
    """What the headers of its weights list; None for a design and where there are none."""


def config_of(resolved: ResolvedModel, changes: dict[str, Any]) -> dict[str, Any]:
    """The config of a model with values replaced; a dotted key reaches into a nested object.

    Raises:
        WorkbenchError: ``no-config`` if nothing is known of the model yet; ``bad-option`` for a key that leads nowhere.
    """
    if resolved.config is None:
        remedy = f"Fetch it first: workbench models get {resolved.name}" if resolved.fetchable else ""
        raise WorkbenchError("no-config", f"The config of {resolved.name} is not on this box.", remedy)
    return design.apply_changes(resolved.config, changes)


def _resolve(name: str, job: Job) -> ResolvedModel:
    """As `resolve`, and small models of a family to design from (``family:llama``)."""
    if not name.startswith(design.FAMILY_PREFIX):
        return resolve(name, job)
    return ResolvedModel(
        name=name,
        kind="family",
        path=None,
        config=design.family_config(name),
        config_source="a small model of this family, to design from",
        fetchable=False,
        size_bytes=None,
        formats=(),
    )


def _subject(name: str, changes: dict[str, Any], job: Job) -> _Subject:
    """Build a model with changes, refused with the reason where they make no model.

    Raises:
        WorkbenchError: as `resolve` and `load_skeleton`; ``bad-config`` with the first problem of a change.
    """
    resolved = _resolve(name, job)
    base = config_of(resolved, {})
    if not changes:
        assumed = _assumed_dtype(resolved, base)
        return _as_it_is(resolved, base, assumed, _assumed_note(assumed), job)
    original = _original(resolved, base, changes, job)
    for problem in design.design_problems(base, changes, original):
        raise WorkbenchError("bad-config", problem.reason, problem.remedy)
    config = design.apply_changes(base, changes, original)
    assumed = _assumed_dtype(resolved, config)
    notes = [*_assumed_note(assumed), *_followed(base, config, changes)]
    return _Subject(resolved, config, load_skeleton(config, job, assumed), notes)


def _original(resolved: ResolvedModel, base: dict[str, Any], changes: dict[str, Any], job: Job) -> Skeleton:
    """The model before any change; where its config is refused for a value that the changes mend, after them.

    Raises:
        WorkbenchError: as `load_skeleton`.
    """
    try:
        return load_skeleton(base, job, _assumed_dtype(resolved, base))
    except WorkbenchError as error:
        if error.kind != "bad-config" or not changes:
            raise
        mended = design.apply_changes(base, changes)
        return load_skeleton(mended, job, _assumed_dtype(resolved, mended))


def _assumed_note(assumed: Optional[str]) -> list[str]:
    return [f"The catalogue states no dtype: sizes are at {assumed}."] if assumed else []


def _followed(base: dict[str, Any], config: dict[str, Any], changes: dict[str, Any]) -> list[str]:
    """What was changed beside what was asked for."""
    return [
        f"{key} has been fitted to the {len(value)} layers."
        for key, value in config.items()
        if isinstance(value, list) and key not in changes and value != base.get(key)
    ]


def _as_it_is(
    resolved: ResolvedModel, config: dict[str, Any], assumed: Optional[str], notes: list[str], job: Job
) -> _Subject:
    stored = None
    if resolved.has_weights and resolved.path is not None:
        try:
            stored = files.read_tensors(resolved.path, config)
        except WorkbenchError as error:
            notes.append(error.message)
    try:
        skeleton = load_skeleton(config, job, assumed)
    except WorkbenchError as error:
        if error.kind not in ("missing-package", "broken-package", "unknown-architecture", "remote-code"):
            raise
        if stored is None or not stored.tensors:
            raise
        # The header says names, shapes and dtypes without any library.
        notes.append(f"{error.message} Shown is what the weights' headers list.")
        return _Subject(resolved, config, files.header_skeleton(config, stored), notes)
    return _Subject(resolved, config, skeleton, notes, stored)


def _assumed_dtype(resolved: ResolvedModel, config: dict[str, Any]) -> Optional[str]:
    """The dtype in which a catalogue model is sized whose config states none: what such weights come in today."""
    inner = config.get("text_config")
    stated = any(section.get("dtype") or section.get("torch_dtype") for section in (config, inner or {}))
    return None if stated or resolved.kind != "catalogue" else "bfloat16"


def _inspect(request: InspectModel, context: Context) -> ModelInspected:
    subject = _subject(request.model, request.changes, context.job)
    resolved, skeleton = subject.resolved, subject.skeleton
    counts = count_parameters(skeleton)
    adapter = _adapter(skeleton, request.lora) if request.lora else None
    tree = module_tree(skeleton)
    described = describe(skeleton)
    stages = tuple(diagram(skeleton))
    figures = compute_figures(skeleton, counts, _context(request, described), request.gpu)
    model_files = files.read_files(resolved.path) if resolved.path and not request.changes else None
    compared = files.compare_files(skeleton, subject.stored) if subject.stored else None
    known = facts.Subject(skeleton, counts, described, figures, stages, model_files)
    parameters = asdict(counts)
    if adapter is not None:
        parameters["trainable"] = adapter.trainable
    return ModelInspected(
        {
            "model": resolved.name,
            "architecture": skeleton.architecture,
            "config_source": resolved.config_source,
            "notes": [*subject.notes, *_rope_note(resolved, described)],
            "transformers_version": skeleton.transformers_version,
            "parameters": parameters,
            "facts": asdict(described),
            "explained": [asdict(fact) for fact in facts.explain(known)],
            "compute": asdict(figures),
            "diagram": [asdict(stage) for stage in stages],
            "lora": asdict(adapter) if adapter else None,
            "files": asdict(model_files) if model_files else None,
            "checkpoint": _checkpoint(compared),
            "config": skeleton.config,
            "changed": sorted(request.changes),
            "modules": [_module(node) for node in flatten(tree, request.depth)],
            "tree": _node(tree),
        }
    )


def _rope_note(resolved: ResolvedModel, described: ArchitectureFacts) -> list[str]:
    """The catalogue keeps what sizes depend on; a base or a stretching that it leaves out is not claimed."""
    config = resolved.config or {}
    sections = (config, config.get("text_config") or {}, config.get("attn_config") or {})
    stated = any(key.startswith(("rope_", "rotary_")) for section in sections for key in section)
    if resolved.kind != "catalogue" or stated or "RoPE" not in described.position:
        return []
    return ["The catalogue's config states no rope values: θ and stretching are transformers' defaults."]


def _context(request: InspectModel, described: ArchitectureFacts) -> int:
    """No more tokens than the model was made for."""
    return min(request.context, described.context_length or request.context)


def _adapter(skeleton: Skeleton, fields: dict[str, Any]) -> lora.AdapterCount:
    return lora.count_adapter(skeleton, lora.plan_from_dict(fields))


_SHOWN_DIFFERENCES = 200


def _checkpoint(compared: Optional[CheckpointComparison]) -> Optional[dict[str, Any]]:
    """The comparison with its lists cut: a checkpoint of another model differs in every name."""
    if compared is None:
        return None
    lists = {name: asdict(compared)[name] for name in ("missing", "extra", "shapes", "dtypes")}
    return {
        **asdict(compared),
        "agrees": compared.agrees,
        "counts": {name: len(items) for name, items in lists.items()},
        **{name: list(items[:_SHOWN_DIFFERENCES]) for name, items in lists.items()},
    }


def _count_adapter(request: CountAdapter, context: Context) -> AdapterCounted:
    skeleton = _subject(request.model, request.changes, context.job).skeleton
    plan = lora.plan_from_dict(request.lora)
    counted = lora.count_adapter(skeleton, plan)
    return AdapterCounted(asdict(counted), [_preset(skeleton, plan, one) for one in lora_targets.presets(skeleton)])


def _preset(skeleton: Skeleton, plan: lora.LoraPlan, preset: lora_targets.Preset) -> dict[str, Any]:
    """A preset with what it would train at the plan's rank; None where peft refuses it."""
    trainable: Optional[int] = None
    chosen = lora.LoraPlan(
        targets=preset.targets, target_parameters=preset.target_parameters, r=plan.r, rslora=plan.rslora, dora=plan.dora
    )
    try:
        trainable = lora.count_adapter(skeleton, chosen).trainable
    except WorkbenchError as error:
        return {**asdict(preset), "trainable": None, "line": error.message}
    return {**asdict(preset), "trainable": trainable}


def _check_design(request: CheckDesign, context: Context) -> DesignChecked:
    resolved = _resolve(request.model, context.job)
    base = config_of(resolved, {})
    original = _original(resolved, base, request.changes, context.job)
    problems = design.design_problems(base, request.changes, original)
    try:
        config = design.apply_changes(base, request.changes, original)
    except WorkbenchError:
        config = base
    return DesignChecked(
        [asdict(problem) for problem in problems], [asdict(field) for field in design.design_fields(config, original)]
    )


def _list_families(_request: ListFamilies, _context: Context) -> FamiliesListed:
    return FamiliesListed([asdict(family) for family in design.families()])


def _save_design(request: SaveDesign, context: Context) -> DesignSaved:
    subject = _subject(request.model, request.changes, context.job)
    architecture = subject.skeleton.architecture
    return DesignSaved(design.save_design(subject.config, architecture, request.path, request.overwrite))


def _compare(request: CompareModels, context: Context) -> ModelsCompared:
    sides = []
    for name, changes in ((request.first, request.first_changes), (request.second, request.second_changes)):
        subject = _subject(name, changes, context.job)
        skeleton = subject.skeleton
        shown = subject.resolved.name + (" (changed)" if changes else "")
        sides.append(compare.Side(shown, skeleton, count_parameters(skeleton), describe(skeleton)))
    compared = compare.compare_models(*sides)
    return ModelsCompared({**asdict(compared), "same": compared.same})


def _module(node: TreeNode) -> dict[str, Any]:
    return {
        "name": node.path,
        "class": node.class_name,
        "parameters": node.parameters,
        "shape": list(node.shape) if node.shape is not None else None,
        "dtype": node.dtype,
        "bytes": node.bytes,
        "count": node.repeat,
        "tied_to": node.tied_to,
    }


def _node(node: TreeNode) -> dict[str, Any]:
    return {
        **_module(node),
        "name": node.name,
        "path": node.path,
        "children": [_node(child) for child in node.children],
    }


HANDLERS: dict[type[Request], Handler] = {
    InspectModel: quick(_inspect),
    CountAdapter: quick(_count_adapter),
    CheckDesign: quick(_check_design),
    ListFamilies: quick(_list_families),
    SaveDesign: quick(_save_design),
    CompareModels: quick(_compare),
}
