"""Losses of pairs: every image meets every text of the global batch.

Image i belongs to text i and to no other. The logits of a batch of b pairs are
b x b, so they are never in memory at once. Devices pass their texts around a
ring, as in SigLIP, https://arxiv.org/abs/2303.15343, sec. 3.3, and each
compares its images with a chunk of the visiting texts at a time. The backward
pass goes round once more and computes the logits again. So memory grows
linearly with the batch, and the loss is the same on any number of devices, to
rounding.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from vitjax.parallel import sharding

# Most texts that all images of a device are compared with at a time.
_CHUNK = 1024
# Also where the hardware's default is less precise: the loss depends on small
# differences of the logits.
_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@jax.custom_vjp
def softmax(
  image: Float[Array, "b d"],
  text: Float[Array, "b d"],
  temperature: Float[Array, ""],
  bias: Float[Array, ""],
) -> Float[Array, ""]:
  """Mean of the cross-entropies of a softmax over texts and one over images.

  LiT, https://arxiv.org/abs/2111.07991, sec. 3, with the global batch, as
  CLIP, https://arxiv.org/abs/2103.00020, figure 3.

  Args:
    image: embeddings of the images.
    text: embeddings of the texts.
    temperature: factor of the logits.
    bias: what is added to the logits.
  """
  return _softmax_forward(image, text, temperature, bias)[0]


def _softmax_forward(image, text, temperature, bias):
  def add(images, texts, own):
    (image, rows), (text, columns) = images, texts
    logits = _matmul(image, text.T) * temperature + bias
    rows = jnp.logaddexp(rows, jax.nn.logsumexp(logits, axis=1))
    columns = jnp.logaddexp(columns, jax.nn.logsumexp(logits, axis=0))
    return (image, rows), (text, columns)

  none = jnp.full(len(image), -jnp.inf)
  (_, rows), (_, columns) = _meet(add, (image, none), (text, none))
  own = (image * text).sum(axis=1) * temperature + bias
  loss = ((rows + columns) / 2 - own).mean()
  return loss, (image, text, temperature, bias, rows, columns)


def _softmax_backward(residuals, grad):
  *inputs, rows, columns = residuals

  def slope(logits, own, rows, columns):
    of_image = jnp.exp(logits - rows[:, None])
    of_text = jnp.exp(logits - columns[None])
    return (of_image + of_text) / 2 - own

  return _backward(slope, *inputs, grad, rows, columns)


softmax.defvjp(_softmax_forward, _softmax_backward)


@jax.custom_vjp
def sigmoid(
  image: Float[Array, "b d"],
  text: Float[Array, "b d"],
  temperature: Float[Array, ""],
  bias: Float[Array, ""],
) -> Float[Array, ""]:
  """Binary cross-entropy of each pair, summed over texts; mean over images.

  SigLIP, https://arxiv.org/abs/2303.15343, equation 1. Arguments as for
  `softmax`.
  """
  return _sigmoid_forward(image, text, temperature, bias)[0]


def _sigmoid_forward(image, text, temperature, bias):
  def add(images, texts, own):
    (image, rows), (text,) = images, texts
    logits = _matmul(image, text.T) * temperature + bias
    rows += jax.nn.softplus(jnp.where(own, -logits, logits)).sum(axis=1)
    return (image, rows), texts

  (_, rows), _ = _meet(add, (image, jnp.zeros(len(image))), (text,))
  return rows.mean(), (image, text, temperature, bias)


def _sigmoid_backward(inputs, grad):
  def slope(logits, own):
    signs = jnp.where(own, -1.0, 1.0)
    return signs * jax.nn.sigmoid(signs * logits)

  return _backward(slope, *inputs, grad)


sigmoid.defvjp(_sigmoid_forward, _sigmoid_backward)


def _backward(
  slope: Callable[..., Float[Array, "m c"]],
  image: Float[Array, "b d"],
  text: Float[Array, "b d"],
  temperature: Float[Array, ""],
  bias: Float[Array, ""],
  grad: Float[Array, ""],
  *of_rows_and_columns: Float[Array, "b"],
):
  """Gradients of the four inputs of a loss.

  Args:
    slope: (logits, own, *vectors) -> derivative of the sum of the losses.
    image, text, temperature, bias: the inputs.
    grad: gradient of the mean loss.
    *of_rows_and_columns: nothing, or a vector of the images and one of texts.
  """
  of_rows = of_rows_and_columns[:1]
  of_columns = of_rows_and_columns[1:]

  def add(images, texts, own):
    image, image_grad, total, *rows = images
    text, text_grad, *columns = texts
    logits = _matmul(image, text.T) * temperature + bias
    slopes = slope(logits, own, *rows, *columns)
    image_grad += _matmul(slopes, text)
    text_grad += _matmul(slopes.T, image)
    total += slopes.sum(axis=1)
    return (image, image_grad, total, *rows), (text, text_grad, *columns)

  (_, image_grad, total, *_), (_, text_grad, *_) = _meet(
    add,
    (image, jnp.zeros_like(image), jnp.zeros(len(image)), *of_rows),
    (text, jnp.zeros_like(text), *of_columns),
  )
  scale = grad / len(image)
  return (
    image_grad * temperature * scale,
    text_grad * temperature * scale,
    (image_grad * image).sum() * scale,
    total.sum() * scale,
  )


def _meet(
  compare: Callable[[Any, Any, Bool[Array, "m c"]], tuple[Any, Any]],
  images: Any,
  texts: Any,
) -> tuple[Any, Any]:
  """Compares the images of each device with the texts of all devices.

  Args:
    compare: (images, texts, own) -> (images, texts) for the images of a device
      and a chunk of texts; `own` is True where an image meets its own text.
    images: tuple of arrays with a row for each image of the global batch.
    texts: likewise.

  Returns:
    The images and the texts after all comparisons.
  """
  mesh = jax.sharding.get_abstract_mesh()
  devices = sharding.batch_parts(mesh) if mesh.axis_names else 1
  visit = functools.partial(_visit, compare)
  if devices == 1:
    return visit(images, texts, jnp.bool(True))

  def on_device(images, texts):
    def step(carry, is_own):
      images, texts = carry
      images, texts = visit(images, texts, is_own)
      to_next = [(i, (i + 1) % devices) for i in range(devices)]
      return (
        images,
        jax.lax.ppermute(texts, sharding.BATCH_AXES, to_next),
      ), None

    is_own = jnp.arange(devices) == 0
    return jax.lax.scan(step, (images, texts), is_own)[0]

  over_batch = PartitionSpec(sharding.BATCH_AXES)
  return jax.shard_map(
    on_device,
    in_specs=over_batch,
    out_specs=over_batch,
    check_vma=False,
  )(images, texts)


def _visit(compare, images, texts, is_own):
  """All images of a device meet the texts of one device, chunk by chunk."""
  rows = jnp.arange(len(images[0]))
  size = len(texts[0])
  chunk = min(size, _CHUNK)

  def step(images, part):
    texts, columns = part
    own = (rows[:, None] == columns[None]) & is_own
    return compare(images, texts, own)

  whole = size - size % chunk
  parts = jax.tree.map(
    lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), (texts, rows)
  )
  images, visited = jax.lax.scan(step, images, parts)
  visited = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), visited)
  if whole == size:
    return images, visited
  rest = jax.tree.map(lambda x: x[whole:], (texts, rows))
  images, last = step(images, rest)
  return images, jax.tree.map(lambda *x: jnp.concatenate(x), visited, last)
