"""Configs of masked autoencoders: what is refused, and how that is said."""

import pytest

from vitjax import checks
from vitjax.config import resolving
from vitjax.config.schema import ConfigError

MAE = {"name": "mae", "variant": "mu/16"}


def problems(**sections):
  with pytest.raises(ConfigError) as error:
    resolving.resolve(
      {
        "total_steps": 10,
        "input": {"data": "fake", "batch_size": 8, "pp": "value_range(-1, 1)"},
        "model": MAE,
        "loss": "normalised_pixel_mse",
        "optim": {"name": "adam", "learning_rate": 0.1},
        **sections,
      },
      checks.problems,
    )
  return str(error.value)


@pytest.mark.parametrize(
  ("sections", "sentence"),
  [
    (
      {"loss": "softmax_xent"},
      "config.loss='softmax_xent' does not fit config.model.name='mae', which "
      "predicts masked patches: use one of pixel_mse, normalised_pixel_mse.",
    ),
    (
      {"model": {"name": "vit", "variant": "mu/16"}},
      "config.loss='normalised_pixel_mse' does not fit config.model.name='vit',"
      " which predicts labels: use one of softmax_xent",
    ),
    (
      {"num_classes": 3, "class_weights": "balanced"},
      "config.class_weights with config.loss='normalised_pixel_mse': there are "
      "no classes. Remove it.",
    ),
    (
      {"mixing": {"mixup_alpha": 0.5}},
      "config.mixing with config.loss='normalised_pixel_mse': there are no "
      "labels. Remove it.",
    ),
  ],
)
def test_what_does_not_fit_is_said(sections, sentence):
  assert sentence in problems(**sections)
