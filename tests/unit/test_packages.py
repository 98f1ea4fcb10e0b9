"""Packages that the interpreter lacks, or has broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.packages import need

WHO = "Reading rows.parquet"


def test_an_installed_package_is_imported() -> None:
    assert need("json.decoder", "Reading") is sys.modules["json.decoder"]


def test_a_missing_package_is_named_with_its_purpose_and_this_interpreters_pip() -> None:
    with pytest.raises(WorkbenchError) as raised:
        need("no_such_package.part", WHO, "no-such-package")
    assert raised.value.kind == "missing-package"
    assert raised.value.message == WHO + f" needs no-such-package, which is not installed in {sys.prefix}."
    assert raised.value.remedy == f"{sys.executable} -m pip install no-such-package"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('numpy.core.multiarray failed to import')", "RuntimeError: numpy.core.multiarray"),
        ("import absent_companion", "ModuleNotFoundError: No module named 'absent_companion'"),
    ],
)
def test_a_package_whose_import_fails_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    (tmp_path / "broken_package.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WorkbenchError, match=reason) as raised:
        need("broken_package", "Running models")
    assert raised.value.kind == "broken-package"
    assert "workbench doctor" in raised.value.remedy
