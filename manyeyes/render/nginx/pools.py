"""Renders one upstream per pool, filled by DNS; the map from model names to pools; and the named locations that proxy
to a pool.

njs/gateway.js chooses the next location:

@pool-NAME          sends to an engine of the pool, and after a failure to another engine
@pool-NAME.once     sends to one engine only, skipping those that refuse the connection: for a request that already
                    lost an engine
@pool-NAME.again    tries more engines of the pool: for a request that lost no engine and was refused by one
@pool-NAME.cached   as @pool-NAME, after a lookup in the pool's cache

Locations that begin with @rewritten- are for requests whose body is changed.
"""

from manyeyes.config.engines import capacities
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Cache, Pool, Remote
from manyeyes.render.nginx.naming import AS_WRITTEN, NginxPaths, PoolNaming
from manyeyes.render.rendered_file import with_gateway_header


def pools_conf(cluster: PlacedCluster, paths: NginxPaths, naming: PoolNaming = AS_WRITTEN) -> str:
    """For nginx's http context."""
    controller = paths.controller or str(cluster.network.controller_ip)
    pools = cluster.served_pools
    parts = [
        "# DNS lists the members of a pool. If the DNS server does not answer, a pool's last members remain.",
        f"resolver {paths.resolver or f'{controller}:{paths.controller_dns_port}'} valid={_valid_s(cluster, paths)}s ipv6=off;",
        "resolver_timeout 2s;",
        *_controller_log(cluster, f"{controller}:{paths.controller_syslog_port}"),
        "# Turns and their conversations: njs/session_affinity.js. A turn takes about 200 bytes.",
        f"js_shared_dict_zone zone=conversations:16m timeout={cluster.gateway.conversation_timeout_s}s evict;",
        "",
        _constant("$manyeyes_controller", f"http://{controller}:{paths.controller_http_port}"),
        _constant("$manyeyes_beside", paths.service_suffix),
        _constant("$manyeyes_max_body_mb", str(cluster.gateway.max_body_mb)),
        _constant("$manyeyes_retry_after", str(cluster.gateway.retry_after_s)),
        _constant("$manyeyes_total_timeout_s", str(cluster.gateway.total_timeout_s)),
        *[
            _remote_upstream(naming.upstream(pool.name), pool, pool.remote, paths)
            if pool.remote
            else _upstream(naming.upstream(pool.name), cluster, pool, paths)
            for pool in pools
        ],
        # Map keys ignore case: njs/gateway.js checks the exact spelling.
        as_map("$manyeyes_model", "$manyeyes_pool_of_model", _without_case(model_names(pools, naming))),
    ]
    return with_gateway_header("\n".join(parts))


COUNTED_FIELDS = """\
log_format access_json escape=json
    '{"status":$manyeyes_status,"code":"$manyeyes_code","pool":"$manyeyes_pool","asked_pool":"$manyeyes_asked_pool","engine":"$manyeyes_engine",'
    '"key":"$manyeyes_key","fallback":"$manyeyes_fallback_from","attempts":"$upstream_addr","attempt_status":"$upstream_status",'
    '"connect_s":"$upstream_connect_time","header_s":"$upstream_header_time","response_s":"$upstream_response_time",'
    '"total_s":$request_time,"bytes_in":$request_length,"bytes_out":$bytes_sent,"cache":"$manyeyes_cache","stream":"$manyeyes_stream"}';"""
"""The fields that the controller counts by. They are half of the full log, because nginx writes and the controller
reads them for each request. Spans need all fields."""


def _controller_log(cluster: PlacedCluster, address: str) -> list[str]:
    if cluster.tracing.enabled:
        return [f"access_log syslog:server={address},tag=manyeyes json;"]
    return [COUNTED_FIELDS, f"access_log syslog:server={address},tag=manyeyes access_json;"]


def _upstream(name: str, cluster: PlacedCluster, pool: Pool, paths: NginxPaths) -> str:
    return (
        f"upstream {name} {{\n"
        f"    zone pool-{name} 256k;\n"
        + _balancing(name, cluster, pool)
        # The controller removes engines; nginx's passive checks (max_fails) would empty a pool after a short failure.
        + "".join(
            f"    server {members} max_conns={capacity} max_fails=0 resolve;\n"
            for members, capacity in _servers(name, cluster, pool, paths)
        )
        + "    keepalive 64;\n"
        "    keepalive_timeout 60s;\n"
        "}\n"
    )


def _balancing(name: str, cluster: PlacedCluster, pool: Pool) -> str:
    method = "" if pool.balancing == "round_robin" else "    least_conn;\n"
    sessions = {
        "conversation": ("$manyeyes_conversation", "$manyeyes_known_conversation"),
        "image": ("$manyeyes_picture", "$manyeyes_picture"),
    }.get(pool.balancing)
    if sessions is None:
        return method
    create, lookup = sessions
    timeout = cluster.gateway.conversation_timeout_s
    return (
        f"{method}    sticky learn create={create} lookup={lookup} zone=sticky-{name}:8m timeout={timeout}s header;\n"
    )


