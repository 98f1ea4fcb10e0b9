from __future__ import annotations

from pathlib import Path

import pytest
from rich.color import ColorSystem
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from textual.color import Color
from textual.theme import Theme

from workbench import paths
from workbench.errors import WorkbenchError
from workbench.ui.theme import load_theme, load_themes, parse_theme

THEMES = load_themes([paths.data_dir("themes")]).themes
TEXTS = ("foreground", "muted", "accent", "good", "warn", "bad")
LEAST = {None: 4.5, ColorSystem.EIGHT_BIT: 4.5, ColorSystem.STANDARD: 3.0}


def colors_of(theme: Theme) -> dict[str, str]:
    plain = {"background": theme.background, "surface": theme.surface, "panel": theme.panel}
    return {**theme.variables, "foreground": theme.foreground, **plain}  # type: ignore[dict-item]


def quantised(value: str, system: ColorSystem | None) -> Color:
    color = Color.parse(value)
    if system is None:
        return color
    return Color(*color.rich_color.downgrade(system).get_truecolor(DEFAULT_TERMINAL_THEME))


def contrast(one: Color, other: Color) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(color: Color) -> float:
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color.normalized]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_promised_themes_are_there() -> None:
    assert {"dark", "light", "high-contrast", "colour-blind", "ansi-16"} <= set(THEMES)


@pytest.mark.parametrize("system", list(LEAST), ids=["true colour", "256", "16"])
@pytest.mark.parametrize("name", [name for name, theme in THEMES.items() if not theme.ansi])
def test_text_can_be_read_in_every_colour_depth(name: str, system: ColorSystem | None) -> None:
    colors = colors_of(THEMES[name])
    pairs = [(text, ground) for text in TEXTS for ground in ("background", "surface")]
    pairs += [("on-accent", "accent"), ("on-panel", "panel"), ("foreground", "panel")]
    weak = {}
    for text, ground in pairs:
        ratio = contrast(quantised(colors[text], system), quantised(colors[ground], system))
        if ratio < LEAST[system]:
            weak[text, ground] = round(ratio, 2)
    assert not weak


def test_high_contrast_keeps_seven_to_one() -> None:
    colors = colors_of(THEMES["high-contrast"])
    for text in TEXTS:
        assert contrast(Color.parse(colors[text]), Color.parse(colors["background"])) >= 7, text


@pytest.mark.parametrize("name", [name for name, theme in THEMES.items() if not theme.ansi])
def test_verdicts_and_series_stay_apart(name: str) -> None:
    colors = colors_of(THEMES[name])
    for group in (("good", "warn", "bad"), tuple(f"series-{i}" for i in range(1, 7))):
        for system in (None, ColorSystem.EIGHT_BIT):
            shown = [quantised(colors[key], system).hex for key in group]
            assert len(set(shown)) == len(shown), (name, system, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name = 3",
        'name = "x"\n[colors]\nbackground = "red"',
        'name = "x',
        "\x00\x01",
        (paths.data_dir("themes") / "dark.toml").read_text().replace('"#6cb6ff"', '"no colour"'),
        (paths.data_dir("themes") / "dark.toml").read_text().replace('name = "dark"', 'name = "other"'),
    ],
)
def test_a_broken_theme_is_reported_and_the_others_load(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.toml").write_text(text)
    (tmp_path / "dark.toml").write_text((paths.data_dir("themes") / "dark.toml").read_text())
    loaded = load_themes([tmp_path])
    assert list(loaded.themes) == ["dark"]
    assert len(loaded.failures) == 1
    assert "broken.toml" in loaded.failures[0]


def test_the_users_theme_wins(tmp_path: Path) -> None:
    own = (paths.data_dir("themes") / "dark.toml").read_text().replace("#6cb6ff", "#ff00ff")
    (tmp_path / "dark.toml").write_text(own)
    folders = [paths.data_dir("themes"), tmp_path]
    assert load_theme("dark", folders).accent == "#ff00ff"
    assert load_themes(folders).themes["dark"].accent == "#ff00ff"


@pytest.mark.parametrize("name", ["", "none", "../../etc/passwd", "a\x00b", "x" * 5000])
def test_an_unknown_theme_is_one_line(name: str) -> None:
    with pytest.raises(WorkbenchError) as caught:
        load_theme(name)
    assert caught.value.kind == "bad-theme"
    assert "\n" not in caught.value.message


def test_a_colour_list_of_another_length_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="series"):
        parse_theme({"name": "x", "colors": dict.fromkeys(TEXTS, "red") | _rest() | {"series": ["red"]}}, "x.toml")


def _rest() -> dict[str, str]:
    return dict.fromkeys(("background", "surface", "panel", "faint", "on-accent"), "blue")
