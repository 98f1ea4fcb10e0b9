"""Themes from TOML files: shipped ones and the user's own, in the same format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.color import Color, ColorParseError
from textual.theme import Theme

from workbench import paths, toml
from workbench.errors import WorkbenchError

FALLBACK = "dark"
SERIES_COUNT = 6

REQUIRED = (
    "background",
    "surface",
    "panel",
    "foreground",
    "muted",
    "faint",
    "accent",
    "on-accent",
    "good",
    "warn",
    "bad",
)


@dataclass(frozen=True)
class LoadedThemes:
    """Themes by name, and one line for each file that is no theme."""

    themes: dict[str, Theme]
    failures: tuple[str, ...] = ()


def parse_theme(table: dict[str, Any], source: str) -> Theme:
    """A Textual theme from a parsed theme file.

    Raises:
        WorkbenchError: ``bad-theme`` naming what is missing or no colour.
    """
    name, colors = table.get("name"), table.get("colors")
    if not isinstance(name, str) or not name.strip() or not isinstance(colors, dict):
        raise _bad(source, "it needs a name and a [colors] table")
    missing = [key for key in REQUIRED if key not in colors]
    if missing:
        raise _bad(source, f"missing {', '.join(missing)}")
    series = colors.get("series")
    if not isinstance(series, list) or len(series) != SERIES_COUNT:
        raise _bad(source, f"series must list {SERIES_COUNT} colours")
    plain = {key: colors[key] for key in REQUIRED}
    plain["on-panel"] = colors.get("on-panel", colors["foreground"])
    plain |= {f"series-{i + 1}": value for i, value in enumerate(series)}
    for key, value in plain.items():
        try:
            Color.parse(value)
        except (ColorParseError, TypeError, AttributeError):
            raise _bad(source, f"{key} is not a colour: {str(value)[:40]!r}") from None
    ansi = table.get("ansi") is True
    return Theme(
        name=name,
        primary=plain["accent"],
        secondary=plain["accent"],
        accent=plain["accent"],
        warning=plain["warn"],
        error=plain["bad"],
        success=plain["good"],
        foreground=plain["foreground"],
        background=plain["background"],
        surface=plain["surface"],
        panel=plain["panel"],
        dark=table.get("dark") is not False,
        ansi=ansi,
        variables=_variables(plain),
    )


def _bad(source: str, reason: str) -> WorkbenchError:
    return WorkbenchError("bad-theme", f"{source}: {reason}.", "See the shipped themes for the format.")


def _variables(colors: dict[str, str]) -> dict[str, str]:
    """House variables, and Textual's own where its default would be another hue or too pale."""
    own = {key: colors[key] for key in ("muted", "faint", "accent", "on-accent", "on-panel", "good", "warn", "bad")}
    own |= {key: value for key, value in colors.items() if key.startswith("series-")}
    return own | {
        "ansi-background": colors["background"],
        "ansi-foreground": colors["foreground"],
        "border": colors["accent"],
        "border-blurred": colors["faint"],
        "block-cursor-background": colors["panel"],
        "block-cursor-foreground": colors["on-panel"],
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-background": colors["panel"],
        "block-cursor-blurred-foreground": colors["on-panel"],
        "input-cursor-background": colors["foreground"],
        "input-cursor-foreground": colors["background"],
        "input-selection-background": colors["panel"],
        "scrollbar": colors["faint"],
        "scrollbar-hover": colors["muted"],
        "scrollbar-active": colors["accent"],
        "scrollbar-background": colors["background"],
        "scrollbar-background-hover": colors["background"],
        "scrollbar-background-active": colors["background"],
        "scrollbar-corner-color": colors["background"],
    }


def theme_folders() -> tuple[Path, ...]:
    """Where theme files lie; a later folder's theme replaces an earlier one of the same name."""
    return paths.data_dir("themes"), paths.config_dir() / "themes"


def load_theme(name: str, folders: Iterable[Path] | None = None) -> Theme:
    """One theme by the name of its file, the user's own first; others are not read.

    Raises:
        WorkbenchError: ``bad-theme`` if there is none or it is broken.
    """
    for folder in reversed([*(theme_folders() if folders is None else folders)]):
        path = folder / f"{name}.toml"
        try:
            return parse_theme(toml.load(path), path.name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise _bad(path.name, f"it cannot be read: {error}") from None
    raise WorkbenchError("bad-theme", f"There is no theme {name!r:.60}.", "ctrl+t lists those there are.")


def theme_or_fallback(name: str) -> tuple[Theme, str]:
    """The theme of this name, or the fallback with one line that says why."""
    try:
        return load_theme(name), ""
    except WorkbenchError as error:
        return load_theme(FALLBACK, theme_folders()[:1]), f"{error.message} Using {FALLBACK}."


def load_themes(folders: Iterable[Path] | None = None) -> LoadedThemes:
    """Read every theme file; a bad one is reported, never raised."""
    themes: dict[str, Theme] = {}
    failures: list[str] = []
    for folder in theme_folders() if folders is None else folders:
        for path in sorted(folder.glob("*.toml")):
            try:
                theme = parse_theme(toml.load(path), path.name)
            except WorkbenchError as error:
                failures.append(error.message)
            except OSError as error:
                failures.append(f"{path.name}: {error.strerror}.")
            else:
                if theme.name == path.stem:
                    themes[theme.name] = theme
                else:
                    failures.append(f"{path.name}: a theme has the name of its file, this one is {theme.name!r:.60}.")
    return LoadedThemes(themes, tuple(failures))
