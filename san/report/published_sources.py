"""Whose the published numbers are, and how a paper cites them (published/sources.yaml)."""

import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import yaml

from san.errors import InvalidValueError, choose
from san.installation import BENCHMARKS
from san.report.latex_text import ACCENTS
from san.schema import from_mapping

_FILE = BENCHMARKS / "published" / "sources.yaml"
# The entry type of BibTeX, and its field for where something appeared.
_ENTRY_TYPES = {
    "conference": ("inproceedings", "booktitle"),
    "journal": ("article", "journal"),
    "preprint": ("article", "journal"),
    "web": ("misc", "howpublished"),
}
_SPECIAL = str.maketrans(
    {
        "\\": r"{\textbackslash}",
        "{": r"\{",
        "}": r"\}",
        "~": r"{\textasciitilde}",
        "^": r"{\textasciicircum}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
    }
)


@dataclass(frozen=True)
class Source:
    """A paper, or what is none: a file of a repository, a thread, notes, a summary (kind `web`).

    key: what a paper cites it by. authors: first names first, or `last, first`; `others` stands for
    those that are not known. part_of: the key of the paper that a source of kind `web` belongs to
    or tells of. unverified: something in it is from memory; `note` says what, if not all of it.
    """

    key: str
    kind: Literal["conference", "journal", "preprint", "web"]
    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    venue: str = ""
    pages: str = ""
    url: str = ""
    part_of: str = ""
    unverified: bool = False
    note: str = ""


@cache
def sources() -> Mapping[str, Source]:
    """Read benchmarks/published/sources.yaml; sources by key.

    Raises UnknownNameError on an unknown key of a source or a `part_of` that is none,
    InvalidValueError on a value that is not allowed, or a paper without authors, year and venue.
    """
    rows: dict[str, dict[str, Any]] = yaml.safe_load(_FILE.read_text("utf-8"))
    found = {}
    for key, row in rows.items():
        where = f"{_FILE.name}: {key}"
        found[key] = from_mapping(Source, {"key": key, **row}, where)
        _check_paper(found[key], where)
    for source in found.values():
        if source.part_of:
            choose(source.part_of, found, f"source that {source.key} is part of")
    return found


def find_source(key: str, where: str) -> Source:
    """Return a source; raise UnknownNameError with the nearest keys. where: who names it."""
    known = sources()
    return known[choose(key, known, f"source in {where}")]


def bibtex(keys: Collection[str]) -> str:
    """Return the entries of sources for a .bib file, in the order of their keys.

    What `unverified` and `note` say stands above an entry, where BibTeX reads over it. Entries of
    kind `web` need LaTeX's package url.
    Raises UnknownNameError on a key that is none.
    """
    chosen = [find_source(key, "bibtex") for key in sorted(set(keys))]
    return "\n".join(_entry(source) for source in chosen)


def _check_paper(source: Source, where: str) -> None:
    """Raise InvalidValueError where a paper lacks what its entry needs."""
    if source.kind == "web":
        return
    for name in ("authors", "year", "venue"):
        if not getattr(source, name):
            raise InvalidValueError(f"{where} has no `{name}`; a {source.kind} needs it.")


def _entry(source: Source) -> str:
    """Return one entry."""
    entry_type, _ = _ENTRY_TYPES[source.kind]
    lines = [f"@{entry_type}{{{source.key},"]
    for name, value in _bibtex_fields(source):
        lines.append(f"  {name} = {{{value}}},")
    remarks = ["from memory, in part or whole"] if source.unverified else []
    if source.note:
        remarks.append(source.note)
    # BibTeX reads over all that is outside of entries, up to the next @.
    comments = [f"% {source.key}: {'; '.join(remarks)}".replace("@", " at ")] if remarks else []
    return "\n".join([*comments, *lines, "}", ""])


def _bibtex_fields(source: Source) -> Iterator[tuple[str, str]]:
    """Yield the fields of an entry that a source has, with their values in LaTeX."""
    if source.authors:
        yield "author", " and ".join(_to_bibtex(author) for author in source.authors)
    else:
        yield "key", _to_bibtex(source.title)  # by which BibTeX sorts what nobody signs
    yield "title", f"{{{_to_bibtex(source.title)}}}"  # the inner braces keep its capitals
    _, where = _ENTRY_TYPES[source.kind]
    if source.venue:
        yield where, _to_bibtex(source.venue)
    elif source.url:
        yield where, rf"\url{{{source.url}}}"
    if source.year is not None:
        yield "year", str(source.year)
    if source.pages:
        yield "pages", source.pages.replace("-", "--")
    if source.url:
        yield "url", source.url


def _to_bibtex(text: str) -> str:
    """Return text in which what LaTeX would misread is escaped, in ASCII where it has accents."""
    written: list[str] = []
    for character in unicodedata.normalize("NFD", text):
        if character in ACCENTS and written:
            written[-1] = rf"{{\{ACCENTS[character]}{written[-1]}}}"
        else:
            written.append(character.translate(_SPECIAL))
    return "".join(written)
