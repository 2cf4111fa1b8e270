"""`python -m manyeyes.render [--config FILE] [--inventory FILE] [--out DIR]`: writes the rendered files, says which changed."""

import argparse
import sys
from pathlib import Path

import yaml

from manyeyes.config.loader import ConfigError, load
from manyeyes.config.placement import DEFAULT_INVENTORY, Inventory, PlacementError, place_engines
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render

COMMITTED = Path("compose/rendered/default")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m manyeyes.render", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    parser.add_argument("--inventory", type=Path, help="what the host has; without it: two GPUs of 24 GiB")
    parser.add_argument("--out", type=Path, default=COMMITTED)
    arguments = parser.parse_args()
    inventory = DEFAULT_INVENTORY
    try:
        if arguments.inventory:
            inventory = Inventory.model_validate(yaml.safe_load(arguments.inventory.read_text(encoding="utf-8")))
        cluster = place_engines(load(arguments.config), inventory)
        files = render(cluster, inventory, arguments.config, arguments.out)
    except (ConfigError, PlacementError) as error:
        print(error, file=sys.stderr)
        return 2
    for name in write_files(files, arguments.out):
        print(f"{arguments.out / name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
