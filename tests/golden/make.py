"""`python -m tests.golden.make`: writes what the three golden configurations render to; test_golden.py compares."""

from pathlib import Path

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.render.nginx.files import NO_KEYS, gateway_files
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent
CASES = {
    "one-gpu": ROOT / "config/examples/one-gpu.yaml",
    "with-remote-fallback": ROOT / "config/examples/with-remote-fallback.yaml",
    "everything-on": GOLDEN / "everything-on.yaml",
}
"""One GPU box, several models that stand in for each other, every part that is off by default."""
KEYS = {"everything-on": ApiKeys(keys=(ApiKey(name="alice", sha256="a" * 64, requests_per_minute=60, in_flight=4),))}


def rendered(case: str) -> dict[str, str]:
    """{file: text} on the assumed two-GPU host."""
    cluster = place_engines(load(CASES[case]), DEFAULT_INVENTORY)
    gateway = gateway_files(cluster, KEYS.get(case, NO_KEYS))
    files = render(cluster, DEFAULT_INVENTORY, CASES[case].relative_to(ROOT), Path("rendered") / case)
    return files | {f"nginx/{name}": text for name, text in gateway.items()}


if __name__ == "__main__":
    for case in CASES:
        for name in write_files(rendered(case), GOLDEN / case):
            print(f"tests/golden/{case}/{name}: written")
