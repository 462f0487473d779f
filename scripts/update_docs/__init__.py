"""The generated parts of docs/: tables that follow from the code.

`python -m scripts.update_docs` regenerates them, and with `--check` says which
pages are out of date. A part is what stands between `<!-- NAME: begin -->` and
`<!-- NAME: end -->` in a page; the rest of the page is written by hand.
"""
