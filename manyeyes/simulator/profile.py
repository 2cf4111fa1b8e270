"""Timing profile of one GPU with one model, read from profiles/*.yaml, where each number has its source."""

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
    kv_cache_tokens: int  # capacity of the KV cache
    # The API server: one process, one event loop.
    render_ms: float  # chat template and tokenising, per request
    decode_ms: float  # per megapixel as sent, on one of eight threads
    preprocess_item_ms: float  # per item, on the single preprocessing thread
    preprocess_ms: float  # per megapixel after resizing, on the same thread
    cached_item_ms: float  # per item whose preprocessed pixels are cached, on the same thread
    health_ms: float  # added to the response time of /health by each request in rendering
    # The GPU.
    iteration_ms: float  # per iteration, the minimum duration
    prefill_us: float  # per prompt token in an iteration
    decode_us: float  # per sequence that gets its next token in an iteration
    context_ns: float  # per token of context of such a sequence
    encode_item_ms: float  # per item that the vision encoder encodes in an iteration
    encode_us: float  # per vision token of such an item
    sleep_s: float
    wake_s: float
    # Optional in a profile.
    prefill_pair_ns: float = 0.0  # per pair of a prompt token and a token before it: attention over long prompts
    encode_pair_ns: float = 0.0  # per pair of vision tokens of one item: attention within an image
    tokens_per_word: float = 1.0  # of the users' texts; an answer's token is always one word of the canned text

    def faster(self, speed: float) -> "TimingProfile":
        times = (field.name for field in fields(self) if field.name.endswith(TIME_UNITS))
        return replace(self, **{name: getattr(self, name) / speed for name in times})


def profile_names() -> list[str]:
    """Names of the profiles that ship with the emulator."""
    return sorted(file.stem for file in PROFILE_FOLDER.glob("*.yaml"))


def load_profile(name_or_path: str) -> TimingProfile:
    """Read a profile by its name or from a file. Raises ValueError with a one-sentence message if it is invalid."""
    path = PROFILE_FOLDER / f"{name_or_path}.yaml" if name_or_path in profile_names() else Path(name_or_path)
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{name_or_path}: {error.strerror}; known profiles: {', '.join(profile_names())}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    return parse_profile(document, str(path))


def parse_profile(document: object, source: str) -> TimingProfile:
    """Check each value. Raises ValueError if one is invalid."""
    if not isinstance(document, dict):
        raise ValueError(f"{source}: expected lines of `name: value`")
    types = {field.name: field.type for field in fields(TimingProfile)}
    optional = {field.name: field.default for field in fields(TimingProfile) if field.default is not MISSING}
    document = {**optional, **document}
    if mismatched := sorted(map(str, types.keys() ^ document.keys())):
        raise ValueError(f"{source}: missing or unknown: {', '.join(mismatched)}")
    for name, value_type in types.items():
        value = document[name]
        if value_type is str and not isinstance(value, str):
            raise ValueError(f"{source}: {name}: expected a text, got {value!r}")
        if value_type is not str and (not isinstance(value, int | float) or isinstance(value, bool) or value < 0):
            raise ValueError(f"{source}: {name}: expected a number of at least 0, got {value!r}")
    return TimingProfile(**document)
