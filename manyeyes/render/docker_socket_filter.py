"""Renders nginx.conf of the filter in front of Docker's socket. It allows only the Docker calls that the controller
needs.

A client that reaches Docker's socket is root on the host. Each allowed call therefore has a separate location
(`location =`, matched after nginx has resolved `..`, `//` and %-escapes). The path and the query that Docker receives
are written here; path, query, headers and body of the request are dropped.
"""

import json
from urllib.parse import quote

from manyeyes.config.placement import PlacedCluster
from manyeyes.render.rendered_file import with_header

PORT = 2375
SOCKET = "/run/docker.sock"
"""Path at which the service mounts the socket."""


def filter_conf(cluster: PlacedCluster) -> str:
    """The whole nginx.conf. Without `controller.containers` it allows no call, and the service is not started."""
    allowed = [_location("GET", "/_ping", "/_ping"), _allow_list(cluster)] if cluster.controller.containers else []
    if cluster.controller.containers:
        allowed += [_allow_stats(cluster, service) for service in watched_services(cluster)]
        for engine in cluster.started_engines:
            container = f"/containers/{cluster.name}-{engine.name}-1"
            allowed.append(_location("GET", f"{container}/json", f"{container}/json"))
            allowed += [
                _location("POST", f"{container}/{action}", f"{container}/{action}")
                for action in ("start", "stop", "restart")
            ]
    return with_header(_TEMPLATE.replace("@ALLOWED@", "".join(allowed).rstrip()))


def watched_services(cluster: PlacedCluster) -> list[str]:
    """The services whose use of CPU and memory the controller may query."""
    services = ["gateway", "controller", "webui", "containers"]
    services += ["adapter"] if cluster.starts_adapter else []
    if cluster.monitoring.enabled:
        services += ["prometheus", "alertmanager", "grafana", "nginx-exporter", "node-exporter"]
        services += ["dcgm-exporter"] if cluster.watches_gpus else []
    return [*services, *(engine.name for engine in cluster.started_engines)]


def _allow_stats(cluster: PlacedCluster, service: str) -> str:
    """Allows the resource figures of a container, one sample per call.

    The settings of a container, including its secrets, are in /json, which is allowed for engines only.
    """
    path = f"/containers/{cluster.name}-{service}-1/stats"
    return _location("GET", path, path, "stream=false&one-shot=true")


def _allow_list(cluster: PlacedCluster) -> str:
    """Lists only this project's engines, whatever query the client sends."""
    labels = [f"com.docker.compose.project={cluster.name}", "manyeyes.engine"]
    filters = quote(json.dumps({"label": labels}, separators=(",", ":")), safe="")
    return _location("GET", "/containers/json", "/containers/json", f"all=1&filters={filters}")


def _location(method: str, path: str, docker_path: str, query: str = "") -> str:
    # limit_except GET also allows HEAD, which returns less.
    return (
        f"        location = {path} {{\n"
        f"            limit_except {method} {{ deny all; }}\n"
        f'            set $args "{query}";\n'
        f"            proxy_pass http://docker{docker_path};\n"
        "        }\n"
    )


_TEMPLATE = f"""# A call that is not listed here gets 403.
worker_processes 1;
# Root without capabilities: the socket belongs to root.
user root;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;

events {{ worker_connections 64; }}

http {{
    access_log off;
    server_tokens off;
    client_body_temp_path /tmp/client_body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;

    client_max_body_size 1k;
    keepalive_timeout 65s;
    # Stopping an engine may take as long as its drain.
    proxy_read_timeout 7300s;
    proxy_http_version 1.1;
    proxy_pass_request_headers off;
    proxy_pass_request_body off;
    proxy_set_header Host docker;
    proxy_set_header Connection "";
    proxy_set_header Content-Length "";
    proxy_max_temp_file_size 0;

    upstream docker {{ server unix:{SOCKET}; }}

    server {{
        listen {PORT};
        merge_slashes on;

        location / {{ return 403; }}
@ALLOWED@
    }}
}}
"""
