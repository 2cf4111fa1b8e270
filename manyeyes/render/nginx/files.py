"""Renders every nginx file that depends on configuration and keys. Pure: the same input gives the same bytes.

The controller writes them (manyeyes/controller/config_sync/nginx_publisher.py), and nginx/start.sh loads them.
"""

import hashlib
import hmac
import json
from typing import Any

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.netpolicy import PRIVATE_SUFFIXES
from manyeyes.render.engine_container import MAX_ANSWERS, MAX_COMPLETION_PROMPTS
from manyeyes.render.nginx.naming import AS_WRITTEN, CONTAINER_PATHS, NginxPaths, PoolNaming
from manyeyes.render.nginx.pools import as_map, caches_conf, locations_conf, map_key, model_names, page_conf, pools_conf
from manyeyes.render.rendered_file import GATEWAY_HEADER, with_gateway_header


def cluster_js(cluster: PlacedCluster, naming: PoolNaming = AS_WRITTEN) -> str:
    """A JavaScript module that exports one object."""
    pools = cluster.served_pools
    pool_of_name = model_names(pools, naming)
    settings = {
        "pools": {pool.name: _pool(pool, pool_of_name, naming) for pool in pools},
        "auto": [route.model_dump(mode="json") for route in cluster.routes],
        "hash_pictures": any(pool.balancing == "image" for pool in pools),
        "report_cached_tokens": cluster.gateway.report_cached_tokens,
        "max_body_bytes": cluster.gateway.max_body_mb * MIB,
        "max_client_body_bytes": cluster.gateway.max_client_bodies_mb * MIB,
        "max_all_body_bytes": cluster.gateway.max_bodies_mb * MIB,
    }
    return f"// {GATEWAY_HEADER}\nexport default {json.dumps(settings, indent=2)};\n"


def _pool(pool: Pool, pool_of_name: dict[str, str], naming: PoolNaming) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "names": [name for name, owner in pool_of_name.items() if owner == pool.name],
        "next": pool.fallback or "",
        "domains": [domain.lower() for domain in pool.media.allowed_domains],
        "cache": {"shared": pool.cache.shared} if pool.cache else None,
        "image_pixels": pool.media.max_decoded_pixels,
        "request_pixels": pool.media.max_request_pixels,
        "limits": None if pool.remote else {"answers": MAX_ANSWERS, "in_all": MAX_COMPLETION_PROMPTS},
    }
    if pool.remote:
        settings |= {"model": pool.model, "host": pool.remote.host, "key_file": pool.remote.key_file or ""}
    if pool.name in naming.requested_names:
        settings["asked"] = naming.requested_names[pool.name]
    return settings


NO_KEYS = ApiKeys()
MIB = 1024**2
GENERATION, SUMS = "generation", "generation.sha256"


def gateway_files(
    cluster: PlacedCluster,
    keys: ApiKeys = NO_KEYS,
    paths: NginxPaths = CONTAINER_PATHS,
    naming: PoolNaming = AS_WRITTEN,
) -> dict[str, str]:
    """{file: text} for a placed cluster."""
    return {
        "pools.conf": pools_conf(cluster, paths, naming),
        "caches.conf": caches_conf(cluster, paths, naming),
        "keys.conf": keys_conf(cluster, keys),
        "beside.inc": resolver_conf(paths),
        "controller.inc": controller_conf(cluster, paths),
        "limits.inc": limits_conf(cluster, keys),
        "listen.inc": listen_conf(cluster, paths),
        "page.conf": page_conf(cluster, paths),
        "locations.inc": locations_conf(cluster, paths, naming),
        "settings.inc": settings_conf(cluster),
        "tracing.conf": tracing_conf(cluster),
        "workers.inc": workers_conf(cluster),
        "cluster.js": cluster_js(cluster, naming),
    }


