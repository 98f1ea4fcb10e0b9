"""The decode loop on real weights: equal to ``generate``, stoppable, honest about what it reused."""

from __future__ import annotations

import gc
import inspect
from dataclasses import replace

import pytest

from workbench.chat.answer_text import AnswerText, token_text
from workbench.chat.answers import GenerationFailed, TokenStep
from workbench.chat.generate import Generator
from workbench.chat.options import SamplingOptions
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models.load import LoadOptions, load_model, unload
from workbench.paths import data_dir
from workbench.tokens.tokenizer import load_tokenizer

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("libraries")]

GREEDY = SamplingOptions(greedy=True, max_new_tokens=40)
PROMPTS = (
    "Tell me a long story about a fox.",
    "Write a Python function that sorts a list.",
    "What causes rain?",
    "Explain gravity to a child.",
    "Translate to French: the sea is calm today.",
)


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir):
    return load_tokenizer(str(smollm2_dir))


@pytest.fixture(scope="module")
def smollm2_float32(smollm2_dir):
    loaded = load_model(smollm2_dir, LoadOptions(dtype="float32", device="cpu"))
    yield loaded
    unload(loaded)


def load_tiny(name: str):
    directory = data_dir("sample_models") / f"tiny-{name}"
    loaded = load_model(directory, LoadOptions(dtype="float32", device="cpu"))
    return loaded, load_tokenizer(str(directory))


def chat_ids(tokenizer, *turns: str) -> list[int]:
    roles = ("user", "assistant")
    text = "".join(f"<|im_start|>{roles[n % 2]}\n{turn}<|im_end|>\n" for n, turn in enumerate(turns))
    return tokenizer.encode(f"{text}<|im_start|>assistant\n")


def reference(loaded, ids: list[int], count: int, cache=None) -> list[int]:
    """What ``generate`` answers, going on from a cache if one is given."""
    import torch

    prompt = torch.tensor([ids])
    output = loaded.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count, past_key_values=cache
    )
    return output[0, len(ids) :].tolist()


def live_tensor_bytes() -> int:
    import torch

    gc.collect()
    return sum(item.nbytes for item in gc.get_objects() if issubclass(type(item), torch.Tensor))


class StopAfter(Job):
    """Cancels at the n-th check, as a user does."""

    def __init__(self, checks: int) -> None:
        self.left = checks
        self.progressed: list[tuple[str, int]] = []

    def check(self) -> None:
        if self.left == 0:
            raise JobCancelled
        self.left -= 1

    def progress(self, phase, done, total=None, unit="", detail=""):
        self.progressed.append((phase, done))


@pytest.mark.parametrize(
    "options",
    [LoadOptions(device="cpu"), LoadOptions("nf4", device="cpu"), LoadOptions("int8", device="cpu")],
    ids=("bfloat16", "nf4", "int8"),
)
def test_greedy_answers_equal_generate(smollm2_dir, tokenizer, options):
    """Float32 is compared by the families below, whose answers are longer.

    A reused cache changes more than rounding in int8, which finds its outliers over all tokens of a pass; so what
    follows a reused prefix is compared with ``generate`` going on from the very same cache.
    """
    from transformers import DynamicCache

    count = 8
    loaded = load_model(smollm2_dir, options)
    generator = Generator(loaded, tokenizer)
    for prompt in PROMPTS[:-1]:
        ids, cache = chat_ids(tokenizer, prompt), DynamicCache(config=loaded.model.config)
        result = generator.generate(ids, replace(GREEDY, max_new_tokens=count), fresh=True)
        assert result.ids == reference(loaded, ids, count, cache)
        assert result.method == "own"
        assert len(result.ids) == count
    last = chat_ids(tokenizer, PROMPTS[-1])
    result = generator.generate(last, replace(GREEDY, max_new_tokens=count))
    assert 0 < result.reused_tokens < len(last) - 5
    cache.crop(result.reused_tokens - cache.get_seq_length())
    assert result.ids == reference(loaded, last, count, cache)
    unload(loaded)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "gemma3"])
