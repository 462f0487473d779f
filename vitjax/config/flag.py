"""The flag --config of the commands that take a config file."""

import dataclasses
import sys

import ml_collections
from absl import flags
from ml_collections import config_flags

from vitjax.config import command_line, schema

flags.disclaim_key_flags()  # they are those of the command that calls


def define() -> flags.FlagHolder:
  """Defines --config and --config.section.key."""
  holder = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file and its options, such as configs/plain_vit.py:s16,res=256. "
    "Any key can be set with --config.section.key=value.",
    lock_config=False,  # what is not in the schema is refused by it
    accept_new_attributes=True,
  )
  flags.FLAGS["config"].parser = _WholeConfig(flags.FLAGS["config"].parser)
  return holder


def read(holder: flags.FlagHolder) -> ml_collections.ConfigDict:
  """The config with its overrides, for `config.resolve`."""
  overrides = config_flags.get_override_values(flags.FLAGS["config"])
  replace_units(holder.value, overrides)
  return holder.value


def parse_flags(argv: list[str], command: str) -> list[str]:
  """Parses the command line; what is wrong with it is said in one message."""
  command_line.show_help(argv)
  try:
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise flags.Error(f"{rest[1]!r} is not a flag; flags begin with --.")
    if flags.FLAGS.config is None:
      raise flags.Error(
        "--config is missing, such as --config=configs/quickstart.py."
      )
    dict(flags.FLAGS.config)  # a file that cannot be read raises on first use
    return rest
  except (flags.Error, KeyError, AttributeError, OSError, ValueError) as e:
    sys.exit(f"{command}: {reason(e)}")


class _WholeConfig(flags.ArgumentParser):
  """Reads a config file; sections that it leaves out can be overridden too."""

  def __init__(self, parser: flags.ArgumentParser):
    self._parser = parser

  def parse(self, argument):
    read = self._parser.parse(argument)
    for field in dataclasses.fields(schema.RunConfig):
      is_section = dataclasses.is_dataclass(field.type)
      if is_section and field.type is not schema.Duration:
        if field.name not in read:
          read[field.name] = ml_collections.ConfigDict()
    return read


def replace_units(read: ml_collections.ConfigDict, overrides: dict) -> None:
  """`--config.total_steps=9` replaces the file's `total_epochs`."""
  for path in overrides:
    *sections, key = path.split(".")
    name, _, unit = key.rpartition("_")
    if unit not in schema.UNITS:
      continue
    section = read
    for part in sections:
      section = section[part]
    for other in (f"{name}_{unit}" for unit in schema.UNITS):
      if other in section and ".".join([*sections, other]) not in overrides:
        del section[other]


def reason(error: BaseException) -> str:
  """What is wrong with the command line, without what is wrapped around it."""
  if isinstance(error, OSError):
    lines = str(error.__cause__ or error).strip().splitlines()
    return f"the config file cannot be read: {lines[-1].strip()}"
  if isinstance(error, KeyError):  # of an override: 'modle'\nDid you mean ...
    lacking = str(error.args[0]).replace("\n", ". ")
    return f"an override is of a key that the config lacks: {lacking}"
  while error.__context__ is not None and "config file" in str(error):
    error = error.__context__  # the config's own error, not its traceback
  return str(error)
