"""What quantizing costs: one model in several variants over the same text and prompt, loaded in turn. Needs torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from workbench.chat.answers import GenerationResult
from workbench.chat.divergence import Divergence, Reader, windows
from workbench.chat.generate import Generator
from workbench.chat.layer_error import LayerError, layer_errors, quantized_modules
from workbench.chat.options import SamplingOptions
from workbench.chat.template import find_template, make_prompt
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.load import LoadedModel, LoadOptions, load_model, unload
from workbench.tokens.languages import parallel_samples
from workbench.tokens.tokenizer import TextTokenizer, load_tokenizer

VARIANTS: dict[str, tuple[str, bool, str]] = {
    "fp32": ("none", False, "float32"),
    "bf16": ("none", False, "bfloat16"),
    "fp16": ("none", False, "float16"),
    "int8": ("int8", False, "auto"),
    "nf4": ("nf4", False, "auto"),
    "nf4-dq": ("nf4", True, "auto"),
    "fp4": ("fp4", False, "auto"),
    "fp4-dq": ("fp4", True, "auto"),
}
"""Name → quantization, double quantization, dtype."""
MAX_TEXT_TOKENS = 2048
"""Of the text at most so many are read: the reference's logits for them are kept on disk."""
SPEED_PROMPT_TOKENS, SPEED_TOKENS = 64, 32
"""Without a prompt of the user's, decoding is timed on the beginning of the text."""


