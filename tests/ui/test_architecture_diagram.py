"""The block diagram, drawn from what transformers really builds of small configs of several families."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import Any

import pytest

from workbench.ui.benches.architecture_diagram import Stage, draw, read_stages, stages_of
from workbench.ui.benches.architecture_tree import read_tree

SMALL: dict[str, Any] = {
    "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "gpt2": {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 64, "vocab_size": 512},
    "phi": SMALL,
    "olmo2": SMALL,
    "gemma2": SMALL | {"sliding_window": 8},
    "bert": {key: value for key, value in SMALL.items() if key not in ("head_dim", "num_key_value_heads")},
    "mixtral": SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 512},
    "mamba": {"num_hidden_layers": 3, "hidden_size": 64, "vocab_size": 512, "state_size": 4},
    "qwen3_next": SMALL
    | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
}  # fmt: skip


@functools.cache
def inspected(family: str) -> tuple[dict[str, Any], tuple[Stage, ...]]:
    from workbench.architecture.cache import load_skeleton
    from workbench.architecture.describe import describe
    from workbench.architecture.diagram import diagram
    from workbench.architecture.tree import module_tree
    from workbench.session.handlers.architecture import _node

    skeleton = load_skeleton({"model_type": family, **FAMILIES[family]})
    inspection = {
        "facts": asdict(describe(skeleton)),
        "config": skeleton.config,
        "diagram": [asdict(stage) for stage in diagram(skeleton)],
        "tree": _node(module_tree(skeleton)),
    }
    return inspection, stages_of(inspection, read_tree(inspection["tree"]))


def drawn(family: str, width: int = 48) -> list[str]:
    _, stages = inspected(family)
    return [line.content.plain.rstrip() for line in draw(stages, width)]


def order(lines: list[str], *words: str) -> bool:
    """Whether these stand one after the other, read from the top."""
    text, place = "\n".join(lines), 0
    for word in words:
        place = text.find(word, place) + len(word)
        if place < len(word):
            return False
    return True


@pytest.mark.model
@pytest.mark.parametrize("family", FAMILIES)
def test_every_line_fits_and_the_frame_closes(family: str) -> None:
    _, stages = inspected(family)
    for width in (30, 48, 200):
        lines = draw(stages, width)
        assert max(line.content.cell_length for line in lines) <= max(30, min(64, width))
        text = [line.content.plain for line in lines]
        assert sum("╭─╂" in line for line in text) == sum("╰─╂" in line for line in text) > 0
        assert any("LM head" in line or "cls" in line for line in text)


@pytest.mark.model
def test_a_plain_decoder_with_its_real_sizes() -> None:
    lines = drawn("llama")
    assert order(
        lines, "512 × 64", "layers 0-3", "× 4", "RMSNorm", "GQA attention", "q,o 64→64", "k,v 64→32", "⊕──╯ 64"
    )
    assert order(lines, "⊕", "RMSNorm", "feed-forward, SwiGLU", "gate,up 64→128", "down 128→64", "⊕──╯ 64", "╰─╂")
    assert order(lines, "╰─╂", "─╂─ RMSNorm", "LM head", "512")


@pytest.mark.model
def test_learned_positions_join_the_stream_and_conv1d_is_read_the_right_way() -> None:
    lines = drawn("gpt2")
    assert order(lines, "512 × 64", "⊕── position embedding  64 × 64", "╭─╂")
    assert order(lines, "c_attn 64→192", "c_proj 64→64", "c_fc 64→256", "c_proj 256→64")


@pytest.mark.model
def test_parallel_parts_stand_side_by_side_behind_one_norm() -> None:
    lines = drawn("phi")
    both = next(line for line in lines if "attn" in line)
    assert "MLP" in both
    assert sum("⊕" in line for line in lines) == 1
    assert order(lines, "LayerNorm", "├──", "attn", "⊕──┴──")


@pytest.mark.model
def test_norms_stand_where_the_family_has_them() -> None:
    after = drawn("olmo2")
    assert order(after, "┠──╮", "attention", "─┼─ RMSNorm", "⊕")
    assert "RMSNorm" not in after[next(i for i, line in enumerate(after) if "┠──╮" in line) + 1]
    both = drawn("gemma2")
    assert order(
        both, "┠──╮", "─┼─ RMSNorm", "attention", "─┼─ RMSNorm", "⊕", "─┼─ RMSNorm", "feed-forward", "─┼─ RMSNorm"
    )
    stream = drawn("bert")
    assert order(stream, "attention", "⊕", "│─╂─ LayerNorm", "feed-forward", "⊕", "│─╂─ LayerNorm", "╰─╂")


@pytest.mark.model
def test_sliding_layers_and_kinds_of_layers_are_mapped_one_mark_a_layer() -> None:
    lines = drawn("gemma2")
    assert order(lines, "░█░█", "░ sliding 8: 2 layers", "█ full: 2 layers")
    hybrid = drawn("qwen3_next")
    assert order(
        hybrid, "AAAB", "A  layers 0-2", "× 3 of 4", "state space", "experts", "B  layer 3", "× 1 of 4", "attention"
    )


@pytest.mark.model
def test_experts_say_how_many_and_how_many_a_token() -> None:
    assert order(drawn("mixtral"), "GQA attention", "experts", "2 of 4 experts", "gate 64→4")


@pytest.mark.model
def test_an_encoder_comes_before_its_decoder_with_cross_attention() -> None:
    lines = drawn("t5")
    assert order(lines, "encoder.block", "attention", "feed-forward", "decoder.block", "attention", "cross-attention")


@pytest.mark.model
def test_the_step_that_holds_the_chosen_module_is_drawn_heavy() -> None:
    _, stages = inspected("llama")
    key = "model.layers.0-3.self_attn.k_proj.weight"
    marked = [line for line in draw(stages, 48, selected=key) if "┏" in line.content.plain or "┗" in line.content.plain]
    assert {line.path for line in marked} == {"model.layers.0-3.self_attn"}
    frame = draw(stages, 48, selected="model.layers.0-3")
    assert any("┏━╂" in line.content.plain for line in frame)
    plain = draw(stages, 48)
    assert not any("┏" in line.content.plain for line in plain)
    assert len(draw(stages, 48, roomy=True)) > len(plain)


def test_what_is_no_diagram_draws_nothing() -> None:
    assert read_stages(None) == ()
    assert draw(read_stages([{"name": "x"}, 3]), 40) == []
    hostile = [{"name": "x", "path": "0", "blocks": [{"kind": "mlp", "label": "[/x]\u4e2d\u6587", "line": "a" * 500}]}]
    for line in draw(read_stages(hostile), 40):
        assert line.content.cell_length <= 40
