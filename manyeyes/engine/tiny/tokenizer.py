"""A byte-level BPE tokenizer with 1024 tokens, trained on a few sentences, with Qwen3-VL's special tokens."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast

SENTENCES = """
The quick brown fox jumps over the lazy dog while a white cat sleeps under the old wooden table.
This photo shows a small house with a red roof, two open windows and a green garden in front of it.
A young woman in a long blue coat is walking along the street with a black umbrella in her left hand.
On the right side of the image there are three large trees, and behind them you can see a quiet lake.
The sky above the mountains is clear and bright, with only a few thin clouds near the horizon.
Several people are waiting at the station for the next train, and most of them are looking at their phones.
There is a yellow bicycle leaning against the stone wall next to a shop that sells bread and flowers.
The man in the middle of the photo holds a paper cup of coffee and smiles at the camera.
In the background, a tall building with many glass windows reflects the warm light of the evening sun.
The table in the kitchen carries a bowl of fresh fruit: apples, oranges, bananas and a bunch of grapes.
A silver car has stopped at the crossing because the traffic light is red, and a child is running across the road.
The first page of the document contains a title, a short summary and a table with four columns of numbers.
The second chart shows how the price of electric power changed between winter and summer of the last year.
This receipt lists every item with its quantity, the total amount, the tax and the date of the payment.
The text on the sign says that the museum opens at nine in the morning and closes at six in the evening.
Please read the label on the bottle, describe its color and shape, and explain what is written below the logo.
What do you see in this video, and what happens after the first few seconds?
At the beginning a brown horse rests in the field; later it moves slowly toward the fence and eats some grass.
The player in the white shirt throws the ball to another player, who catches it and runs toward the line.
How many birds are sitting on the wire, and which one of them is the largest?
I can count seven birds, but the image is dark, so the answer may be wrong.
The room is full of books, and a lamp on the desk gives a soft yellow light.
Her mother and her brother are sitting on a bench near the river, eating bread and cheese.
A group of students is listening to the teacher, who is drawing a map of the world on the board.
The surface of the water is smooth, and the boats in the harbor hardly move in the wind.
It looks like a cold morning in early spring, because the ground is wet and there are no leaves on the trees.
Compare both images and explain which parts are different, which are the same, and why it might matter.
The object in the lower corner seems to be a metal box with a round handle and a broken lock.
Some of the plants are green and healthy, while others have become dry and need more water.
The weather was nice, so they went outside, found a place by the beach and played until it was time to go home.
Nothing in this scene is moving except a small dog that follows a boy through the snow.
You are a helpful assistant that answers questions about images, documents and videos with care.
The screen of the computer shows an error message, and the user does not know what to do next.
A large airplane is flying above the city, leaving a straight white trail across the blue sky.
The bridge over the river was built of iron and stone more than one hundred years ago.
He opened the door, turned on the light and found a letter that a neighbor had left on the floor.
The market is busy today: farmers sell vegetables, eggs, honey and fish, and music comes from a corner.
An elephant drinks from the pool while two young lions rest in the shadow of a single tree.
The blue line in the graph rises quickly at first, then stays almost flat, and falls again near the end.
Each engine reads the question, looks at the image and writes one word after another.
Every answer that you are reading here is random noise from a model that has learned nothing at all.
If something is not clear, try again with a better photo, a shorter question or a different model.
Women, men and children dance together in the square, and an old man plays the guitar.
The train leaves the tunnel, crosses the valley and reaches the village before the rain begins.
My favorite color is orange, his is purple, hers is pink, and theirs is gray or black.
A doctor examines the hand of a patient and points at a small mark near the thumb.
The pizza on the plate has cheese, tomatoes, mushrooms and a little fresh basil on top.
Ten soldiers march in front of the palace, followed by a carriage with two white horses.
From this point of view the tower appears smaller than the church, although it is much higher.
Under the microscope the cells look like round, transparent rooms with a dark spot in the center.
""".strip().splitlines()

JSON_LINES = 20 * [
    """{"name": "get_weather", "arguments": {"city": "Paris"}}""",
    """{"name":"get_weather","arguments":{"city":"Paris"}}""",
    """{"kind":"receipt","paid":true,"total":false,"items":null}""",
]
"""Training text for the tokens of tool calls and JSON answers. Only words of SENTENCES are likely without a grammar."""


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
"""One token each and not special, as in Qwen3-VL's tokenizer, because they are part of an answer's text."""


def train() -> Tokenizer:
    """Returns the trained tokenizer: special tokens, the 256 bytes, and merges up to VOCABULARY tokens."""
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
        raise ValueError(f"expected {VOCABULARY} tokens, got {tokenizer.get_vocab_size()}. Add sentences.")
    return tokenizer


def words(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of tokens that are a whole word of the sentences with a leading blank, a comma or a full stop."""
    allowed = {" " + word.strip(".,:;?") for sentence in SENTENCES for word in sentence.split()} | {",", "."}
    return [token for token in range(len(SPECIAL) + len(TOOL_TAGS), VOCABULARY) if tokenizer.decode([token]) in allowed]


def lengths(tokenizer: Tokenizer) -> list[int]:
    """Returns the number of characters of each token, by id."""
    return [len(tokenizer.id_to_token(token)) for token in range(VOCABULARY)]


def save(folder: Path) -> dict[str, list[int] | int]:
    """Writes the tokenizer's files. Returns the ids of special tokens by name, "words" (readable ids) and "lengths" (of
    all)."""
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
