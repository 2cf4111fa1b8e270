"""`python -m tests.golden.make`: writes what each example configuration renders to; test_golden.py compares."""

from pathlib import Path

from manyeyes.config.inventory import DEFAULT
from manyeyes.config.loader import load
from manyeyes.config.placement import lay_out
from manyeyes.render.nginx.files import gateway_files
from manyeyes.render.renderer import render
from manyeyes.render.writer import write

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent
EXAMPLES = sorted((ROOT / "config/examples").glob("*.yaml"))


def rendered(example: Path) -> dict[str, str]:
    """{file: text} for one example on the assumed two-GPU host."""
    config_file = example.relative_to(ROOT)
    cluster = load(example)
    gateway = gateway_files(lay_out(cluster, DEFAULT))
    return render(cluster, DEFAULT, config_file, Path("rendered") / example.stem) | {
        f"nginx/{name}": text for name, text in gateway.items()
    }


if __name__ == "__main__":
    for example in EXAMPLES:
        for name in write(rendered(example), GOLDEN / example.stem):
            print(f"tests/golden/{example.stem}/{name}: written")
