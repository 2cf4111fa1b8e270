"""Runs a cluster of processes on the loopback address: emulated engines, the controller and nginx. No Docker."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from manyeyes.cli import env_file
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.loader import load
from manyeyes.config.placement import Inventory, place_engines
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port, is_listening
from manyeyes.engine.vllm_flags import served_names
from manyeyes.render.nginx.naming import NginxPaths
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--start-seconds=0", "--ttft-ms=20", "--image-ms=5", "--tpot-ms=4")
SHORT_INTERVALS = {"probe_interval_s": 0.25, "config_poll_interval_s": 0.2}
"""Controller settings for clusters that do not test the default intervals."""


def nginx_binary() -> str:
    """Path of nginx: $NGINX, or the program that manyeyes/devcluster/fetch/nginx unpacks."""
    if configured := os.environ.get("NGINX"):
        return configured
    subprocess.run([ROOT / "manyeyes/devcluster/fetch/nginx", ROOT / "build/nginx"], check=True, capture_output=True)
    return str(ROOT / "build/nginx/nginx")


def modules_folder() -> str:
    fetched = ROOT / "build/nginx/root/usr/lib/nginx/modules"
    return str(fetched) if fetched.exists() and "NGINX" not in os.environ else "/usr/lib/nginx/modules"


def own_user() -> str:
    """The `user` directive for root: nginx's default user cannot read the folders of tests."""
    return "user root;" if os.geteuid() == 0 else ""


