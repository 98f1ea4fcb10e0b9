"""Conversations, their messages and what is kept beside them. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        id: its number in the store.
        parent: the message before it, or None for the first.
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        text: what it says.
        created: seconds since the epoch.
        state: one of `STATES`.
        settings: for an answer the sampling options and the model's variant.
        figures: for an answer what it took: token counts, seconds, memory.
        siblings: all messages that stand at the same place, this one included, oldest first; more than one where
            branches part.
    """

    id: int
    parent: Optional[int]
    role: str
    text: str
    created: float
    state: str
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    siblings: tuple[int, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A prompt, a system prompt or a set of sampling options kept under a name."""

    kind: str
    name: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A message that holds the words searched for."""

    conversation: int
    message: int
    title: str
    role: str
    snippet: str
    """The words with what stands around them, on one line."""
    updated: float


@dataclass(frozen=True)
class Conversation:
    """A conversation with the messages of its shown branch, oldest first; lists leave the messages out."""

    id: int
    title: str
    model: str
    created: float
    updated: float
    message_count: int
    messages: tuple[Message, ...] = ()
