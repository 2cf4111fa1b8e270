"""`python -m tests.golden.make`: writes what each example configuration renders to; test_golden.py compares."""

from pathlib import Path

from config.inventory import DEFAULT
from config.load import load
from render.cluster import render
from render.write import write

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent
EXAMPLES = sorted((ROOT / "config/examples").glob("*.yaml"))


def rendered(example: Path) -> dict[str, str]:
    """{file: text} for one example on the assumed two-GPU host."""
    config_file = example.relative_to(ROOT)
    return render(load(example), DEFAULT, config_file, Path("rendered") / example.stem)


if __name__ == "__main__":
    for example in EXAMPLES:
        for name in write(rendered(example), GOLDEN / example.stem):
            print(f"tests/golden/{example.stem}/{name}: written")
