"""Mounts the registry's API on the controller's application, with authentication and a common error format."""

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response

from manyeyes.config.loader import describe_errors
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.registry import annotations
from manyeyes.controller.registry.middleware import TOO_LARGE, AdminAuthMiddleware, AdminKey, error_response
from manyeyes.controller.registry.registration_checks import RegistrationChecks
from manyeyes.controller.registry.registrations import RegistrationService
from manyeyes.controller.registry.routes import drain_routes, engine_routes, pool_routes
from manyeyes.controller.settings import ControllerSettings
from manyeyes.controller.state_store import StateStore
from manyeyes.openai_error import ApiError

BEARER = HTTPBearer(auto_error=False, description="The admin key: `manyeyes admin-key` prints it.")
"""Documents the key, so that the OpenAPI page has its button. middleware.py checks the key."""


def mount_registry(
    app: FastAPI, fleet: Fleet, effective: EffectiveConfig, state_store: StateStore, settings: ControllerSettings
) -> None:
    """Adds the routes, the authentication and the error handlers to `app`."""
    registrations = RegistrationService(effective, state_store)
    checks = RegistrationChecks(settings, effective)
    for router in (
        engine_routes(fleet, effective, registrations, checks, settings.adapter_name),
        drain_routes(fleet),
        pool_routes(fleet, effective, registrations, checks),
        annotations.routes(fleet),
    ):
        app.include_router(router, dependencies=[Security(BEARER)])
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_fields)
    app.add_middleware(AdminAuthMiddleware, key=AdminKey(settings.secrets))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(
            ApiError(404, "not_found", f"There is nothing at {request.url.path[:200]}. /api/docs lists all calls.")
        )
    if error.status_code == 413:
        return error_response(TOO_LARGE)
    if error.status_code == 405:
        refusal = ApiError(405, "method_not_allowed", f"{request.method} is not allowed at {request.url.path[:200]}.")
        return error_response(refusal, dict(error.headers or {}))
    return error_response(ApiError(error.status_code, f"http_{error.status_code}", f"{error.detail}."))


async def _wrong_fields(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        return error_response(ApiError(422, "invalid_json", "The body is not valid JSON."))
    placed = [detail | {"loc": detail["loc"][1:]} for detail in details]
    problems = describe_errors(placed, error.body, "/api/docs")
    first = next((str(step) for step in placed[0]["loc"] if isinstance(step, str)), None)
    return error_response(ApiError(422, "invalid_request", "; ".join(problems), first))
