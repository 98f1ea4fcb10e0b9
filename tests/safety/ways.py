"""Every way in: files, names and variables full of hostile strings, and a terminal to run the program on."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.safety.corpus import ARGUMENT, NAME, STRINGS, TEXT
from workbench.paths import data_dir

ENVIRONMENT = ("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "LD_LIBRARY_PATH", "HF_ENDPOINT", "BNB_CUDA_VERSION")
NVIDIA_SMI = """#!{python}
import sys
hostile = {hostile!r}
print({table!r}.replace("PROCESS", hostile))
"""
SMI_TABLE = """
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
|   0  NVIDIA L4                      Off |   00000000:00:03.0 Off |                    0 |
| N/A   44C    P0             28W /   72W |    4000MiB /  23034MiB |     35%      Default |
+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|    0   N/A  N/A      4242      C   PROCESS                                      4000MiB |
+-----------------------------------------------------------------------------------------+
"""


def byte_level(data: bytes) -> str:
    """Bytes as the characters that stand for them in a byte-level vocabulary (the table of GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return "".join(chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in data)


def hostile_model(folder: Path) -> Path:
    """A model that loads and answers, with hostile words in its name, config, tokenizer, template and tensors."""
    model = folder / NAME
    shutil.copytree(data_dir("sample_models") / "tiny-llama", model)
    config = json.loads((model / "config.json").read_text())
    config["_name_or_path"] = config["transformers_version"] = config[TEXT] = TEXT
    config["architectures"] = ["LlamaForCausalLM", TEXT]
    config["rope_scaling"] = {"rope_type": "default", "hostile": TEXT}
    (model / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    make_tokens_hostile(tokenizer)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = json.dumps(TEXT[:60])[1:-1].join(("{{ '", "' }}")) + settings["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def make_tokens_hostile(tokenizer: dict[str, object]) -> None:
    """Give every token that no other is merged from the text of a hostile string."""
    model = tokenizer["model"]
    assert isinstance(model, dict)
    pairs = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    used = {part for pair in pairs for part in pair}
    leaves = [first + second for first, second in pairs if first + second not in used]
    texts = [text.encode("utf-8", "replace") for text in STRINGS.values()]
    for number, leaf in enumerate(leaves):
        model["vocab"][byte_level(texts[number % len(texts)] + b" %d" % number)] = model["vocab"].pop(leaf)
    model["merges"] = [list(pair) for pair in pairs if "".join(pair) not in set(leaves)]


def bad_models(folder: Path) -> list[Path]:
    """Models that are refused, with words that an error could repeat."""
    broken = []
    for number, change in enumerate(
        ({"model_type": TEXT}, {"hidden_act": TEXT}, {"num_hidden_layers": TEXT}, {"torch_dtype": TEXT})
    ):
        model = folder / f"{number}-{NAME[:100]}"
        shutil.copytree(data_dir("sample_models") / "tiny-llama", model)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **change}))
        broken.append(model)
    no_json = folder / f"text-{NAME[:100]}"
    no_json.mkdir()
    (no_json / "config.json").write_text(TEXT)
    return [*broken, no_json]


def reports(folder: Path) -> list[Path]:
    """Reports of other machines with hostile words in every line that holds a name."""
    smi = SMI_TABLE.replace("PROCESS", TEXT)
    environment = "\n".join(f"{name}={TEXT}" for name in ENVIRONMENT)
    collected = (
        f"Collecting environment information...\nPyTorch version: 2.4.0+cu121\nOS: {TEXT}\nGPU models: GPU 0: {TEXT}\n"
        f"Nvidia driver version: {TEXT}\nCPU:\nModel name: {TEXT}\n{environment}\n[pip3] torch==2.4.0\n"
        f"[pip3] {TEXT}==1\n"
    )
    listed = f"Package Version\n------- -------\ntorch 2.4.0+cu121\nbitsandbytes {TEXT}\n{TEXT} 1.0\n"
    failed = f'Traceback (most recent call last):\n  File "{TEXT}", line 1\nRuntimeError: CUDA error: {TEXT}\n'
    paths = []
    for name, text in (("smi", smi), ("collect", collected), ("pip", listed), ("trace", failed)):
        path = folder / f"{name}-{NAME[:80]}"
        path.write_text(text)
        paths.append(path)
    return paths


def data_set(folder: Path) -> Path:
    """Rows with hostile field names and texts."""
    path = folder / f"{NAME[:100]}.jsonl"
    rows = [{"text": text, TEXT: text} for text in STRINGS.values()]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n" + TEXT + "\n")
    return path


def plan_file(folder: Path) -> Path:
    """A plan for a model and a GPU of hostile names."""
    path = folder / f"{NAME[:100]}.toml"
    name = json.dumps(ARGUMENT.replace("\x7f", ""))
    path.write_text(f'schema = 1\nmodel = {name}\ngpus = [{name}]\n[plan]\njob = "full"\n')
    return path


def hostile_environment(folder: Path) -> dict[str, str]:
    """Variables that reports and errors repeat, and an `nvidia-smi` that names hostile processes."""
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI.format(python=sys.executable, hostile=TEXT, table=SMI_TABLE))
    tool.chmod(0o755)
    return {**dict.fromkeys(ENVIRONMENT, ARGUMENT), "PATH": f"{tool.parent}:{os.environ['PATH']}"}


def on_terminal(*arguments: str, typed: str = "", **environment: str) -> bytes:
    """All that a command writes on a terminal of its own."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
    command = [sys.executable, "-m", "workbench", *arguments]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=variables, start_new_session=True)
    os.close(slave)
    written = b""
    if typed:
        os.write(master, typed.encode())
    try:
        while True:
            written += os.read(master, 65536)
    except OSError:
        process.wait()
    finally:
        os.close(master)
    return written
