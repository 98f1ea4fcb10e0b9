"""``workbench chat``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import click

from workbench.chat.options import SamplingOptions
from workbench.cli.chat_compare import compare as compare_variants
from workbench.cli.chat_compare import read_text
from workbench.cli.common import (
    DTYPES,
    INTERRUPTED,
    Common,
    ask,
    common_options,
    decode_utf8,
    long_dtype,
    model_name,
    with_session,
)
from workbench.cli.output import print_exact, print_json, print_text
from workbench.cli.shell import complete_model
from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import (
    AnswerStarted,
    CompareVariants,
    Event,
    FindServers,
    Generate,
    Generated,
    LoadModel,
    RemoteModel,
    ServersFound,
    TokensGenerated,
)
from workbench.text import one_line

DEFAULT_COMPARE_TOKENS = 128
NOT_GIVEN: tuple[Any, ...] = (None, ())
FOR_COMPARE = ("max_new_tokens", "greedy")
"""Sampling options that mean something to ``--compare``, or say what it does in any case."""
FIND = "auto"
"""As --url: the server that is found on this box."""


@dataclass(frozen=True)
class Settings:
    """How to load and how to answer, as given on the command line."""

    load: LoadModel | None
    system: str
    raw: bool
    sampling: dict[str, Any]
    remote: RemoteModel | None = None


def _model_name(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """A model of this box by any of its names; with --url, as the server names it."""
    return value if context.params.get("url") else model_name(context, parameter, value)


def _told(name: str, help: str) -> str:
    """An option's help with what it is where neither the user nor the model's own generation config says."""
    return f"{help}  [default: {getattr(SamplingOptions(), name):g}]"


@click.command("chat")
@click.argument("model", required=False, callback=_model_name, shell_complete=complete_model)
@click.option("--prompt", default=None, metavar="TEXT|-", help="Answer this and end; - reads standard input.")
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@click.option("--quant", type=click.Choice(["none", "nf4", "fp4", "int8"]), default="none", show_default=True)
@click.option("--double-quant/--no-double-quant", default=False, help="Quantize the 4-bit block constants too.")
@click.option("--dtype", type=DTYPES, default="auto", metavar="auto|fp32|bf16|fp16", show_default=True)
@click.option("--device", default="auto", metavar="auto|cuda|cuda:N|cpu|mps", show_default=True)
@click.option("--temperature", type=float, default=None, help=_told("temperature", "0 is greedy."))
@click.option(
    "--top-p", type=float, default=None, help=_told("top_p", "Keep the most probable tokens that add up to this.")
)
@click.option("--top-k", type=int, default=None, help=_told("top_k", "0 keeps all."))
@click.option(
    "--min-p", type=float, default=None, help=_told("min_p", "Drop tokens below this share of the most probable.")
)
@click.option(
    "--repetition-penalty",
    type=float,
    default=None,
    help=_told("repetition_penalty", "Above 1: less of what was said."),
)
@click.option(
    "--no-repeat-ngram-size",
    type=int,
    default=None,
    metavar="N",
    help=_told("no_repeat_ngram_size", "Never repeat a run of N tokens; 0 allows it."),
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this; repeatable.")
@click.option(
    "--max-new-tokens", type=int, default=None, help=_told("max_new_tokens", "End the answer after this many.")
)
@click.option("--seed", type=int, default=None, help="The same seed gives the same text.  [default: drawn anew]")
@click.option("--greedy", is_flag=True, default=None, help="Always the most likely token.")
@click.option(
    "--prompt-lookup",
    type=int,
    default=None,
    metavar="N",
    help=_told("prompt_lookup", "Guess up to N tokens at once from what was said; 0 is off."),
)
@click.option("--raw", is_flag=True, help="Complete the prompt as it is, without a chat template.")
@click.option(
    "--url", default="", is_eager=True, metavar="URL|auto", help="Talk to an OpenAI-compatible server; auto finds one."
)
@click.option("--api-key-env", default="", metavar="NAME", help="The environment variable that holds the server's key.")
@click.option(
    "--compare",
    default="",
    metavar="bf16,int8,nf4",
    help="Measure what quantizing costs, against the first of fp32, bf16, fp16, int8, nf4, nf4-dq, fp4, fp4-dq.",
)
@click.option("--text", "text_file", default="", metavar="FILE", help="What --compare reads; else the built-in text.")
@click.option("--layers", is_flag=True, help="With --compare: the error of each quantized weight.")
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
    url: str,
    api_key_env: str,
    compare: str,
    text_file: str,
    layers: bool,
    **sampling: Any,
) -> int:
    """Talk to MODEL; without one, to the model that the session has loaded, or with --url to a server's.

    With --prompt the answer is printed as it streams and nothing is kept. Without, each line is a message of a
    conversation that is kept; ctrl+c stops an answer, ctrl+d ends.

    A sampling option that is not given is what the model's own generation config says, else the default told below;
    a server takes its own.
    """
    if double_quant and quant not in ("nf4", "fp4"):
        raise click.UsageError(f"--double-quant goes with --quant nf4 or fp4, not {quant}.")
    remote = _remote(url, model or "", api_key_env) if url or api_key_env else None
    if remote is not None and (quant != "none" or dtype != "auto" or device != "auto" or compare):
        raise click.UsageError("--quant, --dtype, --device and --compare go with a model of this box, not with --url.")
    if compare:
        _refuse_beside_compare(model, quant, dtype, system, raw, sampling)
        text = read_text(text_file) if text_file else ""
        variants = [name.strip() for name in compare.split(",") if name.strip()]
        most = sampling["max_new_tokens"] or DEFAULT_COMPARE_TOKENS
        asked = _standard_input() if prompt == "-" else prompt or ""
        return compare_variants(
            common, CompareVariants(str(model), variants, text, asked, most, layers=layers, device=device)
        )
    if text_file or layers:
        raise click.UsageError("--text and --layers go with --compare.")
    loads = model and remote is None
    load = LoadModel(str(model), quant, double_quant, long_dtype(dtype), device) if loads else None
    given = {key: value for key, value in sampling.items() if value not in NOT_GIVEN}
    settings = Settings(load, system, raw, given, remote)
    if prompt is None and common.as_json:
        raise click.UsageError("--json needs --prompt TEXT, or --prompt - for standard input.")
    if prompt is None:
        with_session(common, lambda session: _converse(session, settings))
        return 0
    if prompt == "-":
        prompt = _standard_input()
    if not prompt:
        raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
    for name, words in (("--prompt", prompt), ("--system", system)):
        try:
            words.encode()
        except UnicodeEncodeError as error:
            text = f"{name} is no UTF-8 from its character {error.start + 1:,} on."
            raise WorkbenchError("bad-prompt", text, "Convert it first, such as with iconv.") from None
    text = prompt
    reply = with_session(common, lambda session: _answer_once(session, settings, text, common.as_json))
    if common.as_json:
        print_json("chat", reply.result)
    return INTERRUPTED if reply.result["finish_reason"] == "cancelled" else 0


def _refuse_beside_compare(
    model: str | None, quant: str, dtype: str, system: str, raw: bool, sampling: dict[str, Any]
) -> None:
    """``--compare`` answers greedily, in the variants named: what would change neither is refused, not passed over."""
    if not model:
        raise click.UsageError("--compare needs a MODEL.")
    given = {"quant": quant != "none", "dtype": dtype != "auto", "system": bool(system), "raw": raw}
    given |= {name: value not in NOT_GIVEN for name, value in sampling.items()}
    wrong = [f"--{name.replace('_', '-')}" for name, is_given in given.items() if is_given and name not in FOR_COMPARE]
    if wrong:
        raise click.UsageError(
            f"{', '.join(wrong)} cannot go with --compare: it loads the variants that it names, and they answer "
            "--prompt greedily."
        )


def _standard_input() -> str:
    return decode_utf8(sys.stdin.buffer.read(), "standard input")


def _remote(url: str, model: str, api_key_env: str) -> RemoteModel:
    if not url:
        raise click.UsageError("--api-key-env goes with --url URL.")
    if url == FIND and api_key_env:
        raise click.UsageError("A key goes to one server: give its address instead of --url auto.")
    key = os.environ.get(api_key_env, "") if api_key_env else ""
    if api_key_env and not key.strip():
        raise click.UsageError(f"The environment variable {one_line(api_key_env, 60)} is not set or empty.")
    return RemoteModel(url, model, key)


async def _find(session: SessionClient, settings: Settings) -> Settings:
    """With ``--url auto``, the settings with the first server of this box that answers without a key."""
    if settings.remote is None or settings.remote.url != FIND:
        return settings
    found = (await ask(session, FindServers(), ServersFound)).servers
    usable = [server for server in found if not server["note"]]
    if not usable:
        raise WorkbenchError(
            "no-server",
            "No OpenAI-compatible server was found on this box.",
            "Start one, or give its address: --url http://HOST:PORT/v1",
        )
    print(f"workbench: {one_line(usable[0]['title'])} at {one_line(usable[0]['url'])}", file=sys.stderr)
    return replace(settings, remote=replace(settings.remote, url=str(usable[0]["url"])))


async def _answer_once(session: SessionClient, settings: Settings, prompt: str, quiet: bool) -> Generated:
    return await _answer(session, await _find(session, settings), prompt, quiet=quiet)


async def _answer(
    session: SessionClient,
    settings: Settings,
    prompt: str,
    conversation_id: str = "",
    save: bool = False,
    quiet: bool = False,
) -> Generated:
    """Print the answer as it streams."""

    def show(event: Event) -> None:
        if isinstance(event, TokensGenerated) and not quiet:
            print_exact(event.text, end="")
        elif isinstance(event, AnswerStarted) and event.note:
            print(f"workbench: {one_line(event.note)}", file=sys.stderr)

    request = Generate(
        prompt,
        conversation_id,
        settings.system,
        settings.raw,
        settings.sampling,
        save,
        load=settings.load,
        remote=settings.remote,
    )
    reply = await ask(session, request, Generated, show, printed=None if quiet else TokensGenerated)
    if not quiet:
        print_text()
        notes = [_cut(reply.result, settings), str(reply.result["note"]) if settings.remote is not None else ""]
        for note in filter(None, notes):
            print(f"workbench: {one_line(note)}", file=sys.stderr)
    return reply


def _cut(result: dict[str, Any], settings: Settings) -> str:
    """What ended an answer that the model did not end, but for a limit that was asked for."""
    if not result["text"]:
        return "the answer is empty"
    if result["stopped_by"] == "context":
        return "the answer was cut at the end of the context"
    if result["finish_reason"] == "length" and "max_new_tokens" not in settings.sampling:
        return f"the answer was cut at {result['new_tokens']:,} tokens; --max-new-tokens N lets it be longer"
    return ""


async def _converse(session: SessionClient, settings: Settings) -> None:
    conversation_id = ""
    settings = await _find(session, settings)
    async for line in _lines("> " if sys.stdin.isatty() else ""):
        if not line.strip():
            continue
        with contextlib.suppress(JobCancelled):
            reply = await _answer(session, settings, line, conversation_id, save=True)
            conversation_id = reply.conversation_id


async def _lines(prompt: str) -> AsyncIterator[str]:
    """Lines of standard input. Read in a daemon thread, so that ctrl+c at the prompt ends the program at once."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    wanted = threading.Semaphore(0)

    def read() -> None:
        while wanted.acquire():
            line = sys.stdin.buffer.readline()
            loop.call_soon_threadsafe(queue.put_nowait, line)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while True:
        print_exact(prompt, end="")
        wanted.release()
        line = await queue.get()
        if not line:
            return
        yield decode_utf8(line, "standard input").rstrip("\n")
