"""Settings of Sphinx for the site: `make docs` builds it from the Markdown pages and from the stub.

The source folder is the repository's root. So a relative link to a page or a file works on GitHub and in the site.
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
html_extra_path = ["first"]  # a page that redirects to docs/index.html
pygments_style = "friendly"

# Readers search for a message as it is printed, with straight quotes.
smartquotes = False
# The same anchors as on GitHub.
myst_heading_anchors = 4
# The stub's docstrings mark `code` as Markdown does.
default_role = "code"

# autoapi reads the stub and does not import it, so the site needs neither the built extension nor an SDK.
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
    """Make the table of contents from the links below the headings of the index.

    A page that the index does not link to is in no table of contents, and Sphinx warns about it: the build fails.
    """
    if page != app.config.root_doc:
        return
    for heading, text in re.findall(r"^## (.+)\n([^#]+)", source[0], re.MULTILINE):
        pages = "\n".join(re.findall(r"\]\((?!https?:)([^)#]+)\.md\)", text))
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{pages}\n```\n"


def show_folders_as_text(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace a link to a folder of the repository by its text: the site has no page for a folder."""
    here = Path(app.env.doc2path(page)).parent

    def shown(link: re.Match[str]) -> str:
        return link[1] if (here / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^]]+)\]\(([^):#]+)\)", shown, source[0])


def setup(app: Sphinx) -> None:
    """Connect the two functions to Sphinx, and show the lines of a crontab without highlighting."""
    app.connect("source-read", add_contents)
    app.connect("source-read", show_folders_as_text)
    app.add_lexer("cron", TextLexer)
