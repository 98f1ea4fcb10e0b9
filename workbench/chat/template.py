"""From a conversation to the exact text the model sees. Stdlib only; a child process needs jinja2.

Rendering equals transformers' ``apply_chat_template(tokenize=False)`` and is tested against it. It takes place in
a child process with limits (`workbench.chat.render_child`): the template is a stranger's program.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.packages import pip_install
from workbench.processes import end_group
from workbench.text import one_line

TIMEOUT_SECONDS = 5.0
MAX_FILE_BYTES = 16 * 2**20
_MAX_REPLY_BYTES = 256 * 2**20
_LINE_BYTES = 1 << 20
_TAG = "CONTINUE-HERE-c1f2a9"

# PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES; templates read them as variables.
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Names under which messages carry a model's reasoning; templates read the first, gpt-oss' the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the variables it may use.

    Attributes:
        source: the Jinja text.
        name: ``default`` or the name among several, such as ``tool_use``.
        file: where it was found.
        special_tokens: ``bos_token`` and so on, as the tokenizer's configuration spells them.
    """

    source: str
    name: str = "default"
    file: str = ""
    special_tokens: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """The text to tokenize.

    Attributes:
        text: the exact text the model sees.
        add_special_tokens: whether the tokenizer shall put its own BOS before it; templates write their own.
        note: what a user should know, such as that there is no template; may be empty.
    """

    text: str
    add_special_tokens: bool
    note: str = ""


def find_template(directory: Path, name: Optional[str] = None, tools: bool = False) -> Optional[ChatTemplate]:
    """The chat template of a model directory, or None if it has none.

    Args:
        directory: with ``chat_template.jinja``, ``additional_chat_templates/``, ``chat_template.json`` or a
            ``tokenizer_config.json`` that holds it; the first wins, as in transformers.
        name: which of several; None takes ``tool_use`` for tools, else ``default``.
        tools: whether tools will be given.

    Raises:
        WorkbenchError: ``bad-template-file`` for a file that cannot be read, ``unknown-template`` for a name.
    """
    config = _read_json(directory / "tokenizer_config.json")
    found = _template_files(directory) or _templates_in(config, directory / "tokenizer_config.json")
    if not found:
        legacy = directory / "chat_template.json"
        found = _templates_in(_read_json(legacy), legacy)
    if not found:
        return None
    wanted = name or ("tool_use" if tools and "tool_use" in found else "default")
    if wanted not in found:
        raise WorkbenchError(
            "unknown-template",
            f"{directory} has no chat template named {wanted!r}.",
            f"It has: {', '.join(sorted(found))}.",
        )
    source, file = found[wanted]
    return ChatTemplate(source, wanted, str(file), _special_tokens(directory, config))


def make_prompt(
    messages: Sequence[dict[str, Any]], template: Optional[ChatTemplate], job: Job = SILENT, **keywords: Any
) -> Prompt:
    """A conversation as the text to tokenize; without a template as a plain text to be continued.

    Args:
        messages: each with ``role`` and ``content``.
        template: from `find_template`.
        job: cancelling.
        keywords: as for `render_chat`.

    Raises:
        WorkbenchError: as `render_chat`.
    """
    if template is not None:
        text = render_chat(messages, template, job=job, **keywords)
        if not text:
            raise WorkbenchError(
                "template-error",
                "The chat template makes an empty text of this conversation.",
                "Use raw completion or another template.",
            )
        return Prompt(text, add_special_tokens=False)
    if not messages:
        raise _empty_conversation()
    text = "".join(str(message.get("content") or "") for message in messages)
    note = "This model has no chat template: the messages are run together as plain text for it to continue."
    return Prompt(text, add_special_tokens=True, note=note)


def render_chat(
    messages: Sequence[dict[str, Any]],
    template: ChatTemplate,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    tools: Optional[Sequence[dict[str, Any]]] = None,
    documents: Optional[Sequence[dict[str, Any]]] = None,
    variables: Optional[dict[str, Any]] = None,
    job: Job = SILENT,
) -> str:
    """Render a conversation through a chat template.

    Args:
        messages: JSON-like, each with ``role`` and ``content``.
        template: from `find_template`.
        add_generation_prompt: end with the header of the assistant's turn.
        continue_final_message: end inside of the last message, so that the model goes on writing it.
        tools: JSON schemas.
        documents: for retrieval templates.
        variables: more template variables, such as ``enable_thinking``.
        job: cancelling.

    Raises:
        WorkbenchError: ``bad-prompt``, ``template-refused`` (the template raised on these messages),
            ``template-error``, ``template-timeout``, ``template-too-large`` or ``missing-package``.
    """
    if not messages:
        raise _empty_conversation()
    chat = [_normalized(message) for message in messages]
    if continue_final_message:
        add_generation_prompt = False
        ending = chat[-1].get("content")
        if not isinstance(ending, str):
            raise WorkbenchError("bad-prompt", "The last message has no text to continue.", "Send a message.")
        for key in ("content", *(name for name in _REASONING if chat[-1].get(name) == ending)):
            chat[-1][key] = ending + _TAG + " "
    context = {
        **template.special_tokens,
        **(variables or {}),
        "messages": chat,
        "tools": list(tools) if tools is not None else None,
        "documents": list(documents) if documents is not None else None,
        "add_generation_prompt": add_generation_prompt,
    }
    (text,) = _renderer.render(template.source, [context], template.file or "the chat template", job)
    if isinstance(text, WorkbenchError):
        raise text
    return _cut_at_tag(text, template) if continue_final_message else text


