"""Embedding tables: what is read in pieces is what numpy gives on the whole."""

from __future__ import annotations

import dataclasses
import json

import pytest

from workbench.architecture import embeddings
from workbench.architecture.embeddings import Words, compare_tokens, embedding_norms, map_words, nearest_tokens
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models.load import LoadOptions, load_model, unload
from workbench.paths import data_dir
from workbench.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.model


def load_tiny(name: str, quant: str = "none"):
    directory = data_dir("sample_models") / f"tiny-{name}"
    return load_model(directory, LoadOptions(quant, dtype="float32", device="cpu")), words_of(directory)


def words_of(directory) -> Words:
    tokenizer = load_tokenizer(str(directory))
    return Words(tokenizer.encode, lambda token: tokenizer.decode([token]), tokenizer.vocab_size)


@pytest.fixture
def pieces(monkeypatch):
    """Tables are read in pieces of seven rows or so."""
    monkeypatch.setattr(embeddings, "_CHUNK_ELEMENTS", 64 * 7)


@pytest.fixture(scope="module")
def llama():
    loaded, words = load_tiny("llama")
    yield loaded, words, loaded.model.get_input_embeddings().weight.detach().double().numpy()
    unload(loaded)


@pytest.mark.parametrize("measure", ["cosine", "dot"])
@pytest.mark.parametrize("table", ["input", "output"])
def test_neighbours_are_those_of_the_whole_table(llama, pieces, measure, table):
    import numpy

    loaded, words, _ = llama
    module = loaded.model.get_input_embeddings() if table == "input" else loaded.model.get_output_embeddings()
    weights = module.weight.detach().double().numpy()
    found = nearest_tokens(loaded, words, token=100, table=table, measure=measure, count=9)
    scores = weights @ weights[100]
    norms = numpy.linalg.norm(weights, axis=-1)
    if measure == "cosine":
        scores = scores / numpy.maximum(norms, 1e-9) / norms[100]  # the padding token is all zeros
    scores[100] = -numpy.inf
    order = numpy.argsort(-scores)[:9]
    assert [neighbour.id for neighbour in found.neighbours] == order.tolist()
    assert [neighbour.score for neighbour in found.neighbours] == pytest.approx(scores[order].tolist(), rel=1e-5)
    assert [neighbour.norm for neighbour in found.neighbours] == pytest.approx(norms[order].tolist(), rel=1e-5)
    assert found.query.norm == pytest.approx(norms[100], rel=1e-6)
    assert found.facts.rows, found.facts.width == weights.shape
    assert found.facts.tied == (loaded.model.config.tie_word_embeddings is True)


def test_a_text_of_several_tokens_is_their_mean(llama, pieces):
    import numpy

    loaded, words, weights = llama
    ids = words.encode("The harbour")
    assert len(ids) > 1
    found = nearest_tokens(loaded, words, "The harbour", count=3)
    assert found.query.ids == tuple(ids)
    assert found.query.norm == pytest.approx(float(numpy.linalg.norm(weights[ids].mean(0))), rel=1e-6)
    assert "".join(found.query.tokens) == "The harbour"


def test_similarities_and_their_background(llama):
    import numpy

    loaded, words, weights = llama
    texts = ["the", " the", "harbour", "the"]
    found = compare_tokens(loaded, words, texts)
    vectors = numpy.stack([weights[words.encode(text)].mean(0) for text in texts])
    unit = vectors / numpy.linalg.norm(vectors, axis=-1, keepdims=True)
    assert numpy.allclose(numpy.array(found.cosine), unit @ unit.T, atol=1e-6)
    assert [word.text for word in found.words] == texts
    whole = weights / numpy.maximum(numpy.linalg.norm(weights, axis=-1, keepdims=True), 1e-9)
    everything = (whole @ whole.T)[~numpy.eye(len(whole), dtype=bool)]
    assert found.background == pytest.approx(everything.mean(), abs=4 * everything.std() / 45)
    assert compare_tokens(loaded, words, ["the"]).background == found.background


def test_norms_and_both_ends_of_them(pieces):
    import numpy
    import torch

    loaded, words = load_tiny("llama")
    table = loaded.model.get_input_embeddings().weight
    with torch.no_grad():
        table[7] = 0.0  # as token 0, the padding, is already
        table[200] *= 30
    norms = numpy.linalg.norm(table.detach().double().numpy(), axis=-1)
    found = embedding_norms(loaded, words, count=5)
    assert (found.mean, found.std) == pytest.approx((norms.mean(), norms.std()), rel=1e-5)
    assert (found.least, found.largest) == pytest.approx((0.0, norms.max()))
    assert [entry.id for entry in found.smallest] == numpy.argsort(norms, kind="stable")[:5].tolist()
    assert [entry.id for entry in found.greatest] == numpy.argsort(-norms)[:5].tolist()
    assert found.greatest[0].id == 200
    assert found.greatest[0].deviations == pytest.approx((norms.max() - norms.mean()) / norms.std(), rel=1e-4)
    assert found.zeros == 2
    assert found.beyond == len(norms) - words.vocab_size
    assert sum(found.histogram) == len(norms)
    unload(loaded)


