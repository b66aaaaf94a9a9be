"""A server that speaks the part of the Hugging Face Hub's HTTP API that loading and sharing use.

Downloads: `HEAD` and `GET /ORG/NAME/resolve/COMMIT/FILE`, with the headers by which the hub tells
commit, hash and size; `safetensors` are stored as large files, which are redirected to another
address. Uploads: making a repository, asking which files are large, storing these, and the commit.
Described at https://huggingface.co/docs/hub/api and in the source of `huggingface_hub`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

LARGE = ".safetensors"
TYPES = {"Content-Type": "application/octet-stream"}


@dataclass
class Fault:
    """What goes wrong with a file: a change to the answer to one method's requests."""

    name: str
    method: str
    change: Callable[[Response], Response]


@dataclass
class Hub:
    """Repositories by name; of each, commits by hash, and of each of these, files by name."""

    server: HTTPServer
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by hash."""

    @property
    def url(self) -> str:
        return self.server.url_for("").rstrip("/")

    @property
    def store(self) -> str:
        """Where large files are: to HTTP another host, as with the real one."""
        return self.url.replace("localhost", "127.0.0.1")

    def publish(self, repo: str, directory: Path) -> str:
        """Put a directory's files into a new commit of a repository."""
        files = {path.name: path.read_bytes() for path in directory.iterdir()}
        return self.commit(repo, files)

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        commits = self.repos.setdefault(repo, {})
        commit = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[commit] = files
        return commit

    def answer(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.path}")
        if match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", request.path):
            response = self._file(request, match[1], match[2], match[3])
            for fault in self.faults:
                if fault.name == match[3] and fault.method == request.method:
                    response = fault.change(response)
            return response
        if match := re.fullmatch(r"/large/(\w+)/(.+)", request.path):
            response = self._large(request, match[1])
            for fault in self.faults:
                if fault.name == match[2] and fault.method == "LARGE":
                    response = fault.change(response)
            return response
        return self._api(request)

    def _file(self, request: Request, repo: str, commit: str, name: str) -> Response:
        if repo not in self.repos:
            return _error(404, "RepoNotFound")
        commits = self.repos[repo]
        commit = list(commits)[-1] if commit == "main" else commit
        if commit not in commits:
            return _error(404, "RevisionNotFound")
        if name not in commits[commit]:
            return _error(404, "EntryNotFound", commit)
        content = commits[commit][name]
        told = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", **TYPES}
        if name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            self.stored[digest] = content
            told |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.store}/large/{digest}/{name}",
            }
            return Response(status=302, headers=told)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return Response(content, headers=told | {"ETag": f'"{blob}"'})

    def _large(self, request: Request, digest: str) -> Response:
        if request.method == "PUT":
            self.stored[digest] = request.get_data()
            return Response(status=200)
        return Response(self.stored[digest], headers=TYPES)

    def _api(self, request: Request) -> Response:
        path = request.path
        if path == "/api/repos/create":
            wanted = json.loads(request.get_data())
            repo = f"{wanted['organization']}/{wanted['name']}"
            if repo in self.repos:
                return _json({"error": "it exists", "url": f"{self.url}/{repo}"}, 409)
            self.repos[repo] = {hashlib.sha1(repo.encode()).hexdigest(): {}}
            return _json({"url": f"{self.url}/{repo}", "name": repo})
        if path == "/api/validate-yaml":  # of a README's first lines
            return _json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/(\w+))?", path):
            if match[1] not in self.repos:
                return _error(404, "RepoNotFound")
            head = list(self.repos[match[1]])[-1]
            return _json({"id": match[1], "modelId": match[1], "sha": head, "siblings": []})
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            asked = json.loads(request.get_data())["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in asked
            ]
            return _json({"files": modes})
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            objects = [
                {
                    "oid": item["oid"],
                    "size": item["size"],
                    "actions": {
                        "upload": {"href": f"{self.store}/large/{item['oid']}/x", "header": {}}
                    },
                }
                for item in json.loads(request.get_data())["objects"]
            ]
            return _json({"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            files: dict[str, bytes] = {}
            for line in request.get_data().splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    files[value["path"]] = self.stored[value["oid"]]
            commit = self.commit(match[1], files)
            return _json(
                {"commitUrl": f"{self.url}/{match[1]}/commit/{commit}", "commitOid": commit}
            )
        return _error(404, "EntryNotFound")


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port."""
    server = HTTPServer(threaded=True)
    hub = Hub(server)
    server.expect_request(re.compile(".*")).respond_with_handler(hub.answer)
    server.start()
    try:
        yield hub
    finally:
        server.stop()


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status=status, content_type="application/json")


def _error(status: int, code: str, commit: str | None = None) -> Response:
    headers = {"X-Error-Code": code, "X-Error-Message": code}
    if commit is not None:
        headers["X-Repo-Commit"] = commit
    return Response(status=status, headers=headers)
