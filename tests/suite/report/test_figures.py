"""Figures and the page from records: all of them, without torch, with nothing from anywhere else."""

import base64
import json
import re
import resource
import shutil
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from lumos.suite.cli import main
from lumos.suite.paths import PROJECT
from lumos.suite.report import build, page, paper_figures, style
from lumos.suite.report.paper_figures import draw_all
from lumos.suite.report.table import Cell, Table
from tests.records import entry, full, put

FIGURES = {"averages", "fig9a_speedup", "fig9b_score", "fig9c_parameters", "fig9d_macs", "fig11a_energy",
           "fig11b_memory", "pareto", "widths", "fig10_features", "fig12_scaling", "fig13_convergence"}  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build.evaluation([full(tmp_path_factory.mktemp("results"))])


@pytest.fixture(scope="module")
def made_page(data, tmp_path_factory):
    """Drawing takes most of the time, so that all figures are drawn once."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    build.write_page(data, path)
    return path


@pytest.mark.slow
def test_every_figure_is_drawn(made_page):
    image = r'<figure id="figure-(\w+)"[^>]*>\s*<img src="data:image/svg\+xml;base64,([^"]+)"'
    figures = dict(re.findall(image, made_page.read_text()))
    assert set(figures) == FIGURES | {"sweep_lambda", "sweep_t_l_t_u"}
    for name, data in figures.items():
        svg = base64.b64decode(data).decode()
        assert svg.count("<path") > 20, f"{name} is empty"
        width = re.search(r'<svg [^>]*width="([\d.]+)pt"', svg)
        assert width is not None
        assert float(width[1]) <= 72 * 7.16 + 1, f"{name} is wider than two columns"


def test_a_single_old_record_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("lumos.suite.report.paper_figures.save", lambda *_: [])
    put(tmp_path, entry("cfd", old=True), curve=False, features=False)
    titles = draw_all(build.evaluation([tmp_path]), tmp_path / "out")
    assert set(titles) == FIGURES - {"fig10_features", "fig11a_energy", "fig12_scaling", "fig13_convergence", "pareto"}


def test_the_same_records_give_the_same_files(tmp_path):
    put(tmp_path, entry("cfd"), curve=False, features=False)
    for out in ("one", "two"):
        with style.drawing():
            style.save(paper_figures.parameters(build.evaluation([tmp_path])), tmp_path / out, "f", ("pdf", "svg"))
    for kind in ("pdf", "svg"):
        assert (tmp_path / "one" / f"f.{kind}").read_bytes() == (tmp_path / "two" / f"f.{kind}").read_bytes()


def test_neither_tables_nor_figures_need_torch():
    code = "import sys; sys.modules['torch'] = None; from lumos.suite.report import build, compare, paper_figures, page"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@pytest.mark.slow
def test_the_command_says_what_it_could_not_draw(tmp_path, monkeypatch, capsys):
    some = {name: paper_figures.FIGURES[name] for name in ("fig9c_parameters", "fig11a_energy")}
    monkeypatch.setattr(paper_figures, "FIGURES", some)
    put(tmp_path, entry("cfd"))
    main(["figures", "--results", str(tmp_path), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "1 finished runs of 1 workloads; no record of fluid" in printed
    assert "fig11a_energy: no record has what it shows; its table has dashes" in printed
    assert (tmp_path / "out" / "fig9c_parameters.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "out" / "fig11a_energy.csv").exists()


@pytest.mark.slow
def test_the_page_stands_alone(made_page):
    text = made_page.read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text)
    assert "url(" not in text
    assert "import(" not in text


@pytest.mark.slow
def test_every_number_leads_to_a_record_and_its_command(made_page, data):
    text = made_page.read_text()
    targets = set(re.findall(r'href="#run-([0-9a-f]+)"', text))
    anchors = set(re.findall(r'id="run-([0-9a-f]+)"', text))
    assert targets
    assert targets <= anchors
    assert anchors == {r["run_id"] for r in data.results.records}
    assert "python run.py workload=cfd seed=0" in text
    assert "out of &lt;memory&gt; &amp; time" in text
    assert '<td class="number" data-value="71.45">71.45%</td>' in text


def test_the_page_escapes_all_and_links_to_the_records_it_has(tmp_path):
    put(tmp_path, entry("cfd", run_id="abc"), curve=False, features=False)
    cells = (Cell("<1>", 1.0, ("abc", "abd")), Cell("&", '"x"', ("abd",)), Cell("–"))
    table = Table("t", "A & <b>", ("x", "<y>", "z"), (cells,), "a 'note'")
    page.write(tmp_path / "page.html", build.evaluation([tmp_path]), [table], {})
    text = (tmp_path / "page.html").read_text()
    assert "<h2>A &amp; &lt;b&gt;</h2>" in text
    assert '<td class="word" data-value="1.0"><a href="#run-abc" title="run abc">&lt;1&gt;</a></td>' in text
    assert '<td class="number" data-value="&#34;x&#34;">&amp;</td>' in text
    assert '<td class="number" data-value="">–</td>' in text


def dump(page, view, tmp_path):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", f"file://{page}#{view}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_a_figure_on_a_full_disk_ends_in_what_the_disk_says(kind, tmp_path):
    with style.drawing():
        figure = Figure(layout="none")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                style.save(figure, tmp_path, "a", [kind])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


HOSTILE = '"><script>document.title="pwned"</script><img src=x onerror="document.title=1"> \' {{ 7 * 7 }}'


def hostile(value):
    """The same record with markup in every text, keys left out; what names folders cannot hold any."""
    if isinstance(value, dict):
        return {key: inner if key in KEPT else hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return value + HOSTILE if isinstance(value, str) else value


KEPT = {"run_id", "workload", "status", "started_utc", "sha256", "scale", "method"}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: the page is not opened")
def test_no_text_of_a_record_runs_in_a_browser(tmp_path):
    folder = put(tmp_path, entry("cfd", run_id="abc"), curve=False, features=False)
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(hostile(record)))
    cells = (Cell(HOSTILE, HOSTILE, ("abc",)),)
    page.write(
        tmp_path / "page.html", build.evaluation([tmp_path]), [Table("t", HOSTILE, (HOSTILE,), (cells,), "")], {}
    )
    seen = dump(tmp_path / "page.html", "", tmp_path)
    assert seen.count("document.title=") > 20  # as text
    assert "<title>LUMOS: report</title>" in seen
    assert "{{ 7 * 7 }}" in seen
    (tmp_path / "bare.html").write_text(
        (tmp_path / "page.html").read_text().replace("</main>", f"<p>{HOSTILE}</p></main>")
    )
    held = dump(tmp_path / "bare.html", "", tmp_path)  # nothing runs, were a text not escaped
    assert "<title>LUMOS: report</title>" in held


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: the page's script is not run")
def test_the_page_sorts_and_filters_in_a_browser(made_page, tmp_path):
    seen = dump(made_page, "sort=fig9c_parameters:4:ascending&filter=cfd", tmp_path)
    table = re.search(r'data-name="fig9c_parameters">.*?</table>', seen, re.S)
    assert table is not None
    body = table[0].split("<tbody>")[1].split("</tbody>")[0]
    rows = re.findall(r"<tr( hidden=\"\")?>(.*?)</tr>", body, re.S)
    values = [re.findall(r'data-value="([^"]*)"', row)[4] for _, row in rows]
    numbers = [float(v) for v in values if v]
    assert len(numbers) == 13
    assert numbers == sorted(numbers)
    assert 'aria-sort="ascending"' in table[0]
    shown = [row for hidden, row in rows if not hidden]
    assert len(shown) == 1
    assert ">CFD<" in shown[0]
    run = re.search(r'href="#run-([0-9a-f]+)"', shown[0])
    assert run is not None
    opened = dump(made_page, f"run-{run[1]}", tmp_path)
    assert re.search(rf'<details id="run-{run[1]}"[^>]* open=""', opened)
