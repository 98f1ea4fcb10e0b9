"""A model as a drawing in box-drawing characters: pure, from the stages of an inspection to lines of text.

The residual stream runs down the left side; each sublayer branches off to the right and comes back by an addition.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from textual.content import Content

from workbench.ui.benches.architecture_tree import Node, numbered, walk

LEAST_WIDTH, MOST_WIDTH = 30, 64
STREAM, BRANCH = 3, 7
"""Columns of the residual stream and of a branch."""
NORMS = ("norm",)
ADDS = ("add",)
MOST_KINDS = 4
"""Kinds of layers that are drawn; a model of more says how many are left out."""
_NUMBER = re.compile(r"(\d+)(?:-(\d+))?$")


@dataclass(frozen=True)
class Block:
    """One step: a module, or an addition to the residual stream."""

    kind: str
    label: str
    path: str
    line: str = ""
    width: int | None = None
    """Size of what leaves it."""


@dataclass(frozen=True)
class Stage:
    """Steps one after another; `repeat` times where equal layers are folded."""

    name: str
    path: str
    repeat: int
    parallel: bool
    blocks: tuple[Block, ...]
    layers: tuple[int, ...] = ()
    """Numbers of the layers it stands for."""
    kinds: tuple[str, ...] = ()
    """What each of its layers sees (``sliding_attention``, …), where that is not one and the same."""
    window: int | None = None
    """Tokens that a sliding layer sees."""


@dataclass(frozen=True)
class Line:
    """A line of the drawing, and the module it belongs to."""

    content: Content
    path: str = ""


@dataclass
class _Sublayer:
    """What lies between a branch off the residual stream and the addition that ends it."""

    before: list[Block] = field(default_factory=list)
    mixers: list[Block] = field(default_factory=list)
    after: list[Block] = field(default_factory=list)
    added: Block | None = None
    on_stream: list[Block] = field(default_factory=list)
    """Norms that the whole stream passes after the addition."""


def read_stages(value: object) -> tuple[Stage, ...]:
    """The stages of an inspection."""
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(
        Stage(
            name=str(stage.get("name") or ""),
            path=str(stage.get("path") or ""),
            repeat=int(stage.get("repeat") or 1),
            parallel=bool(stage.get("parallel")),
            blocks=tuple(_read_block(block) for block in stage.get("blocks") or ()),
        )
        for stage in value
        if isinstance(stage, dict)
    )


def _read_block(block: dict[str, Any]) -> Block:
    width = block.get("width")
    return Block(
        kind=str(block.get("kind") or ""),
        label=str(block.get("label") or ""),
        path=str(block.get("path") or ""),
        line=str(block.get("line") or ""),
        width=width if isinstance(width, int) else None,
    )


# --- What the tree and the config add ----------------------------------------------------------------------


def stages_of(inspection: dict[str, Any], root: Node | None) -> tuple[Stage, ...]:
    """The stages of an inspection, each block with the matrices that the tree has under it."""
    nodes = {node.folded: node for node in walk(root)} if root is not None else {}
    facts, config = inspection.get("facts") or {}, inspection.get("config") or {}
    told = []
    for stage in map(_numbered, read_stages(inspection.get("diagram"))):
        blocks = tuple(_told(block, nodes.get(block.path), facts) for block in stage.blocks)
        told.append(_with_kinds(replace(stage, blocks=blocks), config, facts))
    return tuple(told)


def _told(block: Block, node: Node | None, facts: dict[str, Any]) -> Block:
    matrices = " · ".join(projections(node)) if node is not None else ""
    if block.kind == "attention":
        kind = facts.get("attention_kind")
        label = f"{kind} {block.label}" if kind and kind != "none" else block.label
        return replace(block, label=label, line=_joined(block.line, matrices))
    if block.kind in ("embedding", "state_space") and matrices:
        return replace(block, line=matrices)
    if block.kind == "mlp" and matrices:
        activation = facts.get("activation")
        label = f"{block.label}, {activation}" if activation and activation != "unknown" else block.label
        return replace(block, label=label, line=matrices)
    return replace(block, line=_joined(block.line, matrices)) if matrices else block


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def projections(node: Node) -> list[str]:
    """``q 576→576``, ``k,v 576→192``: the matrices in a module, equal ones together."""
    found: dict[str, list[str]] = {}
    direct = [(child, _matrix(child)) for child in node.children]
    if not any(size for _, size in direct):
        direct = [(one, _matrix(one)) for child in node.modules for one in child.children]
    for child, size in direct:
        if size and (child.class_name or child.name != "weight"):
            found.setdefault(size, []).append(_short(child.name))
    return [f"{','.join(names)} {size}" for size, names in found.items()]


_LONG_NAMES = {"query_key_value": "qkv", "dense_h_to_4h": "h_to_4h", "dense_4h_to_h": "4h_to_h", "c_proj": "c_proj"}


def _short(name: str) -> str:
    """A matrix's name as it fits into a box."""
    return _LONG_NAMES.get(name) or re.sub(r"_?(proj|embeddings)(_|$)", r"\2", name) or name


