"""The Cluster tab: live pools and engines, events, load runs, and drain, resume and scale with the admin key."""

from collections.abc import Awaitable
from typing import Any

import gradio as gr
from gradio.events import api

from webui.cluster import cluster_view, controller_client
from webui.cluster.controller_client import ControllerClient, LocustClient
from webui.i18n import _
from webui.tabs import controls
from webui.theme import alert_html, hint_html, status_html
from webui.user_error import UserError

STATUS_INTERVAL_S = 2.0
LINKS = (
    '<p class="links"><a href="/grafana/" target="_blank">Grafana</a> · <a href="/locust/" target="_blank">{load}</a> · '
    '<a href="/api/docs" target="_blank">{api}</a> · <a href="/healthz" target="_blank">/healthz</a></p>'
)


def build_cluster_tab(controller: ControllerClient, run: LocustClient, calls_at_once: int) -> gr.Timer:
    """Builds the tab. Returns its timer, which is active while the tab is open."""
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="outputs", min_width=300):
            pools = gr.HTML(hint_html(_("Loading …")), elem_id="cluster-pools")
            gr.HTML("<h3>" + _("Events") + "</h3>", elem_classes="text-block")
            events = gr.HTML(elem_id="cluster-events")
        with gr.Column(elem_classes="inputs", scale=0, min_width=300):
            gr.HTML(LINKS.format(load=_("Load test"), api=_("API of the controller")), elem_classes="text-block")
            key = gr.Textbox(
                label=_("Admin key"),
                info=_("`manyeyes admin-key` prints it. The page does not store it."),
                type="password",
                max_lines=1,
                elem_id="admin-key",
                html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
            )
            engine = gr.Dropdown(label=_("Engine"), choices=[], allow_custom_value=True)
            with gr.Row(elem_classes="tools"):
                drain = gr.Button(_("Drain"), size="sm", elem_classes="tool")
                resume = gr.Button(_("Resume"), size="sm", elem_classes="tool")
            pool = gr.Dropdown(label=_("Pool"), choices=[], allow_custom_value=True)
            engines = gr.Number(
                label=_("Number of engines (0: the pool's own policy)"), value=1, precision=0, minimum=0
            )
            with gr.Row(elem_classes="tools"):
                scale = gr.Button(_("Scale"), size="sm", elem_classes="tool")
            result = gr.HTML(elem_classes="text-block", elem_id="cluster-result")
            people = gr.Slider(1, controller_client.MAX_USERS, value=10, step=1, label=_("Load run: users"))
            with gr.Row(elem_classes="tools"):
                start = gr.Button(_("Start run"), size="sm", elem_classes="tool")
                stop = gr.Button(_("Stop run"), size="sm", elem_classes="tool")
            load = gr.HTML(elem_id="load-run", elem_classes="text-block")
    timer = gr.Timer(STATUS_INTERVAL_S, active=False)
    events_of = ClusterHandlers(controller, run)
    seen = [pools, events, engine, pool, load]
    timer.tick(events_of.refresh, [engine, pool], seen, **controls.IMMEDIATE_EVENT)
    changed = [result, pools, events]
    drain.click(events_of.drain, [engine, key], changed, **controls.IMMEDIATE_EVENT)
    resume.click(events_of.resume, [engine, key], changed, **controls.IMMEDIATE_EVENT)
    scale.click(events_of.scale, [pool, engines, key], changed, **controls.IMMEDIATE_EVENT)
    start.click(events_of.start, [people, key], [load], **controls.IMMEDIATE_EVENT)
    stop.click(events_of.stop, [key], [load], **controls.IMMEDIATE_EVENT)
    events_of.mount_api(calls_at_once)
    return timer


class ClusterHandlers:
    def __init__(self, controller: ControllerClient, run: LocustClient) -> None:
        self._controller = controller
        self._run = run

    async def refresh(self, engine: str | None, pool: str | None) -> tuple[Any, ...]:
        status = await self._controller.fetch_status()
        names, pools = cluster_view.engine_names(status), cluster_view.pool_names(status)
        return (
            cluster_view.pools_html(status),
            cluster_view.events_html(status),
            # Filled once, so that a list that the user has open does not change.
            gr.skip() if engine or not names else gr.update(choices=names, value=names[0]),
            gr.skip() if pool or not pools else gr.update(choices=pools, value=pools[0]),
            controller_client.load_run_html(await self._run.stats()),
        )

    async def drain(self, engine: str | None, key: str) -> tuple[Any, ...]:
        if not engine:
            return alert_html(_("Choose an engine first.")), gr.skip(), gr.skip()
        return await self._changed(self._controller.drain(engine, key))

    async def resume(self, engine: str | None, key: str) -> tuple[Any, ...]:
        if not engine:
            return alert_html(_("Choose an engine first.")), gr.skip(), gr.skip()
        return await self._changed(self._controller.resume(engine, key))

    async def scale(self, pool: str | None, engines: float | None, key: str) -> tuple[Any, ...]:
        if not pool:
            return alert_html(_("Choose a pool first.")), gr.skip(), gr.skip()
        return await self._changed(self._controller.scale(pool, int(engines or 0), key))

    async def start(self, people: float, key: str) -> str:
        return await _result_html(self._run.start(int(people), key, max(1.0, people / 10)))

    async def stop(self, key: str) -> str:
        return await _result_html(self._run.stop(key))

    def mount_api(self, calls_at_once: int) -> None:
        async def cluster() -> dict[str, Any]:
            """Returns the current pools, engines, events and gauges."""
            status = await self._controller.fetch_status(fresh=True)
            events = status.events[: cluster_view.MAX_EVENTS]
            return {"pools": status.pools, "events": events, "gauges": status.gauges}

        async def load_stats() -> dict[str, Any]:
            """Returns the state of the load run: {"state", "people", "rps", "p95_ms", "failed"}."""
            return controller_client.load_run_facts(await self._run.stats())

        for function, name in (
            (cluster, "cluster"),
            (self._controller.drain, "drain"),
            (self._controller.resume, "resume"),
            (self._controller.scale, "scale"),
            (self._run.start, "load_start"),
            (self._run.stop, "load_stop"),
            (load_stats, "load_stats"),
        ):
            api(function, api_name=name, concurrency_limit=calls_at_once)

    async def _changed(self, changing: Awaitable[str]) -> tuple[Any, ...]:
        result = await _result_html(changing)
        status = await self._controller.fetch_status(fresh=True)
        return result, cluster_view.pools_html(status), cluster_view.events_html(status)


async def _result_html(changing: Awaitable[str]) -> str:
    try:
        return status_html(await changing)
    except UserError as failure:
        return alert_html(str(failure))
