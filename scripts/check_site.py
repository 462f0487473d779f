"""Checks the links of the built site, pictures and anchors included.

  python -m scripts.check_site

Reads every page of site/. Exit code 1 if a link leads nowhere, or if a page
loads a file from another host.
"""

import html.parser
import pathlib
import sys
import urllib.parse

SITE = pathlib.Path(__file__).parents[1] / "site"
# What a page loads by itself: tag -> attribute.
_LOADED = {"img": "src", "link": "href", "script": "src", "source": "src"}


class _Page(html.parser.HTMLParser):
  """Anchors and links of a page.

  Attributes:
    anchors: ids that a link can point to.
    links: (address, whether the page loads it by itself).
  """

  def __init__(self, text: str):
    super().__init__()
    self.anchors: set[str] = set()
    self.links: list[tuple[str, bool]] = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    found = dict(attrs)
    self.anchors |= {x for x in (found.get("id"), found.get("name")) if x}
    if address := found.get(_LOADED.get(tag, "href" if tag == "a" else "")):
      self.links.append((address, tag in _LOADED))


def problems(site: pathlib.Path) -> list[str]:
  """One line for each dead link, and for each file of another host."""
  pages = {
    path.resolve(): _Page(path.read_text(encoding="utf-8"))
    for path in site.rglob("*.html")
    if path.name != "404.html"  # its addresses begin at the root of a host
  }
  found = []
  for path, page in pages.items():
    for address, is_loaded in page.links:
      url = urllib.parse.urlsplit(address)
      where = f"{path.relative_to(site.resolve())}: {address}"
      if url.scheme or url.netloc:
        if is_loaded and url.scheme != "data":
          found.append(f"{where} is loaded from another host.")
        continue
      target = path
      if url.path:
        target = (path.parent / urllib.parse.unquote(url.path)).resolve()
      if target.is_dir():
        target /= "index.html"
      anchor = urllib.parse.unquote(url.fragment)
      if not target.is_file():
        found.append(f"{where} leads nowhere.")
      elif anchor and target in pages and anchor not in pages[target].anchors:
        found.append(f"{where} has no such anchor.")
  return sorted(set(found))


def main() -> None:
  found = problems(SITE)
  pages = len([*SITE.rglob("*.html")])
  if found or not pages:
    sys.exit("\n".join(found) or f"{SITE} has no pages: run scripts/docs.sh.")
  print(f"{pages} pages: every link, anchor and picture is there.")


if __name__ == "__main__":
  main()
