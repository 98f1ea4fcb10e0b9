"""Looking into tokenizers: splits explained and compared, vocabularies, languages, chat templates."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

from workbench import paths
from workbench.chat.template import find_template, render_chat
from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.processes import end_group
from workbench.session.handlers.tokens import shown_pieces, tokenizer_of, vocabulary_of
from workbench.session.protocol import (
    AutoTokenizerCompared,
    CheckPrompt,
    CompareAutoTokenizer,
    CompareLanguages,
    CompareSplits,
    ExplainSplit,
    LanguagesCompared,
    PromptChecked,
    Request,
    SearchVocabulary,
    SplitExplained,
    SplitsCompared,
    VocabularySearched,
)
from workbench.session.runtime import Context, Handler, Stage, quick
from workbench.tokens.autotokenizer import AutoTokenizerDifference, IdDifference
from workbench.tokens.compare import compare_pieces
from workbench.tokens.explain import explain_split
from workbench.tokens.languages import premiums
from workbench.tokens.templates import check_prompt
from workbench.tokens.vocabulary import Token, Vocabulary

MAX_COMPARED_CHARACTERS = 20_000
FOUND_LIMIT = 500
COMPARISON_SECONDS = 120.0


def _explain(request: ExplainSplit, context: Context) -> SplitExplained:
    tokenizer = tokenizer_of(context.runtime, request.model, context.job).tokenizer
    return SplitExplained(asdict(explain_split(request.text, tokenizer)))


def _search(request: SearchVocabulary, context: Context) -> VocabularySearched:
    vocabulary = vocabulary_of(tokenizer_of(context.runtime, request.model, context.job).tokenizer, context)
    if request.kind == "script" and not request.query:
        return VocabularySearched([], len(vocabulary), vocabulary.scripts())
    if request.kind == "unreachable":
        unreachable = vocabulary.unreachable(context.job)
        found = [
            {**asdict(item.token), "note": f"{item.reason}; gives {' '.join(item.comes_out_as[:6])}"}
            for item in unreachable[: FOUND_LIMIT + 1]
        ]
    else:
        tokens = _FINDERS.get(request.kind, _by_text)(vocabulary, request.query)
        found = [asdict(token) for token in tokens[: FOUND_LIMIT + 1]]
    return VocabularySearched(found[:FOUND_LIMIT], len(vocabulary), more=len(found) > FOUND_LIMIT)


def _by_text(vocabulary: Vocabulary, query: str) -> list[Token]:
    """The token of this id, those that are exactly this text, then those that contain it."""
    by_id = [token for token in vocabulary.tokens if str(token.id) == query]
    found = [*by_id, *vocabulary.exact(query), *vocabulary.containing(query, FOUND_LIMIT + 1)]
    return list({token.id: token for token in found}.values())


_FINDERS: dict[str, Callable[[Vocabulary, str], list[Token]]] = {
    "text": _by_text,
    "regex": lambda vocabulary, query: vocabulary.matching(query, FOUND_LIMIT + 1),
    "script": lambda vocabulary, query: vocabulary.of_script(query, FOUND_LIMIT + 1),
    "longest": lambda vocabulary, _query: vocabulary.longest(FOUND_LIMIT + 1),
    "special": lambda vocabulary, _query: vocabulary.special(),
    "bytes": lambda vocabulary, _query: vocabulary.byte_tokens(),
}


def _languages(request: CompareLanguages, context: Context) -> LanguagesCompared:
    tokenizers, names, errors = [], [], []
    for model in request.models:
        try:
            tokenizers.append(tokenizer_of(context.runtime, model, context.job).tokenizer)
            names.append(model)
        except WorkbenchError as error:
            errors.append(f"{model}: {error}")
    return LanguagesCompared(asdict(premiums(tokenizers, names, context.job)), errors)


def _compare(request: CompareSplits, context: Context) -> SplitsCompared:
    text = request.text[:MAX_COMPARED_CHARACTERS]
    one, two = (
        tokenizer_of(context.runtime, model, context.job).tokenizer for model in (request.first, request.second)
    )
    firsts, seconds = one.encode_pieces(text), two.encode_pieces(text)
    found = asdict(compare_pieces(text, firsts, seconds, request.first, request.second))
    found["characters"] = len(text)
    differing = [(item["start"], item["end"]) for item in found.pop("stretches") if not item["same"]]
    return SplitsCompared(
        found,
        _with_same(shown_pieces(firsts, text, one, context), differing),
        _with_same(shown_pieces(seconds, text, two, context), differing),
    )


def _with_same(pieces: list[dict[str, Any]], differing: list[tuple[int, int]]) -> list[dict[str, Any]]:
    ends = iter([*differing, (sys.maxsize, sys.maxsize)])
    start, end = next(ends)
    marked = []
    for piece in pieces:
        while piece["start"] >= end:
            start, end = next(ends)
        marked.append({**piece, "same": piece["start"] < start})
    return marked


def _check(request: CheckPrompt, context: Context) -> PromptChecked:
    loaded = tokenizer_of(context.runtime, request.model, context.job)
    template = find_template(loaded.directory) if loaded.directory.is_dir() else None
    if template is None:
        raise WorkbenchError(
            "no-template", f"{request.model} has no chat template.", "It continues plain text; choose a chat model."
        )
    opened = render_chat(request.messages, template, job=context.job)
    rendered = opened
    if not request.generation_prompt:
        rendered = render_chat(request.messages, template, add_generation_prompt=False, job=context.job)
    report = check_prompt(request.messages, rendered, loaded.tokenizer, rendered_with_generation=opened)
    pieces = shown_pieces(loaded.tokenizer.encode_pieces(rendered), rendered, loaded.tokenizer, context)
    return PromptChecked(rendered, pieces, asdict(report), template.source, template.file)


_CHILD = """
import dataclasses, json, sys
sys.path[:0] = json.loads(sys.argv[1])
from workbench.errors import WorkbenchError
from workbench.tokens.autotokenizer import compare_with_autotokenizer
from workbench.tokens.tokenizer import load_tokenizer
try:
    found = dataclasses.asdict(compare_with_autotokenizer(sys.argv[2], load_tokenizer(sys.argv[2])))
