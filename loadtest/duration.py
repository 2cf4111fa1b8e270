"""Times as people write them."""

import re

_PART = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """90, 90s, 10m, 1h30m. Raises ValueError with one sentence."""
    plain = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        plain += "s"
    parts = _PART.findall(plain)
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not total or "".join(number + unit for number, unit in parts) != plain:
        raise ValueError(f"a duration is written 90s, 10m or 2h, and is above 0; found {text!r}")
    return total