@dataclass
class LocalCluster:
    """The running parts. `url` is the URL of the gateway."""

    folder: Path
    document: dict[str, Any]
    engine_flags: Sequence[str] = QUICK
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    client: httpx.Client = field(
        default_factory=lambda: httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
    )
    """Opens a connection for every request: a reload of nginx closes idle ones, and one that is used at that moment fails."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['gateway']}"

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text(errors="replace")

    def start(self, part: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        with (self.folder / f"{part}.log").open("a") as output:
            self.processes[part] = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                text=True,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def kill(self, part: str, signal_number: int = signal.SIGKILL) -> None:
        process = self.processes.pop(part)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        process.wait(timeout=20)

    def start_engine(self, name: str, *extra_flags: str) -> None:
        engine = next(engine for engine in self.document["engines"] if engine["name"] == name)
        inventory = yaml.safe_load((self.folder / "rendered/inventory.yaml").read_text())
        cluster = place_engines(load(self.folder / "cluster.yaml"), Inventory.model_validate(inventory))
        names = served_names(cluster, cluster.pool(engine["pool"]))
        flags = ["--host=127.0.0.1", f"--port={self.ports[name]}", "--served-model-name", *names]
        flags += [
            "--enable-log-requests",
            '--limit-mm-per-prompt={"image":4,"video":1}',
            "--enable-server-load-tracking",
        ]
        command = [sys.executable, "-m", "manyeyes.emulator", *flags, *QUICK, *self.engine_flags, *extra_flags]
        self.start(name, command, {"MANYEYES_ENGINE": name, "MANYEYES_POOL": engine["pool"]})

    @property
    def page_headers(self) -> dict[str, str]:
        """Headers that open the gateway's internal port."""
        return {"X-ManyEyes-Page-Key": (self.folder / "secrets/page.key").read_text().strip()}

    @property
    def page_url(self) -> str:
        """URL of the page without nginx, which would replace the key that a browser sends."""
        return f"http://127.0.0.1:{self.ports['webui']}"

    @property
    def pages(self) -> list[str]:
        """Names of the page's copies: webui, webui-2 and so on."""
        copies = int(self.document.get("webui", {}).get("replicas", 1))
        return ["webui", *(f"webui-{number}" for number in range(2, copies + 1))]

    @property
    def nginx_paths(self) -> NginxPaths:
        """Addresses and folders for nginx's files, in place of those of the containers."""
        return NginxPaths(
            controller="127.0.0.1",
            controller_dns_port=self.ports["dns"],
            controller_http_port=self.ports["controller"],
            controller_syslog_port=self.ports["syslog"],
            outside_resolver=f"127.0.0.1:{self.ports['dns']}",
            listen=f"127.0.0.1:{self.ports['gateway']}",
            secrets=str(self.folder / "secrets"),
            pages=tuple(f"127.0.0.1:{self.ports[page]}" for page in self.pages),
            caches=str(self.folder / "nginx/tmp"),
        )

    def start_controller(self, overrides: dict[str, str] | None = None) -> None:
        environment = {
            "MANYEYES_CONFIG": str(self.folder / "cluster.yaml"),
            "MANYEYES_INVENTORY": str(self.folder / "rendered/inventory.yaml"),
            "MANYEYES_STATE": str(self.folder / "state"),
            "MANYEYES_NGINX_CONFIG_DIR": str(self.folder / "offered"),
            "MANYEYES_NGINX_PATHS": json.dumps(dataclasses.asdict(self.nginx_paths)),
            "MANYEYES_GATEWAY_INTERNAL_URL": f"http://127.0.0.1:{self.ports['inside']}",
            "MANYEYES_SECRETS": str(self.folder / "secrets"),
            "MANYEYES_ADAPTER_NAME": "127.0.0.1",
            "MANYEYES_CONTROLLER_HOST": "127.0.0.1",
            "MANYEYES_CONTROLLER_HTTP_PORT": str(self.ports["controller"]),
            "MANYEYES_CONTROLLER_DNS_PORT": str(self.ports["dns"]),
            "MANYEYES_CONTROLLER_SYSLOG_PORT": str(self.ports["syslog"]),
            **(overrides or {}),
        }
        self.start("controller", [sys.executable, "-m", "manyeyes.controller"], environment)

    def start_page(self, page: str = "webui") -> None:
        """Starts the web page, which nginx serves at /. It is not started by default, because few tests open it."""
        environment = {
            "MANYEYES_GATEWAY_URL": f"http://127.0.0.1:{self.ports['page']}",
            "MANYEYES_CONTROLLER_URL": f"http://127.0.0.1:{self.ports['controller']}",
            "MANYEYES_WEBUI_PORT": str(self.ports[page]),
            "MANYEYES_CONFIG": str(self.folder / "cluster.yaml"),
            "MANYEYES_PAGE_KEY_FILE": str(self.folder / "secrets/page.key"),
            "MANYEYES_STATE": str(self.folder / "page-state"),
            "GRADIO_TEMP_DIR": str(self.folder / f"uploads-{page}"),
        }
        self.start(page, [sys.executable, "-m", "webui"], environment)
        eventually(lambda: is_listening(self.ports[page]), 60, 0.2, "the page listens")

    def configure(self, document: dict[str, Any]) -> None:
        """Replaces cluster.yaml as editors do: with a new file of the same name."""
        self.document = document
        new_file = self.folder / "cluster.yaml.new"
        new_file.write_text(yaml.safe_dump(document))
        new_file.replace(self.folder / "cluster.yaml")

    def configuration(self) -> dict[str, Any]:
        """The controller's status of the configuration; empty while the controller does not answer."""
        with contextlib.suppress(httpx.TransportError):
            return dict(self.client.get(f"http://127.0.0.1:{self.ports['controller']}/api/configuration").json())
        return {}

    def reloads(self) -> int:
        """Number of configurations that nginx has loaded since its start."""
        return self.log("nginx").count('"event":"configuration_applied"') - 1

    def restart_nginx(self) -> None:
        nginx_folder = self.folder / "nginx"
        environment = {
            "NGINX_BINARY": nginx_binary(),
            "NGINX_FILES": str(nginx_folder),
            "NGINX_GLOBALS": f"daemon off; {own_user()}",
            "NGINX_CONFIG_DIR": str(self.folder / "offered"),
            "SECRETS": self.nginx_paths.secrets,
            "NGINX_ACTIVE_DIR": str(nginx_folder / "tmp/gateway"),
        }
        malloc = env_file.read(ROOT / "nginx/malloc.env")
        self.start("nginx", ["sh", str(ROOT / "nginx/start.sh")], malloc | environment)
        # A check of the listening port is not enough: `nginx -t` also listens for a moment.
        eventually(lambda: _answers(f"http://127.0.0.1:{self.ports['inside']}/generation"), 30, 0.05, "nginx answers")

    def start_adapter(self) -> None:
        """Starts the adapter. It is not started by default, because few tests have endpoints with another API."""
        environment = {
            "MANYEYES_STATE": str(self.folder / "state"),
            "MANYEYES_SECRETS": str(self.folder / "secrets"),
            "MANYEYES_ADAPTER_HOST": "127.0.0.1",
            "MANYEYES_ADAPTER_PORT": str(self.ports.setdefault("adapter", free_port())),
        }
        self.start("adapter", [sys.executable, "-m", "manyeyes.openai_adapter"], environment)
        eventually(lambda: is_listening(self.ports["adapter"]), 20, 0.05, "the adapter listens")

    def ask(self, model: str = "big", **fields: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5} | fields
        return self.client.post(f"{self.url}/v1/chat/completions", json=body)

    def healthz(self) -> dict[str, Any]:
        return dict(self.client.get(f"{self.url}/healthz").json())

    def all_down(self, engines: set[str], within_s: float = 30) -> None:
        """Waits until the gateway sends requests to none of `engines`."""
        self.all_up(engines, within_s, up=False)

    def all_up(self, engines: set[str], within_s: float = 30, *, up: bool = True) -> None:
        """Waits until the gateway may send requests to each of `engines`."""

        def check() -> bool:
            states = {engine["name"]: engine["state"] for pool in self.healthz()["pools"] for engine in pool["engines"]}
            assert all((states.get(name) == "up") is up for name in engines), states
            return True

        eventually(check, within_s, 0.1, f"{sorted(engines)} are {'up' if up else 'down'}")
        pools = {engine["pool"] for engine in self.document["engines"] if engine["name"] in engines}
        self.nginx_has_resolved(pools)

    def nginx_has_resolved(self, pools: set[str], within_s: float = 20) -> None:
        """Waits until nginx has resolved the members of each of `pools` again, which it does every second."""
        (before,) = eventually(lambda: (self._dns_answers(),), within_s, 0.05, "the controller answers")
        eventually(
            lambda: not pools - set(self._dns_answers() - before), within_s, 0.05, f"nginx resolves {sorted(pools)}"
        )

    def _dns_answers(self) -> Counter[str]:
        """Number of the controller's DNS answers by pool.

        Raises AssertionError while the controller does not answer.
        """
        try:
            text = self.client.get(f"http://127.0.0.1:{self.ports['controller']}/metrics").text
        except httpx.TransportError as error:
            raise AssertionError(f"the controller: {error}") from error
        answers: Counter[str] = Counter()
        for pool, count in re.findall(r'^manyeyes_dns_answers_total\{.*name="([^"]*)".*\} (\S+)$', text, re.MULTILINE):
            answers[pool] += int(float(count))
        return answers

    def answers_from(self, model: str, engines: set[str], within_s: float = 30) -> None:
        """Waits until the gateway sends requests for `model` to exactly the engines in `engines`."""

        def check() -> bool:
            engines_seen = {self.ask(model).headers.get("X-ManyEyes-Engine") for _ in range(4 * len(engines))}
            assert engines_seen == engines, engines_seen
            return True

        eventually(check, within_s, 0.2, f"answers from exactly {sorted(engines)}")


