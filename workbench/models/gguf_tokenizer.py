"""Turns the vocabulary of a GGUF file into a ``tokenizer.json`` with the right pre-tokenizer. Stdlib only.

The result is what the `tokenizers` library reads. Which patterns a name in ``tokenizer.ggml.pre`` stands for follows
the vocabulary code of llama.cpp, which defines those names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.models.gguf import (
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    GgufHeader,
    GgufVocabulary,
    read_vocabulary,
)
from workbench.text import one_line

TOKEN_UNKNOWN, TOKEN_BYTE = 2, 6

_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|"
    r"%s| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _TAIL
)
_GPT4O = _CASED % (_CONTRACTIONS + "?", _CONTRACTIONS + "?", r"\p{N}{1,3}")
_TEKKEN = _CASED % ("", "", r"\p{N}")
_CJK = "[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_LLM = (
    r"[\r\n]",
    r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
    "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    _CJK,
    r"\p{N}+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    + _TAIL,
)
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_DIGITS = (r"\p{N}", _GPT2)

# Name in the file: the patterns applied one after the other. A piece that matched one goes on to the next.
_PATTERNS: dict[str, tuple[str, ...]] = {
    "default": _DEFAULT,
    **dict.fromkeys(("gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "olmo", "mpt"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"), (_LLAMA3,)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), (_QWEN2,)),
    **dict.fromkeys(("gpt-4o", "llama4"), (_GPT4O,)),
    "tekken": (_TEKKEN,),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    "deepseek-v3": _DEEPSEEK3,
    "falcon": _FALCON,
}
# A word that is a token as a whole is taken as it is, whatever its merges say.
_IGNORE_MERGES = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "tekken"}
# What llama.cpp does where the file has no add_bos_token.
_BOS_BY_DEFAULT = _IGNORE_MERGES
_NORMALISED = {"qwen2", "deepseek-r1-qwen"}


@dataclass(frozen=True)
class ConvertedTokenizer:
    """A tokenizer made from a GGUF vocabulary.

    Attributes:
        tokenizer: the content of ``tokenizer.json``.
        tokenizer_config: the content of ``tokenizer_config.json``.
        note: what may make its ids differ from the original tokenizer's; empty if nothing is known to.
    """

    tokenizer: dict[str, Any]
    tokenizer_config: dict[str, Any]
    note: str


def convert_tokenizer(header: GgufHeader) -> ConvertedTokenizer:
    """The tokenizer of the GGUF file that `header` was read from.

    Raises:
        WorkbenchError: ``no-tokenizer`` without a vocabulary, ``unsupported`` for a kind other than byte-level BPE
            (``gpt2``) and SentencePiece BPE (``llama``), ``corrupt-file`` for tokens that repeat.
    """
    vocabulary = read_vocabulary(header)
    if vocabulary.model == "gpt2":
        tokenizer, note = _byte_level(header, vocabulary)
    elif vocabulary.model == "llama" and vocabulary.scores:
        tokenizer, note = _sentence_piece(header, vocabulary), ""
    else:
        raise WorkbenchError(
            "unsupported",
            f"{one_line(header.path)} has a tokenizer of the kind {one_line(vocabulary.model, 40) or 'unknown'}, which "
            "cannot be converted; gpt2 and llama can.",
            "Name a directory with the model's tokenizer.json.",
        )
    return ConvertedTokenizer(tokenizer, _config(header, vocabulary), note)


def adds_bos(vocabulary: GgufVocabulary) -> bool:
    """Whether a beginning-of-sequence token belongs in front, by the file or by llama.cpp's default for its kind."""
    if vocabulary.add_bos_token is not None:
        return vocabulary.add_bos_token
    return vocabulary.model == "llama" or vocabulary.pre in _BOS_BY_DEFAULT


def _byte_level(header: GgufHeader, vocabulary: GgufVocabulary) -> tuple[dict[str, Any], str]:
    pre, note = vocabulary.pre, ""
    if pre not in _PATTERNS:
        said = f"the pre-tokenizer {one_line(pre, 40)!r}, which is not known here" if pre else "no pre-tokenizer"
        note = f"The GGUF file names {said}; llama.cpp's default is used, so token ids may differ."
        pre = "default"
    steps: list[dict[str, Any]] = [_split(pattern) for pattern in _PATTERNS[pre]]
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False})
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": pre in _IGNORE_MERGES,
        "vocab": _vocab(header, vocabulary),
        "merges": _merges(header, vocabulary),
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    added = _added_tokens(vocabulary, normalized=False)
    normalizer = {"type": "NFC"} if pre in _NORMALISED else None
    processor = _post_processor(vocabulary) or byte_level
    return _file(model, added, normalizer, {"type": "Sequence", "pretokenizers": steps}, processor, byte_level), note


