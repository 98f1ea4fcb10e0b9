"""Environment variables that Textual reads while it is imported; so this runs before, on the stdlib alone."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SSH_FRAMES_PER_SECOND = 15
"""Streaming over SSH at 15 frames per second sends a third of the bytes that 60 do."""

SLOW_FRAMES_PER_SECOND = 4

FEW_BYTES_VARIABLE = "WORKBENCH_FEW_BYTES"
"""Set to 1, what the terminal shows already is not sent again; 0 leaves that to Textual."""


def over_ssh(environment: MutableMapping[str, str] | None = None) -> bool:
    """Whether this terminal is at the other end of an SSH connection."""
    environment = os.environ if environment is None else environment
    return bool(environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"))


def prepare_environment(slow_link: bool = False, environment: MutableMapping[str, str] | None = None) -> None:
    """Set Textual's frame rate and animation for this link. What the user set stays.

    Args:
        slow_link: the user asked for as few bytes as possible, by option or by settings.
        environment: where to set them; the process's own by default.
    """
    environment = os.environ if environment is None else environment
    environment.setdefault("ESCDELAY", "50")
    # Animated scrolling repaints the whole pane for every step of the way.
    environment.setdefault("TEXTUAL_ANIMATIONS", "none")
    if slow_link:
        environment.setdefault("TEXTUAL_FPS", str(SLOW_FRAMES_PER_SECOND))
    elif over_ssh(environment):
        environment.setdefault("TEXTUAL_FPS", str(SSH_FRAMES_PER_SECOND))
    if slow_link or over_ssh(environment):
        environment.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
        environment.setdefault(FEW_BYTES_VARIABLE, "1")