except WorkbenchError:
    found = {}
print(json.dumps(found), file=sys.__stdout__)
"""


def _auto(request: CompareAutoTokenizer, context: Context) -> AutoTokenizerCompared:
    directory = tokenizer_of(context.runtime, request.model, context.job).directory
    if not any((directory / name).is_file() for name in ("config.json", "tokenizer_config.json")):
        return AutoTokenizerCompared(False, "", {})
    kept = _kept_comparison(directory)
    try:
        result = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if request.only_known:
            return AutoTokenizerCompared(False, "", {})
        result = _compared_by_child(directory, context.job)
        paths.write_atomic(kept, json.dumps(result).encode())
    if not result or result.get("error"):
        return AutoTokenizerCompared(False, "", result)
    examples = [IdDifference(**example) for example in result["examples"]]
    difference = AutoTokenizerDifference(**{**result, "examples": examples})
    return AutoTokenizerCompared(difference.differs, difference.line, result)


def _kept_comparison(directory: Path) -> Path:
    """Where the outcome for this state of the files and of transformers is kept."""
    import importlib.metadata

    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    states = [str(directory.resolve()), version, sys.prefix]
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        file = directory / name
        states.append(f"{file.stat().st_size} {file.stat().st_mtime_ns}" if file.is_file() else "")
    return paths.cache_dir() / "autotokenizer" / f"{hashlib.sha256(repr(states).encode()).hexdigest()}.json"


def _compared_by_child(directory: Path, job: Job) -> dict[str, Any]:
    command = [sys.executable, "-I", "-c", _CHILD, json.dumps([path for path in sys.path if path]), str(directory)]
    job.progress("import", 0, None, "", "transformers")
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + COMPARISON_SECONDS
    try:
        while True:
            job.check()
            try:
                output, _ = child.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise WorkbenchError(
                        "comparison-timeout",
                        f"AutoTokenizer did not answer within {COMPARISON_SECONDS:.0f} seconds.",
                        "workbench doctor examines the environment.",
                    ) from None
    finally:
        end_group(child)
    try:
        found: dict[str, Any] = json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return found


HANDLERS: dict[type[Request], Handler] = {
    ExplainSplit: quick(_explain),
    SearchVocabulary: quick(_search),
    CompareLanguages: quick(_languages),
    CompareSplits: quick(_compare),
    CheckPrompt: Handler((Stage("children", _check),)),
    CompareAutoTokenizer: Handler((Stage("children", _auto),)),
}