def _matrix(module: Node) -> str:
    """What a module's weight turns into what; of an embedding and of a tensor of three axes its shape."""
    weight = module.child("weight") if module.class_name else module
    shape = weight.shape if weight is not None and weight.shape else ()
    if len(shape) == 3 or (len(shape) == 2 and "Embedding" in module.class_name):
        return " × ".join(f"{size:,}" for size in shape)
    if len(shape) != 2 or not module.class_name:
        return ""
    # transformers' Conv1D keeps its matrix the other way round.
    size_in, size_out = shape if module.class_name == "Conv1D" else shape[::-1]
    return f"{size_in:,}→{size_out:,}"


def _with_kinds(stage: Stage, config: dict[str, Any], facts: dict[str, Any]) -> Stage:
    text = next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), config)
    kinds = text.get("layer_types") or config.get("layer_types")
    if not isinstance(kinds, list) or not stage.layers or "vision" in stage.path or stage.layers[-1] >= len(kinds):
        return stage
    own = tuple(str(kinds[layer]) for layer in stage.layers)
    return replace(stage, kinds=own if len(set(own)) > 1 else (), window=facts.get("sliding_window"))


# --- Layers that are equal ---------------------------------------------------------------------------------


def _numbered(stage: Stage) -> Stage:
    """The stage with the numbers of its layers, read off its path."""
    found = _NUMBER.search(stage.path)
    if found is None or not any(block.kind in ADDS for block in stage.blocks):
        return stage
    first = int(found[1])
    last = int(found[2]) if found[2] else first + stage.repeat - 1
    return replace(stage, layers=tuple(range(first, last + 1)))


def _signature(stage: Stage) -> tuple[object, ...]:
    return (stage.parallel, *((block.kind, block.label, block.line, block.width) for block in stage.blocks))


