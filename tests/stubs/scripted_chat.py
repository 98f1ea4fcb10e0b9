"""The chat's replies: a real store of conversations, answers by a script."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.chat.conversations import Preset
from workbench.chat.options import SAMPLING_FIELDS, SamplingOptions
from workbench.chat.store import NOTHING, ConversationStore
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.session.handlers.chat import _FORMS, conversation_dict, history_before, store_id

MIB = 2**20
PIECES = ("The capital", " of France", " is **Paris**", ".")
SETTINGS = {"model": "smollm2-135m-instruct", "quant": "nf4", "dtype": "bfloat16"}
FIGURES: dict[str, Any] = {
    "prompt_tokens": 38, "new_tokens": 8, "reused_tokens": 0, "time_to_first_token_seconds": 0.21,
    "tokens_per_second": 41.0, "prefill_seconds": 0.19, "decode_seconds": 0.17, "finish_reason": "stop",
    "memory": {"weights_bytes": 110 * MIB, "kv_cache_bytes": 17 * MIB, "peak_bytes": 190 * MIB, "peak_of": "device"},
}  # fmt: skip
TOKENS = (
    ("The", 0.98, 0.2, (("The", 0.98), ("Paris", 0.01))),
    (" capital", 0.91, 0.6, ((" capital", 0.91), (" city", 0.05))),
    (" of", 0.99, 0.1, ((" of", 0.99), (" city", 0.004))),
    (" France", 0.97, 0.3, ((" France", 0.97), (" the", 0.02))),
    (" is", 0.83, 1.1, ((" is", 0.83), (",", 0.12))),
    (" **", 0.07, 4.9, ((" Paris", 0.81), (" **", 0.07), (" Lyon", 0.03))),
    ("Paris", 0.62, 2.2, (("Paris", 0.62), ("Lyon", 0.31))),
    ("**", 0.95, 0.4, (("**", 0.95), (",", 0.02))),
    (".", 0.44, 2.8, ((",", 0.51), (".", 0.44))),
)


def tokens() -> list[dict[str, Any]]:
    """The answer's tokens as they were recorded."""
    from math import log

    ids = {text: number for number, text in enumerate(dict.fromkeys(t for *_, others in TOKENS for t, _ in others))}
    return [
        {
            "id": ids[text], "text": text, "logprob": log(p), "entropy_bits": entropy, "given": False,
            "alternatives": [{"id": ids[other], "text": other, "logprob": log(chance)} for other, chance in others],
        }
        for text, p, entropy, others in TOKENS
    ]  # fmt: skip