@contextlib.contextmanager
def local_cluster(
    folder: Path,
    document: dict[str, Any],
    keys: ApiKeys | None = None,
    engine_flags: Sequence[str] = QUICK,
    addresses: Mapping[str, str] | None = None,
    prints_logs: bool = True,
) -> Iterator[LocalCluster]:
    """Starts engines (except those whose name starts with `late`), controller and gateway; prints all logs at the end,
    for tests.

    With `addresses` (engine's name -> host:port) the engines already run, and no engine is started here.
    """
    running = LocalCluster(folder, document, engine_flags=engine_flags)
    for engine in document["engines"]:
        running.ports[engine["name"]] = int(addresses[engine["name"]].split(":")[1]) if addresses else free_port()
        engine["address"] = f"127.0.0.1:{running.ports[engine['name']]}"
        engine["flavour"] = "emulated"
    for part in ("gateway", "page", "inside", "controller", "dns", "syslog", *running.pages):
        running.ports[part] = free_port()
    # Many tests start and stop the same engine repeatedly, but do not test flapping.
    document.setdefault("controller", {"flap_downs": 100, "register_loopback": True} | SHORT_INTERVALS)
    (folder / "cluster.yaml").write_text(yaml.safe_dump(document))
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets/page.key").write_text("the-page-key-of-this-cluster\n")
    if keys:
        (folder / "api-keys.yaml").write_text(yaml.safe_dump(keys.model_dump(mode="json")))
    inventory = Inventory(flavour="emulated")
    placed_cluster = place_engines(load(folder / "cluster.yaml"), inventory)
    write_files(render(placed_cluster, inventory, Path("c.yaml"), Path("r")), folder / "rendered")
    try:
        for engine in document["engines"]:
            if not addresses and not engine["name"].startswith("late"):
                running.start_engine(engine["name"])
        running.start_controller()
        start_nginx(running)
        yield running
    finally:
        running.client.close()
        for part in list(running.processes):
            running.kill(part)
        for log in sorted(folder.glob("*.log")) if prints_logs else ():
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")


def start_nginx(running: LocalCluster) -> None:
    """Starts nginx as its container does, with the project's files and this host's paths and ports."""
    nginx_folder = running.folder / "nginx"
    shutil.copytree(ROOT / "nginx", nginx_folder)
    (nginx_folder / "tmp").mkdir()
    ports = running.ports
    replacements = [
        ("/tmp/", f"{nginx_folder}/tmp/"),
        ("/usr/lib/nginx/modules/", f"{modules_folder()}/"),
        ("listen 8079", f"listen 127.0.0.1:{ports['page']}"),
        ("listen 8088", f"listen 127.0.0.1:{ports['inside']}"),
        ("/run/secrets/manyeyes", running.nginx_paths.secrets),
        ("/dev/stdout", f"{running.folder}/access.log"),
    ]
    for file in (*nginx_folder.rglob("*.conf"), *nginx_folder.rglob("*.inc"), *nginx_folder.rglob("*.js")):
        text = file.read_text()
        for before, after in replacements:
            text = text.replace(before, after)
        file.write_text(text)
    running.restart_nginx()


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False
