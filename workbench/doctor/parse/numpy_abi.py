"""What NumPy tells around an import that fails: who refuses NumPy 2, and for which Python it is. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from workbench.doctor.facts import ErrorFact

_BELOW = 200
_MAX_LINE = 400
_END = re.compile(r"\s{0,8}(?:AttributeError: _ARRAY_API|ImportError: numpy\.core)")
_PACKAGE = re.compile(r"(?:site|dist)-packages[/\\]{1,2}(?!numpy[/\\])(\w{2,40})[/\\]")
_IMPORTED = re.compile(r"\s{2,16}(?:from|import) ([A-Za-z]\w{1,40})\b")
_ON_IMPORT = re.compile(r", in <module>|^\s{2,16}(?:from|import) ")
_OWN_WORDS = re.compile(r"[Nn]umpy is not available|Failed to initialize NumPy")


def with_numpy_user(error: ErrorFact, lines: Sequence[str]) -> ErrorFact:
    """An error of NumPy's changed interface with the ``package`` that was built for the old one, where it is told.

    NumPy's banner comes before the traceback that leads to the import; a module outside all packages is named by the
    import that stands last. "Numpy is not available" is what torch itself says.
    """
    if error.id != "numpy-abi" or not error.line:
        return error
    if any(_OWN_WORDS.search(line[:_MAX_LINE]) for line in lines):
        return replace(error, values={**error.values, "package": "torch"})
    banner = "compiled using NumPy" in error.text  # what stands above it is of something else
    if error.values.get("package") and not banner:
        return error
    below = [line[:_MAX_LINE] for line in lines[error.line - 1 : error.line - 1 + _BELOW]]
    end = next((number for number, line in enumerate(below) if _END.match(line)), None)
    # Of a traceback that is cut off only what runs on import is known to lead to the module.
    shown = below[:end] if end is not None else [line for line in below if _ON_IMPORT.search(line)]
    named = [match[1] for match in (_PACKAGE.search(line) or _IMPORTED.match(line) for line in shown) if match]
    return replace(error, values={**error.values, "package": named[-1]}) if named else error


_BANNER = re.compile(r"The Python version is: Python(?P<python>3\.\d{1,2})")
_RELEASE = re.compile(r"The NumPy version is: \"(?P<numpy>[\w.+]{1,30})\"")
_FOLDER = re.compile(r"[/\\][Pp]ython(?P<folder>3\.?\d{1,2})[/\\](?:lib[/\\])?(?:site|dist)-packages[/\\]numpy[/\\]")
_ASKED = re.compile(r"\s{0,8}python-version\s{0,3}=\s{0,3}['\"](?P<asked>3\.\d{1,2})(?:\.\d{1,2})?['\"]")
_WHERE = re.compile(r"[Ff]ile \"?(?P<where>[^\"\n]{1,200}(?:site|dist)-packages)[/\\]numpy[/\\]")
_READ = {"numpy-compiled-part-missing": (_BANNER, _RELEASE, _FOLDER, _ASKED), "numpy-mixed": (_WHERE,)}


def with_numpy_files(error: ErrorFact, lines: Sequence[str]) -> ErrorFact:
    """An error of NumPy's own files with what its banner and the frames tell of Python, release and folder."""
    patterns = _READ.get(error.id, ())
    found = (next(filter(None, (pattern.search(line[:_MAX_LINE]) for line in lines)), None) for pattern in patterns)
    told = {name: value for match in found if match for name, value in match.groupdict().items()}
    return replace(error, values={**error.values, **told}) if told else error
