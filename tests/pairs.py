"""Losses of pairs by their definitions, and how far ours are from them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vitjax import losses
from vitjax.parallel import sharding


def plain(loss: str, image, text, temperature, bias):
  """The loss with all logits in memory."""
  logits = jnp.matmul(image, text.T, precision="highest") * temperature + bias
  if loss == "siglip":
    signs = 2 * jnp.eye(len(logits)) - 1
    return -jax.nn.log_sigmoid(signs * logits).sum(axis=1).mean()
  of_image = jax.nn.log_softmax(logits, axis=1)
  of_text = jax.nn.log_softmax(logits, axis=0)
  return -jnp.diagonal(of_image + of_text).mean() / 2


def embeddings(size: int, width: int = 16) -> tuple:
  """(image, text, temperature, bias) of a model that has learnt a little."""
  rng = np.random.default_rng(0)
  image = rng.normal(size=(size, width))
  text = image + rng.normal(size=(size, width))
  image, text = (
    (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    for x in (image, text)
  )
  return image, text, np.float32(5), np.float32(-2.71)


def with_grads(fn: Callable, mesh: Mesh):
  """Four inputs -> the loss and its gradients, compiled for a mesh."""
  over_batch, copied = sharding.over_batch(mesh), sharding.replicated(mesh)

  def on_mesh(*inputs):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return jax.value_and_grad(fn, argnums=range(4))(*inputs)

  shardings = (over_batch, over_batch, copied, copied)
  return jax.jit(on_mesh, in_shardings=shardings, out_shardings=copied)


def errors(loss: str, mesh: Mesh, size: int = 48) -> list[float]:
  """Relative errors of the loss and of its gradients, on a mesh.

  Errors of an array are relative to its norm. A softmax does not see the bias.
  """
  inputs = embeddings(size)
  want = jax.jit(
    jax.value_and_grad(functools.partial(plain, loss), argnums=range(4))
  )(*inputs)
  fn = with_grads(losses.CONTRASTIVE[loss], mesh)
  shardings = [sharding.over_batch(mesh)] * 2 + [sharding.replicated(mesh)] * 2
  got = fn(
    *(
      jax.make_array_from_callback(x.shape, s, lambda i, x=x: x[i])
      for x, s in zip(inputs, shardings)
    )
  )
  found = [
    float(np.linalg.norm(np.subtract(x, y)) / np.linalg.norm(y))
    for x, y in zip(*map(jax.tree.leaves, (got, want)))
  ]
  return found[:-1] if loss == "contrastive" else found
