"""A picker that only tells whether it is well and which pools it sees."""

import http.server
import json
import os
import socketserver
import sys
from pathlib import Path


class Picker(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        pools = json.loads(Path("pools.json").read_bytes())
        body = f"ok {pools['etag']}".encode()
        if self.path == "/pools":
            body = " ".join(pool["name"] for pool in pools["pools"]).encode()
        self.send_response(503 if os.environ.get("FAKE_PICKER") == "unready" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    if os.environ.get("FAKE_PICKER") == "broken":
        sys.exit("no module named scores")
    with Server("run/picker.sock", Picker) as server:
        server.serve_forever()
