"""Counting many texts under one tokenizer as fast as exactness allows. Stdlib only.

The format's own library is the truth. A byte-level BPE whose file meets the conditions below is counted through a
`tiktoken.Encoding` made of it, and ``gigatoken``, where it is installed, is tried before that. Either is taken only
if it gives the same ids as the reference on a hostile sample, and dropped for good at its first difference.

Why the encoding gives the ids of the file, though it knows tokens and no merges: take merges in the order of their
rank, each part made before the whole. Let ``t`` be a token that the file's merges make of its own bytes, the last of
them joining ``a`` and ``b``. Wherever two tokens ``c`` and ``d`` with ``cd = t`` meet before the rank of ``t`` is
reached, the merges of lower rank make ``c, d`` of the bytes of ``t`` alone too (parts of a correct tokenization are
correct: Berglund and van der Merwe, Formalizing BPE Tokenization, 2023); but they make ``a, b``. So no pair meets that
the file does not merge.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Sequence
from typing import Any, Optional

from workbench.tokens.byte_level import CHARACTER_OF_BYTE, USED_BYTES, bytes_to_spelling, spelling_to_bytes
from workbench.tokens.cuts import CutRule, cut_rule
from workbench.tokens.huggingface import HuggingFaceTokenizer
from workbench.tokens.pieces import require_encodable
from workbench.tokens.split import GPT2, byte_level_pattern
from workbench.tokens.tokenizer import TextTokenizer

LONG_CHARACTERS = 65_536
"""Longer texts are cut where that changes no token: it is faster, lighter and can be stopped."""

_CHECK_CHARACTERS = 100_000
# Regular expressions of other engines give up on runs of about a million characters of one kind.
_UNCUT_CHARACTERS = 4 * LONG_CHARACTERS

TRICKY = (
    "",
    " ",
    "Hello world, it's what they'll say; I'M sure WE'VE said 'so'ſ.",
    "  leading,   inner \u00a0 and trailing  ",
    "tab\tand\r\nline\n\n\nbreaks \n \n\tdef f(x):\n        return x  # 1,234.5e-6\n",
    "1 12 123 1234 12345678901234567890 ٣٤٥ ²½ Ⅷ 1a2b",
    "!!! ... -- ==> </div> {{}} [[1, 2]] \\n $x_{i}^2$ @user #tag http://a.b/c?d=e&f=g",
    "Straße naïve e\u0301\u0323 Å \u212b ﬁ ﷽ İstanbul ǅ Ελληνικά Русский עברית العربية हिन्दी বাংলা தமிழ் ไทย",
    "日本語の文章です。中文，標點！한국어 \u1112\u1161\u11ab 𠀀𝔘𝕟𝕚 🙂 👩‍👩‍👧 🇩🇪 🏳️‍🌈 \u200d\u200b\ufeff",
    "\x00\x01\x1b[31m\x7f\x85\u2028\u2029\u180e\x1c\x1d \ufffd \uffff \U0010ffff",
    # Characters of Unicode 13 to 17: libraries with older tables split around them otherwise.
    "\u08be \U00010fb0 \u2c2f\u2c5f \U0001df00 \U00011f02 \U0002ebf0 \u1c89 \ua7cb \U00010d4a \U00016d60 \ua7ce",
    "a" * 700 + " " * 300 + "=" * 500 + "\n" * 90 + "0" * 100 + "é" * 50 + "🙂" * 40,
    "<|endoftext|><|im_start|>user\nhi<|im_end|>\n<s>[INST] x [/INST]</s><think> </think> <pad> <unk> <mask>",
    "Ġ and Ċ, ▁ and ##x as themselves; <0x0A>",
    "camelCaseHTTPServer snake_case kebab-case CamelCASE XMLHttpRequest2 iPhone15Pro",
)


class BatchCounter:
    """Counts with the tokenizer's own library. Methods may be called from several threads at once."""

    def __init__(self, tokenizer: TextTokenizer, special: bool = False) -> None:
        self.name = _LIBRARIES.get(tokenizer.format, tokenizer.format)
        self.tokenizer = tokenizer
        self.around = len(tokenizer.encode("", True)) - len(tokenizer.encode("")) if special else 0
        self._rule = cut_rule(tokenizer)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, with those put around a text if the counter was made so.

        Raises:
            WorkbenchError: ``bad-text`` for a lone surrogate, ``bad-tokenizer``.
        """
        for text in texts:
            require_encodable(text)
        owners: list[int] = []
        parts: list[str] = []
        for index, text in enumerate(texts):
            for part in self._parts(text, self._rule):
                owners.append(index)
                parts.append(part)
        counts = [self.around] * len(texts)
        for owner, tokens in zip(owners, self._count_parts(parts)):
            counts[owner] += tokens
        return counts

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing put around it."""
        return [self.tokenizer.encode(text) for text in texts]

    def _count_parts(self, parts: Sequence[str]) -> list[int]:
        if isinstance(self.tokenizer, HuggingFaceTokenizer):
            return self.tokenizer.count_batch(parts)
        return [len(ids) for ids in self.encode(parts)]

    @staticmethod
    def _parts(text: str, rule: Optional[CutRule]) -> list[str]:
        if rule is None or len(text) <= LONG_CHARACTERS:
            return [text]
        return [rule.as_encoded(part, index == 0) for index, part in enumerate(rule.parts(text, LONG_CHARACTERS))]