def render_chats(
    conversations: Sequence[Sequence[dict[str, Any]]],
    template: ChatTemplate,
    add_generation_prompt: bool = True,
    give_up_after: Optional[int] = None,
    job: Job = SILENT,
) -> list[Union[str, WorkbenchError]]:
    """Render many conversations in one exchange with the child process, each under the limits of a single one.

    Args:
        conversations: messages as for `render_chat`.
        template: from `find_template`.
        add_generation_prompt: as for `render_chat`.
        give_up_after: once the template broke its limits so often, it is not run again.
        job: cancelling.

    Returns:
        For each conversation its text, or what `render_chat` would have raised; the last such error for those that
        were not tried.

    Raises:
        WorkbenchError: ``bad-prompt`` where the messages have no JSON form, or ``missing-package``.
    """
    shared = {**template.special_tokens, "tools": None, "documents": None}
    contexts = [
        {**shared, "messages": list(map(_normalized, messages)), "add_generation_prompt": add_generation_prompt}
        for messages in conversations
        if messages
    ]
    name = template.file or "the chat template"
    rendered = iter(_renderer.render(template.source, contexts, name, job, give_up_after))
    return [next(rendered) if messages else _empty_conversation() for messages in conversations]


def _empty_conversation() -> WorkbenchError:
    return WorkbenchError("bad-prompt", "The conversation is empty.", "Type something.")


def close_renderer() -> None:
    """End the child process that renders templates; the next rendering starts another."""
    _renderer.close()


