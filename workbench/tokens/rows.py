"""Reading the rows of a data set, one at a time: JSONL, JSON, CSV, Parquet, Arrow, text. Stdlib; Parquet needs pyarrow.

Rows that cannot be read come out as `BadRow` in their place; nothing is ever replaced silently.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Optional, Union

from workbench.errors import WorkbenchError
from workbench.models.hub_cache import cache_folder
from workbench.packages import need
from workbench.text import one_line
from workbench.tokens.encodings import suspected_utf16, utf16_error

MAX_ROW_BYTES = 256 * 2**20
"""A row beyond this size is no training text."""

_TABLES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines"), "jsonl"),
    **{".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"},
}
_LINES = (".txt", ".text", ".log")
_DOCUMENTS = frozenset(
    (
        *(".md", ".markdown", ".rst", ".html", ".xml", ".tex", ".toml", ".yaml", ".yml"),
        *(".py", ".js", ".ts", ".tsx", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".sh", ".sql"),
        *(".rb", ".php", ".swift", ".scala", ".lua", ".r", ".jl", ".cs", ".css"),
    )
)
# Files that lie beside the rows of a data set and hold none.
_NO_ROWS = frozenset({"dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json", "config.json"})
# Names under which one JSON object holds its rows; a single name of any kind does too.
_ROW_FIELDS = frozenset(
    ("messages", "conversations", "conversation", "text", "content", "prompt", "instruction", "question", "chosen")
)
_MAX_DEPTH = 5
_NOTES_KEPT = 5
_PLAUSIBLE_LINES = 500
_ROW_LISTS = ("data", "rows", "train", "examples", "items", "instances")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CHUNK_CHARACTERS = 1 << 20
_BUFFER_BYTES = 1 << 17


@dataclass(frozen=True)
class BadRow:
    """A row that was skipped, and why."""

    file: str
    row: int
    reason: str


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set in the order in which they are read."""

    root: Path
    files: tuple[Path, ...]
    format: str
    """``jsonl``, ``json``, ``csv``, ``parquet``, ``arrow``, ``text`` or several joined by ``+``."""
    bytes_total: int
    left_out: int
    """Files of a directory that are of no known kind, or text beside tables."""


Record = Union[str, dict[str, Any]]


def find_files(path: str) -> DatasetFiles:
    """The data files that `path` names.

    Args:
        path: a file, a directory (searched with all below it; if it has tables, its other text is left out), or the
            Hub id of a data set in the local cache.

    Raises:
        WorkbenchError: ``no-dataset`` if there is nothing to read.
    """
    root = _located(path)
    if root.is_file():
        files, left_out = [root], 0
    else:
        files, left_out = _in_directory(root)
    if not files:
        raise WorkbenchError(
            "no-dataset",
            f"{root} has no data files.",
            "Known are .jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt and source files, the first four also as .gz.",
        )
    try:
        total = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise WorkbenchError("no-dataset", f"Cannot read {root}: {error.strerror}.", "Check its permissions.") from None
    kinds = "+".join(sorted({kind_of(file).replace("document", "text") for file in files}))
    return DatasetFiles(root, tuple(files), kinds, total, left_out)


def kind_of(file: Path) -> str:
    """The format of a data file by its name: as in `DatasetFiles`, and ``document`` for one text a file."""
    suffix = Path(file.name[:-3]).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()
    return _TABLES.get(suffix) or ("document" if suffix in _DOCUMENTS else "text")


def _located(path: str) -> Path:
    given = Path(path).expanduser()
    if given.exists():
        return given
    if _HUB_ID.fullmatch(path):
        folder = cache_folder() / ("datasets--" + path.replace("/", "--"))
        snapshots = folder / "snapshots"
        try:
            commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            commit = ""
        if commit and os.sep not in commit and (snapshots / commit).is_dir():
            return snapshots / commit
        found = sorted(entry for entry in snapshots.glob("*") if entry.is_dir())
        if found:
            return found[-1]
    raise WorkbenchError(
        "no-dataset",
        f"There is no data set at {path}.",
        "Check the path. A data set of the Hub has to be in the local cache: hf download --repo-type dataset NAME",
    )


