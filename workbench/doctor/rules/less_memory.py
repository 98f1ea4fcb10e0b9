"""What makes a job take less of a GPU's memory, by what the program does. Needs the tables."""

from __future__ import annotations

from workbench.doctor.facts import ErrorFact, Facts

_BY_PHASE = {
    "": ("Smaller batch or sequence, gradient checkpointing, 4-bit weights: the VRAM bench says what fits.",),
    "train": (
        "Batch size 1 with gradient accumulation, shorter sequences (smaller images), gradient checkpointing, LoRA on "
        "4-bit weights in place of all weights: the VRAM bench says what fits.",
        "an 8-bit optimizer (optim='adamw_8bit'); DeepSpeed ZeRO or FSDP over several GPUs",
    ),
    "loss": (
        "per_device_train_batch_size=1 with gradient_accumulation_steps, and a smaller max_length: the loss takes "
        "batch x tokens x vocabulary numbers, several times over",
        "or use_liger_kernel=True in TrainingArguments (pip install liger-kernel): it never holds them all at once",
    ),
    "gguf": (
        "-c 8192, or less (--ctx-size, n_ctx): the KV cache grows with it; -fa on -ctk q8_0 -ctv q8_0 halves it",
        "then fewer layers on the GPU: -ngl 24 (n_gpu_layers), or a smaller quantization of the model (Q4_K_S, IQ3_M)",
        "nvidia-smi   # who else holds memory on the card",
    ),
    "load": (
        "The model in fewer bits or a smaller one: load_in_4bit, or a GPTQ, AWQ or GGUF file; in 16 bits the weights "
        "alone take 2 GB for each billion, in 4 bits about 0.6: the VRAM bench says what fits.",
        "or a part of it in main memory, more slowly: device_map='auto' (transformers), n_gpu_layers (llama.cpp), "
        "cpu_offload_gb (vLLM), --gpu-memory or --pre_layer (web UIs)",
    ),
}
_DIFFUSERS = (
    "pipe.enable_model_cpu_offload()   # in place of pipe.to('cuda'); still too much: "
    "pipe.enable_sequential_cpu_offload()",
    "torch_dtype=torch.float16 (bfloat16) in from_pretrained, pipe.vae.enable_tiling(), "
    "pipe.enable_attention_slicing(); a smaller picture, one at a time, fewer frames",
)
_SMALLER_PICTURE = "A smaller picture (512 x 512, enlarged afterwards), one at a time, fewer frames of a video"
# https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Optimizations, ComfyUI's comfy/cli_args.py
_OF_WEB_UI = (
    "COMMANDLINE_ARGS=--medvram   # in webui-user.bat (set …) or webui-user.sh (export …), beside what stands there; "
    "--lowvram takes least and is slow; Forge does that by itself",
    f"{_SMALLER_PICTURE}; Hires. fix by less; Tiled VAE",
)
_PICTURES = {
    "sd-webui": _OF_WEB_UI,
    "sd-webui-amd": _OF_WEB_UI,
    "comfyui": (
        "python main.py --lowvram   # the portable build: in the line of run_nvidia_gpu.bat; --novram where that is "
        "not enough; the model as fp8 or GGUF file",
        f"{_SMALLER_PICTURE}; 'VAE Decode (Tiled)' in place of 'VAE Decode'",
    ),
}
_ANY_PROGRAM = (
    f"{_SMALLER_PICTURE}: memory grows with the number of pixels",
    "The program's own setting for small cards: Easy Diffusion: Settings, GPU Memory Usage: low; Automatic1111 "
    "--medvram or --lowvram; ComfyUI --lowvram; half precision (float16), not --no-half or full precision",
)
_OTHERS = (
    "nvidia-smi   # who holds how much: end what is not needed, wait for the others, or take another GPU "
    "(CUDA_VISIBLE_DEVICES=1)"
)


def less_memory(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """Steps after which the job of `error`, an out-of-memory error, takes less."""
    return (*((_OTHERS,) if facts.error("gpu-is-shared") else ()), *smaller_job(facts, error))


def smaller_job(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """The same without a look at who else is on the card."""
    phase = error.values.get("phase", "")
    if phase in ("", "load"):
        if facts.error("diffusers-pipeline"):
            return _DIFFUSERS
        if facts.platform.program in _PICTURES:
            return _PICTURES[facts.platform.program]
        if facts.error("makes-pictures"):
            return _ANY_PROGRAM
    return _BY_PHASE[phase]
