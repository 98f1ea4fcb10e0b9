"""Python packages against each other, in few words: each message with its finding, and a like one without it."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report

FIRES = {
    "pydantic writes what gradio cannot read": (
        "gradio-versions-apart",
        '  File "E:\\ui\\venv\\lib\\site-packages\\gradio_client\\utils.py", line 898, in get_type\n'
        "    if \"const\" in schema:\nTypeError: argument of type 'bool' is not iterable",
    ),
    "pydantic is given a class of Starlette": (
        "gradio-versions-apart",
        "pydantic.errors.PydanticSchemaGenerationError: Unable to generate pydantic-core schema for "
        "<class 'starlette.requests.Request'>.",
    ),
    "every call is answered with 422": (
        "gradio-versions-apart",
        "gradio 3.23.0, each button fails\nPOST http://127.0.0.1:7860/run/predict 422 (Unprocessable Entity)",
    ),
    "gradio behind a proxy": (
        "gradio-cannot-reach-itself",
        "ValueError: When localhost is not accessible, a shareable link must be created. Please set share=True",
    ),
    "another part of a tokenizer file": (
        "tokenizer-file-of-another-release",
        "!!! Exception !!! data did not match any variant of untagged enum PyPreTokenizerTypeWrapper at line 951",
    ),
    "only the first words of it": (
        "datasets-without-scripts",
        "`trust_remote_code` is not supported anymore.\nRuntimeError   Traceback (most recent call last)",
    ),
}
OTHERWISE = {
    "a dict that cannot be hashed, elsewhere": ("gradio-versions-apart", "TypeError: unhashable type: 'dict'"),
    "a bool that is no list, elsewhere": (
        "gradio-versions-apart",
        "  File \"train.py\", line 3\nTypeError: argument of type 'bool' is not iterable",
    ),
}


@pytest.mark.parametrize("name", FIRES)
def test_the_first_finding_is_the_cause(name: str) -> None:
    expected, text = FIRES[name]
    findings = diagnose(parse_report(text)).findings
    assert [finding.id for finding in findings][:1] == [expected]


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_like_message_does_not_give_it(name: str) -> None:
    unexpected, text = OTHERWISE[name]
    assert unexpected not in [finding.id for finding in diagnose(parse_report(text)).findings]
