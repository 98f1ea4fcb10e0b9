from __future__ import annotations

import contextlib
import dataclasses
import json
import typing
from typing import Any, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session import handlers, protocol


def example(expected: Any) -> Any:
    """A value of a field's type that is not its default."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Union:
        return example(arguments[0])
    if origin is tuple:
        return (example(arguments[0]),)
    if origin is list:
        return [example(arguments[0])]
    if origin is dict:
        return {"key ☃": example(arguments[1])}
    if dataclasses.is_dataclass(expected):
        return build(expected)
    return {str: "text \x1b[31m \u2028 \U0001f600", int: 7, float: 0.25, bool: True, Any: [1, None, {"a": "b"}]}[
        expected
    ]


def build(message_type: Any) -> Any:
    hints = typing.get_type_hints(message_type)
    return message_type(**{field.name: example(hints[field.name]) for field in dataclasses.fields(message_type)})


MESSAGES = sorted(protocol.registry().items())


@pytest.mark.parametrize("message_type", [kind for _, kind in MESSAGES], ids=[name for name, _ in MESSAGES])
def test_every_message_survives_the_wire(message_type: type[protocol.Message]) -> None:
    message = build(message_type)
    line = protocol.encode(7, message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.isascii()
    assert protocol.decode(line) == protocol.Frame(7, message)


def test_every_request_has_exactly_one_answerer() -> None:
    requests = {kind for _, kind in MESSAGES if issubclass(kind, protocol.Request)}
    handled = [kind for kinds in handlers.MODULES.values() for kind in kinds]
    at_once = {protocol.Hello, protocol.GetStatus, protocol.Cancel, protocol.ReadLog, protocol.Shutdown}
    assert len(handled) == len(set(handled))
    assert set(handled) | at_once == requests
    for kind in handled:
        assert handlers.find(kind).stages


def test_unknown_fields_are_ignored_and_missing_ones_take_their_default() -> None:
    line = json.dumps({"v": 1, "id": 3, "type": "hello", "body": {"client": "new", "colour": "blue"}}).encode()
    assert protocol.decode(line).message == protocol.Hello(client="new")


@pytest.mark.parametrize(
    ("line", "kind", "message_id"),
    [
        (b"", "bad-json", 0),
        (b"\xff\xfe\x00", "bad-json", 0),
        (b"[" * 100_000, "bad-json", 0),
        (b"[1]", "bad-message", 0),
        (b'{"v":1,"id":"7","type":"hello"}', "bad-message", 0),
        (b'{"v":1,"id":true,"type":"hello"}', "bad-message", 0),
        (b'{"v":1,"id":-1,"type":"hello"}', "bad-message", 0),
        (b'{"v":2,"id":7,"type":"hello"}', "protocol-version", 7),
        (b'{"id":7,"type":"hello"}', "protocol-version", 7),
        (b'{"v":1,"id":7,"type":"fly"}', "unknown-request", 7),
        (b'{"v":1,"id":7,"type":["hello"]}', "unknown-request", 7),
        (b'{"v":1,"id":7,"type":"hello","body":[]}', "bad-field", 7),
        (b'{"v":1,"id":7,"type":"hello","body":{"watch":"yes"}}', "bad-field", 7),
        (b'{"v":1,"id":7,"type":"cancel","body":{"request_id":true}}', "bad-field", 7),
        (b'{"v":1,"id":7,"type":"count_tokens","body":{"texts":[{"name":1}],"models":[]}}', "bad-field", 7),
        (b'{"v":1,"id":7,"type":"resolve_model","body":{}}', "bad-field", 7),
    ],
)
def test_what_is_no_message_is_named(line: bytes, kind: str, message_id: int) -> None:
    with pytest.raises(protocol.ProtocolError) as caught:
        protocol.decode(line)
    assert (caught.value.kind, caught.value.message_id) == (kind, message_id)


@given(st.binary(max_size=300) | st.text().map(lambda text: json.dumps({"v": 1, "id": 1, "type": text}).encode()))
def test_no_line_raises_anything_else(line: bytes) -> None:
    with contextlib.suppress(protocol.ProtocolError):
        protocol.decode(line)


def test_exceptions_travel_as_data() -> None:
    failed = protocol.failure(WorkbenchError("unknown-model", "No model x.", "Try y.", "trace"))
    assert isinstance(failed, protocol.Failed)
    assert str(failed.error()) == "No model x. Try y."
    assert isinstance(protocol.failure(JobCancelled()), protocol.Cancelled)
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        internal = protocol.failure(error)
    assert isinstance(internal, protocol.Failed)
    assert internal.kind == "internal"
    assert "\n" not in internal.message
    assert "Traceback" in internal.details
