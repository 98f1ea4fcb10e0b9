"""A plan as a TOML file: written, and read back the same. Stdlib only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import toml
from workbench.errors import WorkbenchError
from workbench.paths import write_atomic
from workbench.text import one_line
from workbench.vram.plan import Plan, check_plan, plan_from_dict, plan_to_dict

SCHEMA = 1
MOST_DATASET_TOKENS = 10**15
MAX_FILE_BYTES = 2**20
_MAX_GPUS = 64


@dataclass(frozen=True)
class PlanFile:
    """What a plan file holds."""

    model: str
    plan: Plan
    gpus: tuple[str, ...] = ()
    """Names or sizes of the GPUs it is held against."""
    dataset_tokens: int = 0
    epochs: float = 1.0


def to_toml(file: PlanFile) -> str:
    """The file's text: every field, so that later defaults change nothing."""
    values = plan_to_dict(file.plan)
    lora = values.pop("lora")
    lines = ["# A memory plan of the workbench: workbench vram --plan FILE opens it.", f"schema = {SCHEMA}"]
    lines += [f"model = {_value(file.model)}", f"gpus = {_value(list(file.gpus))}"]
    lines += [f"dataset_tokens = {file.dataset_tokens}", f"epochs = {_value(float(file.epochs))}"]
    lines += ["", "[plan]", *(f"{key} = {_value(value)}" for key, value in values.items())]
    lines += ["", "[plan.lora]", *(f"{key} = {_value(value)}" for key, value in lora.items())]
    return "\n".join(lines) + "\n"


def from_toml(text: str, source: str = "The plan") -> PlanFile:
    """Read what `to_toml` wrote, or a person.

    Raises:
        WorkbenchError: ``bad-toml``, ``bad-plan`` naming what is wrong with it.
    """
    if len(text.encode("utf-8", "replace")) > MAX_FILE_BYTES:
        raise WorkbenchError("bad-plan", f"{source} is larger than {MAX_FILE_BYTES:,} bytes.", "Give a plan file.")
    values = toml.loads(text, source)
    schema = values.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise WorkbenchError(
            "bad-plan", f"{source} has schema {one_line(str(schema), 20)}.", f"This version reads schema {SCHEMA}."
        )
    plan_values = values.get("plan", {})
    if not isinstance(plan_values, dict):
        raise WorkbenchError("bad-plan", f"{source} has no [plan] section.", "Write one with --save first.")
    try:
        plan = plan_from_dict(plan_values)
        check_plan(plan)
    except WorkbenchError as error:
        raise WorkbenchError(error.kind, f"{source}: {error.message}", error.remedy) from None
    return PlanFile(
        model=_text(source, values, "model"),
        plan=plan,
        gpus=_names(source, values.get("gpus", [])),
        dataset_tokens=_count(source, values.get("dataset_tokens", 0)),
        epochs=_epochs(source, values.get("epochs", 1.0)),
    )


def save_plan(file: PlanFile, path: Path, overwrite: bool = False) -> Path:
    """Write the plan to `path`.

    Raises:
        WorkbenchError: ``file-exists``; ``cannot-write`` with the reason.
    """
    if path.exists() and not overwrite:
        raise WorkbenchError("file-exists", f"{path} is there already.", "Choose another name, or overwrite it.")
    if not path.parent.is_dir():
        raise WorkbenchError("cannot-write", f"There is no folder {path.parent}.", "Make it, or choose another place.")
    try:
        write_atomic(path, to_toml(file).encode("utf-8"), mode=0o644)
    except OSError as error:
        raise WorkbenchError("cannot-write", f"{path}: {error.strerror or error}.", "Choose another place.") from None
    return path


def open_plan(path: Path) -> PlanFile:
    """Read the plan at `path`.

    Raises:
        WorkbenchError: ``no-file``, ``bad-toml``, ``bad-plan``.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise WorkbenchError("bad-plan", f"{path} is larger than {MAX_FILE_BYTES:,} bytes.", "Give a plan file.")
        data = path.read_bytes()
    except OSError as error:
        raise WorkbenchError("no-file", f"{path}: {error.strerror or error}.", "Give the file of a plan.") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkbenchError("bad-toml", f"{path} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from None
    return from_toml(text, str(path))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too, but for DEL, which TOML wants escaped; half a surrogate pair is no text.
        text = value.encode("utf-8", "replace").decode("utf-8")
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    return repr(value)


def _text(source: str, values: dict[str, Any], key: str) -> str:
    value = values.get(key, "")
    if not isinstance(value, str):
        raise WorkbenchError("bad-plan", f"{source}: {key} is no text.", f'Write {key} = "…".')
    return value


def _names(source: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_GPUS or not all(isinstance(name, str) for name in value):
        raise WorkbenchError("bad-plan", f"{source}: gpus is no list of names.", 'Write gpus = ["RTX 4090"].')
    return tuple(value)


def _count(source: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_DATASET_TOKENS:
        raise WorkbenchError("bad-plan", f"{source}: dataset_tokens is {value!r:.40}.", "Give a number of tokens.")
    return value


def _epochs(source: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 10_000:
        raise WorkbenchError("bad-plan", f"{source}: epochs is {value!r:.40}.", "Give a number above 0.")
    return float(value)
