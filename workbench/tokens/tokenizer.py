"""What a tokenizer can do here, whatever its format, and how one is loaded from a path. Stdlib only.

Every format is read with its own reference library, which is imported when a file of that format is loaded.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from workbench.errors import JobCancelled, WorkbenchError
from workbench.tokens.pieces import Piece

MAX_FILE_BYTES = 96 * 2**20
"""The largest tokenizer files in use are about 35 MB; nothing else of this process goes on while one is read."""

# In the order in which a directory is searched: the first format found is the one the model is served with.
_FILES_BY_PREFERENCE = ("tokenizer.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.txt")

# Tokens that a decoder may hold back before it gives up on a character; a UTF-8 character has four bytes.
_LONGEST_HOLD = 32


class TextTokenizer(abc.ABC):
    """A loaded tokenizer. All methods may be called from several threads at once."""

    name: str
    """The directory or file it came from, without the path."""
    format: str
    """``tokenizer.json``, ``sentencepiece``, ``tiktoken``, ``tekken`` or ``wordpiece``."""
    vocab_size: int
    """Number of tokens, added and special ones included."""
    note: str = ""
    """What a user should know of the counts; empty for most."""

    @abc.abstractmethod
    def encode(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        """Token ids of `text`.

        Args:
            text: any string that has a UTF-8 form.
            add_special_tokens: add what the tokenizer puts around a text (BOS, EOS, CLS).
            parse_special: read markers typed in the text as the tokens they name; False takes them as text.

        Raises:
            WorkbenchError: ``bad-text`` for a lone surrogate.
        """

    @abc.abstractmethod
    def encode_pieces(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[Piece]:
        """The same tokens as `encode`, each with the stretch of `text` that it covers."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids`; bytes that form no character come out as U+FFFD."""

    @abc.abstractmethod
    def token_id(self, token: str) -> Optional[int]:
        """The id of a token by its spelling in the vocabulary, or None."""

    @abc.abstractmethod
    def id_token(self, token_id: int) -> str:
        """The spelling of a token in the vocabulary.

        Raises:
            WorkbenchError: ``unknown-token`` if no token has this id.
        """

    @abc.abstractmethod
    def special_tokens(self) -> dict[str, int]:
        """The markers of the tokenizer: spelling to id."""

    @property
    def unknown_id(self) -> Optional[int]:
        """The token that stands for any text that the vocabulary lacks; None where nothing is lost so."""
        return None

    @property
    def may_drop(self) -> bool:
        """Whether text that the vocabulary lacks gives no token at all."""
        return False

    def stream_decoder(self, skip_special_tokens: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one at a time."""
        return StreamDecoder(self, skip_special_tokens)


class StreamDecoder:
    """Turns ids that arrive one at a time into text, holding back characters that are not complete.

    Each step decodes only the tokens since the last whole character, together with those just before them,
    as a token's text may depend on its left neighbour (leading spaces, runs of byte tokens).
    """

    def __init__(self, tokenizer: TextTokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._shown: list[int] = []
        self._held: list[int] = []

    def push(self, token_id: int) -> str:
        """Add one id; returns the text that is complete now, which may be empty."""
        self._held.append(token_id)
        text = self._new_text()
        if not text or (text.endswith("\ufffd") and len(self._held) < _LONGEST_HOLD):
            return ""
        return self._release(text)

    def flush(self) -> str:
        """The text still held back when no more ids come, incomplete characters as U+FFFD."""
        return self._release(self._new_text())

    def _new_text(self) -> str:
        before = self._decode(self._shown)
        return self._decode(self._shown + self._held)[len(before) :]

    def _release(self, text: str) -> str:
        self._shown, self._held = self._held or self._shown, []
        return text

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, self._skip_special_tokens) if ids else ""


def unknown_token(tokenizer: TextTokenizer, token_id: int) -> WorkbenchError:
    """The error for an id outside the vocabulary."""
    return WorkbenchError(
        "unknown-token",
        f"{tokenizer.name} has no token {token_id}.",
        f"Ids run from 0 to {tokenizer.vocab_size - 1}.",
    )


def load_tokenizer(path: str) -> TextTokenizer:
    """Load the tokenizer of a model directory, or one from its own file.

    Args:
        path: a directory with ``tokenizer.json``, ``tokenizer.model``, ``tekken.json`` or ``vocab.txt``, or
            such a file under any name. The content decides which format it is, not the name.

    Raises:
        WorkbenchError: ``no-tokenizer`` if there is none, ``unsupported-tokenizer`` for a format that is
            recognised but not read, ``bad-tokenizer`` for a broken file, ``missing-package``.
    """
    file = _tokenizer_file(Path(path).expanduser())
    name = file.parent.name if file.name in _FILES_BY_PREFERENCE else file.name
    kind = _format_of(file)
    if kind == "gguf":
        return _load_gguf(file)
    if kind == "tokenizer.json":
        from workbench.tokens.huggingface import load_tokenizer_json

        return load_tokenizer_json(file, name)
    if kind == "sentencepiece":
        from workbench.tokens.sentencepiece import load_sentencepiece

        return load_sentencepiece(file, name)
    if kind in ("tekken", "tiktoken"):
        from workbench.tokens.byte_pairs import load_rank_file, load_tekken

        return load_tekken(file, name) if kind == "tekken" else load_rank_file(file, name)
    raise WorkbenchError(
        "unsupported-tokenizer",
        f"{file} is a WordPiece vocabulary, which does not say whether case and accents matter.",
        "Name the tokenizer.json of the same model.",
    )


def _load_gguf(file: Path) -> TextTokenizer:
    """The vocabulary in a GGUF file, by way of the tokenizer.json that it converts to."""
    from workbench.models.tokenizer_source import tokenizer_path

    tokenizer = load_tokenizer(tokenizer_path(str(file)))
    tokenizer.name = file.name
    return tokenizer


def _tokenizer_file(path: Path) -> Path:
    if path.is_dir():
        for name in _FILES_BY_PREFERENCE:
            if (path / name).is_file():
                return path / name
        raise WorkbenchError(
            "no-tokenizer",
            f"{path} has no tokenizer file.",
            f"It should hold one of {', '.join(_FILES_BY_PREFERENCE)}.",
        )
    if not path.is_file():
        raise WorkbenchError("no-tokenizer", f"There is no tokenizer at {path}.", "Check the path.")
    return path


def _format_of(file: Path) -> str:
    """Recognise the format by content: JSON keys, a protobuf's first byte, lines of base64 and rank."""
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise WorkbenchError(
            "bad-tokenizer", f"Cannot read {file}: {error.strerror}.", "Check its permissions."
        ) from None
    if head[:4] == b"GGUF":
        return "gguf"
    if size_bytes > MAX_FILE_BYTES:
        raise WorkbenchError(
            "bad-tokenizer",
            f"{file} has {size_bytes:,} bytes, far more than any tokenizer.",
            "Name the tokenizer's own file.",
        )
    if not head:
        raise WorkbenchError("bad-tokenizer", f"{file} is empty.", "Fetch it again.")
    if head.lstrip()[:1] == b"{":
        is_tekken = b'"default_vocab_size"' in head or b'"token_bytes"' in head
        return "tekken" if is_tekken else "tokenizer.json"
    if head[:1] == b"\x0a" and file.suffix != ".txt":
        return "sentencepiece"
    first_line = head.split(b"\n", 1)[0].split()
    if len(first_line) == 2 and first_line[1].isdigit():
        return "tiktoken"
    if file.suffix == ".txt":
        return "wordpiece"
    raise WorkbenchError(
        "bad-tokenizer",
        f"{file} is no tokenizer of a known format.",
        "Known are tokenizer.json, SentencePiece .model, tiktoken ranks, tekken.json and vocab.txt.",
    )


def bad_tokenizer(file: Path, reason: object) -> WorkbenchError:
    """The error for a file that its own library refuses."""
    first_line = (str(reason).strip() or type(reason).__name__).splitlines()[0][:200]
    return WorkbenchError(
        "bad-tokenizer",
        f"{file} is broken or no tokenizer: {first_line.rstrip('.')}.",
        "Fetch it again, or name another file.",
        details=str(reason),
    )


@contextlib.contextmanager
def broken_file(file: Path) -> Iterator[None]:
    """Whatever a library raises on a file that contradicts itself, while loading it or only when using it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, WorkbenchError, JobCancelled):
        raise
    # Panics of Rust libraries arrive as a direct subclass of BaseException.
    except BaseException as error:
        raise bad_tokenizer(file, error) from None
