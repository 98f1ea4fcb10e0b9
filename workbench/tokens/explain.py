"""Why a text was split as it was: merges of BPE, best segmentations of Unigram, greedy steps of WordPiece.

Stdlib only; the algorithms are walked through here and the outcome is compared with the tokenizer's own. Explaining a
tiktoken vocabulary needs the package regex, which tiktoken brings along.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.packages import need
from workbench.tokens.byte_level import is_byte_level, readable, spelling_to_bytes
from workbench.tokens.byte_pairs import BytePairTokenizer
from workbench.tokens.huggingface import HuggingFaceTokenizer
from workbench.tokens.sentencepiece import SentencePieceTokenizer, read_fields
from workbench.tokens.tokenizer import TextTokenizer

MAX_CHARACTERS = 400
"""Longer texts have more steps than anyone reads."""

_UNKNOWN_PENALTY = 10.0  # tokenizers unigram/model.rs, sentencepiece unigram_model.cc: kUnkPenalty


@dataclass(frozen=True)
class Merge:
    """One step of BPE: the pair of the lowest rank in the word is joined."""

    rank: int
    """Position among the merges; in SentencePiece and tiktoken the rank of the token that results."""
    left: str
    right: str
    tokens: list[str]
    """The word after this step."""


@dataclass(frozen=True)
class Segmentation:
    """One way to split a word under Unigram."""

    tokens: list[str]
    score: float
    """Sum of the tokens' log probabilities; the highest wins."""
    scores: list[float]


@dataclass(frozen=True)
class GreedyStep:
    """One step of WordPiece: the longest token that the rest of the word begins with."""

    token: str
    tried: int
    """How many longer beginnings were no tokens."""
    rest: str
    """What remains after this step."""


@dataclass(frozen=True)
class WordExplanation:
    """One word, as the model gets it after normalizing and splitting."""

    word: str
    start: list[str]
    """What BPE begins with; empty for the other kinds."""
    merges: list[Merge]
    segmentations: list[Segmentation]
    """Best first."""
    steps: list[GreedyStep]
    tokens: list[str]
    """The tokenizer's own tokens of this word."""
    ids: list[int]
    agrees: bool
    """Whether the steps lead to exactly these tokens."""
    note: str


@dataclass(frozen=True)
class SplitExplanation:
    """Why a text was split as it was."""

    kind: str
    """``BPE``, ``Unigram`` or ``WordPiece``."""
    normalized: str
    """The text after normalizing, where the tokenizer normalizes."""
    words: list[WordExplanation]


def explain_split(text: str, tokenizer: TextTokenizer, segmentations: int = 5) -> SplitExplanation:
    """Walk through the split of a short text.

    Markers are shown as words of their own.

    Args:
        text: at most `MAX_CHARACTERS`.
        tokenizer: any.
        segmentations: how many to give for Unigram.

    Raises:
        WorkbenchError: ``too-long``, ``unexplained`` for a kind of model that is not known, ``missing-package``.
    """
    if len(text) > MAX_CHARACTERS:
        raise WorkbenchError(
            "too-long",
            f"The text has {len(text):,} characters, more than can be explained step by step.",
            f"Select up to {MAX_CHARACTERS} characters, such as a word or a line.",
        )
    pieces = tokenizer.encode_pieces(text)  # refuses text without a UTF-8 form
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _file_of(tokenizer).explain(text, pieces, segmentations)
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _explain_processor(text, tokenizer, segmentations)
    if isinstance(tokenizer, BytePairTokenizer):
        return _explain_encoding(text, tokenizer)
    raise WorkbenchError("unexplained", f"{tokenizer.name} is of a kind that is not explained.", "")


@lru_cache(maxsize=2)
def _file_of(tokenizer: HuggingFaceTokenizer) -> _File:
    # Reading a large file's merges takes most of a second; one looks at many words of one tokenizer.
    return _File(tokenizer)


