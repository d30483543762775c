"""The benchmark: complete rows, a run that continues after any cut, no mixed results, tables with the right numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uhrct import io
from uhrct.benchmark import runner
from uhrct.benchmark.config import BenchmarkConfig, Method, load_benchmark
from uhrct.benchmark.report import write_report
from uhrct.benchmark.results import Results, column, read_results
from uhrct.benchmark.runner import Benchmark
from uhrct.benchmark.tables import tables
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.measures import MEASURES
from uhrct.evaluation.protocol import score
from uhrct.evaluation.slab import SLAB_MEASURES
from uhrct.evaluation.statistics import holm, paired_test
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample

CASE = "test/a.nii.gz"
CONFIG = """
data: {root}
out: {root}/results.jsonl
cases: [test/a.nii.gz]
protocols: {{x2: [1, 2, 2]}}
degradations: [scanner]
slices: 3
against: bicubic
metrics: [psnr_wide, rmse_hu, cldice_25]
methods:
  bicubic: {{kind: bicubic}}
  projected: {{kind: projection}}
  learned: {{weights: "{root}/learned-{{protocol}}", slices: 1}}
"""


def save_model(folder: Path, seed: int, scale: tuple[int, int, int] = (1, 2, 2)) -> None:
    torch.manual_seed(seed)
    size = {"image_width": 8, "image_blocks": 1, "structure_width": 0, "structure_blocks": 0}
    Model(ModelConfig(scale=scale, mean=size)).save_pretrained(folder)


def run(place: Path, **settings: Any) -> Results:
    return Benchmark(load_benchmark(place / "config.yaml"), **{"quiet": True, **settings}).run()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark: three slices without lung, two interpolations, and weights on one slice."""
    root = tmp_path_factory.mktemp("benchmark")
    hu = np.rint(np.cumsum(np.random.default_rng(0).normal(0, 40, (3, 48, 40)), 2)).clip(-200, 500).astype(np.int16)
    (root / "test").mkdir()
    io.write(Volume(hu, (2.5, 0.7, 0.7)), root / CASE)
    save_model(root / "learned-x2", 0)
    (root / "config.yaml").write_text(CONFIG.format(root=root))
    run(root)
    return root


@pytest.fixture
def place(measured: Path, tmp_path: Path) -> Path:
    """A copy of the finished benchmark, to change."""
    root = tmp_path / "copy"
    shutil.copytree(measured, root)
    (root / "config.yaml").write_text(CONFIG.format(root=root))
    return root


def change(place: Path, old: str, new: str) -> None:
    text = (place / "config.yaml").read_text()
    assert old in text
    (place / "config.yaml").write_text(text.replace(old, new, 1))


def test_every_method_slice_and_metric(measured: Path) -> None:
    rows = read_results(measured / "results.jsonl").of("x2", "scanner", CASE)
    assert {name: list(own) for name, own in rows.items()} == {
        "bicubic": [0, 1, 2],
        "projected": [0, 1, 2],
        "learned": [1],
    }
    for own in rows.values():
        for row in own.values():
            assert row["values"].keys() == MEASURES.keys()
            assert row["undefined"]["cldice_25"] == "no lung in the reference"
            assert row["seconds"] >= 0
    assert column(rows["projected"], "consistency_hu").max() < 0.01 < column(rows["bicubic"], "consistency_hu").min()
    volume = io.read(measured / CASE)
    hr = torch.from_numpy(volume.hu[1]).float()
    sr = upsample(Acquisition((1, 2, 2)).forward(hr), 2, 2)
    for name, value in score(hr.numpy(), sr.numpy(), volume.spacing_mm[1:]).items():
        assert rows["bicubic"][1]["values"][name] == pytest.approx(value, rel=1e-5)


