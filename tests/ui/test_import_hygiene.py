from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "bitsandbytes", "pydantic", "httpx", "huggingface_hub", "tokenizers", "yaml")
AFTER_THE_FIRST_FRAME = (
    "textual.widgets._markdown", "textual.widgets._text_area", "markdown_it", "pynvml", "psutil", "sqlite3",
    "workbench.session.protocol", "workbench.ui.benches.doctor",
)  # fmt: skip
EVERY_BENCH = "; ".join(
    f"import workbench.ui.benches.{name}" for name in ("doctor", "tokens", "architecture", "vram", "chat")
)


def modules_after(code: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


def test_the_app_imports_nothing_heavy() -> None:
    loaded = modules_after("import workbench.cli.commands, workbench.cli.app, workbench.ui.app, workbench.ui.run")
    assert not loaded.intersection(HEAVY)
    assert not loaded.intersection(AFTER_THE_FIRST_FRAME)


@pytest.mark.parametrize("screen", ["model_picker", "load_dialog", "session_log", "help", "confirm", "error_details"])
def test_no_bench_or_screen_imports_a_model_library(screen: str) -> None:
    loaded = modules_after(f"{EVERY_BENCH}; import workbench.ui.screens.{screen}")
    assert not loaded.intersection(HEAVY)


def test_the_environment_is_prepared_before_textual_is_imported() -> None:
    loaded = modules_after("import workbench.ui.environment")
    assert not any(name.partition(".")[0] in ("textual", "rich") for name in loaded)
