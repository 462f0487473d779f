"""The flag --config of the commands that take a config file."""

import contextlib
import dataclasses
import pathlib
import re
import sys
import traceback
from collections.abc import Generator, Sequence

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from vitjax.config import command_line, messages, schema, shipped

flags.disclaim_key_flags()  # --help shows them with the calling command


def define() -> None:
  """Defines --config and --config.section.key."""
  config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file and its options, such as configs/plain_vit.py:s16,res=256. "
    "`vitjax configs` lists the shipped files, which any folder finds by their "
    "names: plain_vit.py:s16. Set any key with --config.section.key=value.",
    lock_config=False,  # the schema refuses unknown keys
    accept_new_attributes=True,
  )
  flags.FLAGS["config"].parser = _WholeConfig(flags.FLAGS["config"].parser)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line of a command that takes no other arguments."""
  command_line.show_help(argv)
  try:
    rest = flags.FLAGS(command_line.expand_home(argv))
    _check_quotes(argv)
    if len(rest) > 1:
      raise flags.Error(
        f"{rest[1]!r} is not a flag; flags start with --. Write the value of "
        "a flag behind an equals sign: --name=value."
      )
    if flags.FLAGS.config is None:
      raise flags.Error(
        "--config is missing, such as --config=quickstart.py; `vitjax configs` "
        "lists the shipped files."
      )
    return rest
  except (flags.Error, KeyError, AttributeError, OSError, ValueError) as e:
    sys.exit(f"{command_line.name_of(argv)}: {reason(e)}")


def read() -> ml_collections.ConfigDict:
  """The config of the command line with its overrides.

  Resolve it once without `checks.problems`: the schema's errors should not
  wait for the imports of `checks`, which take seconds.
  """
  flag = flags.FLAGS["config"]
  replace_units(flag.value, config_flags.get_override_values(flag))
  expand_home(flag.value)
  name = config_flags.get_config_filename(flag).partition(":")[0]
  if (file := shipped.find(name)) != pathlib.Path(name):
    logging.info("Config: %s", file)
  return flag.value


def _check_quotes(argv: Sequence[str]) -> None:
  """Raises an Error if a shell made several flags of braces without quotes."""
  names = [
    argument.partition("=")[0]
    for argument in dict.fromkeys(argv)
    if re.match(r"--?config.*\b(wds|parquet):", argument)
  ]
  for name in names:
    if names.count(name) > 1:
      raise flags.Error(
        f"{name} is given {names.count(name)} times, with other files each "
        "time: a shell expands {000..099}. Put the path into single quotes."
      )


class _WholeConfig(flags.ArgumentParser):
  """Reads a config file; sections that it leaves out can be overridden too."""

  def __init__(self, parser: flags.ArgumentParser):
    self._parser = parser

  def parse(self, argument):
    name, colon, options = argument.partition(":")
    file = shipped.find(name)
    if not file.exists():
      hint = messages.did_you_mean(file.name, shipped.summaries())
      raise ValueError(
        f"there is no file {name!r} here, nor a shipped config of that name."
        f"{hint} `vitjax configs` lists those."
      )
    try:
      with _importable(file.absolute().parent, shipped.folder()):
        config = self._parser.parse(f"{file}{colon}{options}")
    except ImportError as e:
      raise ValueError(_advice(file, e)) from None
    except (LookupError, AttributeError, NameError) as e:
      line = traceback.extract_tb(e.__traceback__)[-1]
      raise ValueError(
        f"{line.filename}, line {line.lineno}: {type(e).__name__}: {e}"
      ) from None
    if not isinstance(config, ml_collections.ConfigDict):
      getattr(config, "any", None)  # raises if the file is unreadable
      raise ValueError(
        f"get_config of {file} returned {config!r} instead of a "
        "ml_collections.ConfigDict."
      )
    for field in dataclasses.fields(schema.RunConfig):
      is_section = dataclasses.is_dataclass(field.type)
      if is_section and field.type is not schema.Duration:
        if field.name not in config:
          config[field.name] = ml_collections.ConfigDict()
    forget_types(config, sys.argv)
    return config


@contextlib.contextmanager
def _importable(*folders: pathlib.Path) -> Generator[None]:
  """Lets a config import files in `folders`; installed packages come first."""
  before = [*sys.path]
  sys.path += map(str, folders)
  try:
    yield
  finally:
    sys.path[:] = before


def _advice(file: pathlib.Path, error: ImportError) -> str:
  """Advice about an import that failed in a config file."""
  is_old = error.name in ("configs", "configs.common")
  if is_old and "common" in file.read_text(encoding="utf-8"):
    return (
      f"{file} imports configs.common, which is vitjax.config.common now. "
      "Write `from vitjax.config import common`."
    )
  return (
    f"{file}: {error}. A config file can import packages that are installed, "
    "files in its folder, and shipped configs: `import plain_vit`."
  )


def forget_types(
  config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> None:
  """Drops values whose override need not have their type.

  ConfigDict reads an override by the type of the value in the file: it would
  refuse a value for None, None for a value, and 0.5 for an integer. The schema
  checks the types instead.

  Args:
    config: config of the file.
    arguments: the command line.
  """
  for argument in arguments:
    match = re.fullmatch(r"--?config\.([\w.]+)=(.*)", argument, re.DOTALL)
    if not match:
      continue
    *sections, key = match[1].split(".")
    section = config
    for name in sections:
      section = (
        section.get(name, {})
        if isinstance(section, ml_collections.ConfigDict)
        else {}
      )
    if not isinstance(section, ml_collections.ConfigDict) or key not in section:
      continue  # ml_collections reports the error, if any
    value = section[key]
    if (
      value is None
      or match[2] == "None"
      or (type(value) is int and not re.fullmatch(r"-?\d+", match[2]))
    ):
      del section[key]


def expand_home(config: ml_collections.ConfigDict) -> None:
  """Replaces the `~` of paths in a config."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      expand_home(value)
    elif isinstance(value, str) and value.startswith("~/"):
      (config[key],) = command_line.expand_home([value])


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
  """The message of a flag error, without what absl wraps around it."""
  if isinstance(error, OSError):
    lines = str(error.__cause__ or error).strip().splitlines()
    return f"the config file cannot be read: {lines[-1].strip()}"
  if isinstance(error, KeyError):  # of an override: 'modle'\nDid you mean ...
    lacking = str(error.args[0]).replace("\n", ". ")
    return f"an override is of a key that the config lacks: {lacking}"
  while error.__context__ is not None and "whilst parsing config" in str(error):
    error = error.__context__  # the config's own error, not its traceback
  return str(error)
