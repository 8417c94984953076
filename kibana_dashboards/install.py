#!/usr/bin/env python3
# ruff: noqa: T201
"""Put the Elastic pack into Elasticsearch and Kibana; needs nothing but Python 3.9 or newer.

Doing it again changes nothing but what is newer. The key comes from the environment, ELASTIC_API_KEY, in the encoded
form that Kibana shows, and is sent to the two addresses alone.

  python install.py --elasticsearch https://elastic.example.com:9200 --kibana https://kibana.example.com:5601
"""

import argparse
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# In the order in which one needs the other.
ALWAYS = ("_ingest/pipeline", "_component_template", "_index_template")
POLICY, LIFECYCLE = "_ilm/policy", "logs-ai_audit@lifecycle"
TRANSFORMS = "_transform"
CONFLICT, MISSING = 409, 404


class RefusedError(Exception):
    """A server did not do what it was asked."""


class Server:
    """One address that is sent requests with the key."""

    def __init__(self, url: str, key: str, ca: str) -> None:
        if not url.startswith(("https://", "http://")):
            raise RefusedError(f"{url} is no address: begin with https://")
        self._url, self._key = url.rstrip("/"), key
        self._context = ssl.create_default_context(cafile=ca or None) if url.startswith("https:") else None

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        """The answer, read; raises ``RefusedError`` with the server's words."""
        headers = {"Authorization": f"ApiKey {self._key}", "kbn-xsrf": "true", "User-Agent": "aitrail-pack"}
        if body:
            headers["Content-Type"] = kind
        request = urllib.request.Request(self._url + path, body or None, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60, context=self._context) as answer:  # noqa: S310
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode(errors="replace")
            raise RefusedError(f"{method} {path}: {error.code} {said}", error.code) from None
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise RefusedError(f"{method} {self._url}{path}: {error}") from None


def bodies(folder: str) -> list[Path]:
    """The requests of a folder: a file's path is the request's."""
    return sorted((HERE / "elasticsearch" / folder).glob("*.json"))


def elasticsearch(server: Server, *, ilm: bool, transforms: bool) -> None:
    """Pipeline, templates and, when asked for, the policy and the transforms."""
    for folder in (POLICY, *ALWAYS) if ilm else ALWAYS:
        for path in bodies(folder):
            if path.stem == LIFECYCLE and not ilm:
                continue  # without its policy this component must not be there
            server.ask("PUT", f"/{folder}/{path.stem}", path.read_bytes())
            print(f"put {folder}/{path.stem}")
    for path in bodies(TRANSFORMS) if transforms else []:
        try:
            server.ask("GET", f"/{TRANSFORMS}/{path.stem}")
        except RefusedError as error:
            if MISSING not in error.args:
                raise
            server.ask("PUT", f"/{TRANSFORMS}/{path.stem}?defer_validation=true", path.read_bytes())
            server.ask("POST", f"/{TRANSFORMS}/{path.stem}/_start")
            print(f"started transform {path.stem}")


def kibana(server: Server, space: str) -> None:
    """Dashboards and hunts, newer over older; rules that are there keep what people changed."""
    base = f"/s/{space}" if space else ""
    for name in ("dashboards", "hunts"):
        told = _import(server, f"{base}/api/saved_objects/_import?overwrite=true", name)
        if not told.get("success"):
            raise RefusedError(f"{name}: {json.dumps(told.get('errors', told))[:2000]}")
        print(f"imported {told.get('successCount')} objects of {name}")
    told = _import(server, f"{base}/api/detection_engine/rules/_import?overwrite=false", "rules")
    wrong = [one for one in told.get("errors", []) if one.get("error", {}).get("status_code") != CONFLICT]
    if wrong:
        raise RefusedError(f"rules: {json.dumps(wrong)[:2000]}")
    print(f"imported {told.get('success_count')} rules; {len(told.get('errors', []))} were there already")


def _import(server: Server, path: str, name: str) -> Any:
    """Send a file as a form does."""
    line = uuid.uuid4().hex
    head = f'--{line}\r\nContent-Disposition: form-data; name="file"; filename="{name}.ndjson"\r\n'
    parts = (
        head.encode(),
        b"Content-Type: application/ndjson\r\n\r\n",
        (HERE / "import" / f"{name}.ndjson").read_bytes(),
        f"\r\n--{line}--\r\n".encode(),
    )
    return server.ask("POST", path, b"".join(parts), f"multipart/form-data; boundary={line}")


def main(arguments: "list[str] | None" = None) -> int:
    """Do what the arguments say; 1 when a server refused."""
    parser = argparse.ArgumentParser(description="Put the Elastic pack of aitrail into Elasticsearch and Kibana.")
    parser.add_argument("--elasticsearch", metavar="URL", help="pipeline, templates, policy, transforms")
    parser.add_argument("--kibana", metavar="URL", help="dashboards, hunts, rules")
    parser.add_argument("--space", default="", help="a space of Kibana other than the default one")
    parser.add_argument("--ilm", action="store_true", help="the pack's policy instead of the streams' own lifecycle")
    parser.add_argument("--transforms", action="store_true", help="make and start the daily transforms")
    parser.add_argument("--ca", default="", metavar="FILE", help="certificates to trust, for an authority of your own")
    of = parser.parse_args(arguments)
    key = os.environ.get("ELASTIC_API_KEY", "")
    if not key or not (of.elasticsearch or of.kibana):
        parser.error("set ELASTIC_API_KEY, and name --elasticsearch, --kibana or both")
    try:
        if of.elasticsearch:
            elasticsearch(Server(of.elasticsearch, key, of.ca), ilm=of.ilm, transforms=of.transforms)
        if of.kibana:
            kibana(Server(of.kibana, key, of.ca), of.space)
    except RefusedError as error:
        print(error.args[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
