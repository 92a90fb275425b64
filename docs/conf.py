"""How Sphinx builds these pages. ``make docs`` builds them, with warnings as errors and nothing from the network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for stubs.py

from sphinx.application import Sphinx

import flatrecord

project = "flatrecord"
author = "the authors of flatrecord"
version = release = flatrecord.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "stubs"]
exclude_patterns = ["drawings"]
myst_heading_anchors = 3


autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
default_role = "py:obj"  # what docstrings have in backticks is a link, where there is something to link to
napoleon_google_docstring = False
napoleon_use_param = False  # a parameter's type is said in words ("mapping of str to Array"), which are no names to look up
napoleon_use_rtype = False
napoleon_use_ivar = True

nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r".*"),  # parameters, keywords and other libraries' names, in backticks in docstrings
    ("py:class", r"(collections|contextlib|flwr|numpy|os|socket|torch|typing|typing_extensions|_typeshed)\..*"),  # not described here
    ("py:class", r"flatrecord\.(safetensors\._Record|testing\.Result)"),  # type variables
    ("py:class", "Stream"),  # where there are overloads, autodoc does not ask for signatures; what a stream is stands below them
]

html_theme = "furo"
html_title = f"flatrecord {release}"
html_static_path = ["static"]
html_css_files = ["flatrecord.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
pygments_style = "default"
pygments_dark_style = "monokai"


def parameters_are_no_links(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """The parameter ``copy`` would be a link to the method of that name."""
    lines[:] = [line.replace(" `copy`", " ``copy``") for line in lines]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", parameters_are_no_links)
