"""Rendering equals transformers on many templates and conversations; hostile templates end in one line."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from workbench.chat.template import ChatTemplate, close_renderer, find_template, make_prompt, render_chat, render_chats
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.paths import data_dir

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

TEMPLATES = {
    "plain": "{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
    "headers": """{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
<|header|>system<|end|>
Today: {{ strftime_now('%Y') }}
{{ ns.system }}
{%- for message in messages %}
    {{- '<|header|>' + message['role'] + '<|end|>' + message['content'] | trim + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}<|header|>assistant<|end|>{% endif %}""",
    "alternating": """{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate: user, assistant, user …') }}
    {% endif %}
    {% if message['role'] == 'user' %}[ASK] {{ message['content'] }} [/ASK]
    {% else %}{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}""",
    "tools": """{% if tools %}Tools: {{ tools | tojson(indent=2) }}
{% for tool in tools %}{{ tool.function.name }}{% if not loop.last %}, {% endif %}{% endfor %}
{% endif %}{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}
{{ message | tojson }}{% if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}""",
    "reasoning": """{% for message in messages %}<{{ message.role }}>
{% if message.reasoning_content is defined %}<think>{{ message.reasoning_content }}</think>{% endif %}
{% if message.tool_calls %}{% for call in message.tool_calls %}{{ call['function']['name'] }}{% endfor %}{% endif %}
{{ message.get('content', '') }}
{% endfor %}{{ dict(a=1).a }} {{ {'x': [1, 2.5, none, true]} | tojson }}""",
    "macros": """{% macro part(text, upper=false) %}{{ text | upper if upper else text | lower }}{% endmacro %}
{% for group in messages | groupby('role') %}{{ group.grouper }}={{ group.list | length }};{% endfor %}
{% for m in messages %}{{ part(m.content, loop.first) | replace('a', '4') | e }}{{ '\\n' if not loop.last }}
{% endfor %}""",
}
CONVERSATIONS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "What's 2 < 3?\n\n"}],
    [
        {"role": "user", "content": "naïve café 日本語 🦊 <b>&amp;</b>"},
        {"role": "assistant", "content": "Yes {{ 7 * 7 }} {% raise %}"},
        {"role": "user", "content": '\tand "quotes" \\ back'},
    ],
    [
        {"role": "system", "content": ""},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "reasoning": "hm"},
        {"role": "assistant", "content": "ok", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "42", "name": "f"},
        {"role": "user", "content": "go on", "thinking": None},
    ],
]
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "é": [1]}}}]


@pytest.fixture(scope="module")
def their_tokenizer():
    from transformers import PreTrainedTokenizerFast

    path = data_dir("sample_models") / "tiny-gpt2" / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(path), **SPECIAL)


def outcome(function, *arguments, **keywords):
    """What a rendering gives: its text, or the kind of its error, ``failed`` for one of theirs."""
    try:
        return function(*arguments, **keywords)
    except Exception as error:
        return getattr(error, "kind", "failed")


@pytest.mark.model
@pytest.mark.parametrize("name", TEMPLATES)
def test_rendering_equals_transformers(their_tokenizer, name):
    template = ChatTemplate(TEMPLATES[name], special_tokens=SPECIAL)
    rendered = 0
    for chat, prompt, tools in itertools.product(CONVERSATIONS, (True, False), (None, TOOLS)):
        keywords = {"add_generation_prompt": prompt, "tools": tools}
        mine = outcome(render_chat, chat, template, **keywords)
        theirs = outcome(
            their_tokenizer.apply_chat_template, chat, chat_template=TEMPLATES[name], tokenize=False, **keywords
        )
        if theirs == "failed":
            assert mine in ("template-refused", "template-error")
        else:
            assert mine == theirs
            rendered += 1
    assert rendered >= 4


@pytest.mark.model
@pytest.mark.parametrize("name", ["plain", "headers", "alternating"])
@pytest.mark.parametrize("ending", ["The answer", "with spaces  ", "two\nlines\n"])
def test_continuing_a_message_equals_transformers(their_tokenizer, name, ending):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ending}]
    theirs = their_tokenizer.apply_chat_template(
        chat, chat_template=TEMPLATES[name], tokenize=False, continue_final_message=True
    )
    template = ChatTemplate(TEMPLATES[name], special_tokens=SPECIAL)
    assert render_chat(chat, template, continue_final_message=True) == theirs


@pytest.mark.model
@pytest.mark.parametrize("name", ["llama", "mixtral", "gemma3", "gpt2"])
def test_the_samples_templates_equal_transformers(name):
    from transformers import AutoTokenizer

    directory = data_dir("sample_models") / f"tiny-{name}"
    template = find_template(directory)
    if template is None:
        assert "chat_template" not in (directory / "tokenizer_config.json").read_text()
        return
    theirs = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    for chat in CONVERSATIONS[:3]:
        expected = outcome(theirs.apply_chat_template, chat, tokenize=False, add_generation_prompt=True)
        mine = outcome(render_chat, chat, template)
        assert mine == expected or (expected == "failed" and mine.startswith("template-"))


@pytest.mark.model
def test_smollm2_adds_its_system_prompt(smollm2_dir):
    from transformers import AutoTokenizer

    template = find_template(smollm2_dir)
    theirs = AutoTokenizer.from_pretrained(smollm2_dir, local_files_only=True)
    for chat in CONVERSATIONS[:3]:
        expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert render_chat(chat, template) == expected
    text = render_chat(CONVERSATIONS[0], template)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


HOSTILE = {
    "endless loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a gigabyte": "{{ 'x' * 1000000000 }}",
    "doubling": "{% set n = namespace(x='x') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "many pieces": "{% for a in range(99999) %}{{ 'y' * 9999 }}{% endfor %}",
    "big power": "{{ (10 ** (10 ** 9)) | string | length }}",
    "padding": "{{ '%1000000000d' % 1 }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "slow range": "{{ range(10 ** 9) | list | length }}",
    "builtins": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['sys'] }}",
    "namespace": "{{ namespace(__class__=1) }}",
    "import": "{% import 'os' as os %}",
    "mutation": "{{ messages.append(1) }}",
    "syntax": "{% if %}",
    "deep nesting": "{{ " + "(" * 3000 + ")" * 3000 + " }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_in_one_line(name, monkeypatch):
    monkeypatch.setattr("workbench.chat.template.TIMEOUT_SECONDS", 1.0)
    started = time.process_time()
    with pytest.raises(WorkbenchError) as caught:
        render_chat(CONVERSATIONS[0], ChatTemplate(HOSTILE[name], file="evil.jinja"))
    assert caught.value.kind in ("template-error", "template-timeout", "template-too-large")
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 5
    assert render_chat(CONVERSATIONS[0], ChatTemplate(TEMPLATES["plain"])) == "user: Hi\nassistant:"


def test_many_conversations_are_rendered_each_under_its_own_limits(monkeypatch):
    monkeypatch.setattr("workbench.chat.template.TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr("workbench.chat.template._LINE_BYTES", 4000)
    source = (
        "{% if messages[0].content == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
        "{% endfor %}{% elif messages[0].content == 'no' %}{{ raise_exception('never') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    contents = ["a", "no", "é" * 5000, "loop", *(f"row {number}" for number in range(300)), "z\ny"]
    conversations = [[{"role": "user", "content": content}] for content in contents]
    found = render_chats([*conversations, []], ChatTemplate(source), add_generation_prompt=False)
    expected = [f"user: {content}\n" for content in contents]
    kinds = {1: "template-refused", 3: "template-timeout", len(contents): "bad-prompt"}
    assert {index: text.kind for index, text in enumerate(found) if isinstance(text, WorkbenchError)} == kinds
    assert [text for index, text in enumerate(found) if index not in kinds] == [
        text for index, text in enumerate(expected) if index not in kinds
    ]


def test_rendering_can_be_cancelled():
    class Stopped(Job):
        def check(self) -> None:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        render_chat(CONVERSATIONS[0], ChatTemplate(HOSTILE["endless loop"]), job=Stopped())


def test_a_template_that_refuses_says_why():
    chat = [{"role": "assistant", "content": "me first"}]
    with pytest.raises(WorkbenchError, match="Roles must alternate") as caught:
        render_chat(chat, ChatTemplate(TEMPLATES["alternating"]))
    assert caught.value.kind == "template-refused"


def test_where_templates_are_found(tmp_path: Path):
    assert find_template(tmp_path) is None
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "</s>", "bos_token": "no"}')
    found = find_template(tmp_path)
    assert (found.source, found.special_tokens) == ("A", {"bos_token": "<s>", "eos_token": "</s>"})
    assert find_template(tmp_path, tools=True).source == "B"
    (tmp_path / "chat_template.jinja").write_text("C")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("D")
    assert find_template(tmp_path).source == "C"
    assert find_template(tmp_path, name="rag").source == "D"
    with pytest.raises(WorkbenchError, match="It has: default, rag"):
        find_template(tmp_path, name="none")
    (tmp_path / "tokenizer_config.json").write_text("{broken")
    with pytest.raises(WorkbenchError, match="is not JSON"):
        find_template(tmp_path)


def test_without_a_template_the_text_is_continued_and_the_prompt_says_so():
    prompt = make_prompt([{"role": "user", "content": "Once upon"}], None)
    assert (prompt.text, prompt.add_special_tokens) == ("Once upon", True)
    assert "no chat template" in prompt.note
    templated = make_prompt(CONVERSATIONS[0], ChatTemplate(TEMPLATES["plain"]))
    assert (templated.text, templated.add_special_tokens, templated.note) == ("user: Hi\nassistant:", False, "")
    for template in (None, ChatTemplate(TEMPLATES["plain"])):
        with pytest.raises(WorkbenchError, match="empty"):
            make_prompt([], template)


def test_the_renderer_starts_again_after_being_closed():
    close_renderer()
    assert render_chat(CONVERSATIONS[0], ChatTemplate("{{ messages | length }}")) == "1"
