"""Which tokenizer is fair to which language: the same content in many languages, counted. Stdlib only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Optional

from workbench.job import SILENT, Job
from workbench.tokens.count import TokenCount, count_text, text_figures
from workbench.tokens.tokenizer import TextTokenizer

_FILE = Path(__file__).with_name("samples") / "parallel.json"
_YARDSTICKS = {"language": "en", "code": "python"}


@dataclass(frozen=True)
class Sample:
    """One of the built-in texts. Those of kind ``language`` say the same, those of kind ``code`` do the same."""

    name: str
    """A language code such as ``de``, a programming language, ``json`` or ``numbers``."""
    title: str
    kind: str
    """``language``, ``code`` or ``data``."""
    script: str
    """Of a language; else empty."""
    text: str


@dataclass(frozen=True)
class Premium:
    """One sample under one tokenizer."""

    sample: str
    tokens: int
    bytes_per_token: float
    characters_per_token: float
    premium: Optional[float]
    """Tokens as a multiple of English (languages) or Python (code); 1.0 is the same price. None for data, and where
    characters are lost: a text that is not in the tokens has no price."""
    lost_share: float = 0.0
    """Of the characters without white space, those that the tokenizer has no token for."""


@dataclass(frozen=True)
class PremiumRow:
    """One tokenizer over all samples, and how even-handed it is."""

    model: str
    cells: list[Premium]
    """In the order of `PremiumTable.samples`."""
    mean_premium: Optional[float]
    """Over the languages without English, each counting the same; None where one of them is lost in part."""
    worst: str
    """The language with the highest premium, or of which most is lost."""
    worst_premium: Optional[float]
    """None where some of it is lost."""


@dataclass(frozen=True)
class PremiumTable:
    """Tokenizers by samples."""

    samples: list[Sample]
    rows: list[PremiumRow]


@lru_cache(maxsize=1)
def parallel_samples() -> tuple[Sample, ...]:
    """The built-in samples: languages first, English leading, then code, then data."""
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(Sample(**sample) for sample in content["samples"])


def premiums(
    tokenizers: Sequence[TextTokenizer], names: Optional[Sequence[str]] = None, job: Job = SILENT
) -> PremiumTable:
    """Count the samples under every tokenizer.

    Args:
        tokenizers: one row each, in this order.
        names: what the rows are called; by default the tokenizers' own names.
        job: progress in rows.
    """
    samples = list(parallel_samples())
    titles = names if names is not None else [tokenizer.name for tokenizer in tokenizers]
    rows = []
    for index, (title, tokenizer) in enumerate(zip(titles, tokenizers)):
        job.check()
        job.progress("languages", index, len(tokenizers), "rows", title)
        rows.append(_row(title, tokenizer, samples))
    return PremiumTable(samples, rows)


def _row(title: str, tokenizer: TextTokenizer, samples: Sequence[Sample]) -> PremiumRow:
    counts = {sample.name: count_text(sample.text, tokenizer, plain=True) for sample in samples}
    cells = [_cell(sample, counts) for sample in samples]
    languages = [cell for sample, cell in zip(samples, cells) if sample.kind == "language" and cell.sample != "en"]
    worst = max(languages, key=lambda cell: (cell.lost_share, cell.premium or 0.0))
    kept = [cell.premium for cell in languages if cell.premium is not None]
    mean = sum(kept) / len(kept) if len(kept) == len(languages) else None
    return PremiumRow(title, cells, mean, worst.sample, worst.premium)


def _cell(sample: Sample, counts: dict[str, TokenCount]) -> Premium:
    figures = text_figures(sample.text)
    count = counts[sample.name].tokens
    lost = counts[sample.name].lost_characters
    reference = counts.get(_YARDSTICKS.get(sample.kind, ""))
    yardstick = reference.tokens if reference is not None and not reference.lost_characters else 0
    return Premium(
        sample=sample.name,
        tokens=count,
        bytes_per_token=figures.bytes / count if count else 0.0,
        characters_per_token=figures.characters / count if count else 0.0,
        premium=count / yardstick if yardstick and not lost else None,
        lost_share=lost / max(1, len("".join(sample.text.split()))),
    )
