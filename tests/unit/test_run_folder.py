"""A run folder belongs to one config, which a newer vitjax still knows."""

import json

import pytest

from configs import quickstart
from vitjax.config import schema
from vitjax.run_folder import files


def write(folder, **sections):
  c = quickstart.get_config()
  c.update(sections)
  files.write(folder, schema.resolve(c), {}, "")


@pytest.fixture
def folder(tmp_path):
  """Of a run that has saved something."""
  write(tmp_path)
  (tmp_path / "checkpoints" / "1").mkdir(parents=True)
  return tmp_path


def test_a_key_that_came_later_is_no_difference(folder):
  file = folder / "config.json"
  saved = json.loads(file.read_text())
  del saved["evals"]["test"]["optional"], saved["sam"]
  file.write_text(json.dumps(saved))
  with pytest.raises(schema.ConfigError, match=r"sam\.rho: 0\.0 -> 0\.1"):
    write(folder, sam={"rho": 0.1})
  write(folder)
  assert "sam" in json.loads(file.read_text())


def test_a_key_that_has_gone_is_one(folder):
  file = folder / "config.json"
  saved = json.loads(file.read_text())
  file.write_text(json.dumps({**saved, "gone": 1}))
  with pytest.raises(schema.ConfigError, match="gone"):
    write(folder)
