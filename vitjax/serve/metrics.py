"""Figures of a server in the text format of Prometheus."""

from vitjax.config import extras

with extras.needed("serve", "servers"):
  import prometheus_client

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
  """Counts and times of one server."""

  def __init__(self):
    self._registry = registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    self._requests = prometheus_client.Counter(
      "vitjax_requests",
      "Requests by path and HTTP status.",
      ("path", "status"),
      registry=registry,
    )
    self._request_seconds = prometheus_client.Histogram(
      "vitjax_request_seconds",
      "Seconds from the head of a request to its response.",
      ("path",),
      buckets=_SECONDS,
      registry=registry,
    )
    self.in_progress = prometheus_client.Gauge(
      "vitjax_requests_in_progress",
      "Images that are being received, decoded, waiting or in the model.",
      registry=registry,
    )
    self._batch_images = prometheus_client.Histogram(
      "vitjax_batch_images",
      "Images in a batch, without padding.",
      buckets=_SIZES,
      registry=registry,
    )
    self._batch_seconds = prometheus_client.Histogram(
      "vitjax_batch_seconds",
      "Seconds of a batch in the model.",
      buckets=_SECONDS,
      registry=registry,
    )

  def observe_request(self, path: str, status: int, seconds: float) -> None:
    """Adds a request that was responded to."""
    self._requests.labels(path, str(status)).inc()
    self._request_seconds.labels(path).observe(seconds)

  def observe_batch(self, images: int, seconds: float) -> None:
    """Adds a batch that the model has answered."""
    self._batch_images.observe(images)
    self._batch_seconds.observe(seconds)

  def text(self) -> bytes:
    """All figures, to be scraped."""
    return prometheus_client.generate_latest(self._registry)
