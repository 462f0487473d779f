r"""Fine-tunes a model on a folder of images, with settings of its own choice.

  vitjax finetune folder:/my/images
  vitjax finetune labels:/my/labels.csv --minutes=120 --workdir=runs/mine
  vitjax finetune folder:/my/images --model=convnext_tiny.fb_in22k_ft_in1k
  vitjax finetune folder:/my/images --model=ViT-B_16 --weights=/my/B_16.npz

looks at the data and the device, times a few steps, and chooses model,
resolution, batch, length, augmentation, learning rate and class weights by the
rules of docs/finetune.md. It says why in five lines, prints the `vitjax train`
command that gives the same run, trains, and evaluates the best checkpoint. The
run folder then also has report.html, and best.npz with best.json to use the
model elsewhere.

After an interruption the same command resumes. Exit codes are those of `vitjax
train`.
"""

import pathlib
import re
import sys
import time

from absl import flags, logging

from vitjax import main as training
from vitjax.config import command_line, places

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "model",
    None,
    "Published name, hf:OWNER/REPO, run folder or file to start from; "
    "'scratch' for random weights. Default: chosen by the device, and "
    "'scratch' if it cannot be downloaded.",
  )
  flags.DEFINE_string(
    "weights",
    None,
    "File of weights for the --model of `vitjax.models.list()`.",
  )
  flags.DEFINE_float(
    "minutes", 30.0, "Time for everything, on this device.", lower_bound=0.1
  )
  flags.DEFINE_bool(
    "mirror",
    None,
    "Also train on mirror images. Default: unless classes are characters, "
    "left or right.",
  )
  flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run; a run that is there already is resumed. Default: "
    "runs/finetune-NAME-OF-DATA.",
  )
  flags.DEFINE_bool("dry_run", False, "Choose, say why, and stop.")


def default_workdir(data: str, model: str | None) -> pathlib.Path:
  """A folder that is the same for the same data and model."""
  parts = (pathlib.PurePath(x).name for x in (data, model) if x)
  name = "-".join(["finetune", *parts])
  return pathlib.Path("runs") / re.sub(r"[^\w.=+-]+", "_", name)


def main(argv: list[str]) -> None:
  """Chooses, trains and evaluates."""
  if len(argv) != 2:
    sys.exit("vitjax.finetune: give one data set, such as folder:/my/images.")
  start = time.monotonic()
  command_line.set_up_logging()
  workdir = pathlib.Path(FLAGS.workdir or default_workdir(argv[1], FLAGS.model))
  with training.exit_codes(workdir.absolute()):
    if FLAGS.workdir and places.is_remote(FLAGS.workdir):
      raise ValueError(
        f"--workdir={FLAGS.workdir}: finetune writes its results to a local "
        "folder. Name one, or run the command that --dry_run prints, which "
        "vitjax train runs at gs:// too."
      )
    training.check_writable(workdir.absolute())
    if not FLAGS.dry_run:
      training.set_up_jax(workdir.absolute())

    from vitjax.finetune import choosing, stored

    request = choosing.Request(
      data=argv[1],
      model=FLAGS.model,
      weights=FLAGS.weights,
      minutes=FLAGS.minutes,
      mirror=FLAGS.mirror,
    )
    choice = stored.read(workdir, request)
    if choice is None:
      choice = choosing.choose(
        request, start, log=lambda line: logging.info("%s ...", line)
      )
    print("\n".join(choice.why))
    print(f"\n{choice.recipe.command(workdir)}\n", flush=True)
    if FLAGS.dry_run:
      return
    stored.write(workdir, request, choice)

    from vitjax import train
    from vitjax.finetune import finishing

    train.train_and_evaluate(choice.recipe.resolve(), workdir.absolute())
    print(finishing.finish(workdir, choice.test))
    print(
      f"\nRun folder: {workdir}. To classify images:\n"
      f"  vitjax predict --model={workdir} --step=best photo.jpg"
    )


if __name__ == "__main__":
  command_line.run(main, define_flags)
