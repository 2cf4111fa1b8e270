"""`python -m manyeyes.render.kubernetes [--config FILE] [--out DIR]`: writes the tree for Kubernetes, says which files changed."""

import argparse
import os
import sys
from pathlib import Path

from manyeyes.config.keys import KeysError, load_keys
from manyeyes.config.loader import ConfigError, keys_path, load
from manyeyes.config.placement import PlacementError
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.rendered_file import write_files

COMMITTED = Path("deploy/kubernetes")
BY_HAND = frozenset({"README.md"})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m manyeyes.render.kubernetes", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    parser.add_argument("--out", type=Path, default=COMMITTED)
    given = parser.parse_args()
    try:
        cluster = load(given.config)
        root = os.path.relpath(Path.cwd(), given.out)
        files = tree(cluster, load_keys(keys_path(given.config, cluster)), root)
    except (ConfigError, KeysError, PlacementError) as error:
        print(error, file=sys.stderr)
        return 2
    for name in write_files(files, given.out, kept=BY_HAND):
        print(f"{given.out / name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
