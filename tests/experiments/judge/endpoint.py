"""An OpenAI-compatible endpoint on loopback that plays what a test tells it, and remembers what it was asked."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], str]  # status, headers, body


def completion(text: str | None, finish_reason: str = "stop") -> Answer:
    """Return a chat completion that says `text`."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
    return 200, {}, json.dumps(body)


class PlayedEndpoint:
    """Serves POST /v1/chat/completions with `play(user text, how often asked before)`; a context manager."""

    def __init__(self, play: Callable[[str, int], Answer]) -> None:
        self.play = play
        self.asked: Counter[str] = Counter()  # user text -> times
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def base_url(self) -> str:
        """Return the address for `judge.base_url`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "PlayedEndpoint":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: dict[str, Any], headers: dict[str, str]) -> Answer:
        text = request["messages"][-1]["content"]
        with self._lock:
            before = self.asked[text]
            self.asked[text] += 1
            self.requests.append(request)
            self.headers.append(headers)
            self.times.append(time.monotonic())
        return self.play(text, before)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, headers, body = played._answer(request, {k.lower(): v for k, v in self.headers.items()})
                try:
                    self.send_response(status)
                    for name, value in {"content-type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(body.encode())))
                    self.end_headers()
                    self.wfile.write(body.encode())
                except OSError:  # the asker was killed, or did not wait
                    pass

            def log_message(self, *arguments: object) -> None: ...

        return Handler
