"""Text that a vocabulary lacks is told apart from text that is cheap, and dropout does not roll dice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.tokens.count import count_text
from workbench.tokens.dataset import MeasuredModel, measure_dataset
from workbench.tokens.languages import premiums
from workbench.tokens.recount import TextCounter
from workbench.tokens.tokenizer import load_tokenizer
from workbench.ui.benches.tokens_league import league_rows
from workbench.ui.screens.token_languages import heat_rows

tokenizers = pytest.importorskip("tokenizers")
SAMPLES = Path(__file__).parents[2] / "sample_models"


def sample(name):
    return load_tokenizer(str(SAMPLES / name))


@pytest.fixture(scope="module")
def unknown_only(tmp_path_factory):
    """A WordLevel tokenizer that knows one word."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    file = tmp_path_factory.mktemp("unknown") / "tokenizer.json"
    made.save(str(file))
    return load_tokenizer(str(file))


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """A BPE of letters that has no unknown token: it leaves out what it does not know."""
    vocab = {letter: index for index, letter in enumerate("abcdefgh")}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    file = tmp_path_factory.mktemp("dropping") / "tokenizer.json"
    made.save(str(file))
    return load_tokenizer(str(file))


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-mixtral", "tiny-gemma3"])
def test_tokenizers_of_bytes_lose_nothing(name):
    count = count_text("Grüße, 日本 🙂 \U000f1e57\x00", sample(name))
    assert (count.unknown_tokens, count.lost_characters) == (0, 0)


@pytest.mark.parametrize(
    ("name", "text", "unknown", "lost"),
    [("tiny-t5", "hi 日本 there", 1, 2), ("tiny-bert", "hi 日本 there [UNK]", 2, 2), ("tiny-bert", "hi", 0, 0)],
)
def test_unknown_tokens_are_counted_with_what_they_hide(name, text, unknown, lost):
    count = count_text(text, sample(name))
    assert (count.unknown_tokens, count.lost_characters) == (unknown, lost)
    assert TextCounter(sample(name)).update(text).lost_characters == lost
    long = TextCounter(sample(name)).update(f"{text} " * 300)
    assert (long.unknown_tokens, long.lost_characters) == (300 * unknown, 300 * lost)


def test_what_gives_no_token_at_all_is_lost_too(dropping):
    count = count_text("abc XYZ", dropping)
    assert (count.tokens, count.unknown_tokens, count.lost_characters) == (3, 0, 3)


def test_a_lossy_count_is_neither_best_nor_fair(unknown_only):
    text = "Something else entirely: twenty-one other words"
    results = []
    for model, tokenizer in (("lossy", unknown_only), ("gpt2", sample("tiny-gpt2"))):
        results.append({**vars(count_text(text, tokenizer)), "model": model})
    rows = [row.content(120).plain for row in league_rows(results, {})]
    assert results[0]["tokens"] < results[1]["tokens"]
    assert "lossy" in rows[1].split()[2:]
    assert "best" in rows[2]
    table = premiums([unknown_only, sample("tiny-gpt2")], ["lossy", "gpt2"])
    assert table.rows[0].mean_premium is None
    assert table.rows[1].mean_premium > 1
    from dataclasses import asdict

    shown = "\n".join(row.content(100).plain for row in heat_rows(asdict(table)))
    assert "lost 100%" in shown
    assert "loses text" in shown


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-t5", "tiny-bert", "tiny-mixtral"])
def test_a_long_text_in_parts_has_the_ids_of_the_whole(name):
    text = "It was, as they say, 12345 times ünlike 日本.\n" * 4000
    counted = count_text(text, sample(name), ids=True)
    assert counted.ids == sample(name).encode(text)


def test_a_data_set_tells_of_lost_characters(tmp_path, unknown_only):
    (tmp_path / "rows.txt").write_text("hello you\nhello\n" * 50)
    models = [MeasuredModel("lossy", unknown_only), MeasuredModel("gpt2", sample("tiny-gpt2"))]
    lossy, whole = measure_dataset(str(tmp_path / "rows.txt"), models).models
    assert lossy.lost_share == pytest.approx(3 / 13)
    assert whole.lost_share == 0


def test_dropout_is_said_and_left_out(tmp_path):
    content = json.loads((SAMPLES / "tiny-gpt2" / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.5
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    tokenizer = load_tokenizer(str(file))
    text = "the quick brown fox jumps over everything " * 5
    assert tokenizer.encode(text) == tokenizer.encode(text) == sample("tiny-gpt2").encode(text)
    assert tokenizer.encode(text, parse_special=False) == tokenizer.encode(text)
    assert "dropout 0.5" in tokenizer.note
    (tmp_path / "rows.txt").write_text(text)
    assert tokenizer.note in measure_dataset(str(tmp_path / "rows.txt"), [MeasuredModel("m", tokenizer)]).notes
