"""The site: `make docs` builds it from the Markdown that GitHub shows, and from the stub.

The repository's root is the source, so that a link from page to page, or to a file, is written once and works in both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent

project = "zoho-token-store"
author = "the zoho-token-store authors"
project_copyright = author
version = release = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]

extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "*.md"]
exclude_patterns = [".*", "target", "dist", "src", "tests", "THIRD-PARTY*"]

html_theme = "furo"
html_title = project
html_show_sphinx = False
html_copy_source = False
html_extra_path = ["first"]  # the front door: a page that leads to the index
pygments_style = "friendly"

# A message is searched for as it is put out, with its straight quotes.
smartquotes = False
# The anchors that GitHub makes.
myst_heading_anchors = 4
# The stub's docstrings have `code` in Markdown's way.
default_role = "code"

# The stub is read, not imported: no build of the extension, no SDK.
autoapi_dirs = ["python/zoho_token_store"]
autoapi_ignore = ["*/_cli/*", "*/__main__.py"]
autoapi_generate_api_docs = False
autoapi_add_toctree_entry = False
autoapi_options = ["undoc-members", "show-inheritance"]
napoleon_numpy_docstring = False
autoapi_member_order = "bysource"
add_module_names = False
python_use_unqualified_type_names = True


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the table of contents of the links that the index shows: a page that is not linked there fails the build."""
    if page != app.config.root_doc:
        return
    for heading, text in re.findall(r"^## (.+)\n([^#]+)", source[0], re.MULTILINE):
        pages = "\n".join(re.findall(r"\]\((?!https?:)([^)#]+)\.md\)", text))
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{pages}\n```\n"


def let_folders_be(app: Sphinx, page: str, source: list[str]) -> None:
    """Show a link to a folder of the repository as text: a site has no page for it."""
    here = Path(app.env.doc2path(page)).parent

    def shown(link: re.Match[str]) -> str:
        return link[1] if (here / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^]]+)\]\(([^):#]+)\)", shown, source[0])


def setup(app: Sphinx) -> None:
    """Connect the two, and let the lines of a crontab stand as they are."""
    app.connect("source-read", add_contents)
    app.connect("source-read", let_folders_be)
    app.add_lexer("cron", TextLexer)
