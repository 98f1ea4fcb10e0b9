"""Names from outside become names of files in the folder at hand, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

import pytest

from tests.safety.corpus import NAME, STRINGS
from workbench.ui.benches.doctor_subject import Subject
from workbench.ui.screens.chat_export import file_name

ESCAPING = (
    "../../etc/passwd", "/etc/passwd", "..", ".", "", "~/.ssh/keys", "a/../../b", "C:\\Windows\\x", "..\\..\\x",
    "x\x00.jsonl", "-rf", "CON", "$(id)", "`id`", "a" * 5000, "東" * 300, "\ud800", NAME, *STRINGS.values(),
)  # fmt: skip


@pytest.mark.parametrize("title", ESCAPING, ids=range(len(ESCAPING)))
def test_a_title_is_a_file_in_this_folder(title: str, tmp_path: Path) -> None:
    name = f"{file_name(title)}.jsonl"
    assert PurePath(name).name == name
    assert not name.startswith((".", "-", "~"))
    (tmp_path / name).write_text("written")
    assert name in os.listdir(tmp_path)


@pytest.mark.parametrize("file", ESCAPING, ids=range(len(ESCAPING)))
def test_a_report_is_a_file_in_this_folder(file: str, tmp_path: Path) -> None:
    name = f"workbench-doctor{Subject(text='a report', file=file).file_suffix}.json"
    assert PurePath(name).name == name
    (tmp_path / name).write_text("written")
    assert name in os.listdir(tmp_path)
