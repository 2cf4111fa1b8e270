"""gradio_client's /models: the models of the gateway."""

from __future__ import annotations

from gradio.events import api

from webui.cluster.gateway_client import Gateway


def model_api(gateway: Gateway) -> None:
    async def models() -> list[str]:
        """The models there are, `auto` last."""
        return await gateway.models()

    api(models, api_name="models")
