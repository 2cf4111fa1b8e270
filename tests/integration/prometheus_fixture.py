"""Prometheus alone beside a stand, at its own pace: what a terminal, a page and dashboards ask. watched.py has all parts, at alerts' pace."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from manyeyes.config.loader import load
from manyeyes.config.placement import Inventory, place_engines
from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.monitored_cluster import prometheus_program
from manyeyes.devcluster.ports import free_port
from manyeyes.monitoring.prometheus_client import PrometheusClient
from manyeyes.render.monitoring import Targets, prometheus_yml, rules_yml

DCGM = """\
DCGM_FI_DEV_GPU_UTIL{gpu="0"} 87
DCGM_FI_DEV_MEM_COPY_UTIL{gpu="0"} 41
DCGM_FI_DEV_FB_USED{gpu="0"} 21000
DCGM_FI_DEV_FB_FREE{gpu="0"} 3000
DCGM_FI_DEV_GPU_TEMP{gpu="0"} 71
DCGM_FI_DEV_POWER_USAGE{gpu="0"} 318.5
DCGM_FI_DEV_SM_CLOCK{gpu="0"} 2520
DCGM_FI_DEV_XID_ERRORS{gpu="0"} 0
DCGM_FI_DEV_PCIE_REPLAY_COUNTER{gpu="0"} 0
"""
"""What NVIDIA's exporter tells by default, as far as dashboards use it; a stand has no GPU."""


@contextlib.contextmanager
def prometheus_beside(running: LocalCluster) -> Iterator[PrometheusClient]:
    """Looks once a second. Engines and the controller are its targets, and a stand-in for the exporter of GPUs."""
    cluster = place_engines(load(running.folder / "cluster.yaml"), Inventory(flavour="emulated"))
    seconds = cluster.monitoring.model_copy(update={"scrape_interval_s": 1, "gpu_exporter": True})
    cluster = cluster.model_copy(update={"monitoring": seconds})
    with _exporter() as gpus:
        targets = Targets(controller=f"127.0.0.1:{running.ports['controller']}", gpu=f"127.0.0.1:{gpus}")
        folder = running.folder / "prometheus"
        folder.mkdir()
        (folder / "rules.yml").write_text(rules_yml(cluster))
        (folder / "prometheus.yml").write_text(prometheus_yml(cluster, targets))
        port = free_port()
        command = [
            prometheus_program("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
        ]
        running.start("prometheus", [*command, f"--web.listen-address=127.0.0.1:{port}"])
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _ready(url), 60, 0.2, "Prometheus is ready")
        yield PrometheusClient(url)


def _ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200
    return False


class _Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(DCGM.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def _exporter() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", free_port()), _Exporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
