"""Object stores on this machine, and clients that know their address."""

import contextlib
import sys
from collections.abc import Generator

import fsspec
from etils.epath import backend, gpath

from tests import fake_gcs, fake_s3

# Scheme -> the package of its client.
PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}


def forget() -> None:
  """Forgets the clients, which keep the address of their server."""
  # A test before may have used TensorFlow's file system, which is remembered.
  gpath._is_tf_installed.cache_clear()
  backend._FileSystemSpecBackend._get_filesystem.cache_clear()
  for scheme, package in PACKAGES.items():
    if sys.modules.get(package) is not None:
      fsspec.get_filesystem_class(scheme).clear_instance_cache()


@contextlib.contextmanager
def serve(scheme: str, monkeypatch) -> Generator[fake_gcs.Bucket]:
  """Serves gs://bucket or s3://bucket to this process and its children."""
  with contextlib.ExitStack() as stack:
    if scheme == "gs":
      address, bucket = stack.enter_context(fake_gcs.serve())
      settings = dict.fromkeys(fake_gcs.ENDPOINTS, address)
    else:
      settings, bucket = stack.enter_context(fake_s3.serve())
    for name, value in settings.items():
      monkeypatch.setenv(name, value)
    forget()
    yield bucket
    forget()
