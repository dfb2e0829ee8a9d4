"""The documentation of the routes as one page, made from their OpenAPI description.

Nothing is loaded from elsewhere, and nothing runs: `/openapi.json` is there for every tool that
does more.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

__all__ = ["router"]

router = APIRouter()

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 0.875rem/1.5 ui-monospace, monospace; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.25rem; border-top: 1px solid #8886; padding-top: 1rem; }
p { margin: 0.25rem 0; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid #8886; border-radius: 0.375rem; }
table { border-collapse: collapse; }
td { padding: 0.125rem 1rem 0.125rem 0; vertical-align: top; }
"""
_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


@router.get("/docs", include_in_schema=False)
async def documentation(request: Request) -> HTMLResponse:
    """Show every route: what it takes, and what it answers."""
    schema: dict[str, Any] = request.app.openapi()
    return HTMLResponse("\n".join(_page(schema)), headers=_HEADERS)


def _page(schema: Mapping[str, Any]) -> Iterator[str]:
    about = schema["info"]
    title = escape(about["title"])
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style><main><h1>{title}</h1><p>{escape(about['description'])}</p>"
    yield '<p>For tools: <a href="openapi.json">openapi.json</a></p>'
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield from _operation(f"{method.upper()} {path}", operation)
    yield "<h1>Schemas</h1>"
    for name, each in schema.get("components", {}).get("schemas", {}).items():
        yield f'<h2 id="{escape(name)}">{escape(name)}</h2><pre>{_json(each)}</pre>'
    yield "</main></html>"


def _operation(name: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(name)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p><table>"
    for each in operation.get("parameters", []):
        note = each.get("description", "") or ("required" if each.get("required") else "")
        yield _row(f"{each['in']} {each['name']}", escape(note))
    if "requestBody" in operation:
        yield _row("body", _contents(operation["requestBody"]))
    for status, each in operation["responses"].items():
        yield _row(status, f"{escape(each.get('description', ''))} {_contents(each)}")
    yield "</table>"


def _row(name: str, html: str) -> str:
    return f"<tr><td><code>{escape(name)}</code></td><td>{html}</td></tr>"


def _contents(part: Mapping[str, Any]) -> str:
    """Return the media types of a body, each with its schema."""
    shown = (
        f"<code>{escape(kind)}</code> {_schema(each.get('schema', {}))}"
        for kind, each in part.get("content", {}).items()
    )
    return ", ".join(shown)


def _schema(schema: Mapping[str, Any]) -> str:
    reference = schema.get("$ref")
    if reference is None:
        return f"<code>{_json(schema)}</code>" if schema else ""
    name = escape(reference.rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>'


def _json(value: object) -> str:
    return escape(json.dumps(value, indent=2, ensure_ascii=False))