def _servers(name: str, cluster: PlacedCluster, pool: Pool, paths: NginxPaths) -> list[tuple[str, int]]:
    """DNS names of the pool's engines, each with the number of requests that such an engine takes at a time.

    max_conns applies to a name, so engines of different capacities have a name for each capacity.
    """
    domain = cluster.network.domain
    capacity_list = sorted(set(capacities(pool, cluster.engines).values()), reverse=True)
    if len(capacity_list) == 1:
        return [(paths.members(name, domain), capacity_list[0])]
    return [(paths.members_by_capacity(name, capacity, domain), capacity) for capacity in capacity_list]


def _valid_s(cluster: PlacedCluster, paths: NginxPaths) -> int:
    """How long nginx caches a DNS answer."""
    return cluster.kubernetes.resolve_interval_s if paths.members_of else max(1, cluster.controller.dns_ttl_s)


def _remote_upstream(name: str, pool: Pool, remote: Remote, paths: NginxPaths) -> str:
    return (
        f"upstream {name} {{\n"
        f"    zone pool-{name} 256k;\n"
        f"    resolver {paths.outside_resolver} valid=30s ipv6=off;\n"
        f"    server {remote.host}:{remote.port} max_fails=0{' max_conns=' + str(pool.max_in_flight) if pool.max_in_flight else ''} resolve;\n"
        "    keepalive 16;\n"
        "    keepalive_timeout 30s;\n"
        "}\n"
    )


def _constant(variable: str, value: str) -> str:
    """A constant as a map, whose value is available in every phase and in periodic handlers; `set` works only after the
    rewrite phase."""
    return f'map "" {variable} {{ default "{value}"; }}'


def model_names(pools: tuple[Pool, ...], naming: PoolNaming) -> dict[str, str]:
    """Model name in a request -> pool. If two pools run the same model, its id leads to the first of them. A former
    name of a pool leads to that pool unless another pool has the name."""
    pool_of_name: dict[str, str] = {}
    for pool in pools:
        for name in (pool.name, *pool.aliases):
            pool_of_name[name] = pool.name
    for pool in pools:
        for name in pool.names:
            pool_of_name.setdefault(name, pool.name)
    served_names = {pool.name for pool in pools}
    owners = {name.lower(): pool for name, pool in pool_of_name.items()}
    for name, former in naming.former.items():
        # nginx treats names that differ only in case as equal: names in the configuration come first.
        if former in served_names and owners.setdefault(name.lower(), former) == former:
            pool_of_name.setdefault(name, former)
    return pool_of_name


def _without_case(pool_of_name: dict[str, str]) -> dict[str, str]:
    """The first of each group of names that differ only in case.

    They lead to one pool: manyeyes/config/validation.py.
    """
    names: dict[str, tuple[str, str]] = {}
    for name, pool in pool_of_name.items():
        names.setdefault(name.lower(), (name, pool))
    return dict(names.values())


MAP_WORDS = frozenset({"default", "hostnames", "include", "volatile"})


def as_map(source: str, target: str, entries: dict[str, str]) -> str:
    """An nginx map. Its keys ignore case, so keys of `entries` must differ in more than case."""
    lines = [f"    {map_key(key)} {quoted(value)};\n" for key, value in entries.items()]
    return f'map {source} {target} {{\n    default "";\n{"".join(lines)}}}\n'


def map_key(key: str) -> str:
    """Escapes a keyword of map, the prefix of a regular expression, or a backslash at the start of `key`."""
    text = quoted(key)
    is_special = key.lower() in MAP_WORDS or key.startswith(("~", "\\"))
    return f'"\\{text[1:]}' if is_special else text


def quoted(text: str) -> str:
    """`text` as one parameter of nginx.

    Raises ValueError if nginx has no notation for it: a $ or a control character.
    """
    if "$" in text or any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ValueError(f"nginx cannot represent {text!r}: it contains a $ or a control character")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def page_conf(cluster: PlacedCluster, paths: NginxPaths) -> str:
    """For nginx's http context. The copies of the page share one name, which nginx resolves again as they come and go."""
    addresses = (page.rpartition(":") for page in paths.pages)
    servers = "".join(f"    server {name}{paths.service_suffix}:{port} resolve;\n" for name, _, port in addresses)
    return with_gateway_header(
        # A browser's first request goes to any copy, and a cookie then binds the browser to it. Programs do not store
        # cookies, so all requests from one address go to the same copy.
        "map $http_accept $manyeyes_page_copy {\n"
        "    default $remote_addr;\n"
        "    ~text/html $request_id;\n"
        "}\n"
        "upstream page {\n"
        "    zone page 64k;\n"
        f"    resolver {paths.outside_resolver} valid=5s ipv6=off;\n"
        f"{servers}"
        "    hash $manyeyes_page_copy consistent;\n"
        "    sticky cookie manyeyes-copy path=/ httponly samesite=lax;\n"
        "}\n"
        if len(paths.pages) > 1 or cluster.webui.replicas > 1
        else f"upstream page {{\n    zone page 64k;\n    resolver {paths.outside_resolver} valid=5s ipv6=off;\n{servers}}}\n"
    )


