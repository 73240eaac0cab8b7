"""Puts the API together: services in, an ASGI application out."""

from __future__ import annotations

from fastapi import FastAPI

from runyard.api.description import describe
from runyard.api.errors import install_error_handlers
from runyard.api.routes import ROUTERS
from runyard.api.services import ApiContext, ApiServices

__all__ = ["ApiServices", "close_application", "create_application"]


def create_application(services: ApiServices) -> FastAPI:
    app = FastAPI(title="Runyard", version=services.version, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.context = ApiContext(services)
    install_error_handlers(app, [route for router in ROUTERS for route in router.routes])
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app


def close_application(app: FastAPI) -> None:
    """Call it when stopping begins: long polls and streams end within a second, /readyz says no."""
    context: ApiContext = app.state.context
    context.close()