@pytest.mark.parametrize("chunk", [7, 256])
@pytest.mark.parametrize("length", [3, 15, 16, 17, 90])
def test_every_family_equals_generate(name, chunk, length):
    """Lengths around and beyond gemma3's window of 16; chunks that do not divide them."""
    loaded, tokenizer = load_tiny(name)
    generator = Generator(loaded, tokenizer, prefill_chunk=chunk)
    ids = [(7 * n) % 200 + 10 for n in range(length)]
    result = generator.generate(ids, replace(GREEDY, max_new_tokens=30))
    assert result.method == "own"
    assert result.ids == reference(loaded, ids, 30)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "gemma3"])
def test_turns_and_edits_reuse_what_they_can_and_change_nothing(name):
    loaded, tokenizer = load_tiny(name)
    generator = Generator(loaded, tokenizer, prefill_chunk=16)
    options = replace(GREEDY, max_new_tokens=12)
    first = [(11 * n) % 150 + 20 for n in range(40)]
    answer = generator.generate(first, options)
    held = generator.cached_tokens
    assert held == len(first) + answer.new_tokens - 1
    longer = first + answer.ids + [30, 31, 32]
    edited = [*first[:25], 99, 98, 97]
    for prompt, reused in ((longer, held), (edited, 25), (edited, len(edited) - 1)):
        result = generator.generate(prompt, options)
        # A window that has moved on cannot go back: only appending reuses it.
        went_back = name == "gemma3" and prompt is edited
        assert result.reused_tokens == (0 if went_back else reused)
        assert result.ids == generator.generate(prompt, options, fresh=True).ids


def test_the_second_turn_of_a_chat_equals_a_fresh_prefill(smollm2_float32, tokenizer):
    generator = Generator(smollm2_float32, tokenizer)
    options = replace(GREEDY, max_new_tokens=16)
    first = chat_ids(tokenizer, "What is the capital of France?")
    answer = generator.generate(first, options)
    assert answer.text.startswith("The capital of France is Paris")
    assert answer.stopped_by == "end-token"
    held = generator.cached_tokens
    second = chat_ids(tokenizer, "What is the capital of France?", answer.text, "And of Italy?")
    reused = generator.generate(second, options)
    assert reused.reused_tokens == held
    assert reused.ids == generator.generate(second, options, fresh=True).ids


def test_a_cancel_stops_within_one_token_and_keeps_the_answer(smollm2_float32, tokenizer):
    generator = Generator(smollm2_float32, tokenizer)
    ids = chat_ids(tokenizer, "Tell me a long story about a fox.")
    steps: list[TokenStep] = []
    result = generator.generate(ids, GREEDY, StopAfter(checks=6), steps.append)
    # One check before the only chunk, one before each token.
    assert result.finish_reason == "cancelled"
    assert result.new_tokens == len(steps) == 5
    assert result.text == tokenizer.decode(result.ids)
    # Stopped behind its pass, the last token is in the cache, which else holds one less.
    assert result.memory.kv_cache_tokens == generator.cached_tokens == len(ids) + 5
    rest = generator.generate(ids + result.ids, replace(GREEDY, max_new_tokens=5))
    assert rest.reused_tokens == len(ids) + 4
    assert result.ids + rest.ids == generator.generate(ids, replace(GREEDY, max_new_tokens=10), fresh=True).ids


def test_a_cancel_inside_the_prefill_keeps_whole_chunks():
    loaded, tokenizer = load_tiny("llama")
    generator = Generator(loaded, tokenizer, prefill_chunk=32)
    ids = [n % 100 + 20 for n in range(200)]
    job = StopAfter(checks=3)
    result = generator.generate(ids, GREEDY, job)
    assert (result.finish_reason, result.new_tokens, result.text) == ("cancelled", 0, "")
    assert job.progressed == [("prefill", 0), ("prefill", 32), ("prefill", 64)]
    assert generator.cached_tokens == 96
    again = generator.generate(ids, GREEDY)
    assert again.reused_tokens == 96
    assert again.ids == reference(loaded, ids, 40)


