"""The steps of the tour: what each says, and what it really does with the bench it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.widgets import TextArea

from workbench.errors import WorkbenchError
from workbench.session.protocol import LoadModel
from workbench.text import gib
from workbench.ui.bench import Bench
from workbench.ui.benches.architecture import ArchitectureBench
from workbench.ui.benches.architecture_tree import walk
from workbench.ui.benches.chat import ChatBench
from workbench.ui.benches.chat_conversation import STILL_ANSWERING
from workbench.ui.benches.chat_conversation import Draft as Unsent
from workbench.ui.benches.doctor import DoctorBench
from workbench.ui.benches.doctor_report import VERDICTS, counts_of, findings_of
from workbench.ui.benches.tokens import TokensBench
from workbench.ui.benches.vram import VramBench
from workbench.ui.benches.vram_budget import FITS, verdict_of
from workbench.ui.benches.vram_plan import Draft, in_words
from workbench.ui.sample import BUILT_IN
from workbench.vram.plan import Plan, plan_to_dict

if TYPE_CHECKING:
    from workbench.ui.widgets.tour import Tour

SENTENCE = "The tokenizer splits uncommon words like antidisestablishmentarianism, and 12345 too."
QUESTION = "What is the capital of France?"
MOST_TOKENS = 48
PATIENCE_SECONDS = 60.0
STALE_SECONDS = 3.0
LOOK_SECONDS = 0.05
TYPING_SECONDS = 0.02
BILLION = 10**9


@dataclass(frozen=True)
class Step:
    """One stop: the bench it is on, what it says, and what it does there."""

    bench: str
    title: str
    words: str
    act: Callable[[Tour], Awaitable[str]]
    """Does it and returns what came of it, in a line."""


async def _settled(bench: Bench, done: Callable[[], object], what: str) -> None:
    """Wait for a bench to have come so far; its failure is the step's, one from before only if it stays."""
    now, before = asyncio.get_running_loop().time, bench.failure
    began = now()
    while not done():
        if bench.failure is not None and (bench.failure is not before or now() > began + STALE_SECONDS):
            raise bench.failure
        if now() > began + PATIENCE_SECONDS:
            raise WorkbenchError("no-answer", f"{what} takes longer than usual.", "Go on; it will be there later.")
        await asyncio.sleep(LOOK_SECONDS)


async def _begin(tour: Tour) -> str:
    return await tour.choose_model()


async def _doctor(tour: Tour) -> str:
    bench = tour.bench(DoctorBench)
    await _settled(bench, lambda: bench.view.final, "The examination")
    report = bench.view.report
    mark, word, _, _ = VERDICTS.get(str(report.get("verdict")), ("·", "not examined", "", ""))
    return f"{mark} Here: {word}. {counts_of(findings_of(report)) or 'Nothing found wrong'}."


async def _tokens(tour: Tour) -> str:
    bench = tour.bench(TokensBench)
    area = bench.query_one(TextArea)
    if not bench.text:
        tour.wrote(area, SENTENCE)
        for character in SENTENCE:
            area.insert(character)
            await asyncio.sleep(TYPING_SECONDS if tour.workbench.animation_level != "none" else 0)
    await _settled(bench, lambda: bench.token_count is not None, "Counting")
    return f"{bench.token_count:,} tokens for {len(bench.text):,} characters under {bench.selected}."


async def _architecture(tour: Tour) -> str:
    bench = tour.bench(ArchitectureBench)
    # The tree of a loaded model may come first; its count is that of the inspection.
    await _settled(bench, lambda: bench.root is not None and bench.inspection, "Building the model")
    assert bench.root is not None
    attention = next((node for node in walk(bench.root) if "attention" in node.class_name.lower()), bench.root)
    bench.go_to(attention.key)
    total = (bench.inspection.get("parameters") or {}).get("total") or 0
    return f"{total:,} parameters. The cursor is on {attention.key or 'the model'}; m shows its memory in VRAM."


def _job_that_is_too_large(parameters: int) -> Draft:
    """A job that a card of today does not hold, for a model of any size."""
    if parameters > BILLION:
        return Draft(Plan(job="qlora", quant="nf4", batch=16, sequence_length=4096), "RTX 4090")
    tiny = parameters < BILLION // 1000
    return Draft(Plan(job="full", batch=2048 if tiny else 8, sequence_length=512 if tiny else 2048), "RTX 3060")


