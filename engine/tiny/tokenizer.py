"""A byte-level BPE tokenizer of 1024 tokens, trained on a few sentences, under the special names that Qwen3-VL uses."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast

from engine.tiny.sentences import SENTENCES

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


def train() -> Tokenizer:
    """The trained tokenizer: special tokens, the 256 bytes, and merges up to VOCABULARY tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens instead of {VOCABULARY}. Give it more sentences.")
    return tokenizer


def words(tokenizer: Tokenizer) -> list[int]:
    """The ids of the tokens that are one whole word of the sentences with its leading blank, or a comma or full stop."""
    known = {" " + word.strip(".,:;?") for sentence in SENTENCES for word in sentence.split()} | {",", "."}
    return [token for token in range(len(SPECIAL), VOCABULARY) if tokenizer.decode([token]) in known]


def save(folder: Path) -> dict[str, list[int] | int]:
    """Write the tokenizer's files. Returns the id of each special token by its name, and "words": the readable ids."""
    trained = train()
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=trained,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        additional_special_tokens=SPECIAL,
    )
    tokenizer.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text()
    tokenizer.save_pretrained(folder)
    return {name: trained.token_to_id(name) for name in SPECIAL} | {"words": words(trained)}
