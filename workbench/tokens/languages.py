"""Which tokenizer is fair to which language: the same content in many languages, counted. Stdlib only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Optional

from workbench.job import SILENT, Job
from workbench.tokens.count import text_figures
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
    """Tokens as a multiple of English (languages) or Python (code); 1.0 is the same price. None for data."""


@dataclass(frozen=True)
class PremiumRow:
    """One tokenizer over all samples, and how even-handed it is."""

    model: str
    cells: list[Premium]
    """In the order of `PremiumTable.samples`."""
    mean_premium: float
    """Over the languages without English, each counting the same."""
    worst: str
    """The language with the highest premium."""
    worst_premium: float


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
    tokens = {sample.name: len(tokenizer.encode(sample.text, parse_special=False)) for sample in samples}
    cells = [_cell(sample, tokens) for sample in samples]
    languages = {
        sample.name: cell.premium
        for sample, cell in zip(samples, cells)
        if sample.kind == "language" and cell.premium is not None and sample.name != "en"
    }
    worst = max(languages, key=lambda name: languages[name])
    return PremiumRow(title, cells, sum(languages.values()) / len(languages), worst, languages[worst])


def _cell(sample: Sample, tokens: dict[str, int]) -> Premium:
    figures = text_figures(sample.text)
    count = tokens[sample.name]
    yardstick = tokens.get(_YARDSTICKS.get(sample.kind, ""), 0)
    return Premium(
        sample=sample.name,
        tokens=count,
        bytes_per_token=figures.bytes / count if count else 0.0,
        characters_per_token=figures.characters / count if count else 0.0,
        premium=count / yardstick if yardstick else None,
    )
