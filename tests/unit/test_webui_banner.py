"""The banner over the page."""

from webui.cluster.cluster_view import pool_notices_html, pool_states_html
from webui.cluster.gateway_client import PoolStatus, parse_pools

URL = "http://gateway:8080"


def test_healthz_is_read() -> None:
    found: object = {
        "status": "ok",
        "pools": [{"name": "a", "up": 1, "total": 2, "notice": "n"}, {"name": "b", "up": 0, "total": 1}],
    }
    assert parse_pools(found) == [PoolStatus("a", 1, 2, "n"), PoolStatus("b", 0, 1)]


def test_anything_else_is_no_state() -> None:
    wrong: tuple[object, ...] = (
        None,
        "ok",
        [],
        {"pools": 3},
        {"pools": [{"name": "a"}]},
        {"pools": [{"name": "a", "up": "?", "total": 1}]},
    )
    for found in wrong:
        assert parse_pools(found) is None


def test_each_pool_tells_how_many_engines_are_up() -> None:
    html = pool_states_html([PoolStatus("a", 2, 2), PoolStatus("b", 0, 1)])
    assert "<b>a</b> 2 of 2 engines up" in html
    assert "<b>b</b> 0 of 1 engine up" in html


def test_a_suspect_engine_counts_as_up_and_is_told() -> None:
    engines = [{"name": "a-0", "state": "suspect"}, {"name": "a-1", "state": "up"}]
    found = parse_pools({"pools": [{"name": "a", "up": 2, "total": 2, "engines": engines}]})
    assert found == [PoolStatus("a", 2, 2, suspect=1)]
    assert '<span class="pool some">' in pool_states_html(found)
    assert "<b>a</b> 2 of 2 engines up, 1 suspect" in pool_states_html(found)


def test_a_notice_is_shown_and_cannot_bring_html() -> None:
    html = pool_notices_html([PoolStatus("a", 1, 1, "<b>noise</b>"), PoolStatus("b", 1, 1)], URL)
    assert "a: &lt;b&gt;noise&lt;/b&gt;" in html
    assert html.count("notice warning") == 1


def test_nothing_to_say_shows_nothing() -> None:
    assert pool_notices_html([PoolStatus("a", 2, 2)], URL) == ""


def test_a_gateway_out_of_reach_is_told() -> None:
    assert f"The gateway at {URL} cannot be reached." in pool_notices_html(None, URL)
