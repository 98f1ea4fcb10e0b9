from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import toml
from workbench.errors import WorkbenchError
from workbench.settings import (
    ModelSettings,
    SessionSettings,
    Settings,
    TokenSettings,
    UiSettings,
    dump_settings,
    load_settings,
    parse_settings,
    save_setting,
    settings_path,
)

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


def test_a_missing_file_gives_the_defaults(private_home: Path) -> None:
    assert load_settings() == Settings()
    assert not settings_path().exists()


def test_unknown_and_wrong_settings_are_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        '[session]\nkeep_model_minutes = "long"\nkeep_worker_minutes = 7\n[ui]\ntheme = "light"\ncolour = 1\n'
        "slow_link = 3\n[nonsense]\nx = 1\n[models]\ndirectories = [1]\n[keys]\nhelp = 5\nquit = 'x'\n"
    )
    settings = load_settings(path)
    assert settings.session == SessionSettings(keep_worker_minutes=7.0)
    assert settings.ui == UiSettings(theme="light")
    assert settings.keys == {"quit": "x"}
    assert len(settings.warnings) == 6
    assert all("\n" not in line for line in settings.warnings)


@pytest.mark.parametrize("content", [b"[ui\ntheme = 3", b"\xff\xfe", b"\x00", b"ui = 1 ]["])
def test_a_broken_file_is_told_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    settings = load_settings(path)
    assert settings == Settings()
    assert len(settings.warnings) == 1
    with pytest.raises(WorkbenchError):
        save_setting("ui", "theme", "light", path)
    assert path.read_bytes() == content


@given(
    st.builds(
        Settings,
        st.builds(SessionSettings, st.floats(0, 1e6), st.floats(0, 1e6), TEXT),
        st.builds(UiSettings, TEXT, st.booleans(), st.booleans(), TEXT, TEXT, st.booleans()),
        st.builds(ModelSettings, st.lists(TEXT, max_size=3).map(tuple)),
        st.builds(TokenSettings, st.lists(TEXT, max_size=3).map(tuple), st.lists(TEXT, max_size=3).map(tuple)),
        st.dictionaries(TEXT, TEXT.filter(str.strip), max_size=3),
    )
)
def test_round_trip(settings: Settings) -> None:
    assert parse_settings(toml.loads(dump_settings(settings))) == settings


def test_saving_one_value_keeps_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('# mine\n[ui]\n# my eyes\ntheme = "dark"   # for now\n\n[keys]\nquit = "x"\n')
    save_setting("ui", "theme", "light", path)
    save_setting("ui", "last_bench", "vram", path)
    save_setting("session", "python", '/opt/"odd" path/python', path)
    text = path.read_text()
    assert text.startswith("# mine\n[ui]\n# my eyes\n")
    settings = load_settings(path)
    assert (settings.ui.theme, settings.ui.last_bench, settings.keys) == ("light", "vram", {"quit": "x"})
    assert settings.session.python == '/opt/"odd" path/python'
    assert settings.warnings == ()


def test_a_value_that_stands_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[ui]\ntheme = "dark"\n')
    before = path.stat().st_mtime_ns, path.stat().st_ino
    save_setting("ui", "theme", "dark", path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_a_layout_that_cannot_be_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('ui = { theme = "dark" }\n')
    with pytest.raises(WorkbenchError) as caught:
        save_setting("ui", "theme", "light", path)
    assert caught.value.kind == "bad-toml"
    assert path.read_text() == 'ui = { theme = "dark" }\n'
