"""The sources of published numbers: all are of use, and BibTeX takes them."""

import csv
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from san.errors import InvalidValueError, UnknownNameError
from san.report import published_sources
from san.report.published import FOLDER
from san.report.published_index import published_index
from san.report.published_sources import bibtex, sources

BASE = {"kind": "conference", "title": "On A", "authors": ["B C"], "year": 2020, "venue": "V"}


@pytest.fixture
def own_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in place of sources.yaml."""
    monkeypatch.setattr(published_sources, "_FILE", tmp_path / "sources.yaml")
    sources.cache_clear()
    yield tmp_path / "sources.yaml"
    sources.cache_clear()


def parse(text: str) -> dict[str, dict[str, str]]:
    """The fields of each entry, `type` among them; strict: whatever is not understood fails."""
    entries: dict[str, dict[str, str]] = {}
    inside = {}
    for line in text.splitlines():
        opening = re.fullmatch(r"@(\w+)\{([\w+-]+),", line)
        field = re.fullmatch(r"  (\w+) = \{(.*)\},", line)
        if opening:
            assert not inside
            assert opening[2] not in entries
            inside = {"type": opening[1]}
            entries[opening[2]] = inside
        elif field:
            assert field[1] not in inside
            assert is_balanced(field[2]), line
            inside[field[1]] = field[2]
        elif line == "}":
            assert inside
            inside = {}
        else:
            assert not inside
            assert re.fullmatch(r"(% [^@]+)?", line), line
    return entries


def is_balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def test_every_source_is_of_use() -> None:
    used = set(published_index().papers.values())
    for suite in ("vtab", "fgvc", "gic"):
        with (FOLDER / f"{suite}.csv").open() as file:
            for row in csv.DictReader(file):
                places = row["quoted_through"].split()
                used |= {row["source"], *(place.partition(":")[0] for place in places)}
    used |= {source.part_of for source in sources().values()}
    assert used - {""} == set(sources())
    assert len(sources()) > 50


def test_what_is_from_memory_is_said() -> None:
    assert [s.key for s in sources().values() if s.unverified] == ["hyperadapter2026", "dai2025san"]


def test_the_entries_are_complete_and_in_ascii() -> None:
    text = bibtex(list(sources()))
    assert text.isascii()
    entries = parse(text)
    assert list(entries) == sorted(sources())
    required = {
        "inproceedings": {"author", "title", "booktitle", "year"},
        "article": {"author", "title", "journal", "year"},
        "misc": {"title"},
    }
    for key, fields in entries.items():
        assert required[fields["type"]] <= fields.keys(), key
        year = re.search(r"\d{4}", key)
        assert fields.get("year", year and year[0]) == (year and year[0]), key
    assert entries["lian2022ssf"]["title"].startswith(r"{Scaling \& Shifting Your Features")
    assert r"Andreas R{\"u}ckl{\'e}" in entries["pfeiffer2021adapterfusion"]["author"]
    assert entries["zaken2022bitfit"]["author"].startswith("Ben Zaken, Elad and Yoav Goldberg")
    assert entries["he2023spt"]["pages"] == "11825--11835"


def test_any_text_is_escaped(own_sources: Path) -> None:
    title = r"50 % of $x_i^2$ & {y} \n ~ #1: Čech, Ångström, façade"
    row = {**BASE, "title": title, "note": "write to a@b.c"}
    own_sources.write_text(yaml.safe_dump({"a2020": row}))
    text = bibtex(["a2020", "a2020"])
    expected = (
        r"50 \% of \$x\_i{\textasciicircum}2\$ \& \{y\} {\textbackslash}n {\textasciitilde} "
        r"\#1: {\v C}ech, {\r A}ngstr{\"o}m, fa{\c c}ade"
    )
    assert parse(text)["a2020"]["title"] == f"{{{expected}}}"
    assert text.startswith("% a2020: write to a at b.c\n@inproceedings{a2020,\n")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"titel": "On A"}, UnknownNameError, "key of sources.yaml: a2020 'titel'. Did you mean"),
        ({"kind": "book"}, UnknownNameError, "Unknown sources.yaml: a2020: kind 'book'"),
        ({"year": "MMXX"}, InvalidValueError, "sources.yaml: a2020: year came as 'MMXX'"),
        ({"authors": []}, InvalidValueError, "a2020 has no `authors`; a conference needs it"),
        ({"venue": ""}, InvalidValueError, "a2020 has no `venue`; a conference needs it"),
        ({"part_of": "a2002"}, UnknownNameError, "a2020 is part of 'a2002'. Did you mean a2020"),
    ],
)
def test_a_mistake_in_a_source_is_named(
    change: dict[str, object], error: type[Exception], message: str, own_sources: Path
) -> None:
    own_sources.write_text(yaml.safe_dump({"a2020": {**BASE, **change}}))
    with pytest.raises(error, match=re.escape(message)):
        sources()


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean jia2022vpt"):
        bibtex(["jia2022vp"])


@pytest.mark.latex
def test_bibtex_and_latex_take_all_entries(tmp_path: Path) -> None:
    assert shutil.which("bibtex"), "make test-latex needs texlive"
    (tmp_path / "all.bib").write_text(bibtex(list(sources())), "ascii")
    (tmp_path / "a.tex").write_text(
        r"\documentclass{article}\usepackage{url}\begin{document}\nocite{*}"
        r"\bibliographystyle{plain}\bibliography{all}\end{document}"
    )
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    for command in (latex, ["bibtex", "a"], latex):
        made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout
        if command[0] == "bibtex":
            assert "Warning" not in made.stdout, made.stdout
    entries = (tmp_path / "a.bbl").read_text().count(r"\bibitem{")
    assert entries == len(sources())
