"""Sphinx configuration."""

from importlib.metadata import version as installed_version

project = "om_plugins"
author = "The OpenManager authors"
copyright = "2026, the OpenManager authors"
release = version = installed_version("om-plugins")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "conftest.py"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
html_theme = "furo"
html_title = f"om_plugins {release}"
nitpicky = False
