"""A request's trace, as its caller sent it, goes on in the spans of what it brings about."""

from __future__ import annotations

import assistant
import httpx2
from api.settings import ApiConfig
from api.web import make_web
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.observability.otel import OpenTelemetryEventHandler, Providers
from llmgine.settings import OtelSettings
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def _place(span: ReadableSpan) -> tuple[str, str | None]:
    """A span's trace, and its parent."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else None
    return f"{span.context.trace_id:032x}", parent


async def test_a_command_s_span_is_a_child_of_the_caller_s() -> None:
    exporter = InMemorySpanExporter()
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    settings = OtelSettings(metrics=False, logs=False)
    application = ApplicationBootstrap(
        ApiConfig(settings_file=None, console={"enabled": False}, file={"enabled": False}),
        bus=MessageBus.isolated(),
        handlers=[OpenTelemetryEventHandler(settings, Providers(traces=traces))],
        tools=assistant.toolbox,
        setup=assistant.register,
    )
    web = make_web(application)
    transport = httpx2.ASGITransport(web)
    headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hello"}]}
    async with (
        web.router.lifespan_context(web),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        for stream in (False, True):
            answer = await client.post(
                "/v1/chat/completions", json={**body, "stream": stream}, headers=headers
            )
            assert answer.status_code == 200
        made = await client.post("/sessions", headers=headers)
        url = f"/sessions/{made.json()['id']}"
        turn = await client.post(f"{url}/turns", json={"text": "Hello"}, headers=headers)
        assert turn.status_code == 202
    spans = exporter.get_finished_spans()
    commands = [each for each in spans if each.name.startswith("process ")]
    assert [_place(each) for each in commands] == [(TRACE_ID, SPAN_ID)] * 3
    assert {_place(each)[0] for each in spans} == {TRACE_ID}
