#!/usr/bin/env python3
"""A made-up help desk, for docs/writing-a-connector.md: python3 helpdesk.py [PORT]. Standard library only.

    GET    /api/me                                          {"account": {"id", "name"}}
    GET    /api/requesters?limit=&after=&changed_since=     {"requesters": [...], "next": "..." or null}, oldest change first
    GET    /api/requesters/ids?after=                       {"ids": [{"id"}], "next": id or null}, by id
    GET    /api/requesters/{id}                             {"requester": {...}}, or 404
    POST   /api/requesters, PATCH and DELETE /api/requesters/{id}
    POST   /api/hooks {"target", "secret"}                  {"hook": {"id"}}; DELETE /api/hooks/{id}

The key comes in X-Helpdesk-Key. Times are Unix seconds. A hook gets {"event": "requester.updated", "requester": {"id"}}
with X-Helpdesk-Signature: sha256= and the hex HMAC-SHA256 of the body.
"""
import hashlib
import hmac
import json
import queue
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "helpdesk-key-1"
LOCK = threading.Lock()
REQUESTERS = {
    1: {"id": 1, "name": {"first": "Ada", "last": "Weiss"}, "email": "Ada@Example.com", "phone": None, "vip": True,
        "created": 1769860800, "changed": 1769947200},
    2: {"id": 2, "name": {"first": "Lin", "last": "Okoro"}, "email": "lin@example.com", "phone": "+49 30 1234567",
        "vip": False, "created": 1769860800, "changed": 1769947200},
    3: {"id": 3, "name": {"first": "Teo", "last": None}, "email": "teo@example.org", "phone": None, "vip": False,
        "created": 1769864400, "changed": 1770033600},
}
HOOKS = {}
NEWS = queue.Queue(maxsize=1000)


def place(requester):
    """Where a requester stands in the list, as the cursor says it."""
    return f"{requester['changed']:010}-{requester['id']:06}"


def tell():
    """Sends each event to each hook, once."""
    while True:
        event, number = NEWS.get()
        body = json.dumps({"event": event, "requester": {"id": number}}).encode()
        for hook in list(HOOKS.values()):
            signature = hmac.new(hook["secret"].encode(), body, hashlib.sha256).hexdigest()
            headers = {"Content-Type": "application/json", "X-Helpdesk-Signature": f"sha256={signature}"}
            try:
                urllib.request.urlopen(urllib.request.Request(hook["target"], body, headers), timeout=5).close()
            except OSError as error:
                print(f"the hook {hook['target']} does not answer: {error}", file=sys.stderr)


class Desk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, message):
        self.answer(status, {"error": {"message": message}})

    def handle_call(self):
        length = min(int(self.headers.get("Content-Length") or 0), 65536)
        text = self.rfile.read(length)
        if self.headers.get("X-Helpdesk-Key") != KEY:
            return self.refuse(401, "the key is not known")
        try:
            given = json.loads(text or b"{}")
        except ValueError:
            return self.refuse(400, "the body is not JSON")
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        with LOCK:
            if parts[:2] == ["api", "requesters"]:
                return self.requesters(parts[2:], query, given)
            if parts[:2] == ["api", "hooks"]:
                return self.hooks(parts[2:], given)
            if parts == ["api", "me"]:
                return self.answer(200, {"account": {"id": "acme", "name": "Acme Support"}})
        return self.refuse(404, "there is nothing here")

    do_GET = do_POST = do_PATCH = do_DELETE = handle_call

    def requesters(self, rest, query, given):
        if not rest and self.command == "GET":
            return self.list(query)
        if rest == ["ids"]:
            numbers = sorted(n for n in REQUESTERS if n > int(query.get("after", 0)))
            page, more = numbers[:100], len(numbers) > 100
            return self.answer(200, {"ids": [{"id": n} for n in page], "next": page[-1] if more else None})
        if not rest and self.command == "POST":
            number = max(REQUESTERS, default=0) + 1
            REQUESTERS[number] = {"id": number, "name": {"first": None, "last": None}, "email": None, "phone": None,
                                  "vip": False, "created": int(time.time())}
            return self.change(number, given, "requester.created")
        number = int(rest[0]) if rest and rest[0].isdigit() else 0
        if number not in REQUESTERS:
            return self.refuse(404, "there is no such requester")
        if self.command == "DELETE":
            NEWS.put(("requester.deleted", number))
            return self.answer(200, {"requester": REQUESTERS.pop(number)})
        if self.command == "PATCH":
            return self.change(number, given, "requester.updated")
        return self.answer(200, {"requester": REQUESTERS[number]})

    def list(self, query):
        limit = max(1, min(int(query.get("limit", 100)), 100))
        since, after = int(query.get("changed_since", 0)), query.get("after", "")
        found = sorted((r for r in REQUESTERS.values() if r["changed"] >= since and place(r) > after), key=place)
        page = found[:limit]
        self.answer(200, {"requesters": page, "next": place(page[-1]) if len(found) > limit else None})

    def change(self, number, given, event):
        REQUESTERS[number].update({**given, "id": number, "changed": int(time.time())})
        NEWS.put((event, number))
        self.answer(200, {"requester": REQUESTERS[number]})

    def hooks(self, rest, given):
        if self.command == "POST" and not rest:
            number = max(HOOKS, default=0) + 1
            HOOKS[number] = {"target": str(given.get("target")), "secret": str(given.get("secret"))}
            return self.answer(200, {"hook": {"id": number}})
        number = int(rest[0]) if rest and rest[0].isdigit() else 0
        if self.command == "DELETE" and HOOKS.pop(number, None):
            return self.answer(200, {"hook": {"id": number}})
        return self.refuse(404, "there is no such hook")

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7410
    threading.Thread(target=tell, daemon=True).start()
    print(f"The help desk listens on http://127.0.0.1:{port}; the key is {KEY}.", flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), Desk).serve_forever()
