"""Downloads from a server on this machine that misbehaves on request."""

import base64
import contextlib
import errno
import hashlib
import http.server
import io
import json
import os
import socket
import threading

import numpy as np
import pytest

from vitjax.weights import download, integrity, zoo


def archive(size: int, seed: int = 0) -> bytes:
  """An .npz file with one array of `size` bytes."""
  file = io.BytesIO()
  np.savez(file, x=np.frombuffer(np.random.default_rng(seed).bytes(size), "u1"))
  return file.getvalue()


CONTENT = archive(2_999_744)
OTHER = archive(2_999_744, seed=1)


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.files`, cut short as often as `server.cuts` says."""

  def do_GET(self):
    server = self.server
    server.requests.append((self.path, self.headers.get("Range")))
    if self.path in server.errors:
      code, times = server.errors[self.path]
      if times:
        server.errors[self.path] = code, times - 1
        self.send_error(code)
        return
    if self.path in server.redirects:
      self.send_response(302)
      self.send_header("Location", server.redirects[self.path])
      for name, value in server.headers.items():
        self.send_header(name, value)
      self.end_headers()
      return
    if self.path not in server.files:
      self.send_error(404)
      return
    body = server.files[self.path]
    etag = server.etag or f'"{hashlib.md5(body).hexdigest()}"'
    start = 0
    wanted = self.headers.get("Range")
    if wanted and self.headers.get("If-Range") == etag:
      start = int(wanted.removeprefix("bytes=").rstrip("-"))
      self.send_response(206)
      end = len(body) - 1
      self.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
    else:
      self.send_response(200)
    if server.lengths:
      self.send_header("Content-Length", str(len(body) - start))
    self.send_header("ETag", etag)
    for name, value in server.headers.items():
      self.send_header(name, value)
    self.end_headers()
    end = len(body)
    if server.cuts:
      end = server.cuts.pop(0)
    self.wfile.write(body[start:end])

  def log_message(self, *args):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(download, "RETRY_SECONDS", (0.0, 0.0, 0.0))
  for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
    monkeypatch.delenv(name, raising=False)
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.files = {"/weights/B_16.npz": CONTENT}
  server.handle_error = lambda *_: None  # the client may hang up
  server.cuts, server.errors, server.requests = [], {}, []
  server.redirects, server.headers = {}, {}
  server.etag, server.lengths = None, True
  server.root = f"http://127.0.0.1:{server.server_address[1]}"
  server.url = f"{server.root}/weights/B_16.npz"
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture
def publish(monkeypatch):
  """Makes the name "small" known, with the given files."""

  def publish(*files):
    entry = zoo.Entry("small", files, "vit", {})
    monkeypatch.setattr(zoo, "entries", lambda: {"small": entry})

  return publish


def fetch(source, tmp_path, **kwargs):
  kwargs = {"progress": None, **kwargs}
  return download.fetch(source, cache_dir=tmp_path / "cache", **kwargs)


def leftovers(tmp_path):
  """The files of the cache, without the records of what was verified."""
  found = (tmp_path / "cache").rglob("*")
  return sorted(
    p.name for p in found if p.is_file() and p.parent.name != "verified"
  )


def test_downloads_once(server, tmp_path):
  path = fetch(server.url, tmp_path)
  assert path.read_bytes() == CONTENT
  assert path.parts[-2:] == ("weights", "B_16.npz")
  assert fetch(server.url, tmp_path, offline=True) == path
  assert len(server.requests) == 1
  assert leftovers(tmp_path) == ["B_16.npz"]


def test_resumes_after_every_cut(server, tmp_path):
  server.cuts = [1_000_000, 2_500_000]
  assert fetch(server.url, tmp_path).read_bytes() == CONTENT
  assert [wanted for _, wanted in server.requests] == [
    None,
    "bytes=1000000-",
    "bytes=2500000-",
  ]
  assert leftovers(tmp_path) == ["B_16.npz"]


def test_resumes_in_the_next_process(server, tmp_path):
  server.cuts = [1_000_000] * 4
  with pytest.raises(download.DownloadError, match="ended after 1000000 bytes"):
    fetch(server.url, tmp_path)
  assert leftovers(tmp_path) == ["B_16.npz.part", "B_16.npz.part.etag"]
  assert fetch(server.url, tmp_path).read_bytes() == CONTENT
  assert server.requests[-1][1] == "bytes=1000000-"


def test_starts_again_if_the_file_has_changed(server, tmp_path):
  server.cuts = [1_000_000] * 4
  with pytest.raises(download.DownloadError):
    fetch(server.url, tmp_path)
  server.files["/weights/B_16.npz"] = OTHER
  assert fetch(server.url, tmp_path).read_bytes() == OTHER


def test_a_part_longer_than_a_changed_file_is_cut(server, tmp_path):
  server.cuts = [1_000_000] * 4
  with pytest.raises(download.DownloadError):
    fetch(server.url, tmp_path)
  server.files["/weights/B_16.npz"] = short = archive(10)
  assert fetch(server.url, tmp_path).read_bytes() == short


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path, publish):
  publish(zoo.File(server.url, sha256="0" * 64))
  with pytest.raises(download.DownloadError, match=r"sha256 [0-9a-f]+ and sho"):
    fetch("small", tmp_path)
  assert leftovers(tmp_path) == []


def test_a_right_checksum_and_size(server, tmp_path, publish):
  sha256 = hashlib.sha256(CONTENT).hexdigest()
  publish(zoo.File(server.url, len(CONTENT), sha256))
  assert fetch("small", tmp_path).read_bytes() == CONTENT


def test_the_start_of_a_checksum(server, tmp_path, publish):
  start = hashlib.sha256(CONTENT).hexdigest()[:8]
  publish(zoo.File(server.url, sha256=start))
  assert fetch("small", tmp_path).read_bytes() == CONTENT
  server.files["/weights/B_16.npz"] = CONTENT[:-1] + b"x"
  with pytest.raises(download.DownloadError, match=f"and should have {start}"):
    fetch("small", tmp_path / "other")


def test_a_closed_bucket_is_explained(server, tmp_path, monkeypatch):
  """And a model is named that can be had, unless the user has a folder."""
  server.errors["/weights/B_16.npz"] = 403, 9
  monkeypatch.setattr(zoo.entry, "_CLOSED", server.root)
  entry = zoo.Entry("small", (zoo.File(server.url),), "vit", {}, instead="that")
  monkeypatch.setattr(zoo, "entries", lambda: {"small": entry})
  with pytest.raises(download.DownloadError) as e:
    fetch("small", tmp_path)
  assert "HTTP 403, access is denied" in str(e.value)
  assert "refused anonymous readers (HTTP 403) since February" in str(e.value)
  assert "nearest published model with an open home is 'that'" in str(e.value)
  with pytest.raises(download.DownloadError) as e:
    fetch("small", tmp_path, pretrained_dir=str(tmp_path))
  assert "anonymous" not in str(e.value) and "'that'" not in str(e.value)


def test_a_wrong_size_is_refused_before_the_transfer(server, tmp_path, publish):
  publish(zoo.File(server.url, size=17))
  with pytest.raises(download.DownloadError, match="has 3000000 bytes and sho"):
    fetch("small", tmp_path)


def test_a_damaged_file_in_the_cache_is_replaced(server, tmp_path, publish):
  publish(zoo.File(server.url, len(CONTENT)))
  path = fetch("small", tmp_path)
  path.write_bytes(b"x")
  assert fetch("small", tmp_path).read_bytes() == CONTENT


def flip_a_bit(path):
  """Also changes the time of the file, as writing to it does."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("is_published", [True, False])
def test_a_flipped_bit_in_the_cache_is_noticed(
  server, tmp_path, publish, is_published
):
  """By the published sha256, or by the one recorded at the download."""
  sha256 = hashlib.sha256(CONTENT).hexdigest() if is_published else None
  publish(zoo.File(server.url, sha256=sha256))
  path = fetch("small", tmp_path)
  flip_a_bit(path)
  with pytest.raises(
    download.DownloadError, match=r"sha256 .* and should have"
  ):
    fetch("small", tmp_path, offline=True)
  assert fetch("small", tmp_path).read_bytes() == CONTENT
  assert len(server.requests) == 2


def test_a_verified_file_is_not_read_again(server, tmp_path, monkeypatch):
  path = fetch(server.url, tmp_path)
  monkeypatch.delattr(integrity, "digest")
  assert fetch(server.url, tmp_path) == path


def test_a_flipped_bit_in_a_folder_is_noticed(server, tmp_path, publish):
  publish(zoo.File(server.url, sha256=hashlib.sha256(CONTENT).hexdigest()))
  file = tmp_path / "B_16.npz"
  file.write_bytes(CONTENT)
  folder = str(tmp_path)
  assert fetch("small", tmp_path, pretrained_dir=folder) == file
  flip_a_bit(file)
  with pytest.raises(download.DownloadError, match=r"B_16\.npz has sha256"):
    fetch("small", tmp_path, pretrained_dir=folder)
  assert not server.requests


WEB_PAGE = b"\n<!DOCTYPE html><title>Sign in</title>"
HEADER = json.dumps(
  {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
).encode()
SAFETENSORS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)


@pytest.mark.parametrize(
  ("name", "body", "message"),
  [
    ("x.npz", b"", "is empty"),
    ("x.txt", b"", "is empty"),
    ("x.npz", WEB_PAGE, "is a web page"),
    ("x.csv", WEB_PAGE, "is a web page"),
    ("x.npz", CONTENT[:-1000], "is not a complete archive"),
    ("x.pth", CONTENT[:-1000], "is not a complete archive"),
    ("x.npz", CONTENT[:999] + b"?" + CONTENT[1000:], r"is damaged in x\.npy"),
    ("x.safetensors", SAFETENSORS[:-1], "its header says"),
    ("x.safetensors", SAFETENSORS[:20], "not a complete safetensors"),
  ],
)
def test_what_cannot_be_parsed_does_not_enter_the_cache(
  server, tmp_path, name, body, message
):
  """Whole as far as HTTP can tell: without a length, the end is the end."""
  server.files[f"/{name}"] = body
  server.lengths = False
  with pytest.raises(download.DownloadError, match=message):
    fetch(f"{server.root}/{name}", tmp_path)
  assert leftovers(tmp_path) == []


def test_what_was_cached_before_there_were_records(server, tmp_path):
  path = fetch(server.url, tmp_path)
  for record in (tmp_path / "cache/verified").iterdir():
    record.unlink()
  path.write_bytes(WEB_PAGE)
  assert fetch(server.url, tmp_path).read_bytes() == CONTENT
  server.files["/x.safetensors"] = SAFETENSORS
  fetch(f"{server.root}/x.safetensors", tmp_path)


def test_parts_of_different_files_are_not_joined(server, tmp_path):
  """A server that keeps the ETag when the content changes."""
  server.etag = '"same"'
  server.cuts = [1_000_000] * 4
  with pytest.raises(download.DownloadError):
    fetch(server.url, tmp_path)
  server.files["/weights/B_16.npz"] = OTHER
  assert fetch(server.url, tmp_path).read_bytes() == OTHER
  # Nothing in the file and no header would tell: downloaded from the start.
  server.files["/x.csv"] = table = b"a,b\n" * 500_000
  server.cuts = [1_000_000]
  url = f"{server.root}/x.csv"
  assert fetch(url, tmp_path).read_bytes() == table
  wanted = [wanted for path, wanted in server.requests if path == "/x.csv"]
  assert wanted == [None, "bytes=1000000-", None]


def test_the_size_that_the_hub_states(server, tmp_path):
  server.headers["X-Linked-Size"] = "17"
  server.redirects["/resolve/B_16.npz"] = server.url
  with pytest.raises(download.DownloadError, match="bytes and should have 17"):
    fetch(f"{server.root}/resolve/B_16.npz", tmp_path)


def test_a_cache_that_cannot_be_written(server, tmp_path):
  (tmp_path / "cache").write_text("a file")
  with pytest.raises(download.DownloadError, match=r"Set \$VITJAX_CACHE"):
    fetch(server.url, tmp_path)


def test_the_next_mirror_after_one_that_is_damaged(server, tmp_path, publish):
  sha256 = hashlib.sha256(CONTENT).hexdigest()
  server.files["/bad.npz"] = CONTENT[:-1] + b"x"
  publish(
    zoo.File(f"{server.root}/gone.npz", sha256=sha256),
    zoo.File(f"{server.root}/bad.npz", sha256=sha256),
    zoo.File(server.url, sha256=sha256),
  )
  assert fetch("small", tmp_path).read_bytes() == CONTENT
  assert leftovers(tmp_path) == ["B_16.npz"]


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("kind", ["google", "hub"])
def test_checksums_that_servers_send(server, tmp_path, kind, good):
  body = CONTENT if good else OTHER
  url = server.url
  if kind == "google":
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    server.headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={md5}"
  else:
    server.headers["X-Linked-ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
    server.redirects["/resolve/B_16.npz"] = server.url
    url = f"{server.root}/resolve/B_16.npz"
  if good:
    assert fetch(url, tmp_path).read_bytes() == CONTENT
  else:
    with pytest.raises(download.DownloadError, match="and should have"):
      fetch(url, tmp_path)


@pytest.mark.parametrize(
  "code, meaning",
  [(403, "access is denied"), (404, "there is no such file"), (410, "Gone")],
)
def test_refusals_are_not_repeated(server, tmp_path, code, meaning):
  server.errors["/weights/B_16.npz"] = code, 9
  with pytest.raises(download.DownloadError) as e:
    fetch(server.url, tmp_path)
  assert f"{server.url}: HTTP {code}, {meaning}" in str(e.value)
  assert "pretrained_dir" in str(e.value)
  assert len(server.requests) == 1
  assert leftovers(tmp_path) == []


def test_trouble_of_the_server_is_waited_for(server, tmp_path):
  server.errors["/weights/B_16.npz"] = 503, 2
  assert fetch(server.url, tmp_path).read_bytes() == CONTENT
  server.errors["/other.npz"] = 429, 9
  with pytest.raises(download.DownloadError, match="Too Many Requests, 4 time"):
    fetch(f"{server.root}/other.npz", tmp_path)


def test_nobody_listens(server, tmp_path):
  with pytest.raises(download.DownloadError, match="refused, 4 times"):
    fetch("http://127.0.0.1:9/B_16.npz", tmp_path)


def test_a_host_that_does_not_exist(tmp_path, monkeypatch):
  def resolve(*args, **kwargs):
    raise socket.gaierror(-2, "Name or service not known")

  monkeypatch.setattr(socket, "getaddrinfo", resolve)
  with pytest.raises(download.DownloadError, match="Name or service not known"):
    fetch("http://weights.invalid/B_16.npz", tmp_path)


def test_offline_and_not_cached(server, tmp_path):
  with pytest.raises(download.DownloadError, match="not in the cache and offl"):
    fetch(server.url, tmp_path, offline=True)
  assert server.requests == []
  assert leftovers(tmp_path) == []


def test_a_full_disk_is_noticed_before(server, tmp_path, monkeypatch):
  usage = type("usage", (), {"free": 1_000_000})
  monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
  with pytest.raises(OSError, match="needs 3 MB and 1 MB are free") as e:
    fetch(server.url, tmp_path)
  assert e.value.errno == errno.ENOSPC
  assert "VITJAX_CACHE" in str(e.value)


def test_a_disk_that_fills_up_meanwhile(server, tmp_path, monkeypatch):
  def full(fileno):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(download.os, "fsync", full)
  with pytest.raises(OSError, match=r"Make room, or set \$VITJAX_CACHE") as e:
    fetch(server.url, tmp_path)
  assert e.value.errno == errno.ENOSPC
  monkeypatch.undo()


def test_progress_ends_with_all_bytes(server, tmp_path):
  calls = []
  fetch(server.url, tmp_path, progress=lambda *args: calls.append(args))
  assert calls[-1] == ("B_16.npz", len(CONTENT), len(CONTENT))


def test_progress_is_one_line_on_stderr(capsys):
  download.show_progress("B_16.npz", 1_000_000, 4_000_000)
  download.show_progress("B_16.npz", 4_000_000, 4_000_000)
  captured = capsys.readouterr()
  assert captured.out == ""
  assert captured.err == (
    "\rB_16.npz: 1 of 4 MB (25%)\rB_16.npz: 4 of 4 MB (100%)\n"
  )


def test_two_at_once_download_once(server, tmp_path):
  paths = []
  threads = [
    threading.Thread(target=lambda: paths.append(fetch(server.url, tmp_path)))
    for _ in range(2)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert paths[0] == paths[1]
  assert paths[0].read_bytes() == CONTENT
  assert len(server.requests) == 1


def test_local_paths_are_returned_as_they_are(tmp_path):
  file = tmp_path / "B 16.npz"
  file.write_bytes(b"x")
  assert fetch(file, tmp_path, offline=True) == file
  assert fetch(file.as_uri(), tmp_path, offline=True) == file
  with pytest.raises(download.DownloadError, match=r"no\.npz does not exist"):
    fetch((tmp_path / "no.npz").as_uri(), tmp_path)


def test_pretrained_dir_of_any_kind(server, tmp_path, publish):
  publish(zoo.File("gs://nowhere/deep/B_16.npz", size=len(CONTENT)))
  folder = tmp_path / "mine"
  with pytest.raises(download.DownloadError, match=r"B_16\.npz does not exist"):
    fetch("small", tmp_path, pretrained_dir=str(folder))
  folder.mkdir()
  (folder / "B_16.npz").write_bytes(b"x")
  path = fetch("small", tmp_path, pretrained_dir=str(folder))
  assert path == folder / "B_16.npz"
  path = fetch("small", tmp_path, pretrained_dir=f"{server.root}/weights/")
  assert path.read_bytes() == CONTENT


def test_a_folder_is_not_a_file(server, tmp_path, publish, monkeypatch):
  publish(zoo.File(server.url))
  (tmp_path / "small").mkdir()
  monkeypatch.chdir(tmp_path)
  assert fetch("small", tmp_path).read_bytes() == CONTENT


def test_gs_is_google_cloud_storage():
  url = "gs://vit_models/imagenet21k+imagenet2012/ViT-B_16.npz"
  assert download._https(url) == (
    "https://storage.googleapis.com/vit_models/imagenet21k%2Bimagenet2012/"
    "ViT-B_16.npz"
  )


def test_places_in_the_cache(tmp_path):
  def place(url):
    return download._local_path(url, tmp_path).relative_to(tmp_path).as_posix()

  assert place("gs://b/a+c/x.npz") == "storage.googleapis.com/b/a+c/x.npz"
  assert place("https://h:80/x.npz?v=1") == "h_80/x.npz_v=1"
  for url in ("https://h/../../etc/x", "https://h/%2e%2e/x", "https://h/"):
    with pytest.raises(ValueError, match="does not name a file"):
      place(url)
  with pytest.raises(ValueError, match="Use https://, http://, gs:// or file"):
    place("ftp://h/x.npz")


def test_the_cache_is_where_one_says(monkeypatch, tmp_path):
  monkeypatch.setenv("VITJAX_CACHE", str(tmp_path))
  assert download.cache_folder() == tmp_path
  assert download.cache_folder("~/x") == download.cache_folder(
    os.path.expanduser("~/x")
  )
  monkeypatch.delenv("VITJAX_CACHE")
  assert download.cache_folder().parts[-2:] == (".cache", "vitjax")


def test_a_name_that_is_not_known(tmp_path):
  with pytest.raises(FileNotFoundError) as e:
    fetch("i1k-s16-91ep", tmp_path)
  assert "'i1k-s16-91ep' is not a file here" in str(e.value)
  assert "did you mean 'i1k-s16-90ep'" in str(e.value)


def test_a_lock_outlives_the_file_it_was_taken_on(server, tmp_path):
  """The second process gets a new part, not the one that became the file."""
  part = tmp_path / "x.part"
  with download._locked(part):
    os.replace(part, tmp_path / "x")
  with contextlib.ExitStack() as stack:
    stack.enter_context(download._locked(part))
    assert part.exists()


class TestPackages:
  FILE = "package:some_pytorch_model/models/x.npz"

  def test_a_file_of_an_installed_package(self, tmp_path, monkeypatch):
    folder = tmp_path / "some_pytorch_model" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError")
    (folder / "x.npz").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    file = zoo.File(self.FILE, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert download.fetch_any((file,), "x") == folder / "x.npz"
    wrong = zoo.File(self.FILE, sha256=hashlib.sha256(OTHER).hexdigest())
    with pytest.raises(download.DownloadError, match="sha256"):
      download.fetch_any((wrong,), "x")

  def test_the_message_says_how_to_install_it(self, tmp_path):
    file = zoo.File("package:some_pytorch_model/models/x.npz")
    with pytest.raises(download.DownloadError) as error:
      download.fetch_any((file,), "x", cache_dir=tmp_path)
    assert "pip install some-pytorch-model" in str(error.value)
    (tmp_path / "x.npz").write_bytes(CONTENT)
    found = download.fetch_any((file,), "x", pretrained_dir=str(tmp_path))
    assert found == tmp_path / "x.npz"
