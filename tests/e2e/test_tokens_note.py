"""What ``workbench tokens`` says of the installed AutoTokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.test_commands import as_json, workbench

SAMPLE = Path(__file__).parents[2] / "sample_models" / "tiny-llama" / "tokenizer.json"


@pytest.mark.model
def test_other_ids_of_autotokenizer_are_said_once_known_also_in_json(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = tmp_path / "declared"
    model.mkdir()
    (model / "tokenizer.json").write_bytes(SAMPLE.read_bytes())
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    assert "autotokenizer" not in as_json("tokens", "a", "--model", str(model))
    said = workbench("tokens", "a", "--model", str(model))
    assert "(GPT2Tokenizer) gives other ids than the file" in " ".join(said.stdout.split())
    known = as_json("tokens", "a", "--model", str(model))["autotokenizer"][str(model)]
    assert known["differing"] > 0
    same = workbench("tokens", "a", "--model", "tiny-llama")
    assert "note:" not in same.stdout
