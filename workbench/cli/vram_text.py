"""Memory budgets as text for people."""

from __future__ import annotations

from typing import Any

from workbench.cli.output import console, print_text, table
from workbench.text import format_bytes, format_count, format_seconds, gib
from workbench.vram.markdown import plan_words
from workbench.vram.ranges import dollars, duration, range_words, speed

BAR_WIDTH = 64
# Told apart without colour too.
FILLS = {
    "weights": ("█", "blue"),
    "adapters": ("▓", "magenta"),
    "gradients": ("▚", "red"),
    "optimizer": ("▒", "yellow"),
    "activations": ("▞", "green"),
    "kv_cache": ("▓", "cyan"),
    "logits": ("░", "bright_magenta"),
    "overhead": ("·", "bright_black"),
}
LABELS = {"kv_cache": "KV cache", "logits": "logits, loss"}
VERDICTS = {"fits": "fits", "tight": "fits, tight", "no": "does not fit"}
MOST_SUGGESTIONS = 8
OWNERS_SHOWN = 5


def print_budget(result: dict[str, Any]) -> None:
    """Bars for the GPUs, the categories, and what follows from them."""
    print_head(result["model"], result["plan"], [gpu["name"] for gpu in result["gpus"]])
    estimate = result["estimate"]
    parts = {name: count for name, count in estimate.items() if name != "total" and count}
    _print_solved(result.get("solved"))
    for gpu in result["gpus"]:
        _print_gpu(gpu, parts)
    if not result["gpus"]:
        _print_bar(parts, estimate["total"], estimate["total"])
    print_text()
    _print_categories(result, parts)
    _print_fitted(result.get("fitted"))
    for note in result.get("warnings", ()):
        print_text(f"! {note}")
    _print_suggestions(result)
    _print_cost(result)
    for line in result.get("launch") or ():
        if result["plan"]["gpus"] > 1:
            print_text(f"Start with: {line}")
    if not result["gpus"]:
        print_text("No GPU on this box to hold it against; name one with --gpu, by name or size (--gpu 24GiB).")


def print_head(model: str, plan: dict[str, Any], gpus: list[str]) -> None:
    """Which plan of which model it is, held against which GPUs, in one line."""
    on = f" on {', '.join(gpus)}" if gpus else ""
    print_text(f"{model}: {plan_words(plan)}{on}")


def _print_gpu(gpu: dict[str, Any], parts: dict[str, int]) -> None:
    total = sum(parts.values())
    left = f"{gib(abs(gpu['free_bytes']))} GiB {'free' if gpu['free_bytes'] >= 0 else 'short'}"
    others = [f"{_verdict(said, True)} by {rung}; " for rung, said in gpu["rungs"].items() if _differs(said, gpu)]
    by = f" by {gpu['by']}" if len(gpu["rungs"]) > 1 else ""
    said = f"{''.join(others)}{_verdict(gpu, bool(others))}{by}, {left}"
    print_text(f"{gpu['name']}, {gib(gpu['capacity_bytes'], 1)} GiB: {said}")
    _print_bar(parts, gpu["capacity_bytes"], max(total, gpu["capacity_bytes"]))
    for note in gpu.get("notes", ()):
        print_text(f"  ! {note}")


def _verdict(said: dict[str, Any], marked: bool) -> str:
    mark = ("✔ " if said["fits"] else "✖ ") if marked else ""
    return mark + VERDICTS[said["verdict"]]


def _differs(said: dict[str, Any], gpu: dict[str, Any]) -> bool:
    return bool(said["fits"] != gpu["fits"])


