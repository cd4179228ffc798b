"""The web application: a few reading requests and the files of one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import NormloomError, UsageError
from normloom.labelling.queue import OpenQueues
from normloom.lineage.trace import trace
from normloom.settings.faces.chat_face import Conversation
from normloom.store.store import Store
from normloom.view import comparison, media, rows
from normloom.view.analyst import add_analyst
from normloom.view.catalog import Catalog, warnings
from normloom.view.chat import add_chat
from normloom.view.guard import Guard
from normloom.view.labelling import add_queues
from normloom.view.rows import RowsWanted, cell

STATIC = Path(__file__).parent / "static"


class Sql(BaseModel):
    """A query as it was typed."""

    model_config = ConfigDict(extra="forbid")
    sql: str = Field(max_length=20_000)


def view_app(
    store: Store,
    *,
    token: str,
    who: str | None = None,
    chat: Conversation | None = None,
    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost"}),
) -> Guard:
    """Return the application for one store; every request but those for the page's own files needs the token.

    With `who` it also records answers to queues, under this name; with `chat` it shows this conversation.
    """
    catalog = Catalog(store)
    app = FastAPI(title="Normloom", docs_url=None, redoc_url=None, openapi_url=None)
    _pages(app)
    _tables(app, catalog)
    _builds(app, store)
    queues = OpenQueues(store)
    add_queues(app, queues, who)
    add_analyst(app, store, queues, who)
    add_chat(app, store, chat)
    app.add_exception_handler(NormloomError, _failed)
    return Guard(app, token=token, hosts=hosts)


def _pages(app: FastAPI) -> None:
    def serving(path: Path) -> None:
        @app.get("/" if path.name == "index.html" else f"/{path.name}")
        def page() -> FileResponse:
            return FileResponse(path)

    for path in sorted(STATIC.iterdir()):  # known by name: no path of a request is ever joined to a folder
        serving(path)


def _tables(app: FastAPI, catalog: Catalog) -> None:
    @app.get("/api/tables")
    def tables() -> dict[str, Any]:
        listed = catalog.tables()
        return {
            "store": str(catalog.store.root),
            "tables": [vars(table) for table in listed],
            "warnings": warnings({table.system for table in listed}),
            "media": [name for name, _ in catalog.media_tables()],
        }

    @app.post("/api/rows")
    def page(wanted: RowsWanted) -> dict[str, Any]:
        return rows.page(catalog, wanted)

    @app.post("/api/count")
    def count(wanted: RowsWanted) -> dict[str, int]:
        return {"rows": rows.count(catalog, wanted)}

    @app.post("/api/query")
    def query(asked: Sql) -> dict[str, Any]:
        return rows.select(catalog, asked.sql)

    @app.get("/api/trace")
    def history(row_id: str, system: str | None = None, *, forward: bool = False) -> dict[str, Any]:
        found = trace(catalog.store, row_id, system=system, forward=forward).as_json()
        for group in ("rows", "siblings"):
            for row in found[group]:
                row["values"] = {name: cell(value, longest=None) for name, value in row["values"].items()}
        return found

    @app.get("/api/media")
    def medium(media_id: str) -> Response:
        data, form = media.medium(catalog, media_id)
        return Response(data, media_type=form)


def _builds(app: FastAPI, store: Store) -> None:
    @app.get("/api/builds")
    def builds(system: str) -> list[dict[str, Any]]:
        return comparison.builds(store, _known(store, system))

    @app.get("/api/compare")
    def stages(system: str, before: str, after: str) -> list[dict[str, Any]]:
        return comparison.stages(store, _known(store, system), before, after)

    @app.get("/api/compare/rows")
    def differing(
        system: str, before: str, after: str, stage: str, offset: Annotated[int, Query(ge=0)] = 0
    ) -> dict[str, Any]:
        return comparison.rows(store, _known(store, system), before, after, stage, offset=offset)


def _known(store: Store, system: str) -> str:
    store.require(system)  # it names a folder
    return system


async def _failed(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001  # Starlette's signature
    said: Mapping[str, str] = {"error": str(error)}
    return JSONResponse(said, status_code=422 if isinstance(error, UsageError) else 500)
