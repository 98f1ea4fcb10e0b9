"""The user's settings: one TOML file read into frozen records, and changed in place, comments kept. Stdlib first."""

from __future__ import annotations

import dataclasses
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from workbench import paths, toml
from workbench.errors import WorkbenchError
from workbench.text import one_line


@dataclass(frozen=True)
class SessionSettings:
    """``[session]``: the background worker."""

    keep_model_minutes: float = 30.0
    """Idle time after which the model is unloaded."""
    keep_worker_minutes: float = 5.0
    """Time without a model and without clients after which the worker exits."""
    python: str = ""
    """Target interpreter; empty means the one that runs the workbench."""


@dataclass(frozen=True)
class UiSettings:
    """``[ui]``: looks, and what the app remembers from one run to the next."""

    theme: str = "dark"
    emacs_keys: bool = False
    """ctrl+n and ctrl+p, ctrl+v and alt+v in lists; the palette is alt+x then."""
    slow_link: bool = False
    """Fewer frames and no animation even when no SSH connection is seen."""
    last_bench: str = "doctor"
    last_model: str = ""
    welcomed: bool = False
    """Whether the words of the first run were put away."""


@dataclass(frozen=True)
class ModelSettings:
    """``[models]``: where to look for models, and whose code may run."""

    directories: tuple[str, ...] = ()
    trusted_code: tuple[str, ...] = ()
    """Code of models that may run, each ``"REPOSITORY@REVISION:FILE+FILE"`` as a refusal tells it."""


@dataclass(frozen=True)
class TokenSettings:
    """``[tokens]``: what the tokens bench compares."""

    models: tuple[str, ...] = ()
    """Tokenizers counted beside the chosen model's."""
    prices: tuple[str, ...] = ()
    """Price of a million input tokens by model, each ``"NAME=PRICE"``; the name ``*`` stands for all others."""


