"""Fixes of Doctor, carried out: environments with one package of another time, and what the first fix makes of them.

    python -m tests.benchmarks.validate_fixes [--first 0] [--count 10] [--torch torch==2.13.0] [--find-links FOLDER]

Each case takes what a task asks for as the index had it at some day, moves one package to another day (up, down, or
out), and runs the task. Where that fails, Doctor reads what was printed, in half of the cases with ``pip list`` below
it, and the commands of its first finding's fix are run in order, without those that are named as another way, until the
task runs or they end. A case counts only where the task runs without the move. The numbers of the cases are seeds: the
same number is the same case as long as the index stays as it is.

Needs uv on the path, the network, and about a minute and some hundred MiB of uv's cache for each case.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

TASKS = {
    "adapter": (
        ("transformers", "accelerate", "peft"),
        """\
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainingArguments, default_data_collator
from peft import LoraConfig, get_peft_model
config = LlamaConfig(vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
model = get_peft_model(
    AutoModelForCausalLM.from_config(config),
    LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
row = {"input_ids": torch.arange(8), "attention_mask": torch.ones(8, dtype=torch.long), "labels": torch.arange(8)}
arguments = TrainingArguments(output_dir="out", max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True)
Trainer(model=model, args=arguments, train_dataset=[row] * 4, data_collator=default_data_collator).train()
""",
    ),
    "trainers": (
        ("transformers", "accelerate", "peft", "trl", "datasets"),
        """\
from datasets import Dataset
from peft import LoraConfig, prepare_model_for_kbit_training
from trl import DPOTrainer, SFTTrainer
Dataset.from_dict({"text": ["a b c"] * 4}).map(lambda row: {"n": len(row["text"])}).save_to_disk("data")
""",
    ),
    "pictures": (
        ("diffusers", "transformers", "accelerate"),
        "from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel\n",
    ),
    "sentences": (
        ("sentence-transformers", "datasets"),
        "from datasets import load_dataset\nfrom sentence_transformers import SentenceTransformer\n",
    ),
    "text": (
        ("transformers", "accelerate"),
        """\
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, pipeline
config = LlamaConfig(vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
LlamaForCausalLM(config).save_pretrained("model")
AutoModelForCausalLM.from_pretrained("model", device_map="cpu", low_cpu_mem_usage=True)
""",
    ),
}
BESIDE = (
    *("accelerate", "datasets", "fsspec", "huggingface-hub", "jinja2", "numpy", "packaging", "pandas", "peft"),
    *("pyarrow", "regex", "requests", "safetensors", "scikit-learn", "scipy", "tokenizers", "transformers", "trl"),
    *("typing-extensions", "urllib3"),
)
OLDEST, NEWEST = datetime.date(2023, 9, 1), datetime.date.today()
OF_TORCH = re.compile(r"(?:torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
PIP = re.compile(r"(?:or: )?(?:python -m )?(?:uv )?pip3? (?P<verb>install|uninstall) (?P<words>.*)")


@dataclass(frozen=True)
class Place:
    """Where a case is built, and with which torch."""

    folder: Path
    torch: str
    find_links: tuple[str, ...]

    @property
    def python(self) -> str:
        return str(self.folder / "venv/bin/python")

    def uv(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``uv pip`` on this environment."""
        target = () if words[0] == "compile" else ("--python", self.python)
        return subprocess.run(("uv", "pip", *words, "-q", *target), text=True, capture_output=True, cwd=self.folder)

    def install(self, *words: str, day: str = "") -> bool:
        """Install as a person would, with the torch that is there."""
        (self.folder / "torch.txt").write_text(self.torch + "\n")
        until = ("--exclude-newer", day, "--exclude-newer-package", "torch=false") if day else ()
        return self.uv("install", "-c", "torch.txt", *self.find_links, *until, *words).returncode == 0

    def run(self, program: str) -> tuple[bool, str]:
        """Whether a program ends well, and what it printed."""
        (self.folder / "train.py").write_text(program)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            (self.python, "train.py"),
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        return done.returncode == 0, done.stdout


def resolved(place: Place, names: tuple[str, ...], day: str) -> list[str]:
    """The releases that pip would have taken on a day, without torch and what comes with it."""
    (place.folder / "wanted.in").write_text("\n".join(names) + "\n")
    told = place.uv("compile", "--exclude-newer", day, "wanted.in").stdout
    pins = [line.split(" ")[0] for line in told.splitlines() if re.match(r"[a-z]", line)]
    return [pin for pin in pins if not OF_TORCH.match(pin)]


def build(place: Place, pins: list[str]) -> bool:
    """A new environment of these releases, with torch and what it asks for."""
    shutil.rmtree(place.folder / "venv", ignore_errors=True)
    subprocess.run(("uv", "venv", "-q", "--python", sys.executable, "venv"), cwd=place.folder, check=True)
    tools = () if any(pin.startswith("setuptools==") for pin in pins) else ("setuptools<80",)
    return place.install("--no-deps", *pins, place.torch, "pip", *tools) and place.install(place.torch)


def move(place: Place, pins: list[str], draw: random.Random, day: datetime.date) -> str:
    """Take one package to another time, or out; the command as a person would have given it."""
    here = [pin.split("==")[0] for pin in pins]
    name = draw.choice([package for package in BESIDE if package in here])
    kind = draw.choice(("up", "down", "down", "down", "alone", "out"))
    if kind == "out":
        place.uv("uninstall", name)
        return f"pip uninstall {name}"
    if kind == "down":
        earlier = day - datetime.timedelta(draw.randrange(200, 900))
        old = next((pin for pin in resolved(place, (name,), str(earlier)) if pin.startswith(f"{name}==")), "")
        place.install(old)
        return f"pip install {old}"
    later = str(day + datetime.timedelta(draw.randrange(1, max(2, (NEWEST - day).days))))
    options = ("--no-deps",) if kind == "alone" else ()
    place.install("--upgrade-package", name, *options, name, day=later)
    return f"pip install -U {' '.join((*options, name))}, on {later}"


def carried_out(place: Place, finding: Finding, program: str) -> bool:
    """Whether the commands of a fix make the program run."""
    for number, step in enumerate(finding.fix):
        found = PIP.match(step.split("   # ")[0])
        if found is None or (number and step.startswith("or")):
            continue
        words = [word for word in shlex.split(found["words"]) if word not in ("-y", "-U", "--force-reinstall")]
        names = [re.split(r"[<>=!~\[ ]", word)[0] for word in words if not word.startswith("-")]
        flag = {"-U": "--upgrade-package", "--force-reinstall": "--reinstall-package"}
        extra = [part for word in flag if word in found["words"] for name in names for part in (flag[word], name)]
        if found["verb"] == "uninstall":
            place.uv("uninstall", *names)
        else:
            place.install(*extra, *words)
        if place.run(program)[0]:
            return True
    return False


def case(number: int, place: Place) -> bool | None:
    """Build, break and mend one environment; None where the move broke nothing, or the task never ran."""
    draw = random.Random(number)
    wanted, program = TASKS[draw.choice(sorted(TASKS))]
    day = OLDEST + datetime.timedelta(draw.randrange((NEWEST - OLDEST).days))
    pins = resolved(place, wanted, str(day))
    if not pins or not build(place, pins):
        return None
    moved = move(place, pins, draw, day)
    runs, printed = place.run(program)
    if runs:
        return None
    listed = subprocess.run((place.python, "-m", "pip", "list"), text=True, capture_output=True).stdout
    report = f"$ python train.py\n{printed}" + (f"\n$ pip list\n{listed}" if draw.random() < 0.5 else "")
    findings = diagnose(parse_report(report.replace(str(place.folder), "/home/user"))).findings
    mended = bool(findings) and carried_out(place, findings[0], program)
    if not mended and not (build(place, pins) and place.run(program)[0]):
        return None
    title = findings[0].title if findings else "nothing found"
    print(f"{number:4} {'mended' if mended else 'not mended'}: {day}, {moved}: {title}", flush=True)
    return mended


def main() -> None:
    """Run the cases, and tell how many of those that broke were mended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--torch", default="torch==2.13.0")
    parser.add_argument("--find-links", default="")
    asked = parser.parse_args()
    links = ("--find-links", asked.find_links) if asked.find_links else ()
    results = []
    for number in range(asked.first, asked.first + asked.count):
        with tempfile.TemporaryDirectory() as folder:
            results.append(case(number, Place(Path(folder), asked.torch, links)))
    broken = [result for result in results if result is not None]
    print(f"{len(broken)} of {len(results)} environments were broken by the move; the first fix mended {sum(broken)}")


if __name__ == "__main__":
    main()
