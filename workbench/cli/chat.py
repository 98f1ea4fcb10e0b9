"""``workbench chat``."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, long_dtype, with_session
from workbench.cli.output import print_json, print_text
from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import Event, Generate, Generated, LoadModel, ModelLoaded, TokensGenerated
from workbench.text import sanitize


@dataclass(frozen=True)
class Settings:
    """How to load and how to answer, as given on the command line."""

    load: LoadModel | None
    system: str
    raw: bool
    sampling: dict[str, Any]


@click.command("chat")
@click.argument("model", required=False)
@click.option("--prompt", default=None, metavar="TEXT|-", help="Answer this and end; - reads standard input.")
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@click.option("--quant", type=click.Choice(["none", "nf4", "fp4", "int8"]), default="none", show_default=True)
@click.option("--double-quant/--no-double-quant", default=False, help="Quantize the 4-bit block constants too.")
@click.option("--dtype", default="auto", metavar="auto|fp32|bf16|fp16", show_default=True)
@click.option("--device", default="auto", metavar="auto|cuda|cpu|mps", show_default=True)
@click.option("--temperature", type=float, default=None)
@click.option("--top-p", type=float, default=None)
@click.option("--top-k", type=int, default=None)
@click.option("--min-p", type=float, default=None)
@click.option("--repetition-penalty", type=float, default=None)
@click.option("--max-new-tokens", type=int, default=None)
@click.option("--seed", type=int, default=None, help="The same seed gives the same text.")
@click.option("--greedy", is_flag=True, help="Always the most likely token.")
@click.option("--raw", is_flag=True, help="Complete the prompt as it is, without a chat template.")
@common_options
def command(
    common: Common,
    model: str | None,
    prompt: str | None,
    system: str,
    quant: str,
    double_quant: bool,
    dtype: str,
    device: str,
    raw: bool,
    **sampling: Any,
) -> int:
    """Talk to MODEL; without one, to the model that the session has loaded.

    With --prompt the answer is printed as it streams. Without, each line is a message; ctrl+d ends.
    """
    load = LoadModel(model, quant, double_quant, long_dtype(dtype), device) if model else None
    given = {key: value for key, value in sampling.items() if value not in (None, False)}
    settings = Settings(load, system, raw, given)
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    if prompt is None and common.as_json:
        raise WorkbenchError("bad-option", "--json needs --prompt.", "Give --prompt TEXT, or - for standard input.")

    async def talk(session: SessionClient) -> None:
        if settings.load is not None:
            await ask(session, settings.load, ModelLoaded)
        if prompt is None:
            await _converse(session, settings)
        else:
            reply = await _answer(session, settings, prompt, quiet=common.as_json)
            if common.as_json:
                print_json("chat", reply.result)

    with_session(common, talk)
    return 0


async def _answer(
    session: SessionClient,
    settings: Settings,
    prompt: str,
    conversation_id: str = "",
    save: bool = False,
    quiet: bool = False,
) -> Generated:
    """Print the answer as it streams. Into a pipe it goes as it is, on a terminal made safe to show."""
    to_terminal = sys.stdout.isatty()

    def show(event: Event) -> None:
        if isinstance(event, TokensGenerated) and not quiet:
            print_text(sanitize(event.text) if to_terminal else event.text, end="")

    request = Generate(prompt, conversation_id, settings.system, settings.raw, settings.sampling, save)
    reply = await ask(session, request, Generated, show)
    if not quiet:
        print_text()
    return reply


async def _converse(session: SessionClient, settings: Settings) -> None:
    conversation_id = ""
    while True:
        try:
            line = await asyncio.to_thread(input, "> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip():
            continue
        try:
            reply = await _answer(session, settings, line, conversation_id, save=True)
        except JobCancelled:
            continue
        conversation_id = reply.conversation_id
