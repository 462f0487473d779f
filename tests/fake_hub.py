"""A small Hugging Face hub on this machine: the part of its HTTP interface that
huggingface_hub uses to fetch files and to commit them, in memory."""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import re
import threading
from collections.abc import Generator, Mapping

from huggingface_hub import constants

TOKEN = "hf_of_the_owner"
# Files that go through large file storage, as on the hub.
_LARGE = (".safetensors", ".bin")


@dataclasses.dataclass
class Repository:
  """Commits, each with all of its files, and the names of some of them."""

  private: bool = False
  gated: bool = False
  commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
  refs: dict[str, str] = dataclasses.field(default_factory=dict)
  messages: list[str] = dataclasses.field(default_factory=list)

  def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
    number = repr((len(self.commits), sorted(files), ref)).encode()
    oid = hashlib.sha1(number).hexdigest()
    self.commits[oid] = dict(files)
    self.refs[ref] = oid
    return oid

  def files(self, revision: str = "main") -> dict[str, bytes] | None:
    return self.commits.get(self.refs.get(revision, revision))


class Hub:
  """Repositories by id, and what is to go wrong.

  Attributes:
    errors: end of a path -> (status, how many more times).
    cuts: ends of paths of which only half of the bytes are sent.
    swapped: sha256 -> the bytes that are sent instead.
    requests: (method, path) of all requests.
  """

  def __init__(self):
    self.address = ""
    self.storage = ""  # of large files: another host, which gets no token
    self.repositories: dict[str, Repository] = {}
    self.objects: dict[str, bytes] = {}  # by sha256
    self.errors: dict[str, tuple[int, int]] = {}
    self.cuts: set[str] = set()
    self.swapped: dict[str, bytes] = {}
    self.requests: list[tuple[str, str]] = []

  def add(
    self, name: str, files: Mapping[str, bytes], *, ref="main", **options
  ) -> str:
    """Commits files; returns the commit."""
    repo = self.repositories.setdefault(name, Repository(**options))
    for data in files.values():
      self.objects[hashlib.sha256(data).hexdigest()] = data
    return repo.commit(files, ref)


@contextlib.contextmanager
def serve() -> Generator[Hub]:
  """Serves a hub without repositories."""
  hub = Hub()
  handler = type("Handler", (_Handler,), {"hub": hub})
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  server.daemon_threads = True
  server.handle_error = lambda *_: None  # the client may hang up
  hub.address = f"http://127.0.0.1:{server.server_port}"
  hub.storage = f"http://localhost:{server.server_port}"
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield hub
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


def connect(hub: Hub, folder: pathlib.Path, monkeypatch) -> None:
  """Lets this process use the hub, with caches in a folder and no token.

  huggingface_hub reads these settings of the environment when it is imported.
  """
  for name, value in {
    "ENDPOINT": hub.address,
    "HUGGINGFACE_CO_URL_TEMPLATE": (
      hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    ),
    "HF_HUB_CACHE": os.fspath(folder / "hub"),
    "HF_HUB_DISABLE_XET": True,
    "HF_HUB_OFFLINE": False,
    "HF_TOKEN_PATH": os.fspath(folder / "token"),
  }.items():
    monkeypatch.setattr(constants, name, value)
  for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("VITJAX_CACHE", os.fspath(folder / "cache"))
  monkeypatch.setattr("time.sleep", lambda seconds: None)