def _in_directory(root: Path) -> tuple[list[Path], int]:
    tables, texts, others = [], [], 0
    for base, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(base, name)
            suffix = Path(name[:-3]).suffix.lower() if name.endswith(".gz") else file.suffix.lower()
            if name.startswith(".") or name in _NO_ROWS or not file.is_file():
                continue
            if suffix in _TABLES:
                tables.append(file)
            elif suffix in _LINES or suffix in _DOCUMENTS:
                texts.append(file)
            else:
                others += 1
    return (tables, others + len(texts)) if tables else (texts, others)


class RowReader:
    """Reads files one after the other.

    Attributes:
        bytes_done: how much of all files has been read, in bytes on disk.
        notes: what is suspicious in files that can be read, a few of them.
    """

    def __init__(self) -> None:
        self.bytes_done = 0
        self.notes: list[str] = []
        self._finished_bytes = 0

    def read(self, file: Path, columns: Optional[Sequence[str]] = None) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        """The rows of `file` with their numbers from 1 (the line in files of lines).

        Args:
            file: a data file.
            columns: the only ones needed, where the format can leave out the others.

        Raises:
            WorkbenchError: ``unreadable-file``, ``binary-file``, ``bad-encoding``, ``bad-dataset`` or
                ``missing-package``, before or in the middle of the rows.
        """
        kind = kind_of(file)
        size_bytes = 0
        try:
            size_bytes = file.stat().st_size
            if kind in ("parquet", "arrow"):
                yield from self._columnar(file, kind, columns, size_bytes)
            else:
                with self._opened(file) as stream:
                    yield from _READERS[kind](self, stream, file)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or one_line(str(error), 120)
            self._finish(size_bytes)
            raise WorkbenchError("unreadable-file", f"Cannot read {file}: {reason}.", "Check the file.") from None
        except WorkbenchError:
            self._finish(size_bytes)
            raise
        self._finish(size_bytes)

    def _finish(self, size_bytes: int) -> None:
        self._finished_bytes += size_bytes
        self.bytes_done = self._finished_bytes

    def _opened(self, file: Path) -> _Meter:
        raw: Any = file.open("rb", buffering=_BUFFER_BYTES)
        packed = file.suffix.lower() == ".gz"
        stream: Any = io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES) if packed else raw
        try:
            _require_text(file, stream)
            return _Meter(self, raw, stream, self._finished_bytes)
        except BaseException:
            stream.close()
            raw.close()
            raise

    def _jsonl(self, stream: _Meter, file: Path) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        for number, line in self._lines(stream, file):
            if isinstance(line, BadRow):
                yield number, line
            elif line.strip():
                yield number, _parsed(line, file, number)

    def _text(self, stream: _Meter, file: Path) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        for number, line in self._lines(stream, file):
            if isinstance(line, BadRow) or line.strip():
                yield number, line

    def _document(self, stream: _Meter, file: Path) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        content = stream.read(MAX_ROW_BYTES + 1)
        if len(content) > MAX_ROW_BYTES:
            yield 1, BadRow(str(file), 1, "it is larger than 256 MiB")
        elif content.strip():
            yield 1, _decoded(content, file, 1, stream.start)

    def _csv(self, stream: _Meter, file: Path) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        csv.field_size_limit(MAX_ROW_BYTES)
        lines = _CountedLines(self._strict_lines(stream, file))
        header_line = next(lines, "")
        delimiter = max(",\t;|", key=header_line.count)
        header = next(csv.reader([header_line], delimiter=delimiter), [])
        for name in dict.fromkeys(name for name in header if header.count(name) > 1):
            places = [str(place) for place, other in enumerate(header, 1) if other == name]
            which = " and ".join(places)
            self._note(f"{file}: columns {which} are called {name!r} alike; the last of them is counted.")
        rows = csv.reader(lines, delimiter=delimiter)
        number = 1
        while True:
            number += 1
            first_line = lines.taken + 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, BadRow(str(file), number, one_line(str(error), 120))
                continue
            spanned = lines.taken - first_line + 1
            where = f" (lines {first_line:,} to {lines.taken:,})" if spanned > 1 else ""
            if lines.ended:
                # A row that the end of the file completes is one within quotes.
                reason = f"a quote opened in it is not closed: it takes in the rest of the file{where}"
                self._note(f"{file}: in row {number:,} {reason}.")
                yield number, BadRow(str(file), number, reason)
            elif len(values) == len(header):
                if spanned > _PLAUSIBLE_LINES:
                    self._note(f"{file}: row {number:,} spans {spanned:,} lines{where}; is a quote left open in it?")
                yield number, dict(zip(header, values))
            elif values:
                reason = f"it has {len(values)} fields, the header {len(header)}{where}"
                yield number, BadRow(str(file), number, reason)

    def _note(self, note: str) -> None:
        if len(self.notes) < _NOTES_KEPT and note not in self.notes:
            self.notes.append(note)

    def _json(self, stream: _Meter, file: Path) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        head = stream.peek().lstrip()
        if not head.startswith(b"["):
            yield from self._objects(stream, file)
            return
        parser = _ArrayParser(stream, file)
        for number, value in enumerate(parser, 1):
            yield number, _record(value, file, number)

    def _objects(self, stream: _Meter, file: Path) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        """Lines of objects under the name ``.json``, as is common, or one object that holds the rows."""
        try:
            first = json.loads(stream.peek_line())
            if _rows_of(first) is not None and stream.is_one_line():
                raise ValueError("the one line is an object that holds the rows")
        except (ValueError, RecursionError):
            content = stream.read(MAX_ROW_BYTES + 1)
            if len(content) > MAX_ROW_BYTES:
                raise _bad(file, "one object of more than 256 MiB") from None
            if not content.strip():
                return
            for number, row in enumerate(_rows_within(content, file), 1):
                yield number, _record(row, file, number)
        else:
            yield from self._jsonl(stream, file)

    def _lines(self, stream: _Meter, file: Path) -> Iterator[tuple[int, Union[str, BadRow]]]:
        number = 0
        while True:
            offset = stream.offset
            line = stream.readline(MAX_ROW_BYTES + 1)
            if not line:
                return
            number += 1
            if len(line) > MAX_ROW_BYTES:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(_CHUNK_CHARACTERS)
                yield number, BadRow(str(file), number, "it is longer than 256 MiB")
                continue
            yield number, _decoded(line.rstrip(b"\r\n"), file, number, offset)

    def _strict_lines(self, stream: _Meter, file: Path) -> Iterator[str]:
        """Lines with their ends; a wrong byte ends the file, as quotes may run over lines."""
        while True:
            offset = stream.offset
            line = stream.readline(MAX_ROW_BYTES)
            if not line:
                return
            decoded = _decoded(line, file, 0, offset)
            if isinstance(decoded, BadRow):
                raise WorkbenchError("bad-encoding", f"{file} is {decoded.reason}.", _CONVERT)
            yield decoded

    def _columnar(
        self, file: Path, kind: str, columns: Optional[Sequence[str]], size_bytes: int
    ) -> Iterator[tuple[int, Union[Record, BadRow]]]:
        arrow = need("pyarrow", f"Reading {file}")
        parquet = need("pyarrow.parquet", f"Reading {file}")
        number = 0
        try:
            if kind == "parquet":
                table = parquet.ParquetFile(file)
                kept = [name for name in table.schema_arrow.names if columns is None or name in columns]
                batches = table.iter_batches(batch_size=256, columns=kept or None)
                total = max(table.metadata.num_rows, 1)
            else:
                batches, total = _arrow_batches(arrow, file), 0
            for batch in batches:
                if kind == "arrow" and columns is not None:
                    batch = batch.select([name for name in batch.schema.names if name in columns] or batch.schema.names)
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
                done = number / total if total else 0
                self.bytes_done = self._finished_bytes + int(min(done, 1) * size_bytes)
        except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _bad(file, one_line(str(error), 160)) from None