AGAIN_TRIES = 4
ANY_FAILURE = "proxy_next_upstream error timeout http_500 http_502 http_503 http_504 http_429 non_idempotent;"
"""Requests are retried on another engine before the first byte. Generating twice is harmless; losing a request is not.
A vLLM answers 500 to new requests while it shuts down."""
IF_NOT_SENT = "proxy_next_upstream error timeout;"
"""Without `non_idempotent`, nginx passes a POST on only if nothing of it was sent."""
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def locations_conf(cluster: PlacedCluster, paths: NginxPaths, naming: PoolNaming = AS_WRITTEN) -> str:
    """For every server block that takes API calls."""
    return with_gateway_header(
        "".join(location for pool in cluster.served_pools for location in _locations(pool, paths, naming))
    )


def caches_conf(cluster: PlacedCluster, paths: NginxPaths, naming: PoolNaming = AS_WRITTEN) -> str:
    """For nginx's http context."""
    return with_gateway_header(
        "".join(
            _cache_path(naming.upstream(pool.name), pool.cache, paths) for pool in cluster.served_pools if pool.cache
        )
    )


def _locations(pool: Pool, paths: NginxPaths, naming: PoolNaming) -> list[str]:
    upstream, is_renamed = naming.upstream(pool.name), pool.name in naming.requested_names
    directives = (
        _proxy_to_remote(upstream, pool.remote, paths) if pool.remote else _proxy_to_engine(upstream, is_renamed)
    )
    # A request with a replaced model name has a rewritten body in any case.
    rewrite_directives = (
        []
        if pool.remote or is_renamed
        else ['proxy_set_body "$manyeyes_body_head$manyeyes_members$manyeyes_body_tail";']
    )
    return [
        *_pool_locations(f"@pool-{pool.name}", upstream, pool, directives),
        *_pool_locations(f"@rewritten-{pool.name}", upstream, pool, [*directives, *rewrite_directives]),
    ]


def _pool_locations(name: str, upstream: str, pool: Pool, directives: list[str]) -> list[str]:
    again = f"proxy_next_upstream_tries {AGAIN_TRIES};"
    locations = [
        _location(name, [*directives, ANY_FAILURE]),
        _location(f"{name}.once", [*directives, IF_NOT_SENT, again, "js_header_filter gateway.answered;"]),
        _location(f"{name}.again", [*directives, ANY_FAILURE, again]),
    ]
    if pool.cache:
        locations.append(_location(f"{name}.cached", [*directives, ANY_FAILURE, *_cached(upstream, pool.cache)]))
    return locations


def _location(name: str, directives: list[str]) -> str:
    return f"location {name} {{\n{''.join(f'    {directive}{chr(10)}' for directive in directives)}}}\n"


def _proxy_to_engine(upstream: str, is_renamed: bool) -> list[str]:
    rename_directives = ["proxy_set_body $manyeyes_renamed_body;"] if is_renamed else []
    return [f"proxy_pass http://{upstream};", "include conf.d/proxy_engine.inc;", *rename_directives]


def _proxy_to_remote(upstream: str, remote: Remote, paths: NginxPaths) -> list[str]:
    scheme = "https" if remote.is_tls else "http"
    default_port = 443 if remote.is_tls else 80
    host = remote.host if remote.port == default_port else f"{remote.host}:{remote.port}"
    directives = [
        f"proxy_pass {scheme}://{upstream}{remote.path}/$manyeyes_call$is_args$args;",
        "include conf.d/proxy_remote.inc;",
        f"proxy_set_header Host {host};",
    ]
    if remote.is_tls:
        authorities = f"{paths.secrets}/{remote.ca_file}" if remote.ca_file else SYSTEM_CERTIFICATES
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
        "include conf.d/cache.inc;",
    ]


def _cache_path(upstream: str, cache: Cache, paths: NginxPaths) -> str:
    return (
        f"proxy_cache_path {paths.caches}/answers-{upstream} levels=1:2 keys_zone=answers-{upstream}:1m "
        f"max_size={cache.max_mb}m inactive={cache.ttl_s}s use_temp_path=off;\n"
    )