def git_sha1(data: bytes) -> str:
  return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  hub: Hub

  def log_message(self, *args) -> None:
    pass

  def setup(self) -> None:
    super().setup()
    self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY

  def do_HEAD(self) -> None:
    self._serve()

  def do_GET(self) -> None:
    self._serve()

  def do_POST(self) -> None:
    self._serve()

  def do_PUT(self) -> None:
    self._serve()

  def _serve(self) -> None:
    length = int(self.headers.get("Content-Length") or 0)
    body = self.rfile.read(length)
    if self.headers.get("Transfer-Encoding") == "chunked":
      while size := int(self.rfile.readline(), 16):
        body += self.rfile.read(size)
        self.rfile.readline()
      self.rfile.readline()
    path = self.path.partition("?")[0]
    self.hub.requests.append((self.command, path))
    for end, (status, times) in self.hub.errors.items():
      if path.endswith(end) and times:
        self.hub.errors[end] = status, times - 1
        return self._answer(status, {"error": "try again"})
    for pattern, serve in (
      (r"/api/repos/create", self._create),
      (r"/api/validate-yaml", self._validate),
      (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
      (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
      (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self._commit),
      (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
      (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
      (r"/objects/(\w+)", self._object),
    ):
      if match := re.fullmatch(pattern, path):
        return serve(body, *match.groups())
    self._answer(404, {"error": "no such address"})

  def _answer(self, status, content=None, data=b"", **headers) -> None:
    if content is not None:
      data = json.dumps(content).encode()
    self.send_response(status)
    sent = data
    if any(self.path.endswith(end) for end in self.hub.cuts):
      sent = data[: len(data) // 2]
    self.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
      self.send_header(name.replace("_", "-"), value)
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(sent)
    if sent != data:
      self.close_connection = True

  def _is_owner(self) -> bool:
    return self.headers.get("Authorization") == f"Bearer {TOKEN}"

  def _open(self, name: str) -> Repository | None:
    """A repository that the client may read; otherwise answers it."""
    repo = self.hub.repositories.get(name)
    if repo is None or (repo.private and not self._is_owner()):
      status = 404 if self._is_owner() else 401
      self._answer(status, {}, X_Error_Code="RepoNotFound")
      return None
    if repo.gated and not self._is_owner():
      self._answer(403, {}, X_Error_Code="GatedRepo")
      return None
    return repo

  def _resolve(self, body, name, revision, file) -> None:
    repo = self._open(name)
    if repo is None:
      return
    files = repo.files(revision)
    if files is None:
      return self._answer(404, {}, X_Error_Code="RevisionNotFound")
    commit = repo.refs.get(revision, revision)
    headers = {"X_Repo_Commit": commit}
    if file not in files:
      return self._answer(404, {}, X_Error_Code="EntryNotFound", **headers)
    data = files[file]
    if not file.endswith(_LARGE):
      return self._answer(200, data=data, ETag=f'"{git_sha1(data)}"', **headers)
    sha256 = hashlib.sha256(data).hexdigest()
    self._answer(
      302,
      Location=f"{self.hub.storage}/objects/{sha256}",
      X_Linked_ETag=f'"{sha256}"',
      X_Linked_Size=str(len(data)),
      **headers,
    )

  def _object(self, body, sha256) -> None:
    if self.command == "PUT":
      if hashlib.sha256(body).hexdigest() != sha256:
        return self._answer(400, {"error": "wrong checksum"})
      self.hub.objects[sha256] = body
      return self._answer(200, {})
    self._answer(
      200, data=self.hub.swapped.get(sha256, self.hub.objects[sha256])
    )

  def _info(self, body, name, revision) -> None:
    repo = self._open(name)
    if repo is None:
      return
    files = repo.files(revision or "main")
    if files is None:
      return self._answer(404, {}, X_Error_Code="RevisionNotFound")
    self._answer(
      200,
      {
        "id": name,
        "sha": repo.refs.get(revision or "main", revision),
        "private": repo.private,
        "siblings": [{"rfilename": file} for file in files],
      },
    )

  def _create(self, body, *_) -> None:
    if not self._is_owner():
      return self._answer(401, {"error": "Invalid username or password."})
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if name in self.hub.repositories:
      url = f"{self.hub.address}/{name}"
      return self._answer(409, {"error": "it exists already", "url": url})
    private = asked.get("visibility") == "private" or asked.get("private")
    self.hub.add(name, {".gitattributes": b""}, private=bool(private))
    self._answer(200, {"url": f"{self.hub.address}/{name}"})

  def _validate(self, *_) -> None:
    self._answer(200, {"errors": [], "warnings": []})

  def _preupload(self, body, name, revision) -> None:
    if not self._is_owner():
      return self._answer(403, {"error": "no right to write"})
    files = [
      {
        "path": file["path"],
        "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
        "shouldIgnore": False,
      }
      for file in json.loads(body)["files"]
    ]
    self._answer(200, {"files": files})

  def _batch(self, body, name) -> None:
    objects = [
      {
        **x,
        "actions": {
          "upload": {"href": f"{self.hub.storage}/objects/{x['oid']}"}
        },
      }
      for x in json.loads(body)["objects"]
    ]
    self._answer(200, {"transfer": "basic", "objects": objects})

  def _commit(self, body, name, revision) -> None:
    repo = self.hub.repositories[name]
    files = dict(repo.files(revision) or {})
    for line in body.splitlines():
      row = json.loads(line)
      value = row["value"]
      if row["key"] == "header":
        repo.messages.append(value["summary"])
      elif row["key"] == "file":
        files[value["path"]] = base64.b64decode(value["content"])
      elif row["key"] == "lfsFile":
        files[value["path"]] = self.hub.objects[value["oid"]]
      elif row["key"] == "deletedFile":
        files.pop(value["path"], None)
    oid = repo.commit(files, revision)
    self._answer(
      200,
      {
        "success": True,
        "commitOid": oid,
        "commitUrl": f"{self.hub.address}/{name}/commit/{oid}",
        "hookOutput": "",
      },
    )