_SEPARATORS = re.compile(r"[ \t\r\n,]*")
_CONVERT = "Convert it first, for example: iconv -f latin1 -t utf-8 FILE"
_READERS: dict[str, Any] = {
    "jsonl": RowReader._jsonl,
    "json": RowReader._json,
    "csv": RowReader._csv,
    "text": RowReader._text,
    "document": RowReader._document,
}


class _Meter:
    """A binary stream that knows how far it has come, in its own bytes and in bytes on disk."""

    def __init__(self, reader: RowReader, raw: IO[bytes], stream: IO[bytes], before_bytes: int) -> None:
        self._reader = reader
        self._raw = raw
        self._stream: Any = stream
        self._before_bytes = before_bytes
        self.start = 3 if self.peek()[:3] == b"\xef\xbb\xbf" else 0
        self.offset = len(stream.read(self.start))

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._raw.close()

    def peek(self) -> bytes:
        found: bytes = self._stream.peek(_BUFFER_BYTES)
        return found

    def peek_line(self) -> bytes:
        """The first line, without moving on."""
        line = self._stream.readline(MAX_ROW_BYTES)
        self._stream.seek(self.start)
        found: bytes = line
        return found

    def is_one_line(self) -> bool:
        """Whether nothing but white space follows the first line, without moving on."""
        self._stream.readline(MAX_ROW_BYTES)
        rest = self._stream.read(_BUFFER_BYTES)
        self._stream.seek(self.start)
        return not rest.strip()

    def readline(self, limit: int) -> bytes:
        return self._passed(self._stream.readline(limit))

    def read(self, limit: int) -> bytes:
        return self._passed(self._stream.read(limit))

    def _passed(self, data: bytes) -> bytes:
        self.offset += len(data)
        done = self.offset if self._stream is self._raw else self._raw.tell()
        self._reader.bytes_done = self._before_bytes + done
        return data


