"""A small Amazon S3 on this machine: the part of its API that s3fs uses, with
conditional writes, in memory."""

import contextlib
import hashlib
import re
import urllib.parse
from collections.abc import Generator
from xml.sax.saxutils import escape

from tests import fake_gcs

# What s3fs reads of the environment.
SETTINGS = {
  "AWS_ACCESS_KEY_ID": "me",
  "AWS_SECRET_ACCESS_KEY": "secret",
  "AWS_DEFAULT_REGION": "us-east-1",
  "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def serve(
  name: str = "bucket",
) -> Generator[tuple[dict[str, str], fake_gcs.Bucket]]:
  """Serves a bucket; yields the environment of its clients, and the bucket."""
  with fake_gcs.serve(name, _Handler) as (address, bucket):
    yield {**SETTINGS, "AWS_ENDPOINT_URL_S3": address}, bucket


class _Handler(fake_gcs.Handler):
  """Refuses other buckets, and those without the key of `SETTINGS`."""

  def parse_request(self) -> bool:
    if not super(fake_gcs.Handler, self).parse_request():
      return False
    bucket = self.path.strip("/").partition("/")[0].partition("?")[0]
    key = SETTINGS["AWS_ACCESS_KEY_ID"]
    if f"Credential={key}/" not in self.headers.get("Authorization", ""):
      return self._refuse(403, "AccessDenied", "Access Denied")
    if bucket != self.bucket.name:
      return self._refuse(404, "NoSuchBucket", "No such bucket")
    return True

  def _refuse(self, status: int, code: str, message: str) -> bool:
    self._body()
    self._error(status, code, message)
    return False

  def _error(self, status: int, code: str, message: str = "") -> None:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    self._xml(text, status)

  def _xml(self, text: str, status: int = 200) -> None:
    data = b'<?xml version="1.0" encoding="UTF-8"?>' + text.encode()
    self._answer(status, data, {"Content-Type": "application/xml"})

  def _request(self) -> tuple[str, dict[str, str]]:
    """The name of the object, "" of the bucket, and the options."""
    url = urllib.parse.urlsplit(self.path)
    name = urllib.parse.unquote(url.path).strip("/").partition("/")[2]
    query = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
    return name, dict(query)

  def do_HEAD(self) -> None:
    self.do_GET()

  def do_GET(self) -> None:
    name, query = self._request()
    if not name:
      return self._list(query)
    with self.bucket.lock:
      if name not in self.bucket.objects:
        return self._error(404, "NoSuchKey")
      data = self.bucket.objects[name][0]
      headers = self._facts(name)
    headers["Accept-Ranges"] = "bytes"
    self._answer_part(data, headers)

  def do_PUT(self) -> None:
    name, query = self._request()
    data = self._body()
    with self.bucket.lock:
      if source := self.headers["x-amz-copy-source"]:
        source = urllib.parse.unquote(source).strip("/").partition("/")[2]
        if source not in self.bucket.objects:
          return self._error(404, "NoSuchKey")
        self.bucket.put(name, self.bucket.objects[source][0])
        tag = self._facts(name)["ETag"]
        return self._xml(
          f"<CopyObjectResult><ETag>{escape(tag)}</ETag></CopyObjectResult>"
        )
      if "partNumber" in query:
        place = query["uploadId"], int(query["partNumber"])
        self.uploads[place] = data
        return self._answer(200, b"", {"ETag": '"part"'})
      if self.headers["If-None-Match"] == "*" and name in self.bucket.objects:
        return self._error(412, "PreconditionFailed")
      self.bucket.put(name, data)
      self._answer(200, b"", self._facts(name))

  def do_POST(self) -> None:
    name, query = self._request()
    body = self._body().decode()
    with self.bucket.lock:
      if "delete" in query:
        for key in re.findall("<Key>(.*?)</Key>", body):
          self.bucket.objects.pop(_unescaped(key), None)
        return self._xml("<DeleteResult></DeleteResult>")
      if "uploads" in query:
        number = str(len(self.uploads))
        self.uploads[number] = b""
        return self._xml(
          "<InitiateMultipartUploadResult><UploadId>"
          f"{number}</UploadId></InitiateMultipartUploadResult>"
        )
      upload = query["uploadId"]
      parts = sorted(x for x in self.uploads if x[0] == upload and x != upload)
      self.bucket.put(name, b"".join(self.uploads.pop(x) for x in parts))
      tag = escape(self._facts(name)["ETag"])
      self._xml(
        f"<CompleteMultipartUploadResult><ETag>{tag}</ETag>"
        "</CompleteMultipartUploadResult>"
      )

  def do_DELETE(self) -> None:
    name, _ = self._request()
    with self.bucket.lock:
      self.bucket.objects.pop(name, None)
    self._answer(204, b"")

  def _facts(self, name: str) -> dict[str, str]:
    data, generation, _ = self.bucket.objects[name]
    digest = hashlib.md5(data + str(generation).encode()).hexdigest()
    return {"ETag": f'"{digest}"', "Last-Modified": self.date_time_string()}

  def _list(self, query: dict[str, str]) -> None:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    items, folders = [], set()
    with self.bucket.lock:
      for name in sorted(self.bucket.objects):
        rest = name.removeprefix(prefix)
        if not name.startswith(prefix):
          continue
        if delimiter and delimiter in rest:
          folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
          continue
        tag = escape(self._facts(name)["ETag"])
        size = len(self.bucket.objects[name][0])
        items.append(
          f"<Contents><Key>{escape(name)}</Key><Size>{size}</Size>"
          "<LastModified>2026-01-02T03:04:05.000Z</LastModified>"
          f"<ETag>{tag}</ETag></Contents>"
        )
    places = [
      f"<CommonPrefixes><Prefix>{escape(x)}</Prefix></CommonPrefixes>"
      for x in sorted(folders)
    ]
    self._xml(
      f"<ListBucketResult><KeyCount>{len(items) + len(places)}</KeyCount>"
      "<IsTruncated>false</IsTruncated>"
      f"{''.join(items)}{''.join(places)}</ListBucketResult>"
    )


def _unescaped(text: str) -> str:
  for code, sign in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
    text = text.replace(code, sign)
  return text