class _File:
    """A ``tokenizer.json``."""

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self._backend = tokenizer.backend
        self._content = tokenizer.content()
        self._model = self._content["model"]
        self._kind = str(self._model.get("type") or "BPE")
        self._is_byte_level = is_byte_level(self._content)
        if self._kind == "BPE":
            pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in self._model["merges"])
            self._merges = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
        elif self._kind not in ("Unigram", "WordPiece"):
            raise WorkbenchError("unexplained", f"{tokenizer.name} has a model of the kind {self._kind}.", "")

    def explain(self, text: str, pieces: Sequence[Any], segmentations: int) -> SplitExplanation:
        words: list[WordExplanation] = []
        normalized = []
        added = {int(token["id"]): token["content"] for token in self._content.get("added_tokens") or []}
        position = 0
        # A model's own unknown token may have the id of an added one; only the typed one is a marker.
        markers = (piece for piece in pieces if piece.id in added and added[piece.id] in text[piece.start : piece.end])
        for piece in [*markers, None]:
            stretch = text[position : len(text) if piece is None else piece.start]
            if stretch:
                shown, found = self._stretch(stretch, segmentations)
                normalized.append(shown)
                words += found
            if piece is not None:
                note = "A marker: taken out of the text before anything else."
                words.append(WordExplanation(piece.text, [], [], [], [], [added[piece.id]], [piece.id], True, note))
                normalized.append(piece.text)
                position = piece.end
        return SplitExplanation(self._kind, "".join(normalized), words)

    def _stretch(self, text: str, segmentations: int) -> tuple[str, list[WordExplanation]]:
        normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
        normalized = normalizer.normalize_str(text) if normalizer is not None else text
        words = [word for word, _ in splitter.pre_tokenize_str(normalized)] if splitter is not None else [normalized]
        return normalized, [self._word(word, segmentations) for word in words if word]

    def _word(self, word: str, segmentations: int) -> WordExplanation:
        own = self._backend.model.tokenize(word)
        tokens, ids = [token.value for token in own], [int(token.id) for token in own]
        if self._kind == "BPE":
            found = self._bpe(word, tokens, ids)
            return _with_bytes(found) if self._is_byte_level else found
        if self._kind == "WordPiece":
            steps, note = _greedy(word, self._model)
            agrees = [step.token for step in steps] == tokens
            return WordExplanation(word, [], [], [], steps, tokens, ids, agrees, note)
        scores = {token: float(score) for token, score in self._model["vocab"]}
        ways = _best_segmentations(word, scores, segmentations, bool(self._model.get("byte_fallback")))
        agrees = bool(ways) and _with_unknown(ways[0].tokens, scores) == _with_unknown(tokens, scores)
        return WordExplanation(word, [], [], ways, [], tokens, ids, agrees, "")

    def _bpe(self, word: str, tokens: list[str], ids: list[int]) -> WordExplanation:
        vocab = self._model["vocab"]
        if self._model.get("ignore_merges") and word in vocab:
            note = "The whole word is a token; this file takes such words without merging."
            return WordExplanation(word, [word], [], [], [], tokens, ids, tokens == [word], note)
        start = list(self._symbols(word, vocab))
        merges = list(_merge(start, lambda left, right: self._rank(left, right)))
        last = merges[-1].tokens if merges else start
        return WordExplanation(word, start, merges, [], [], tokens, ids, last == tokens, "")

    def _rank(self, left: str, right: str) -> Optional[int]:
        prefix = self._model.get("continuing_subword_prefix") or ""
        found = self._merges.get((left, right))
        return None if found is None or left + right[len(prefix) :] not in self._model["vocab"] else found

    def _symbols(self, word: str, vocab: dict[str, int]) -> Iterator[str]:
        prefix = self._model.get("continuing_subword_prefix") or ""
        suffix = self._model.get("end_of_word_suffix") or ""
        unknown = False
        for index, character in enumerate(word):
            symbol = (prefix if index else "") + character + (suffix if index == len(word) - 1 else "")
            spelled = [f"<0x{byte:02X}>" for byte in character.encode("utf-8")]
            if symbol in vocab:
                yield symbol
            elif self._model.get("byte_fallback") and all(byte in vocab for byte in spelled):
                yield from spelled
            elif self._model.get("unk_token"):
                if not (unknown and self._model.get("fuse_unk")):
                    yield self._model["unk_token"]
                unknown = True
                continue
            unknown = False


def _with_bytes(word: WordExplanation) -> WordExplanation:
    """With the text that each spelling in the byte alphabet stands for, as the tokens of a text are shown."""

    def shown(spelling: str) -> str:
        content = spelling_to_bytes(spelling)
        return spelling if content is None else readable(content)

    merges = [
        Merge(step.rank, shown(step.left), shown(step.right), list(map(shown, step.tokens))) for step in word.merges
    ]
    return replace(
        word,
        word=shown(word.word),
        start=list(map(shown, word.start)),
        merges=merges,
        tokens=list(map(shown, word.tokens)),
    )


