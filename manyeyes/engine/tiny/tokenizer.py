"""A byte-level BPE tokenizer of 1024 tokens, trained on a few sentences, under the special names that Qwen3-VL uses."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast

from manyeyes.engine.tiny.corpus import JSON_LINES, SENTENCES

VOCABULARY = 1024
END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
SPECIAL = [
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
TOOL_TAGS = ["<tool_call>", "</tool_call>"]
"""One token each, as in Qwen3-VL's tokenizer, and not special: they are part of an answer's text."""


def train() -> Tokenizer:
    """The trained tokenizer: special tokens, the 256 bytes, and merges up to VOCABULARY tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL, *(AddedToken(tag, special=False, normalized=False) for tag in TOOL_TAGS)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *JSON_LINES], trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens instead of {VOCABULARY}. Give it more sentences.")
    return tokenizer


def words(tokenizer: Tokenizer) -> list[int]:
    """The ids of the tokens that are one whole word of the sentences with its leading blank, or a comma or full stop."""
    known = {" " + word.strip(".,:;?") for sentence in SENTENCES for word in sentence.split()} | {",", "."}
    return [token for token in range(len(SPECIAL) + len(TOOL_TAGS), VOCABULARY) if tokenizer.decode([token]) in known]


def lengths(tokenizer: Tokenizer) -> list[int]:
    """Characters of each token, by id."""
    return [len(tokenizer.id_to_token(token)) for token in range(VOCABULARY)]


def save(folder: Path) -> dict[str, list[int] | int]:
    """Write the tokenizer's files. Returns the id of each special token by its name, "words": the readable ids, and "lengths": of all."""
    trained = train()
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=trained,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        additional_special_tokens=SPECIAL,
    )
    tokenizer.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text()
    tokenizer.save_pretrained(folder)
    return {name: trained.token_to_id(name) for name in SPECIAL} | {
        "words": words(trained),
        "lengths": lengths(trained),
    }
