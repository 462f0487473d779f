"""The documentation site: its navigation, and the check of its links."""

import pathlib
import re
import tomllib

import pytest

from scripts import check_site, notebook_page

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_navigation_has_the_pages_of_the_index():
  nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
  assert nav[0] == {"Home": "README.md"}
  given = {name: pages for part in nav[1:] for name, pages in part.items()}
  index = (DOCS / "README.md").read_text()
  sections = re.split(r"^## (.*)$", index, flags=re.MULTILINE)[1:]
  listed = {
    title: re.findall(r"^\| \[.*?\]\((.*?)\)", text, re.MULTILINE)
    for title, text in zip(sections[::2], sections[1::2])
  }
  assert given == listed


def site(folder: pathlib.Path, body: str) -> pathlib.Path:
  """A site of two pages and a picture."""
  (folder / "models").mkdir()
  (folder / "a b.png").touch()
  (folder / "index.html").write_text(f"<h1 id='top'>Home</h1>{body}")
  (folder / "models" / "index.html").write_text(
    "<h2 id='vit'>ViT</h2><a href='..#top'>home</a><img src='../a%20b.png'>"
  )
  (folder / "404.html").write_text("<a href='/elsewhere/'>not checked</a>")
  return folder


@pytest.mark.parametrize(
  "body",
  [
    "<a href='models/'>models</a>",
    "<a href='models/index.html#vit'>a model</a>",
    "<a href='#top'>top</a>",
    "<a href='https://example.org/nowhere'>another site</a>",
    "<img src='data:image/png;base64,AA=='>",
  ],
)
def test_good_links(body, tmp_path):
  assert not check_site.problems(site(tmp_path, body))


@pytest.mark.parametrize(
  "body, problem",
  [
    ("<a href='model/'>x</a>", "index.html: model/ leads nowhere."),
    ("<img src='b.png'>", "index.html: b.png leads nowhere."),
    ("<a href='#bottom'>x</a>", "index.html: #bottom has no such anchor."),
    (
      "<a href='models/#resnet'>x</a>",
      "index.html: models/#resnet has no such anchor.",
    ),
    (
      "<script src='https://example.org/x.js'></script>",
      "index.html: https://example.org/x.js is loaded from another host.",
    ),
    (
      "<link rel='stylesheet' href='//example.org/font.css'>",
      "index.html: //example.org/font.css is loaded from another host.",
    ),
  ],
)
def test_bad_links(body, problem, tmp_path):
  assert check_site.problems(site(tmp_path, body)) == [problem]


def test_the_page_of_the_notebook_has_its_cells():
  page = notebook_page.PAGE.read_text(encoding="utf-8")
  cells = [x.source for x in notebook_page.changed().cells]
  (first,) = [
    i for i, x in enumerate(cells) if x.startswith(notebook_page.FIRST)
  ]
  assert len(cells) - first > 15
  for cell in cells[first:]:
    assert cell in page, "run python -m scripts.notebook_page"
  for setting in notebook_page.CHANGES.values():
    assert setting in page, "write it into the introduction of the page"
