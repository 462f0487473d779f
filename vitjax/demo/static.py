"""Serves a folder with a page to this machine, as any static server would."""

import contextlib
import functools
import http.server
import pathlib
import socket
import threading
from collections.abc import Generator

_FIRST_PORT, _PORTS = 7860, 100


# Not what the machine says: a browser runs no module of another type.
_TYPES = {
  "": "application/octet-stream",
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
  def guess_type(self, path) -> str:
    """The type of a file by its suffix."""
    return _TYPES.get(pathlib.PurePath(path).suffix, _TYPES[""])

  def log_message(self, format: str, *args) -> None:
    """Nothing is logged."""


@contextlib.contextmanager
def serve(
  folder: pathlib.Path, *, host: str, port: int | None
) -> Generator[str]:
  """Serves a folder in other threads; the context is its address.

  Args:
    folder: what `vitjax.export --format=web` wrote.
    host: address to listen on.
    port: port to listen on; None for the first free one from 7860.

  Raises:
    ValueError: if there is no page in the folder.
    OSError: if the port is taken.
  """
  if not (folder / "index.html").is_file():
    raise ValueError(
      f"{folder} has no index.html. Write a page with: vitjax export "
      f"--model=runs/mine --format=web --out={folder}"
    )
  handler = functools.partial(_Handler, directory=folder)
  server = _listen(host, port, handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f"http://{host}:{server.server_port}/"
  finally:
    server.shutdown()
    server.server_close()


class _Server(http.server.ThreadingHTTPServer):
  # On Linux this would share a port that another server listens on.
  allow_reuse_port = False

  def __init__(self, address: tuple[str, int], handler):
    if ":" in address[0]:
      self.address_family = socket.AF_INET6
    super().__init__(address, handler)


def _listen(host: str, port: int | None, handler) -> _Server:
  if port is not None:
    return _Server((host, port), handler)
  for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS - 1):
    with contextlib.suppress(OSError):
      return _Server((host, port), handler)
  return _Server((host, _FIRST_PORT + _PORTS - 1), handler)