def stacks(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages in drawing order: the layers of one stack together, equal ones as one stage, other stages alone."""
    groups: list[list[Stage]] = []
    stack = ""
    for stage in map(_numbered, stages):
        parent = _NUMBER.sub("", stage.path) if stage.layers else ""
        if not stage.layers or parent != stack:
            groups.append([stage])
        else:
            _merge(groups[-1], stage)
        stack = parent
    return groups


def _merge(group: list[Stage], stage: Stage) -> None:
    for index, other in enumerate(group):
        if _signature(other) == _signature(stage):
            layers = (*other.layers, *stage.layers)
            group[index] = replace(other, layers=layers, repeat=len(layers), kinds=(*other.kinds, *stage.kinds))
            return
    group.append(stage)


# --- Drawing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pen:
    """What every line of a drawing needs to know."""

    width: int
    roomy: bool
    selected: str
    framed: bool = False

    def line(self, stream: str, body: Content | str, path: str = "", style: str = "bold") -> Line:
        """The stream's character, then the body, inside the frame if there is one."""
        side = ("│" if self.framed else " ", "$muted")
        body = Content(body) if isinstance(body, str) else body
        inner = body.truncate(self.width - 6, ellipsis=True, pad=True)
        return Line(Content.assemble(" ", side, " ", (stream, style), inner, " ", side), path)

    def here(self, path: str) -> bool:
        """Whether this module is the one chosen, or holds it."""
        return bool(path) and bool(self.selected) and f"{self.selected}.".startswith(f"{path}.")


def draw(stages: Sequence[Stage], width: int, roomy: bool = False, selected: str = "") -> list[Line]:
    """The whole drawing.

    Args:
        width: columns it may take; what is left beyond `MOST_WIDTH` stays empty.
        roomy: whether there is height for the sizes between all steps.
        selected: dotted name of the module to mark; the step that holds it is marked.
    """
    pen = _Pen(max(LEAST_WIDTH, min(MOST_WIDTH, width)), roomy, selected)
    lines: list[Line] = []
    groups = stacks(stages)
    several = sum(bool(group[0].layers) for group in groups) > 1
    for number, group in enumerate(groups):
        if group[0].layers:
            lines += _layers(pen, group, _NUMBER.sub("", group[0].path) if several else "")
        else:
            lines += _plain(pen, group[0], number == 0)
    return lines


def _plain(pen: _Pen, stage: Stage, first: bool) -> Iterator[Line]:
    """Steps on the stream itself: embeddings, the last norm, the head."""
    for block in stage.blocks:
        if block.kind in NORMS:
            yield _norm_on_stream(pen, block)
        elif block.kind == "position" and not first:
            yield _added_on_stream(pen, block)
        else:
            yield from _box_on_stream(pen, block, top=first)
            first = False
    last = stage.blocks[-1] if stage.blocks else None
    if last is not None and last.width:
        yield pen.line("┃", Content.styled(f" {last.width:,}", "$muted"))


def _norm_on_stream(pen: _Pen, block: Block) -> Line:
    here = pen.here(block.path)
    bar, style = ("━", "bold $accent") if here else ("─", "")
    side = ("│" if pen.framed else " ", "$muted")
    text = Content.assemble((f"{bar} ", style), (block.label, style or "bold"), (f"  {block.line}", "$muted"))
    inner = text.truncate(pen.width - 6, ellipsis=True, pad=True)
    joint = "╋" if here else "╂"
    return Line(Content.assemble(" ", side, (bar, style), (joint, style or "bold"), inner, " ", side), block.path)


def _added_on_stream(pen: _Pen, block: Block) -> Line:
    here = pen.here(block.path)
    style = "bold $accent" if here else "bold"
    text = Content.assemble(("━╸ " if here else "── ", style), (block.label, style), (f"  {block.line}", "$muted"))
    return pen.line("⊕", text, block.path)


def _box_on_stream(pen: _Pen, block: Block, top: bool) -> Iterator[Line]:
    here = pen.here(block.path)
    inner = pen.width - 2
    for edge in _box(block, inner, here, 2, ("" if top else "┸" if not here else "╋", "┰" if not here else "╋")):
        yield Line(Content.assemble(" ", edge, " "), block.path)


def _layers(pen: _Pen, group: list[Stage], stack: str) -> Iterator[Line]:
    total = sum(stage.repeat for stage in group)
    if stack:
        yield pen.line("┃", Content.assemble(" ", (stack.rstrip("."), "bold $accent")))
    if len(group) > 1:
        yield from _pattern(pen, group, total)
    for index, stage in enumerate(group[:MOST_KINDS]):
        letter = f"{chr(ord('A') + index)}  " if len(group) > 1 else ""
        if index:
            yield pen.line("┃", "")
        yield from _frame(pen, stage, letter, total)
    left_out = len(group) - MOST_KINDS
    if left_out > 0:
        yield pen.line("┃", Content.styled(f" {left_out} more kinds of layers are not drawn", "$muted"))


def _pattern(pen: _Pen, group: list[Stage], total: int) -> Iterator[Line]:
    """Which layer is of which kind, one letter a layer."""
    kinds = {layer: chr(ord("A") + index) for index, stage in enumerate(group) for layer in stage.layers}
    letters = "".join(kinds[layer] for layer in sorted(kinds))
    room = pen.width - 8
    yield pen.line("┃", Content.styled(f" {total} layers, kind by kind", "$muted"))
    for start in range(0, len(letters), room):
        yield pen.line("┃", Content.assemble(" ", (letters[start : start + room], "bold")))


def _frame(pen: _Pen, stage: Stage, letter: str, total: int) -> Iterator[Line]:
    here = bool(pen.selected) and stage.path == pen.selected
    style = "bold $accent" if here else "$muted"
    flat = "━" if here else "─"
    layers = f"layer {numbered(stage.layers)} " if stage.repeat == 1 else f"layers {numbered(stage.layers)} "
    of = f" of {total}" if letter else ""
    title = Content.assemble((f" {letter}", "bold $accent"), (layers, "bold"))
    count = Content.assemble((f" × {stage.repeat}{of} ", "bold $accent"))
    room = pen.width - 7 - count.cell_length
    title = title.truncate(room, ellipsis=True)
    rule = flat * max(0, room - title.cell_length)
    corners = "┏┓┗┛" if here else "╭╮╰╯"
    yield Line(
        Content.assemble(
            " ", (f"{corners[0]}{flat}", style), ("╂", "bold"), (flat, style), title, (rule, style), count,
            (f"{flat}{corners[1]}", style),
        ),
        stage.path,
    )  # fmt: skip
    inside = replace(pen, framed=True)
    if stage.kinds:
        yield from _kinds(inside, stage)
    for sublayer in _sublayers(stage):
        yield from _draw_sublayer(inside, sublayer, stage.parallel)
    rule = flat * (pen.width - 5)
    yield Line(
        Content.assemble(" ", (f"{corners[2]}{flat}", style), ("╂", "bold"), (f"{rule}{corners[3]}", style)), stage.path
    )


def _kinds(pen: _Pen, stage: Stage) -> Iterator[Line]:
    """What each layer sees, a mark a layer, with the legend."""
    marks = dict(zip(dict.fromkeys(sorted(stage.kinds, key="full_attention".__eq__)), "░█▒▓▚", strict=False))
    shown = "".join(marks.get(kind, "?") for kind in stage.kinds)
    room = pen.width - 8
    for start in range(0, len(shown), room):
        yield pen.line("┃", Content.assemble(" ", (shown[start : start + room], "$accent")))
    for kind, mark in marks.items():
        window = f" {stage.window:,}" if stage.window and "sliding" in kind else ""
        name = kind.removesuffix("_attention").replace("_", " ")
        words = f" {name}{window}: {stage.kinds.count(kind)} layers"
        yield pen.line("┃", Content.assemble(" ", (mark, "$accent"), (words, "$muted")))


def _sublayers(stage: Stage) -> list[_Sublayer]:
    """The steps of a layer, cut after each addition."""
    done: list[_Sublayer] = []
    now = _Sublayer()
    norm_first = bool(stage.blocks) and stage.blocks[0].kind in NORMS
    for block in stage.blocks:
        if block.kind in ADDS:
            now.added = block
            done.append(now)
            now = _Sublayer()
        elif block.kind not in NORMS:
            now.mixers.append(block)
        elif now.mixers and not stage.parallel:
            now.after.append(block)
        elif done and not norm_first and not now.before and not now.mixers:
            done[-1].on_stream.append(block)
        else:
            now.before.append(block)
    return [*done, now] if now.mixers or now.before else done


def _draw_sublayer(pen: _Pen, sublayer: _Sublayer, parallel: bool) -> Iterator[Line]:
    yield pen.line("┠", "──╮")
    width = next((block.width for block in (sublayer.added, *sublayer.mixers[::-1]) if block and block.width), None)
    wide = parallel and len(sublayer.mixers) == 2
    own_norms = wide and len(sublayer.before) == 2
    if not own_norms:
        yield from (_norm_in_branch(pen, block) for block in sublayer.before)
    if pen.roomy and width:
        yield pen.line("┃", Content.styled(f"  │ {width:,}", "$muted"))
    if wide:
        yield from _side_by_side(pen, sublayer.mixers, sublayer.before if own_norms else [])
    else:
        yield from (line for block in sublayer.mixers for line in _box_in_branch(pen, block))
    yield from (_norm_in_branch(pen, block) for block in sublayer.after)
    size = Content.styled(f" {width:,}", "$muted") if width else Content("")
    join = "──┴" + "─" * _half(pen) + "╯" if wide else "──╯"
    yield pen.line("⊕", Content.assemble(join, size))
    yield from (_norm_on_stream(pen, block) for block in sublayer.on_stream)
    if pen.roomy:
        yield pen.line("┃", "")


def _norm_in_branch(pen: _Pen, block: Block) -> Line:
    here = pen.here(block.path)
    gate, style = (" ━┿━ ", "bold $accent") if here else (" ─┼─ ", "")
    text = Content.assemble((gate, style), (block.label, style or "bold"), (f"  {block.line}", "$muted"))
    return pen.line("┃", text, block.path)


def _box_in_branch(pen: _Pen, block: Block) -> Iterator[Line]:
    here = pen.here(block.path)
    for edge in _box(block, pen.width - 7, here, 1, ("┷", "┯") if here else ("┴", "┬")):
        yield pen.line("┃", Content.assemble(" ", edge), block.path)


def _half(pen: _Pen) -> int:
    """Columns between the branches of two steps side by side."""
    return (pen.width - 8) // 2


def _side_by_side(pen: _Pen, blocks: list[Block], norms: list[Block]) -> Iterator[Line]:
    between = _half(pen)
    yield pen.line("┃", "  ├" + "─" * between + "╮")
    boxes = []
    for index, block in enumerate(blocks):
        if norms:
            line = f"{norms[index].label} before it" + (f" · {block.line}" if block.line else "")
            block = replace(block, line=line)
        short = block.label.replace("attention", "attn").replace("feed-forward", "MLP")
        block = replace(block, label=short)
        here = pen.here(block.path)
        boxes.append(list(_box(block, between, here, 1, ("┷", "┯") if here else ("┴", "┬"))))
    height = max(map(len, boxes))
    for box in boxes:
        # The shorter one is filled up between its last line of text and its bottom.
        empty = box[1].plain[0] + " " * (between - 2) + box[1].plain[0]
        box[-1:-1] = [Content.styled(empty, "$muted")] * (height - len(box))
    for left_part, right_part in zip(*boxes, strict=True):
        yield pen.line("┃", Content.assemble(" ", left_part, " ", right_part), blocks[0].path)


def _box(block: Block, width: int, here: bool, at: int, joints: tuple[str, str]) -> Iterator[Content]:
    """The lines of a box; the connection stands `at` so many columns from its left edge.

    Args:
        joints: characters where the connection meets the top and the bottom; empty for none.
    """
    style = "bold $accent" if here else "$muted"
    flat, upright, corners = ("━", "┃", "┏┓┗┛") if here else ("─", "│", "┌┐└┘")

    def edge(first: str, last: str, joint: str) -> Content:
        return Content.styled(first + flat * (at - 1) + (joint or flat) + flat * (width - at - 2) + last, style)

    def inside(text: Content) -> Content:
        shown = text.truncate(width - 4, ellipsis=True, pad=True)
        return Content.assemble((upright, style), " ", shown, " ", (upright, style))

    yield edge(corners[0], corners[1], joints[0])
    yield inside(Content.styled(block.label, "bold $accent" if here else "bold"))
    for text in _wrapped(block.line, width - 4):
        yield inside(Content.styled(text, "" if here else "$muted"))
    yield edge(corners[2], corners[3], joints[1])


def _wrapped(line: str, width: int) -> list[str]:
    """Parts divided by dots, broken between them where that is enough, else between words."""
    rows: list[str] = []
    for part in filter(None, line.split(" · ")):
        if rows and len(rows[-1]) + 3 + len(part) <= width:
            rows[-1] += f" · {part}"
        else:
            rows += textwrap.wrap(part, max(1, width)) or [part]
    return rows
