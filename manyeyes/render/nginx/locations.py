"""Cluster -> nginx's named locations: how each pool is asked. njs/gateway.js says which of them comes next.

@pool-NAME          asks the pool, and on failure another engine of it
@pool-NAME.once     asks one engine only: for a request that an engine was already lost to
@pool-NAME.again    asks more of its engines: for a request that nobody was there for
@pool-NAME.cached   as @pool-NAME, after a look into the pool's cache

The same begin with @rewritten- for requests whose body is not passed on as it came.
"""

from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Cache, Pool, Remote
from manyeyes.render.nginx.naming import AS_WRITTEN, NginxPaths, PoolNaming
from manyeyes.render.rendered_file import with_gateway_header

AGAIN_TRIES = 4
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def locations_conf(cluster: PlacedCluster, places: NginxPaths, naming: PoolNaming = AS_WRITTEN) -> str:
    """For every server block that takes API calls."""
    return with_gateway_header(
        "".join(location for pool in cluster.served_pools for location in _locations(pool, places, naming))
    )


def caches_conf(cluster: PlacedCluster, places: NginxPaths, naming: PoolNaming = AS_WRITTEN) -> str:
    """For nginx's http context."""
    return with_gateway_header(
        "".join(
            _cache_path(naming.upstream(pool.name), pool.cache, places) for pool in cluster.served_pools if pool.cache
        )
    )


def _locations(pool: Pool, places: NginxPaths, naming: PoolNaming) -> list[str]:
    upstream, renamed = naming.upstream(pool.name), pool.name in naming.asked
    ask = _ask_remote(upstream, pool.remote, places) if pool.remote else _ask(upstream, renamed)
    # Under another model's name a body is written anew in any case.
    rewrite = [] if pool.remote or renamed else ["proxy_set_body $manyeyes_rewritten_body;"]
    return [
        *_ways(f"@pool-{pool.name}", upstream, pool, ask),
        *_ways(f"@rewritten-{pool.name}", upstream, pool, [*ask, *rewrite]),
    ]


def _ways(name: str, upstream: str, pool: Pool, ask: list[str]) -> list[str]:
    locations = [
        _location(name, ask),
        _location(f"{name}.once", [*ask, "proxy_next_upstream off;"]),
        _location(f"{name}.again", [*ask, f"proxy_next_upstream_tries {AGAIN_TRIES};"]),
    ]
    if pool.cache:
        locations.append(_location(f"{name}.cached", [*ask, *_cached(upstream, pool.cache)]))
    return locations


def _location(name: str, directives: list[str]) -> str:
    return f"location {name} {{\n{''.join(f'    {directive}{chr(10)}' for directive in directives)}}}\n"


def _ask(upstream: str, renamed: bool) -> list[str]:
    rename = ["proxy_set_body $manyeyes_renamed_body;"] if renamed else []
    return [f"proxy_pass http://{upstream};", "include conf.d/engine.inc;", *rename]


def _ask_remote(upstream: str, remote: Remote, places: NginxPaths) -> list[str]:
    scheme = "https" if remote.is_tls else "http"
    default_port = 443 if remote.is_tls else 80
    host = remote.host if remote.port == default_port else f"{remote.host}:{remote.port}"
    directives = [
        f"proxy_pass {scheme}://{upstream}{remote.path}/$manyeyes_call$is_args$args;",
        "include conf.d/remote.inc;",
        f"proxy_set_header Host {host};",
    ]
    if remote.is_tls:
        authorities = f"{places.secrets}/{remote.ca_file}" if remote.ca_file else SYSTEM_CERTIFICATES
        directives += [
            "proxy_ssl_server_name on;",
            f"proxy_ssl_name {remote.host};",
            "proxy_ssl_verify on;",
            "proxy_ssl_verify_depth 4;",
            f"proxy_ssl_trusted_certificate {authorities};",
        ]
    return directives


def _cached(upstream: str, cache: Cache) -> list[str]:
    return [
        f"proxy_cache answers-{upstream};",
        f"proxy_cache_valid 200 {cache.ttl_s}s;",
        "include conf.d/cached.inc;",
    ]


def _cache_path(upstream: str, cache: Cache, places: NginxPaths) -> str:
    return (
        f"proxy_cache_path {places.caches}/answers-{upstream} levels=1:2 keys_zone=answers-{upstream}:1m "
        f"max_size={cache.max_mb}m inactive={cache.ttl_s}s use_temp_path=off;\n"
    )
