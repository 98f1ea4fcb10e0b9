"""The value of ``--lora``: ``r=16,alpha=32,targets=q_proj+v_proj,rslora``."""

from __future__ import annotations

import re
from typing import Any

from workbench.errors import WorkbenchError

EXAMPLE = "Example: --lora r=16,alpha=32,targets=q_proj+v_proj"
_LISTS = ("targets", "exclude", "modules_to_save", "target_parameters")
_NAMES = {"parameters": "target_parameters", "save": "modules_to_save", "rank": "r"}
_SWITCHES = ("rslora", "dora")
_DTYPES = {"fp32": "float32", "bf16": "model", "fp16": "model"}
# A comma ends an item only where the next one begins: a regular expression may hold commas.
_SEPARATOR = re.compile(r",(?=[a-z_]+(?:=|,|$))")


def parse_lora(text: str) -> dict[str, Any]:
    """The fields of `workbench.architecture.lora.LoraPlan` that `text` gives.

    Keys: ``r``, ``alpha``, ``targets`` (``+`` between them), ``regex``, ``exclude``, ``layers`` (``0-3+7``),
    ``save``, ``parameters``, ``bias``, ``dtype``, and the switches ``rslora`` and ``dora``.

    Raises:
        WorkbenchError: ``bad-option`` for an item that is no KEY=VALUE, and for a number that is none.
    """
    fields: dict[str, Any] = {}
    for item in _SEPARATOR.split(text) if text.strip() else []:
        key, equals, value = item.strip().partition("=")
        key = _NAMES.get(key, key)
        if key in _SWITCHES:
            fields[key] = value.lower() not in ("0", "false", "no") if equals else True
        elif not equals or not key:
            raise WorkbenchError("bad-option", f"--lora {item} is not KEY=VALUE.", EXAMPLE)
        elif key == "layers":
            fields[key] = _layers(value)
        elif key in _LISTS:
            fields[key] = [name for name in value.split("+") if name]
        else:
            fields[key] = _scalar(key, value)
    if "alpha" not in fields and isinstance(fields.get("r"), int):
        fields["alpha"] = 2 * fields["r"]
    return fields


def _scalar(key: str, value: str) -> Any:
    if key == "dtype":
        return _DTYPES.get(value, value)
    if key not in ("r", "alpha"):
        return value
    try:
        number = float(value)
    except ValueError:
        raise WorkbenchError("bad-option", f"--lora {key}={value} is not a number.", EXAMPLE) from None
    return int(number) if number.is_integer() else number


def _layers(value: str) -> list[int]:
    layers: list[int] = []
    for part in value.split("+"):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or int(last or first) > 100_000:
            raise WorkbenchError("bad-option", f"--lora layers={value} names no layers.", "Example: layers=0-7+15")
        layers += range(int(first), int(last or first) + 1)
    return layers
