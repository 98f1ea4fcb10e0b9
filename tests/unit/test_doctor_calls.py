"""Arguments and members of classes that came or went with a release: which side is too old, by what it inherits too."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

REFUSED = {
    "TypeError: LlamaRotaryEmbedding.__init__() got an unexpected keyword argument 'dim'": "transformers<4.48",
    "AttributeError: 'Qwen2Attention' object has no attribute 'num_heads'": "transformers<4.48",
    "AttributeError: 'LlamaModel' object has no attribute '_prepare_decoder_attention_mask'": "transformers<4.35",
    "AttributeError: 'Qwen2_5_VLConfig' object has no attribute 'hidden_size'": "transformers<4.52",
    "AttributeError: module 'mediapipe' has no attribute 'solutions'": "mediapipe<0.10.30",
    # What its base class had.
    "AttributeError: 'Qwen2Tokenizer' object has no attribute 'batch_encode_plus'": "transformers<5.0",
    "AttributeError: 'GPT2LMHeadModel' object has no attribute 'to_bettertransformer'": "transformers<5.0",
    # An argument too few: asked for from a release on, or only up to one.
    "TypeError: LlamaAttention.forward() missing 1 required positional argument: 'position_embeddings'": (
        "transformers<4.48"
    ),
    "TypeError: LlamaRotaryEmbedding.__init__() missing 1 required positional argument: 'dim'": "transformers>=4.48",
    "TypeError: LlamaRotaryEmbedding.__init__() missing 1 required positional argument: 'config'": "transformers<4.43",
}


def _first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


@pytest.mark.parametrize("error", list(REFUSED))
def test_which_release_has_what_is_asked_of_a_class(error: str) -> None:
    found = _first(error)
    assert found.id == "package-versions-do-not-fit"
    assert REFUSED[error] in found.fix[0]


def test_a_release_that_does_not_ask_for_an_argument_is_not_told_to() -> None:
    error = "TypeError: LlamaRotaryEmbedding.__init__() missing 1 required positional argument: 'config'"
    older = _first(f"transformers==4.40.0\n{error}")
    assert "since transformers 4.43" not in older.title


def test_every_module_has_a_forward_of_its_own() -> None:
    found = _first("TypeError: OurBlock.forward() got an unexpected keyword argument 'position_embeddings'")
    assert "LlamaAttention" not in found.title
    found = _first("TypeError: forward() missing 1 required positional argument: 'position_ids'")
    assert "Attention" not in found.title


def test_only_the_side_that_is_too_old_is_told_to_change() -> None:
    low = _first("transformers 4.26.0 requires huggingface-hub<1.0,>=0.11.0, but you have huggingface-hub 0.8.1")
    assert not any("-U transformers" in step for step in low.fix)
    assert any("transformers<4.26.0" in step for step in low.fix)
    high = _first("transformers 4.26.0 requires huggingface-hub<1.0,>=0.11.0, but you have huggingface-hub 1.2.0")
    assert any("-U transformers" in step for step in high.fix)
    assert not any("transformers<4.26.0" in step for step in high.fix)


@pytest.mark.parametrize(
    ("text", "old", "step"),
    [
        (
            "AssertionError: no sync context manager is incompatible with gradient partitioning logic of ZeRO stage 3",
            "transformers is too old for deepspeed",
            "pip install -U transformers",
        ),
        ("AttributeError: 'AdamW' object has no attribute 'train'", "accelerate", "pip install -U accelerate"),
    ],
)
def test_two_packages_that_parted_ways_by_what_neither_names(text: str, old: str, step: str) -> None:
    finding = diagnose(parse_report(f"{text}\n")).findings[0]
    assert finding.id == "package-versions-do-not-fit"
    assert finding.title.startswith(old)
    assert step in finding.fix[0]


def test_a_gpu_of_a_number_that_lightning_does_not_find() -> None:
    text = "MisconfigurationException: You requested gpu: [1]\n But your machine only has: [0]\n"
    assert diagnose(parse_report(text)).findings[0].id == "invalid-device-index"
