"""Runs in an environment of .cache/gateways: calls an OpenAI API instrumented by OpenTelemetry, exports over OTLP/HTTP.

Usage: otel_client.py current|legacy MODEL_URL OTLP_URL
"""

import importlib
import sys
import threading

from openai import OpenAI, RateLimitError
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

generation, model, otlp = sys.argv[1:4]
headers = {"Authorization": "Bearer s3cret-of-this-test"}
resource = Resource.create({"service.name": "retail-bot", "department": "retail", "cloud.region": "eu-west-1"})

tracing = TracerProvider(resource=resource)
tracing.add_span_processor(
    BatchSpanProcessor(OTLPSpanExporter(f"{otlp}/v1/traces", headers=headers, compression=Compression.Gzip))
)
logging = LoggerProvider(resource=resource)
logging.add_log_record_processor(
    BatchLogRecordProcessor(OTLPLogExporter(f"{otlp}/v1/logs", headers=headers, compression=Compression.Gzip))
)
options = {"tracer_provider": tracing, "logger_provider": logging}
if generation == "current":
    name = "opentelemetry.instrumentation.genai.openai"
else:
    name = "opentelemetry.instrumentation.openai_v2"
    from opentelemetry.sdk._events import EventLoggerProvider

    options["event_logger_provider"] = EventLoggerProvider(logging)
importlib.import_module(name).OpenAIInstrumentor().instrument(**options)

client = OpenAI(api_key="none", base_url=model, max_retries=0)
tools = [{"type": "function", "function": {"name": "get_balance", "parameters": {"type": "object", "properties": {}}}}]
with trace.get_tracer("app", tracer_provider=tracing).start_as_current_span(
    "handle", attributes={"http.route": "/ask"}
):
    client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "how is my balance?"}],
        user="ines.moreau",
    )
    client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "balance of ACC-7"}], tools=tools
    )
    for _ in client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "piece by piece"}], stream=True
    ):
        pass
    client.embeddings.create(model="text-embedding-3-small", input="a text to embed")
    try:
        client.chat.completions.create(model="throttled", messages=[{"role": "user", "content": "too much"}])
    except RateLimitError as error:
        print(type(error).__name__)
# At the same time, as two batch processors export: the answer to a log record waits for its span.
texts = threading.Thread(target=logging.force_flush)
texts.start()
tracing.force_flush()
texts.join()
tracing.shutdown()
logging.shutdown()
print("exported")
