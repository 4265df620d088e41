"""A hook of mkdocs: links to files that aren't in the site, as sources are, become their text."""

import re

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]*)\]\((?:\.\./|examples/zoo-example-plugin)[^)\s]*\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """A page's source without such links."""
    return _OUTSIDE.sub(r"\1", markdown)
