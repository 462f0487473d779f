r"""Lists the shipped config files, or copies one to change it.

  vitjax configs
  vitjax configs copy plain_vit.py .
  vitjax configs copy plain_vit.py mine.py

To train with a shipped file as it is, name it: `--config=plain_vit.py:s16`
works in every folder. A copy needs no other file. `python -m vitjax.config` is
the same command.
"""

import sys

from vitjax.config import command_line, shipped


def run(arguments: list[str]) -> None:
  """Runs the command and prints its output."""
  match arguments:
    case []:
      known = shipped.summaries()
      width = max(map(len, known))
      lines = [f"{name:{width}}  {text}" for name, text in known.items()]
      print("\n".join(lines))
    case ["copy", name, target]:
      file = shipped.copy(name, target)
      print(f"Wrote {file}. To train: vitjax train --config={file}")
    case _:
      raise ValueError(
        f"{' '.join(arguments)!r} is not a command. Write `vitjax configs` for "
        "the list, or `vitjax configs copy NAME FOLDER`."
      )


def main(argv: list[str]) -> None:
  """Runs a command, and reports errors in one line."""
  try:
    run(argv[1:])
  except FileExistsError as e:
    sys.exit(
      f"vitjax.config: {e.filename} exists and was not changed. Give another "
      "name: vitjax configs copy NAME FILE"
    )
  except (ValueError, OSError) as e:
    sys.exit(f"vitjax.config: {e}")


if __name__ == "__main__":
  command_line.run(main)
