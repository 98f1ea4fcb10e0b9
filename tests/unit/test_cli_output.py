"""What a file's content may do to a terminal behind a pipe: nothing."""

from __future__ import annotations

from rich.text import Text

from workbench.cli.output import console, print_exact, print_text, table

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