def _print_bar(parts: dict[str, int], capacity: int, scale: int) -> None:
    """One character for each share of `scale`; the capacity ends with a line if the parts go beyond it."""
    from rich.text import Text

    bar = Text("  ")
    filled = done = 0
    for name, count in parts.items():
        done += count
        cells = round(BAR_WIDTH * done / max(1, scale)) - filled
        character, style = FILLS[name]
        bar.append(character * cells, style)
        filled += cells
    bar.append("─" * (BAR_WIDTH - filled), "bright_black")
    limit = round(BAR_WIDTH * capacity / max(1, scale))
    if limit < BAR_WIDTH:
        bar = bar[: limit + 2] + Text("┃", "bold red") + bar[limit + 3 :]
    console().print(bar)


def _print_categories(result: dict[str, Any], parts: dict[str, int]) -> None:
    from rich.text import Text

    total = result["estimate"]["total"]
    known, why = result.get("known", {}), result.get("why", {})
    columns = [name for name in ("simulation", "measurement") if result.get(name)]
    unit, divisor = ("GiB", 2**30) if total >= 2**30 else ("MiB", 2**20)
    numbers = [unit, "share", *columns]
    grid = table("", "part", *numbers, "bytes", "how known", right=(*numbers, "bytes"))
    for name, count in {**parts, "total": total}.items():
        mark, style = FILLS.get(name, (" ", ""))
        others = [f"{(result[column] or {}).get(name, 0) / divisor:,.2f}" for column in columns]
        share = f"{100 * count / max(1, total):.1f} %"
        reason = f"{known.get(name, '')}: {why[name]}" if name in why else ""
        label = LABELS.get(name, name.replace("_", " "))
        grid.add_row(Text(mark, style), label, f"{count / divisor:,.2f}", share, *others, f"{count:,}", reason)
    console().print(grid)
    print_text()
    _print_simulation(result, unit, divisor)
    _print_measurement(result)
    phases = ", ".join(f"{phase['name']} {phase['total'] / divisor:,.2f}" for phase in result.get("phases", ()))
    if phases:
        print_text(f"Largest moment of each phase, without overhead ({unit}): {phases}.")


def _print_simulation(result: dict[str, Any], unit: str, divisor: int) -> None:
    simulation = result.get("simulation")
    if not simulation:
        return
    allocated, requested = result["allocated_bytes"], simulation["requested_bytes"] - simulation["workspace_bytes"]
    print_text(
        f"Simulated: {simulation['allocated_bytes'] / divisor:,.2f} {unit} allocated and "
        f"{simulation['reserved_bytes'] / divisor:,.2f} reserved at the peak, in {simulation['peak_phase']}; "
        f"the estimate's tensors are {100 * (allocated / max(1, requested) - 1):+.2f} % beside it."
    )
    for owner in simulation["owners"][:OWNERS_SHOWN]:
        place = owner["module"] or "the loss"
        print_text(f"  {format_bytes(owner['bytes'])} {owner['category']}: {owner['operator']} in {place}")


def _print_measurement(result: dict[str, Any]) -> None:
    measurement = result.get("measurement")
    if not measurement:
        return
    steps = ", ".join(format_seconds(seconds) for seconds in measurement["step_seconds"])
    what = "steps" if result["plan"]["job"] != "inference" else "prefill and steps"
    weights = "the checkpoint's" if measurement["weights_from"] == "checkpoint" else "random"
    held, where = format_bytes(measurement["allocated_bytes"]), measurement["device"]
    print_text(
        f"Measured on {where} with {weights} weights: {held} of tensors at the peak, in "
        f"{measurement['peak_phase']}; {what} took {steps}."
    )
    for rung, found in (result.get("errors") or {}).items():
        name_of_rung = "simulation with the CPU's operators" if rung == "cpu_simulation" else rung
        named = [(name, found.get(name)) for name in ("allocated", "total", *FILLS)]
        told = [f"{LABELS.get(name, name)} {error:+.2f} %" for name, error in named if error]
        print_text(f"  {name_of_rung} beside it: {', '.join(told) if told else 'equal'}")
    for note in measurement["notes"]:
        print_text(f"  {note}")


