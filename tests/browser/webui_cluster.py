"""The page behind the real nginx, with emulated engines, as processes on the loopback address: no Docker.

To try the page by hand: python -m tests.browser.webui_cluster
"""

import contextlib
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from manyeyes.devcluster.cluster import QUICK, LocalCluster, local_cluster

ENGINES = {"gpu-0", "gpu-1", "gpu-2"}
CALM = ("--start-seconds=0", "--ttft-ms=120", "--image-ms=30", "--tpot-ms=25", "--faults")


def document() -> dict[str, Any]:
    """Two pools, as the shipped configuration has them on three GPUs."""
    media = {"images_per_prompt": 4, "videos_per_prompt": 1}
    return {
        "pools": [
            {"name": "qwen3-vl-8b", "model": "org/Big-VL", "fallback": "qwen3-vl-4b", "media": media},
            {"name": "qwen3-vl-4b", "model": "org/Small-VL", "media": media},
        ],
        "engines": [
            {"name": "gpu-0", "pool": "qwen3-vl-8b"},
            {"name": "gpu-1", "pool": "qwen3-vl-8b"},
            {"name": "gpu-2", "pool": "qwen3-vl-4b"},
        ],
        "auto": [{"pool": "qwen3-vl-4b", "min_images": 2}, {"pool": "qwen3-vl-8b"}],
    }


@contextlib.contextmanager
def page_stand(
    folder: Path, engine_flags: Sequence[str] = QUICK, admin_key: str = "", **webui: Any
) -> Iterator[LocalCluster]:
    """The running parts with the page; `url` is the gateway's, and the page's. `webui`: that section of cluster.yaml."""
    if admin_key:
        (folder / "secrets").mkdir()
        (folder / "secrets/admin.key").write_text(f"{admin_key}\n")
    with local_cluster(folder, document() | {"webui": webui}, engine_flags=engine_flags) as running:
        running.all_up(ENGINES)
        for page in running.pages:
            running.start_page(page)
        yield running


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, page_stand(Path(folder), CALM) as running:
        print(f"{running.url}  (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