_LIBRARIES = {
    "tokenizer.json": "tokenizers",
    "sentencepiece": "sentencepiece",
    "tiktoken": "tiktoken",
    "tekken": "tiktoken",
}


class _FastCounter(BatchCounter):
    """Counts with another library as long as it agrees with the reference."""

    def __init__(self, reference: BatchCounter, name: str) -> None:
        self.name = name
        self.tokenizer = reference.tokenizer
        self.around = reference.around
        self._rule = reference._rule
        self._reference = reference
        self._lock = threading.Lock()
        self._left_to_check = _CHECK_CHARACTERS
        self.dropped = not self._agrees(TRICKY)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        raise NotImplementedError

    def _count_parts(self, parts: Sequence[str]) -> list[int]:
        if not self.dropped and self._left_to_check > 0:
            with self._lock:
                self._check_some(parts)
        if not self.dropped and not any(len(part) > _UNCUT_CHARACTERS for part in parts):
            try:
                return self._count_fast(parts)
            except (KeyboardInterrupt, SystemExit):
                raise
            # Panics of Rust libraries (a regular expression that gives up on a hostile text) are BaseExceptions.
            except BaseException:
                pass
        return self._reference._count_parts(parts)

    def _count_fast(self, parts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.encode(parts)]

    def _check_some(self, parts: Sequence[str]) -> None:
        for part in parts:
            if self._left_to_check <= 0 or self.dropped:
                return
            if len(part) > _UNCUT_CHARACTERS:
                continue
            self._left_to_check -= len(part) + 1
            if not self._agrees([part]):
                self._drop()

    def _drop(self) -> None:
        self.dropped = True
        self.name = self._reference.name

    def _agrees(self, texts: Sequence[str]) -> bool:
        try:
            found = self.encode(texts)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return False
        return found == self._reference.encode(texts)


class _TiktokenCounter(_FastCounter):
    """A byte-level ``tokenizer.json`` as a `tiktoken.Encoding` whose ranks are 256 + the number of the merge."""

    def __init__(self, reference: BatchCounter, backend: Any, content: dict[str, Any], encoding: Any) -> None:
        self._encoding = encoding
        self._normalizer = backend.normalizer if content.get("normalizer") else None
        vocab = content["model"]["vocab"]
        self._ids = {
            rank: vocab[bytes_to_spelling(token)]
            for token, rank in encoding._mergeable_ranks.items()
            if rank >= 256 or CHARACTER_OF_BYTE[token[0]] in vocab
        }
        added = content.get("added_tokens") or []
        self._ids.update({encoding._special_tokens[token["content"]]: int(token["id"]) for token in added})
        self._markers = tuple({token["content"][:2] for token in added})
        self._missing = [bytes([byte]) for byte in USED_BYTES if CHARACTER_OF_BYTE[byte] not in vocab]
        super().__init__(reference, "tiktoken")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            self.tokenizer.encode(text) if self._is_beyond(text) else [self._ids[rank] for rank in self._ranks(text)]
            for text in texts
        ]

    def _count_fast(self, parts: Sequence[str]) -> list[int]:
        return [len(self.tokenizer.encode(part)) if self._is_beyond(part) else len(self._ranks(part)) for part in parts]

    def _is_beyond(self, text: str) -> bool:
        """Whether `text` has a byte that the vocabulary lacks: the file's library drops it and joins its neighbours."""
        if not self._missing:
            return False
        content = text.encode("utf-8")
        return any(byte in content for byte in self._missing)

    def _ranks(self, text: str) -> list[int]:
        if self._normalizer is not None and not text.isascii():
            text = self._normalizer.normalize_str(text)
        # Looking for markers costs tiktoken a second pass over the text, so only texts that may hold one pay it.
        if any(marker in text for marker in self._markers):
            found: list[int] = self._encoding.encode(text, allowed_special="all", disallowed_special=())
        else:
            found = self._encoding.encode_ordinary(text)
        return found