@dataclass(frozen=True)
class VariantReport:
    """One variant.

    Attributes:
        name: from `VARIANTS`.
        quant: of the load.
        dtype: as loaded.
        weights_bytes: parameters, buffers and quantization state.
        peak_bytes: highest memory while it answered; see `peak_of`.
        peak_of: ``device`` or ``process``.
        load_seconds: to load it.
        read_tokens_per_second: of reading the text.
        tokens_per_second: of decoding.
        time_to_first_token_seconds: of the answer.
        perplexity: over the text.
        divergence: from the reference; None for the reference.
        answer: its greedy answer to the prompt, empty without one.
        answer_ids: the tokens of it.
        differs_at: index of the first token of the answer that is not the reference's; None if none differs.
        layers: error of each quantized weight, largest first; empty if not asked for.
        error: why it could not be measured, or empty; all else is then 0.
    """

    name: str
    quant: str = ""
    dtype: str = ""
    weights_bytes: int = 0
    peak_bytes: int = 0
    peak_of: str = ""
    load_seconds: float = 0.0
    read_tokens_per_second: float = 0.0
    tokens_per_second: float = 0.0
    time_to_first_token_seconds: float = 0.0
    perplexity: float = 0.0
    divergence: Optional[Divergence] = None
    answer: str = ""
    answer_ids: tuple[int, ...] = ()
    differs_at: Optional[int] = None
    layers: tuple[LayerError, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """All variants that were measured, the reference first."""

    model: str
    prompt: str
    text_tokens: int
    """Tokens of the text that were predicted."""
    text_cut: bool
    """Whether the text was longer than what was read."""
    device: str
    variants: tuple[VariantReport, ...] = ()
    cancelled: bool = False
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Task:
    """What is measured of every variant."""

    prompt: str = ""
    text: str = ""
    """Empty takes `builtin_text`."""
    max_new_tokens: int = 128
    layers: bool = False
    device: str = "auto"


def builtin_text() -> str:
    """Prose, code and data of `workbench.tokens.languages`: English first."""
    order = {"en": 0, "python": 1, "json": 2}
    samples = sorted(parallel_samples(), key=lambda sample: order.get(sample.name, 9))
    return "\n\n".join(sample.text for sample in samples)


def check_variants(names: Sequence[str]) -> None:
    """Raise WorkbenchError ``bad-option`` unless `names` are two or more different known variants."""
    for name in names:
        if name not in VARIANTS:
            raise WorkbenchError("bad-option", f"There is no variant {name!r:.40}.", f"Known: {', '.join(VARIANTS)}.")
    if len(set(names)) < max(2, len(names)):
        raise WorkbenchError("bad-option", "Name two different variants or more.", "Such as bf16,int8,nf4.")


class VariantComparer:
    """Measures the variants of the model in a directory; `close` deletes what it keeps of the reference.

    Args:
        directory: of the model.
        task: what is measured.
    """

    def __init__(self, directory: Path, task: Task) -> None:
        self._directory = directory
        self._task = task
        self._tokenizer = load_tokenizer(str(directory))
        self._reader: Optional[Reader] = None
        self._reference: Optional[VariantReport] = None
        self._text_ids = self._tokenizer.encode(task.text or builtin_text(), add_special_tokens=False)
        self.device = ""

    @property
    def text_tokens(self) -> int:
        """Tokens of the text that are predicted; 0 before the first variant."""
        return self._reader.positions if self._reader else 0

    @property
    def text_cut(self) -> bool:
        """Whether the text is longer than what is read."""
        return len(self._text_ids) > MAX_TEXT_TOKENS

    def close(self) -> None:
        """Delete what is kept of the reference."""
        if self._reader is not None:
            self._reader.close()

    def measure(self, name: str, job: Job = SILENT) -> VariantReport:
        """Load one variant, measure it and unload it; the first one is the reference.

        Raises:
            WorkbenchError: as `load_model` and `Generator.generate`; ``bad-text`` for a text of less than two tokens.
            JobCancelled: stopped.
        """
        quant, double_quant, dtype = VARIANTS[name]
        options = LoadOptions(quant, double_quant, dtype, self._task.device)
        loaded = load_model(self._directory, options, job)
        try:
            self.device = loaded.facts.device
            report = self._measure(name, loaded, job)
        finally:
            unload(loaded)
        if self._reference is None:
            self._reference = report
        return report

    def _measure(self, name: str, loaded: LoadedModel, job: Job) -> VariantReport:
        generator = Generator(loaded, self._tokenizer)
        reader = self._reader = self._reader or self._new_reader(generator)
        begun = time.perf_counter()
        perplexity, divergence = reader.read(generator, self._tokenizer, job)
        read_seconds = time.perf_counter() - begun
        answer = self._answer(generator, job)
        asked = bool(self._task.prompt)
        facts = loaded.facts
        return VariantReport(
            name=name,
            quant=facts.quant,
            dtype=facts.dtype,
            weights_bytes=facts.weights_bytes,
            peak_bytes=answer.memory.peak_bytes or 0,
            peak_of=answer.memory.peak_of,
            load_seconds=facts.load_seconds,
            read_tokens_per_second=reader.positions / read_seconds,
            tokens_per_second=answer.tokens_per_second,
            time_to_first_token_seconds=answer.time_to_first_token_seconds,
            perplexity=perplexity,
            divergence=divergence,
            answer=answer.text if asked else "",
            answer_ids=tuple(answer.ids) if asked else (),
            differs_at=self._first_difference(answer) if asked else None,
            layers=self._layers(loaded, job),
        )

    def _new_reader(self, generator: Generator) -> Reader:
        ids = self._text_ids[:MAX_TEXT_TOKENS]
        if len(ids) < 2:
            raise WorkbenchError("bad-text", "The text has less than two tokens.", "Give a longer one.")
        return Reader(windows(ids, _bos(self._tokenizer), generator.context_length))

    def _answer(self, generator: Generator, job: Job) -> GenerationResult:
        """The greedy answer to the prompt; without one some tokens after the text's beginning, to time decoding."""
        options = SamplingOptions(greedy=True, max_new_tokens=self._task.max_new_tokens)
        if self._task.prompt:
            message = {"role": "user", "content": self._task.prompt}
            prompt = make_prompt([message], find_template(self._directory), job)
            ids = self._tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
        else:
            ids = self._text_ids[:SPEED_PROMPT_TOKENS]
            options = SamplingOptions(greedy=True, max_new_tokens=SPEED_TOKENS)
        result = generator.generate(ids, options, job, fresh=True)
        job.check()
        return result

    def _first_difference(self, answer: GenerationResult) -> Optional[int]:
        if self._reference is None or list(self._reference.answer_ids) == answer.ids:
            return None
        pairs = zip(self._reference.answer_ids, answer.ids)
        shorter = min(len(self._reference.answer_ids), len(answer.ids))
        return next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), shorter)

    def _layers(self, loaded: LoadedModel, job: Job) -> tuple[LayerError, ...]:
        """Errors of this variant's weights, against the same ones read again without quantizing."""
        names = quantized_modules(loaded.model)
        if not self._task.layers or not names:
            return ()
        facts = loaded.facts
        plain = load_model(self._directory, LoadOptions("none", False, facts.dtype, self._task.device), job)
        try:
            found = layer_errors(plain.model, names, facts.quant, facts.double_quant, job)
        finally:
            unload(plain)
        return tuple(sorted(found, key=lambda item: item.relative_error, reverse=True))


def compare_variants(
    model: str,
    comparer: VariantComparer,
    names: Sequence[str],
    prompt: str = "",
    job: Job = SILENT,
    on_variant: Callable[[VariantReport], None] = lambda _report: None,
) -> Comparison:
    """Measure every variant; one that cannot be loaded is reported with its reason, but for the reference.

    Raises:
        WorkbenchError: ``bad-option``; what the reference ends with.
    """
    check_variants(names)
    reports: list[VariantReport] = []
    cancelled = False
    for name in names:
        try:
            report = comparer.measure(name, job)
        except JobCancelled:
            cancelled = True
            break
        except WorkbenchError as error:
            if not reports:
                raise
            report = VariantReport(name, error=str(error))
        reports.append(report)
        on_variant(report)
    return Comparison(
        model, prompt, comparer.text_tokens, comparer.text_cut, comparer.device, tuple(reports), cancelled
    )


def _bos(tokenizer: TextTokenizer) -> Optional[int]:
    """The token that the tokenizer puts before a text, if it is one and comes first."""
    alone = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a", add_special_tokens=True)
    return whole[0] if len(whole) > len(alone) and whole[1 : 1 + len(alone)] == alone else None
