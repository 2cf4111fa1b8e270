"""How long things take on one GPU with one model: read from profiles/*.yaml, where each number names its source."""

from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

import yaml

PROFILE_FOLDER = Path(__file__).parent / "profiles"
TIME_UNITS = ("_ms", "_us", "_ns", "_s")


@dataclass(frozen=True)
class TimingProfile:
    """One GPU with one model. A megapixel is a million pixels; an item is an image or a video."""

    gpu: str
    model: str
    kv_cache_tokens: int  # what the KV cache holds
    # The API server: one process, one event loop.
    render_ms: float  # template and tokens of one request
    decode_ms: float  # one megapixel as sent, on one of eight threads
    preprocess_item_ms: float  # one item, on the only thread there is for this
    preprocess_ms: float  # one megapixel as the model sees it, on the same thread
    cached_item_ms: float  # one item whose pixels are still known from before, on the same thread
    health_ms: float  # what each request in rendering adds to the answer of /health
    # The GPU.
    iteration_ms: float  # one pass through the model, however little it has to do
    prefill_us: float  # each prompt token in it
    decode_us: float  # each sequence that gets its next token in it
    context_ns: float  # each token of context that such a sequence looks back at
    encode_item_ms: float  # each item that the vision encoder sees in it
    encode_us: float  # each of its vision tokens
    sleep_s: float
    wake_s: float
    # What a profile may leave out.
    prefill_pair_ns: float = 0.0  # each prompt token with each token before it: attention over long prompts
    encode_pair_ns: float = 0.0  # each two vision tokens of one item: attention within a picture
    tokens_per_word: float = 1.0  # of what users write; an answer's token is always one word of the canned text

    def faster(self, speed: float) -> "TimingProfile":
        times = (field.name for field in fields(self) if field.name.endswith(TIME_UNITS))
        return replace(self, **{name: getattr(self, name) / speed for name in times})


def profile_names() -> list[str]:
    """The profiles that come with the emulator."""
    return sorted(file.stem for file in PROFILE_FOLDER.glob("*.yaml"))


def load_profile(name_or_path: str) -> TimingProfile:
    """Read a profile by its name or from a file. Raises ValueError with one sentence when it is wrong."""
    path = PROFILE_FOLDER / f"{name_or_path}.yaml" if name_or_path in profile_names() else Path(name_or_path)
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{name_or_path}: {error.strerror}; known by name: {', '.join(profile_names())}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    return parse_profile(document, str(path))


def parse_profile(document: object, where: str) -> TimingProfile:
    """Check each value. Raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError(f"{where} wants one value a line")
    wanted = {field.name: field.type for field in fields(TimingProfile)}
    optional = {field.name: field.default for field in fields(TimingProfile) if field.default is not MISSING}
    document = {**optional, **document}
    if wrong := sorted(map(str, wanted.keys() ^ document.keys())):
        raise ValueError(f"{where}: missing or unknown: {', '.join(wrong)}")
    for name, kind in wanted.items():
        value = document[name]
        if kind is str and not isinstance(value, str):
            raise ValueError(f"{where}: {name} wants a text, found {value!r}")
        if kind is not str and (not isinstance(value, int | float) or isinstance(value, bool) or value < 0):
            raise ValueError(f"{where}: {name} wants a number of at least 0, found {value!r}")
    return TimingProfile(**document)
