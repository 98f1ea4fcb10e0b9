"""What a plan takes, drawn: a bar for each GPU, the rungs side by side, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from textual.content import Content

from workbench.text import gib
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.flow import flow
from workbench.ui.widgets.memory_bar import CATEGORIES, label_of, mark_of, memory_bar
from workbench.ui.widgets.memory_plot import told
from workbench.vram.ranges import dollars, duration, range_words, speed
from workbench.vram.repeated import not_said_yet

FITS = {
    "fits": ("✔ fits", "$good"),
    "tight": ("⚠ fits, tight", "$warn"),
    "no": ("✖ does not fit", "$bad"),
}
TIGHT_SHARE = 0.05
"""Less free than this share of the capacity is called tight, where the estimate does not say itself."""
KNOWN_WORDS = {"exact": "exact", "table": "from simulations", "rule": "by rule", "not covered": "not covered"}
LABEL_WIDTH = 15
"""Mark and name of a category."""
HEADS = (("estimate", 9), ("simulated", 10), ("measured", 9))
TABLE_WIDTH = LABEL_WIDTH + sum(width for _, width in HEADS)
ROOM_FOR_HOW, ROOM_FOR_WHY = TABLE_WIDTH + 10, TABLE_WIDTH + 55


def verdict_of(gpu: Mapping[str, Any]) -> str:
    """``fits``, ``tight`` or ``no`` for one GPU of the estimate."""
    if gpu.get("verdict") in FITS:
        return str(gpu["verdict"])
    if not gpu.get("fits"):
        return "no"
    free, capacity = gpu.get("free_bytes") or 0, gpu.get("capacity_bytes") or 0
    return "tight" if free < TIGHT_SHARE * capacity else "fits"


def parts_of(rung: Mapping[str, Any] | None) -> dict[str, int]:
    """The categories of a rung that hold anything, in the order in which they are always shown."""
    sizes = {
        str(name): size for name, size in (rung or {}).items() if isinstance(size, int) and not isinstance(size, bool)
    }
    known = {name: sizes[name] for name in CATEGORIES if sizes.get(name)}
    return known


def total_of(rung: Mapping[str, Any] | None) -> int:
    """All of a rung; 0 where it was not run."""
    if not rung:
        return 0
    total = rung.get("total")
    return total if isinstance(total, int) else sum(parts_of(rung).values())


def error_words(value: float, against: float) -> str:
    """How far a number is from another, in per cent."""
    share = 100 * (value / against - 1) if against else 0.0
    return f"{share:+.1f} %" if abs(share) >= 0.05 else "0.0 %"


def budget(result: Mapping[str, Any], simulation: Mapping[str, Any] | None, width: int) -> Content:
    """The GPUs with their bars, the rungs, and notes, for a width."""
    estimate = result.get("estimate") or {}
    parts = parts_of(estimate)
    blocks = [*_gpu_blocks(result, parts, width)]
    blocks.append(Content("\n").join(rung_rows(result, simulation, width)))
    told_lines = [*_notes(result, simulation, width)]
    if told_lines:
        blocks.append(Content("\n").join(told_lines))
    return Content("\n\n").join(blocks)


# --- GPUs --------------------------------------------------------------------------------------------------


def _gpu_blocks(result: Mapping[str, Any], parts: dict[str, int], width: int) -> Iterator[Content]:
    gpus = result.get("gpus") or []
    sharing = int((result.get("plan") or {}).get("gpus") or 1)
    if not gpus:
        nothing = (("No GPU on this box: ", "$muted"), ("t", "bold $accent"), (" chooses one.", "$muted"))
        yield Content.assemble(*nothing, "\n", memory_bar(parts, 0, width))
    for gpu in gpus:
        yield gpu_block(gpu, parts, width, sharing)


def gpu_block(gpu: Mapping[str, Any], parts: dict[str, int], width: int, sharing: int = 1) -> Content:
    """A GPU's name, verdict and bar.

    Args:
        gpu: as the estimate has it.
        parts: bytes by category.
        width: of the block.
        sharing: how many such GPUs share the job; the bar is that of one.
    """
    capacity, free = int(gpu.get("capacity_bytes") or 0), int(gpu.get("free_bytes") or 0)
    words, style = FITS[verdict_of(gpu)]
    many = f"each of {sharing} × " if sharing > 1 else ""
    name = Content.assemble(
        (many, "$muted"), (str(gpu.get("name") or "GPU"), "bold"), (f" · {gib(capacity, 1)} GiB", "$muted")
    )
    room = f"  {gib(abs(free), 1)} GiB {'free' if free >= 0 else 'short'}"
    by = f" by {gpu['by']}" if gpu.get("by", "estimate") != "estimate" else ""
    end = Content.assemble((words + by, f"bold {style}"), (room, "$muted"))
    notes = [Content.assemble(("⚠ ", "$warn"), str(note)) for note in gpu.get("notes") or ()]
    if name.cell_length + end.cell_length + 2 > width:
        head = Content.assemble(name.truncate(width, ellipsis=True), "\n", end)
    else:
        head = Content.assemble(name, " " * (width - name.cell_length - end.cell_length), end)
    return Content("\n").join([head, *_other_rungs(gpu), memory_bar(parts, capacity, width), *notes])


def _other_rungs(gpu: Mapping[str, Any]) -> Iterator[Content]:
    """What a lesser rung says where it is not the same."""
    for rung, said in (gpu.get("rungs") or {}).items():
        if said["fits"] != gpu["fits"]:
            words, style = FITS[said["verdict"]]
            short = "free" if said["free_bytes"] >= 0 else "short"
            left_over = f", {gib(abs(said['free_bytes']), 1)} GiB {short}"
            yield Content.assemble((words, style), (f" by {rung}{left_over}", "$muted"))


# --- The rungs ---------------------------------------------------------------------------------------------


def rung_rows(result: Mapping[str, Any], simulation: Mapping[str, Any] | None, width: int) -> Iterator[Content]:
    """Categories with what each rung says of them; a rung that was not run says how it is."""
    rungs: list[Mapping[str, Any] | None] = [result.get("estimate"), simulation, result.get("measurement")]
    unit, divisor = ("GiB", 2**30) if max(total_of(rung) for rung in rungs) >= 2**30 else ("MiB", 2**20)
    space = " " * min(3, max(0, (width - TABLE_WIDTH) // 4))
    how = "  how it is known" if width >= ROOM_FOR_WHY else "  known" if width >= ROOM_FOR_HOW else ""
    heads = [right(word, room, "bold" if rung else "$muted") for (word, room), rung in zip(HEADS, rungs, strict=True)]
    yield _table_row(left(f"   {unit}", LABEL_WIDTH, "$muted"), heads, space, Content.styled(how, "$muted"))
    known, why = result.get("known") or {}, result.get("why") or {}
    for number, name in enumerate(name for name in CATEGORIES if any(parts_of(rung).get(name) for rung in rungs)):
        texts = [f"{parts_of(rung).get(name, 0) / divisor:,.2f}" if rung else "" for rung in rungs]
        cells = [right(text, room) for text, (_, room) in zip(texts, HEADS, strict=True)]
        if number == 0:
            keyed = zip(rungs, ("", "s", "m"), HEADS, strict=True)
            cells = [
                cell if rung else Content.assemble(" " * (room - 6), (key, "bold $accent"), (" runs", "$muted"))
                for cell, (rung, key, (_, room)) in zip(cells, keyed, strict=True)
            ]
        told_how = _how(str(known.get(name, "")), str(why.get(name, "")), width, len(space))
        yield _table_row(
            Content.assemble(mark_of(name), " ", left(label_of(name), LABEL_WIDTH - 3)), cells, space, told_how
        )
    totals = [total_of(rung) for rung in rungs]
    cells = [
        right(f"{total / divisor:,.2f}" if total else "–", room, "bold $accent" if total else "$muted")
        for total, (_, room) in zip(totals, HEADS, strict=True)
    ]
    yield _table_row(left("   total", LABEL_WIDTH, "bold"), cells, space)
    yield from _error_rows(rungs, space, result.get("errors") or {})


def _table_row(label: Content, cells: Sequence[Content], space: str, how: Content | None = None) -> Content:
    return Content.assemble(label, *(part for cell in cells for part in (space, cell)), how or "")


def _how(word: str, reason: str, width: int, space: int) -> Content:
    if width < ROOM_FOR_HOW:
        return Content("")
    told_word = KNOWN_WORDS.get(word, word)
    text = f"  {told_word}: {reason}" if reason and width >= ROOM_FOR_WHY else f"  {told_word}"
    return Content.styled(text, "$muted").truncate(max(0, width - TABLE_WIDTH - 3 * space), ellipsis=True)


def _error_rows(rungs: Sequence[Mapping[str, Any] | None], space: str, errors: Mapping[str, Any]) -> Iterator[Content]:
    """Each rung's error against the next that was run; against a measurement as the session says where it does.

    A CPU has none of a GPU's overhead: beside a measurement there, tensors are held against tensors.
    """
    totals = [total_of(rung) for rung in rungs]
    run = [number for number, total in enumerate(totals) if total]
    if len(run) > 1:
        cells = []
        for number, (_, room) in enumerate(HEADS):
            after = next((other for other in run if other > number), None)
            words = error_words(_beside(rungs[number], rungs[after]), totals[after]) if after and number in run else ""
            told_error = (errors.get("simulation" if number else "estimate") or {}).get("total")
            if after == 2 and isinstance(told_error, (int, float)):
                words = f"{told_error:+.1f} %"
            cells.append(right(words, room, "$muted"))
        yield _table_row(left("   error", LABEL_WIDTH, "$muted"), cells, space)


def _beside(rung: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> int:
    """What of `rung` is held against the total of `after`."""
    on_cpu = (after or {}).get("device_kind") == "cpu"
    return total_of(rung) - (int((rung or {}).get("overhead") or 0) if on_cpu else 0)


def tensors_words(result: Mapping[str, Any], simulation: Mapping[str, Any]) -> str:
    """What both rungs say of the tensors alone, without context and reserve."""
    allocated = int(result.get("allocated_bytes") or 0)
    requested = int(simulation.get("requested_bytes") or 0) - int(simulation.get("workspace_bytes") or 0)
    if not allocated or requested <= 0:
        return ""
    return f"Tensors alone: {told(allocated)} estimated, {error_words(allocated, requested)} beside the simulation."


# --- What is to be said ------------------------------------------------------------------------------------


def _notes(result: Mapping[str, Any], simulation: Mapping[str, Any] | None, width: int) -> Iterator[Content]:
    peaks = peak_lines(result, width)
    # Where lines are few the peak alone is told, so that the warnings stay in view.
    yield from peaks[:1] if width < ROOM_FOR_HOW else peaks
    warnings = [*(result.get("warnings") or ())]
    for warning in (*warnings, *not_said_yet(warnings, (simulation or {}).get("warnings") or ())):
        yield Content.assemble(("⚠ ", "bold $warn"), str(warning))
    yield from cost_lines(result, width)
    if simulation and (words := tensors_words(result, simulation)):
        yield Content.styled(words, "$muted")
    if measured := result.get("measurement"):
        yield Content.styled(measured_words(measured), "$muted")


def measured_words(measured: Mapping[str, Any]) -> str:
    """Where it was measured, and what was."""
    parts = [f"Measured on {measured.get('device') or 'this box'}"]
    parts += ["tensors alone, without a GPU's overhead"] if measured.get("device_kind") == "cpu" else []
    parts += ["random weights"] if measured.get("weights_from") == "random" else []
    return "; ".join(parts) + "."


def peak_lines(result: Mapping[str, Any], width: int) -> list[Content]:
    """The largest moment of each phase, the peak's first and marked."""
    peak = result.get("peak_phase")
    phases = sorted(result.get("phases") or [], key=lambda phase: phase["name"] != peak)
    pieces = [
        Content.assemble(
            ("peak in " if phase["name"] == peak else "", "$accent"),
            (f"{phase['name']} {told(phase['total'])}", "bold" if phase["name"] == peak else "$muted"),
        )
        for phase in phases
    ]
    return flow(pieces, "   ", width) if pieces else []


def cost_lines(result: Mapping[str, Any], width: int) -> list[Content]:
    """Speed, time and money in one or two lines, as ranges."""
    cost, plan = result.get("cost") or {}, result.get("plan") or {}
    trains = plan.get("job", "inference") != "inference"
    pieces = []
    if cost.get("tokens_per_second"):
        pieces.append(f"{range_words(cost['tokens_per_second'], speed)} tok/s")
    if cost.get("seconds"):
        what = "the data set" if trains else "an answer" if plan.get("batch") == 1 else "the batch"
        pieces.append(f"{range_words(cost['seconds'], duration)} {what}")
    elif cost.get("seconds_per_step"):
        pieces.append(f"{range_words(cost['seconds_per_step'], duration)} a step")
    if cost.get("usd"):
        pieces.append(f"${range_words(cost['usd'], dollars)}")
    if not pieces:
        return []
    return flow(
        [Content.styled(f"about {pieces[0]}", "$muted"), *(Content.styled(p, "$muted") for p in pieces[1:])],
        " · ",
        width,
    )
