"""Snowflake's SQL API (`/api/v2/statements`) over fakesnow: statements, bound texts, request ids, errors.

    python snowflake_api.py PORT

It does what the tests need and no more; tokens are not checked here (a stub in Rust does).
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import fakesnow
import snowflake.connector

LOCK = threading.Lock()
ANSWERS = {}


def run(connection, body):
    bound = [body["bindings"][str(n + 1)]["value"] for n in range(len(body.get("bindings", {})))]
    # fakesnow takes the connector's own marks.
    statement = body["statement"].replace("%", "%%").replace("?", "%s") if bound else body["statement"]
    cursor = connection.cursor()
    try:
        cursor.execute(statement, bound or None)
        rows = cursor.fetchall()
    except snowflake.connector.errors.ProgrammingError as error:
        return 422, {"code": f"{error.errno:06d}", "message": str(error), "sqlState": error.sqlstate or ""}
    except Exception as error:  # noqa: BLE001: whatever DuckDB says of a value
        return 422, {"code": "100000", "message": f"{type(error).__name__}: {error}", "sqlState": "22000"}
    return 200, {"code": "090001", "data": [[None if v is None else str(v) for v in row] for row in rows]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = parse_qs(urlparse(self.path).query).get("requestId", [""])[0]
        with LOCK:
            if request not in ANSWERS:
                ANSWERS[request] = run(self.server.connection, body)
            status, answer = ANSWERS[request]
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


with fakesnow.patch():
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.connection = snowflake.connector.connect(database="DB", schema="PUBLIC")
    server.serve_forever()