def _sentence_piece(header: GgufHeader, vocabulary: GgufVocabulary) -> dict[str, Any]:
    prefix = vocabulary.add_space_prefix is not False
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = [{"type": "Prepend", "prepend": "▁"}, space] if prefix else [space]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = vocabulary.unknown_token_id
    has_bytes = TOKEN_BYTE in vocabulary.types
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": vocabulary.tokens[unknown] if unknown is not None else None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": has_bytes,
        "ignore_merges": False,
        "vocab": _vocab(header, vocabulary),
        "merges": _merges_from_scores(vocabulary),
    }
    # Without a prefix the normalizer leaves added tokens alone, so that user-defined runs of spaces are matched after
    # it, as SentencePiece does; with one, it would put the prefix into the tokens as well.
    added = _added_tokens(vocabulary, normalized=not prefix)
    decoder = {"type": "Sequence", "decoders": decoders}
    normalizer = {"type": "Sequence", "normalizers": steps}
    return _file(model, added, normalizer, None, _post_processor(vocabulary), decoder)


def _file(
    model: dict[str, Any],
    added: list[dict[str, Any]],
    normalizer: Optional[dict[str, Any]],
    pre_tokenizer: Optional[dict[str, Any]],
    post_processor: Optional[dict[str, Any]],
    decoder: dict[str, Any],
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _vocab(header: GgufHeader, vocabulary: GgufVocabulary) -> dict[str, int]:
    vocab = {_content(vocabulary, index): index for index in range(len(vocabulary.tokens))}
    if len(vocab) != len(vocabulary.tokens):
        raise WorkbenchError(
            "corrupt-file",
            f"{one_line(header.path)} has {len(vocabulary.tokens) - len(vocab)} tokens that occur twice.",
            "Use a GGUF file made by a current converter.",
        )
    return vocab


def _content(vocabulary: GgufVocabulary, index: int) -> str:
    token = vocabulary.tokens[index]
    # In user-defined tokens of a SentencePiece vocabulary spaces stand as spaces.
    if vocabulary.model == "llama" and vocabulary.types[index] == TOKEN_USER_DEFINED:
        return token.replace(" ", "▁")
    return token


def _merges(header: GgufHeader, vocabulary: GgufVocabulary) -> list[list[str]]:
    merges = []
    for merge in vocabulary.merges:
        # A space separates the two; the byte-level alphabet has no space of its own.
        left, _, right = merge.partition(" ")
        if not left or not right:
            raise WorkbenchError(
                "corrupt-file",
                f"{one_line(header.path)} has a merge that is no pair: {one_line(merge, 40)!r}.",
                "Use a GGUF file made by a current converter.",
            )
        merges.append([left, right])
    return merges


def _merges_from_scores(vocabulary: GgufVocabulary) -> list[list[str]]:
    """Merges in the order in which SentencePiece BPE takes them: the piece of the highest score first.

    Every split of a piece into two pieces is a merge that leads to it; of one piece those with the earlier parts come
    first.
    """
    normal = {
        token: index
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types))
        if kind not in (TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_BYTE)
    }
    ordered = sorted(normal, key=lambda token: (-vocabulary.scores[normal[token]], normal[token]))
    merges: list[list[str]] = []
    for token in ordered:
        parts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        pairs = [
            (normal[left], normal[right], left, right) for left, right in parts if left in normal and right in normal
        ]
        merges.extend([left, right] for _, _, left, right in sorted(pairs))
    return merges


def _added_tokens(vocabulary: GgufVocabulary, normalized: bool) -> list[dict[str, Any]]:
    special_types = (TOKEN_CONTROL, TOKEN_UNKNOWN) if vocabulary.model == "llama" else (TOKEN_CONTROL,)
    return [
        {
            "id": index,
            "content": _content(vocabulary, index),
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": normalized and kind == TOKEN_USER_DEFINED,
            "special": kind in special_types,
        }
        for index, kind in enumerate(vocabulary.types)
        if kind in special_types or kind == TOKEN_USER_DEFINED
    ]


def _post_processor(vocabulary: GgufVocabulary) -> Optional[dict[str, Any]]:
    """Puts the tokens in front and behind that the file asks for; None if it asks for none."""
    first = vocabulary.bos_token_id if adds_bos(vocabulary) else None
    last = vocabulary.eos_token_id if vocabulary.add_eos_token else None
    if first is None and last is None:
        return None

    def around(sequence: str, kind: int) -> list[dict[str, Any]]:
        pieces: list[dict[str, Any]] = [{"Sequence": {"id": sequence, "type_id": kind}}]
        if first is not None:
            pieces.insert(0, {"SpecialToken": {"id": vocabulary.tokens[first], "type_id": kind}})
        if last is not None:
            pieces.append({"SpecialToken": {"id": vocabulary.tokens[last], "type_id": kind}})
        return pieces

    names = {vocabulary.tokens[index]: index for index in (first, last) if index is not None}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]} for name, index in names.items()},
    }


def _config(header: GgufHeader, vocabulary: GgufVocabulary) -> dict[str, Any]:
    config: dict[str, Any] = {
        # The plain class: it takes tokenizer.json as it is, where others rebuild the pipeline.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": adds_bos(vocabulary),
        "add_eos_token": bool(vocabulary.add_eos_token),
    }
    for name, index in (
        ("bos_token", vocabulary.bos_token_id),
        ("eos_token", vocabulary.eos_token_id),
        ("unk_token", vocabulary.unknown_token_id),
        ("pad_token", vocabulary.padding_token_id),
    ):
        if index is not None:
            config[name] = vocabulary.tokens[index]
    length = header.integer(f"{header.architecture}.context_length")
    if length:
        config["model_max_length"] = length
    templates = vocabulary.chat_templates
    if set(templates) == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    return config
