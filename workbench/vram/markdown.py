"""A budget as Markdown, for issues and notes. Stdlib only."""

from __future__ import annotations

from typing import Any

from workbench.text import gib, one_line

_LABELS = {"kv_cache": "KV cache", "logits": "logits and loss", "overhead": "context and reserve"}


def to_markdown(result: dict[str, Any]) -> str:
    """The object that ``workbench vram --json`` prints, as a page.

    Args:
        result: with ``model``, ``plan``, ``estimate``, ``known``, ``why``, ``gpus`` and what else there is.
    """
    blocks = [f"# VRAM of {_cell(result['model'])}", _cell(plan_words(result["plan"])) + ".", _budget(result)]
    if result.get("gpus"):
        blocks.append(_gpus(result["gpus"]))
    if result.get("suggestions"):
        blocks.append(_suggestions(result["suggestions"]))
    if result.get("warnings"):
        blocks.append("\n".join(f"- {_cell(note)}" for note in result["warnings"]))
    versions = result.get("versions") or {}
    if versions:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        blocks.append(f"GiB = 2^30 bytes. Rules as in {listed}.")
    return "\n\n".join(blocks) + "\n"


def plan_words(plan: dict[str, Any]) -> str:
    """A plan in one line: its job, precision, lengths and what else decides."""
    trains = plan["job"] != "inference"
    parts = [plan["job"], plan["dtype"], f"batch {plan['batch']}", f"{plan['sequence_length']:,} tokens"]
    if plan["quant"] != "none":
        parts.insert(1, plan["quant"] + (" with double quantization" if plan["double_quant"] else ""))
    parts.append(f"attention {plan['attention']}")
    if trains:
        parts.append(plan["optimizer"])
        parts += ["gradient checkpointing"] * plan["gradient_checkpointing"]
        parts += [f"accumulation {plan['accumulation']}"] * (plan["accumulation"] > 1)
    else:
        parts.append(f"{plan['new_tokens']:,} new tokens")
    if plan["job"] in ("lora", "qlora"):
        lora = plan["lora"]
        parts.append(f"rank {lora['r']} on {', '.join(lora['targets'])} in {lora['dtype']}")
    if plan["parallel"] != "none":
        parts.append(f"{plan['gpus']} GPUs, {plan['parallel']}")
    return ", ".join(parts)


def _budget(result: dict[str, Any]) -> str:
    known, why = result.get("known") or {}, result.get("why") or {}
    columns = ["estimate", *(name for name in ("simulation", "measurement") if result.get(name))]
    head = ["part", *(f"{name} (GiB)" for name in columns), "how known", "why"]
    lines = [_row(head), _row(["---", *("---:" for _ in columns), "---", "---"])]
    for name, size in result["estimate"].items():
        if not isinstance(size, int) or (not size and name != "total"):
            continue
        cells = [gib((result[column] or {}).get(name, 0), 3) for column in columns]
        label = _LABELS.get(name, name.replace("_", " "))
        lines.append(_row([label, *cells, known.get(name, ""), why.get(name, "")]))
    return "\n".join(lines)


def _gpus(gpus: list[dict[str, Any]]) -> str:
    lines = [_row(["GPU", "capacity (GiB)", "free (GiB)", "verdict"]), _row(["---", "---:", "---:", "---"])]
    for gpu in gpus:
        verdict = gpu.get("verdict") or ("fits" if gpu["fits"] else "no")
        verdict += f" by {gpu['by']}" if gpu.get("by", "estimate") != "estimate" else ""
        lines.append(_row([gpu["name"], gib(gpu["capacity_bytes"], 1), gib(gpu["free_bytes"], 1), verdict]))
    return "\n".join(lines)


def _suggestions(suggestions: list[dict[str, Any]]) -> str:
    lines = [_row(["change", "saves (GiB)", "then fits", "costs"]), _row(["---", "---:", "---", "---"])]
    for item in suggestions:
        fits = {True: "yes", False: "no", None: ""}[item.get("fits")]
        lines.append(_row([item.get("title", ""), gib(item["saves_bytes"], 2), fits, item["costs"]]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """One line that no table or markup takes apart."""
    line = one_line(str(text), 400)
    for character in "\\`*_[]<>|":
        if character in line and character != "_":
            line = line.replace(character, f"\\{character}")
    return line