@dataclass(frozen=True)
class Settings:
    """Everything a user can set, with what was wrong in the file as one line each."""

    session: SessionSettings = field(default_factory=SessionSettings)
    ui: UiSettings = field(default_factory=UiSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    keys: dict[str, str] = field(default_factory=dict)
    """``[keys]``: action id → key or comma-separated keys."""
    warnings: tuple[str, ...] = field(default=(), compare=False)


def settings_path() -> Path:
    """The settings file of this user."""
    return paths.config_dir() / "settings.toml"


def load_settings(path: Optional[Path] = None) -> Settings:
    """Read the settings. A missing file gives the defaults; a broken one too, with a warning, and is left alone."""
    path = path or settings_path()
    try:
        table = toml.load(path)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        return Settings(warnings=(f"Settings not read: {path}: {error.strerror}. Using the defaults.",))
    except WorkbenchError as error:
        return Settings(warnings=(f"Settings not read: {one_line(error.message)} Using the defaults.",))
    return parse_settings(table, path.name)


def parse_settings(table: dict[str, Any], source: str = "settings.toml") -> Settings:
    """Settings from a parsed table; what does not fit keeps its default and gives one warning."""
    warnings: list[str] = []
    sections: dict[str, Any] = {}
    for name, value in table.items():
        record = _SECTIONS.get(name)
        if name == "keys" and isinstance(value, dict):
            sections["keys"] = _read_keys(value, source, warnings)
        elif record is None or not isinstance(value, dict):
            warnings.append(f"{source}: unknown setting {one_line(name, 60)!r} is ignored.")
        else:
            sections[name] = _read_section(record, name, value, source, warnings)
    return Settings(**sections, warnings=tuple(warnings))


_SECTIONS: dict[str, Any] = {
    "session": SessionSettings,
    "ui": UiSettings,
    "models": ModelSettings,
    "tokens": TokenSettings,
}


def _read_keys(value: dict[str, Any], source: str, warnings: list[str]) -> dict[str, str]:
    keys = {}
    for action, key in value.items():
        if isinstance(key, str) and key.strip():
            keys[action] = key
        else:
            warnings.append(f"{source}: keys.{one_line(action, 60)} must be the name of a key; it is ignored.")
    return keys


def _read_section(record: Any, name: str, value: dict[str, Any], source: str, warnings: list[str]) -> Any:
    hints = typing.get_type_hints(record)
    accepted = {}
    for key, item in value.items():
        if key not in hints:
            warnings.append(f"{source}: unknown setting {name}.{one_line(key, 60)} is ignored.")
            continue
        try:
            accepted[key] = _read_value(hints[key], item)
        except ValueError as error:
            warnings.append(f"{source}: {name}.{key} {error}; the default is used.")
    return record(**accepted)


def _read_value(expected: Any, item: Any) -> Any:
    if expected is float:
        if isinstance(item, bool) or not isinstance(item, (int, float)) or not 0 <= item < float("inf"):
            raise ValueError("must be a number from 0 up")
        return float(item)
    if expected in (str, bool):
        if not isinstance(item, expected):
            raise ValueError("must be a text in quotes" if expected is str else "must be true or false")
        return item
    if not isinstance(item, list) or not all(isinstance(part, str) for part in item):
        raise ValueError("must be a list of texts in quotes")
    return tuple(item)


def save_setting(section: str, key: str, value: Any, path: Optional[Path] = None) -> None:
    """Change one value in the file, keeping everything else in it, comments included.

    Raises:
        WorkbenchError: ``bad-toml`` if the file is broken (it is not touched); ``cannot-write``.
    """
    path = path or settings_path()
    try:
        text = toml.read(path) if path.exists() else ""
        table = toml.loads(text, str(path))
        if table.get(section, {}).get(key) == value:
            return
        changed = _set_in_text(text, section, key, _literal(value))
        if toml.loads(changed, str(path)).get(section, {}).get(key) != value:
            raise WorkbenchError("bad-toml", f"{path} is laid out in a way that cannot be changed.", "Edit it by hand.")
        paths.write_atomic(path, changed.encode())
    except OSError as error:
        raise WorkbenchError(
            "cannot-write", f"Settings not saved: {path}: {error.strerror}.", "Free some space or mend its permissions."
        ) from None


def _literal(value: Any) -> str:
    """A TOML literal: JSON's texts, numbers, booleans and flat lists are all valid TOML."""
    import json  # only writing needs it, and reading happens before the first frame

    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _set_in_text(text: str, section: str, key: str, literal: str) -> str:
    lines = text.splitlines()
    header = re.compile(r"^\s*\[+\s*([^\]]+?)\s*\]+")
    start = next((i for i, line in enumerate(lines) if (m := header.match(line)) and m[1] == section), None)
    if start is None:
        gap = [""] if lines and lines[-1].strip() else []
        return "\n".join([*lines, *gap, f"[{section}]", f"{key} = {literal}", ""])
    end = next((i for i in range(start + 1, len(lines)) if header.match(lines[i])), len(lines))
    assignment = re.compile(rf"^\s*{re.escape(key)}\s*=")
    for i in range(start + 1, end):
        if assignment.match(lines[i]):
            lines[i] = f"{key} = {literal}"
            return "\n".join([*lines, ""])
    while end > start + 1 and not lines[end - 1].strip():
        end -= 1
    return "\n".join([*lines[:end], f"{key} = {literal}", *lines[end:], ""])


def dump_settings(settings: Settings) -> str:
    """The settings as a complete TOML file, as a starting point to edit."""
    lines = []
    for name in _SECTIONS:
        lines.append(f"[{name}]")
        for key, value in dataclasses.asdict(getattr(settings, name)).items():
            lines.append(f"{key} = {_literal(value)}")
        lines.append("")
    lines.append("[keys]")
    lines += [f"{_literal(action)} = {_literal(key)}" for action, key in settings.keys.items()]
    return "\n".join([*lines, ""])
