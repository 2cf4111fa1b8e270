"""The network: Qwen3-VL's architecture with minimal sizes and random weights.

Two parts are not random, so that the answers are readable words. Dimension 0 of every embedding is large, so it is
large and positive in the last hidden state. The output row of each token has a weight in dimension 0 that sets its
probability: whole words are likely, the end of the turn has about one percent, and other tokens occur only if a grammar
requires them.
"""

import json
from pathlib import Path

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from manyeyes.engine.tiny.tokenizer import END_OF_TEXT, END_OF_TURN, SPECIAL, VOCABULARY

SHARED = {
    "processor_class": "Qwen3VLProcessor",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

# "shortest_edge" and "longest_edge" are the minimum and maximum number of pixels (not edges): 64 to 1280 tokens.
IMAGE = SHARED | {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "size": {"shortest_edge": 65_536, "longest_edge": 1_310_720},
}

# The same for all frames of a video together: at most 2048 tokens, so that a video fits into a short context.
VIDEO = SHARED | {
    "video_processor_type": "Qwen3VLVideoProcessor",
    "size": {"shortest_edge": 4_096, "longest_edge": 4_194_304},
    "fps": 2,
    "min_frames": 4,
    "max_frames": 64,
}


def save_processors(folder: Path) -> None:
    """Writes both processor files to `folder`."""
    for name, content in (("preprocessor_config.json", IMAGE), ("video_preprocessor_config.json", VIDEO)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


WIDTH = 64
UNLIKELY_WEIGHT = -20.0
MAX_LENGTH = 12
END_OF_TURN_WEIGHT = 0.8
SPREAD = 0.2  # standard deviation of the output rows; a larger value makes likely words more likely


def config(ids: dict[str, list[int] | int]) -> Qwen3VLConfig:
    """Returns the sizes. 32 is the smallest head size of vLLM's attention on CPU
    (`v1/attention/backends/cpu_attn.py`)."""
    return Qwen3VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 32_768,
            "rope_scaling": {"rope_type": "default", "mrope_section": [8, 4, 4], "mrope_interleaved": True},
            "bos_token_id": ids[END_OF_TEXT],
            "eos_token_id": ids[END_OF_TURN],
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 3,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_heads": 4,
            "out_hidden_size": WIDTH,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def prefer_words(model: Qwen3VLForConditionalGeneration, ids: dict[str, list[int] | int]) -> None:
    """Sets the weights that make readable words likely (see the top of this file)."""
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 0.1
        rows = model.lm_head.weight
        rows.normal_(std=SPREAD)
        # If a grammar allows only these tokens, prefer the longest, so that the text has few tokens.
        rows[:, 0] = UNLIKELY_WEIGHT + torch.tensor(ids["lengths"]).clamp(max=MAX_LENGTH)
        rows[ids["words"], 0] = 0.0
        rows[[ids[name] for name in SPECIAL], 0] = UNLIKELY_WEIGHT
        rows[ids[END_OF_TURN], 0] = END_OF_TURN_WEIGHT


def save(folder: Path, ids: dict[str, list[int] | int], seed: int) -> int:
    """Writes weights and configuration. Returns the number of parameters."""
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config(ids))
    prefer_words(model, ids)
    model.to(torch.bfloat16).save_pretrained(folder)
    defaults = {
        "eos_token_id": ids[END_OF_TURN],
        "pad_token_id": ids[END_OF_TEXT],
        "do_sample": True,
        "temperature": 0.7,
    }
    (folder / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n")
    return sum(weights.numel() for weights in model.parameters())
