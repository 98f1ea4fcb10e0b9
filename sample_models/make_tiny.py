"""Makes the tiny random-weight models of this folder. Needs torch, transformers and tokenizers.

    python sample_models/make_tiny.py [NAME ...]

Each is one of the kinds that the benches must handle, small enough to be kept in the repository: random bfloat16
weights from a fixed seed, and a real tokenizer trained on corpus.txt (weights come out the same at every run;
Unigram and WordPiece training vary a little). They answer nonsense; their shapes, tokenizers, chat templates and
files are what they are for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Optional

HERE = Path(__file__).resolve().parent
SEED = 20260917

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
    "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported.') }}{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + "
    "('model' if message['role'] == 'assistant' else message['role']) + '\\n' + message['content'] | trim + "
    "'<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def byte_level_bpe(vocab_size: int, special: list[str], digits: bool) -> Any:
    """A GPT-2 style tokenizer; `digits` splits numbers into single digits first, as SmolLM2 does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]) if digits else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(HERE / "corpus.txt")], trainer)
    return tokenizer


def spaced_bpe(vocab_size: int, special: list[str], prefix: bool, bos: str) -> Any:
    """A SentencePiece-like BPE: spaces become U+2581, unknown characters fall back to byte tokens.

    `prefix` puts one such space before the text, as Llama 2 and Mixtral do and Gemma does not.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 256 - len(special), show_progress=False)
    trained.train([str(HERE / "corpus.txt")], trainer)
    learned = json.loads(trained.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].get)
    vocabulary = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]

    model = models.BPE(
        {piece: index for index, piece in enumerate(vocabulary)},
        [tuple(merge) for merge in learned["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, vocabulary.index(bos))],
    )
    return tokenizer


def unigram(vocab_size: int, special: list[str]) -> Any:
    """A T5 style tokenizer: Unigram over U+2581-marked words, ``</s>`` at the end."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train([str(HERE / "corpus.txt")], trainer)
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    return tokenizer


def word_piece(vocab_size: int, special: list[str]) -> Any:
    """A BERT style tokenizer, lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train([str(HERE / "corpus.txt")], trainer)
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    return tokenizer


LLAMA_SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
}


def make_llama() -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    save(
        "tiny-llama",
        "LlamaForCausalLM",
        {
            "model_type": "llama",
            **LLAMA_SHAPE,
            "intermediate_size": 192,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        byte_level_bpe(640, special, digits=True),
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        CHATML,
    )


def make_gpt2() -> None:
    save(
        "tiny-gpt2",
        "GPT2LMHeadModel",
        {
            "model_type": "gpt2",
            "n_embd": 64,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 256,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-05,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        byte_level_bpe(512, ["<|endoftext|>"], digits=False),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
        None,
    )


def make_mixtral() -> None:
    save(
        "tiny-mixtral",
        "MixtralForCausalLM",
        {
            "model_type": "mixtral",
            **{**LLAMA_SHAPE, "num_hidden_layers": 3},
            "intermediate_size": 96,
            "hidden_act": "silu",
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "router_aux_loss_coef": 0.02,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        spaced_bpe(640, ["<unk>", "<s>", "</s>"], prefix=True, bos="<s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        INST,
    )


def make_gemma3() -> None:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    save(
        "tiny-gemma3",
        "Gemma3ForCausalLM",
        {
            "model_type": "gemma3_text",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": len(kinds),
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 512,
            "sliding_window": 16,
            "sliding_window_pattern": 3,
            "layer_types": kinds,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "rms_norm_eps": 1e-06,
            "attention_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": 2,
            "eos_token_id": [1, 5],
            "pad_token_id": 0,
        },
        spaced_bpe(704, special, prefix=False, bos="<bos>"),
        {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
        TURNS,
    )


def make_t5() -> None:
    special = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{index}>" for index in range(10))]
    save(
        "tiny-t5",
        "T5ForConditionalGeneration",
        {
            "model_type": "t5",
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_heads": 4,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "relative_attention_num_buckets": 16,
            "relative_attention_max_distance": 64,
            "feed_forward_proj": "relu",
            "n_positions": 256,
            "is_encoder_decoder": True,
            "tie_word_embeddings": True,
            "decoder_start_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        unigram(480, special),
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        None,
    )


def make_bert() -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    save(
        "tiny-bert",
        "BertForMaskedLM",
        {
            "model_type": "bert",
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
        },
        word_piece(640, special),
        {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
            "unk_token": "[UNK]",
            "pad_token": "[PAD]",
        },
        None,
    )


def save(
    name: str,
    architecture: str,
    settings: dict[str, Any],
    tokenizer: Any,
    tokens: dict[str, str],
    chat_template: Optional[str],
) -> None:
    """Write one model folder: config.json, generation_config.json, model.safetensors and the tokenizer's files.

    config.json is written from `settings` with the keys that transformers 4 and 5 both read.
    """
    import torch
    import transformers

    settings = {**settings, "vocab_size": tokenizer.get_vocab_size()}
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(**settings)
    model = getattr(transformers, architecture)(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)

    write_json(folder / "config.json", {"architectures": [architecture], **settings, "torch_dtype": "bfloat16"})
    generation = {key: settings[key] for key in settings if key.endswith("_token_id")}
    if "BERT" in architecture.upper():
        (folder / "generation_config.json").unlink(missing_ok=True)
    else:
        write_json(folder / "generation_config.json", generation)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    length = settings.get("max_position_embeddings") or settings["n_positions"]
    described: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    if chat_template:
        described["chat_template"] = chat_template
    write_json(folder / "tokenizer_config.json", described)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {size:,} bytes")


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


MAKERS = {
    "tiny-llama": make_llama,
    "tiny-gpt2": make_gpt2,
    "tiny-mixtral": make_mixtral,
    "tiny-gemma3": make_gemma3,
    "tiny-t5": make_t5,
    "tiny-bert": make_bert,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or MAKERS:
        MAKERS[wanted]()
