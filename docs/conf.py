"""Settings of the documentation site: make docs. Nothing is fetched from a network while it is built."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = "lorta"
copyright = "the lorta founders, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "lorta"

myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files that are no page of the site; tests/docs checks every link

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
