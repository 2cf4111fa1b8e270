"""A Kubernetes namespace without Kubernetes: DNS as CoreDNS answers it, pods at loopback addresses, and the gateway and the controller
on the files that are rendered for Kubernetes, offered as the kubelet mounts a ConfigMap."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from manyeyes.config.loader import load
from manyeyes.devcluster.cluster import ROOT, LocalCluster, start_nginx
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port, is_listening
from manyeyes.render.kubernetes import own_services
from manyeyes.render.multi_node_clusters import clusters, multi_node_config
from manyeyes.render.nginx.files import NO_KEYS, build_generation
from manyeyes.render.nginx.naming import NginxPaths
from tests.integration.headless_dns import HeadlessDns, serving

ANSWERS_IN_S = 0.03


@dataclass
class Namespace(LocalCluster):
    """The running parts; `pods` are those that exist, `dns.services` those that are ready."""

    dns: HeadlessDns = field(kw_only=True)
    by_srv: bool = False
    """The gateway asks for SRV records, as on one host, which is not what is rendered."""
    pods: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    """Requests that were inside pods when they ended, where there were any."""

    @property
    def nginx_paths(self) -> NginxPaths:
        """As rendered for Kubernetes, with this host's ports and folders."""
        (cluster,) = clusters(load(self.folder / "cluster.yaml")).values()
        return replace(
            own_services.nginx_paths(cluster),
            controller="127.0.0.1",
            controller_http_port=self.ports["controller"],
            controller_syslog_port=self.ports["syslog"],
            resolver=f"127.0.0.1:{self.dns.port}",
            members_of=f"{{}}.{self.dns.domain}:{self.dns.engine_port}",
            outside_resolver=f"127.0.0.1:{self.dns.port}",
            listen=f"127.0.0.1:{self.ports['gateway']}",
            secrets=str(self.folder / "secrets"),
            caches=str(self.folder / "nginx/tmp"),
        )

    def create(self, *addresses: str) -> None:
        """Pods that run and are not ready yet."""
        for address in addresses:
            self._tell("start", address)
            self.pods.add(address)

    def end(self, *addresses: str) -> None:
        """Their processes are gone."""
        for address in addresses:
            if cut := self._tell("stop", address):
                self.cut[address] = cut
            self.pods.discard(address)

    def ready(self, pool: str, *addresses: str) -> None:
        """Exactly these are ready from here on."""
        self.dns.services = {**self.dns.services, pool: dict.fromkeys(addresses, "")}

    def _tell(self, do: str, address: str) -> int:
        process = self.processes["pods"]
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{do} {address}\n")
        process.stdin.flush()
        return int(process.stdout.readline().split()[2])

    def mount(self) -> None:
        """What is rendered for the gateway, as the kubelet mounts and replaces it: links into a folder behind one link."""
        (cluster,) = clusters(load(self.folder / "cluster.yaml")).values()
        files = own_services.generation_files(cluster, NO_KEYS, self.nginx_paths)
        if self.by_srv:
            files["pools.conf"] = files["pools.conf"].replace(f":{self.dns.engine_port} max", " service=http max")
            files = build_generation({name: text for name, text in files.items() if not name.startswith("generation")})[
                1
            ]
        current = self.folder / "offered/current"
        fresh = current / f"..{len(list(current.glob('..20*')))}20"
        fresh.mkdir(parents=True)
        for name, text in files.items():
            (fresh / name).write_text(text)
            if not (current / name).is_symlink():
                (current / name).symlink_to(f"..data/{name}")
        (current / "..data_tmp").symlink_to(fresh.name)
        (current / "..data_tmp").replace(current / "..data")
        (self.folder / "told.yaml").write_text(multi_node_config(cluster))


@contextlib.contextmanager
def namespace(folder: Path, document: dict[str, Any], by_srv: bool = False, quiet: bool = False) -> Iterator[Namespace]:
    """`document` is cluster.yaml; its engines are pods that the test starts. Prints all logs at the end, unless `quiet`."""
    (folder / "cluster.yaml").write_text(yaml.safe_dump(document))
    engine_port, dns_port = free_port(), free_port()
    found = HeadlessDns("manyeyes.svc.cluster.local", dns_port, engine_port=engine_port)
    running = Namespace(folder, document, dns=found, by_srv=by_srv)
    for part in ("gateway", "page", "inside", "controller", "dns", "syslog", "webui"):
        running.ports[part] = free_port()
    try:
        with serving(found):
            running.processes["pods"] = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.fake_pods", str(engine_port), str(ANSWERS_IN_S)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            running.mount()
            running.start_controller(
                {
                    "MANYEYES_CONFIG": str(folder / "told.yaml"),
                    "MANYEYES_SERVICES": running.nginx_paths.members_of,
                    "MANYEYES_RESOLVER": f"127.0.0.1:{dns_port}",
                }
            )
            eventually(lambda: is_listening(running.ports["controller"]), 30, 0.05, "the controller listens")
            start_nginx(running)
            yield running
    finally:
        running.client.close()
        pods = running.processes.get("pods")
        for part in list(running.processes):
            running.kill(part)
        for pipe in (pods.stdin, pods.stdout) if pods else ():
            if pipe:
                pipe.close()
        for log in () if quiet else sorted(folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