def test_the_file_says_how_it_was_made(measured: Path) -> None:
    record = read_results(measured / "results.jsonl").runs[-1]
    assert {"commit", "device", "constants", "torch", "cases", "time"} <= record.keys()
    learned = record["methods"][2]
    model = Model.from_pretrained(measured / "learned-x2")
    assert learned["weights_sha256"] == model.weights_sha256
    assert (learned["parameters"], learned["passes"]) == (sum(p.numel() for p in model.mean.parameters()), 1)


def test_neighbouring_slices_are_judged_as_a_volume(place: Path) -> None:
    change(place, "slices: 3\n", "slices: 3\nvolume_slices: 2\n")
    results = run(place)
    volumes = results.volumes_of("x2", "scanner", CASE)
    assert volumes.keys() == {"bicubic", "projected"}  # not methods with `slices` of their own
    for row in volumes.values():
        assert row["slab"] == (0, 2)
        assert row["values"].keys() == SLAB_MEASURES.keys()
    assert len(results.rows) == 7
    *_, table, cost = tables(results, load_benchmark(place / "config.yaml"))
    assert table.title.endswith("as a volume")
    assert [cells[:2] for cells in table.cells[1:]] == [["bicubic", "0 to 1"], ["projected", "0 to 1"]]
    assert cost.title == "Cost"
    assert len(run(place).slabs) == 2  # nothing is measured twice


