"""What `make status` makes of the controller's and Prometheus' answers, and how it looks at 80 columns."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from manyeyes.cli import status
from manyeyes.monitoring import cluster_status
from manyeyes.monitoring.cluster_status import ClusterStatus
from manyeyes.monitoring.prometheus_client import ActiveAlert, InstantSample, PrometheusClient

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LONG = "qwen3-vl-30b-a3b-instruct-for-documents"


def engine(name: str, state: str = "up", **more: Any) -> dict[str, Any]:
    told = {"since": (NOW - timedelta(seconds=90)).isoformat(), "reason": "", "gpus": [int(name[-1])], "in_flight": 3}
    return {"name": name, "state": state, "hidden_queue": 0, "kv_cache_share": 0.42, "tokens_per_s": 61.4} | told | more


def pool(name: str, *engines: dict[str, Any], **more: Any) -> dict[str, Any]:
    up = sum(one["state"] in cluster_status.SERVING_STATES for one in engines)
    said = {"model": f"Qwen/{name}-FP8", "fallback": None, "notice": "", "p95_ms": 1234}
    return {"name": name, "up": up, "total": len(engines), "engines": list(engines)} | said | more


def seen(*pools: dict[str, Any], numbers: dict[str, list[InstantSample]] | None = None, **more: Any) -> ClusterStatus:
    return cluster_status.build_status(
        {"pools": list(pools)}, more.pop("events", []), numbers or {}, more.pop("alerts", []), **more
    )


def shown(now: ClusterStatus) -> str:
    console = Console(width=80, file=io.StringIO(), highlight=False)
    console.print(cluster_status.render_status(now, NOW))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rates_shares_and_gpu_use_stand_beside_what_the_controller_says() -> None:
    numbers = {
        "rps": [InstantSample({"pool": "big"}, 12.34)],
        "errors": [InstantSample({"pool": "big"}, 0.02)],
        "share": [InstantSample({"pool": "big", "engine": "gpu-0"}, 0.6)],
        "gpu": [InstantSample({"gpu": "0"}, 0.97)],
    }
    text = shown(seen(pool("big", engine("gpu-0"), engine("gpu-1")), numbers=numbers))
    assert ["big", "all", "up", "2/2", "12.3", "1.2", "s", "–", "2.0%"] in words(text)
    assert ["gpu-0", "up", "3", "0", "61", "42%", "97%", "60%"] in words(text)
    assert ["gpu-1", "up", "3", "0", "61", "42%", "–", "–"] in words(text)


def test_a_cluster_without_any_pool_says_so_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "No pool is served" in shown(seen())
    file = tmp_path / "cluster.yaml"
    file.write_text("pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, flavour: emulated}]\n")
    monkeypatch.setattr(status, "prometheus_of", lambda cluster, url: None)
    monkeypatch.setattr(status, "controller_of", lambda cluster, url: lambda: ({"pools": []}, []))
    assert status.status(file, watch=False, controller_url="http://controller") == 1
    assert "No pool is served" in capsys.readouterr().out


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_an_engine_that_is_down_says_why_and_shows_no_old_figures() -> None:
    text = shown(seen(pool("big", engine("gpu-0"), engine("gpu-1", "down", reason="is down: nothing listens there"))))
    assert ["gpu-1", "DOWN", "–", "–", "–", "–", "–", "–"] in words(text)
    assert "gpu-1 is down: nothing listens there (90 s ago)" in text
    assert "short" in text


def test_a_pool_without_an_engine_is_empty_or_on_its_fallback() -> None:
    now = seen(
        pool("big", engine("gpu-0", "down"), fallback="small"), pool("small", engine("gpu-1")), pool("other", engine("gpu-2", "starting"))
    )  # fmt: skip
    assert [one.state for one in now.pools] == ["on fallback", "all up", "EMPTY"]
    assert now.empty_pools == ["big", "other"]


def test_firing_alerts_are_told_with_their_age_and_pending_ones_are_not() -> None:
    def alert(name: str, state: str) -> ActiveAlert:
        labels = {"severity": "page", "pool": "big"}
        return ActiveAlert(
            name, state, NOW - timedelta(minutes=7), labels, {"summary": "big fails 4 % of its requests."}
        )

    text = shown(
        seen(pool("big", engine("gpu-0")), alerts=[alert("ErrorsBurnFast", "firing"), alert("SlowBurn", "pending")])
    )
    assert "ErrorsBurnFast big fails 4 % of its requests." in text
    assert "7 min" in text
    assert "SlowBurn" not in text
    assert "no alerts are firing" in shown(seen(pool("big", engine("gpu-0"))))


def test_nothing_is_wider_than_eighty_columns_whatever_the_names() -> None:
    event = {"at": NOW.isoformat(), "sentence": "a-very-long-engine-name-0 " + "is down because " * 12}
    endless = pool(LONG, engine("documents-on-the-second-machine-0", "suspect", reason="is suspect: " + "why " * 40))
    numbers = {name: [InstantSample({"pool": LONG}, 123456.789)] for name in cluster_status.QUERIES}
    text = shown(seen(endless | {"fallback": LONG, "notice": "emulated, so"}, numbers=numbers, events=[event]))
    assert max(map(len, text.splitlines())) <= 80
    assert "123456.8" in text


def test_without_prometheus_the_controllers_part_is_shown_and_the_rest_is_said_to_be_unknown() -> None:
    def controller() -> tuple[dict[str, Any], list[dict[str, str]]]:
        return {"pools": [pool("big", engine("gpu-0"))]}, []

    text = shown(cluster_status.collect_status(controller, None))
    assert "monitoring.enabled: false" in text
    assert "alerts are unknown" in text
    assert ["gpu-0", "up", "3", "0", "61", "42%", "–", "–"] in words(text)
    assert "1.2 s" in text, "the controller knows the P95 by itself"
    text = shown(cluster_status.collect_status(controller, PrometheusClient("http://127.0.0.1:1")))
    assert "Prometheus does not answer at http://127.0.0.1:1" in text
