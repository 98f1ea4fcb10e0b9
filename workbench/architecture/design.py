"""Designing a model: the values of a config that can be edited, what speaks against an edit, saving it. Stdlib only."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench import paths
from workbench.architecture import config as reading
from workbench.architecture.design_fields import EDITABLE, Editable
from workbench.architecture.skeleton import Skeleton
from workbench.architecture.validate import ACTIVATIONS, MAX_LAYERS, Problem, continued, find_problems
from workbench.errors import WorkbenchError
from workbench.models import weights
from workbench.models.reference import nearest
from workbench.text import one_line

FAMILY_PREFIX = "family:"
# The first wins where a config has both (transformers 5.23, ``modeling_rope_utils.py``).
_ROPE_SECTIONS = ("rope_scaling", "rope_parameters")
_ROPE_KEYS = (
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor"),
    *("beta_fast", "beta_slow", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor", "mscale"),
    *("mscale_all_dim", "partial_rotary_factor", "truncate", "mrope_section", "mrope_interleaved"),
)
_DTYPE_KEYS = ("dtype", "torch_dtype")
_LISTS_OF_LAYERS = ("layer_types", "mlp_layer_types", "layers_block_type")
# Values of a checkpoint that a design has not got, and code that a saved config must not ask for.
_DROPPED_WHEN_SAVED = ("_name_or_path", "quantization_config", "auto_map", "transformers_version")


@dataclass(frozen=True)
class Family:
    """A small model of a family, to begin with."""

    name: str
    """``family:llama``: taken wherever a model to inspect or design is named."""
    label: str
    line: str


@dataclass(frozen=True)
class Field:
    """One value of a config that can be edited."""

    key: str
    """Dotted, under the family's own name."""
    label: str
    group: str
    """``size``, ``attention``, ``experts``, ``position``, ``vocabulary``, ``state`` or ``other``."""
    kind: str
    """``integer``, ``number``, ``boolean``, ``choice``, ``text`` or ``list``."""
    value: Any
    original: Any
    least: Optional[float]
    most: Optional[float]
    step: Optional[float]
    """What one press adds: the smallest sensible change."""
    choices: tuple[Any, ...]
    line: str
    """What it means, in one line."""


def families() -> list[Family]:
    """The families that can be designed from scratch."""
    return [
        Family(FAMILY_PREFIX + str(entry["config"]["model_type"]), entry["label"], entry["line"])
        for entry in _families()
    ]


def family_config(name: str) -> dict[str, Any]:
    """The small config behind ``family:llama``.

    Raises:
        WorkbenchError: ``unknown-family`` naming the nearest.
    """
    wanted = name[len(FAMILY_PREFIX) :].strip().lower()
    known = {str(entry["config"]["model_type"]): entry["config"] for entry in _families()}
    if wanted not in known:
        close = nearest(wanted, known) if wanted else list(known)
        raise WorkbenchError(
            "unknown-family",
            f"There is no family called {one_line(wanted, 60) or 'nothing'} to start from.",
            f"Nearest: {', '.join(close)}." if close else f"There are {', '.join(known)}.",
        )
    return copy.deepcopy(known[wanted])


