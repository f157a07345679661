"""LaTeX: what is marked, what is bold, and that it compiles and fits a page."""

import shutil
import subprocess
from pathlib import Path

import pytest
from test_table import DEMO, VTAB, done, records, vtab

from san.report import figure, render
from san.report.table import make_table
from san.tasks import Suite

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


def test_the_best_is_bold_the_second_underlined_and_rows_chosen_on_test_take_no_part() -> None:
    made = [
        done(n, method=m, task=t)
        for m, n in (("full", 800), ("ssf", 900), ("lora", 700))
        for t in DEMO.tasks
    ]
    chosen = [
        done(990, best=made[0].last, method="san", task=t, selected_on="test", protocol="best_test")
        for t in DEMO.tasks
    ]
    text = render.latex(make_table(DEMO, made + chosen))
    row = {line.split(" ")[0]: line for line in text.splitlines() if " & " in line}
    assert row["ssf"].count(r"\textbf{90.00}") == len(DEMO.tasks) + 5
    assert row["full"].count(r"\underline{80.00}") == len(DEMO.tasks) + 5
    assert "textbf" not in row["lora"] + row["san"]
    assert "underline" not in row["lora"] + row["san"]


def test_spread_is_an_index_and_marks_stay_beside_it() -> None:
    assert render.latex_cell("80.10 ± 0.12 (3)") == r"80.10$_{\pm0.12}^{3}$"
    assert render.latex_cell("80.10 ± 0.12 (3)†") == r"80.10$_{\pm0.12}^{3}$\textdagger{}"
    assert render.latex_cell("80.10 ± 0.12 (2) (failed)") == r"80.10$_{\pm0.12}^{2}$ (failed)"
    assert render.latex_cell("–") == "--"
    assert render.latex_cell("-3.10†") == r"$-$3.10\textdagger{}"
    assert render.escape_latex(r"a_b 5% x^2 ~\{}$ #&") == (
        r"a\_b 5\% x\textasciicircum{}2 \textasciitilde{}\textbackslash{}\{\}\$ \#\&"
    )


def test_where_one_file_cannot_be_written_all_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render.write_table(make_table(DEMO, records()), tmp_path, "demo")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write_text = Path.write_text

    def full(path: Path, text: str) -> int:
        if path.name.endswith("demo.md"):
            raise OSError(28, "No space left on device")
        return write_text(path, text)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        render.write_table(make_table(DEMO, records()[:3]), tmp_path, "demo")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_figure_has_ours_and_the_published(tmp_path: Path) -> None:
    table = make_table(VTAB, vtab())
    assert set(figure.points(table.ours)) == {"ssf", "lora‖"}
    assert figure.points(table.ours)["ssf"] == (100.0, pytest.approx(74.6))
    assert figure.points(table.cited)["LoRA†◦"] == (
        pytest.approx(0.29e6),
        pytest.approx(72.25, abs=0.005),
    )
    assert "SSF†" not in figure.points(table.cited)  # its printed parameters count the head
    paths = figure.draw_figure(table, tmp_path, "vtab")
    assert [p.name for p in paths] == ["vtab.pdf", "vtab.png"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert figure.draw_figure(make_table(DEMO, []), tmp_path, "demo") == []


@pytest.mark.latex
@pytest.mark.parametrize(("suite", "given"), [(DEMO, records), (VTAB, vtab)], ids=["demo", "vtab"])
def test_it_compiles_without_a_warning_and_fits_a_page(
    suite: Suite, given: object, tmp_path: Path
) -> None:
    if shutil.which("pdflatex") is None:
        pytest.fail("no LaTeX: apt-get install texlive-latex-extra poppler-utils")
    render.write_table(make_table(suite, given()), tmp_path, suite.name)
    (tmp_path / "page.tex").write_text(PAGE.replace("NAME", suite.name))
    made = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "page"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout[-2000:]
    assert "Overfull" not in made.stdout
    assert "too large" not in made.stdout
    assert "(1 page" in made.stdout
    subprocess.run(["pdftoppm", "-r", "110", "-png", "page.pdf", "page"], cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("page*.png"))) == 1
