"""Hostile strings, each marked so that it is known again if a terminal is told to obey it."""

from __future__ import annotations

MARK = "7331"
"""Stands in every sequence that has room for it; nothing of ours does."""

ESCAPES = {
    "colour": f"\x1b[{MARK}m",
    "clear the screen": f"\x1b[2J\x1b[{MARK}H",
    "report its state": f"\x1b[{MARK}n\x1b[c\x1bZ",
    "title": f"\x1b]0;{MARK}\x07",
    "title, ended by ST": f"\x1b]2;{MARK}\x1b\\",
    "link": f"\x1b]8;;http://{MARK}\x1b\\here\x1b]8;;\x1b\\",
    "clipboard": f"\x1b]52;c;{MARK}\x07",
    "terminal reset": "\x1bc",
    "device control": f"\x1bP+q{MARK}\x1b\\",
    "application command": f"\x1b_{MARK}\x1b\\",
    "privacy message": f"\x1b^{MARK}\x1b\\",
    "character set": "\x1b(0\x0e\x0f",
    "alternate screen": f"\x1b[?1049l\x1b[?{MARK}h",
    "sequence without an end": f"\x1b]{MARK}",
    "C1 colour": f"\x9b{MARK}m",
    "C1 title": f"\x9d0;{MARK}\x9c",
    "C1 device control": f"\x90{MARK}\x9c",
}
CONTROLS = {
    "bell": "ab\x07cd",
    "backspace": "secret\x08\x08\x08\x08\x08\x08public",
    "overwriting return": "rm -rf ~\rls       ",
    "line feeds that are none": "a\x0bb\x0cc\x85d",
    "delete": "x\x7fy",
    "enquiry": "\x05\x16\x11\x13",
}
UNREADABLE = {
    "bidirectional override": "user\u202etxt.exe\u202c",
    "bidirectional isolate": "\u2066a\u2067b\u2068c\u2069",
    "marks of direction": "\u200e\u200f\u061c",
    "zero width": "in\u200bvis\u2060ible\ufeff",
    "tags": "x\U000e0041\U000e0042",
    "line separators": "a\u2028b\u2029c",
    "interlinear": "\ufff9a\ufffab\ufffb",
    "pile of marks": "Z" + "\u0300\u0489\u1ab0\u20d0" * 60,
}
MARKUP = {
    "Rich": "[bold red]x[/bold red][link=file:///etc/passwd]y[/link][/nope]",
    "Textual": "[@click=app.quit]z[/] [$error 50%]w[/]",
    "unbalanced": "[/][[/[a",
    "emoji": ":boom:",
    "Markdown": "![x](http://127.0.0.1/x) <script>y</script> [a](javascript:z)",
}

STRINGS: dict[str, str] = {**ESCAPES, **CONTROLS, **UNREADABLE, **MARKUP, "NUL": "a\x00b", "surrogate": "a\ud800b"}

WHOLE = "".join(STRINGS.values())
"""All of them."""
TEXT = WHOLE.replace("\ud800", "")
"""All that can stand in a file of UTF-8."""
ARGUMENT = TEXT.replace("\x00", "")
"""All that an argument, an environment variable or a path can hold."""
NAME = "".join([*ESCAPES.values(), *CONTROLS.values(), "\u202e\u200b", "[/nope][bold]"]).replace("/", "")[:180]
"""As much as the name of a file can hold."""
