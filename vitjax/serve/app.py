"""The HTTP interface of `vitjax.serve`.

A request is received and decoded while the model runs; then its image waits for
a batch. The number of images inside is bounded, and with it the memory and the
time that one waits.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable
from concurrent import futures
from typing import Any

from vitjax.config import extras
from vitjax.data.limits import TooLargeError
from vitjax.serve import questions
from vitjax.serve.answers import Model
from vitjax.serve.batching import Batcher
from vitjax.serve.metrics import CONTENT_TYPE, Metrics
from vitjax.serve.questions import Refusal

with extras.needed("serve", "servers"):
  from starlette.applications import Starlette
  from starlette.exceptions import HTTPException
  from starlette.middleware import Middleware
  from starlette.requests import ClientDisconnect, Request
  from starlette.responses import JSONResponse, Response
  from starlette.routing import Route

_RETRY = {"Retry-After": "1"}
_BASE64 = 4 / 3
_JSON_BYTES = 1000  # for the rest of a JSON body

Read = Callable[[bytes], questions.Question]


class Service:
  """The application: its routes, and what they share."""

  def __init__(
    self,
    model: Model,
    *,
    top: int = 5,
    max_batch: int = 16,
    max_wait: float = 0.005,
    max_queue: int = 128,
    receive_seconds: float = 10,
    on_failure: Callable[[BaseException], None] = lambda error: None,
  ):
    """Makes a service; it compiles when its server starts.

    Args:
      model: gives the answers.
      top: number of classes in an answer, unless a request says another.
      max_batch: images that go through the model at once.
      max_wait: seconds that an image waits for others while the model is idle.
      max_queue: images that are inside at once; more are refused.
      receive_seconds: time that a client has to send its request.
      on_failure: called if the model cannot be compiled.
    """
    self.metrics = Metrics()
    self.batcher = Batcher(
      model.predict,
      model.compile,
      max_batch=max_batch,
      max_wait=max_wait,
      observe=self.metrics.observe_batch,
    )
    self._model = model
    self._top = top
    self._max_queue = max_queue
    self._receive_seconds = receive_seconds
    self._on_failure = on_failure
    self._inside = 0
    self._decoders = futures.ThreadPoolExecutor(os.cpu_count(), "decode")
    self.app = Starlette(
      routes=[
        Route("/predict", self._json, methods=["POST"]),
        Route("/predict/image", self._file, methods=["POST"]),
        Route("/health/live", self._live),
        Route("/health/ready", self._ready),
        Route("/metrics", self._show_metrics),
      ],
      exception_handlers={
        Refusal: _refuse,
        HTTPException: self._no_route,
        Exception: _fail,
      },
      middleware=[Middleware(_Measured, service=self)],
      lifespan=self._lifespan,
    )
    self.paths = {
      route.path: sorted((route.methods or set()) - {"HEAD"})[0]
      for route in self.app.routes
      if isinstance(route, Route)
    }

  @contextlib.asynccontextmanager
  async def _lifespan(self, app: Starlette) -> AsyncGenerator[None]:
    task = asyncio.create_task(self.batcher.run())
    task.add_done_callback(self._ended)
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
      await task

  def _ended(self, task: asyncio.Task) -> None:
    if not task.cancelled() and (error := task.exception()):
      self._on_failure(error)

  async def _file(self, request: Request) -> Response:
    limit = self._model.limits.max_bytes
    return await self._answer(
      request,
      limit,
      lambda body: questions.of_file(body, request.query_params, self._top),
    )

  async def _json(self, request: Request) -> Response:
    limit = int(self._model.limits.max_bytes * _BASE64) + _JSON_BYTES
    return await self._answer(
      request, limit, lambda body: questions.of_json(body, self._top)
    )

  async def _answer(self, request: Request, limit: int, read: Read) -> Response:
    if not self.batcher.is_ready:
      raise Refusal(503, "the model is being compiled: try again.", _RETRY)
    if self._inside >= self._max_queue:
      raise Refusal(
        503,
        f"{self._inside} images are waiting, and --max_queue={self._max_queue} "
        "may: try again after the seconds of Retry-After.",
        _RETRY,
      )
    self._move(1)
    try:
      body = await self._receive(request, limit)
      loop = asyncio.get_running_loop()
      question, image = await loop.run_in_executor(
        self._decoders, self._prepare, body, read
      )
      found = await self.batcher.answer(image)
      if not found.is_finite:
        raise Refusal(
          500,
          "the output of the model is not finite for this image: send another "
          "one, and tell the operator.",
        )
      return JSONResponse(self._model.describe(found, question.top))
    finally:
      self._move(-1)

  def _move(self, images: int) -> None:
    self._inside += images
    self.metrics.in_progress.set(self._inside)

  async def _receive(self, request: Request, limit: int) -> bytes:
    """The body; of a larger one than the limit, nothing is kept."""
    parts, size = [], 0
    try:
      async with asyncio.timeout(self._receive_seconds):
        async for part in request.stream():
          size += len(part)
          if size > limit:
            self._refuse_size(limit)
          parts.append(part)
    except TimeoutError:
      raise Refusal(
        408,
        f"the request did not arrive within {self._receive_seconds:g} s: send "
        "a smaller image, or again.",
        {"Connection": "close"},
      ) from None
    except ClientDisconnect:
      raise Refusal(400, "the client has closed the connection.") from None
    return b"".join(parts)

  def _refuse_size(self, limit: int) -> None:
    limits = self._model.limits
    raise Refusal(
      413,
      f"the body has more than {limit / 1e6:g} MB: send an image file of at "
      f"most {limits.max_bytes / 1e6:g} MB, or start the server with a larger "
      "--max_mb.",
    )

  def _prepare(self, body: bytes, read: Read) -> tuple[questions.Question, Any]:
    question = read(body)
    try:
      return question, self._model.prepare(question.image)
    except TooLargeError as e:
      raise Refusal(
        413,
        f"{e} Send a smaller one, or start the server with a larger --max_mb "
        "or --max_megapixels.",
      ) from e
    except ValueError as e:
      raise Refusal(400, f"{e} Send another image file.") from e

  async def _live(self, request: Request) -> Response:
    return JSONResponse({"live": True})

  async def _ready(self, request: Request) -> Response:
    ready = self.batcher.is_ready
    return JSONResponse(
      {"ready": ready},
      status_code=200 if ready else 503,
      headers=None if ready else _RETRY,
    )

  async def _show_metrics(self, request: Request) -> Response:
    return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

  async def _no_route(self, request: Request, error: Exception) -> Response:
    """The response to an unknown path or method."""
    assert isinstance(error, HTTPException)
    known = ", ".join(f"{method} {x}" for x, method in self.paths.items())
    message = (
      f"{request.method} {request.url.path} is not known. Known: {known}."
    )
    return _error(error.status_code, message, error.headers)


async def _refuse(request: Request, error: Exception) -> Response:
  assert isinstance(error, Refusal)
  return _error(error.status, error.message, error.headers)


async def _fail(request: Request, error: Exception) -> Response:
  message = "the server failed: try again; its log names the reason."
  return _error(500, message)


def _error(status: int, message: str, headers=None) -> Response:
  return JSONResponse({"error": message}, status_code=status, headers=headers)


class _Measured:
  """Counts the responses of an application."""

  def __init__(self, app, service: Service):
    self._app = app
    self._service = service

  async def __call__(self, scope, receive, send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    start, status = time.monotonic(), 500

    async def send_and_note(message) -> None:
      nonlocal status
      if message["type"] == "http.response.start":
        status = message["status"]
      await send(message)

    try:
      await self._app(scope, receive, send_and_note)
    finally:
      path = scope["path"] if scope["path"] in self._service.paths else "other"
      seconds = time.monotonic() - start
      self._service.metrics.observe_request(path, status, seconds)