@pytest.mark.parametrize(("name", "kept"), [("llama", 100), ("gpt2", 100), ("mixtral", 100), ("gemma3", 0)])
def test_a_cancel_inside_a_pass_leaves_the_cache_as_before_it(name, kept):
    loaded, tokenizer = load_tiny(name)
    generator = Generator(loaded, tokenizer, prefill_chunk=100)
    ids = [n % 100 + 20 for n in range(200)]
    whole = StopAfter(checks=10_000)
    expected = generator.generate(ids, replace(GREEDY, max_new_tokens=1), whole).ids
    checks = 10_000 - whole.left
    # Three quarters of the way, in the middle of the second chunk's layers.
    result = generator.generate(ids, GREEDY, StopAfter(checks=3 * checks // 4), fresh=True)
    assert (result.finish_reason, result.new_tokens) == ("cancelled", 0)
    assert generator.cached_tokens == kept
    again = generator.generate(ids, GREEDY)
    assert again.reused_tokens == kept
    assert again.ids == reference(loaded, ids, 40)
    assert again.ids[:1] == expected


def test_steps_carry_text_probability_and_alternatives(smollm2_float32, tokenizer):
    import torch

    generator = Generator(smollm2_float32, tokenizer)
    ids = chat_ids(tokenizer, "What is the capital of France?")
    steps: list[TokenStep] = []
    result = generator.generate(ids, GREEDY, on_token=steps.append, alternatives=4)
    assert [step.id for step in steps] == result.ids
    assert "".join(step.text for step in steps) == result.text
    with torch.no_grad():
        logits = smollm2_float32.model(torch.tensor([ids + result.ids])).logits[0, len(ids) - 1 : -1]
    logprobs = logits.log_softmax(-1)
    for step, row in zip(steps, logprobs, strict=True):
        best = row.topk(4)
        assert step.logprob == pytest.approx(float(row[step.id]), abs=1e-3)
        assert [item.id for item in step.alternatives] == best.indices.tolist()
        assert step.alternatives[0].text == tokenizer.decode([step.id])


def test_the_same_seed_gives_the_same_text(smollm2_float32, tokenizer):
    generator = Generator(smollm2_float32, tokenizer)
    ids = chat_ids(tokenizer, "Tell me a story.")
    options = SamplingOptions(temperature=1.2, max_new_tokens=7, seed=3)
    first = generator.generate(ids, options)
    assert first.seed == 3
    assert generator.generate(ids, options, fresh=True).ids == first.ids
    assert generator.generate(ids, replace(options, seed=4)).ids != first.ids
    drawn = generator.generate(ids, replace(options, seed=None))
    assert generator.generate(ids, replace(options, seed=drawn.seed)).ids == drawn.ids


def test_stop_strings_end_the_text_before_them(smollm2_float32, tokenizer):
    generator = Generator(smollm2_float32, tokenizer)
    ids = chat_ids(tokenizer, "What is the capital of France?")
    shown: list[str] = []
    result = generator.generate(
        ids, replace(GREEDY, stop=("France is", "zzz")), on_token=lambda step: shown.append(step.text)
    )
    assert result.text == "".join(shown) == "The capital of "
    assert (result.finish_reason, result.stopped_by) == ("stop", "stop-string")
    near_miss = generator.generate(ids, replace(GREEDY, stop=("France was", "Paris!")))
    assert near_miss.text == "The capital of France is Paris."


def test_limits_of_length_and_context():
    loaded, tokenizer = load_tiny("llama")
    generator = Generator(loaded, tokenizer)
    length = generator.context_length
    result = generator.generate([30, 31], replace(GREEDY, max_new_tokens=3))
    assert (result.finish_reason, result.stopped_by, result.new_tokens) == ("length", "max-new-tokens", 3)
    result = generator.generate([n % 90 + 20 for n in range(length - 4)], GREEDY)
    assert result.stopped_by in ("context", "end-token")
    assert result.new_tokens <= 4
    for ids, kind in (
        ([30] * length, "prompt-too-long"),
        ([], "bad-prompt"),
        ([10**6], "bad-prompt"),
        ([-1], "bad-prompt"),
    ):
        with pytest.raises(WorkbenchError) as caught:
            generator.generate(ids, GREEDY)
        assert caught.value.kind == kind


def failing_at(model, call: int, error: Exception):
    """Make the model's n-th forward pass raise while it holds 64 MiB."""
    import torch

    stock, calls = model.forward, [0]

    def forward(*args, **keywords):
        calls[0] += 1
        if calls[0] == call:
            held = torch.zeros(64 * 2**20, dtype=torch.uint8)
            raise error if held is not None else AssertionError
        return stock(*args, **keywords)

    forward.__signature__ = inspect.signature(stock)
    model.forward = forward


def test_out_of_memory_in_an_answer_keeps_the_part_and_frees_the_rest():
    import torch

    loaded, tokenizer = load_tiny("llama")
    generator = Generator(loaded, tokenizer)
    text = (
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.64 GiB of which "
        "1.20 GiB is free."
    )
    expected = generator.generate([30, 31, 32], GREEDY).ids
    generator.reset()
    before = live_tensor_bytes()
    failing_at(loaded.model, 6, torch.OutOfMemoryError(text))
    steps: list[TokenStep] = []
    with pytest.raises(GenerationFailed) as caught:
        generator.generate([30, 31, 32], GREEDY, on_token=steps.append)
    failed = caught.value
    assert failed.kind == "out-of-memory"
    assert "2.50 GiB more were needed, 1.20 GiB were free of 23.64 GiB" in failed.message
    assert failed.partial.ids == expected[:5] == [step.id for step in steps]
    assert failed.partial.finish_reason == "failed"
    assert live_tensor_bytes() - before < 2**20
    assert generator.generate([30, 31, 32], GREEDY).ids == expected


def test_another_failure_is_one_line_with_the_part():
    loaded, tokenizer = load_tiny("gpt2")
    generator = Generator(loaded, tokenizer)
    failing_at(loaded.model, 3, RuntimeError("CUDA error: device-side assert\ntriggered"))
    with pytest.raises(GenerationFailed, match="device-side assert triggered") as caught:
        generator.generate([30, 31], GREEDY)
    assert caught.value.kind == "generation-failed"
    assert caught.value.partial.new_tokens == 2


def test_logits_that_are_not_finite():
    import torch

    loaded, tokenizer = load_tiny("llama")
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = float("nan")
    with pytest.raises(GenerationFailed, match="not finite at token 1") as caught:
        Generator(loaded, tokenizer).generate([30, 31], GREEDY)
    assert caught.value.kind == "non-finite-logits"


def test_an_encoder_decoder_goes_through_generate_and_says_so():
    loaded, tokenizer = load_tiny("t5")
    generator = Generator(loaded, tokenizer)
    ids = [(5 * n) % 100 + 30 for n in range(20)]
    result = generator.generate(ids, replace(GREEDY, max_new_tokens=20))
    expected = reference_seq2seq(loaded, ids, 20)
    assert result.ids == expected
    assert result.method == "generate"
    assert "encoder-decoder" in result.note
    stopped = generator.generate(ids, replace(GREEDY, max_new_tokens=20), StopAfter(checks=3))
    assert stopped.finish_reason == "cancelled"
    assert stopped.ids == expected[:3]


def reference_seq2seq(loaded, ids: list[int], count: int) -> list[int]:
    import torch

    prompt = torch.tensor([ids])
    return loaded.model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count)[
        0, 1:
    ].tolist()


def test_a_part_of_a_character_is_no_text_but_told_by_its_bytes(tokenizer):
    ids = tokenizer.encode("ok 👩")
    cut = AnswerText(tokenizer, ())
    assert [cut.push(token_id) for token_id in ids[:-1]] == ["ok", "", ""]
    assert (cut.finish(), cut.text) == (" ", "ok ")
    assert [token_text(tokenizer, token_id) for token_id in ids[1:]] == ["<0x20><0xF0><0x9F>", "<0x91>", "<0xA9>"]
    meant = AnswerText(tokenizer, ())
    pieces = [meant.push(token_id) for token_id in tokenizer.encode("a\ufffd")]
    assert "".join([*pieces, meant.finish()]) == "a\ufffd"


BASE = {"vocab_size": 700, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 2, "bos_token_id": 1}
ATTENTION = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("name", "settings", "note"),
    [
        ("Qwen3Config", ATTENTION, ""),
        ("MistralConfig", {**ATTENTION, "sliding_window": 12}, ""),
        ("FalconConfig", {"num_attention_heads": 4, "multi_query": True}, ""),
        ("Phi3Config", ATTENTION, "prepares its inputs in its own way"),
        ("MambaConfig", {"state_size": 8}, "has a recurrent state"),
    ],
)
def test_other_classes_equal_generate_by_one_way_or_the_other(tmp_path, name, settings, note):
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, name)(**BASE, **settings)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    loaded = load_model(tmp_path, LoadOptions(dtype="float32", device="cpu"))
    tokenizer = load_tokenizer(str(data_dir("sample_models") / "tiny-llama"))
    ids = [(7 * n) % 150 + 20 for n in range(45)]
    result = Generator(loaded, tokenizer, prefill_chunk=16).generate(ids, replace(GREEDY, max_new_tokens=20))
    assert result.ids == reference(loaded, ids, 20)
    assert result.note.endswith(note)
    assert result.method == ("generate" if note else "own")