def test_the_map_is_the_principal_components_and_says_what_it_hides(llama):
    import numpy

    loaded, words, weights = llama
    texts = ["the", "harbour", "long", "four", "Paris", "water", "the"]
    found = map_words(loaded, words, texts)
    assert [point.word.text for point in found.points] == texts[:-1]
    vectors = numpy.stack([weights[words.encode(text)].mean(0) for text in texts[:-1]])
    unit = vectors / numpy.linalg.norm(vectors, axis=-1, keepdims=True)
    values = numpy.linalg.svd(unit - unit.mean(0), compute_uv=False) ** 2
    assert found.explained == pytest.approx(tuple(values[:2] / values.sum()), rel=1e-5)
    assert found.hidden == pytest.approx(values[2:].sum() / values.sum(), rel=1e-5)
    places = numpy.array([(point.x, point.y) for point in found.points])
    assert (places**2).sum(0) == pytest.approx(values[:2], rel=1e-5)
    cosine = unit @ unit.T
    numpy.fill_diagonal(cosine, -2)
    assert [point.nearest for point in found.points] == cosine.argmax(-1).tolist()
    away = numpy.linalg.norm(places[:, None] - places[None], axis=-1)
    numpy.fill_diagonal(away, numpy.inf)
    assert [point.nearest_on_map for point in found.points] == away.argmin(-1).tolist()
    assert found.misplaced == sum(a != b for a, b in zip(cosine.argmax(-1), away.argmin(-1), strict=True))
    assert json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))


@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_quantized_heads_are_read_as_the_model_uses_them(quant):
    """A head that is quantized itself, as bitsandbytes does when it is not told to skip it."""
    import bitsandbytes
    import torch

    loaded, words = load_tiny("gpt2")
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 512, bias=False)
    if quant == "nf4":
        head = bitsandbytes.nn.Linear4bit(64, 512, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    else:
        head = bitsandbytes.nn.Linear8bitLt(64, 512, bias=False, has_fp16_weights=False)
    head.load_state_dict(plain.state_dict())
    loaded.model.lm_head = head.to("cpu")
    found = nearest_tokens(loaded, words, token=50, table="output", measure="dot", count=5)
    assert found.facts.note == f"dequantized from {quant}"
    vector = plain.weight[50].detach()
    scores = (plain.weight.detach() @ vector).tolist()
    for neighbour in found.neighbours:
        assert neighbour.score == pytest.approx(scores[neighbour.id], abs=0.12 * float(vector.norm() ** 2))
    assert found.query.norm == pytest.approx(float(vector.norm()), rel=0.1)
    unload(loaded)


def test_bad_input_is_refused_in_one_line(llama):
    loaded, words, _ = llama
    for look, kind, said in (
        (lambda: nearest_tokens(loaded, words, ""), "bad-text", "no text"),
        (lambda: nearest_tokens(loaded, words, token=10**9), "unknown-token", "no row 1000000000"),
        (lambda: nearest_tokens(loaded, words, token=-1), "unknown-token", "no row -1"),
        (lambda: nearest_tokens(loaded, words, "a", table="middle"), "bad-option", "middle"),
        (lambda: nearest_tokens(loaded, words, "a", measure="far"), "bad-option", "far"),
        (lambda: nearest_tokens(loaded, words, "a", count=0), "bad-option", "0"),
        (lambda: compare_tokens(loaded, words, []), "bad-option", "0 texts"),
        (lambda: compare_tokens(loaded, words, ["a"] * 65), "bad-option", "65 texts"),
        (lambda: map_words(loaded, words, ["a", "a", "b"]), "bad-option", "2 different words"),
        (lambda: embedding_norms(loaded, words, count=10**6), "bad-option", "1000000"),
    ):
        with pytest.raises(WorkbenchError, match=said) as error:
            look()
        assert error.value.kind == kind
        assert error.value.remedy


def test_reading_a_table_can_be_cancelled(llama, pieces):
    class Stopping(Job):
        rows = 0

        def progress(self, phase, done, total=None, unit="", detail=""):
            self.rows = done

        def check(self) -> None:
            if self.rows >= 14:
                raise JobCancelled

    loaded, words, _ = llama
    job = Stopping()
    with pytest.raises(JobCancelled):
        embedding_norms(loaded, words, job=job)
    assert job.rows == 14


def test_the_real_model_knows_its_words(smollm2_dir):
    loaded = load_model(smollm2_dir, LoadOptions(device="cpu"))
    words = words_of(smollm2_dir)
    near = {item.text for item in nearest_tokens(loaded, words, " cat", count=8).neighbours}
    assert near & {" cats", "cat", " Cat", " kitten"}
    found = compare_tokens(loaded, words, [" cat", " dog", " theorem"])
    assert found.cosine[0][1] > found.cosine[0][2] + 0.1
    assert nearest_tokens(loaded, words, " cat", count=1).facts.tied
    unload(loaded)
