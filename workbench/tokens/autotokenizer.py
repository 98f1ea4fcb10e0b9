"""Where transformers' AutoTokenizer gives other ids than the tokenizer file. Needs transformers (worker only).

Since transformers 5 some tokenizer classes rebuild the pipeline from vocabulary and merges and drop the file's
normalizer and pre-tokenizer (tokenization_utils_tokenizers.py, ``convert_to_native_format``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.packages import broken, need
from workbench.text import one_line
from workbench.tokens.counting import TRICKY
from workbench.tokens.languages import parallel_samples
from workbench.tokens.tokenizer import TextTokenizer

_EXAMPLES_KEPT = 5
_PIECES_SHOWN = 8


@dataclass(frozen=True)
class IdDifference:
    """One text that AutoTokenizer tokenizes otherwise."""

    text: str
    """The text, or the part of it around the first difference."""
    position: int
    """Index of the first token that differs."""
    file_tokens: list[str]
    """The file's tokens from there."""
    auto_tokens: list[str]
    file_count: int
    auto_count: int


@dataclass(frozen=True)
class AutoTokenizerDifference:
    """What a comparison over a corpus found."""

    directory: str
    transformers: str
    """Version."""
    auto_class: str
    """The class that AutoTokenizer chose."""
    texts: int
    differing: int
    examples: list[IdDifference]
    error: str
    """Why AutoTokenizer could not be asked; empty if it could."""

    @property
    def differs(self) -> bool:
        """Whether any text has other ids."""
        return self.differing > 0

    @property
    def line(self) -> str:
        """What to tell a user, in one line."""
        if self.error:
            return f"AutoTokenizer of transformers {self.transformers} does not load this tokenizer: {self.error}"
        if not self.differing:
            return f"AutoTokenizer of transformers {self.transformers} gives the same ids on {self.texts} texts."
        return (
            f"AutoTokenizer of transformers {self.transformers} ({self.auto_class}) gives other ids than the file on "
            f"{self.differing} of {self.texts} texts; counts here follow the file."
        )


def compare_with_autotokenizer(
    directory: str, tokenizer: TextTokenizer, job: Job = SILENT, texts: Optional[Sequence[str]] = None
) -> AutoTokenizerDifference:
    """Tokenize a corpus with both, without special tokens around.

    Importing transformers takes seconds; call this in the model lane or a child, never for a count.

    Args:
        directory: of the model, with its configuration.
        tokenizer: what the bench counts with.
        job: progress in rows.
        texts: the corpus; by default hostile short texts and the parallel samples.

    Raises:
        WorkbenchError: ``missing-package``, ``no-tokenizer`` if `directory` is none.
    """
    if not Path(directory).is_dir():
        raise WorkbenchError(
            "no-tokenizer", f"{directory} is no model directory.", "AutoTokenizer reads directories with a config."
        )
    corpus = list(texts) if texts is not None else [*TRICKY, *(sample.text for sample in parallel_samples())]
    job.progress("import", 0, None, "", "transformers")
    transformers = need("transformers", "Comparing with AutoTokenizer")
    try:
        automatic = transformers.AutoTokenizer
    except ImportError as error:
        raise broken("transformers", "Comparing with AutoTokenizer", error) from None
    job.check()
    version = str(transformers.__version__)
    try:
        # Nothing of the repository is run and nothing is fetched.
        auto: Any = automatic.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        reason = one_line(str(error), 200) or type(error).__name__
        return AutoTokenizerDifference(directory, version, "", 0, 0, [], reason)
    examples: list[IdDifference] = []
    differing = 0
    for index, text in enumerate(corpus):
        job.check()
        job.progress("compare", index, len(corpus), "rows")
        ours, theirs = tokenizer.encode(text), _ids(auto, text)
        if ours == theirs:
            continue
        differing += 1
        if len(examples) < _EXAMPLES_KEPT:
            examples.append(_difference(text, tokenizer, ours, theirs))
    return AutoTokenizerDifference(directory, version, type(auto).__name__, len(corpus), differing, examples, "")


def _ids(auto: Any, text: str) -> list[int]:
    return [int(token_id) for token_id in auto(text, add_special_tokens=False, verbose=False)["input_ids"]]


def _difference(text: str, tokenizer: TextTokenizer, ours: list[int], theirs: list[int]) -> IdDifference:
    shorter = min(len(ours), len(theirs))
    position = next((index for index in range(shorter) if ours[index] != theirs[index]), shorter)
    pieces = tokenizer.encode_pieces(text)
    start = pieces[position].start if position < len(pieces) else max(len(text) - 40, 0)
    return IdDifference(
        text=one_line(text[max(start - 20, 0) : start + 60], 80),
        position=position,
        file_tokens=[_name(tokenizer, token_id) for token_id in ours[position : position + _PIECES_SHOWN]],
        auto_tokens=[_name(tokenizer, token_id) for token_id in theirs[position : position + _PIECES_SHOWN]],
        file_count=len(ours),
        auto_count=len(theirs),
    )


def _name(tokenizer: TextTokenizer, token_id: int) -> str:
    try:
        return tokenizer.id_token(token_id)
    except WorkbenchError:
        return f"id {token_id}"
