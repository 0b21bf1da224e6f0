"""A hook of mkdocs: what the site needs apart from the pages in docs/.

Links that lead out of docs/ reach a copy in the site, so that it is complete without the repository. `::: kdbench.*` becomes
the public functions of kdbench.
"""

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

import kdbench

LINK = re.compile(r"(?<=\]\()\.\./((?!\.\./)[^)#\s]+)")
PLACE = "repository"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to; Markdown becomes a page."""
    root = Path(config.docs_dir).parent
    linked = {
        target
        for page in files.documentation_pages()
        if page.src_uri.count("/") == 0
        for target in LINK.findall(page.content_string)
    }
    for target in sorted(linked):
        source = root / target
        if source.is_file():
            files.append(_copy(target, source, config))
            if source.suffix == ".md":  # its neighbours are what it links to
                neighbours = {name for name in re.findall(r"\]\(([\w.-]+)\)", source.read_text(encoding="utf-8"))}
                for name in sorted(neighbours):
                    files.append(_copy(str(PurePosixPath(target).parent / name), source.parent / name, config))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point links out of docs/ to the copies, and list the public functions."""
    if page.file.src_uri.startswith(f"{PLACE}/"):
        return markdown.replace("](docs/", "](../")
    if "/" in page.file.src_uri:  # there, ../ leads to docs/ itself
        return markdown.replace("::: kdbench.*", "\n\n".join(_public()))
    return LINK.sub(rf"{PLACE}/\1", markdown)


def _copy(target: str, source: Path, config: MkDocsConfig) -> File:
    return File.generated(config, f"{PLACE}/{target}", abs_src_path=str(source), inclusion=InclusionLevel.NOT_IN_NAV)


def _public() -> list[str]:
    """A block of mkdocstrings for each function and class that `import kdbench` offers, apart from errors."""
    offered = [(name, getattr(kdbench, name)) for name in kdbench.__all__]
    return [
        f"::: {item.__module__}.{item.__qualname__}\n    options:\n      heading: kdbench.{name}"
        for name, item in offered
        if item.__module__ != "kdbench.errors"
    ]
