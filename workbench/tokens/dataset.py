"""What a whole data set costs in tokens under each of several tokenizers. Stdlib only; Parquet needs pyarrow.

Rows stream through: memory holds a few batches and the number of rows by token count, however long the data set.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional, Union

from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.text import one_line
from workbench.tokens.counting import BatchCounter, batch_counter
from workbench.tokens.fields import Field, Message, RowText, choose_field, plain_text
from workbench.tokens.losses import loss_of
from workbench.tokens.rows import BadRow, DatasetFiles, RowReader, find_files, kind_of
from workbench.tokens.statistics import CountCollector, CountStatistics, LongRow, context_lengths
from workbench.tokens.tokenizer import TextTokenizer

_BATCH_CHARACTERS = 1 << 18
_BATCH_ROWS = 1024
_EXAMPLES_KEPT = 5
_EXAMINED_CHARACTERS = 20_000
_PREVIEW_CHARACTERS = 160
# A template that refuses this many rows and accepted none does not suit the data set.
_REFUSALS_ALLOWED = 50
# Each of these costs seconds: a template that needs so long on several rows is not tried on the rest.
EXHAUSTIONS_ALLOWED = 3
_EXHAUSTED = ("template-timeout", "template-too-large")
_NO_TEMPLATE = (
    "It has no chat template, so rows of messages are not counted under it; name the field to count their contents "
    "alone."
)

Render = Callable[[Sequence[list[Message]]], Sequence[Union[str, WorkbenchError]]]
"""Turns conversations into the texts the model sees; in place of one that its template refuses, the reason."""


@dataclass(frozen=True)
class MeasuredModel:
    """One of the tokenizers to count under.

    Attributes:
        name: what the model is called in the result.
        render: through the model's chat template; None where it has none. It may stop after
            `EXHAUSTIONS_ALLOWED` conversations beyond its limits and give the reason for those after them too.
        context_length: of the model; becomes one of the lengths looked at.
    """

    name: str
    tokenizer: TextTokenizer
    render: Optional[Render] = None
    context_length: Optional[int] = None


@dataclass(frozen=True)
class ModelMeasure(CountStatistics):
    """The statistics of one model and what they rest on."""

    model: str
    engine: str
    """The library that counted; exact in every case."""
    vocab_size: int
    context_length: Optional[int]
    lost_share: float
    """Of the characters of the first rows, those that the tokenizer has no token for."""
    refused_rows: int
    """Rows whose messages the chat template refused, or that the tokenizer failed on; not in the statistics."""
    refused_examples: list[BadRow]
    """The first of these rows."""
    error: str
    """Why there are no statistics, or the first refusal; empty if all went well."""


@dataclass(frozen=True)
class DatasetMeasure:
    """A measured data set."""

    path: str
    format: str
    field: str
    """Which fields were counted."""
    files: int
    rows: int
    """Rows counted; the bad and the missing ones are not among them."""
    bytes_done: int
    bytes_total: int
    partial: bool
    """Whether it was stopped before the end."""
    seconds: float
    bad_rows: int
    """Rows with broken JSON or a wrong encoding, skipped."""
    missing_rows: int
    """Rows without the field, skipped."""
    examples: list[BadRow]
    """The first rows that were skipped."""
    notes: list[str]
    models: list[ModelMeasure]


@dataclass(frozen=True)
class _Row:
    file: str
    number: int
    content: RowText


@dataclass
class _Model:
    given: MeasuredModel
    counter: BatchCounter
    collected: CountCollector
    refused: int = 0
    refused_examples: list[BadRow] = field(default_factory=list)
    error: str = ""
    given_up: bool = False
    exhausted: int = 0
    """Conversations that its template could not render within the limits of time and memory."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    examined: int = 0
    """Characters of the first rows, without white space."""
    lost: int = 0
    """Of these, the ones without a token."""


