"""The tree of modules as the architecture bench shows it: pure, from the reply to an inspection to rows of text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from textual.content import Content

from workbench.text import format_bytes
from workbench.ui.strip_text import SHORT_DTYPES
from workbench.ui.widgets.bars import bar, left, right

NAME_WIDTH = 60
"""On a very wide terminal the numbers stay near the names they belong to."""
LEAST_SHARE = 0.0005
"""What is less reads 0.0 %, and has no bar."""
OPEN_AT_FIRST = 3
"""Levels of the tree that are open when a model is shown."""
_DTYPES = {**SHORT_DTYPES, "uint8": "u8", "int8": "i8", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "int64": "i64"}
_RUN = re.compile(r"(?P<head>.*?)(?P<first>\d+)(?:-(?P<last>\d+))?$")


@dataclass(frozen=True)
class Node:
    """A module or parameter of the tree; ``count`` of them where equal ones are folded."""

    key: str
    """Dotted names from the root's children on, a run under its range: ``model.layers.0-29.mlp``."""
    name: str
    class_name: str
    parameters: int
    bytes: int
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    count: int = 1
    tied_to: str = ""
    module: str = ""
    """Dotted name in the model; of a run that of its first module."""
    device: str = ""
    quantization: str = ""
    """Of a module or tensor as it stands in the worker; empty for one that the config builds."""
    folded: str = ""
    """The key that the node has, or had, while equal modules were folded."""
    children: tuple[Node, ...] = field(default=(), repr=False)

    @property
    def modules(self) -> tuple[Node, ...]:
        """The children that are modules, not tensors."""
        return tuple(child for child in self.children if child.class_name)

    def child(self, *names: str) -> Node | None:
        """The first child with one of these names."""
        return next((child for name in names for child in self.children if child.name == name), None)


def read_tree(tree: dict[str, Any]) -> Node:
    """The nested dictionaries of an inspection as nodes; a list that is one run becomes one node with it."""
    return _read(tree, "", True)


def _read(tree: dict[str, Any], parent: str, is_root: bool = False) -> Node:
    class_name = str(tree.get("class") or "")
    name = str(tree.get("name") or class_name or "model")
    runs: list[dict[str, Any]] = list(tree.get("children") or ())
    inner: dict[str, Any] = runs[0] if len(runs) == 1 else {}
    count = int(tree.get("count") or 1)
    if class_name == "ModuleList" and int(inner.get("count") or 1) > 1 and count == 1:
        return _read({**inner, "name": f"{name}.{inner.get('name')}"}, parent)
    key = "" if is_root else f"{parent}.{name}" if parent else name
    return Node(
        key=key,
        name=name,
        class_name=class_name,
        parameters=int(tree.get("parameters") or 0),
        bytes=int(tree.get("bytes") or 0),
        shape=tuple(tree["shape"]) if tree.get("shape") else None,
        dtype=str(tree.get("dtype") or ""),
        count=count,
        tied_to=str(tree.get("tied_to") or ""),
        module=str(tree.get("path") or key),
        device=str(tree.get("device") or ""),
        quantization=str(tree.get("quantization") or ""),
        folded=key,
        children=tuple(_read(child, key) for child in runs),
    )


def each_of(run: Node) -> tuple[Node, ...]:
    """The modules of a run one by one, under their own names."""
    found = _RUN.match(run.name)
    if run.count < 2 or found is None or found["last"] is None:
        return (run,)
    first = int(found["first"])
    prefix = run.key[: len(run.key) - len(run.name)]
    real = _RUN.match(run.module)
    stem = real["head"] if real else run.module
    return tuple(
        _renamed(
            replace(
                run,
                name=f"{found['head']}{first + i}",
                parameters=run.parameters // run.count,
                bytes=run.bytes // run.count,
                count=1,
            ),
            (run.key, f"{prefix}{found['head']}{first + i}"),
            (run.module, f"{stem}{first + i}"),
        )
        for i in range(run.count)
    )


def _renamed(node: Node, key: tuple[str, str], module: tuple[str, str]) -> Node:
    return replace(
        node,
        key=node.key.replace(*key, 1),
        module=node.module.replace(*module, 1),
        children=tuple(_renamed(child, key, module) for child in node.children),
    )


