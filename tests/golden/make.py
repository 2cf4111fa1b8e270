"""`python -m tests.golden.make`: writes what the three golden configurations render to; test_golden.py compares."""

from pathlib import Path

from manyeyes.config.inventory import DEFAULT
from manyeyes.config.keys import Key, Keys
from manyeyes.config.loader import load
from manyeyes.config.placement import lay_out
from manyeyes.render.nginx.files import NO_KEYS, gateway_files
from manyeyes.render.renderer import render
from manyeyes.render.writer import write

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent
CASES = {
    "one-gpu": ROOT / "config/examples/one-gpu.yaml",
    "with-remote-fallback": ROOT / "config/examples/with-remote-fallback.yaml",
    "everything-on": GOLDEN / "everything-on.yaml",
}
"""One GPU box, several models that stand in for each other, every part that is off by default."""
KEYS = {"everything-on": Keys(keys=(Key(name="alice", sha256="a" * 64, requests_per_minute=60, in_flight=4),))}


def rendered(case: str) -> dict[str, str]:
    """{file: text} on the assumed two-GPU host."""
    cluster = load(CASES[case])
    gateway = gateway_files(lay_out(cluster, DEFAULT), KEYS.get(case, NO_KEYS))
    files = render(cluster, DEFAULT, CASES[case].relative_to(ROOT), Path("rendered") / case)
    return files | {f"nginx/{name}": text for name, text in gateway.items()}


if __name__ == "__main__":
    for case in CASES:
        for name in write(rendered(case), GOLDEN / case):
            print(f"tests/golden/{case}/{name}: written")