def test_through_plane(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bicubic and projection work along z. Other methods and a second degradation are left out with a note."""
    (place / "results.jsonl").unlink()
    change(place, "{x2: [1, 2, 2]}", "{3x1x1: [3, 1, 1]}")
    change(place, "[scanner]", "[scanner, bicubic]")
    change(place, "learned-{protocol}", "learned-x2")
    change(place, "methods:\n", "methods:\n  Lanczos: {kind: lanczos}\n")
    results = run(place, quiet=False)
    said = capsys.readouterr().err
    assert "Lanczos left out of 3x1x1: Lanczos works in plane" in said
    assert "learned left out of 3x1x1: " in said
    assert results.places() == [("3x1x1", "scanner", CASE)]
    rows = results.of("3x1x1", "scanner", CASE)
    assert {name: list(own) for name, own in rows.items()} == {"bicubic": [0, 1, 2], "projected": [0, 1, 2]}
    assert column(rows["projected"], "consistency_hu").max() < 0.01


@pytest.mark.parametrize("cut", [1, 40])
def test_a_run_continues_after_a_cut_in_the_middle_of_a_line(
    place: Path, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "results.jsonl"
    whole, lines = read_results(file), file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:-cut])
    before = read_results(file)
    assert (len(before.rows), before.broken) == (3, len(lines[4]) - cut)
    again = run(place, quiet=False)
    assert "cut off" in capsys.readouterr().err
    assert again.broken == 0
    assert file.read_bytes().startswith(b"".join(lines[:4]))
    key = lambda r: (r["method"], r["slice"])  # noqa: E731
    for a, b in zip(sorted(whole.rows, key=key), sorted(again.rows, key=key), strict=True):
        assert a["values"] == b["values"]


def test_a_finished_benchmark_measures_nothing(place: Path) -> None:
    before = read_results(place / "results.jsonl").rows
    assert run(place).rows == before


def test_new_weights_are_measured_again_and_not_mixed(place: Path) -> None:
    old = read_results(place / "results.jsonl").of("x2", "scanner", CASE)["learned"][1]
    shutil.rmtree(place / "learned-x2")
    save_model(place / "learned-x2", 1)
    results = run(place)
    assert len(results.rows) == 8
    assert results.of("x2", "scanner", CASE)["learned"][1]["identity"] != old["identity"]


def test_a_line_that_is_no_result_is_named(place: Path) -> None:
    file = place / "results.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "{'no': json}", *lines[1:]]) + "\n")
    with pytest.raises(UhrctError, match=r"results\.jsonl: line 2 "):
        run(place)


def test_other_constants_are_not_mixed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "constants", lambda: {"windows_hu": "others"})
    with pytest.raises(UhrctError, match="other constants"):
        run(place)


def test_a_newer_metric_leaves_old_rows_valid(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, known = read_results(place / "results.jsonl").rows, runner.constants()
    monkeypatch.setattr(runner, "constants", lambda: known | {"newer": {"least": 1}})
    assert run(place).rows == before


def test_methods_without_weights_are_left_out_with_a_note(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(place, "learned-{protocol}", "nowhere")
    change(place, "learned:", "new:")
    results = run(place, quiet=False)
    assert "note: new left out of x2" in capsys.readouterr().err
    assert set(results.of("x2", "scanner", CASE)) == {"bicubic", "projected"}


def test_results_outlive_their_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_results(place / "results.jsonl")
    (place / "learned-x2").rename(place / "elsewhere")
    results = run(place, quiet=False)
    assert "note: learned, x2: no weights" in capsys.readouterr().err
    assert results.rows == before.rows
    assert results.runs[-1]["methods"] == before.runs[-1]["methods"]  # in the order of the configuration
    assert set(run(place).of("x2", "scanner", CASE)) == {"bicubic", "projected", "learned"}  # and once more


@pytest.mark.parametrize("changed", ["settings", "case", "weights of another scale"])
def test_results_of_something_else_do_not_stay(place: Path, changed: str) -> None:
    (place / "learned-x2").rename(place / "elsewhere")
    if changed == "settings":
        change(place, "slices: 1}", "slices: 1, seed: 7}")
    elif changed == "case":
        volume = io.read(place / CASE)
        io.write(volume.on_grid(volume.grid, volume.hu + 1), place / CASE, overwrite=True)
    else:
        save_model(place / "learned-x2", 0, (1, 4, 4))
    assert {m["name"] for m in run(place).runs[-1]["methods"]} == {"bicubic", "projected"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: bicubic", "kind: cubic", "'bicubic': give weights, or kind"),
        ("kind: bicubic", "kindd: bicubic", "kindd"),
        ("slices: 3", "slice: 3", "unknown setting 'slice'"),
        ("slices: 3", "slices: 0", "slices: 0 is no whole number from 1"),
        ("slices: 3", "volume_slices: many", "volume_slices: 'many'"),
        ("[scanner]", "[blur]", "degradations: 'blur'"),
        ("rmse_hu", "rmse", "metrics: 'rmse'"),
        ("against: bicubic", "against: ours", "against: 'ours'"),
        ("cases: [test/a.nii.gz]", "cases: [test/b]", "test/b: no such case"),
        ("methods:", "methods: [", "not valid YAML"),
        ("[test/a.nii.gz]", "[]", "cases: give a list"),
        ("[test/a.nii.gz]", "test/a.nii.gz", "cases: give a list"),
        ("metrics: [psnr_wide, rmse_hu, cldice_25]", "metrics: psnr_wide", "metrics: give a list"),
        ("[1, 2, 2]", "[0, 2, 2]", "protocols.x2"),
        ("[1, 2, 2]", "[1, 2.9, 2.9]", "protocols.x2"),
        ("slices: 1}", "slices: two}", "'learned': slices is 'two'"),
        ("slices: 1}", "steps: 0}", "'learned': steps is 0"),
        ("kind: projection", "kind: bicubic", "'bicubic' and 'projected' are the same in x2"),
    ],
)
def test_wrong_configurations_are_refused(place: Path, old: str, new: str, message: str) -> None:
    change(place, old, new)
    with pytest.raises(UhrctError, match=message):
        run(place)


def made_up(place: Path, values: dict[str, list[float | None]]) -> tuple[Results, BenchmarkConfig]:
    """A result file with these PSNRs."""
    methods = tuple(Method(name, kind="bicubic", seed=k) for k, name in enumerate(values))
    config = BenchmarkConfig(methods, place / "made-up.jsonl", against=next(iter(values)), metrics=("psnr_wide",))
    names = [{"name": m.name, "identity": m.identity(""), "protocol": "x2"} for m in methods]
    lines: list[dict[str, Any]] = [{"run": {"methods": names, "commit": "c", "device": "d", "time": "t"}}]
    for m in methods:
        for z, v in enumerate(values[m.name]):
            where = {"protocol": "x2", "degradation": "scanner", "case": CASE, "slice": z, "identity": m.identity("")}
            lines.append({"method": m.name, **where, "seconds": 1.0, "cpu_seconds": 0.5, "values": {"psnr_wide": v}})
    config.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_results(config.out), config


def test_numbers_of_the_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ours, b = rng.normal(40, 1, 12), rng.normal(39.9, 1, 12)
    values = {"ours": [*ours], "a": [*(ours - 1 - rng.random(12))], "b": [*b], "half": [None, *ours[1:]]}
    scores, tests, cost = tables(*made_up(tmp_path, values))
    row = {line[0]: line[1:] for line in scores.cells[1:]}
    assert row["ours"][1].startswith(f"**{ours.mean():.2f} [")
    assert row["half"][1].endswith("(11 slices)")
    assert row["a"][0] == "12"
    line = {cells[0]: cells[1] for cells in tests.cells[1:]}
    p = holm([paired_test(ours, values[n]) for n in ("a", "b")] + [1.0])
    assert line["a"].startswith(f"{np.mean(np.array(values['a']) - ours):+.2f} (p {p[0]:.2g}")
    assert "n.s." not in line["a"]
    assert line["b"].endswith("n.s.)")
    assert line["half"].startswith("+0.00 (p 1,")
    assert cost.cells[1][-2:] == ["1", "0.5"]


def test_the_best_mean_is_bold_and_undefined_is_a_word(tmp_path: Path) -> None:
    scores, *_ = tables(*made_up(tmp_path, {"a": [30.0, 31.0], "b": [32.0, 31.0], "few": [40.0]}))
    assert [cells[2].startswith("**") for cells in scores.cells[1:]] == [False, True, False]
    scores, tests, _ = tables(*made_up(tmp_path, {"a": [30.0, 31.0], "b": [None, None]}))
    assert scores.cells[2][2] == tests.cells[1][1] == "undefined"


def test_the_report_holds_everything(measured: Path, tmp_path: Path) -> None:
    config = load_benchmark(measured / "config.yaml")
    folder = write_report(config, tmp_path / "report", quiet=True)
    assert "| projected | 3 | " in (folder / "tables.md").read_text()
    text = (folder / "report.html").read_text()
    drawn = {p.name for p in (folder / "figures").iterdir()}
    assert drawn == {f"x2-scanner-test-a.nii.gz-{kind}.png" for kind in ("boxes", "time", "vessels", "images-1")}
    assert text.count("data:image/png;base64,") == 4
    assert "http" not in text
    assert "<script" not in text
    assert "Research use only" in text
    assert "<td>projected</td>" in text
    psnr = tables(read_results(config.out), config)[0].cells[1][2]
    mean, interval = psnr.strip("*").split(" ", 1)
    assert f'{mean}<br><span class="small">{interval}</span>' in text


def test_a_report_needs_results(place: Path) -> None:
    (place / "results.jsonl").unlink()
    with pytest.raises(UhrctError, match="no results"):
        write_report(load_benchmark(place / "config.yaml"), place / "report")


def test_every_name_of_the_page_is_text(place: Path) -> None:
    change(place, "  bicubic:", '  "<b>bicubic</b> & more":')
    change(place, "against: bicubic", "against: projected")
    run(place)
    text = (
        write_report(load_benchmark(place / "config.yaml"), place / "report", quiet=True) / "report.html"
    ).read_text()
    assert "&lt;b&gt;bicubic&lt;/b&gt; &amp; more" in text
    assert "<b>bicubic" not in text
