"""SentencePiece ``.model`` files, read by the ``sentencepiece`` library, which is their reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from workbench.packages import need
from workbench.tokens.growth import longest_replacement, refuse_growth
from workbench.tokens.patience import PatientCalls
from workbench.tokens.pieces import Piece, character_offsets, require_encodable
from workbench.tokens.tokenizer import TextTokenizer, bad_tokenizer, unknown_token


def load_sentencepiece(file: Path, name: str) -> SentencePieceTokenizer:
    """Load a SentencePiece model.

    Raises:
        WorkbenchError: ``bad-tokenizer``, ``missing-package``.
    """
    sentencepiece = need("sentencepiece", f"Reading {file}")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        if processor.get_piece_size() == 0:
            raise ValueError("it has no vocabulary")
        growth = _growth(processor.serialized_model_proto())
    except Exception as error:
        raise bad_tokenizer(file, error) from None
    refuse_growth(growth, file)
    return SentencePieceTokenizer(processor, name)


class SentencePieceTokenizer(TextTokenizer):
    """A `sentencepiece.SentencePieceProcessor`.

    The library never reads a control token out of typed text, so ``parse_special`` changes nothing here.
    """

    format = "sentencepiece"

    def __init__(self, processor: Any, name: str) -> None:
        self.name = name
        self.vocab_size = int(processor.get_piece_size())
        self._processor = processor
        self._calls = PatientCalls(name)
        self._special = {
            processor.id_to_piece(token_id): token_id
            for token_id in range(self.vocab_size)
            if processor.is_control(token_id) or processor.is_unknown(token_id)
        }
        self._special_ids = frozenset(self._special.values())

    @property
    def unknown_id(self) -> Optional[int]:
        found = int(self._processor.unk_id())
        return found if found >= 0 else None

    def encode(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        require_encodable(text)
        ids = self._calls.run(lambda: list[int](self._processor.encode(text)), len(text))
        return self._with_bos(ids) if add_special_tokens else ids

    def encode_pieces(self, text: str, add_special_tokens: bool = False, parse_special: bool = True) -> list[Piece]:
        require_encodable(text)
        # This form is the same in every release of the library; its offsets count bytes.
        encoded = self._calls.run(lambda: self._processor.encode(text, out_type="serialized_proto"), len(text))
        found = list(_read_pieces(encoded))
        character_at = character_offsets(text)
        bos = self._with_bos([]) if add_special_tokens else []
        pieces = [Piece(token_id, self.id_token(token_id), 0, 0, True) for token_id in bos]
        for index, (token_id, begin, end) in enumerate(found):
            if self._processor.is_byte(token_id):
                # The library gives the whole character to the last of its byte tokens.
                end = next((stop for _, _, stop in found[index:] if stop > begin), end)
            start, stop = character_at[begin], character_at[end]
            shown = text[start:stop] or self.id_token(token_id)
            pieces.append(Piece(token_id, shown, start, stop, token_id in self._special_ids))
        return pieces

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        # The library itself leaves control tokens out of a decoded text.
        text: str = self._processor.decode(list(ids))
        return text

    def token_id(self, token: str) -> Optional[int]:
        found = int(self._processor.piece_to_id(token))
        return found if self._processor.id_to_piece(found) == token else None

    def id_token(self, token_id: int) -> str:
        if not 0 <= token_id < self.vocab_size:
            raise unknown_token(self, token_id)
        token: str = self._processor.id_to_piece(token_id)
        return token

    def special_tokens(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def processor(self) -> Any:
        """The `sentencepiece.SentencePieceProcessor`."""
        return self._processor

    def _with_bos(self, ids: list[int]) -> list[int]:
        # What the models of this format are fed with: BOS where the model has one, no EOS.
        bos: int = self._processor.bos_id()
        return [bos, *ids] if bos >= 0 else ids


def _growth(model: bytes) -> float:
    """How many bytes the normalizer can make of one character.

    Fields as in sentencepiece_model.proto: normalizer_spec = 3 of the model, precompiled_charsmap = 2 of that.
    """
    specs = [value for number, value in read_fields(model) if number == 3 and isinstance(value, bytes)]
    maps = [value for spec in specs for number, value in read_fields(spec) if number == 2 and isinstance(value, bytes)]
    return max(map(longest_replacement, filter(None, maps)), default=1.0)


def _read_pieces(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Id and byte offsets of each piece of a serialized SentencePieceText.

    Fields as in sentencepiece.proto: pieces = 2 of the text; id = 2, begin = 4 and end = 5 of a piece.
    """
    for number, value in read_fields(message):
        if number == 2 and isinstance(value, bytes):
            piece = dict(read_fields(value))
            yield int(piece.get(2, 0)), int(piece.get(4, 0)), int(piece.get(5, 0))


def read_fields(message: bytes) -> Iterator[tuple[int, Union[int, bytes]]]:
    """Field number and value of a protobuf message, for the wire types varint, fixed and length-delimited."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire_type = tag & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if wire_type == 2:
            size, position = _varint(message, position)
        else:
            size = 8 if wire_type == 1 else 4
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
