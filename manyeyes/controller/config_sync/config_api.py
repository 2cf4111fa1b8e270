"""GET /api/configuration: what is in force, what is wrong, what needs a person."""

from typing import Any

from fastapi import APIRouter

from manyeyes.controller.config_sync.config_watcher import Configuration


def router(configuration: Configuration) -> APIRouter:
    """For the application of manyeyes/controller/api.py."""
    routes = APIRouter()

    @routes.get("/api/configuration")
    async def status() -> dict[str, Any]:
        """{applied: {at, digest}, judged: digest, refused: [problem], gateway: {wanted, in_force, trouble}, needs: [sentence]}."""
        return configuration.status()

    return routes
