"""``tokenizer.json`` files, read by the ``tokenizers`` library, which is their reference.

Not through transformers' AutoTokenizer: since version 5 some of its classes rebuild the pipeline from
vocabulary and merges and give other ids than the file.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from workbench.packages import need
from workbench.tokens.byte_level import CHARACTER_OF_BYTE, USED_BYTES
from workbench.tokens.growth import refuse_growth, step_growth
from workbench.tokens.patience import SHORT_CHARACTERS, PatientCalls
from workbench.tokens.pieces import Piece, require_encodable
from workbench.tokens.tokenizer import TextTokenizer, broken_file, unknown_token

_IN_NO_VOCABULARY = "\U000f1e57"
# Added tokens without the special flag are of two kinds: markers (<think>, </s>, [IMG]) and stretches of
# ordinary text (runs of spaces in GPT-NeoX). Only the first kind may be smuggled in by typing it.
_MARKER = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")


def load_tokenizer_json(file: Path, name: str) -> HuggingFaceTokenizer:
    """Load a ``tokenizer.json``.

    Raises:
        WorkbenchError: ``bad-tokenizer``, ``missing-package``.
    """
    tokenizers = need("tokenizers", f"Reading {file}")
    with broken_file(file):
        backend = tokenizers.Tokenizer.from_file(str(file))
        # A file may carry the truncation and padding of the training run; a count must not.
        backend.no_truncation()
        backend.no_padding()
        for part in (backend.normalizer, backend.decoder):
            if part is not None:
                refuse_growth(step_growth(json.loads(part.__getstate__())), file)
        dropout = getattr(backend.model, "dropout", None)
        if dropout:
            backend.model.dropout = None
        found = HuggingFaceTokenizer(backend, name, file)
        if dropout:
            found.note = (
                f"{file} asks for BPE dropout {dropout:g}, under which a text gives other tokens each time; "
                "counted without it."
            )
        return found


def _has_regex(part: Any) -> bool:
    return part is not None and b'"Regex"' in part.__getstate__()


class HuggingFaceTokenizer(TextTokenizer):
    """A `tokenizers.Tokenizer`."""

    format = "tokenizer.json"

    def __init__(self, backend: Any, name: str, file: Path) -> None:
        self.name = name
        self._file = file
        self.vocab_size = int(backend.get_vocab_size(with_added_tokens=True))
        self._backend = backend
        self._plain: Any = None
        self._plain_lock = threading.Lock()
        self._calls = PatientCalls(name)
        added = backend.get_added_tokens_decoder()
        self._special = {token.content: int(token_id) for token_id, token in added.items() if token.special}
        self._special_ids = frozenset(self._special.values())
        # A regular expression may take its time over each token's own text, which may be a long one.
        self._decoded_weight = SHORT_CHARACTERS + 1 if _has_regex(backend.decoder) else 1
        self.added_ids = frozenset(int(token_id) for token_id in added)
        """Ids of all added tokens, those without the special flag among them."""

    @property
    def unknown_id(self) -> Optional[int]:
        return self._unknown[0]

    @property
    def may_drop(self) -> bool:
        return self._unknown[1]

    @functools.cached_property
    def _unknown(self) -> tuple[Optional[int], bool]:
        """Seen from what the model makes of a character that is in no vocabulary; Unigram does not tell its token."""
        with broken_file(self._file):
            try:
                found = self._backend.model.tokenize(_IN_NO_VOCABULARY)
            except Exception:
                return None, False  # a Unigram model without such a token, which fails on the text too
            if len(found) == 1:
                return int(found[0].id), False
            return None, not found and not self._has_all_bytes()

    def _has_all_bytes(self) -> bool:
        bytes_first = f"{self._backend.normalizer}{self._backend.pre_tokenizer}"
        known = self._backend.token_to_id
        return "ByteLevel" in bytes_first and all(known(CHARACTER_OF_BYTE[byte]) is not None for byte in USED_BYTES)

    def encode(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        ids: list[int] = self._encoding(text, add_special_tokens, parse_special).ids
        return ids

    def encode_pieces(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[Piece]:
        encoding = self._encoding(text, add_special_tokens, parse_special)
        return [
            Piece(
                id=token_id,
                text=text[start:end] if end > start else token,
                start=start,
                end=end,
                special=token_id in self._special_ids,
            )
            for token_id, token, (start, end) in zip(encoding.ids, encoding.tokens, encoding.offsets)
        ]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        with broken_file(self._file):
            # Everywhere the forms for batches, which alone let go of the interpreter: other threads go on meanwhile.
            many = [list(ids)]
            texts: list[str] = self._calls.run(
                lambda: self._backend.decode_batch(many, skip_special_tokens=skip_special_tokens),
                len(ids) * self._decoded_weight,
            )
            return texts[0]

    def token_id(self, token: str) -> Optional[int]:
        found: Optional[int] = self._backend.token_to_id(token)
        return found

    def id_token(self, token_id: int) -> str:
        token: Optional[str] = self._backend.id_to_token(token_id) if token_id >= 0 else None
        if token is None:
            raise unknown_token(self, token_id)
        return token

    def special_tokens(self) -> dict[str, int]:
        return dict(self._special)

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """The lengths of `encode` for many texts, on all cores."""
        with broken_file(self._file):
            # The fast form leaves out offsets; it came with tokenizers 0.20.
            encode = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
            many = list(texts)
            found = self._calls.run(lambda: encode(many, add_special_tokens=False), sum(map(len, many)))
            return [len(encoding) for encoding in found]

    @property
    def backend(self) -> Any:
        """The `tokenizers.Tokenizer`, without truncation and padding; not to be changed."""
        return self._backend

    def content(self) -> dict[str, Any]:
        """What the file says, in the present form of the format."""
        found: dict[str, Any] = json.loads(self._backend.to_str())
        return found

    def _encoding(self, text: str, add_special_tokens: bool, parse_special: bool) -> Any:
        require_encodable(text)
        with broken_file(self._file):
            backend = self._backend if parse_special else self._plain_backend()
            return self._calls.run(
                lambda: backend.encode_batch([text], add_special_tokens=add_special_tokens), len(text)
            )[0]

    def _plain_backend(self) -> Any:
        """A second tokenizer that reads markers as text.

        ``encode_special_tokens`` spares only tokens with the special flag, so the copy sets that flag on every
        marker. It is a copy because the switch would act on other threads in the middle of their text.
        """
        with self._plain_lock:
            if self._plain is None:
                from tokenizers import Tokenizer

                content = json.loads(self._backend.to_str())
                for token in content.get("added_tokens", []):
                    token["special"] = token["special"] or bool(_MARKER.fullmatch(token["content"]))
                plain = Tokenizer.from_str(json.dumps(content))
                plain.encode_special_tokens = True
                self._plain = plain
            return self._plain
