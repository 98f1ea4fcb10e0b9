"""The child process in which chat templates run; needs jinja2, imports nothing of the workbench.

A template is a program from a model's repository. It runs in jinja2's immutable sandbox, and the process
around it has limits of memory and CPU time, so that an endless loop or a gigabyte of text ends this process
only. One JSON object per line on standard input with a template and any number of contexts; one line on standard
output for each context, in their order.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import resource
import sys
from typing import Any

MEMORY_BYTES = 768 * 2**20
OUTPUT_CHARACTERS = 16 * 2**20


def limit_process() -> None:
    """Bound memory for good and forbid writing files; CPU time is bounded anew for each context."""
    for name, amount in (("RLIMIT_AS", MEMORY_BYTES), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        # macOS knows some of these and enforces fewer; the caller's time-out remains.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (amount, amount))


def limit_cpu(seconds: int) -> None:
    """Let this process use `seconds` more of CPU time before the kernel ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard))


def make_environment() -> Any:
    """A jinja2 environment with what transformers gives to chat templates, and nothing else."""
    import jinja2
    import jinja2.debug  # imported lazily by jinja2 on errors, when memory may be short
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """``{% generation %}`` marks the answer for training; for rendering it is transparent."""

        tags = frozenset({"generation"})  # type: ignore[assignment]

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class PublicNamespace(Namespace):
        """A namespace whose names may not begin with an underscore, behind which Python's internals lie."""

        def __init__(*args: Any, **keywords: Any) -> None:
            self, rest = args[0], args[1:]
            values = dict(*rest, **keywords)
            for name in values:
                PublicNamespace.check(name)
            Namespace.__init__(self, values)

        def __setitem__(self, name: str, value: Any) -> None:
            PublicNamespace.check(name)
            Namespace.__setitem__(self, name, value)

        @staticmethod
        def check(name: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")

    class Dict:
        """``dict(...)`` and ``dict.fromkeys(...)`` without the class itself."""

        def __call__(self, *args: Any, **keywords: Any) -> Any:
            return dict(*args, **keywords)

        def fromkeys(self, *args: Any) -> Any:
            return dict.fromkeys(*args)

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        # jinja2's own filter escapes HTML characters
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals.update(
        raise_exception=raise_exception,
        strftime_now=lambda pattern: datetime.datetime.now().strftime(pattern),
        dict=Dict(),
        namespace=PublicNamespace,
    )
    return environment


def render(template: Any, context: dict[str, Any]) -> str:
    """The rendered text, refused beyond `OUTPUT_CHARACTERS`."""
    pieces: list[str] = []
    size = 0
    for piece in template.generate(**context):
        pieces.append(piece)
        size += len(piece)
        if size > OUTPUT_CHARACTERS:
            raise MemoryError
    return "".join(pieces)


def answer(source: str, context: dict[str, Any], environment: Any, compiled: dict[str, Any]) -> dict[str, Any]:
    """Render one context; returns the reply as a dictionary."""
    import jinja2

    try:
        if source not in compiled:
            compiled.clear()
            compiled[source] = environment.from_string(source)
        return {"text": render(compiled[source], context)}
    except (MemoryError, RecursionError):
        return {"kind": "too-large"}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"kind": "syntax", "message": f"line {error.lineno}: {error.message}"[:2000]}
    except jinja2.exceptions.TemplateError as error:
        kind = "refused" if type(error) is jinja2.exceptions.TemplateError else "error"
        return {"kind": kind, "message": str(error)[:2000]}
    except Exception as error:
        return {"kind": "error", "message": f"{type(error).__name__}: {error}"[:2000]}


def main() -> None:
    """Say whether jinja2 is here, then serve requests until standard input ends."""
    del sys.path[0]  # this folder's modules are not meant to be found by their bare names
    try:
        import jinja2

        version = tuple(int(part) for part in jinja2.__version__.split(".")[:3])
        environment: Any = make_environment() if version >= (3, 1, 6) else None
        greeting: dict[str, Any] = {"ready": environment is not None, "version": jinja2.__version__}
    except Exception as error:
        environment = None
        greeting = {"ready": False, "error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(greeting) + "\n")
    sys.stdout.flush()
    if environment is None:
        return
    limit_process()
    compiled: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        for context in request["contexts"]:
            limit_cpu(request["cpu_seconds"])
            reply = answer(request["template"], context, environment, compiled)
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
