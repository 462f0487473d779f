"""The command `vitjax`: `vitjax predict ...` is `python -m vitjax.predict ...`.

Each command is a module, which is imported only when it is called.
"""

import os
import runpy
import sys

# Command -> its module, what it does.
COMMANDS = {
  "train": ("vitjax.main", "Train the model of a config file, or resume."),
  "finetune": (
    "vitjax.finetune",
    "Choose settings for a data set, and fine-tune.",
  ),
  "plan": ("vitjax.plan", "Print memory, FLOPs and steps of a run."),
  "sweep": ("vitjax.sweep", "Train a small grid of settings; find the best."),
  "predict": ("vitjax.predict", "Classify images, or save their features."),
  "evaluate": ("vitjax.evaluate", "Run evaluators on a model."),
  "export": ("vitjax.export", "Write weights for other frameworks."),
  "soup": ("vitjax.soup", "Average the weights of trained models."),
  "report": ("vitjax.report", "Make an HTML report of runs."),
  "demo": ("vitjax.demo", "Serve a local page to try a model."),
  "serve": ("vitjax.serve", "Answer about images over HTTP."),
  "compare": ("vitjax.compare", "Check a run against reference curves."),
  "pareto": ("vitjax.pareto", "Measure speed, and list it with accuracy."),
  "data": ("vitjax.data", "Check a data set, or prepare ImageNet-1k."),
  "configs": ("vitjax.config", "List the shipped config files, or copy one."),
  "doctor": ("vitjax.doctor", "Check the installation and the devices."),
}


def usage() -> str:
  """The text of `vitjax --help`."""
  width = max(map(len, COMMANDS))
  lines = [
    "Train, resume, evaluate and convert image models in JAX and Flax.",
    "",
    "  vitjax train --config=quickstart.py --workdir=runs/quickstart",
    "  vitjax predict --model=runs/quickstart photo.png",
    "",
    "Commands; `vitjax COMMAND --help` lists the flags of one:",
    "",
    *(f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()),
    "",
    "`vitjax --version` prints the version. `python -m vitjax.main` is `vitjax",
    "train`, and `python -m vitjax.COMMAND` is `vitjax COMMAND`.",
  ]
  return "\n".join(lines)


def main() -> None:
  """Runs the module of the command that the first argument names."""
  name, *arguments = sys.argv[1:] or ["--help"]
  if name in ("-h", "-help", "--help", "help"):
    print(usage())
  elif name == "--version":
    import vitjax

    print(f"vitjax {vitjax.__version__}")
  elif name in COMMANDS:
    # The user's own models and evaluators are found in the working folder, as
    # by `python -m`; but last, so that they hide no installed package.
    if not sys.flags.safe_path:
      sys.path.append(os.getcwd())
    sys.argv[1:] = arguments
    module, _ = COMMANDS[name]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  else:
    from vitjax.config import messages

    hint = messages.did_you_mean(name, COMMANDS)
    sys.exit(
      f"vitjax: {name!r} is not a command.{hint} Known: {', '.join(COMMANDS)}."
    )


if __name__ == "__main__":
  main()
