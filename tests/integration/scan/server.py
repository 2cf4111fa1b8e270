"""The gateway's njs modules in the real nginx, without the gateway around them."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from manyeyes.devcluster.cluster import ROOT, modules_folder, nginx_binary, own_user
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port, is_listening

CONF = """
{load}
worker_processes 1; daemon off; pid {folder}/pid; error_log stderr warn; {user}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    js_engine qjs;
    js_path {root}/nginx/njs/; js_path {root}/tests/integration/scan/;
    js_import scan.js;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 200m; client_body_buffer_size 64m;
        location /read {{ js_content scan.read; }}
        location /cost {{ js_content scan.cost; }}
        location /renamed {{ js_content scan.renamed; }}
        location /conversations {{ js_content scan.conversations; }}
        location /choices {{ js_content scan.choices; }}
        location /regexSizes {{ js_content scan.regexSizes; }}
        location /links {{ js_content scan.refusedLinks; }}
        location /hops {{ js_content scan.hops; }}
        location /losses {{ js_content scan.losses; }}
        location /described {{ js_content scan.described; }}
        location /digest {{ js_content scan.digest; }}
    }}
}}
"""


class Modules:
    """Asks one module about many inputs in one request."""

    def __init__(self, client: httpx.Client, process: int) -> None:
        self.client = client
        self._process = process

    @property
    def worker(self) -> int:
        """The process that runs the modules."""
        return int(Path(f"/proc/{self._process}/task/{self._process}/children").read_text().split()[0])

    def read(self, documents: list[bytes]) -> list[dict[str, Any]]:
        """request.read of each document: its facts, or {"refused": sentence}."""
        found: list[dict[str, Any]] = self._asked("/read", joined(documents))
        return found

    def renamed(self, documents: list[bytes]) -> list[str]:
        """request.withModel of each document, with the model `another "one"`."""
        texts: list[str] = self._asked("/renamed", joined(documents))
        return texts

    def digest(self, document: bytes) -> str:
        """The digest of lost_requests.js."""
        return str(self._asked("/digest", document))

    def described(self, document: object) -> str:
        """The content parts that content_parts.js names."""
        return str(self._asked("/described", json.dumps(document).encode()))

    def ask(self, path: str, inputs: list[Any]) -> Any:
        return self._asked(path, json.dumps(inputs).encode())

    def _asked(self, path: str, body: bytes) -> Any:
        reply = self.client.post(path, content=body)
        assert reply.status_code == 200, reply.text
        return reply.json()


def joined(documents: list[bytes]) -> bytes:
    """Documents after a line of their lengths."""
    return json.dumps([len(document) for document in documents]).encode() + b"\n" + b"".join(documents)


@contextlib.contextmanager
def modules(folder: Path) -> Iterator[Modules]:
    port = free_port()
    conf = folder / "nginx.conf"
    load = f"load_module {modules_folder()}/ngx_http_js_module.so;"
    conf.write_text(CONF.format(load=load, folder=folder, root=ROOT, port=port, user=own_user()))
    log = (folder / "nginx.log").open("w")
    process = subprocess.Popen([nginx_binary(), "-p", folder, "-c", conf], stdout=log, stderr=log)
    try:
        eventually(lambda: is_listening(port), 10, 0.05, "nginx listens")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield Modules(client, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()
        print((folder / "nginx.log").read_text()[-4000:])
