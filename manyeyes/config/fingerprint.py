"""Which configuration: a short name for what stands in cluster.yaml and the keys file together."""

import hashlib
from pathlib import Path

from manyeyes.config.loader import keys_path, load


def digest(cluster: str | None, keys: str | None) -> str:
    """Twelve hexadecimal digits; other texts, other digits. None where there is no such file."""
    texts = (cluster or "", "" if keys is None else f"keys:{keys}")
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def digest_of(config: Path) -> str:
    """Of the file and the keys beside it. Raises ConfigError."""
    keys = keys_path(config, load(config))
    return digest(config.read_text(encoding="utf-8"), keys.read_text(encoding="utf-8") if keys.exists() else None)