@functools.lru_cache(maxsize=1)
def _families() -> list[dict[str, Any]]:
    text = Path(__file__).with_name("families.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)["families"]
    return found


def apply_changes(base: dict[str, Any], changes: dict[str, Any], original: Optional[Skeleton] = None) -> dict[str, Any]:
    """`base` with values replaced; a dotted key reaches into a section.

    A common name stands for the family's own (``hidden_size`` for GPT-2's ``n_embd``) where `original` tells it. A list
    of layer kinds follows a changed number of layers, as a list that does not fit is never meant.

    Raises:
        WorkbenchError: ``bad-option`` for a key that leads nowhere.
    """
    config = copy.deepcopy(base)
    aliases = dict(original.aliases) if original else {}
    replaced = {aliases.get(key, key): value for key, value in changes.items()}
    for key, value in replaced.items():
        *parents, last = _as_spelt(config, key).split(".")
        target, full = config, original.config if original else {}
        for parent in parents:
            inner, default = target.get(parent), _section(full, parent)
            if inner is None and (default or parent in _ROPE_SECTIONS):
                # A section that the file leaves to its defaults; one for rope is never a mix of both.
                inner = target[parent] = copy.deepcopy(default) if parent in _ROPE_SECTIONS else {}
            if not isinstance(inner, dict):
                raise WorkbenchError("bad-option", f"The config has no object {one_line(parent, 60)}.", "")
            target, full = inner, default
        if last in _DTYPE_KEYS:
            for other in _DTYPE_KEYS:
                target.pop(other, None)
        target[last] = copy.deepcopy(value)
    _follow_layers(config, replaced)
    return config


def _as_spelt(config: dict[str, Any], key: str) -> str:
    """`key` with the section for rope, or the load dtype, under the name that `config` has it by."""
    parts = key.split(".")
    section: Any = config
    for place, part in enumerate(parts):
        if not isinstance(section, dict):
            break
        names = _ROPE_SECTIONS if place < len(parts) - 1 else _DTYPE_KEYS
        if part in names:
            wanted = dict if names is _ROPE_SECTIONS else object
            present = (name for name in names if section.get(name) is not None and isinstance(section[name], wanted))
            parts[place] = next(present, part)
        section = section.get(parts[place])
    return ".".join(parts)


def _section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`; transformers 5 keeps what files call rope_scaling under rope_parameters."""
    names = (key, *reversed(_ROPE_SECTIONS)) if key in _ROPE_SECTIONS else (key,)
    return next((config[name] for name in names if isinstance(config.get(name), dict)), {})


def _follow_layers(config: dict[str, Any], changes: dict[str, Any]) -> None:
    for section_key in ("", *(key for key, value in config.items() if isinstance(value, dict))):
        section = config[section_key] if section_key else config
        prefix = f"{section_key}." if section_key else ""
        layers = section.get("num_hidden_layers")
        if f"{prefix}num_hidden_layers" not in changes or type(layers) is not int or not 0 < layers <= MAX_LAYERS:
            continue
        for key in _LISTS_OF_LAYERS:
            listed = section.get(key)
            if isinstance(listed, list) and listed and f"{prefix}{key}" not in changes:
                section[key] = continued(listed, layers)


def design_problems(base: dict[str, Any], changes: dict[str, Any], original: Optional[Skeleton]) -> list[Problem]:
    """What speaks against `changes` to `base`: unknown keys, wrong kinds, and all that makes a config impossible.

    Args:
        original: the skeleton of `base`, which knows every key of the family with its default; None if it cannot be
            built here, which leaves keys and kinds unchecked.
    """
    problems = list(_unknown_keys(changes, original)) if original else []
    if problems:
        return problems
    if original:
        problems += _wrong_kinds(changes, original)
    try:
        config = apply_changes(base, changes, original)
    except WorkbenchError as error:
        return [Problem(next(iter(changes)), None, error.message)]
    problems += _idle_factors(config, changes)
    named = {problem.key for problem in problems}
    return problems + [problem for problem in find_problems(config) if problem.key not in named]


def _unknown_keys(changes: dict[str, Any], original: Skeleton) -> Iterator[Problem]:
    """A misspelt key would change nothing, in silence."""
    for key, value in changes.items():
        found, prefix, wrong, known = _look_up(original.config, key)
        if not found:
            rest = key[len(prefix) + len(wrong) :]
            yield Problem(
                key,
                value,
                f"A {original.model_type} config has no value {one_line(key, 60)}.",
                tuple(f"{prefix}{name}{rest}" for name in nearest(wrong, known)),
            )


def _look_up(config: dict[str, Any], key: str) -> tuple[bool, str, str, list[str]]:
    """Whether the dotted key may be there; where not, what comes before the wrong part, that part, and those known."""
    *parents, last = key.split(".")
    section, prefix = config, ""
    for parent in parents:
        inner = _section(section, parent)
        if not inner and parent not in _ROPE_SECTIONS:
            objects = [name for name, value in section.items() if isinstance(value, dict)]
            return False, prefix, parent, [*objects, *_ROPE_SECTIONS]
        section, prefix = inner, f"{prefix}{parent}."
    if any(parent in _ROPE_SECTIONS for parent in parents):
        known = [*section, *_ROPE_KEYS]
        return last in known, prefix, last, known
    # Other objects but configs are free-form, and old names of keys are read too.
    free = bool(parents) and not parents[-1].endswith("config")
    old = last in ("rope_theta", "rope_scaling", *_DTYPE_KEYS)
    return last in section or free or old, prefix, last, list(section)


def _idle_factors(config: dict[str, Any], changes: dict[str, Any]) -> Iterator[Problem]:
    """A factor that no kind of stretching reads."""
    for key, value in changes.items():
        *parents, last = _as_spelt(config, key).split(".")
        section = config
        for parent in parents:
            section = _section(section, parent)
        kind = section.get("rope_type", section.get("type", "default"))
        if last == "factor" and kind == "default" and any(parent in _ROPE_SECTIONS for parent in parents):
            said = f"{one_line(key, 80)} stretches nothing while rope_type is default"
            yield Problem(key, value, f"{said}: set {key.rpartition('.')[0]}.rope_type too, to yarn or linear.")


def _wrong_kinds(changes: dict[str, Any], original: Skeleton) -> Iterator[Problem]:
    for key, value in changes.items():
        was: Any = original.config
        *parents, last = key.split(".")
        for parent in parents:
            was = _section(was, parent)
        was = was.get(last)
        wanted, close = _wanted_kind(was, value)
        if wanted:
            shown = one_line(json.dumps(value, default=str), 60)
            yield Problem(key, value, f"{one_line(key, 80)} is {shown}; it must be {wanted}.", close)


def _wanted_kind(was: Any, value: Any) -> tuple[str, tuple[Any, ...]]:
    """What a new value must be, judged by the one it replaces; empty if it may be what it is."""
    if value is None or was is None:
        return "", ()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, float) and not math.isfinite(value):
        return ("a finite number", (was,)) if not isinstance(was, float) or math.isfinite(was) else ("", ())
    if isinstance(was, bool):
        return ("", ()) if isinstance(value, bool) else ("true or false", (not was, was))
    if isinstance(was, int) and (isinstance(value, bool) or not isinstance(value, int)):
        # Some sizes may be given layer by layer.
        return ("", ()) if isinstance(value, list) else ("a whole number", (round(value),) if number else (was,))
    if isinstance(was, float) and not number:
        return "a number", (was,)
    if isinstance(was, str) and not isinstance(value, str):
        return "a text", (was,)
    if isinstance(was, list) and not isinstance(value, (list, int)):
        return "a list", ()
    if isinstance(was, dict) and not isinstance(value, dict):
        return "an object", ()
    return "", ()


def design_fields(config: dict[str, Any], original: Skeleton) -> list[Field]:
    """The values that are worth editing, in a useful order; those that the family has not got are left out.

    Args:
        config: the edited config, for the present values.
        original: the skeleton before any edit.
    """
    full = original.config
    text = reading.text_config(full)
    prefix = next((f"{key}." for key, value in full.items() if value is text), "") if text is not full else ""
    aliases = dict(original.aliases)
    found = []
    for editable in EDITABLE:
        for start in dict.fromkeys((prefix, "")):
            key = start + editable.key
            section = text if start else full
            if editable.key in section and key not in aliases:
                found.append(_field(editable, key, section, _value_at(config, key, section[editable.key])))
                break
    return found


def _value_at(config: dict[str, Any], key: str, default: Any) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value


def _field(editable: Editable, key: str, section: dict[str, Any], value: Any) -> Field:
    kind = editable.kind
    choices = ACTIVATIONS if kind == "activation" else editable.choices
    return Field(
        key=key,
        label=editable.label,
        group=editable.group,
        kind="choice" if kind == "activation" else "list" if isinstance(value, list) else kind,
        value=value,
        original=section[editable.key],
        least=editable.least,
        most=MAX_LAYERS if "layers" in editable.label else None,
        step=_step(editable, section),
        choices=choices,
        line=editable.line,
    )


def _step(editable: Editable, section: dict[str, Any]) -> Optional[float]:
    """The hidden size moves by whole heads, so that the next value is a possible one; other sizes by theirs."""
    if editable.step == "heads":
        # Twice, as rotary positions need even heads.
        return 2 * (reading.num_attention_heads(section) or 32)
    return None if isinstance(editable.step, str) else editable.step


def save_design(config: dict[str, Any], architecture: str, path: str, overwrite: bool = False) -> str:
    """Write `config` as a config.json that transformers reads; returns the file.

    Args:
        architecture: the class to name under ``architectures``.
        path: a folder, made if need be inside one that is there, or a .json file.

    Raises:
        WorkbenchError: ``exists`` where a file would be lost or weights would no longer fit, ``cannot-write``.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() != ".json":
        target = target / "config.json"
    if target.is_dir():
        raise WorkbenchError("exists", f"{one_line(str(target))} is a folder.", "Choose another name.")
    if not target.parent.parent.is_dir():
        raise WorkbenchError(
            "cannot-write",
            f"The folder {one_line(str(target.parent.parent))} does not exist.",
            "Make it first, or choose another.",
        )
    if weights.find_weights(target.parent).formats:
        raise WorkbenchError(
            "exists", f"{one_line(str(target.parent))} holds weights of another config.", "Choose an empty folder."
        )
    if target.exists() and not overwrite:
        raise WorkbenchError("exists", f"{one_line(str(target))} is there already.", "Allow it to be replaced.")
    saved = {key: value for key, value in config.items() if key not in _DROPPED_WHEN_SAVED}
    saved["architectures"] = [architecture]
    try:
        paths.write_atomic(target, (json.dumps(saved, indent=2) + "\n").encode("utf-8"), 0o644)
    except OSError as error:
        raise WorkbenchError(
            "cannot-write", f"Cannot write {one_line(str(target))}: {error.strerror}.", "Choose another folder."
        ) from None
    return str(target)
