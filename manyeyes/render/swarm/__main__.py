"""`python -m manyeyes.render.swarm [--config FILE] [--out DIR]`: writes a stack for each flavour, says which files changed."""

import argparse
import os
import sys
from pathlib import Path

from manyeyes.config.cluster import Cluster
from manyeyes.config.keys import ApiKeys, KeysError, load_keys
from manyeyes.config.loader import ConfigError, keys_path, load
from manyeyes.config.placement import PlacementError
from manyeyes.render.multi_node_clusters import clusters
from manyeyes.render.rendered_file import write_files
from manyeyes.render.swarm.stack import read_of_repository, stack

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = Path("deploy/swarm")


def stacks(cluster: Cluster, keys: ApiKeys, out: Path = COMMITTED) -> dict[str, str]:
    """{FLAVOUR/file: text} for every flavour, to be written to `out`."""
    paths = [
        str(path.relative_to(ROOT))
        for folder in ("nginx", "manyeyes/engine", "manyeyes/observability")
        for path in (ROOT / folder).rglob("*")
    ]
    own = {path: (ROOT / path).read_text(encoding="utf-8") for path in read_of_repository(paths)}
    return {
        f"{flavour}/{name}": text
        for flavour, laid_out in clusters(cluster).items()
        for name, text in stack(laid_out, own, keys, os.path.relpath(ROOT, out.absolute() / flavour)).items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m manyeyes.render.swarm", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    parser.add_argument("--out", type=Path, default=COMMITTED)
    given = parser.parse_args()
    try:
        cluster = load(given.config)
        files = stacks(cluster, load_keys(keys_path(given.config, cluster)), given.out)
    except (ConfigError, KeysError, PlacementError) as error:
        print(error, file=sys.stderr)
        return 2
    for name in write_files(files, given.out):
        print(f"{given.out / name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
