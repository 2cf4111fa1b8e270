"""Keys and gateway settings -> who may ask, how much, and how the gateway listens."""

from manyeyes.config.keys import ApiKey, ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.render.nginx.naming import NginxPaths
from manyeyes.render.nginx.upstreams import as_map
from manyeyes.render.rendered_file import with_gateway_header


def keys_conf(cluster: PlacedCluster, keys: ApiKeys) -> str:
    """For nginx's http context: names of keys, and a zone for every distinct limit."""
    allowed = not cluster.gateway.wants_key(keys)
    names = {key.sha256: key.name for key in keys.keys} | {f"name:{key.name}": key.name for key in keys.keys}
    parts = [
        f'map "" $manyeyes_anonymous {{ default "{int(allowed)}"; }}\n',
        # Where there are no keys nothing is hashed.
        as_map("$manyeyes_key_hash" if names else '""', "$manyeyes_key", names),
    ]
    for rate, limited in _by_limit(keys, "requests_per_minute").items():
        parts.append(as_map("$manyeyes_key", f"$manyeyes_rate_{rate}", {key.name: key.name for key in limited}))
        parts.append(f"limit_req_zone $manyeyes_rate_{rate} zone=rate-{rate}:1m rate={rate}r/m;\n")
    for most, limited in _by_limit(keys, "in_flight").items():
        parts.append(as_map("$manyeyes_key", f"$manyeyes_in_flight_{most}", {key.name: key.name for key in limited}))
        parts.append(f"limit_conn_zone $manyeyes_in_flight_{most} zone=in-flight-{most}:1m;\n")
    return with_gateway_header("".join(parts))


def access_conf(cluster: PlacedCluster, keys: ApiKeys) -> str:
    """For the locations that ask for a key: nothing where nobody needs one."""
    return with_gateway_header("js_access gateway.authorize;\n" if cluster.gateway.wants_key(keys) else "")


def limits_conf(keys: ApiKeys) -> str:
    """For the location of API calls. A request whose key has no such limit has an empty name there, and is not counted."""
    lines = [f"limit_req zone=rate-{rate} burst={rate} nodelay;\n" for rate in _by_limit(keys, "requests_per_minute")]
    lines += [f"limit_conn in-flight-{most} {most};\n" for most in _by_limit(keys, "in_flight")]
    return with_gateway_header("".join(lines))


def settings_conf(cluster: PlacedCluster) -> str:
    """For every server block that takes API calls."""
    gateway = cluster.gateway
    return with_gateway_header(
        f"client_max_body_size {gateway.max_body_mb}m;\n"
        f"proxy_connect_timeout {_time(gateway.connect_timeout_s)};\n"
        f"proxy_read_timeout {gateway.read_timeout_s}s;\n"
        f"proxy_send_timeout {gateway.read_timeout_s}s;\n"
        f"proxy_next_upstream_tries {gateway.tries};\n"
        f"proxy_next_upstream_timeout {gateway.total_timeout_s}s;\n"
    )


ENGINES_FOR_A_WORKER = 4
"""A streamed answer of some seconds costs the gateway 2 ms of CPU (docs/benchmarks.md), so four engines with 100 of them at a time
leave a core mostly idle. Processes that share the requests of few clients wake up for each, which costs more than it saves."""


FEWEST_WORKERS = 2
"""A process reads one request at a time: while it reads a dear one, the other serves."""


def workers_for(engines: int) -> int:
    """How many processes nginx has for so many engines."""
    return max(FEWEST_WORKERS, -(-engines // ENGINES_FOR_A_WORKER))


def workers_conf(cluster: PlacedCluster) -> str:
    """For nginx's outermost context. Engines at an `address` count for none: they come and go without a reload."""
    workers = cluster.gateway.workers or workers_for(len(cluster.started_engines))
    return with_gateway_header(f"worker_processes {workers};\n")


def _time(seconds: float) -> str:
    """nginx's times are whole numbers."""
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{max(1, round(1000 * seconds))}ms"


def listen_conf(cluster: PlacedCluster, places: NginxPaths) -> str:
    """For the server that the world reaches."""
    tls = cluster.gateway.tls
    if tls is None:
        return with_gateway_header(f"listen {places.listen} reuseport;\n")
    return with_gateway_header(
        f"listen {places.listen} ssl reuseport;\n"
        f"ssl_certificate {places.secrets}/{tls.certificate};\n"
        f"ssl_certificate_key {places.secrets}/{tls.key};\n"
        "ssl_protocols TLSv1.2 TLSv1.3;\n"
        "ssl_session_cache shared:tls:4m;\n"
        "ssl_session_timeout 1h;\n"
    )


def beside_conf(places: NginxPaths) -> str:
    """For locations that lead to a part beside the gateway: who knows its address. Found again under a new one when it was restarted."""
    return with_gateway_header(f"resolver {places.outside_resolver} valid=5s ipv6=off;\n")


def controller_conf(cluster: PlacedCluster, places: NginxPaths) -> str:
    """For the server that the world reaches: the controller's API, or nothing of it."""
    if not cluster.controller.published:
        return with_gateway_header("location /api/ {\n    return 404;\n}\n")
    return with_gateway_header(
        "location /api/ {\n"
        f"    proxy_pass http://{places.controller or cluster.network.controller_ip}:{places.controller_http_port};\n"
        "    include conf.d/controller.inc;\n"
        "}\n"
    )


def _by_limit(keys: ApiKeys, field: str) -> dict[int, list[ApiKey]]:
    limits: dict[int, list[ApiKey]] = {}
    for key in keys.keys:
        if (limit := getattr(key, field)) is not None:
            limits.setdefault(limit, []).append(key)
    return limits
