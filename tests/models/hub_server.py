"""A model hub on loopback: what huggingface_hub asks of one, and the ways in which one fails."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODES = {  # what the hub says in X-Error-Code, and its status
    "gated": (403, "GatedRepo"),
    "no repository": (404, "RepoNotFound"),
    "no revision": (404, "RevisionNotFound"),
    "no file": (404, "EntryNotFound"),
}


class Hub:
    """Repositories, by `ORGANISATION/NAME` or `datasets/ORGANISATION/NAME`: file name -> content.

    `faults` maps a part of a request (`HEAD /o/m/resolve/...`) to a status, a key of CODES, or hang, cut, portal.
    """

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        self.repositories, self.commits = repositories, {COMMIT}
        self.faults: dict[str, int | str] = {}
        self.requests: list[str] = []
        self.released = threading.Event()  # what hangs goes on
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def heal(self) -> None:
        """End all faults."""
        self.faults, self.requests = {}, []


def folder_files(folder: Path) -> dict[str, bytes]:
    """The files of a model folder, as a repository."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def etag(name: str, content: bytes) -> str:
    """As the hub names a file: SHA-256 of what git-lfs holds, git's SHA-1 of the rest."""
    if name.endswith((".safetensors", ".parquet")):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)  # a proxy is given the whole address
        request = f"{self.command} {path}"
        hub.requests.append(request)
        fault = next((fault for part, fault in hub.faults.items() if part in request), None)
        if fault == "hang":
            hub.released.wait(30)
            self.close_connection = True
        elif fault is not None and fault != "cut":
            self._refuse(fault)
        else:
            self._serve(path, hub, cut=fault == "cut")

    def _refuse(self, fault: int | str) -> None:
        if fault == "portal":
            return self._send(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
        status, code = CODES[fault] if isinstance(fault, str) else (fault, None)
        return self._send(status, b"", {"X-Error-Code": code} if code else {})

    def _serve(self, path: str, hub: Hub, cut: bool) -> None:
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            return self._describe(parts, hub)
        place = parts.index("resolve") if "resolve" in parts else 2
        files = hub.repositories.get("/".join(parts[:place]))
        revision, name = parts[place + 1], "/".join(parts[place + 2 :])
        if files is None:
            return self._refuse("no repository")
        if revision not in (*hub.commits, "main"):
            return self._refuse("no revision")
        if name not in files:
            return self._refuse("no file")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(name, files[name])}"'}
        return self._send(200, files[name], headers, cut)

    def _describe(self, parts: list[str], hub: Hub) -> None:
        """The commit of a revision, or the list of a repository's files."""
        if len(parts) < 5:
            return self._refuse("no file")
        _, kind, organisation, name, what, *_ = parts
        key = f"{'datasets/' if kind == 'datasets' else ''}{organisation}/{name}"
        files = hub.repositories.get(key)
        if files is None:
            return self._refuse("no repository")
        if what == "revision":
            return self._send(200, json.dumps({"id": key, "sha": COMMIT, "siblings": []}).encode(), {})
        rows = [
            {"type": "file", "path": name, "size": len(content), "oid": etag(name, content)}
            for name, content in files.items()
        ]
        return self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut
