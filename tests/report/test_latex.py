"""LaTeX: what is bold, and that it compiles and fits a page."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import DEMO, VTAB, demo_records, done, run, vtab_records

from san.record import Record
from san.report.latex import escape_latex, latex
from san.report.render import write_table
from san.report.table import Table, make_table
from san.score import Score
from san.tasks import Suite, load_suite

PAGE = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=1cm]{geometry}
\usepackage{booktabs,graphicx,textcomp}
\pagestyle{empty}
\begin{document}
\begin{table*}[p]\caption{What was run and what is published.}
\input{NAME.tex}
\end{table*}
\end{document}
"""


def lines_by_row(table: Table) -> dict[str, str]:
    """The lines of the table by the first word of the row's name."""
    lines = [line for line in latex(table).splitlines() if " & " in line]
    return {line.split(" ")[0]: line for line in lines}


def test_the_best_is_bold_the_second_underlined_and_rows_chosen_on_test_take_no_part() -> None:
    runs = []
    for task in DEMO.tasks:
        for method, correct in (("full", 800), ("ssf", 900), ("lora", 700)):
            runs.append(done(correct, method=method, task=task))
        best = {"best": Score(4, 910, 1000), "selected_on": "test", "protocol": "best_test"}
        runs.append(done(990, method="san", task=task, **best))
    lines = lines_by_row(make_table(DEMO, runs))
    columns = len(DEMO.tasks) + 5
    assert lines["ssf"].count(r"\textbf{90.00}") == columns
    assert lines["full"].count(r"\underline{80.00}") == columns
    assert lines["san"].count(r"91.00\textdagger{}") == columns
    for method in ("lora", "san"):
        assert "textbf" not in lines[method]
        assert "underline" not in lines[method]


def test_values_that_are_printed_alike_are_equally_good() -> None:
    suite = load_suite("demo")
    scores = {"full": (80001, 100000), "ssf": (80003, 100000), "lora": (7, 10)}
    runs = []
    for method, (correct, total) in scores.items():
        runs.append(run(method=method, task="digits", last=Score(5, correct, total)))
    lines = lines_by_row(make_table(suite, runs))
    assert r"\textbf{80.00}" in lines["full"]
    assert r"\textbf{80.00}" in lines["ssf"]
    assert r"\underline{70.00}" in lines["lora"]


def test_cells_that_lack_a_seed_take_no_part() -> None:
    lines = lines_by_row(make_table(DEMO, demo_records()))
    assert " & 71.00 (failed) & " in lines["ssf"]
    assert r"\underline{70.00}" in lines["ssf"]


def test_of_the_corruption_error_the_lowest_is_best() -> None:
    suite = load_suite("robustness")
    facts = {"suite": "robustness", "backbone": suite.backbone}
    runs = []
    for task in suite.tasks.values():
        if task.alexnet_error:
            runs.append(done(1000, method="san", task=task.name, **facts))
            runs.append(done(0, method="linear", task=task.name, **facts))
    assert len(runs) == 30
    lines = lines_by_row(make_table(suite, runs))
    assert r"\textbf{0.00}" in lines["san"]
    assert r"\underline{" in lines["linear"].split("&")[-4]


def test_characters_that_latex_would_misread_are_escaped() -> None:
    assert escape_latex(r"a_b 5% x^2 ~\{}$ #&") == (
        r"a\_b 5\% x\textasciicircum{}2 \textasciitilde{}\textbackslash{}\{\}\$ \#\&"
    )


@pytest.mark.latex
@pytest.mark.parametrize(
    ("suite", "records"), [(DEMO, demo_records), (VTAB, vtab_records)], ids=["demo", "vtab"]
)
def test_it_compiles_without_a_warning_and_fits_a_page(
    suite: Suite, records: Callable[[], list[Record]], tmp_path: Path
) -> None:
    if shutil.which("pdflatex") is None:
        pytest.fail("no LaTeX: apt-get install texlive-latex-extra poppler-utils")
    write_table(make_table(suite, records()), tmp_path, suite.name)
    (tmp_path / "page.tex").write_text(PAGE.replace("NAME", suite.name))
    command = ["pdflatex", "-interaction=nonstopmode", "page"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:]
    assert "Overfull" not in made.stdout
    assert "too large" not in made.stdout
    assert "(1 page" in made.stdout
    subprocess.run(["pdftoppm", "-r", "110", "-png", "page.pdf", "page"], cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("page*.png"))) == 1
