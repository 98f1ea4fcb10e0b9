"""Byte-pair vocabularies that the ``tiktoken`` library reads: rank files and Mistral's ``tekken.json``.

A rank file holds neither its split pattern nor its special tokens. They are known by the file's SHA-256, never
guessed: another pattern would give other counts without any sign of it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.packages import need
from workbench.tokens.patience import PatientCalls
from workbench.tokens.pieces import Piece, character_offsets, require_encodable
from workbench.tokens.tokenizer import TextTokenizer, bad_tokenizer, broken_file, unknown_token

_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _TAIL
)
_LLAMA3_SPECIAL = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>", "<|image|>"),
    *(f"<|reserved_special_token_{number}|>" for number in range(2, 246)),
)
# Tekken files up to version 7 do not list their special tokens; these come first, fillers follow.
_TEKKEN_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)


@dataclass(frozen=True)
class RankFile:
    """What belongs to a rank file and is not in it."""

    name: str
    pattern: str
    special: dict[str, int]
    bos: Optional[str] = None


# Definitions as in tiktoken's openai_public module and in Meta's llama-models (llama3/tokenizer.py).
KNOWN_RANK_FILES = {
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": RankFile(
        "cl100k_base",
        _WORDS,
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": RankFile(
        "o200k_base", _CASED_WORDS, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
    ),
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55": RankFile(
        "llama3",
        _WORDS,
        {token: 128_000 + index for index, token in enumerate(_LLAMA3_SPECIAL)},
        "<|begin_of_text|>",
    ),
}


def load_rank_file(file: Path, name: str) -> BytePairTokenizer:
    """Load a tiktoken rank file: lines of base64 and rank.

    Raises:
        WorkbenchError: ``unknown-ranks`` if pattern and special tokens are not known, ``bad-tokenizer``,
            ``missing-package``.
    """
    content = file.read_bytes()
    known = KNOWN_RANK_FILES.get(hashlib.sha256(content).hexdigest())
    if known is None:
        raise WorkbenchError(
            "unknown-ranks",
            f"{file} is a tiktoken rank file whose split pattern and special tokens are not known.",
            "Name a tokenizer.json of the same model: a guessed pattern would give wrong counts.",
        )
    try:
        pairs = (line.split() for line in content.splitlines() if line)
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error) as error:
        raise bad_tokenizer(file, error) from None
    encoding = _encoding(file, known.name, known.pattern, ranks, known.special)
    bos = known.special[known.bos] if known.bos else None
    return BytePairTokenizer(encoding, name, file, "tiktoken", known.special, 0, bos)


def load_tekken(file: Path, name: str) -> BytePairTokenizer:
    """Load a ``tekken.json``: special tokens first, then as many ranks as the vocabulary size leaves.

    Raises:
        WorkbenchError: ``bad-tokenizer``, ``missing-package``.
    """
    try:
        content = json.loads(file.read_bytes())
        config = content["config"]
        special_count = int(config["default_num_special_tokens"])
        size = int(config["default_vocab_size"]) - special_count
        ranks = {base64.b64decode(entry["token_bytes"]): int(entry["rank"]) for entry in content["vocab"][:size]}
        if not 0 < size == len(ranks) or set(ranks.values()) != set(range(size)):
            raise ValueError(f"it has not the {size:,} tokens that it states")
        special = _tekken_special(content.get("special_tokens"), special_count)
        pattern = str(config["pattern"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad_tokenizer(file, error) from None
    encoding = _encoding(file, "tekken", pattern, ranks, {})
    return BytePairTokenizer(encoding, name, file, "tekken", special, special_count, special.get("<s>"))


def _tekken_special(stated: Any, count: int) -> dict[str, int]:
    named = [str(entry["token_str"]) for entry in stated] if stated else list(_TEKKEN_SPECIAL)
    fillers = (f"<SPECIAL_{index}>" for index in range(len(named), count))
    return {token: index for index, token in enumerate((*named[:count], *fillers))}


def _encoding(file: Path, name: str, pattern: str, ranks: dict[bytes, int], special: dict[str, int]) -> Any:
    tiktoken = need("tiktoken", f"Reading {file}")
    with broken_file(file):
        return tiktoken.Encoding(name=name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


class BytePairTokenizer(TextTokenizer):
    """A `tiktoken.Encoding`, or one whose ids are shifted to make room for special tokens.

    Under tekken special tokens are never read out of typed text, so ``parse_special`` changes nothing there.
    """

    def __init__(
        self, encoding: Any, name: str, file: Path, kind: str, special: dict[str, int], shift: int, bos: Optional[int]
    ) -> None:
        self.name = name
        self._file = file
        self._calls = PatientCalls(name)
        self.format = kind
        self._encoding = encoding
        self._special = special
        self._special_names = {token_id: token for token, token_id in special.items()}
        self._shift = shift
        self._bos = bos
        self.vocab_size = max(encoding.n_vocab + shift, max(special.values(), default=-1) + 1)

    def encode(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        require_encodable(text)
        if parse_special:
            encode = functools.partial(self._encoding.encode, text, allowed_special="all", disallowed_special=())
        else:
            encode = functools.partial(self._encoding.encode_ordinary, text)
        with broken_file(self._file):
            found: list[int] = self._calls.run(encode, len(text))
        ids = [token_id + self._shift for token_id in found] if self._shift else found
        return [self._bos, *ids] if add_special_tokens and self._bos is not None else ids

    def encode_pieces(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[Piece]:
        ids = self.encode(text, False, parse_special)
        character_at = character_offsets(text)
        pieces = []
        if add_special_tokens and self._bos is not None:
            pieces.append(Piece(self._bos, self.id_token(self._bos), 0, 0, True))
        position = 0
        for token_id in ids:
            start = character_at[position]
            position += len(self._token_bytes(token_id))
            # A token that ends within a character covers all of it.
            end = character_at[position - 1] + 1
            pieces.append(Piece(token_id, text[start:end], start, end, token_id in self._special_names))
        return pieces

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        kept = (token_id for token_id in ids if not (skip_special_tokens and token_id in self._special_names))
        return b"".join(self._token_bytes(token_id) for token_id in kept).decode("utf-8", errors="replace")

    def token_id(self, token: str) -> Optional[int]:
        if token in self._special:
            return self._special[token]
        try:
            return int(self._encoding.encode_single_token(token.encode("utf-8", "surrogatepass"))) + self._shift
        except KeyError:
            return None

    def id_token(self, token_id: int) -> str:
        content = self._token_bytes(token_id)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in content)

    def special_tokens(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def encoding(self) -> Any:
        """The `tiktoken.Encoding`; its ids lack the shift."""
        return self._encoding

    @property
    def shift(self) -> int:
        """What is added to the encoding's ids to make room for special tokens."""
        return self._shift

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a token.

        Raises:
            WorkbenchError: ``unknown-token`` if no token has this id.
        """
        return self._token_bytes(token_id)

    def _token_bytes(self, token_id: int) -> bytes:
        if token_id in self._special_names:
            return self._special_names[token_id].encode("utf-8")
        try:
            found: bytes = self._encoding.decode_single_token_bytes(token_id - self._shift)
        except (KeyError, OverflowError):
            raise unknown_token(self, token_id) from None
        return found
