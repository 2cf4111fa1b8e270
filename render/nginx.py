"""Cluster -> nginx: one upstream per pool, filled by DNS, and which model name leads to which pool."""

from config.cluster import Cluster
from config.pools import Pool
from render.file import with_header

CONTROLLER_DNS_PORT = 5353
CONTROLLER_HTTP_PORT = 8081


def pools_conf(cluster: Cluster) -> str:
    """For nginx's http context."""
    controller = cluster.network.controller_ip
    pools = cluster.served_pools
    parts = [
        "# Who is in a pool comes from the controller; a pool it does not answer for keeps its last members.",
        f"resolver {controller}:{CONTROLLER_DNS_PORT} valid={max(1, cluster.controller.dns_ttl_s)}s ipv6=off;",
        "resolver_timeout 2s;",
        "",
        _constant("$manyeyes_controller", f"http://{controller}:{CONTROLLER_HTTP_PORT}"),
        _constant("$manyeyes_max_body_mb", str(cluster.gateway.max_body_mb)),
        _constant("$manyeyes_retry_after", str(cluster.gateway.retry_after_s)),
        *[_upstream(cluster, pool) for pool in pools],
        _map("$manyeyes_model", "$manyeyes_pool_of_model", _names(pools)),
        _map("$manyeyes_pool", "$manyeyes_next_pool", {p.name: p.fallback for p in pools if p.fallback}),
    ]
    return with_header("\n".join(parts))


def settings_conf(cluster: Cluster) -> str:
    """For the gateway's server block."""
    gateway = cluster.gateway
    return with_header(
        f"client_max_body_size {gateway.max_body_mb}m;\n"
        f"proxy_connect_timeout {gateway.connect_timeout_s:g}s;\n"
        f"proxy_read_timeout {gateway.read_timeout_s}s;\n"
        f"proxy_send_timeout {gateway.read_timeout_s}s;\n"
        f"proxy_next_upstream_tries {gateway.tries};\n"
    )


def _upstream(cluster: Cluster, pool: Pool) -> str:
    return (
        f"upstream {pool.name} {{\n"
        f"    zone {pool.name} 256k;\n"
        "    least_conn;\n"
        # The controller takes engines out; nginx's own bans (max_fails) would empty a pool after a hiccup.
        f"    server {pool.name}.pool.{cluster.network.domain} service=http max_fails=0 resolve;\n"
        "    keepalive 64;\n"
        "    keepalive_timeout 60s;\n"
        "}\n"
    )


def _constant(variable: str, value: str) -> str:
    """A map has its value in every phase and in periodic handlers; `set` only after the rewrite phase."""
    return f'map "" {variable} {{ default "{value}"; }}'


def _names(pools: tuple[Pool, ...]) -> dict[str, str | None]:
    """Client's name -> pool. Where two pools run the same model, its id leads to the first of them."""
    names: dict[str, str | None] = {}
    for pool in pools:
        for name in (pool.name, *pool.aliases):
            names[name] = pool.name
    for pool in pools:
        for name in pool.names:
            names.setdefault(name, pool.name)
    return names


MAP_WORDS = frozenset({"default", "hostnames", "include", "volatile"})


def _map(source: str, target: str, entries: dict[str, str | None]) -> str:
    """An nginx map; a key that is one of map's own words is told apart by a backslash."""
    lines = [f'    "{chr(92) if key in MAP_WORDS else ""}{key}" "{value}";\n' for key, value in entries.items()]
    return f'map {source} {target} {{\n    default "";\n{"".join(lines)}}}\n'
