"""Rules about models that are not found where a program looks: no such folder, or not with all its files."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import Result, Rule, from_message, seen

_AFFECTS = ("chat", "tokens", "architecture")
_DOCS = "https://huggingface.co/docs/transformers/main_classes/model"
_LOCAL = re.compile(r"[~.]{0,2}[/\\]|[A-Za-z]:[/\\]|\.{1,2}$|~")
_REPOSITORY = re.compile(r"[\w.-]{1,96}(?:/[\w.-]{1,96})?")
# First parts of a relative path, which no owner on the Hub is called.
_FOLDERS = re.compile(
    r"(?:llms?|models?|checkpoints?|ckpts?|weights?|pretrained\w*|output\w*|results?|saves?|saved\w*|data|local\w*|cache|"
    r"pretrain\w*|merged\w*|loras?|adapters?)",
    re.IGNORECASE,
)


def _folder_named(error: ErrorFact) -> Optional[str]:
    """The local folder that a name stands for, as far as its form tells."""
    name = error.values.get("name", "")
    if not re.fullmatch(r"[\w.@+~:/\\ -]{1,200}", name):
        return None
    return name if _LOCAL.match(name) or name.count("/") > 1 or _FOLDERS.fullmatch(name.split("/")[0]) else None


def _model_named(error: ErrorFact) -> str:
    name = error.values.get("name", "")
    return name if _REPOSITORY.fullmatch(name) and not _folder_named(error) else "<owner>/<model>"


def no_such_repository(facts: Facts) -> Result:
    """A name that the Hub does not know, which is often a path."""
    return from_message(facts, ("hf-no-such-repository",), lambda error: _no_repository(facts, error))


def _no_repository(facts: Facts, error: ErrorFact) -> Finding:
    folder = _folder_named(error)
    name = _model_named(error)
    if not folder and "/" in name and not name.startswith("<"):
        return _not_on_the_hub(error, name)
    where = folder or "<the path that the program was given>"
    title = (
        f"The local folder {folder} is most likely not there, and is taken for a name on the Hub"
        if folder
        else "The Hub has no model of this name, or a private one: often a local folder that is not there"
    )
    return _nowhere(
        error,
        title,
        (
            f"{_list(facts, where)}   # a folder with config.json? If not: download the weights into it, or give its "
            "whole path",
            f"hf download <owner>/<model> --local-dir {folder or '<that folder>'}   # <owner>/<model> as it stands on "
            "the Hub's website",
            "hf auth login   # only where the model is there and private",
        ),
    )


_KINDS = {"datasets": "data set", "spaces": "Space"}


def _not_on_the_hub(error: ErrorFact, name: str) -> Finding:
    """A name that the Hub was asked for, and that it does not show to this program."""
    kind = error.values.get("kind", "models")
    page = f"https://huggingface.co/{name if kind == 'models' else f'{kind}/{name}'}"
    return _nowhere(
        error,
        f"The Hub has no {_KINDS.get(kind, 'model')} {name}, or a private one that this program may not see",
        (
            f"Give the name as the Hub has it: {page}   # nothing there? then it is misspelt, was moved or was deleted",
            "A data set: repo_type='dataset' (hf download --repo-type dataset); a folder of this machine: its whole "
            "path, for this one was not found here",
            "hf auth login   # where the page shows it to you only when you are logged in",
        ),
    )


def _nowhere(error: ErrorFact, title: str, fix: tuple[str, ...]) -> Finding:
    return Finding(
        "hf-no-such-repository",
        "error",
        title,
        "A path that does not exist on this machine, seen from the folder in which the program runs, is taken as a "
        "name on the Hub, which answers 401 or 404 for what it does not have and for what may not be seen.",
        seen(error),
        fix,
        _DOCS,
        affects=_AFFECTS,
        observed=True,
    )


def _list(facts: Facts, path: str) -> str:
    command = "dir" if fixes.on_windows(facts) else "ls -la"
    return f'{command} "{path}"' if " " in path and not path.startswith("<") else f"{command} {path}"


_WEIGHTS = re.compile(r"pytorch_model\.bin|model\.safetensors")


def files_missing(facts: Facts) -> Result:
    """A folder or repository without the files that are looked for."""
    return from_message(facts, ("model-files-missing",), lambda error: _files_missing(facts, error))


def _files_missing(facts: Facts, error: ErrorFact) -> Finding:
    folder, model = _folder_named(error), _model_named(error)
    what = "tokenizer" if "tokenizer" in error.text else error.values.get("file", "")
    cached = _CACHED.search(folder or "")
    if cached:
        return _cached_without_file(error, f"{cached['owner']}/{cached['name']}", what)
    if folder:
        title = f"The folder {folder} is not there, or lacks files" + (f": {what}" if what else "")
        why = (
            "A model's folder holds config.json, the weights, and the tokenizer's files (tokenizer.json or "
            "tokenizer.model, tokenizer_config.json); what was trained or converted there is often saved without them."
        )
        steps = _of_folder(facts, folder)
    elif _WEIGHTS.match(error.values.get("file", "")) and facts.error("adapter-told"):
        title = f"{model} holds an adapter (LoRA) without the model that it belongs to, and nothing here reads it"
        why = (
            "transformers takes an adapter's repository for a whole model only where peft is installed: it then loads "
            "the base model that adapter_config.json names, and the adapter onto it."
        )
        steps = (fixes.install(facts, "peft", upgrade=True), *_of_repository(model))
    elif "Can't load" in error.text:
        title = f"{model} is neither in the cache nor fetched from the Hub, or a folder of that name hides it"
        why = "The message comes for any failure of the download too: no network, a proxy, a mirror that is not set."
        steps = _of_network(facts, model)
    else:
        title = "The model's folder or repository has not the files that are looked for"
        why = (
            "A misspelt name, a private repository without a token, a repository with GGUF or adapter files only, or a "
            "local folder that shadows the name."
        )
        steps = _of_repository(model)
    return Finding(
        "model-files-missing", "error", title, why, seen(error), steps, _DOCS, affects=_AFFECTS, observed=True
    )


# Where the Hub's library keeps a repository.
_CACHED = re.compile(r"models--(?P<owner>[\w.-]{1,96}?)--(?P<name>[\w.-]{1,96})[/\\]snapshots[/\\]")


def _cached_without_file(error: ErrorFact, model: str, what: str) -> Finding:
    return Finding(
        "model-files-missing",
        "error",
        f"The copy of {model} in the Hub's cache lacks {what or 'files that are looked for'}",
        "A program may fetch some kinds of files alone, and a download may have broken off; or the repository itself "
        "has not the file: copies and conversions often leave the tokenizer or a model's own code out.",
        seen(error),
        (
            f"hf download {model}   # fetches all that the repository has, into the same cache",
            f"not among them? https://huggingface.co/{model}/tree/main shows what there is: take the file from the "
            "model that this one was made from, or a copy of somebody else's that has it",
        ),
        _DOCS,
        affects=_AFFECTS,
        observed=True,
    )


# Folders that a training or a conversion has written.
_WRITTEN = re.compile(r"out|convert|checkpoint|ckpt|merge|lora|adapter|save|tun|sft|result|train", re.IGNORECASE)


def _of_folder(facts: Facts, folder: str) -> tuple[str, ...]:
    steps = (
        f"hf download <owner>/<model> --local-dir {folder if ' ' not in folder else '<that folder>'}   # fetches what "
        "is missing; the weights that are there stay",
        f"{_list(facts, folder)}   # what is there? compare with the model's files on the Hub's website",
    )
    copied = (
        "what was trained or converted there: copy the tokenizer's files from the base model: tokenizer*, "
        "special_tokens*, vocab*, merges.txt"
    )
    return (
        *((copied, *steps) if _WRITTEN.search(folder) else (*steps, copied)),
        *(
            (f"or give the folder below: {folder}/snapshots/<its hash>",)
            if re.search(r"models--[\w.-]+$", folder)
            else ()
        ),
    )


def _of_network(facts: Facts, model: str) -> tuple[str, ...]:
    blocked = "where huggingface.co is not reached: this mirror, before Python starts; or HTTPS_PROXY"
    return (
        fixes.export(facts, "HF_ENDPOINT", "https://hf-mirror.com", blocked),
        f"{_list(facts, model)}   # a folder of that name beside the program comes before the Hub: rename it",
        f"or fetch it by hand: hf download {model} --local-dir <folder>, and give the program that folder's whole path",
    )


def _of_repository(model: str) -> tuple[str, ...]:
    page = model if not model.startswith("<") else "<name>"
    return (
        f"Look at the repository's list of files: https://huggingface.co/{page}/tree/main",
        "hf auth login   # for a private or gated one",
        "For an adapter load its base model first; for GGUF give gguf_file=..., or use llama.cpp.",
    )


RULES: tuple[Rule, ...] = (no_such_repository, files_missing)
