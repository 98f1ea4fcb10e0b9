"""The byte alphabet of byte-level BPE: every byte as one printable character. Stdlib only.

As in GPT-2's ``encoder.py``: bytes that print stand for themselves, the others follow from U+0100 on.
"""

from __future__ import annotations

from typing import Any, Optional


def _alphabet() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {
        **{byte: chr(byte) for byte in printable},
        **{byte: chr(256 + index) for index, byte in enumerate(others)},
    }


CHARACTER_OF_BYTE = _alphabet()
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
USED_BYTES = (*range(0xC0), *range(0xC2, 0xF5))
"""The bytes that occur in UTF-8."""


# Characters of Latin-1 that are not in the alphabet must not pass for bytes.
_TO_LATIN1 = {
    **dict.fromkeys(range(256), 0xFFFF),
    **{ord(character): byte for character, byte in BYTE_OF_CHARACTER.items()},
}


def spelling_to_bytes(spelling: str) -> Optional[bytes]:
    """The bytes that a token of this spelling stands for, or None if it holds a character outside the alphabet."""
    try:
        return spelling.translate(_TO_LATIN1).encode("latin-1")
    except UnicodeEncodeError:
        return None


def bytes_to_spelling(content: bytes) -> str:
    """`content` in the alphabet: the form in which words reach the model."""
    return content.decode("latin-1").translate(CHARACTER_OF_BYTE)


def readable(content: bytes) -> str:
    """`content` as text, or byte by byte as ``<0xE2>`` where it is no whole characters."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in content)


def is_byte_level(content: dict[str, Any]) -> bool:
    """Whether the tokens of a ``tokenizer.json`` are spelled in the byte alphabet."""
    decoder = content.get("decoder") or {}
    kinds = {decoder.get("type"), *(step.get("type") for step in decoder.get("decoders", []))}
    return "ByteLevel" in kinds