def test_a_model_may_choose_a_padded_row_that_no_token_has(smollm2_float32, tokenizer):
    tiny = load_tokenizer(str(data_dir("sample_models") / "tiny-llama"))
    assert tiny.vocab_size < 1000
    steps: list[TokenStep] = []
    options = replace(GREEDY, max_new_tokens=6)
    ids = chat_ids(tokenizer, "What is the capital of France?")
    result = Generator(smollm2_float32, tiny).generate(ids, options, on_token=steps.append, alternatives=3)
    unknown = [step for step in steps if step.id >= tiny.vocab_size]
    assert unknown
    assert all(step.text == "" for step in unknown)
    assert all(item.text == "" for step in steps for item in step.alternatives if item.id >= tiny.vocab_size)
    assert result.new_tokens == len(steps)


def test_int8_outside_float16_warns_once_not_per_layer_and_token(caplog):
    directory = data_dir("sample_models") / "tiny-llama"
    loaded = load_model(directory, LoadOptions("int8", dtype="bfloat16", device="cpu"))
    generator = Generator(loaded, load_tokenizer(str(directory)))
    generator.generate([30, 31, 32], replace(GREEDY, max_new_tokens=5))
    assert sum("inputs will be cast" in record.message for record in caplog.records) <= 1


def test_an_encoder_only_model_is_refused():
    with pytest.raises(WorkbenchError, match="encoder-only model: it cannot chat"):
        load_tiny("bert")