class ScriptedChat:
    """Answers the chat's requests; every answer is the same, what is kept of it is real."""

    @cached_property
    def store(self) -> ConversationStore:
        """Opened at the first need; its folder goes with it."""
        self._folder = tempfile.TemporaryDirectory(prefix="workbench-scripted-")
        return ConversationStore(Path(self._folder.name) / "conversations.db")

    def generate(self, request: protocol.Generate) -> list[protocol.Message]:
        conversation_id, message_id = self._kept(request)
        events: list[protocol.Message] = [
            protocol.JobProgressed("prefill", 38, 38, "tokens"),
            protocol.AnswerStarted(conversation_id, 38),
        ]
        events += [protocol.TokensGenerated(piece, 2 * (i + 1), conversation_id) for i, piece in enumerate(PIECES)]
        result = FIGURES | SETTINGS | {"text": "".join(PIECES), "message_id": message_id}
        return [*events, protocol.Generated(conversation_id, result)]

    def _kept(self, request: protocol.Generate) -> tuple[str, str]:
        store = self.store
        if request.again:
            number, answer = store.message(int(request.again))
            parent = answer.parent
            writer = store.extend_answer(answer.id) if request.extend else store.write_answer(number, parent, SETTINGS)
        else:
            conversation = (
                history_before(store, request.conversation_id, request.after)
                if request.conversation_id
                else store.create(model=SETTINGS["model"])
            )
            number = conversation.id
            if not conversation.messages and request.system:
                store.add_message(number, "system", request.system, first=True)
                conversation = store.load(number)
            last = conversation.messages[-1].id if conversation.messages else None
            asked = store.add_message(number, "user", request.prompt, last, first=last is None)
            writer = store.write_answer(number, asked.id, SETTINGS)
        known = writer.message.text if request.extend else ""
        writer.append("".join(PIECES)[len(known) :])
        writer.finish("complete", FIGURES)
        store.save_tokens(writer.message.id, tokens())
        return str(number), str(writer.message.id)

    def read(self, number: int) -> list[protocol.Message]:
        return [protocol.ConversationRead(conversation_dict(self.store.load(number)))]

    def open(self, request: protocol.OpenConversation) -> list[protocol.Message]:
        try:
            return self.read(store_id(request.conversation_id))
        except WorkbenchError as error:
            return [protocol.Failed(error.kind, error.message, error.remedy)]

    def show(self, request: protocol.ShowMessage) -> list[protocol.Message]:
        shown = self.store.show_message(int(request.conversation_id), int(request.message_id))
        return [protocol.ConversationRead(conversation_dict(shown))]

    def search(self, request: protocol.SearchConversations) -> list[protocol.Message]:
        found = [asdict(item) for item in self.store.search(request.words)]
        return [
            protocol.ConversationsFound(
                [{**item, "conversation": str(item["conversation"]), "message": str(item["message"])} for item in found]
            )
        ]

    def export(self, request: protocol.ExportConversations) -> list[protocol.Message]:
        loaded = [self.store.load(int(item)) for item in request.conversation_ids]
        return [protocol.ConversationsExported(_FORMS[request.form](loaded), len(loaded))]

    def presets(self, request: Any) -> list[protocol.Message]:
        if isinstance(request, protocol.SavePreset):
            self.store.save_preset(Preset(request.kind, request.name, request.body))
        elif isinstance(request, protocol.DeletePreset):
            self.store.delete_preset(request.kind, request.name)
        return [protocol.PresetsListed([asdict(item) for item in self.store.presets(request.kind)])]

    def answer(self, request: protocol.ReadAnswer) -> list[protocol.Message]:
        known = self.store.tokens(int(request.message_id))
        if known:
            return [protocol.AnswerRead(known, "recorded")]
        if request.score:
            return [protocol.AnswerRead(tokens(), "scored")]
        return [protocol.AnswerRead([], "", "Its tokens were not recorded.")]

    def prompt(self, request: protocol.ReadPrompt) -> list[protocol.Message]:
        after = None
        if request.answer:
            _, answer = self.store.message(int(request.answer))
            after = NOTHING if answer.parent is None else answer.parent
        messages = self.store.load(int(request.conversation_id), leaf=after).messages if request.conversation_id else ()
        said = [(message.role, message.text) for message in messages]
        said += [("user", request.prompt)] if request.prompt else []
        pieces = []
        for role, text in said:
            pieces += [(1, "<|im_start|>", True), (2, role, False), (3, "\n", False)]
            pieces += [(4, word if i == 0 else f" {word}", False) for i, word in enumerate(text.split(" "))]
            pieces += [(5, "<|im_end|>", True), (3, "\n", False)]
        shown = [{"id": i, "text": text, "special": special} for i, text, special in pieces]
        return [protocol.PromptRead("".join(text for _, text, _ in pieces), len(pieces), 8192, shown)]


def distribution_reply(request: protocol.ReadDistribution) -> list[protocol.Message]:
    """Four tokens; the temperature sharpens, top-k cuts."""
    given = request.sampling
    base = [("Paris", 0.55), ("Lyon", 0.25), (" the", 0.15), ("\n", 0.05)]
    stages = [{"name": "model", "setting": None, "kept": 49152, "entropy_bits": 2.6}]
    columns = [[chance for _, chance in base]]
    if given.get("temperature", 1.0) not in (1.0, 0):
        power = [chance ** (1 / given["temperature"]) for chance in columns[-1]]
        columns.append([chance / sum(power) for chance in power])
        stages.append({"name": "temperature", "setting": given["temperature"], "kept": 49152, "entropy_bits": 1.4})
    if given.get("top_k"):
        kept = [chance if i < given["top_k"] else 0.0 for i, chance in enumerate(columns[-1])]
        columns.append([chance / sum(kept) for chance in kept])
        stages.append({"name": "top-k", "setting": given["top_k"], "kept": given["top_k"], "entropy_bits": 1.0})
    rows = [
        {"id": i, "text": text, "probabilities": [column[i] for column in columns]} for i, (text, _) in enumerate(base)
    ]
    greedy = bool(given.get("greedy")) or given.get("temperature") == 0
    return [protocol.DistributionRead({"stages": stages, "tokens": rows, "greedy": greedy, "vocab_size": 49152})]