def _merge(start: Sequence[str], rank_of: Callable[[str, str], Optional[int]]) -> Iterator[Merge]:
    """Join the pair of the lowest rank, the leftmost of equals, until none is left."""
    tokens = list(start)
    while True:
        ranked = ((rank_of(left, right), index) for index, (left, right) in enumerate(zip(tokens, tokens[1:])))
        best = min(((rank, index) for rank, index in ranked if rank is not None), default=None)
        if best is None:
            return
        rank, index = best
        left, right = tokens[index : index + 2]
        tokens[index : index + 2] = [left + right]
        yield Merge(rank, left, right, list(tokens))


def _greedy(word: str, model: dict[str, Any]) -> tuple[list[GreedyStep], str]:
    """WordPiece (tokenizers, models/wordpiece/mod.rs): one part without a token makes the whole word unknown."""
    vocab, prefix, unknown = model["vocab"], model["continuing_subword_prefix"], model["unk_token"]
    if len(word) > model["max_input_chars_per_word"]:
        note = f"The word is longer than {model['max_input_chars_per_word']} characters."
        return [GreedyStep(unknown, 0, "")], note
    steps: list[GreedyStep] = []
    position = 0
    while position < len(word):
        head = prefix if position else ""
        end = next((end for end in range(len(word), position, -1) if head + word[position:end] in vocab), None)
        if end is None:
            note = f"No token begins {word[position:]!r}, so the whole word is unknown."
            return [GreedyStep(unknown, len(word) - position, "")], note
        steps.append(GreedyStep(head + word[position:end], len(word) - end, word[end:]))
        position = end
    return steps, ""


def _best_segmentations(word: str, scores: dict[str, float], wanted: int, byte_fallback: bool) -> list[Segmentation]:
    """The `wanted` best splits by the sum of scores: Viterbi that keeps several ways to each place."""
    longest = max(map(len, scores), default=1)
    unknown_score = min(scores.values(), default=0.0) - _UNKNOWN_PENALTY
    best: list[list[tuple[float, tuple[tuple[str, float], ...]]]] = [[(0.0, ())]]
    for end in range(1, len(word) + 1):
        ways: list[tuple[float, tuple[tuple[str, float], ...]]] = []
        for start in range(max(0, end - longest), end):
            part = word[start:end]
            score = scores.get(part)
            if score is None and end - start > 1:
                continue
            if score is None:
                score = unknown_score
            ways += [(total + score, (*taken, (part, score))) for total, taken in best[start]]
        best.append(heapq.nlargest(wanted, ways, key=lambda way: way[0]))
    return [_segmentation(total, taken, scores, byte_fallback) for total, taken in best[-1]]


def _segmentation(
    total: float, taken: Sequence[tuple[str, float]], scores: dict[str, float], byte_fallback: bool
) -> Segmentation:
    tokens: list[str] = []
    values: list[float] = []
    fused = False
    for token, score in taken:
        known = token in scores
        spelled = [f"<0x{byte:02X}>" for byte in token.encode("utf-8")]
        if known or not (byte_fallback and all(byte in scores for byte in spelled)):
            if fused and not known:
                # Unknown characters in a row become one token.
                tokens[-1] += token
                values[-1] += score
            else:
                tokens.append(token)
                values.append(score)
            fused = not known
        else:
            tokens += spelled
            values += [score / len(spelled)] * len(spelled)
            fused = False
    return Segmentation(tokens, total if math.isfinite(total) else 0.0, values)


def _with_unknown(tokens: Sequence[str], scores: dict[str, float]) -> list[Optional[str]]:
    return [token if token in scores else None for token in tokens]


