"""Which part of a row is its text. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from workbench.errors import WorkbenchError
from workbench.tokens.pieces import require_encodable
from workbench.tokens.rows import Record

Message = dict[str, Any]
RowText = Union[str, list[Message]]
"""A text, or messages for a chat template."""

_CONVERSATIONS = ("messages", "conversations", "conversation")
# Fields that are trained as one text; the last of a group may be absent or empty.
_GROUPS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "input", "output"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
)
_TEXTS = ("text", "content", "prompt", "document", "code", "sentence")
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Field:
    """What of a row is counted.

    Attributes:
        names: fields joined in this order; empty for rows that are texts themselves.
        separator: what stands between them.
        conversation: whether the field holds messages.
    """

    names: tuple[str, ...]
    separator: str = ""
    conversation: bool = False

    @property
    def label(self) -> str:
        """For people."""
        return " + ".join(self.names) if self.names else "the whole row"

    @property
    def columns(self) -> list[str]:
        """The columns of a table that are needed."""
        return [name.split(".")[0] for name in self.names] + list(self.names)

    def text_of(self, record: Record) -> RowText:
        """The text or the messages of a row.

        Raises:
            ValueError: a field is missing or of another kind; the message says which.
            WorkbenchError: ``bad-text`` for a lone surrogate, ``bad-row`` for a text in place of messages.
        """
        if isinstance(record, str):
            require_encodable(record)
            return record
        if not self.names:
            raise ValueError("it is an object, the rows before are texts")
        values = [value for value in (_lookup(record, name) for name in self.names) if value != ""]
        if values and all(isinstance(value, list) for value in values):
            return [message for value in values for message in _messages(value)]
        if self.conversation and values:
            raise WorkbenchError("bad-row", f"field {self.names[0]!r} is no list of messages", "Correct the row.")
        for name, value in zip(self.names, values):
            if not isinstance(value, str):
                raise ValueError(f"field {name!r} is no text")
        text = self.separator.join(values)
        require_encodable(text)
        return text


def choose_field(record: Record, wanted: Optional[str] = None) -> Field:
    """The field to count, from the first row.

    Args:
        record: the first row that could be read.
        wanted: a name, ``a.b`` for a field within a field, ``a+b`` for several joined; None finds it.

    Raises:
        WorkbenchError: ``unknown-field``, or ``ambiguous-field`` if several could be meant.
    """
    if isinstance(record, str):
        if wanted:
            raise WorkbenchError("unknown-field", "The rows are plain texts without fields.", "Leave out the field.")
        return Field(())
    if wanted:
        names = (wanted,) if wanted in record else tuple(name.strip() for name in wanted.split("+"))
        missing = [name for name in names if not _has(record, name)]
        if missing:
            raise WorkbenchError(
                "unknown-field", f"The first row has no field {missing[0]!r}.", f"It has: {_listed(record)}."
            )
        return Field(names, "\n" if len(names) > 1 else "", len(names) == 1 and _holds_messages(record, names[0]))
    return _found(record)


def _holds_messages(record: dict[str, Any], name: str) -> bool:
    """A first row in which ``messages`` is no list is a bad row; the other names are also those of plain texts."""
    return isinstance(_lookup(record, name), list) or name == "messages"


def _found(record: dict[str, Any]) -> Field:
    for name in _CONVERSATIONS:
        if record.get(name) is not None and _holds_messages(record, name):
            return Field((name,), conversation=True)
    texts = [name for name, value in record.items() if isinstance(value, (str, list)) and not _is_id(name)]
    for group in _GROUPS:
        if all(name in texts for name in group) and not {"chosen", "rejected"} & set(texts):
            return Field(group, "" if group[0] == "prompt" else "\n")
    for name in _TEXTS:
        if name in texts and not (name == "prompt" and len(texts) > 1):
            return Field((name,))
    strings = [name for name in texts if isinstance(record[name], str)]
    if len(strings) == 1:
        return Field((strings[0],))
    raise WorkbenchError(
        "ambiguous-field",
        "It is not clear which field of the rows is the text." if strings else "No field of the first row is a text.",
        f"Name one of: {_listed(record)}; several are joined as a+b.",
    )


def _is_id(name: str) -> bool:
    return name.lower() in ("id", "uuid", "url", "source", "split", "lang", "language", "timestamp")


def _listed(record: dict[str, Any]) -> str:
    names = ", ".join(str(name)[:40] for name in list(record)[:12])
    return names + (", …" if len(record) > 12 else "") if names else "none at all"


def _has(record: dict[str, Any], name: str) -> bool:
    try:
        _lookup(record, name)
    except ValueError:
        return False
    return True


def _lookup(record: dict[str, Any], name: str) -> Any:
    value: Any = record
    for key in [name] if name in record else name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        raise ValueError(f"field {name!r} is missing")
    return value


def _messages(value: Sequence[Any]) -> list[Message]:
    """Messages with ``role`` and ``content``; those with ``from`` and ``value`` are turned into such."""
    found: list[Message] = []
    for message in value:
        if isinstance(message, dict) and "role" not in message and "from" in message:
            role = _SHAREGPT_ROLES.get(str(message["from"]), str(message["from"]))
            message = {"role": role, "content": message.get("value")}
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError("a message has no role")
        if isinstance(message.get("content"), str):
            require_encodable(message["content"])
        found.append(message)
    if not found:
        raise ValueError("there are no messages")
    return found


def plain_text(messages: Sequence[Message]) -> str:
    """The contents of messages run together, for a model without a chat template."""
    return "\n".join(str(message.get("content") or "") for message in messages)
