"""Convolutions in float32 on CPUs are XLA's own, and so are their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.models import common, cpu_convolution

# Size of the kernel, channels of the input and of the output, groups.
KINDS = {
  "depthwise": (5, 3, 3, 3),
  "depthwise, two kernels a channel": (5, 3, 6, 3),
  "grouped": (3, 6, 9, 3),
  "one pixel": (1, 3, 4, 1),
  "plain": (3, 3, 4, 1),
}


def output_and_gradients(conv, *how):
  def run(x, kernel):
    y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, *how), x, kernel)
    return y, *pull(jnp.sin(y))

  return jax.jit(run)


def arrays(kind, size=(8, 9)):
  k, inputs, outputs, groups = KINDS[kind]
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *size, inputs)).astype(np.float32)
  kernel = rng.normal(size=(k, k, inputs // groups, outputs))
  return x, kernel.astype(np.float32), groups


@pytest.mark.parametrize(
  ("size", "strides", "padding"),
  [
    ((8, 9), 1, "SAME"),
    ((7, 6), 2, "SAME"),
    ((8, 9), 2, ((2, 2), (2, 2))),
    ((7, 6), 2, ((0, 0), (0, 0))),
  ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_on_cpus(kind, size, strides, padding):
  x, kernel, groups = arrays(kind, size)
  how = strides, padding, groups
  got = output_and_gradients(cpu_convolution.conv, *how)(x, kernel)
  want = output_and_gradients(common.conv, *how)(x, kernel)
  for ours, xlas in zip(got, want):
    np.testing.assert_allclose(ours, xlas, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_accelerators_have_xlas(kind):
  """Their programs have as many convolutions as XLA's own form."""
  x, kernel, groups = arrays(kind)

  def lower(conv, platform):
    run = output_and_gradients(conv, 1, "SAME", groups)
    lowered = run.trace(x, kernel).lower(lowering_platforms=(platform,))
    return lowered.as_text()

  def convolutions(text):
    return text.count("stablehlo.convolution(")

  want = convolutions(lower(common.conv, "tpu"))
  assert convolutions(lower(cpu_convolution.conv, "tpu")) == want > 0
  on_cpu = convolutions(lower(cpu_convolution.conv, "cpu"))
  assert (on_cpu == want) == (kind == "plain")


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_xlas(kind):
  x, kernel, groups = arrays(kind)
  half = jnp.asarray(x, jnp.bfloat16)
  ours, xlas = (
    jax.make_jaxpr(functools.partial(conv, groups=groups))(half, kernel)
    for conv in (cpu_convolution.conv, common.conv)
  )
  assert str(ours) == str(xlas)