def open_keys(node: Node, levels: int) -> set[str]:
    """Keys of the nodes with children in the first `levels` levels."""
    if levels <= 0 or not node.children:
        return set()
    return {node.key}.union(*(open_keys(child, levels - 1) for child in node.children))


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, in the order of reading."""
    yield node
    for child in node.children:
        yield from walk(child)


def matching(node: Node, typed: str) -> tuple[set[str], set[str]]:
    """Keys of the nodes whose name, class or dotted name holds what was typed, and keys of all above them."""
    wanted = typed.lower()
    found: set[str] = set()
    above: set[str] = set()

    def visit(here: Node) -> bool:
        below = [visit(child) for child in here.children]
        own = wanted in here.name.lower() or wanted in here.class_name.lower()
        if "." in wanted:
            own = own or wanted in here.key.lower() or wanted in here.module.lower()
        if own:
            found.add(here.key)
        if any(below):
            above.add(here.key)
        return own or any(below)

    visit(node)
    return found, above


def real_names(node: Node) -> list[str]:
    """The dotted names in the model of all modules that a node stands for, folded or not."""
    names = [""]
    for part in re.split(r"(?<=\.)|(?=\.)", node.key):
        run = re.fullmatch(r"(\d+)-(\d+)", part)
        numbers = [str(i) for i in range(int(run[1]), int(run[2]) + 1)] if run else [part]
        names = [name + number for name in names for number in numbers]
    return names


# --- Lines -------------------------------------------------------------------------------------------------

Mark = Callable[[Node], "Content | None"]
"""What stands at the end of a node's name: a trace's heat, an adapter."""


def line_of(node: Node, depth: int, opened: bool, total: int, mark: Content | None = None) -> Callable[[int], Content]:
    """A row of the tree. An open run says that what stands below it is in each of its modules.

    Args:
        mark: stands in place of the class.
    """
    sign = ("▾ " if opened else "▸ ") if node.children else "  "
    share = node.parameters / max(1, total)
    times = f" ×{node.count}" if node.count > 1 else ""
    name = Content.assemble(
        "  " * depth,
        (sign, "$accent"),
        (node.name, "" if node.children else "$muted"),
        (times, "bold $accent"),
        (f"  = {node.tied_to}" if node.tied_to else "", "$muted"),
    )

    def line(width: int) -> Content:
        columns = []
        if width >= 66:
            what = " × ".join(map(str, node.shape)) if node.shape else node.class_name
            if node.quantization and not node.shape:
                what = f"{node.quantization} {what}"
            if opened and node.count > 1:
                what = "each holds"
            told = Content.styled(what, "" if node.shape else "$muted") if mark is None else mark
            room = 13 if width < 90 else 18 if width < 110 else 26
            columns.append(told.truncate(room, ellipsis=True, pad=True))
            columns.append(right(_DTYPES.get(node.dtype, node.dtype), 4, "$muted"))
        columns.append(right(f"{node.parameters:,}" if node.parameters else "–", max(7, len(f"{total:,}"))))
        columns.append(right(format_bytes(node.bytes) if node.bytes else "", 8, "$muted"))
        cells = 4 if width < 90 else 8 if width < 110 else 16
        drawn = bar(share, cells) if share >= LEAST_SHARE else Content(" " * cells)
        columns.append(Content.assemble(right(f"{100 * share:.1f} %", 7), " ", drawn))
        tail = Content(" ").join(columns)
        room = min(NAME_WIDTH, max(8, width - tail.cell_length - 1))
        return Content.assemble(name.truncate(room, ellipsis=True, pad=True), " ", tail)

    return line


def description(node: Node) -> Content:
    """All that is known of a node, in one line or two."""
    parts: list[tuple[str, str]] = [(node.key or node.name, "bold")]
    if node.class_name and node.class_name != node.name:
        parts.append((f"  {node.class_name}", "$muted"))
    if node.shape:
        parts.append((f"  {' × '.join(map(str, node.shape))}", ""))
    if node.dtype:
        parts.append((f"  {node.dtype}", "$muted"))
    parts.append((f"  {node.parameters:,} parameters  {format_bytes(node.bytes)}", ""))
    if node.quantization:
        parts.append((f"  {node.quantization}", "bold $accent"))
    if node.device:
        parts.append((f"  on {node.device}", ""))
    if node.count > 1:
        parts.append((f"  {node.count} equal ones of {node.parameters // node.count:,}", "$muted"))
    if node.tied_to:
        parts.append((f"  shares the weights of {node.tied_to}, counted there", "$muted"))
    return Content.assemble(*parts)


def told(node: Node) -> Content:
    """A node with the modules and tensors in it, for a panel."""
    times = f"  in {node.count} equal ones" if node.count > 1 else ""
    lines = [
        Content.styled(node.key or node.name, "bold $accent"),
        Content.styled(node.class_name, "$muted"),
        Content(""),
        Content.assemble((f"{node.parameters:,}", "bold"), (f" parameters{times}", "$muted")),
        Content.styled(format_bytes(node.bytes), "$muted"),
        Content(""),
    ]
    for child in node.children:
        lines.append(_part(child, ""))
        lines += [_part(one, "  ") for one in child.children]
    return Content("\n").join(lines)


def _part(node: Node, indent: str) -> Content:
    what = " × ".join(map(str, node.shape)) if node.shape else node.class_name
    name = Content.assemble(indent, (node.name, "" if node.class_name else "$muted"))
    number = f"{node.parameters:,}" if node.parameters else f"= {node.tied_to}" if node.tied_to else ""
    return Content.assemble(
        name.truncate(22, ellipsis=True, pad=True), " ", left(what, 24, "$muted"), " ", right(number, 12)
    )


# --- Copying out -------------------------------------------------------------------------------------------


def node_json(node: Node) -> dict[str, Any]:
    """One node with what is below it, for scripts."""
    told: dict[str, Any] = {"name": node.key or node.name, "class": node.class_name, "parameters": node.parameters}
    told |= {"bytes": node.bytes}
    if node.shape:
        told |= {"shape": list(node.shape), "dtype": node.dtype}
    if node.count > 1:
        told["count"] = node.count
    if node.tied_to:
        told["tied_to"] = node.tied_to
    if node.children:
        told["children"] = [node_json(child) for child in node.children]
    return told


def as_json(node: Node) -> str:
    """A node and all below it as JSON text."""
    return json.dumps(node_json(node), indent=2, ensure_ascii=False)


def as_markdown(node: Node) -> str:
    """A node and all below it as a Markdown table."""
    lines = ["| module | class or shape | dtype | parameters | bytes |", "|---|---|---|---:|---:|"]
    depth = node.key.count(".")
    for here in walk(node):
        indent = "&nbsp;&nbsp;" * max(0, here.key.count(".") - depth)
        what = " × ".join(map(str, here.shape)) if here.shape else here.class_name
        times = f" ×{here.count}" if here.count > 1 else ""
        cells = (f"{indent}`{here.name}`{times}", what, here.dtype, f"{here.parameters:,}", format_bytes(here.bytes))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def numbered(names: Iterable[int]) -> str:
    """Layer numbers as ranges: ``0-2, 4-6``."""
    ranges: list[list[int]] = []
    for number in names:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