def test_the_cache_is_counted_to_the_byte(smollm2_float32, tokenizer):
    generator = Generator(smollm2_float32, tokenizer)
    result = generator.generate(chat_ids(tokenizer, "Hi"), replace(GREEDY, max_new_tokens=4))
    # 30 layers, keys and values, 3 heads of 64 values of 4 bytes
    assert result.memory.kv_cache_bytes == generator.cached_tokens * 30 * 2 * 3 * 64 * 4
    assert result.memory.weights_bytes == 538_060_288
    assert result.memory.peak_bytes > 538_060_288
    generator.close()
    assert generator.cached_tokens == 0


def test_an_answer_goes_on_from_given_tokens_as_if_it_had_not_stopped(smollm2_float32, tokenizer):
    generator = Generator(smollm2_float32, tokenizer)
    ids = chat_ids(tokenizer, PROMPTS[0])
    whole = generator.generate(ids, replace(GREEDY, max_new_tokens=16), fresh=True)
    half = generator.generate(ids, replace(GREEDY, max_new_tokens=6), fresh=True)
    steps: list[TokenStep] = []
    rest = generator.generate(
        ids, replace(GREEDY, max_new_tokens=10), on_token=steps.append, given_ids=half.ids, fresh=True
    )
    assert rest.ids == whole.ids
    assert rest.text == whole.text
    assert (rest.given_tokens, rest.new_tokens, rest.prompt_tokens) == (6, 10, len(ids))
    assert [step.given for step in steps] == [True] * 6 + [False] * 10
    assert "".join(step.text for step in steps) == whole.text