def build_generation(files: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The generation's name, and `files` with its name and checksums.

    nginx reports the name of the generation it runs; the checksums show whether a copy is complete.
    """
    name = hashlib.sha256("\0".join(part for pair in sorted(files.items()) for part in pair).encode()).hexdigest()[:12]
    generation_conf = with_gateway_header(f'map "" $manyeyes_generation {{ default "{name}"; }}\n')
    all_files = {**files, "generation.conf": generation_conf, GENERATION: f"{name}\n"}
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {file}\n" for file, text in sorted(all_files.items()))
    return name, {**all_files, SUMS: sums}


def keys_conf(cluster: PlacedCluster, keys: ApiKeys) -> str:
    """For nginx's http context: names of keys, and a zone for every distinct limit."""
    is_anonymous = not cluster.gateway.requires_key(keys)
    names = {key.sha256: key.name for key in keys.keys} | {f"name:{key.name}": key.name for key in keys.keys}
    parts = [
        f'map "" $manyeyes_anonymous {{ default "{int(is_anonymous)}"; }}\n',
        _own_hosts_map(cluster),
        # Without keys nothing is hashed.
        as_map("$manyeyes_key_hash" if names else '""', "$manyeyes_key", names),
        as_map(
            "$manyeyes_key" if names else '""', "$manyeyes_key_salt", {key.name: cache_salt(key) for key in keys.keys}
        ),
        # Visitors of the page share its address, so it counts by key only.
        'map "$manyeyes_is_page" $manyeyes_client {\n'
        '    default $manyeyes_key;\n    "" "$manyeyes_key $binary_remote_addr";\n}\n'
        "limit_conn_zone $manyeyes_client zone=clients:10m;\n",
    ]
    for rate, limited_keys in _by_limit(keys, "requests_per_minute").items():
        parts.append(as_map("$manyeyes_key", f"$manyeyes_rate_{rate}", {key.name: key.name for key in limited_keys}))
        parts.append(f"limit_req_zone $manyeyes_rate_{rate} zone=rate-{rate}:1m rate={rate}r/m;\n")
    parts.append(
        as_map(
            "$manyeyes_key", "$manyeyes_in_flight_limit", {k.name: str(k.in_flight) for k in keys.keys if k.in_flight}
        )
    )
    for limit, limited_keys in _by_limit(keys, "in_flight").items():
        parts.append(
            as_map("$manyeyes_key", f"$manyeyes_in_flight_{limit}", {key.name: key.name for key in limited_keys})
        )
        parts.append(f"limit_conn_zone $manyeyes_in_flight_{limit} zone=in-flight-{limit}:1m;\n")
    return with_gateway_header("".join(parts))


def _own_hosts_map(cluster: PlacedCluster) -> str:
    """$manyeyes_own_host: whether no stranger can own the name of the Host header (webui.host_names)."""
    suffixes = "|".join(suffix.replace(".", r"\.") for suffix in PRIVATE_SUFFIXES)
    names = "".join(f'    {map_key(name)} "1";\n' for name in dict.fromkeys(cluster.webui.host_names))
    return (
        'map $host $manyeyes_own_host {\n    default "";\n    "" "1";\n'
        rf'    "~^(\[.+\]|[0-9.]+|[^.]+|.+\.({suffixes}))$" "1";' + f"\n{names}}}\n"
    )


def cache_salt(key: ApiKey) -> str:
    """`cache_salt` of all requests with `key`. Derived from the hash of the key, so that no other client can guess it.

    vLLM accepts at most 128 characters, without / and @.
    """
    return hmac.new(key.sha256.encode(), b"cache_salt", hashlib.sha256).hexdigest()[:32]


def limits_conf(cluster: PlacedCluster, keys: ApiKeys) -> str:
    """For the location of API calls. A request whose key has no such limit has an empty name and is not counted."""
    lines = [f"limit_conn clients {cluster.gateway.max_client_requests};\n"]
    lines += [f"limit_req zone=rate-{rate} burst={rate} nodelay;\n" for rate in _by_limit(keys, "requests_per_minute")]
    lines += [f"limit_conn in-flight-{limit} {limit};\n" for limit in _by_limit(keys, "in_flight")]
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


ENGINES_PER_WORKER = 4
"""A streamed answer of a few seconds costs the gateway 2 ms of CPU (docs/benchmarks/gateways.md), so four engines with
100 answers each at a time leave a core mostly idle. More processes for the same few clients wake up more often, which
costs more than it saves."""


MIN_WORKERS = 2
"""A process reads one request at a time. While it reads an expensive request, the other process serves."""


def workers_for(engines: int) -> int:
    """Number of nginx processes for `engines` engines."""
    return max(MIN_WORKERS, -(-engines // ENGINES_PER_WORKER))


def workers_conf(cluster: PlacedCluster) -> str:
    """For nginx's outermost context. Engines with an `address` do not count: they come and go without a reload."""
    workers = cluster.gateway.workers or workers_for(len(cluster.started_engines))
    return with_gateway_header(f"worker_processes {workers};\n")


def _time(seconds: float) -> str:
    """nginx accepts only whole numbers as times."""
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{max(1, round(1000 * seconds))}ms"


def listen_conf(cluster: PlacedCluster, paths: NginxPaths) -> str:
    """For the server that clients reach."""
    tls, proxies = cluster.gateway.tls, cluster.gateway.trusted_proxies
    trusted = "".join(f"set_real_ip_from {network};\n" for network in proxies)
    if proxies:
        trusted += "real_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n"
    if tls is None:
        return with_gateway_header(f"listen {paths.listen} reuseport;\n{trusted}")
    return with_gateway_header(
        f"{trusted}"
        f"listen {paths.listen} ssl reuseport;\n"
        f"ssl_certificate {paths.secrets}/{tls.certificate};\n"
        f"ssl_certificate_key {paths.secrets}/{tls.key};\n"
        "ssl_protocols TLSv1.2 TLSv1.3;\n"
        "ssl_session_cache shared:tls:4m;\n"
        "ssl_session_timeout 1h;\n"
    )


def resolver_conf(paths: NginxPaths) -> str:
    """For locations that proxy to a service next to the gateway: the resolver of its name.

    A restarted service may have a new address.
    """
    return with_gateway_header(f"resolver {paths.outside_resolver} valid=5s ipv6=off;\n")


def controller_conf(cluster: PlacedCluster, paths: NginxPaths) -> str:
    """For the server that clients reach: the controller's API, or 404 if it is not exposed."""
    if not cluster.controller.expose_api:
        return with_gateway_header("location /api/ {\n    return 404;\n}\n")
    return with_gateway_header(
        "location /api/ {\n"
        f"    proxy_pass http://{paths.controller or cluster.network.controller_ip}:{paths.controller_http_port};\n"
        "    include conf.d/controller.inc;\n"
        "}\n"
    )


def _by_limit(keys: ApiKeys, field: str) -> dict[int, list[ApiKey]]:
    limits: dict[int, list[ApiKey]] = {}
    for key in keys.keys:
        if (limit := getattr(key, field)) is not None:
            limits.setdefault(limit, []).append(key)
    return limits


# An id of zeros only is invalid.
TRACE, SPAN = r"(?!0{32})[0-9a-f]{32}", r"(?!0{16})[0-9a-f]{16}"


def tracing_conf(cluster: PlacedCluster) -> str:
    """Variables with a request's trace id and span id. Without tracing, a client's trace id still reaches the engine
    and the log.

    Stock nginx has no OpenTelemetry module and needs none. The trace id is the client's or the request's random number.
    The engine receives it as `traceparent` and the log contains it; the controller makes the gateway's spans from the
    log (manyeyes/controller/telemetry/otlp_exporter.py). The format is W3C's: https://www.w3.org/TR/trace-context/
    """
    tracing = cluster.tracing
    new_trace = "$request_id" if tracing.enabled else ""
    parts = [
        _from_client(
            "$manyeyes_trace",
            f'"~^00-(?<manyeyes_given_trace>{TRACE})-{SPAN}-[0-9a-f]{{2}}$" $manyeyes_given_trace',
            new_trace,
        ),
        _from_client(
            "$manyeyes_parent", f'"~^00-{TRACE}-(?<manyeyes_given_span>{SPAN})-[0-9a-f]{{2}}$" $manyeyes_given_span', ""
        ),
    ]
    if not tracing.enabled:
        constants = "".join(f'map "" ${name} {{ default ""; }}\n' for name in ("manyeyes_span", "manyeyes_traced"))
        traceparent = _from_client(
            "$manyeyes_traceparent", f'"~^00-{TRACE}-{SPAN}-[0-9a-f]{{2}}$" $http_traceparent', ""
        )
        return with_gateway_header("".join([*parts, constants, traceparent]))
    parts += [
        _sampling_map(tracing.sampled_percent),
        _from_client(
            "$manyeyes_traced",
            f'"~^00-{TRACE}-{SPAN}-[0-9a-f][13579bdf]$" 1;\n    "~^00-{TRACE}-{SPAN}-[0-9a-f]{{2}}$" 0',
            "$manyeyes_drawn",
        ),
        "# The gateway's span id: digits 9 to 24 of the random number, so that the trace id does not begin with it.\n"
        'map $request_id $manyeyes_span {\n    default "";\n    "~^.{8}(?<manyeyes_own_span>.{16})" $manyeyes_own_span;\n}\n',
        'map "" $manyeyes_traceparent { default "00-$manyeyes_trace-$manyeyes_span-0$manyeyes_traced"; }\n',
    ]
    return with_gateway_header("".join(parts))


def _from_client(variable: str, matches: str, default: str) -> str:
    return f'map $http_traceparent {variable} {{\n    default "{default}";\n    {matches};\n}}\n'


def _sampling_map(percent: float) -> str:
    # nginx accepts hundredths of a percent and refuses 0.00%.
    hundredths = round(100 * percent) if percent >= 0.01 else int(percent > 0)
    if hundredths in (0, 10_000):
        return f'map "" $manyeyes_drawn {{ default "{int(hundredths > 0)}"; }}\n'
    return f"split_clients $request_id $manyeyes_drawn {{\n    {hundredths / 100:.2f}% 1;\n    * 0;\n}}\n"
