"""A server on this machine that answers ``huggingface_hub`` as the Hub does, as far as pushing and loading go.

Not a test file. It speaks HTTP for real: who one is, making a repository, how a file is to be uploaded, large files
through git-lfs, a commit as lines of JSON, what a repository holds, and its files. Written from what the client sends
and reads.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

OWNER = "ann"
# Made up, and put together here so that nothing in this repository looks like a token.
TOKEN = "hf_" + "standin" * 6
_LARGE = (".safetensors", ".jpg", ".png", ".npz", ".webm", ".woff2", ".onnx")


@dataclass
class Repo:
    """A repository: whether it is private, its commits, oldest first, each with its files by name."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def head(self) -> tuple[str, dict[str, bytes]]:
        return self.commits[-1]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.head
        return next((each for each in self.commits if each[0] == revision), None)

    def commit(self, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits.append((name, files))
        return name


@dataclass
class Hub:
    """What a test sees of the server.

    Attributes:
        url: where it is.
        repos: by kind (``models``, ``spaces``) and id.
        asked: method and path of every request, in order.
        refuse: status to answer with, by the beginning of "METHOD /path".
        spoil: names of files whose content is changed on arrival.
        race: somebody else commits before a commit arrives.
    """

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    spoil: set[str] = field(default_factory=set)
    race: bool = False
    large: dict[str, bytes] = field(default_factory=dict)

    def files(self, name: str, kind: str = "models") -> dict[str, bytes]:
        """Return the files at the head of a repository."""
        return self.repos[kind, name].head[1]


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Serve a new, empty Hub on a free port of 127.0.0.1 until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.asked.append(line)
        body = self._body()
        status = next((code for start, code in self.hub.refuse.items() if line.startswith(start)), None)
        if status is not None:
            return self._send({"error": f"refused with {status}"}, status)
        parts = path.strip("/").split("/")
        if parts[0] == "large":
            return self._large(parts[1], body)
        if "resolve" in parts:
            return self._resolve(parts)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid credentials"}, 401, {"X-Error-Message": "Invalid credentials"})
        if path == "/api/whoami-v2":
            return self._send({"type": "user", "name": OWNER, "auth": {"type": "access_token"}})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        return self._repository(parts, body)

    def _repository(self, parts: list[str], body: bytes) -> None:
        _, kind, owner, name, *rest = parts
        repo = self.hub.repos.get((kind, f"{owner}/{name}"))
        if repo is None:
            return self._send({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        what, revision = (rest[0], rest[1]) if rest else ("revision", "main")
        if what == "preupload":
            return self._preupload(repo, json.loads(body))
        if what == "commit":
            return self._commit(repo, f"{owner}/{name}", body)
        found = repo.at(revision)
        if found is None:
            return self._send({"error": "no such revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        if what == "tree":
            return self._send([_entry(file, content) for file, content in sorted(files.items())])
        siblings = [{"rfilename": file} for file in sorted(files)]
        return self._send(
            {"_id": "0", "id": f"{owner}/{name}", "sha": commit, "private": repo.private, "siblings": siblings}
        )

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or OWNER
        kind = f"{asked.get('type', 'model')}s"
        name = f"{owner}/{asked['name']}"
        if owner != OWNER:
            return self._send({"error": f"no rights under {owner}"}, 403)
        if (kind, name) in self.hub.repos:
            return self._send({"error": "there already"}, 409)
        repo = self.hub.repos[kind, name] = Repo(asked.get("visibility") == "private")
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return self._send({"url": f"{self.hub.url}/{'spaces/' if kind == 'spaces' else ''}{name}"})

    def _validate(self, content: str) -> None:
        try:
            front = yaml.safe_load(content.split("---")[1])
        except (IndexError, yaml.YAMLError) as error:
            return self._send({"errors": [{"message": str(error)}], "warnings": []}, 400)
        wrong = [] if isinstance(front, dict) else [{"message": "no mapping"}]
        return self._send({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def _preupload(self, repo: Repo, asked: dict[str, Any]) -> None:
        files = []
        for file in asked["files"]:
            there = repo.head[1].get(file["path"])
            mode = "lfs" if file["path"].endswith(_LARGE) else "regular"
            oid = None if there is None else hashlib.sha256(there).hexdigest() if mode == "lfs" else _oid(there)
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for item in asked["objects"]:
            one: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/large/{item['oid']}"}}
            objects.append(one)
        self._send({"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")

    def _large(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._send({"error": "another hash"}, 400)
        self.hub.large[oid] = body
        return self._send({})

    def _commit(self, repo: Repo, name: str, body: bytes) -> None:
        if self.hub.race:
            repo.commit(repo.head[1] | {"theirs.txt": b"somebody else's"})
        files = dict(repo.head[1])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, repo.head[0]):
                return self._send({"error": "the head has moved"}, 412)
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    return self._send({"error": f"{value['path']} was not uploaded"}, 400)
                files[value["path"]] = self.hub.large[value["oid"]]
        files |= dict.fromkeys(self.hub.spoil, b"spoilt")
        commit = repo.commit(files)
        return self._send({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def _resolve(self, parts: list[str]) -> None:
        at = parts.index("resolve")
        kind = "spaces" if parts[0] == "spaces" else "models"
        repo = self.hub.repos.get((kind, "/".join(parts[at - 2 : at])))
        found = repo.at(parts[at + 1]) if repo is not None else None
        allowed = repo is not None and (not repo.private or self.headers.get("Authorization") == f"Bearer {TOKEN}")
        if found is None or not allowed:
            return self._send({"error": "Repository not found"}, 401, {"X-Error-Code": "RepoNotFound"})
        commit, files = found
        content = files.get("/".join(parts[at + 2 :]))
        if content is None:
            return self._send(
                {"error": "no such file"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            )
        large = parts[-1].endswith(_LARGE)
        tag = hashlib.sha256(content).hexdigest() if large else _oid(content)
        return self._raw(content, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit}, "application/octet-stream")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            out = b""
            while size := int(self.rfile.readline(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(
        self, value: Any, status: int = 200, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        self._raw(json.dumps(value).encode(), status, headers or {}, kind)

    def _raw(self, content: bytes, status: int, headers: dict[str, str], kind: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
    if name.endswith(_LARGE):
        out["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return out
