"""Inspecting a model's config."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Optional

from workbench.architecture.cache import load_skeleton
from workbench.architecture.count import count_parameters
from workbench.architecture.describe import describe
from workbench.architecture.skeleton import Skeleton
from workbench.architecture.tree import TreeNode, flatten, module_tree
from workbench.errors import WorkbenchError
from workbench.models.reference import nearest
from workbench.models.resolve import ResolvedModel, resolve
from workbench.session.protocol import InspectModel, ModelInspected, Request
from workbench.session.runtime import Context, Handler, quick


def config_of(resolved: ResolvedModel, changes: dict[str, Any]) -> dict[str, Any]:
    """The config of a model with values replaced; a dotted key reaches into a nested object.

    Raises:
        WorkbenchError: ``no-config`` if nothing is known of the model yet; ``bad-option`` for a key that leads nowhere.
    """
    if resolved.config is None:
        remedy = f"Fetch it first: workbench models get {resolved.name}" if resolved.fetchable else ""
        raise WorkbenchError("no-config", f"The config of {resolved.name} is not on this box.", remedy)
    config: dict[str, Any] = dict(resolved.config)
    for key, value in changes.items():
        *parents, last = key.split(".")
        target = config
        for parent in parents:
            if not isinstance(target.get(parent), dict):
                raise WorkbenchError("bad-option", f"The config of {resolved.name} has no object {parent!r:.60}.")
            target[parent] = dict(target[parent])
            target = target[parent]
        target[last] = value
    return config


def _refuse_unknown_keys(changes: dict[str, Any], original: Skeleton) -> None:
    """A misspelt key would change nothing, in silence; the built config names every key its class has."""
    for key in changes:
        if key.partition(".")[0] not in original.config:
            close = nearest(key, original.config)
            raise WorkbenchError(
                "bad-option",
                f"A {original.model_type} config has no value {key!r:.60}.",
                f"Nearest: {', '.join(close)}." if close else "",
            )


def _assumed_dtype(resolved: ResolvedModel, config: dict[str, Any]) -> Optional[str]:
    """The dtype in which a catalogue model is sized whose config states none: what such weights come in today."""
    inner = config.get("text_config")
    stated = any(section.get("dtype") or section.get("torch_dtype") for section in (config, inner or {}))
    return None if stated or resolved.kind != "catalogue" else "bfloat16"


def _inspect(request: InspectModel, context: Context) -> ModelInspected:
    resolved = resolve(request.model, context.job)
    if request.changes:
        _refuse_unknown_keys(request.changes, load_skeleton(config_of(resolved, {}), context.job))
    config = config_of(resolved, request.changes)
    assumed = _assumed_dtype(resolved, config)
    skeleton = load_skeleton(config, context.job, assumed)
    counts = asdict(count_parameters(skeleton))
    tree = module_tree(skeleton)
    return ModelInspected(
        {
            "model": resolved.name,
            "architecture": skeleton.architecture,
            "config_source": resolved.config_source,
            "notes": [f"The catalogue states no dtype: sizes are at {assumed}."] if assumed else [],
            "transformers_version": skeleton.transformers_version,
            "parameters": counts,
            "facts": asdict(describe(skeleton)),
            "modules": [_module(node) for node in flatten(tree, request.depth)],
            "tree": _node(tree),
        }
    )


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


HANDLERS: dict[type[Request], Handler] = {InspectModel: quick(_inspect)}
