"""Examples under each command's help: lines that run as they stand, and what each is for."""

from __future__ import annotations

from collections.abc import Sequence

import click

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("workbench", "open the app where it was left"),
        ("workbench --bench vram --model llama-3.1-8b", "plan for a model of the catalogue"),
        ("workbench --python ~/envs/train/bin/python", "work in another environment"),
    ),
    "doctor": (
        ("workbench doctor", "five lines when all is well, else what to type"),
        ("workbench doctor --from report.txt --markdown", "a report that somebody pasted, for an issue"),
        ("pip list | workbench doctor --from -", "from standard input"),
        ("workbench doctor --python ~/envs/train/bin/python --self-test", "prove an environment"),
        ("workbench doctor --compare ~/envs/old/bin/python", "what differs from one that worked"),
    ),
    "tokens": (
        ('workbench tokens "Hello, world" --model tiny-llama --pieces', "where a text is cut"),
        ("git diff | workbench tokens - --model qwen2.5-7b", "standard input; only the tokenizer is fetched"),
        ("workbench tokens --file README.md --model tiny-llama --model tiny-gpt2", "two tokenizers side by side"),
        ("workbench tokens --dataset train.jsonl --model tiny-llama", "lengths, truncation, padding"),
    ),
    "inspect": (
        ("workbench inspect llama-3.1-8b --depth 3", "modules with exact counts"),
        ("workbench inspect llama-3.1-8b --lora r=16,targets=all-linear", "what an adapter trains"),
        ("workbench inspect llama-3.1-8b --set num_hidden_layers=16", "another config"),
        ("workbench inspect llama-3.1-8b --compare llama-3.2-1b", "what differs"),
    ),
    "trace": (
        ('workbench trace smollm2-135m-instruct --prompt "The capital of France is"', "every layer of a run"),
        ('workbench trace tiny-llama --prompt "a b c" --layer 0 --head 1', "one head's attention"),
    ),
    "vram": (
        ('workbench vram llama-3.1-8b --quant nf4 --gpu "RTX 4090" --gpu 16GiB', "will it run here?"),
        ("workbench vram llama-3.1-8b --job qlora --quant nf4 --gpu L4 --solve seq", "the longest sequence"),
        ("workbench vram llama-3.1-8b --job lora --batch 8 --gpu L4 --fit", "what to change so that it fits"),
        ("workbench vram tiny-llama --job full --simulate", "beside a step on tensors without data"),
        ("workbench vram llama-3.1-8b --job qlora --quant nf4 --code --trl", "the training code of the plan"),
    ),
    "chat": (
        ("workbench chat smollm2-135m-instruct --quant nf4", "a conversation, line by line"),
        ('git diff | workbench chat smollm2-135m-instruct --prompt - --system "Summarise this."', "in a script"),
        ("workbench chat smollm2-135m-instruct --compare bf16,int8,nf4", "what quantizing costs"),
        ('workbench chat --url http://127.0.0.1:8000/v1 --prompt "Hi"', "a model behind a server"),
    ),
    "models": (
        ("workbench models", "samples, the Hub cache, the catalogue"),
        ("workbench models get smollm2-135m-instruct", "fetch one"),
    ),
    "models list": (("workbench models list --json", "as JSON, for a script"),),
    "models get": (("workbench models get HuggingFaceTB/SmolLM2-135M-Instruct", "any Hub id"),),
    "models where": (('cd "$(workbench models where smollm2-135m-instruct)"', "go to its folder"),),
    "session": (
        ("workbench session status", "what is loaded, and who is attached"),
        ("workbench session unload", "free the GPU; the session stays"),
    ),
    "session status": (("workbench session status --json", "as JSON, for a script"),),
    "session list": (("workbench session list", "one for each interpreter"),),
    "session start": (("workbench session start --python ~/envs/train/bin/python", "ahead of the first use"),),
    "session stop": (("workbench session stop --force", "one that does not answer"),),
    "session log": (("workbench session log --lines 100", "its last words"),),
    "session unload": (("workbench session unload", "free the GPU; the session stays"),),
    "envs": (("workbench envs", "which environments there are, for --python"),),
    "completion": (
        ('eval "$(workbench completion bash)"', "in ~/.bashrc"),
        ('eval "$(workbench completion zsh)"', "in ~/.zshrc"),
        ("workbench completion fish > ~/.config/fish/completions/workbench.fish", "once"),
    ),
}


def with_examples(command: click.Command, path: Sequence[str] = ()) -> click.Command:
    """Put the examples of a command, and of those below it, under its help."""
    lines = EXAMPLES.get(" ".join(path), ())
    if lines:
        command.epilog = "\n\n".join(["Examples:", *(f"\b\n  {line}\n      {what}" for line, what in lines)])
    for name, below in getattr(command, "commands", {}).items():
        with_examples(below, (*path, name))
    return command