@dataclass
class _Counted:
    """One batch under one model: per row the text and its tokens, or what refused it."""

    texts: list[Optional[str]] = field(default_factory=list)
    tokens: list[Optional[int]] = field(default_factory=list)
    error: str = ""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why a row was refused, by its index."""


OnUpdate = Callable[[DatasetMeasure], None]


def measure_dataset(
    path: str,
    models: Sequence[MeasuredModel],
    *,
    field: Optional[str] = None,
    special: bool = False,
    contents: bool = False,
    lengths: Optional[Sequence[int]] = None,
    batch_size: int = 8,
    job: Job = SILENT,
    on_update: Optional[OnUpdate] = None,
    update_seconds: float = 1.0,
) -> DatasetMeasure:
    """Count every row of a data set. Cancelling keeps what was counted: the result says ``partial``.

    Args:
        path: file, directory, or Hub id of a data set in the local cache.
        models: what to count under.
        field: which field of a row; None finds it (`workbench.tokens.fields.choose_field`).
        special: count what a tokenizer puts around each text (BOS, EOS); never for rendered messages.
        contents: under a model without chat template, count the contents of messages joined by newlines; else it
            refuses such rows.
        lengths: sequence lengths to look at; by default the usual ones and the models' own.
        batch_size: rows of a training batch, for padding to the longest.
        job: progress in bytes, with the rows as detail.
        on_update: called about every `update_seconds` with what is known so far, without the figures per length.

    Raises:
        WorkbenchError: ``no-dataset``, ``empty-dataset``, ``ambiguous-field``, ``unknown-field``, ``missing-package``,
            ``binary-file``, ``bad-encoding``, ``bad-dataset``, ``unreadable-file`` if no row at all could be read.
    """
    return _Measurement(path, models, field, special, contents, batch_size, job).run(
        context_lengths(model.context_length for model in models) if lengths is None else lengths,
        on_update,
        update_seconds,
    )


class _Measurement:
    def __init__(
        self,
        path: str,
        models: Sequence[MeasuredModel],
        wanted: Optional[str],
        special: bool,
        contents: bool,
        batch_size: int,
        job: Job,
    ) -> None:
        self._files: DatasetFiles = find_files(path)
        self._path = path
        self._wanted = wanted
        self._special = special
        self._contents = contents
        self._job = job
        self._reader = RowReader()
        self._field: Optional[Field] = None
        self._rows = self._bad = self._missing = 0
        self._examples: list[BadRow] = []
        self._file_errors: list[WorkbenchError] = []
        self._notes: list[str] = []
        self._start = time.monotonic()
        self._given = tuple(models)
        self._batch_size = batch_size
        self._models: list[_Model] = []
        self._notes += [model.tokenizer.note for model in models if model.tokenizer.note]
        if self._files.left_out:
            self._notes.append(f"{self._files.left_out:,} files of other kinds were left out.")

    def run(self, lengths: Sequence[int], on_update: Optional[OnUpdate], update_seconds: float) -> DatasetMeasure:
        partial = False
        due = time.monotonic() + update_seconds
        pool = ThreadPoolExecutor(_cores())
        try:
            self._prepare()
            for _ in self._counted_batches(pool):
                self._job.progress(
                    "count", self._reader.bytes_done, self._files.bytes_total, "bytes", f"{self._rows:,} rows"
                )
                if on_update is not None and time.monotonic() >= due:
                    on_update(self._result((), True))
                    due = time.monotonic() + update_seconds
        except JobCancelled:
            partial = True
        finally:
            # A thread in the middle of a long row cannot be stopped; nobody waits for it.
            pool.shutdown(wait=False, cancel_futures=True)
        if not partial:
            self._require_rows()
        return self._result(lengths, partial)

    def _prepare(self) -> None:
        """Make the counters: turning a vocabulary into a faster engine and checking it takes a second or two."""
        for model in self._given:
            self._job.progress("prepare", len(self._models), len(self._given), "tokenizers")
            self._job.check()
            counter = batch_counter(model.tokenizer, special=self._special)
            self._models.append(_Model(model, counter, CountCollector(self._batch_size)))

    def _counted_batches(self, pool: ThreadPoolExecutor) -> Iterator[None]:
        waiting: deque[tuple[list[_Row], list[Future[_Counted]]]] = deque()
        for batch in self._batches():
            waiting.append((batch, [pool.submit(self._count, model, batch) for model in self._models]))
            while len(waiting) > _cores() + 1:
                self._collect(*waiting.popleft())
                yield
            if self._models and all(model.given_up and not model.collected.rows for model in self._models):
                self._notes.append("Reading stopped early: no tokenizer can count these rows.")
                break
        while waiting:
            self._collect(*waiting.popleft())
            yield

    def _batches(self) -> Iterator[list[_Row]]:
        batch: list[_Row] = []
        characters = 0
        for row in self._read_rows():
            batch.append(row)
            characters += len(row.content) if isinstance(row.content, str) else _size(row.content)
            if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_ROWS:
                yield batch
                batch, characters = [], 0
        if batch:
            yield batch

    def _read_rows(self) -> Iterator[_Row]:
        for file in self._files.files:
            try:
                if self._field is None and kind_of(file) in ("parquet", "arrow"):
                    # Only the first row is read with all its columns, which may hold images.
                    first = next((record for _, record in RowReader().read(file)), None)
                    self._field = choose_field(first, self._wanted) if isinstance(first, dict) else None
                columns = self._field.columns if self._field else None
                for number, record in self._reader.read(file, columns):
                    self._job.check()
                    row = self._row(file, number, record)
                    if row is not None:
                        yield row
            except WorkbenchError as error:
                if error.kind in ("unknown-field", "ambiguous-field", "missing-package"):
                    raise
                self._file_errors.append(error)

    def _row(self, file: Path, number: int, record: Any) -> Optional[_Row]:
        if isinstance(record, BadRow):
            self._bad += 1
            self._example(record)
            return None
        if self._field is None:
            self._field = choose_field(record, self._wanted)
        try:
            return _Row(self._shown(file), number, self._field.text_of(record))
        except ValueError as error:
            self._missing += 1
            self._example(BadRow(str(file), number, str(error)))
        except WorkbenchError as error:
            self._bad += 1
            self._example(BadRow(str(file), number, error.message))
        return None

    def _example(self, row: BadRow) -> None:
        if len(self._examples) < _EXAMPLES_KEPT:
            self._examples.append(BadRow(self._shown(Path(row.file)), row.row, row.reason))

    def _shown(self, file: Path) -> str:
        root = self._files.root
        return file.name if root == file else str(file.relative_to(root))

    def _count(self, model: _Model, batch: Sequence[_Row]) -> _Counted:
        """Runs in a thread of the pool."""
        counted = _Counted([None if isinstance(row.content, list) else row.content for row in batch])
        conversations = [index for index, row in enumerate(batch) if isinstance(row.content, list)]
        for start in range(0, len(conversations), _REFUSALS_ALLOWED):
            with model.lock:
                if model.given_up or (start and all(text is None for text in counted.texts)):
                    break
                self._render(model, batch, conversations[start : start + _REFUSALS_ALLOWED], counted)
        texts = [text for text in counted.texts if text is not None]
        try:
            tokens: list[Optional[int]] = list(model.counter.count(texts))
        except WorkbenchError:
            indexes = [index for index, text in enumerate(counted.texts) if text is not None]
            tokens = [self._count_alone(model, text, index, counted) for index, text in zip(indexes, texts)]
        self._examine(model, [text for text, count in zip(texts, tokens) if count is not None])
        rest = iter(tokens)
        counted.tokens = [None if text is None else next(rest) for text in counted.texts]
        return counted

    @staticmethod
    def _examine(model: _Model, texts: Sequence[str]) -> None:
        """Look, in the first rows, whether the tokenizer has tokens for all characters."""
        tokenizer = model.given.tokenizer
        with model.lock:
            for text in texts:
                if model.examined >= _EXAMINED_CHARACTERS:
                    return
                start = text[:_EXAMINED_CHARACTERS]
                model.examined += len("".join(start.split()))
                model.lost += loss_of(start, tokenizer, tokenizer.encode(start)).characters

    @staticmethod
    def _count_alone(model: _Model, text: str, index: int, counted: _Counted) -> Optional[int]:
        try:
            return model.counter.count([text])[0]
        except WorkbenchError as error:
            counted.reasons[index] = str(error)
            return None

    def _render(self, model: _Model, batch: Sequence[_Row], indexes: Sequence[int], counted: _Counted) -> None:
        """Fill in the texts of these rows, which are conversations."""
        conversations = [content for index in indexes if isinstance(content := batch[index].content, list)]
        if model.given.render is not None:
            try:
                rendered = model.given.render(conversations)
            except WorkbenchError as error:
                rendered = [error] * len(conversations)
        elif self._contents:
            rendered = list(map(plain_text, conversations))
        else:
            model.given_up, counted.error = True, _NO_TEMPLATE
            return
        for index, text in zip(indexes, rendered):
            if not isinstance(text, WorkbenchError):
                counted.texts[index] = text
                continue
            counted.reasons[index] = str(text)
            if text.kind in _EXHAUSTED:
                model.exhausted += 1
                if model.exhausted == EXHAUSTIONS_ALLOWED:
                    model.given_up = True
                    counted.error = f"Its chat template was given up after {EXHAUSTIONS_ALLOWED} rows: {text}"

    def _collect(self, batch: Sequence[_Row], futures: Sequence[Future[_Counted]]) -> None:
        results = [self._waited(future) for future in futures]
        self._rows += len(batch)
        for model, counted in zip(self._models, results):
            model.error = counted.error or model.error or next(iter(counted.reasons.values()), "")
            for index, (row, text, tokens) in enumerate(zip(batch, counted.texts, counted.tokens)):
                if text is None or tokens is None:
                    model.refused += 1
                    if len(model.refused_examples) < _EXAMPLES_KEPT:
                        reason = counted.reasons.get(index) or model.error
                        model.refused_examples.append(BadRow(row.file, row.number, reason))
                    continue
                # A rendered conversation has its own BOS.
                rendered = not isinstance(row.content, str) and model.given.render is not None
                tokens -= model.counter.around if rendered else 0
                if model.collected.add(tokens):
                    preview = one_line(text[: 2 * _PREVIEW_CHARACTERS], _PREVIEW_CHARACTERS)
                    model.collected.keep(LongRow(row.number, row.file, tokens, preview))
            if model.refused == self._rows and model.refused >= _REFUSALS_ALLOWED:
                model.given_up = True

    def _waited(self, future: Future[_Counted]) -> _Counted:
        while True:
            self._job.check()
            try:
                return future.result(timeout=0.1)
            except FutureTimeout:
                continue

    def _require_rows(self) -> None:
        if self._rows:
            return
        if self._file_errors:
            raise self._file_errors[0]
        if self._examples:
            first = self._examples[0]
            raise WorkbenchError(
                "bad-dataset",
                f"No row of {self._path} could be read ({self._bad + self._missing:,} tried): {first.file}, row "
                f"{first.row}: {first.reason}.",
                "Check the format and the field.",
            )
        raise WorkbenchError("empty-dataset", f"{self._path} has no rows.", "Name a file with something in it.")

    def _result(self, lengths: Sequence[int], partial: bool) -> DatasetMeasure:
        notes = [*self._notes, *self._reader.notes, *(str(error) for error in self._file_errors[:_EXAMPLES_KEPT])]
        return DatasetMeasure(
            path=self._path,
            format=self._files.format,
            field=self._field.label if self._field else "",
            files=len(self._files.files),
            rows=self._rows,
            bytes_done=self._reader.bytes_done,
            bytes_total=self._files.bytes_total,
            partial=partial,
            seconds=time.monotonic() - self._start,
            bad_rows=self._bad,
            missing_rows=self._missing,
            examples=list(self._examples),
            notes=notes,
            models=[self._model_result(model, lengths) for model in self._models],
        )

    @staticmethod
    def _model_result(model: _Model, lengths: Sequence[int]) -> ModelMeasure:
        figures = model.collected.statistics(lengths)
        return ModelMeasure(
            **{item.name: getattr(figures, item.name) for item in fields(figures)},
            model=model.given.name,
            engine=model.counter.name,
            vocab_size=model.given.tokenizer.vocab_size,
            context_length=model.given.context_length,
            lost_share=model.lost / model.examined if model.examined else 0.0,
            refused_rows=model.refused,
            refused_examples=list(model.refused_examples),
            error=model.error,
        )


def unmeasured_model(name: str, error: str) -> ModelMeasure:
    """The entry of a model whose tokenizer cannot be loaded: no figures, and why."""
    figures = CountCollector().statistics(())
    return ModelMeasure(
        **{item.name: getattr(figures, item.name) for item in fields(figures)},
        model=name,
        engine="",
        vocab_size=0,
        context_length=None,
        lost_share=0.0,
        refused_rows=0,
        refused_examples=[],
        error=error,
    )


def _size(messages: Sequence[Message]) -> int:
    return sum(len(str(message.get("content") or "")) for message in messages)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
