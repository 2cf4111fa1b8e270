"""`python -m tests.golden.make`: writes what each example configuration renders to; test_golden.py compares."""

from pathlib import Path

from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.render.nginx.files import gateway_files
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent
EXAMPLES = sorted((ROOT / "config/examples").glob("*.yaml"))


def rendered(example: Path) -> dict[str, str]:
    """{file: text} for one example on the assumed two-GPU host."""
    config_file = example.relative_to(ROOT)
    cluster = place_engines(load(example), DEFAULT_INVENTORY)
    gateway = gateway_files(cluster)
    return render(cluster, DEFAULT_INVENTORY, config_file, Path("rendered") / example.stem) | {
        f"nginx/{name}": text for name, text in gateway.items()
    }


if __name__ == "__main__":
    for example in EXAMPLES:
        for name in write_files(rendered(example), GOLDEN / example.stem):
            print(f"tests/golden/{example.stem}/{name}: written")
