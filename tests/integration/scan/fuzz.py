"""Compares the gateway's reading of request bodies with an engine's, over random hostile bodies.

    .venv/bin/python -m tests.integration.scan.fuzz --seconds 3600

Each round starts from the files in corpus/ and from tests/integration/scan/mutations.py. A body that the gateway read
in a way not seen before is kept in corpus/ if it is small. A body with a fault is written to corpus/ too, and the
command exits with 1.
"""

import argparse
import hashlib
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.integration.scan.mutations import Mutator, originals
from tests.integration.scan.reference import faults
from tests.integration.scan.server import Modules, modules

CORPUS = Path(__file__).parent / "corpus"
MAX_KEPT_BYTES = 2000
MAX_KEPT_FILES = 100


def outcome(found: dict[str, Any]) -> str:
    """What makes two readings the same: the refusal without its numbers, or which facts there are."""
    if "refused" in found:
        return re.sub(r"(messages|input)\S*|\d+", "0", found["refused"])
    return f"{min(2, len(found['sizes']))} {bool(found['links'])} {bool(found['videos'])} {found['answers'] > 1}"


def fuzz_round(njs: Modules, mutator: Mutator, count: int) -> list[tuple[bytes, dict[str, Any], list[str]]]:
    """[(body, facts, faults)] of `count` random bodies."""
    documents = [mutator.document() for _ in range(count)]
    return [(one, found, faults(one, found)) for one, found in zip(documents, njs.read(documents), strict=True)]


def corpus() -> list[bytes]:
    return [file.read_bytes() for file in sorted(CORPUS.glob("*.body"))]


def keep(document: bytes, prefix: str = "") -> None:
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{prefix}{hashlib.sha256(document).hexdigest()[:16]}.body").write_bytes(document)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    given = options.parse_args()
    deadline, bodies, failed = time.monotonic() + given.seconds, 0, 0
    with tempfile.TemporaryDirectory() as folder, modules(Path(folder)) as njs:
        known = corpus()
        seen = {outcome(found) for found in njs.read(known)} if known else set()
        seed = given.seed
        while time.monotonic() < deadline:
            seed += 1
            for document, found, problems in fuzz_round(njs, Mutator(seed, originals()), 200):
                bodies += 1
                if problems:
                    failed += 1
                    keep(document, "fault-")
                    print(f"seed {seed}: {problems}")
                is_new = outcome(found) not in seen
                seen.add(outcome(found))
                if is_new and len(document) <= MAX_KEPT_BYTES and len(list(CORPUS.glob("*"))) < MAX_KEPT_FILES:
                    keep(document)
    print(f"seed {given.seed}: {bodies} bodies, {len(seen)} different readings, {failed} faults")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
