"""The programs that validate_fixes runs, each with what it asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A program, the packages it is written with, and those of them that nothing but it asks for."""

    wanted: tuple[str, ...]
    program: str
    optional: tuple[str, ...] = ()
    prepare: str = ""
    """A program that makes the files that it reads, run while the environment is whole."""


_CONFIG = (
    "config = LlamaConfig(vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, "
    "num_attention_heads=4)\n"
)
_IMPORTS = (
    "import torch\n"
    "from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainingArguments, "
    "default_data_collator\n"
)
TRAINING = {
    "adapter": Task(
        ("transformers", "accelerate", "peft"),
        _IMPORTS
        + "from peft import LoraConfig, get_peft_model\n"
        + _CONFIG
        + """\
model = get_peft_model(
    AutoModelForCausalLM.from_config(config),
    LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
row = {"input_ids": torch.arange(8), "attention_mask": torch.ones(8, dtype=torch.long), "labels": torch.arange(8)}
arguments = TrainingArguments(output_dir="out", max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True)
Trainer(model=model, args=arguments, train_dataset=[row] * 4, data_collator=default_data_collator).train()
""",
    ),
    "trainers": Task(
        ("transformers", "accelerate", "peft", "trl", "datasets"),
        """\
from datasets import Dataset
from peft import LoraConfig, prepare_model_for_kbit_training
from trl import DPOTrainer, SFTTrainer
Dataset.from_dict({"text": ["a b c"] * 4}).map(lambda row: {"n": len(row["text"])}).save_to_disk("data")
""",
    ),
    "pictures": Task(
        ("diffusers", "transformers", "accelerate"),
        "from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel\n",
    ),
    "sentences": Task(
        ("sentence-transformers", "datasets"),
        "from datasets import load_dataset\nfrom sentence_transformers import SentenceTransformer\n",
    ),
    "text": Task(
        ("transformers", "accelerate"),
        "from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, pipeline\n"
        + _CONFIG
        + """\
LlamaForCausalLM(config).save_pretrained("model")
AutoModelForCausalLM.from_pretrained("model", device_map="cpu", low_cpu_mem_usage=True)
""",
    ),
}

WITH_OPTIONAL_PARTS = {
    "chat template": Task(
        ("transformers", "jinja2"),
        """\
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
turn = [{"role": "user", "content": "a"}]
print(tokenizer.apply_chat_template(turn, chat_template="{{ messages[0].content }}", tokenize=False))
""",
        ("jinja2",),
    ),
    "sentence pieces": Task(
        ("transformers", "sentencepiece", "protobuf"),
        'from transformers import AutoTokenizer\nprint(AutoTokenizer.from_pretrained("model").encode("a b c"))\n',
        ("sentencepiece", "protobuf"),
        """\
import json
from pathlib import Path
from sentencepiece import SentencePieceTrainer
Path("model").mkdir()
rows = [f"the quick brown fox number {number} jumps over lazy dogs" for number in range(400)]
with open("model/tokenizer.model", "wb") as file:
    SentencePieceTrainer.train(
        sentence_iterator=iter(rows), model_writer=file, vocab_size=60, model_type="bpe", hard_vocab_limit=False
    )
Path("model/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
Path("model/config.json").write_text(json.dumps({"model_type": "llama"}))
""",
    ),
    "pixels": Task(
        ("transformers", "pillow"),
        """\
import numpy
from transformers import CLIPImageProcessor
print(CLIPImageProcessor()(images=numpy.zeros((3, 30, 30), dtype=numpy.uint8), return_tensors="pt"))
""",
        ("pillow",),
    ),
    "detection": Task(
        ("transformers", "scipy"),
        """\
import torch
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"])
config = DetrConfig(
    use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=16,
    encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=4,
)
labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
print(DetrForObjectDetection(config)(pixel_values=torch.zeros(1, 3, 64, 64), labels=labels).loss)
""",
        ("scipy",),
    ),
    "remote code": Task(
        ("transformers", "einops"),
        'from transformers import AutoConfig\nprint(AutoConfig.from_pretrained("model", trust_remote_code=True))\n',
        ("einops",),
        """\
import json
from pathlib import Path
Path("model").mkdir()
Path("model/configuration_own.py").write_text(
    "import einops\\nfrom transformers import PretrainedConfig\\n\\n\\n"
    "class OwnConfig(PretrainedConfig):\\n    model_type = 'own'\\n"
)
auto = {"AutoConfig": "configuration_own.OwnConfig"}
Path("model/config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
""",
    ),
    "four bits": Task(
        ("transformers", "accelerate", "bitsandbytes"),
        "from transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
        "asked = BitsAndBytesConfig(load_in_4bit=True)\n"
        'print(AutoModelForCausalLM.from_pretrained("model", quantization_config=asked))\n',
        ("accelerate", "bitsandbytes"),
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        + _CONFIG
        + 'LlamaForCausalLM(config).save_pretrained("model")\n',
    ),
    "tables": Task(
        ("pandas", "pyarrow", "openpyxl"),
        """\
import pandas
pandas.DataFrame({"text": ["a"]}).to_parquet("rows.parquet")
pandas.DataFrame({"text": ["a"]}).to_excel("rows.xlsx")
""",
        ("pyarrow", "openpyxl"),
    ),
    "Moses": Task(
        ("transformers", "sacremoses"),
        """\
import json
from pathlib import Path
from transformers import XLMTokenizer
Path("vocab.json").write_text(json.dumps({"a</w>": 0, "<unk>": 1}))
Path("merges.txt").write_text("#version: 0.2\\n")
print(XLMTokenizer("vocab.json", "merges.txt").tokenize("a"))
""",
        ("sacremoses",),
    ),
    "Japanese": Task(
        ("transformers", "fugashi", "ipadic"),
        """\
from pathlib import Path
from transformers import BertJapaneseTokenizer
Path("vocab.txt").write_text("[UNK]\\n[CLS]\\n[SEP]\\n[PAD]\\n[MASK]\\na\\n")
print(BertJapaneseTokenizer("vocab.txt", word_tokenizer_type="mecab").tokenize("a"))
""",
        ("fugashi", "ipadic"),
    ),
    "board": Task(
        ("transformers", "accelerate", "tensorboard"),
        _IMPORTS
        + _CONFIG
        + """\
row = {"input_ids": torch.arange(8), "attention_mask": torch.ones(8, dtype=torch.long), "labels": torch.arange(8)}
arguments = TrainingArguments(output_dir="out", max_steps=1, report_to="tensorboard", use_cpu=True)
model = AutoModelForCausalLM.from_config(config)
Trainer(model=model, args=arguments, train_dataset=[row] * 4, data_collator=default_data_collator).train()
""",
        ("tensorboard",),
    ),
}
TASKS = {**TRAINING, **WITH_OPTIONAL_PARTS}
