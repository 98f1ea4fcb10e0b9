"""Reading a model's embedding tables: neighbours, similarities, norms, a map of words. Needs torch: worker only.

A table is read in pieces, so that a bfloat16 matrix of gigabytes never stands in float32 as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from workbench.architecture.embedded import (
    MapPoint,
    Neighbour,
    Neighbours,
    NormSummary,
    Similarities,
    TableFacts,
    TokenNorm,
    WordMap,
    WordVector,
)
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.load import LoadedModel
from workbench.text import one_line

TABLES = ("input", "output")
MEASURES = ("cosine", "dot")
MAX_COUNT = 200
MAX_TEXTS = 64
MAX_WORDS = 200
_CHUNK_ELEMENTS = 2**23
_BACKGROUND_PAIRS = 2048
_BINS = 48


@dataclass(frozen=True)
class Words:
    """What the tables need of a tokenizer.

    Attributes:
        encode: ids of a text without special tokens.
        text_of: the text of a token.
        vocab_size: tokens the tokenizer has.
    """

    encode: Callable[[str], list[int]]
    text_of: Callable[[int], str]
    vocab_size: int


class _Table:
    """One embedding table in pieces of float32."""

    def __init__(self, loaded: LoadedModel, table: str) -> None:
        if table not in TABLES:
            raise WorkbenchError("bad-option", f"There is no table {table!r:.40}.", "Choose input or output.")
        model = loaded.model
        if model is None:
            raise WorkbenchError("no-model", "The model was unloaded.", "Load it again.")
        given, put_out = model.get_input_embeddings(), model.get_output_embeddings()
        module = given if table == "input" else put_out
        weight = getattr(module, "weight", None)
        if weight is None:
            raise WorkbenchError(
                "no-table", f"{type(model).__name__} has no {table} embedding table.", "Choose the other table."
            )
        name = next(name for name, item in model.named_modules() if item is module)
        self._values, self._scale, note = _stored(module, weight)
        self.rows, self.width = (int(size) for size in self._values.shape)
        dtype = str(weight.dtype).replace("torch.", "")
        tied = put_out is not None and getattr(put_out, "weight", None) is given.weight
        self.facts = TableFacts(table, name, self.rows, self.width, dtype, tied, note)

    def take(self, ids: Sequence[int]) -> Any:
        """Vectors of tokens, float32, shape ``[len(ids), width]``.

        Raises:
            WorkbenchError: ``unknown-token``.
        """
        for token in ids:
            if not 0 <= token < self.rows:
                raise WorkbenchError(
                    "unknown-token",
                    f"{self.facts.name} has no row {token}.",
                    f"Its rows are 0 to {self.rows - 1}.",
                )
        return self._wide(list(ids))

    def chunks(self, job: Job) -> Iterator[tuple[int, Any]]:
        """All vectors in order, with the number of the first of each piece."""
        size = max(1, _CHUNK_ELEMENTS // self.width)
        for start in range(0, self.rows, size):
            job.check()
            job.progress("embedding", start, self.rows, "rows")
            yield start, self._wide(slice(start, start + size))
        job.progress("embedding", self.rows, self.rows, "rows")

    def _wide(self, rows: Any) -> Any:
        values = self._values[rows].float()
        return values if self._scale is None else values * self._scale[rows, None]


def _stored(module: Any, weight: Any) -> tuple[Any, Any, str]:
    """Values, a scale per row, and what was done to them."""
    state = getattr(weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        values = dequantize_4bit(weight.data, state)
        return values, None, f"dequantized from {getattr(state, 'quant_type', '4-bit')}"
    held = getattr(module, "state", None)
    rows_scale = getattr(weight, "SCB", None)
    rows_scale = rows_scale if rows_scale is not None else getattr(held, "SCB", None)
    if rows_scale is not None:
        return weight.data, rows_scale.float() / 127, "dequantized from int8"
    note = ""
    scale = getattr(module, "scalar_embed_scale", None)
    if isinstance(scale, (int, float)) and scale != 1:
        note = f"as stored; the model multiplies them by {scale:.4g}"
    return weight.data, None, note


def nearest_tokens(
    loaded: LoadedModel,
    words: Words,
    text: str = "",
    token: Optional[int] = None,
    table: str = "input",
    measure: str = "cosine",
    count: int = 20,
    job: Job = SILENT,
) -> Neighbours:
    """The tokens whose vectors are nearest to a token's, or to the mean of a text's tokens.

    Raises:
        WorkbenchError: ``bad-option``, ``bad-text``, ``unknown-token``, ``no-table`` or ``no-model``.
    """
    import torch

    if measure not in MEASURES:
        raise WorkbenchError("bad-option", f"There is no measure {measure!r:.40}.", "Choose cosine or dot.")
    _check_count(count)
    with torch.inference_mode():
        source = _Table(loaded, table)
        word, vector = _word(source, words, text, token)
        best: list[tuple[float, int, float]] = []
        own = set(word.ids) if len(word.ids) == 1 else set()
        for start, rows in source.chunks(job):
            norms = rows.norm(dim=-1)
            scores = rows @ vector
            if measure == "cosine":
                scores = scores / (norms * vector.norm()).clamp_min(1e-20)
            scores = torch.nan_to_num(scores, nan=-math.inf)
            top = scores.topk(min(count + len(own), len(scores)))
            places = top.indices.tolist()
            found = zip(top.values.tolist(), places, norms[top.indices].tolist())
            best += [(score, start + place, norm) for score, place, norm in found if start + place not in own]
            best = sorted(best, key=lambda item: (-item[0], item[1]))[:count]
    neighbours = tuple(Neighbour(item, words.text_of(item), score, norm) for score, item, norm in best)
    return Neighbours(source.facts, word, measure, neighbours)


def compare_tokens(
    loaded: LoadedModel, words: Words, texts: Sequence[str], table: str = "input", job: Job = SILENT
) -> Similarities:
    """Cosines of texts with each other.

    Raises:
        WorkbenchError: as in `nearest_tokens`.
    """
    import torch

    if not 1 <= len(texts) <= MAX_TEXTS:
        raise WorkbenchError("bad-option", f"{len(texts)} texts cannot be compared.", f"Give 1 to {MAX_TEXTS}.")
    with torch.inference_mode():
        source = _Table(loaded, table)
        found = [_word(source, words, text, None) for text in texts]
        job.check()
        unit = _unit(torch.stack([vector for _, vector in found]))
        cosine = (unit @ unit.T).clamp(-1, 1).cpu().tolist()
        return Similarities(
            source.facts,
            tuple(word for word, _ in found),
            tuple(tuple(row) for row in cosine),
            _background(source, words.vocab_size),
        )


def _background(source: _Table, vocab_size: int) -> float:
    """Mean cosine of pairs of tokens drawn at random, the same pairs at every call."""
    import torch

    generator = torch.Generator().manual_seed(0)
    most = min(source.rows, vocab_size) or source.rows
    left, right = torch.randint(most, (2, _BACKGROUND_PAIRS), generator=generator).tolist()
    pairs = [(a, b) for a, b in zip(left, right) if a != b]
    if not pairs:
        return 1.0
    first = _unit(source.take([a for a, _ in pairs]))
    second = _unit(source.take([b for _, b in pairs]))
    return float((first * second).sum(-1).mean())


def embedding_norms(
    loaded: LoadedModel, words: Words, table: str = "input", count: int = 20, job: Job = SILENT
) -> NormSummary:
    """Norms of all vectors, and the tokens at both ends.

    Raises:
        WorkbenchError: as in `nearest_tokens`.
    """
    import torch

    _check_count(count)
    with torch.inference_mode():
        source = _Table(loaded, table)
        norms = torch.cat([rows.norm(dim=-1).cpu() for _start, rows in source.chunks(job)])
    norms = torch.nan_to_num(norms, nan=math.inf, posinf=3e38).clamp_max(3e38)
    mean, std = float(norms.double().mean()), float(norms.double().std(correction=0))
    least, largest = float(norms.min()), float(norms.max())
    order = norms.argsort(stable=True).tolist()

    def entry(token: int) -> TokenNorm:
        norm = float(norms[token])
        return TokenNorm(token, words.text_of(token), norm, (norm - mean) / std if std else 0.0)

    bins = torch.histc(norms, bins=_BINS, min=least, max=largest) if largest > least else norms.new_tensor([len(norms)])
    return NormSummary(
        facts=source.facts,
        mean=mean,
        std=std,
        least=least,
        median=float(norms.median()),
        largest=largest,
        histogram=tuple(int(rows) for rows in bins.tolist()),
        smallest=tuple(entry(token) for token in order[:count]),
        greatest=tuple(entry(token) for token in reversed(order[-count:])),
        zeros=int((norms == 0).sum()),
        beyond=max(0, source.rows - words.vocab_size),
    )


def map_words(
    loaded: LoadedModel, words: Words, texts: Sequence[str], table: str = "input", job: Job = SILENT
) -> WordMap:
    """Words in two dimensions: the first two principal components of their unit-length vectors.

    Raises:
        WorkbenchError: as in `nearest_tokens`.
    """
    import torch

    texts = list(dict.fromkeys(texts))
    if not 3 <= len(texts) <= MAX_WORDS:
        raise WorkbenchError(
            "bad-option", f"{len(texts)} different words make no map.", f"Give 3 to {MAX_WORDS} of them."
        )
    with torch.inference_mode():
        source = _Table(loaded, table)
        found = [_word(source, words, text, None) for text in texts]
        job.check()
        unit = _unit(torch.stack([vector for _, vector in found])).cpu().double()
        centred = unit - unit.mean(0)
        left, sizes, right = torch.linalg.svd(centred, full_matrices=False)
        # A component's sign is arbitrary; this makes the same words give the same picture.
        signs = torch.sign(right[torch.arange(len(sizes)), right.abs().argmax(-1)])
        places = (left * sizes * signs)[:, :2]
        variance = sizes.square()
        whole = float(variance.sum())
        shares = [float(part) / whole if whole > 1e-18 else 0.0 for part in variance[:2]]
        near = _nearest_of(unit @ unit.T)
        near_on_map = _nearest_of(-torch.cdist(places, places))
    points = tuple(
        MapPoint(word, float(place[0]), float(place[1]), close, close_on_map)
        for (word, _), place, close, close_on_map in zip(found, places.tolist(), near, near_on_map)
    )
    return WordMap(
        facts=source.facts,
        points=points,
        explained=(shares[0], shares[1]),
        hidden=max(0.0, 1.0 - sum(shares)) if whole > 1e-18 else 0.0,
        misplaced=sum(point.nearest != point.nearest_on_map for point in points),
    )


def _nearest_of(closeness: Any) -> list[int]:
    closeness.fill_diagonal_(-math.inf)
    nearest: list[int] = closeness.argmax(-1).tolist()
    return nearest


def _word(source: _Table, words: Words, text: str, token: Optional[int]) -> tuple[WordVector, Any]:
    ids = [token] if token is not None else words.encode(text)
    if not ids:
        raise WorkbenchError("bad-text", "There is no text.", "Type a word; a leading space matters.")
    vector = source.take(ids).mean(0)
    if not bool(vector.isfinite().all()):
        raise WorkbenchError("bad-text", f"The vector of {one_line(text, 40)!r} is not finite.", "Choose another word.")
    tokens = tuple(words.text_of(item) for item in ids)
    return WordVector(text or tokens[0], tuple(ids), tokens, float(vector.norm())), vector


def _unit(vectors: Any) -> Any:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-20)


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_COUNT:
        raise WorkbenchError("bad-option", f"{count} tokens cannot be listed.", f"Give 1 to {MAX_COUNT}.")
