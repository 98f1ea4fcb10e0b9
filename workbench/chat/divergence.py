"""How far a variant's distributions are from the reference's, over the same text. Needs torch.

The figures are those of llama.cpp's ``perplexity --kl-divergence`` (tools/perplexity/README.md there): perplexity,
Kullback-Leibler divergence of the variant from the reference, and how often both would say the same.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from workbench.chat.answer_text import token_text
from workbench.chat.generate import Generator
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.tokens.tokenizer import TextTokenizer

BLOCK = 64
"""Positions compared at once: a few float32 copies of vocabulary × this are alive."""
WINDOW = 1024
"""Tokens that the model sees at once; every window begins afresh."""
WORST_PLACES = 8


@dataclass(frozen=True)
class Place:
    """A place of the text where the two part."""

    position: int
    """Index of the token, counted over the whole text."""
    before: str
    """The text that leads to it."""
    token: str
    """The token that stands there."""
    reference: str
    """What the reference would have said."""
    variant: str
    kl_divergence: float


@dataclass(frozen=True)
class Divergence:
    """A variant beside the reference, in nats.

    Attributes:
        mean_kl: mean Kullback-Leibler divergence from the reference over all positions.
        p99_kl: its 99th percentile (nearest rank).
        max_kl: its largest value.
        top1_agreement: share of positions at which both have the same most probable token.
        places: where they part most.
        first_other: the first place at which their most probable tokens differ; None where there is none.
    """

    mean_kl: float
    p99_kl: float
    max_kl: float
    top1_agreement: float
    places: tuple[Place, ...]
    first_other: Optional[Place] = None


def windows(ids: Sequence[int], bos: Optional[int], context_length: Optional[int]) -> list[list[int]]:
    """A text in pieces that fit the context, each beginning with `bos` where the model wants one."""
    size = min(WINDOW, context_length or WINDOW) - (bos is not None)
    first = [] if bos is None else [bos]
    pieces = [first + list(ids[at : at + size]) for at in range(0, len(ids), size)]
    return [piece for piece in pieces if len(piece) > 1]


class LogitsFile:
    """The reference's logits in a temporary file, in the dtype in which the model gave them: nothing is rounded."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="workbench-logits-")  # noqa: SIM115 - closed by `close`
        self._shapes: list[tuple[int, int]] = []
        self._dtype: Any = None

    def write(self, logits: Any) -> None:
        """Add a block, shape [positions, vocabulary]. Raises WorkbenchError ``no-disk-space``."""
        import torch

        self._dtype = logits.dtype
        self._shapes.append((int(logits.shape[0]), int(logits.shape[1])))
        try:
            self._file.write(memoryview(logits.cpu().contiguous().view(torch.uint8).numpy()))
        except OSError as error:
            raise WorkbenchError(
                "no-disk-space",
                f"The reference's logits cannot be kept in {tempfile.gettempdir()}: {error.strerror}.",
                "Set TMPDIR to a folder with room, or take a shorter text.",
            ) from None

    def read(self) -> Iterator[Any]:
        """The blocks again, in their order."""
        import torch

        self._file.seek(0)
        for rows, columns in self._shapes:
            raw = bytearray(self._file.read(rows * columns * self._dtype.itemsize))
            yield torch.frombuffer(raw, dtype=self._dtype).reshape(rows, columns)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


class Reader:
    """Reads the text under one variant after the other; the first one is the reference.

    Args:
        pieces: from `windows`.
    """

    def __init__(self, pieces: list[list[int]]) -> None:
        self._pieces = pieces
        self._reference: Optional[LogitsFile] = None

    @property
    def positions(self) -> int:
        """Tokens that are predicted: all but the first of each piece."""
        return sum(len(piece) - 1 for piece in self._pieces)

    def close(self) -> None:
        """Delete what is kept of the reference."""
        if self._reference is not None:
            self._reference.close()

    def read(
        self, generator: Generator, tokenizer: TextTokenizer, job: Job = SILENT
    ) -> tuple[float, Optional[Divergence]]:
        """Perplexity under this variant, and its divergence; None for the reference itself.

        Raises:
            WorkbenchError: as `Generator.position_logits`; ``no-disk-space``.
        """
        first, self._reference = self._reference is None, self._reference or LogitsFile()
        blocks = None if first else self._reference.read()
        tally = _Tally()
        for piece_index, piece in enumerate(self._pieces):
            for start, logits in generator.position_logits(piece[:-1], 0, job):
                for offset in range(0, logits.shape[0], BLOCK):
                    block = logits[offset : offset + BLOCK]
                    at = start + offset
                    tally.likelihood(block, piece[at + 1 : at + 1 + block.shape[0]])
                    if blocks is None:
                        self._reference.write(block)
                    else:
                        tally.compare(next(blocks), block, piece_index, at)
        perplexity = math.exp(min(tally.negative_log_likelihood / max(1, self.positions), 700.0))
        return perplexity, None if first else tally.divergence(self._pieces, tokenizer)


class _Tally:
    """Sums over the positions of a text."""

    def __init__(self) -> None:
        self.negative_log_likelihood = 0.0
        self._divergences: list[float] = []
        self._agreed = 0
        self._places: list[tuple[int, int, int, int]] = []
        """Piece, position in it, and the best token of reference and variant, for each position."""

    def likelihood(self, block: Any, following: list[int]) -> None:
        import torch

        raw = block.float()
        chosen = raw.gather(1, torch.tensor(following, device=raw.device)[:, None])[:, 0]
        self.negative_log_likelihood += float((raw.logsumexp(-1) - chosen).double().sum())

    def compare(self, reference: Any, block: Any, piece: int, at: int) -> None:
        expected = reference.to(block.device).float().log_softmax(-1)
        found = block.float().log_softmax(-1)
        # Where the reference has no probability at all, a token adds nothing; 0 times infinity would be no number.
        terms = expected.exp() * (expected - found).nan_to_num(0.0)
        self._divergences += terms.sum(-1).clamp(min=0).tolist()
        best, variant_best = expected.argmax(-1).tolist(), found.argmax(-1).tolist()
        for offset, (ours, theirs) in enumerate(zip(best, variant_best)):
            self._agreed += ours == theirs
            self._places.append((piece, at + offset, ours, theirs))

    def divergence(self, pieces: list[list[int]], tokenizer: TextTokenizer) -> Divergence:
        count = max(1, len(self._divergences))
        ranked = sorted(self._divergences)
        worst = sorted(range(len(ranked)), key=self._divergences.__getitem__, reverse=True)[:WORST_PLACES]
        other = next((index for index, (_, _, ours, theirs) in enumerate(self._places) if ours != theirs), None)
        return Divergence(
            mean_kl=math.fsum(self._divergences) / count,
            p99_kl=ranked[min(count - 1, math.ceil(0.99 * count) - 1)] if ranked else 0.0,
            max_kl=ranked[-1] if ranked else 0.0,
            top1_agreement=self._agreed / count,
            places=tuple(self._place(index, pieces, tokenizer) for index in worst),
            first_other=None if other is None else self._place(other, pieces, tokenizer),
        )

    def _place(self, index: int, pieces: list[list[int]], tokenizer: TextTokenizer) -> Place:
        piece, at, ours, theirs = self._places[index]
        before = tokenizer.decode(pieces[piece][max(0, at - 11) : at + 1])
        return Place(
            position=sum(len(item) for item in pieces[:piece]) + at + 1,
            before=before,
            token=token_text(tokenizer, pieces[piece][at + 1]),
            reference=token_text(tokenizer, ours),
            variant=token_text(tokenizer, theirs),
            kl_divergence=self._divergences[index],
        )
