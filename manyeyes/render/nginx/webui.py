"""Cluster -> nginx's upstream of the page: its copies, and which visit belongs to which."""

from manyeyes.config.cluster import Cluster
from manyeyes.render.header import for_gateway
from manyeyes.render.nginx.paths import Places


def page_conf(cluster: Cluster, places: Places) -> str:
    """For nginx's http context. Copies are found by their one name, as they come and go."""
    named = (page.rpartition(":") for page in places.pages)
    servers = "".join(f"    server {name}{places.beside}:{port} resolve;\n" for name, _, port in named)
    return for_gateway(
        # A browser's first request goes anywhere and is then held by its cookie; programs keep no cookie, so that all that
        # one address asks goes to one copy.
        "map $http_accept $manyeyes_page_copy {\n"
        "    default $remote_addr;\n"
        "    ~text/html $request_id;\n"
        "}\n"
        "upstream page {\n"
        "    zone page 64k;\n"
        f"    resolver {places.outside_resolver} valid=5s ipv6=off;\n"
        f"{servers}"
        "    hash $manyeyes_page_copy consistent;\n"
        "    sticky cookie manyeyes-copy path=/ httponly samesite=lax;\n"
        "}\n"
        if len(places.pages) > 1 or cluster.webui.copies > 1
        else f"upstream page {{\n    zone page 64k;\n    resolver {places.outside_resolver} valid=5s ipv6=off;\n{servers}}}\n"
    )
