"""A server on this machine that speaks as much of the Hugging Face hub's protocol as a download needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse


@contextmanager
def serving(repository: str, revisions: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serve one model repository, a folder per revision; yields HF_ENDPOINT and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            """Silent."""

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlparse(self.path).path)
            asked.append(path)
            parts = path.strip("/").split("/")
            if path.startswith(f"/api/models/{repository}"):
                name = parts[parts.index("revision") + 1] if "revision" in parts else parts[-1]
                name = parts[parts.index("tree") + 1] if "tree" in parts else name
                self.api(name if name in by_name else "main", is_tree="tree" in parts, known=name)
            elif path.startswith(f"/{repository}/resolve/"):
                self.file(by_name.get(parts[3]), "/".join(parts[4:]), with_body=with_body)
            else:
                self.missing()

        def api(self, name: str, *, is_tree: bool, known: str) -> None:
            if known not in by_name and known != repository.rsplit("/", maxsplit=1)[-1]:
                self.missing("RevisionNotFound")
                return
            folder = by_name[name]
            files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
            if is_tree:
                body: object = [
                    {"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": "0" * 40}
                    for file in files
                ]
            else:
                siblings = [{"rfilename": file} for file in files]
                body = {"id": repository, "modelId": repository, "sha": commit(folder), "siblings": siblings}
            self.send(json.dumps(body).encode(), {"Content-Type": "application/json"}, with_body=True)

        def file(self, folder: Path | None, name: str, *, with_body: bool) -> None:
            if folder is None or not (folder / name).is_file():
                self.missing("EntryNotFound")
                return
            data = (folder / name).read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            self.send(data, {"X-Repo-Commit": commit(folder), "ETag": f'"{etag}"'}, with_body=with_body)

        def send(self, data: bytes, headers: dict[str, str], *, with_body: bool) -> None:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def missing(self, code: str = "RepoNotFound") -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    by_name = {**revisions, **{commit(folder): folder for folder in revisions.values()}}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def commit(folder: Path) -> str:
    """Forty hex digits that stand for the folder."""
    return hashlib.sha1(str(folder).encode()).hexdigest()
