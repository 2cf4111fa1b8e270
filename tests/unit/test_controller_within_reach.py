"""What of a written configuration can be in force at once, beside containers that were started from an older one."""

from pathlib import Path

from manyeyes.config.gateway import Network
from manyeyes.config.loader import parse
from manyeyes.config.placement import DEFAULT_INVENTORY, PlacedCluster, place_engines
from manyeyes.controller.config_sync import apply_plan
from manyeyes.controller.config_sync.apply_plan import ApplyPlan, ComposeState, plan_apply
from manyeyes.render.renderer import render
from tests.placed import placed

POOLS = """
flavour: emulated
pools:
  - {name: big, model: org/Big}
  - {name: small, model: org/Small}
engines:
  - {name: e-0, pool: big, flavour: emulated}
  - {name: e-1, pool: big, flavour: emulated}
  - {name: e-2, pool: small, flavour: emulated}
"""


def written(text: str) -> PlacedCluster:
    return place_engines(parse(text), DEFAULT_INVENTORY)


def runs(text: str = POOLS) -> ComposeState:
    """As Compose started it."""
    files = render(placed(text), DEFAULT_INVENTORY, Path("c.yaml"), Path("r"))
    found = apply_plan.parse_compose_state(files["engines.yaml"], files["compose.env"])
    assert found
    return found


def reach(text: str, network: Network | None = None, was: str = POOLS) -> ApplyPlan:
    return plan_apply(written(text), runs(was), network or Network())


def test_what_runs_as_written_needs_nothing() -> None:
    found = reach(POOLS)
    assert (found.needs, found.cluster) == ((), written(POOLS))


def test_an_engine_with_other_flags_goes_on_and_needs_a_rolling_restart() -> None:
    found = reach(POOLS.replace("model: org/Big}", "model: org/Big, max_model_len: 4096}"))
    assert [engine.name for engine in found.cluster.engines] == ["e-0", "e-1", "e-2"]
    assert found.needs == (
        "engines e-0, e-1 run with older settings: run `make restart-rolling` or `make up` to apply the new settings",
    )


def test_it_is_known_which_names_each_running_engine_accepts() -> None:
    assert reach(POOLS.replace("org/Big}", "org/Big, aliases: [best]}")).accepted == {
        "e-0": {"big", "org/Big", "auto"},
        "e-1": {"big", "org/Big", "auto"},
        "e-2": {"small", "org/Small", "auto"},
    }


def test_an_engine_given_to_another_pool_stays_with_the_model_it_has_loaded() -> None:
    found = reach(POOLS.replace("name: e-1, pool: big", "name: e-1, pool: small"))
    assert {engine.name: engine.pool for engine in found.cluster.engines}["e-1"] == "big"
    assert "engine e-1 still serves big: run `make up` to move it to small" in found.needs


def pools_of(found: ApplyPlan) -> dict[str, str]:
    return {engine.name: engine.pool for engine in found.cluster.engines}


def test_a_pool_with_another_name_keeps_its_engines_which_a_rolling_restart_brings_to_it() -> None:
    found = reach(POOLS.replace("name: small", "name: tiny").replace("pool: small", "pool: tiny"))
    assert pools_of(found) == {"e-0": "big", "e-1": "big", "e-2": "tiny"}
    assert found.needs == (
        "engine e-2 runs with older settings: run `make restart-rolling` or `make up` to apply the new settings",
    )


def test_pools_that_change_names_keep_their_engines_whichever_way_the_file_says_it() -> None:
    swapped = (
        POOLS.replace("name: big", "name: x").replace("name: small", "name: big").replace("name: x", "name: small")
    )
    engines = (
        swapped.replace("pool: big", "pool: x").replace("pool: small", "pool: big").replace("pool: x", "pool: small")
    )
    assert pools_of(reach(engines)) == {"e-0": "small", "e-1": "small", "e-2": "big"}
    # Without a word about the engines each pool has another model, which is loaded at a restart.
    assert pools_of(reach(swapped)) == {"e-0": "big", "e-1": "big", "e-2": "small"}
    # Also where both have the same model.
    same = POOLS.replace("org/Small", "org/Big")
    assert pools_of(reach(engines.replace("org/Small", "org/Big"), was=same)) == {
        "e-0": "small",
        "e-1": "small",
        "e-2": "big",
    }
    by_host = POOLS.partition("engines:")[0].replace("org/Small}", "org/Small, gpu_weight: 1}")
    auto = by_host.replace("name: big", "name: x").replace("name: small", "name: big").replace("name: x", "name: small")
    assert pools_of(reach(auto, was=by_host)) == {"gpu-0": "small", "gpu-1": "big"}


def test_a_pool_that_takes_the_engines_of_one_that_is_gone_is_answered_by_them_until_they_have_its_model() -> None:
    found = reach(
        POOLS.replace("name: small, model: org/Small", "name: new, model: org/New").replace("pool: small", "pool: new")
    )
    assert pools_of(found)["e-2"] == "new"


def test_an_engine_with_another_name_serves_until_the_new_one_is_started() -> None:
    text = (
        POOLS.replace("name: e-2", "name: f-2")
        .replace("name: small", "name: tiny")
        .replace("pool: small", "pool: tiny")
    )
    assert pools_of(reach(text)) == {"e-0": "big", "e-1": "big", "f-2": "tiny", "e-2": "tiny"}
    assert (
        "engine e-2 serves until its replacement in the file is up: run `make up` to start the replacement"
        in reach(text).needs
    )
    assert pools_of(reach(text, was=text)) == {"e-0": "big", "e-1": "big", "f-2": "tiny"}


def test_a_fallback_whose_engines_are_not_its_own_yet_is_passed_over() -> None:
    text = POOLS.replace("org/Big}", "org/Big, fallback: small}").replace("org/Small}", "org/Small, fallback: last}")
    text = text.replace("engines:", "  - {name: last, model: org/Last}\nengines:").replace("pool: small", "pool: last")
    was = text.replace("pool: last", "pool: big")
    text = text.replace("e-2, pool: last", "e-2, pool: small") + "  - {name: e-3, pool: last, flavour: emulated}\n"
    found = reach(text, was=was)
    assert found.cluster.pool("big").fallback == "last"


def test_engines_that_are_new_or_too_many_are_told() -> None:
    found = reach(POOLS.replace("name: e-2", "name: e-9"))
    assert "engine e-9 is not started yet: run `make up` to start it" in found.needs
    found = reach(POOLS.replace("  - {name: e-1, pool: big, flavour: emulated}\n", ""))
    assert "engine e-1 still runs and gets no requests: run `make up` to remove it" in found.needs


def test_ports_images_and_the_network_wait_for_make_up() -> None:
    text = POOLS + "gateway: {port: 9999}\nimages: {nginx: nginx:1.31}\nnetwork: {domain: other.internal}\n"
    found = reach(text)
    assert "gateway.host and gateway.port changed: run `make up` to apply it" in found.needs
    assert "images.nginx changed: run `make up` to apply it" in found.needs
    assert "network changed: run `make up` to move the cluster to the new network" in found.needs
    assert found.cluster.network == Network()


def test_without_containers_all_of_it_is_in_force() -> None:
    cluster = written(POOLS)
    assert plan_apply(cluster, None, cluster.network) == ApplyPlan(cluster, ())