COPY = "Repeat this text exactly: The quick brown fox jumps over the lazy dog near the old river bank at noon."


@pytest.mark.parametrize("prompt", [COPY, PROMPTS[2]])
def test_prompt_lookup_saves_passes_and_changes_no_token(smollm2_float32, tokenizer, prompt):
    generator = Generator(smollm2_float32, tokenizer)
    ids, options = chat_ids(tokenizer, prompt), replace(GREEDY, max_new_tokens=30 if prompt is COPY else 14)
    plain = generator.generate(ids, options, fresh=True)
    guessing = generator.generate(ids, replace(options, prompt_lookup=6), fresh=True)
    assert guessing.ids == plain.ids
    assert guessing.text == plain.text
    assert plain.guessed_tokens == 0
    if prompt is COPY:
        assert guessing.guessed_tokens >= 10
    # What the guesses left in the cache is no more than what was said.
    again = chat_ids(tokenizer, prompt, plain.text, "Once more.")
    shorter = replace(GREEDY, max_new_tokens=8)
    assert generator.generate(again, shorter).ids == reference(smollm2_float32, again, 8)


def test_prompt_lookup_keeps_the_luck_of_a_seed(smollm2_float32, tokenizer):
    generator = Generator(smollm2_float32, tokenizer)
    ids = chat_ids(tokenizer, COPY)
    drawn = SamplingOptions(temperature=0.4, seed=5, max_new_tokens=40)
    plain = generator.generate(ids, drawn, fresh=True)
    assert generator.generate(ids, replace(drawn, prompt_lookup=6), fresh=True).ids == plain.ids


@pytest.mark.parametrize("name", ["gemma3", "mixtral"])
def test_prompt_lookup_where_the_cache_cannot_go_back(name):
    loaded, tokenizer = load_tiny(name)
    try:
        ids = tokenizer.encode("one two three one two three one two three one two", add_special_tokens=True) * 6
        generator = Generator(loaded, tokenizer)
        plain = generator.generate(ids, GREEDY, fresh=True)
        assert generator.generate(ids, replace(GREEDY, prompt_lookup=4), fresh=True).ids == plain.ids
    finally:
        unload(loaded)


def test_logits_of_the_next_token_and_of_every_position_are_the_models_own(smollm2_float32, tokenizer):
    import torch

    ids = chat_ids(tokenizer, PROMPTS[1], "Use sorted().")
    with torch.inference_mode():
        expected = smollm2_float32.model(torch.tensor([ids])).logits[0]
    generator = Generator(smollm2_float32, tokenizer, prefill_chunk=7)
    assert torch.allclose(generator.next_logits(ids), expected[-1], atol=1e-3)
    first = 10
    chunks = [(start, logits.clone()) for start, logits in generator.position_logits(ids, first)]
    assert chunks[0][0] == first
    assert [start for start, _logits in chunks[1:]] == [start + logits.shape[0] for start, logits in chunks[:-1]]
    assert torch.allclose(torch.cat([logits for _start, logits in chunks]), expected[first:], atol=1e-3)


def test_steps_tell_how_sure_the_model_was(smollm2_float32, tokenizer):
    import torch

    generator = Generator(smollm2_float32, tokenizer)
    ids = chat_ids(tokenizer, PROMPTS[2])
    steps: list[TokenStep] = []
    generator.generate(ids, replace(GREEDY, max_new_tokens=1), on_token=steps.append, alternatives=3, fresh=True)
    expected = torch.distributions.Categorical(logits=generator.next_logits(ids).double()).entropy() / torch.log(
        torch.tensor(2.0)
    )
    assert steps[0].entropy_bits == pytest.approx(float(expected), rel=1e-4)
