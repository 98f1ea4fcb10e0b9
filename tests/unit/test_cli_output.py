"""What a file's content may do to a terminal behind a pipe: nothing; what chat's options may not stand beside."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from rich.text import Text

from workbench.cli.chat import command as chat
from workbench.cli.chat_compare import read_text
from workbench.cli.output import console, print_exact, print_text, table
from workbench.cli.tokens import command as tokens
from workbench.cli.trace import command as trace
from workbench.errors import WorkbenchError
from workbench.text import format_nats

EVIL = "name\x1b]0;owned\x07\x9b31m\u202eend"


def test_what_is_printed_for_people_holds_no_control_character(capsys):
    print_text(EVIL)
    grid = table("tensor", EVIL)
    grid.add_row(EVIL, Text(EVIL, "red"))
    console().print(grid)
    console().print(Text(EVIL, "bold"))
    printed = capsys.readouterr().out
    assert not set(printed) & set("\x1b\x07\x9b\u202e")
    assert printed.count("␛") == 5


def test_a_product_goes_into_a_pipe_as_it_is(capsys):
    print_exact("an answer\x1b[1m\n", end="")
    assert capsys.readouterr().out == "an answer\x1b[1m\n"


def test_an_empty_text_is_not_taken_for_the_built_in_one(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    with pytest.raises(WorkbenchError, match="is empty"):
        read_text(str(empty))


def test_a_small_divergence_is_not_rounded_to_nothing():
    assert [format_nats(value, 4) for value in (0.0, 0.1834, 0.00021, 2.3e-6)] == [
        "0.0000",
        "0.1834",
        "0.0002",
        "2.3e-06",
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--compare", "bf16,nf4", "--temperature", "0", "--quant", "nf4"], "--quant, --temperature cannot go with"),
        (["--compare", "bf16,nf4", "--stop", "x", "--raw"], "--raw, --stop cannot go with"),
        (["--text", "x.txt", "--prompt", "hi"], "go with --compare"),
        (["--prompt", "caf\udce9"], "--prompt is no UTF-8 from its character 4 on"),
        (["--compare", "bf16,nf4", "--url", "http://x/v1"], "not with --url"),
    ],
)
def test_what_would_be_passed_over_or_cannot_be_read_is_refused(options: list[str], named: str) -> None:
    result = CliRunner().invoke(chat, ["tiny-llama", *options])
    assert result.exit_code == 2
    assert named in result.output + str(result.exception)


def test_a_text_beside_a_data_set_is_refused_not_passed_over():
    result = CliRunner().invoke(tokens, ["hi", "--dataset", "rows.jsonl", "--model", "tiny-llama"])
    assert result.exit_code == 2
    assert "leave TEXT and --file away" in result.output


def test_a_command_without_its_model_names_itself(monkeypatch):
    def none_loaded(*_arguments):
        raise WorkbenchError("no-model", "No model is loaded.", "Name one: workbench chat MODEL; in the app ctrl+o.")

    monkeypatch.setattr("workbench.cli.trace.with_session", none_loaded)
    result = CliRunner().invoke(trace, ["--prompt", "hi"])
    assert result.exit_code == 2
    assert "workbench trace MODEL --prompt TEXT" in result.output