def sampling_reply(request: protocol.ReadSampling) -> list[protocol.Message]:
    """The real options; the model states a temperature of its own."""
    defaults = asdict(SamplingOptions())
    stated = {"temperature": 0.2, "top_p": 0.9}
    options = [
        {**asdict(item), "default": defaults[item.name], "model": stated.get(item.name)} for item in SAMPLING_FIELDS
    ]
    return [protocol.SamplingRead(options)]


def _variant(name: str, **figures: Any) -> dict[str, Any]:
    base = {
        "name": name, "quant": "none", "dtype": "bfloat16", "weights_bytes": 269 * MIB, "peak_bytes": 400 * MIB,
        "peak_of": "device", "load_seconds": 1.0, "read_tokens_per_second": 900.0, "tokens_per_second": 41.0,
        "time_to_first_token_seconds": 0.2, "perplexity": 11.21, "divergence": None,
        "answer": "The capital of France is Paris.", "answer_ids": [1, 2, 3, 4, 5, 6, 7], "differs_at": None,
        "layers": [], "error": "",
    }  # fmt: skip
    return base | figures


COMPARISON: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "prompt": "Capital of France?",
    "text_tokens": 190,
    "text_cut": False,
    "device": "cuda:0",
    "cancelled": False,
    "notes": [],
    "variants": [
        _variant("bf16"),
        _variant(
            "nf4",
            weights_bytes=110 * MIB,
            perplexity=12.87,
            answer="The capital of France is Lyon.",
            differs_at=5,
            divergence={
                "mean_kl": 0.1834, "p99_kl": 1.902, "max_kl": 6.41, "top1_agreement": 0.821,
                "places": [
                    {"position": 17, "before": "It lies on the river", "token": " Seine", "reference": " Seine",
                     "variant": " [Rhine]", "kl_divergence": 6.41},
                    {"position": 88, "before": "boils at one hundred", "token": " degrees", "reference": " degrees",
                     "variant": " years", "kl_divergence": 4.2},
                ],
            },
            layers=[
                {"name": "model.layers.0.mlp.down_proj", "relative_error": 0.0951, "worst_error": 0.0412},
                {"name": "model.layers.7.self_attn.q_proj", "relative_error": 0.0912, "worst_error": 0.031},
            ],
        ),
    ],
}  # fmt: skip


def compare_reply(request: protocol.CompareVariants) -> list[protocol.Message]:
    """Two variants, the second after some progress."""
    first, second = COMPARISON["variants"]
    return [
        protocol.JobProgressed("weights", 273, 273, "tensors"),
        protocol.VariantMeasured(first),
        protocol.JobProgressed("text", 120, 190, "tokens"),
        protocol.VariantMeasured(second),
        protocol.VariantsCompared(COMPARISON),
    ]


def scripts() -> dict[type[protocol.Request], Any]:
    """The scripts of one session."""
    chat = ScriptedChat()
    return {
        protocol.Generate: chat.generate,
        protocol.OpenConversation: chat.open,
        protocol.ShowMessage: chat.show,
        protocol.SearchConversations: chat.search,
        protocol.ExportConversations: chat.export,
        protocol.ListPresets: chat.presets,
        protocol.SavePreset: chat.presets,
        protocol.DeletePreset: chat.presets,
        protocol.ReadAnswer: chat.answer,
        protocol.ReadPrompt: chat.prompt,
        protocol.ReadDistribution: distribution_reply,
        protocol.ReadSampling: sampling_reply,
        protocol.CompareVariants: compare_reply,
    }