class _CountedLines:
    """Lines, how many were taken, and whether more were asked for than there are."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.taken = 0
        self.ended = False

    def __iter__(self) -> _CountedLines:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.taken += 1
        return line


class _ArrayParser:
    """The items of a JSON array that need not fit into memory."""

    def __init__(self, stream: _Meter, file: Path) -> None:
        self._stream = stream
        self._file = file
        self._decoder = json.JSONDecoder()
        self._pending = b""
        self._buffer = ""
        self._at = 0
        self._passed = 0
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        self._more()
        self._at = self._buffer.index("[") + 1
        while True:
            self._skip_separators()
            if self._buffer.startswith("]", self._at):
                return
            if self._at == len(self._buffer):
                raise _bad(self._file, f"the array is not closed at character {self._passed + self._at:,}")
            yield self._item()

    def _skip_separators(self) -> None:
        while True:
            self._at = _SEPARATORS.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._buffer) or self._ended:
                return
            self._more()

    def _item(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
                # A number at the end of the buffer may go on.
                if end < len(self._buffer) or self._ended:
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                position = int(getattr(error, "pos", self._at))
                cut_off = "Unterminated string" in str(error) or position > len(self._buffer) - 16
                if self._ended or not cut_off or len(self._buffer) > MAX_ROW_BYTES:
                    place = self._passed + position
                    what = one_line(str(error).split(": line")[0], 80)
                    raise _bad(self._file, f"broken JSON at character {place:,}: {what}") from None
            self._more()

    def _more(self) -> None:
        # Growing with the item keeps the repeated attempts at a long one linear.
        data = self._stream.read(max(_CHUNK_CHARACTERS, len(self._buffer) - self._at))
        offset = self._stream.offset - len(data) - len(self._pending)
        self._ended = not data
        content, self._pending = self._pending + data, b""
        self._buffer, self._passed, self._at = self._buffer[self._at :], self._passed + self._at, 0
        try:
            self._buffer += content.decode("utf-8")
        except UnicodeDecodeError as error:
            if self._ended or error.start < len(content) - 3:
                place = offset + error.start
                raise WorkbenchError(
                    "bad-encoding", f"{self._file} is not UTF-8 at byte {place:,}.", _CONVERT
                ) from None
            self._buffer += content[: error.start].decode("utf-8")
            self._pending = content[error.start :]


def _arrow_batches(arrow: Any, file: Path) -> Iterator[Any]:
    ipc: Any = importlib.import_module("pyarrow.ipc")
    with arrow.memory_map(str(file)) as source:
        try:
            table = ipc.open_file(source)
        except arrow.ArrowInvalid:
            source.seek(0)
            yield from ipc.open_stream(source)
            return
        for index in range(table.num_record_batches):
            yield table.get_batch(index)


def _require_text(file: Path, stream: Any) -> None:
    head: bytes = stream.peek(_BUFFER_BYTES)
    encoding = suspected_utf16(head)
    if encoding is not None:
        raise utf16_error(str(file), encoding)
    at = head.find(b"\x00")
    if at >= 0:
        raise WorkbenchError(
            "binary-file", f"{file} is a binary file: byte {at:,} is NUL.", "Name a data file or a text file."
        )


def _decoded(data: bytes, file: Path, number: int, offset: int) -> Union[str, BadRow]:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = offset + error.start
        return BadRow(str(file), number, f"not UTF-8 at byte {place:,} (0x{data[error.start]:02X})")


def _rows_within(content: bytes, file: Path) -> list[Any]:
    """The rows of one JSON object: those under the name of a list of rows, else the object itself."""
    try:
        value = json.loads(content)
    except UnicodeDecodeError as error:
        raise WorkbenchError("bad-encoding", f"{file} is not UTF-8 at byte {error.start:,}.", _CONVERT) from None
    except (ValueError, RecursionError) as error:
        raise _bad(file, f"not JSON: {one_line(str(error), 120)}") from None
    if not isinstance(value, dict):
        return [value]
    rows = _rows_of(value)
    return [value] if rows is None else rows


def _rows_of(value: Any, depth: int = 0) -> Optional[list[Any]]:
    """The list of rows within an object: under one of the usual names, or the only list of objects in it."""
    if not isinstance(value, dict) or _ROW_FIELDS & set(value) or depth > _MAX_DEPTH:
        return None
    if len(value) == 1:
        (only,) = value.values()
        return only if isinstance(only, list) else _rows_of(only, depth + 1)
    for name in _ROW_LISTS:
        if isinstance(value.get(name), list):
            found: list[Any] = value[name]
            return found
        inner = _rows_of(value.get(name), depth + 1)
        if inner is not None:
            return inner
    lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
    return lists[0] if len(lists) == 1 else None


def _parsed(line: str, file: Path, number: int) -> Union[Record, BadRow]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(str(file), number, f"broken JSON: {one_line(str(error), 120)}")
    return _record(value, file, number)


def _record(value: Any, file: Path, number: int) -> Union[Record, BadRow]:
    if isinstance(value, (str, dict)):
        return value
    return BadRow(str(file), number, f"it is neither an object nor a text: {one_line(json.dumps(value), 60)}")


def _bad(file: Path, reason: str) -> WorkbenchError:
    return WorkbenchError("bad-dataset", f"{file} is broken: {reason}.", "Fetch or write it again.")
