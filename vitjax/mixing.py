"""Mixing of examples on the device, over the global batch.

Partners and weights depend on the key alone, so one device and 256 devices
train on the same images.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mixup(
  image: Float[Array, "b h w c"],
  labels: Float[Array, "b n"],
  alpha: float,
  key: jax.Array,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b n"]]:
  """Blends each example with its neighbour in the batch.

  mixup: Beyond Empirical Risk Minimization, https://arxiv.org/abs/1710.09412.
  One weight per batch, as published ViT recipes have it; the larger share
  stays with the example itself.

  Args:
    image: normalised images.
    labels: targets.
    alpha: both parameters of the Beta distribution of the weight, > 0.
    key: PRNG key of this step.
  """
  weight = jax.random.beta(key, alpha, alpha)
  weight = jnp.maximum(weight, 1.0 - weight)

  def mix(x):
    w = weight.astype(x.dtype)
    return w * x + (1 - w) * jnp.roll(x, 1, axis=0)

  return mix(image), mix(labels)


def smooth_labels(
  labels: Float[Array, "b n"], smoothing: float
) -> Float[Array, "b n"]:
  """Moves `smoothing` of the target's mass to the uniform distribution.

  Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567.
  """
  return labels * (1.0 - smoothing) + smoothing / labels.shape[-1]
