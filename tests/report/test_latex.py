"""Tables for papers: what is set off, how it is laid out, and that it compiles as it should."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from paper_samples import PUBLISHED, flagged_table, odd_rows, robustness_table, six_rows
from samples import DEMO, VTAB, demo_records, done, vtab_records

from san.report.latex_text import escape_comment, escape_latex
from san.report.paper import PaperOptions, paper_bibtex, paper_latex
from san.report.selection import Wanted, select
from san.report.table import Section, Table, make_table
from san.report.value import Flag, TrainableCounts
from san.score import Score

NONE_PUBLISHED = Wanted(published=["none"])
MEANS = Wanted(published=["none"], columns=["means"])
BEST = r"{\textbf{\underline{%s}}}"
NOT_TOLD_APART = r"{\textbf{%s}}"
# Of a number such as 12.3, in units of the font's size; Times's bold ones are as wide.
TIMES = 1.75
COMPUTER_MODERN = 2.0317


@pytest.fixture(scope="module")
def six() -> Table:
    return make_table(VTAB, six_rows())


def paper(table: Table, wanted: Wanted = NONE_PUBLISHED, **options: object) -> str:
    return paper_latex(table, select(table, wanted), PaperOptions(**options))


def cells_by_row(text: str) -> dict[str, list[str]]:
    """The cells of each line of a table by its name, without marks and references."""
    found = {}
    for line in text.splitlines():
        name, *cells = line.removesuffix(r" \\").split(" & ")
        if cells and name.strip():
            name = name.split("hangindent=.5em ")[-1]
            found[re.split(r"\\textsuperscript|\\strut|[~ ]\\citep", name)[0]] = cells
    return found


def test_the_best_is_underlined_and_bold_what_cannot_be_told_apart_from_it_bold() -> None:
    scores = {"full": 990, "san": 900, "ssf": 899, "lora": 700}
    facts = {"suite": "vtab", "backbone": VTAB.backbone}
    runs = [done(n, method=m, task=t, **facts) for t in VTAB.tasks for m, n in scores.items()]
    best = {"best": Score(4, 950, 1000), "selected_on": "test", "protocol": "best_test"}
    runs += [done(950, method="bitfit", task=task, **best, **facts) for task in VTAB.tasks]
    rows = cells_by_row(paper(make_table(VTAB, runs)))
    # The mean of four tasks could tell nothing apart: its best is underlined, and nothing is bold.
    san = rows["SAN"][1:]
    assert (san.count(BEST % "90.0"), san.count(r"{\underline{90.0}}")) == (23, 1)
    # By one right answer of a thousand on each of 19 tasks: told apart by means alone.
    ssf = rows["SSF"][1:]
    assert ssf.count(NOT_TOLD_APART % "89.9") == 19
    assert ssf.count("89.9") == 5
    assert rows["LoRA"][1:].count("70.0") == 24
    # The baseline and the row that was chosen on the test split are better, and not ranked.
    assert rows["Full"][1:] == ["99.0"] * 24
    assert rows["Bias (best test)"][1:] == ["95.0"] * 24


def test_published_rows_of_another_comparison_class_are_never_set_off() -> None:
    table = make_table(VTAB, [])
    text = paper(table, Wanted(published=PUBLISHED))
    rows = cells_by_row(text)
    for name in ("SSF", "VPT-Deep", "Full", "Linear"):
        assert len(rows[name]) == 25
        assert "textbf" not in "".join(rows[name])
    assert BEST % "72.3" in rows["Convpass"]
    assert BEST % "92.7" in rows["NOAH"]
    assert "Not compared: Full, Linear, published rows whose marks differ" in text
    alone = paper(table, Wanted(published=["SSF", "VPT-Deep"]))
    assert "textbf" not in alone
    assert "Underlined" not in alone


def test_cells_that_are_not_compared_are_never_set_off() -> None:
    rows = cells_by_row(paper(make_table(DEMO, demo_records())))
    assert rows["SSF"][1:3] == [BEST % "70.0", "{failed}"]
    assert rows["Bias"][1] == "71.0"  # the data failed its check
    assert rows["SAN"][1] == "62.0"  # conflicting records
    assert rows["LoRA"][1:] == ["70.0"] * 11  # mixed weights
    assert set(rows["Linear"][4:]) == {"{--}"}


def test_of_the_corruption_error_the_lowest_is_the_best() -> None:
    text = paper(robustness_table())
    rows = cells_by_row(text)
    errors = {name: float(re.sub(r"[^\d.]", "", rows[name][-1])) for name in ("SAN", "SSF")}
    assert errors["SAN"] < errors["SSF"]
    assert rows["SAN"][-1].startswith(r"{\textbf{\underline{")
    assert r"mCE $\downarrow$" in text
    assert "mean corruption error (mCE)" in text


def test_a_failed_seed_is_marked_though_the_other_seeds_have_a_number() -> None:
    rows = cells_by_row(paper(make_table(DEMO, demo_records())))
    assert rows["SSF"][7] == r"{71.0\rlap{\textsuperscript{$\|$}}}"


def test_every_kind_of_cell() -> None:
    text = paper(flagged_table())
    rows = cells_by_row(text)
    lora = next(cells for name, cells in rows.items() if name == "LoRA")
    assert "100.0" in "".join(lora)
    assert "S[table-format=3.1]" in text
    assert "-0.0" not in text
    assert sum("{0.0" in cell or cell == "0.0" for cell in lora) == 2
    words = {cell for cells in rows.values() for cell in cells if cell.strip("{}").isalpha()}
    assert {"{failed}", "{OOM}"} <= words
    for flag in Flag:
        assert f"{escape_latex(flag.mark)}: " in text


def test_the_parameters_are_a_number_or_words(six: Table) -> None:
    rows = [replace(six.ours.row("lora"), trainable=TrainableCounts(304.33e6))]
    rows.append(replace(six.ours.row("ssf"), trainable=TrainableCounts()))
    rows.append(replace(six.ours.row("san"), trainable=TrainableCounts(2e5, is_estimated=True)))
    text = paper(replace(six, ours=Section(tuple(rows))))
    assert "without the head, whose mean is taken off where papers count it." in text
    assert "in millions, without the head. " in paper(six)
    cells = cells_by_row(text)
    assert cells["LoRA"][0] == "304.33"
    assert cells["SSF"][0] == "{--}"
    assert "S[table-format=3.2]" in text


def test_names_references_settings_and_protocol(six: Table) -> None:
    facts = {"suite": "vtab", "backbone": VTAB.backbone, "task": "cifar"}
    runs = [
        done(900, method="lora", variant="method.rank=16", **facts),
        done(900, method="vpt_deep", protocol="best_test", selected_on="test", **facts),
        done(900, method="dora", **facts),
        done(900, method="zebra", **facts),
    ]
    text = paper(make_table(VTAB, runs), MEANS)
    assert r"LoRA (rank=16)~\citep{hu2022lora} & " in text
    assert r"VPT-Deep (best test)\textsuperscript{$\dagger$}~\citep{jia2022vpt} & " in text
    assert r"DoRA~\citep{liu2024dora} & " in text
    assert "\nzebra & " in text
    assert ") & " not in paper(six, MEANS)


def test_a_long_name_is_broken_where_a_line_may_end() -> None:
    text = paper(make_table(VTAB, odd_rows()))
    assert (
        r"SSF (backbone.\hspace{0pt}weights=\hspace{0pt}w.\hspace{0pt}st@\hspace{0pt}1a2b3c "
        r"lr=\hspace{0pt}0.1) \citep{lian2022ssf}\strut} & 0.21 & "
    ) in text
    assert text.count(r"\parbox[t]{72pt}{\raggedright") == 3
    assert max(len(word) for word in re.findall("x+", text.split("toprule")[1])) < 20


@pytest.mark.parametrize("published", [["none"], PUBLISHED, ["all"]])
def test_what_is_cited_is_in_the_bibliography(six: Table, published: list[str]) -> None:
    selection = select(six, Wanted(published=published))
    text = paper_latex(six, selection, PaperOptions())
    entries = re.findall(r"^@\w+{(\w+),", paper_bibtex(six, selection), re.MULTILINE)
    cited = re.findall(r"\\citep{(\w+)}", text)
    assert set(cited) == set(entries)
    assert len(entries) == len(set(entries)) >= 4
    needs_url = r"\url{" in paper_bibtex(six, selection)
    assert needs_url == (published == ["all"])
    packages = r"% \usepackage{booktabs,graphicx,siunitx"
    assert text.startswith(packages + (",url}" if needs_url else "}"))


def test_the_caption_says_whose_numbers_there_are(six: Table) -> None:
    text = paper(six, Wanted(published=PUBLISHED))
    assert "Measured by us: means of 3 seeds." in text
    assert (
        r"As published: numbers of the papers cited; AdaptFormer from~\citep{jie2022convpass}; "
        r"LoRA from~\citep{zhang2022noah}; Full, Linear from~\citep{jia2022vpt}."
    ) in text
    assert text.count(r"\emph{Measured by us}") == text.count(r"\emph{As published}") == 1
    spread = paper(six, with_spread=True)
    assert r"Measured by us: means of 3 seeds, $\pm$ their standard deviation." in spread
    assert "emph" not in spread
    one = make_table(DEMO, [done(900, task="digits")])
    assert "Measured by us: one seed. " not in paper(one)
    assert "Measured by us: one seed." in paper(one)


def test_what_the_marks_mean_for_each_row_stands_in_comments() -> None:
    table = make_table(DEMO, demo_records())
    text = paper(table)
    differing = [note for note in table.notes if note.startswith(("≠", "§"))]
    assert differing
    comments = text.split(r"\begin{table")[0].splitlines()
    assert {f"% {' '.join(note.split())}" for note in table.notes} <= set(comments)
    assert {f"% {sentence}" for sentence in table.verdict.sentences} <= set(comments)
    assert all(line.startswith("% ") for line in comments)


def test_a_comment_stays_in_its_line() -> None:
    assert escape_comment("a\nb\r\n\u2028c\x0bd\x00 \\end") == r"% a b c d\x00 \end"


@pytest.mark.parametrize(
    ("wanted", "options", "environment", "size"),
    [
        (NONE_PUBLISHED, {}, "table*", 7),
        (NONE_PUBLISHED, {"with_spread": True}, "table*", 7),
        (NONE_PUBLISHED, {"is_transposed": True}, "table", 9),
        (NONE_PUBLISHED, {"is_transposed": True, "with_spread": True}, "table*", 9),
        (MEANS, {}, "table", 9),
        (MEANS, {"with_spread": True}, "table", 9),
    ],
)
def test_a_table_is_as_narrow_as_can_be_then_as_large(
    six: Table, wanted: Wanted, options: dict[str, bool], environment: str, size: int
) -> None:
    text = paper(six, wanted, **options)
    assert rf"\begin{{{environment}}}[t]" in text
    assert rf"\end{{{environment}}}" in text
    assert rf"\fontsize{{{size}}}{{{1.2 * size:.1f}}}\selectfont" in text


def test_a_spread_stands_behind_its_number_or_below_it(six: Table) -> None:
    below = paper(six, with_spread=True)
    assert re.search(r"^Linear & .*\\\\\n & +& {\$\\pm\$\d\.\d} & ", below, re.MULTILINE)
    behind = paper(six, is_transposed=True, with_spread=True)
    assert re.search(r"^CIFAR-100 & {\d\d\.\d\${}\\pm{}\$\d\.\d} & ", behind, re.MULTILINE)
    assert "pm" not in paper(six).split("toprule")[1]


def test_decimals(six: Table) -> None:
    assert re.search(r" & \d\d\.\d\d & ", paper(six, decimals=2))
    assert "*{7}{S[table-format=2.2]" in paper(six, decimals=2)


def test_any_character_is_escaped_in_ascii() -> None:
    assert escape_latex(r"a_b 5% x^2 ~\{}$ #&") == (
        r"a\_b 5\% x\textasciicircum{}2 \textasciitilde{}$\backslash$\{\}$\mathdollar$ \#\&"
    )
    assert escape_latex("é ß Å ő") == r"{\'e} \ss{} {\r A} {\H o}"
    assert escape_latex("e\u0301") == r"{\'e}"
    assert escape_latex("✓ [x]\n\ny") == "{[}U+2713{]} {[}x{]}  y"
    assert escape_latex("α Ω ς") == r"$\alpha$ $\Omega$ $\varsigma$"
    for code in range(0x3000):
        written = escape_latex(chr(code))
        assert written.isascii()
        assert written.isprintable()
        assert written.count("$") in (0, 2)
        assert not re.fullmatch(r"[#%&^_~\\{}$\[\]|<>`\"*]", written) or written == "~"


def test_an_odd_backbone_gives_a_label_and_a_caption() -> None:
    backbone = "vit{é%}_b"
    table = make_table(DEMO, [done(900, backbone=backbone)], backbone)
    text = paper(table)
    assert r"\label{tab:demo_vit----_b}" in text
    assert r"with vit\{{\'e}\%\}\_b." in text


def test_a_table_without_rows_has_a_head() -> None:
    table = make_table(DEMO, [])
    assert r"\toprule" in paper(table)


# The rest compiles documents of ICML's geometry, with `\input` alone.

PAGE = r"""\documentclass[10pt,twocolumn]{article}
\usepackage[letterpaper,textwidth=6.75in,textheight=9in,columnsep=0.25in]{geometry}
FONT\usepackage{booktabs,graphicx,siunitx,url}
\usepackage[numbers]{natbib}
\begin{document}
TABLES
\bibliographystyle{plain}
\bibliography{BIBLIOGRAPHY}
\end{document}
"""


def compile_tables(
    tables: Mapping[str, str], bibliography: str, folder: Path, font: str = ""
) -> None:
    """Compile tables, one a page, and the references on a last one; nothing may be amiss."""
    if shutil.which("pdflatex") is None:
        pytest.fail("apt-get install texlive-latex-extra texlive-science poppler-utils")
    for name, text in tables.items():
        (folder / f"{name}.tex").write_text(re.sub("tab:[^}]*", f"tab:{name}", text))
    (folder / "cited.bib").write_text(bibliography)
    inputs = [rf"\input{{{name}.tex}}\clearpage" for name in tables]
    page = PAGE.replace("FONT", font).replace("TABLES", "\n".join(inputs))
    (folder / "page.tex").write_text(page.replace("BIBLIOGRAPHY", "cited"))
    pdflatex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page"]
    for command in (pdflatex, ["bibtex", "page"], pdflatex, pdflatex):
        made = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        log = made.stdout.decode(errors="replace")
        assert made.returncode == 0, log[-3000:]
    for complaint in ("Overfull", "Underfull", "Warning", "too large", "undefined"):
        assert complaint not in log, log
    assert f"Output written on page.pdf ({len(tables) + 1} pages" in log
    fonts = run_poppler("pdffonts", "page.pdf", folder).splitlines()[2:]
    kinds = {" ".join(line.split()[1:3]) for line in fonts}
    assert kinds == {"Type 1"}


def run_poppler(program: str, *arguments: str | Path) -> str:
    *options, folder = arguments
    command = [program, *map(str, options)]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return made.stdout


def number_sizes(folder: Path, page: int, width: float) -> list[float]:
    """The size in points of each number `12.3` on a page, the smallest first.

    width: of such a number in units of the font's size.
    """
    words = run_poppler("pdftotext", "-bbox", "-f", page, "-l", page, "page.pdf", "-", folder)
    number = r'xMin="([\d.]+)" yMin="[\d.]+" xMax="([\d.]+)" yMax="[\d.]+">\d\d\.\d<'
    widths = [float(right) - float(left) for left, right in re.findall(number, words)]
    # PDF counts 72 points an inch, TeX 72.27.
    return sorted(measured / width * 72.27 / 72 for measured in widths)


@pytest.mark.latex
def test_six_rows_of_19_tasks_are_set_in_7_points(six: Table, tmp_path: Path) -> None:
    selection = select(six, NONE_PUBLISHED)
    text = paper_latex(six, selection, PaperOptions())
    compile_tables({"vtab": text}, paper_bibtex(six, selection), tmp_path)
    sizes = number_sizes(tmp_path, 1, COMPUTER_MODERN)
    assert len(sizes) == 6 * (19 + 5)
    bold = text.count(r"\textbf")  # narrower than others in this font
    assert bold > 50
    assert sizes[bold:] == pytest.approx([7.0] * (len(sizes) - bold), abs=0.01)


@pytest.mark.latex
def test_every_kind_of_table_compiles(six: Table, tmp_path: Path) -> None:
    both = Wanted(published=PUBLISHED)
    tables = {
        "both": paper(six, both),
        "spread": paper(six, with_spread=True),
        "means": paper(six, MEANS),
        "means-spread": paper(six, MEANS, with_spread=True),
        "transposed": paper(six, is_transposed=True),
        "transposed-both": paper(six, both, is_transposed=True),
        "transposed-spread": paper(six, is_transposed=True, with_spread=True),
        "robustness": paper(robustness_table()),
        "demo": paper(make_table(DEMO, demo_records())),
        "empty": paper(make_table(DEMO, [])),
        "flags": paper(flagged_table()),
        "flags-spread": paper(flagged_table(), with_spread=True),
        "flags-transposed": paper(flagged_table(), is_transposed=True, with_spread=True),
        "odd": paper(make_table(VTAB, odd_rows())),
        "effort": paper(make_table(VTAB, vtab_records()), with_cost=True),
        "effort-both": paper(make_table(VTAB, vtab_records()), both, with_cost=True),
        "effort-transposed": paper(
            make_table(VTAB, vtab_records()), with_cost=True, is_transposed=True
        ),
        "odd-transposed": paper(make_table(VTAB, odd_rows()), is_transposed=True),
    }
    bibliography = paper_bibtex(six, select(six, Wanted(published=["all"])))
    compile_tables(tables, bibliography, tmp_path, font="\\usepackage{times}\n")
    least = dict.fromkeys(tables, 7.0) | {"flags-spread": 6.3}  # marks at every number
    least |= dict.fromkeys(("means", "means-spread", "transposed", "transposed-spread"), 9.0)
    counts = {}
    for page, name in enumerate(tables, start=1):
        sizes = number_sizes(tmp_path, page, TIMES)
        counts[name] = len(sizes)
        assert min(sizes, default=9) > least[name] - 0.01, name
    assert counts["both"] > 300
    assert counts["spread"] == counts["transposed"] == counts["transposed-spread"] == 144
    assert counts["means"] == counts["means-spread"] == 30
    assert counts["flags"] > 120
    assert counts["empty"] == 0
