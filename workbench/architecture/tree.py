"""The module tree of a skeleton, identical layers folded. Stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Protocol, TypeVar

from workbench.architecture.skeleton import DTYPE_BYTES, ParameterEntry, Skeleton


@dataclass(frozen=True)
class TreeNode:
    """A module, a parameter, or a run of modules that are equal but for their number."""

    name: str
    """The last part of the dotted name; ``0-31`` for a run."""
    path: str
    """The whole dotted name; of a run that of its first module."""
    class_name: str
    """Class of a module, empty for a parameter."""
    parameters: int
    """In the node and below it, a tied tensor under its first name only; of a run all its modules together."""
    bytes: int
    shape: Optional[tuple[int, ...]] = None
    dtype: Optional[str] = None
    tied_to: Optional[str] = None
    repeat: int = 1
    """How many modules the node stands for."""
    children: tuple[TreeNode, ...] = ()
    """Of a run the children of one of its modules."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Node = TypeVar("Node", bound=_Named)


@dataclass
class _Module:
    name: str
    path: str
    class_name: str = ""
    children: dict[str, _Module] = field(default_factory=dict)
    parameters: list[ParameterEntry] = field(default_factory=list)


def module_tree(skeleton: Skeleton) -> TreeNode:
    """The whole tree.

    Neighbouring numbered modules (layers, experts) with the same classes, names, shapes, dtypes and tying below
    them become one node, so that the tree stays small however deep the model is.
    """
    root = _Module("", "", skeleton.architecture)
    found = {"": root}
    for module in skeleton.modules:
        if module.name:
            parent, _, name = module.name.rpartition(".")
            node = found[module.name] = _Module(name, module.name, module.class_name)
            found[parent].children[name] = node
    for entry in skeleton.parameters:
        found[entry.module].parameters.append(entry)
    return _node(root)


def flatten(node: TreeNode, depth: Optional[int] = None) -> list[TreeNode]:
    """The nodes of a tree in the order of reading it, without the root, down to `depth` levels.

    A run's name in its path is kept (``model.layers.0-31.mlp``), children are left empty.
    """
    listed: list[TreeNode] = []
    _flatten_into(listed, node.children, "", depth)
    return listed


def fold_repeats(nodes: Iterable[Node], signature: Callable[[Node], object]) -> list[Node]:
    """Make runs of neighbouring numbered nodes with equal signatures into one node each.

    Args:
        nodes: dataclasses with ``name``, ``parameters``, ``bytes`` and ``repeat``, such as `TreeNode`.
        signature: what must be equal; a number as own name must count as any other.
    """
    runs: list[list[Node]] = []
    for node in nodes:
        if runs and node.name.isdigit() and signature(node) == signature(runs[-1][0]):
            runs[-1].append(node)
        else:
            runs.append([node])
    return [run[0] if len(run) == 1 else _folded(run) for run in runs]


def _folded(run: list[Node]) -> Node:
    first: Any = run[0]
    folded: Node = replace(
        first,
        name=f"{first.name}-{run[-1].name}",
        parameters=first.parameters * len(run),
        bytes=first.bytes * len(run),
        repeat=len(run),
    )
    return folded


def _flatten_into(listed: list[TreeNode], children: Iterable[TreeNode], prefix: str, depth: Optional[int]) -> None:
    if depth is not None and depth <= 0:
        return
    for child in children:
        path = f"{prefix}.{child.name}" if prefix else child.name
        listed.append(replace(child, path=path, children=()))
        _flatten_into(listed, child.children, path, None if depth is None else depth - 1)


def _node(module: _Module) -> TreeNode:
    children = [_parameter_node(entry) for entry in module.parameters]
    children += fold_repeats([_node(child) for child in module.children.values()], _signature)
    return TreeNode(
        name=module.name,
        path=module.path,
        class_name=module.class_name,
        parameters=sum(child.parameters for child in children),
        bytes=sum(child.bytes for child in children),
        children=tuple(children),
    )


def _parameter_node(entry: ParameterEntry) -> TreeNode:
    numel = entry.numel if entry.tied_to is None else 0
    return TreeNode(
        name=entry.name.rpartition(".")[2],
        path=entry.name,
        class_name="",
        parameters=numel,
        bytes=numel * DTYPE_BYTES[entry.dtype],
        shape=entry.shape,
        dtype=entry.dtype,
        tied_to=entry.tied_to,
    )


def _signature(node: TreeNode) -> tuple[object, ...]:
    # The own name only tells a numbered module from a named one; below it, names count.
    own = "#" if node.name.isdigit() else node.name
    return (own, node.class_name, node.shape, node.dtype, node.parameters, _children_signature(node))


def _children_signature(node: TreeNode) -> tuple[object, ...]:
    return tuple(
        (child.name, child.class_name, child.shape, child.dtype, child.parameters, _children_signature(child))
        for child in node.children
    )