def _normalized(message: dict[str, Any]) -> dict[str, Any]:
    """Without keys that are None, and with reasoning under every name that templates read."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[name] for name in _REASONING if name in kept), None)
    if reasoning is not None:
        return {"thinking": reasoning, **kept, "reasoning_content": reasoning}
    return kept


def _cut_at_tag(text: str, template: ChatTemplate) -> str:
    position = text.rfind(_TAG)
    if position < 0:
        raise WorkbenchError(
            "template-error",
            f"{template.file or 'The chat template'} leaves out the last message, so it cannot be continued.",
            "Send a new message instead.",
        )
    if text[position:].startswith(_TAG + " "):
        return text[:position]
    return text[:position].rstrip()  # the template trims messages


def _template_files(directory: Path) -> dict[str, tuple[str, Path]]:
    found: dict[str, tuple[str, Path]] = {}
    main = directory / "chat_template.jinja"
    if main.is_file():
        found["default"] = (_read_text(main), main)
    for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = (_read_text(path), path)
    return found


def _templates_in(config: dict[str, Any], file: Path) -> dict[str, tuple[str, Path]]:
    value = config.get("chat_template")
    if isinstance(value, str):
        return {"default": (value, file)}
    found: dict[str, tuple[str, Path]] = {}
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and isinstance(item.get("template"), str):
            found[str(item.get("name"))] = (item["template"], file)
    return found


def _special_tokens(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    fallback = _read_json(directory / "special_tokens_map.json")
    found: dict[str, str] = {}
    for name in _SPECIAL_TOKENS:
        value = config.get(name)
        value = fallback.get(name) if value is None else value
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise WorkbenchError(
            "bad-template-file", f"{path} is not JSON: {one_line(str(error), 120)}", "Fetch the file again."
        ) from None
    return value if isinstance(value, dict) else {}


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise WorkbenchError(
                "bad-template-file", f"{path} is larger than any template.", "Check the model's directory."
            )
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(
            "bad-template-file", f"Cannot read {path}: {one_line(str(error), 120)}", "Fetch the file again."
        ) from None


class _Renderer:
    """One warm child process; a context that breaks its limits ends it, and the next one starts another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._received = bytearray()

    def render(
        self,
        source: str,
        contexts: Sequence[dict[str, Any]],
        name: str,
        job: Job,
        give_up_after: Optional[int] = None,
    ) -> list[Union[str, WorkbenchError]]:
        """The text of each context, or why there is none."""
        ended = 0
        found: list[Union[str, WorkbenchError]] = []
        lines = _Requests(source, contexts)
        with self._lock:
            try:
                while len(found) < len(contexts):
                    line, count = lines.at(len(found))
                    found += self._exchange(line, count, name, job)
                    ended += self._child is None
                    if ended == give_up_after:
                        found += [found[-1]] * (len(contexts) - len(found))
            except BaseException:
                self._end()
                raise
        return found

    def close(self) -> None:
        with self._lock:
            self._end()

    def _exchange(self, line: bytes, count: int, name: str, job: Job) -> Iterator[Union[str, WorkbenchError]]:
        """Replies in order, up to and including that of the context that ended the child."""
        if self._child is None or self._child.poll() is not None:
            self._start(job)
        child = self._child
        if child is None or child.stdin is None:
            raise _broken(name, "it could not be started")
        # A template that does not read keeps the pipe full; the writer then waits in a thread of its own.
        writer = threading.Thread(target=_write, args=(child.stdin, line), daemon=True)
        writer.start()
        for _ in range(count):
            reply = self._read_line(time.monotonic() + TIMEOUT_SECONDS, job)
            if not reply:
                self._end()
                yield _out_of_time(name) if reply is None else _beyond_limits(name)
                return
            value = json.loads(reply)
            yield str(value["text"]) if "text" in value else _template_error(value, name)

    def _start(self, job: Job) -> None:
        script = Path(__file__).with_name("render_child.py")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
        self._child = subprocess.Popen(
            [sys.executable, "-u", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        greeting = self._read_line(time.monotonic() + 30.0, job)
        ready = json.loads(greeting) if greeting else {}
        if ready.get("ready"):
            return
        version = ready.get("version")
        raise WorkbenchError(
            "missing-package",
            f"Chat templates need jinja2 3.1.6 or newer, but {sys.executable} has "
            f"{f'jinja2 {version}, whose sandbox is known to leak' if version else 'none that imports'}.",
            pip_install("jinja2>=3.1.6"),
            str(ready.get("error", "")),
        )

    def _read_line(self, deadline: float, job: Job) -> Optional[bytes]:
        """A line of the child; None when time is up, empty when the child ended."""
        child = self._child
        if child is None or child.stdout is None:
            return b""
        descriptor = child.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            searched = 0
            while (end := self._received.find(b"\n", searched)) < 0:
                searched = len(self._received)
                job.check()
                if time.monotonic() > deadline or searched > _MAX_REPLY_BYTES:
                    return None
                if selector.select(0.05):
                    data = os.read(descriptor, 1 << 20)
                    if not data:
                        return b""
                    self._received += data
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line

    def _end(self) -> None:
        child, self._child = self._child, None
        self._received.clear()
        if child is not None:
            end_group(child)


class _Requests:
    """Lines for the child: many contexts at once, but a large one alone, as it may be too much for the child."""

    def __init__(self, source: str, contexts: Sequence[dict[str, Any]]) -> None:
        try:
            self._head = json.dumps({"template": source, "cpu_seconds": int(TIMEOUT_SECONDS)})[:-1]
            self._contexts = [json.dumps(context) for context in contexts]
        except (TypeError, ValueError, RecursionError) as error:
            raise WorkbenchError(
                "bad-prompt",
                f"The messages cannot be given to the template: {one_line(str(error), 120)}",
                "Use plain text.",
            ) from None

    def at(self, start: int) -> tuple[bytes, int]:
        """The line that begins with the context of this number, and how many it holds."""
        end, size = start + 1, len(self._contexts[start])
        while end < len(self._contexts) and size + len(self._contexts[end]) <= _LINE_BYTES:
            size += len(self._contexts[end])
            end += 1
        line = f'{self._head}, "contexts": [{", ".join(self._contexts[start:end])}]}}\n'
        return line.encode("ascii"), end - start


def _write(pipe: Any, line: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        pipe.write(line)
        pipe.flush()


def _broken(name: str, why: str) -> WorkbenchError:
    return WorkbenchError("template-error", f"{name} was not rendered: {why}.", "Try again.")


def _out_of_time(name: str) -> WorkbenchError:
    return WorkbenchError(
        "template-timeout",
        f"{name} was not rendered within {TIMEOUT_SECONDS:g} seconds.",
        "It may loop for ever: use raw completion or another template.",
    )


def _beyond_limits(name: str) -> WorkbenchError:
    return WorkbenchError(
        "template-too-large",
        f"{name} used more memory or time than a template may.",
        "Use raw completion or another template.",
    )


def _template_error(reply: dict[str, Any], name: str) -> WorkbenchError:
    message = one_line(str(reply.get("message", "")), 200)
    kind = reply.get("kind")
    if kind == "refused":
        return WorkbenchError(
            "template-refused",
            f"The chat template refuses this conversation: {message}",
            "Change the order or the roles of the messages, or leave out the system prompt.",
            name,
        )
    if kind == "too-large":
        return WorkbenchError(
            "template-too-large",
            f"{name} makes more text than a template may.",
            "Use raw completion or another template.",
        )
    what = "is not a valid template" if kind == "syntax" else "failed on this conversation"
    return WorkbenchError("template-error", f"{name} {what}: {message}", "Use raw completion or another template.")


_renderer = _Renderer()
atexit.register(_renderer.close)
