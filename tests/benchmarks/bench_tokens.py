"""Counting a data set beside ``tokenizers.encode_batch``, and a first count beside ``AutoTokenizer``: ratios printed.

    python -m tests.benchmarks.bench_tokens TOKENIZER_DIRECTORY [--megabytes N] [--data FILE] [--rounds N]

Both sides read the same JSONL file in the same process, taking turns, and use all cores; the bare side keeps all
texts in memory and counts nothing but tokens. First counts run in fresh processes. The recount is one keystroke in the
middle of a text of 100 kB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.table import Row, tell
from workbench.tokens.counting import batch_counter
from workbench.tokens.dataset import MeasuredModel, measure_dataset
from workbench.tokens.recount import TextCounter
from workbench.tokens.tokenizer import load_tokenizer

DATASET_AIM, FIRST_COUNT_AIM = 3.0, 5.0
FIRST_COUNT = {
    "ours": "from workbench.tokens.tokenizer import load_tokenizer\n"
    "len(load_tokenizer({path!r}).encode('Hello world'))",
    "AutoTokenizer": "from transformers import AutoTokenizer\n"
    "len(AutoTokenizer.from_pretrained({path!r}, local_files_only=True)('Hello world')['input_ids'])",
}


def write_data(path: Path, megabytes: float) -> None:
    """Source files and documents of the installed packages, in rows of up to 4,000 characters."""
    written = 0
    with path.open("w", encoding="utf-8") as stream:
        for folder in filter(None, map(Path, sys.path)):
            for file in sorted(folder.rglob("*")) if folder.name == "site-packages" else ():
                if file.suffix not in (".py", ".md", ".txt", ".rst") and file.name != "METADATA":
                    continue
                try:
                    text = file.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError):
                    continue
                for start in range(0, len(text), 4000):
                    row = json.dumps({"text": text[start : start + 4000]}, ensure_ascii=False) + "\n"
                    written += stream.write(row)
                    if written > megabytes * 1e6:
                        return


def bare(tokenizer_file: Path, data: Path) -> int:
    """All rows through ``encode_batch``, a thousand at a time."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    with data.open(encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    batches = (texts[start : start + 1000] for start in range(0, len(texts), 1000))
    return sum(len(found.ids) for batch in batches for found in tokenizer.encode_batch(batch, add_special_tokens=False))


def timed(function: object, *arguments: object) -> tuple[float, object]:
    start = time.perf_counter()
    result = function(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start, result


def counting(directory: Path, data: Path, rounds: int) -> None:
    ours, theirs = [], []
    for _ in range(rounds):
        model = MeasuredModel("m", load_tokenizer(str(directory)))
        seconds, measured = timed(measure_dataset, str(data), [model])
        ours.append(seconds)
        seconds, total = timed(bare, directory / "tokenizer.json", data)
        theirs.append(seconds)
        found = measured.models[0]  # type: ignore[attr-defined]
        assert found.total == total, f"{found.total} tokens, the library says {total}"
    megabytes = data.stat().st_size / 1e6
    for name, seconds in ((f"ours ({found.engine})", ours), ("encode_batch", theirs)):
        print(f"{name:24} {megabytes / statistics.median(seconds):7.2f} MB/s")
    rate = [megabytes / statistics.median(seconds) for seconds in (ours, theirs)]
    tell(Row("data set against encode_batch", *rate, "MB/s", DATASET_AIM, more_is_better=True))
    print(f"{'ratio':24} {statistics.median(theirs) / statistics.median(ours):7.2f}")


def first_count(directory: Path, rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in FIRST_COUNT}
    for _ in range(rounds):
        for name, code in FIRST_COUNT.items():
            command = [sys.executable, "-c", code.format(path=str(directory))]
            took, finished = timed(subprocess.run, command)
            if finished.returncode:  # type: ignore[attr-defined]
                print(f"{name} failed")
                return
            seconds[name].append(took)
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "AutoTokenizer"))
    print(f"first count: ours {ours:.2f} s, AutoTokenizer {theirs:.2f} s, ratio {theirs / ours:.1f}")
    tell(Row("first count of a tokenizer.json against AutoTokenizer", ours, theirs, "s", 1 / FIRST_COUNT_AIM))


def recount(directory: Path, data: Path) -> None:
    tokenizer = load_tokenizer(str(directory))
    text = data.read_text(encoding="utf-8")[:100_000]
    counter = TextCounter(tokenizer)
    whole, _ = timed(counter.update, text)
    edits = [timed(counter.update, text[:50_000] + "x" * count + text[50_000:])[0] for count in range(1, 30)]
    print(f"recount of 100 kB: whole {whole * 1000:.1f} ms, after a keystroke {statistics.median(edits) * 1000:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--data", type=Path, help="a JSONL file with the field text")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    build, counter = timed(batch_counter, load_tokenizer(str(options.directory)))
    print(f"engine {counter.name}, built in {build:.2f} s")  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder, "data.jsonl")
        if options.data is None:
            write_data(data, options.megabytes)
        print(f"{data.stat().st_size / 1e6:.1f} MB, {options.rounds} rounds")
        counting(options.directory, data, options.rounds)
        recount(options.directory, data)
    first_count(options.directory, options.rounds)


if __name__ == "__main__":
    main()