async def _plan(tour: Tour) -> str:
    bench = tour.bench(VramBench)
    architecture = tour.mounted(ArchitectureBench)
    known = (architecture.inspection.get("parameters") or {}) if architecture is not None else {}
    tour.planned(bench)
    bench.change(_job_that_is_too_large(int(known.get("total") or 0)))
    return await _budget_words(bench)


async def _budget_words(bench: VramBench) -> str:
    """What the estimate of the plan as it stands says of its GPU."""
    wanted = plan_to_dict(bench.draft.plan)
    await _settled(bench, lambda: bench.estimate is not None and bench.estimate.get("plan") == wanted, "The estimate")
    result = bench.estimate or {}
    gpu = result["gpus"][0]
    job = bench.draft.plan.job
    doing = "full fine-tuning" if job == "full" else job
    words, _ = FITS[verdict_of(gpu)]
    needs = (
        f"{gib(result['estimate']['total'], 1)} GiB for {doing}, {gib(gpu['capacity_bytes'], 1)} on an {gpu['name']}"
    )
    return f"{needs}: {words}."


async def _fit(tour: Tour) -> str:
    bench = tour.bench(VramBench)
    before = list(in_words(bench.draft))
    await bench.make_it_fit()  # without the bench's own word, a toast that would lie over the tour's
    told = await _budget_words(bench)
    changed = [line for line in in_words(bench.draft) if line not in before]
    return f"{told} Changed: {', '.join(changed)}." if changed else told


async def _chat(tour: Tour) -> str:
    bench = tour.bench(ChatBench)
    state = tour.workbench.session
    if state.model is None or state.model.name != tour.model:
        with tour.while_loading():
            await tour.workbench.load(LoadModel(tour.model))
    if bench.answering:
        return STILL_ANSWERING
    tour.tell(f"Asking it: {QUESTION}")
    bench.begin_anew()
    request = bench.request(QUESTION, system="", raw=False, remote=None)
    # Greedy, the built-in model says nothing but line breaks.
    sampling = {"greedy": tour.model != BUILT_IN, "seed": 1, "max_new_tokens": MOST_TOKENS}
    answer = bench.answer(replace(request, sampling=sampling), [], Unsent())
    tour.asked = True
    while not answer.is_finished:  # waiting for the worker itself would end the answer with the step
        await asyncio.sleep(LOOK_SECONDS)
    if bench.failure is not None:
        raise bench.failure
    return f"{bench.transcript.turns[-1].foot}. i looks inside an answer, n tells its numbers."


async def _end(tour: Tour) -> str:
    answer = "the answer is kept among the chats" if tour.asked else "Chat was asked nothing"
    return f"{tour.stopped_words}The text and the plan of the tour are taken back when you leave; {answer}."


STEPS: tuple[Step, ...] = (
    Step(
        "doctor",
        "Welcome",
        "Five benches share one model, which lives in a background session: a dropped connection takes nothing with "
        "it. The steps do real things; tab goes into the bench and back.",
        _begin,
    ),
    Step(
        "doctor",
        "Doctor",
        "Does this Python environment really drive this GPU? The verdict stands on top, root causes first, each with "
        "the command that mends it: y copies. p examines a report pasted from another machine.",
        _doctor,
    ),
    Step(
        "tokens",
        "Tokens",
        "What a text costs, counted by the tokenizer's own library as you type, each token below. a adds another "
        "tokenizer beside it, d measures a whole data set.",
        _tokens,
    ),
    Step(
        "architecture",
        "Architecture",
        "Every module with its exact parameters, built from the config without reading a weight. The diagram follows "
        "the cursor; t traces a prompt through the loaded model.",
        _architecture,
    ),
    Step(
        "vram",
        "VRAM: a job that does not fit",
        "What a job takes, category by category, before anything is loaded, held against a GPU you need not have. "
        "The arrow keys change a field, t lists the GPUs.",
        _plan,
    ),
    Step(
        "vram",
        "VRAM: made to fit",
        "f makes the cheapest changes with which it fits, u takes them back. s simulates the step beside the estimate, "
        "l loads the plan for Chat, o writes the training code.",
        _fit,
    ),
    Step(
        "chat",
        "Chat",
        "The model itself. ctrl+l loads it as it is or in 8 or 4 bits; below each answer stands what it took.",
        _chat,
    ),
    Step(
        "chat",
        "That was it",
        "ctrl+o chooses your own model, for every bench. ? lists the keys of a bench, ctrl+p finds every action by "
        "name, and each bench has a command: workbench --help.",
        _end,
    ),
)