def _print_fitted(fitted: dict[str, Any] | None) -> None:
    if fitted is None:
        return
    for change in fitted["changes"]:
        print_text(f"Changed: {change['title']} ({change['costs']}), {format_bytes(change['saves_bytes'])} less.")
    if not fitted["fits"]:
        print_text("No set of changes makes it fit.")
    elif not fitted["changes"]:
        print_text("It fits as it is; nothing was changed.")
    if fitted["not_simulated"]:
        print_text(f"! By estimate only. {fitted['not_simulated']}")


def _print_solved(solved: list[dict[str, Any]] | None) -> None:
    """Before the table, which is of the plan as it was given."""
    if solved:
        print_text("Solved, by estimate; the table is of the plan as given:")
    for found in solved or ():
        what = "batch" if found["field"] == "batch" else "sequence"
        if found["value"] is None:
            print_text(f"  {found['gpu']}: not even with a {what} of 1.")
            continue
        note = ", beyond the model's context" if found["beyond_context"] else ""
        print_text(
            f"  {found['gpu']}: largest {what} that fits is {found['value']:,}{note} "
            f"({gib(found['total_bytes'])} GiB of {gib(found['capacity_bytes'])})."
        )


def _print_suggestions(result: dict[str, Any]) -> None:
    found = result.get("suggestions") or []
    if not found or all(gpu["verdict"] == "fits" for gpu in result["gpus"]):
        return
    print_text()
    grid = table("to save memory", "saves", "then", "costs", right=("saves",))
    for item in found[:MOST_SUGGESTIONS]:
        then = {True: "fits", False: "does not fit", None: ""}[item["fits"]]
        grid.add_row(item["title"], format_bytes(item["saves_bytes"]), then, item["costs"])
    console().print(grid)


def _print_cost(result: dict[str, Any]) -> None:
    cost = result.get("cost") or {}
    lines = [f"{format_count(cost['flops_per_token'])} FLOPs a token"] if cost.get("flops_per_token") else []
    if cost.get("tokens_per_second"):
        lines.append(f"{range_words(cost['tokens_per_second'], speed)} tokens/s")
    if cost.get("seconds"):
        what = "the data set" if result["plan"]["job"] != "inference" else "one prompt and its answer"
        lines.append(f"{range_words(cost['seconds'], duration)} for {what}")
    if cost.get("usd"):
        lines.append(f"${range_words(cost['usd'], dollars)}")
    if lines:
        print_text(f"About {', '.join(lines)}.")
    for note in cost.get("notes") or ():
        print_text(f"  {note}")


def print_survey(rows: list[dict[str, Any]]) -> None:
    """One line for each GPU; those that the plan names are marked."""
    numbers = ("GiB", "free", "largest batch", "longest sequence")
    grid = table("GPU", *numbers, "", "notes", right=numbers)
    for row in rows:
        batch, longest = row["largest_batch"], row["longest_sequence"]
        grid.add_row(
            f"› {row['name']}" if row["named"] else row["name"],
            gib(row["capacity_bytes"], 1),
            gib(row["free_bytes"], 1),
            "–" if batch is None else f"{batch:,}",
            "–" if longest is None else f"{longest:,}{' ⚠' if row['beyond_context'] else ''}",
            VERDICTS[row["verdict"]],
            " ".join(row["notes"]),
        )
    console().print(grid)
    if any(row["named"] for row in rows):
        print_text("› named by the plan or --gpu.")
    if any(row["beyond_context"] for row in rows):
        print_text("⚠ longer than the model was made for.")


def print_rules(rows: list[dict[str, Any]], why: list[str]) -> None:
    """The teaching tables beside the right numbers, in GB as they state them."""
    for row in rows:
        print_text(
            f"{row['title']}: taught {row['thumb_bytes'] / 1e9:,.1f} GB, right {row['right_bytes'] / 1e9:,.1f} GB"
        )
        print_text(f"  {row['thumb']}")
        print_text(f"  {row['why']}")
        print_text()
    print_text("Why such tables mislead:")
    for reason in why:
        print_text(f"  {reason}")
