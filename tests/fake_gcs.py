"""A small Google Cloud Storage on this machine: the part of its JSON API that
gcsfs and TensorStore use, with preconditions, in memory."""

import contextlib
import datetime
import http.server
import itertools
import json
import re
import threading
import urllib.parse
from collections.abc import Generator

# Variables for the address of the server.
ENDPOINTS = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")


class Bucket:
  """Objects by name, with their generations."""

  def __init__(self, name: str):
    self.name = name
    self.objects: dict[str, tuple[bytes, int, str]] = {}
    self.lock = threading.Lock()
    self._generations = itertools.count(1)

  def files(self, prefix: str = "") -> dict[str, bytes]:
    """Name -> content of the objects below a prefix."""
    return {
      name: data
      for name, (data, _, _) in sorted(self.objects.items())
      if name.startswith(prefix)
    }

  def put(self, name: str, data: bytes) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    self.objects[name] = data, next(self._generations), now

  def describe(self, name: str) -> dict:
    data, generation, updated = self.objects[name]
    return {
      "kind": "storage#object",
      "bucket": self.name,
      "name": name,
      "size": str(len(data)),
      "generation": str(generation),
      "updated": updated,
      "timeCreated": updated,
      "contentType": "application/octet-stream",
    }


@contextlib.contextmanager
def serve(
  name: str = "bucket", kind: type["Handler"] | None = None
) -> Generator[tuple[str, Bucket]]:
  """Serves a bucket; yields the address of the server, and the bucket."""
  bucket = Bucket(name)
  base = kind or Handler
  handler = type("Own", (base,), {"bucket": bucket, "uploads": {}})
  server = _Server(("127.0.0.1", 0), handler)
  # The end of the server is seen after at most that many seconds.
  thread = threading.Thread(
    target=server.serve_forever, args=(0.01,), daemon=True
  )
  thread.start()
  try:
    yield f"http://127.0.0.1:{server.server_port}", bucket
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, *args) -> None:
    """Says nothing: clients hang up when they need no answer any more."""


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  bucket: Bucket
  uploads: dict  # those in pieces

  def log_message(self, *args) -> None:
    pass

  def setup(self) -> None:
    super().setup()
    self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY

  def parse_request(self) -> bool:
    """Refuses other buckets."""
    if not super().parse_request():
      return False
    path = urllib.parse.urlsplit(self.path).path
    if f"/b/{self.bucket.name}" in path:
      return True
    self._body()
    self._answer(404, {"error": {"code": 404, "message": "no such bucket"}})
    return False

  def do_GET(self) -> None:
    path, query = self._request()
    if match := re.fullmatch(r".*/b/[^/]+/o/(.+)", path):
      name = urllib.parse.unquote(match[1])
      with self.bucket.lock:
        if not self._holds(name, query):
          return
        if name not in self.bucket.objects:
          return self._answer(404, {})
        described = self.bucket.describe(name)
        data = self.bucket.objects[name][0]
      if query.get("alt") != "media":
        return self._answer(200, described)
      headers = {"x-goog-generation": described["generation"]}
      headers["Last-Modified"] = self.date_time_string()
      return self._answer_part(data, headers)
    if re.fullmatch(r".*/b/[^/]+/o/?", path):
      return self._list(query)
    if path.endswith(f"/b/{self.bucket.name}"):
      return self._answer(200, {"name": self.bucket.name})
    self._answer(404, {})

  def do_POST(self) -> None:
    path, query = self._request()
    body = self._body()
    if match := re.fullmatch(
      r".*/o/(.+)/(rewriteTo/b/[^/]+|moveTo)/o/(.+)", path
    ):
      source, verb, target = map(urllib.parse.unquote, match.groups())
      with self.bucket.lock:
        if source not in self.bucket.objects:
          return self._answer(404, {})
        self.bucket.put(target, self.bucket.objects[source][0])
        described = self.bucket.describe(target)
        if verb == "moveTo":
          del self.bucket.objects[source]
          return self._answer(200, described)
      return self._answer(200, {"done": True, "resource": described})
    kind = query.get("uploadType")
    if kind == "media":
      return self._store(query["name"], query, body)
    if kind == "multipart":
      boundary = re.search(
        r"boundary=['\"]?([^'\";]+)", self.headers["Content-Type"]
      )
      parts = body.split(b"--" + boundary[1].encode())
      facts, data = (
        re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in parts[1:3]
      )
      name = json.loads(facts)["name"]
      return self._store(name, query, re.sub(rb"\r?\n\Z", b"", data))
    if kind == "resumable":
      name = query.get("name") or json.loads(body)["name"]
      number = str(len(self.uploads))
      self.uploads[number] = (name, query, b"")
      host = f"http://{self.headers['Host']}"
      place = f"{host}{path}?uploadType=piece&upload_id={number}"
      return self._answer(200, {}, {"Location": place})
    if kind == "piece":
      return self._piece(query, body)
    self._answer(404, {})

  def do_PUT(self) -> None:
    _, query = self._request()
    self._piece(query, self._body())

  def do_DELETE(self) -> None:
    path, query = self._request()
    name = urllib.parse.unquote(path.partition("/o/")[2])
    with self.bucket.lock:
      if not self._holds(name, query):
        return
      found = self.bucket.objects.pop(name, None)
    self._answer(404 if found is None else 204, b"")

  def _request(self) -> tuple[str, dict[str, str]]:
    url = urllib.parse.urlsplit(self.path)
    return url.path, dict(urllib.parse.parse_qsl(url.query))

  def _body(self) -> bytes:
    if self.headers["Transfer-Encoding"] != "chunked":
      return self.rfile.read(int(self.headers["Content-Length"] or 0))
    data = b""
    while size := int(self.rfile.readline(), 16):
      data += self.rfile.read(size)
      self.rfile.readline()
    self.rfile.readline()
    return data

  def _holds(self, name: str, query: dict[str, str]) -> bool:
    """Answers and returns False if a precondition does not hold."""
    generation = str(self.bucket.objects.get(name, (b"", 0, ""))[1])
    if query.get("ifGenerationMatch", generation) != generation:
      self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
    elif query.get("ifGenerationNotMatch") == generation:
      self._answer(304, b"")
    else:
      return True
    return False

  def _store(self, name: str, query: dict[str, str], data: bytes) -> None:
    with self.bucket.lock:
      if self._holds(name, query):
        self.bucket.put(name, data)
        self._answer(200, self.bucket.describe(name))

  def _piece(self, query: dict[str, str], body: bytes) -> None:
    name, first, data = self.uploads[query["upload_id"]]
    data += body
    self.uploads[query["upload_id"]] = (name, first, data)
    if self.headers["Content-Range"].endswith("/*"):
      last = {"Range": f"bytes=0-{len(data) - 1}"}
      return self._answer(308, b"", last)
    self._store(name, first, data)

  def _list(self, query: dict[str, str]) -> None:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    start, end = query.get("startOffset", ""), query.get("endOffset")
    items, folders = [], set()
    with self.bucket.lock:
      for name in sorted(self.bucket.objects):
        if not name.startswith(prefix) or name < start:
          continue
        if end and name >= end:
          break
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
          folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
        else:
          items.append(self.bucket.describe(name))
    answer = {"kind": "storage#objects", "items": items}
    self._answer(200, {**answer, "prefixes": sorted(folders)})

  def _answer_part(self, data: bytes, headers: dict) -> None:
    """Answers with the part of an object that the request is for."""
    status, size = 200, len(data)
    if wanted := re.match(r"bytes=(\d*)-(\d*)", self.headers["Range"] or ""):
      first, last = wanted[1], wanted[2]
      start = int(first) if first else max(0, size - int(last))
      stop = min(size, int(last) + 1 if first and last else size)
      if start >= size:
        return self._answer(416, {})
      headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
      status, data = 206, data[start:stop]
    self._answer(status, data, headers)

  def _answer(
    self, status: int, content: bytes | dict, headers: dict | None = None
  ) -> None:
    is_json = isinstance(content, dict)
    data = json.dumps(content).encode() if is_json else content
    self.send_response(status)
    for key, value in (headers or {}).items():
      self.send_header(key, value)
    if is_json:
      self.send_header("Content-Type", "application/json")
    if status not in (204, 304):
      self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if status not in (204, 304) and self.command != "HEAD":
      self.wfile.write(data)
