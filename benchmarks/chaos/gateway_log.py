"""The gateway's request log, by the ids that users gave. Pure."""

import json
from collections import defaultdict
from dataclasses import dataclass

ID = "lt-"
"""How ids of the load test's users begin."""


@dataclass(frozen=True)
class Logged:
    """One line. `engines`: how many were asked for it."""

    status: int
    engines: int


def by_id(text: str) -> dict[str, list[Logged]]:
    """Every line about a user's request; a line that a kill cut in two is left out."""
    found: dict[str, list[Logged]] = defaultdict(list)
    for line in text.splitlines():
        if ID not in line or not line.startswith("{"):
            continue
        try:
            told = json.loads(line)
            name, status = str(told["request"]), int(told["status"])
        except (ValueError, KeyError, TypeError):
            continue
        if name.startswith(ID):
            # nginx joins attempts at one pool with commas, and those at the next pool with colons.
            attempts = [one for part in str(told.get("attempts", "")).split(", ") for one in part.split(" : ") if one]
            found[name].append(Logged(status, len(attempts)))
    return dict(found)