class _GigatokenCounter(_FastCounter):
    def __init__(self, reference: BatchCounter, content: dict[str, Any]) -> None:
        self._awkward: Any = importlib.import_module("awkward")
        self._backend = importlib.import_module("gigatoken").Tokenizer.from_json(json.dumps(content))
        super().__init__(reference, "gigatoken")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._backend.encode_batch_list(list(texts), parallel=False)
        return found

    def _count_fast(self, parts: Sequence[str]) -> list[int]:
        found: list[int] = self._awkward.num(self._backend.encode_batch(list(parts), parallel=False)).tolist()
        return found


def batch_counter(tokenizer: TextTokenizer, *, special: bool = False, optional: bool = True) -> BatchCounter:
    """The fastest exact counter for `tokenizer` in this environment.

    Args:
        tokenizer: any.
        special: count what the tokenizer puts around each text (BOS, EOS, CLS).
        optional: try ``gigatoken`` if it can be imported.
    """
    reference = BatchCounter(tokenizer, special)
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        return reference
    content = tokenizer.content()
    for make in (_gigatoken_counter, _tiktoken_counter) if optional else (_tiktoken_counter,):
        found = make(reference, tokenizer, content)
        if found is not None and not found.dropped:
            return found
    return reference


def _gigatoken_counter(
    reference: BatchCounter, tokenizer: HuggingFaceTokenizer, content: dict[str, Any]
) -> Optional[_FastCounter]:
    try:
        return _GigatokenCounter(reference, content)
    except (KeyboardInterrupt, SystemExit):
        raise
    # Absent, too old, or a file that it refuses in whatever way.
    except BaseException:
        return None


def _tiktoken_counter(
    reference: BatchCounter, tokenizer: HuggingFaceTokenizer, content: dict[str, Any]
) -> Optional[_FastCounter]:
    if not _is_plain_byte_level(content):
        return None
    ranks = _ranks(content["model"], tokenizer.backend)
    pattern = byte_level_pattern(content.get("pre_tokenizer"))
    if ranks is None or pattern is None:
        return None
    special = {token["content"]: 2**30 + index for index, token in enumerate(content.get("added_tokens") or [])}
    try:
        import tiktoken

        encoding = tiktoken.Encoding(
            name=tokenizer.name, pat_str=_covering(pattern), mergeable_ranks=ranks, special_tokens=special
        )
        return _TiktokenCounter(reference, tokenizer.backend, content, encoding)
    except (KeyboardInterrupt, SystemExit):
        raise
    # Absent, or a pattern that its regular expressions do not accept.
    except BaseException:
        return None


def _covering(pattern: str) -> str:
    """`pattern` with the stretches that it leaves unmatched as matches of their own."""
    return pattern if r"\s+" in pattern and GPT2[-30:] in pattern else rf"{pattern}|(?:(?!{pattern})[\s\S])+"


def _is_plain_byte_level(content: dict[str, Any]) -> bool:
    model = content["model"]
    if model.get("type") != "BPE" or any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    ):
        return False
    if (content.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        return False
    added = content.get("added_tokens") or []
    if any(token.get(key) for token in added for key in ("lstrip", "rstrip", "single_word")):
        return False
    # The file takes the longest marker at a place, in one pass if all are of one kind; tiktoken takes any.
    names = sorted(token["content"] for token in added)
    if any(longer.startswith(shorter) for shorter, longer in zip(names, names[1:])) or "" in names:
        return False
    return content.get("normalizer") is None or not any(token.get("normalized") for token in added)


def _ranks(model: dict[str, Any], backend: Any) -> Optional[dict[bytes, int]]:
    """Ranks that make tiktoken merge as the file's merges do, or None if none are known to."""
    vocab = model["vocab"]
    # Bytes that begin a character may be missing; that can be seen in a text. Bytes within one may not.
    if any(CHARACTER_OF_BYTE[byte] not in vocab for byte in range(0x80, 0xC0)):
        return None
    ranks = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
    listed: set[tuple[str, str]] = set()
    last = ""
    for index, merge in enumerate(model["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        whole = left + right
        if left not in ranks or right not in ranks or (whole != last and whole in ranks):
            return None
        ranks.setdefault(whole, 256 + index)
        listed.add((left, right))
        last = whole
    if model.get("ignore_merges"):
        if not _lists_every_split(ranks, listed) or not _all_merged(vocab, ranks):
            return None
    else:
        tokenize = backend.model.tokenize
        ranks = {token: rank for token, rank in ranks.items() if rank < 256 or len(tokenize(token)) == 1}
    return {spelling_to_bytes(token) or b"": rank for token, rank in ranks.items()}


def _all_merged(vocab: dict[str, int], ranks: dict[str, int]) -> bool:
    """Whether every token within the alphabet is in `ranks`: a whole word that is a token is never cut."""
    return all(spelling in ranks for spelling in vocab if spelling_to_bytes(spelling) is not None)


def _lists_every_split(ranks: dict[str, int], listed: set[tuple[str, str]]) -> bool:
    return all(
        (token[:cut], token[cut:]) in listed
        for token in ranks
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    )
