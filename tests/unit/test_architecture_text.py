"""What `workbench inspect` prints for people: whole at every width, and nothing of a file is obeyed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.cli import inspect_text
from workbench.session import protocol
from workbench.session.handlers import architecture
from workbench.text import sanitize_tree

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

SAMPLES = Path(__file__).parents[2] / "sample_models"
CONTEXT = SimpleNamespace(job=SimpleNamespace(progress=lambda *_: None, check=lambda: None))


def answer(request):
    """What the worker would send, as a client gets it: through JSON, and made safe for a terminal."""
    reply = architecture.HANDLERS[type(request)].stages[0].run(request, CONTEXT)
    return sanitize_tree(json.loads(json.dumps(reply.result)))


def printed(monkeypatch, capsys, width, show, *arguments):
    from rich.console import Console

    console = Console(width=width, highlight=False, markup=False, emoji=False, color_system=None)
    monkeypatch.setattr(inspect_text, "console", lambda: console)
    show(*arguments)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 100, 140])
def test_every_number_is_whole_at_every_width(monkeypatch, capsys, width):
    result = answer(protocol.InspectModel("mixtral-8x7b-v0.1", lora={"r": 8}))
    text = printed(monkeypatch, capsys, width, inspect_text.print_inspection, result, 4)
    assert "46,702,792,704 parameters (46.7 B)" in text
    assert text.count("46,702,792,704") >= 3
    assert "0-31 ×32" in text
    assert "[RMSNorm → attention → + → RMSNorm → experts → +] ×32" in text
    assert "gate.weight" in text
    assert all(len(line) <= width for line in text.splitlines())
    assert ("MixtralDecoderLayer" in text) == (width >= 118)


def test_a_repository_of_its_own_code_is_shown_by_its_headers_and_never_run(monkeypatch, capsys, tmp_path):
    folder = shutil.copytree(SAMPLES / "tiny-llama", tmp_path / "evil[bold]\x1b[31m")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="evil\x1b[31m", architectures=["Evil[red]\x1b]0;x\x07"])
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_evil.py").write_text("raise SystemExit('run')")
    result = answer(protocol.InspectModel(str(folder)))
    assert result["parameters"]["total"] == 238_144
    assert "modeling_evil.py" in result["notes"][0]
    text = printed(monkeypatch, capsys, 100, inspect_text.print_inspection, result, 3)
    assert "Evil[red]" in text
    assert not {"\x1b", "\x07"} & set(text)
    assert "never run" in text


def test_differences_and_longer_texts(monkeypatch, capsys):
    compared = answer(protocol.CompareModels("llama-3.1-8b", "qwen3-8b"))
    text = printed(monkeypatch, capsys, 100, inspect_text.print_comparison, compared)
    assert "only in qwen3-8b" in text
    assert "8,030,261,248" in text
    same = answer(protocol.CompareModels("gpt2", "gpt2"))
    assert "same model" in printed(monkeypatch, capsys, 100, inspect_text.print_comparison, same)
    explained = answer(protocol.InspectModel("gpt2"))
    text = printed(monkeypatch, capsys, 80, inspect_text.print_explanation, explained)
    assert "arXiv:1911.02150" in text
    assert "KV cache" in text