def _explain_processor(text: str, tokenizer: SentencePieceTokenizer, wanted: int) -> SplitExplanation:
    """A SentencePiece model: it has no words, so the whole text is one."""
    processor = tokenizer.processor
    ids = [int(token_id) for token_id in processor.encode(text)]
    tokens = [str(processor.id_to_piece(token_id)) for token_id in ids]
    usable = [
        index
        for index in range(processor.get_piece_size())
        if not (processor.is_control(index) or processor.is_unknown(index) or processor.is_unused(index))
    ]
    scores = {str(processor.id_to_piece(index)): float(processor.get_score(index)) for index in usable}
    byte_tokens = {str(processor.id_to_piece(index)) for index in usable if processor.is_byte(index)}
    plain = {token: score for token, score in scores.items() if token not in byte_tokens}
    word = str(processor.normalize(text))
    if _is_unigram(processor):
        # Byte tokens stand for unknown characters only; they have no score of their own in the search.
        ways = [
            Segmentation(_spelled(way.tokens, plain, byte_tokens), way.score, way.scores)
            for way in _best_segmentations(word, plain, wanted, False)
        ]
        agrees = bool(ways) and _with_unknown(ways[0].tokens, scores) == _with_unknown(tokens, scores)
        explained = WordExplanation(word, [], [], ways, [], tokens, ids, agrees, "")
        return SplitExplanation("Unigram", word, [explained] if word else [])

    def rank(left: str, right: str) -> Optional[int]:
        # Scores of a BPE model are minus the rank of the merge that makes the token.
        score = plain.get(left + right)
        return None if score is None else round(-score)

    start = list(word)
    merges = list(_merge(start, rank))
    last = _spelled(merges[-1].tokens if merges else start, plain, byte_tokens)
    agrees = _with_unknown(last, scores) == _with_unknown(tokens, scores)
    note = (
        ""
        if last == (merges[-1].tokens if merges else start)
        else "Characters without a token become bytes, or one unknown token together."
    )
    explained = WordExplanation(word, start, merges, [], [], tokens, ids, agrees, note)
    return SplitExplanation("BPE", word, [explained] if word else [])


def _spelled(tokens: Sequence[str], plain: dict[str, float], byte_tokens: set[str]) -> list[str]:
    """Tokens with unknown stretches as bytes where the model has byte tokens, else as one token each."""
    found: list[str] = []
    fused = False
    for token in tokens:
        known = token in plain
        if known or not byte_tokens:
            found[-1:] = [found[-1] + token] if fused and not known else [*found[-1:], token]
        else:
            found += [f"<0x{byte:02X}>" for byte in token.encode("utf-8")]
        fused = not known and not byte_tokens
    return found


def _is_unigram(processor: Any) -> bool:
    """By the model's own statement: field 3 of trainer_spec (field 2 of the model) is 1 for Unigram, 2 for BPE."""
    for number, value in read_fields(bytes(processor.serialized_model_proto())):
        if number == 2 and isinstance(value, bytes):
            return dict(read_fields(value)).get(3, 1) == 1
    return True


def _explain_encoding(text: str, tokenizer: BytePairTokenizer) -> SplitExplanation:
    """A tiktoken vocabulary: a pair merges if it is a token, the one of the lowest rank first."""
    regex = need("regex", "Explaining a tiktoken vocabulary")
    encoding = tokenizer.encoding
    ranks: dict[bytes, int] = encoding._mergeable_ranks
    special = {} if tokenizer.format == "tekken" else tokenizer.special_tokens()
    markers = "|".join(sorted(map(regex.escape, special), key=len, reverse=True))
    words: list[WordExplanation] = []
    for stretch in regex.split(f"({markers})", text) if markers else [text]:
        if stretch in special:
            note = "A marker: taken out of the text before anything else."
            words.append(WordExplanation(stretch, [], [], [], [], [stretch], [special[stretch]], True, note))
            continue
        for word in regex.findall(encoding._pat_str, stretch):
            words.append(_encoded_word(word, tokenizer, ranks))
    return SplitExplanation("BPE", text, words)


def _encoded_word(word: str, tokenizer: BytePairTokenizer, ranks: dict[bytes, int]) -> WordExplanation:
    # Latin-1 gives every byte a character of its own, so the steps can be walked through as text.
    start = [chr(byte) for byte in word.encode("utf-8")]
    merges = list(_merge(start, lambda left, right: ranks.get((left + right).encode("latin-1"))))
    ids = [token_id + tokenizer.shift for token_id in tokenizer.encoding.encode_ordinary(word)]

    def shown(token: str) -> str:
        return readable(token.encode("latin-1"))

    last = merges[-1].tokens if merges else start
    steps = [Merge(step.rank, shown(step.left), shown(step.right), list(map(shown, step.tokens))) for step in merges]
    agrees = [token.encode("latin-1") for token in last] == [tokenizer.token_bytes(token_id) for token_id in ids]
    tokens = [tokenizer.id_token(token_id) for token_id in ids]
    return WordExplanation(word, list(map(shown, start)), steps, [], [], tokens, ids, agrees, "")
