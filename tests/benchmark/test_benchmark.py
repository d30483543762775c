"""The benchmark: complete rows, resumed after any cut, nothing mixed, tables whose numbers can be recomputed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uhrct import io
from uhrct.benchmark import runner as benchmark_module
from uhrct.benchmark.complexity import complexity
from uhrct.benchmark.config import BenchmarkConfig, Method, load_benchmark
from uhrct.benchmark.figures import _apart
from uhrct.benchmark.methods import prepare
from uhrct.benchmark.peers.model import PeerConfig, PeerModel
from uhrct.benchmark.report import write_report
from uhrct.benchmark.results import column, read_results
from uhrct.benchmark.runner import Benchmark
from uhrct.benchmark.tables import tables
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.measures import MEASURES
from uhrct.evaluation.protocol import CONTEXT, evenly_spaced, score
from uhrct.evaluation.slab import SLAB_MEASURES
from uhrct.evaluation.statistics import holm, paired_test
from uhrct.models.model import Model
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample

CONFIG = """
data: {root}
out: {root}/results.jsonl
cases: [test/a]
protocols: {{x2: [1, 2, 2]}}
degradations: [scanner]
slices: 3
against: bicubic
metrics: [psnr_wide, rmse_hu, cldice_25]
methods:
  bicubic: {{kind: bicubic}}
  projected: {{kind: projection}}
  peer: {{weights: "{root}/peer-{{protocol}}", slices: 1}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: Any) -> Path:
    """A case of three slices, a peer's weights, a configuration; the costly vessel metrics stay undefined."""
    rng = np.random.default_rng(0)
    hu = np.rint(np.cumsum(rng.normal(0, 40, (3, 48, 40)), 2) - 300).clip(-1000, 500).astype(np.int16)
    (tmp_path / "test").mkdir()
    io.write(Volume(hu, (2.5, 0.7, 0.7)), tmp_path / "test" / "a.npz")
    (tmp_path / "test" / "a.npz").rename(tmp_path / "test" / "a")
    monkeypatch.setattr(benchmark_module.io, "read", lambda path: Volume(hu, (2.5, 0.7, 0.7)))
    monkeypatch.setattr(benchmark_module, "lung_mask", lambda hu, *_, **__: np.zeros(hu.shape, bool))
    torch.manual_seed(0)
    PeerModel(PeerConfig(peer={"architecture": "srcnn", "middle": 1})).save_pretrained(tmp_path / "peer-x2")
    (tmp_path / "config.yaml").write_text(CONFIG.format(root=tmp_path))
    return tmp_path


def run(place: Path) -> Any:
    return Benchmark(load_benchmark(place / "config.yaml"), quiet=True).run()


def test_every_method_slice_and_metric(place: Path) -> None:
    results = run(place)
    rows = results.of("x2", "scanner", "test/a")
    assert {name: list(own) for name, own in rows.items()} == {
        "bicubic": [0, 1, 2],
        "projected": [0, 1, 2],
        "peer": [1],
    }
    for own in rows.values():
        for row in own.values():
            assert row["values"].keys() == MEASURES.keys()
            assert row["undefined"]["cldice_25"] == "no lung in the reference"
            assert row["seconds"] >= 0
    assert column(rows["projected"], "consistency_hu").max() < 0.01 < column(rows["bicubic"], "consistency_hu").min()


def test_values_are_those_of_the_protocol(place: Path) -> None:
    row = run(place).of("x2", "scanner", "test/a")["bicubic"][1]
    hr = torch.from_numpy(benchmark_module.io.read(Path()).hu[1]).float()
    sr = upsample(Acquisition((1, 2, 2)).forward(hr), 2, 2)
    for name, value in score(hr.numpy(), sr.numpy(), (0.7, 0.7)).items():
        assert row["values"][name] == pytest.approx(value, rel=1e-5)


def test_what_the_file_says_of_itself(place: Path) -> None:
    record = run(place).runs[-1]
    assert {"commit", "device", "constants", "torch", "cases", "time"} <= record.keys()
    peer = record["methods"][2]
    assert peer["weights_sha256"] == PeerModel.from_pretrained(place / "peer-x2").weights_sha256
    assert (peer["parameters"], peer["passes"], peer["seed"]) == (8_129, 1, 0)


def with_volume(place: Path, slices: object = 2) -> None:
    text = (place / "config.yaml").read_text()
    (place / "config.yaml").write_text(text.replace("slices: 3\n", f"slices: 3\nvolume_slices: {slices}\n", 1))


def test_neighbouring_slices_are_judged_as_a_volume(place: Path, monkeypatch: Any) -> None:
    with_volume(place)
    results = run(place)
    volumes = results.volumes_of("x2", "scanner", "test/a")
    assert volumes.keys() == {"bicubic", "projected"}  # the peer is on fewer slices: too slow for volumes
    for row in volumes.values():
        assert row["slab"] == (0, 2)
        assert row["values"].keys() == SLAB_MEASURES.keys()
    assert len(results.rows) == 7
    *_, table, cost = tables(results, load_benchmark(place / "config.yaml"))
    assert table.title.endswith("as a volume")
    assert [cells[:2] for cells in table.cells[1:]] == [["bicubic", "0 to 1"], ["projected", "0 to 1"]]
    assert cost.title == "Cost"
    monkeypatch.setattr(Benchmark, "_measure_slab", lambda *_: pytest.fail("measured twice"))
    assert len(run(place).slabs) == 2


@pytest.mark.parametrize("scale", [(1, 2, 2), (3, 1, 1)])
def test_slices_of_a_slab_are_restored_as_each_alone(tiny_model: Model, tmp_path: Path, scale: Any) -> None:
    lr, spacing = 50 * torch.randn(3 + 2 * CONTEXT, 12, 10, generator=torch.Generator().manual_seed(0)), (1.0, 1.0, 1.0)
    torch.manual_seed(0)
    PeerModel(PeerConfig(peer={"architecture": "srcnn", "middle": 1})).save_pretrained(tmp_path / "peer")
    tiny_model.save_pretrained(tmp_path / "ours")
    methods = [Method("bicubic", kind="bicubic"), Method("projection", kind="projection")]
    if scale == (1, 2, 2):
        learned = [Method(name, weights=str(tmp_path / name)) for name in ("peer", "ours")]
        methods += [Method("Lanczos", kind="lanczos"), *learned]
    for method in methods:
        restore = prepare(method, "", scale, torch.device("cpu"), (12, 10)).restore(Acquisition(scale))
        slab = restore(lr, spacing)
        assert slab.shape == (3 * scale[0], 12 * scale[1], 10 * scale[2]), method.name
        alone = torch.cat([restore(lr[k : k + 1 + 2 * CONTEXT], spacing) for k in range(3)])
        assert torch.allclose(slab, alone, atol=0.5), method.name
        assert not torch.allclose(slab[:-1], slab[1:], atol=5.0), method.name
        if scale[0] == 1:  # in plane none of these looks at neighbours
            elsewhere = lr.clone()
            elsewhere[:CONTEXT] += 100
            elsewhere[-CONTEXT:] += 100
            assert torch.allclose(restore(elsewhere, spacing), slab, atol=0.5), method.name


def test_through_plane(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bicubic and projection along z; Lanczos and peers are left out with a word, and so is a second degradation."""
    text = (place / "config.yaml").read_text().replace("{x2: [1, 2, 2]}", "{3x1x1: [3, 1, 1]}")
    text = text.replace("[scanner]", "[scanner, bicubic]").replace("peer-{protocol}", "peer-x2")
    (place / "config.yaml").write_text(text + "  Lanczos: {kind: lanczos}\n")
    results = Benchmark(load_benchmark(place / "config.yaml")).run()
    said = capsys.readouterr().err
    assert "Lanczos left out of 3x1x1: Lanczos works in plane" in said
    assert "peer left out of 3x1x1: " in said
    assert results.places() == [("3x1x1", "scanner", "test/a")]
    rows = results.of("3x1x1", "scanner", "test/a")
    assert {name: list(own) for name, own in rows.items()} == {"bicubic": [0, 1, 2], "projected": [0, 1, 2]}
    assert column(rows["projected"], "consistency_hu").max() < 0.01


@pytest.mark.parametrize("cut", [1, 40])
def test_cut_off_in_mid_line_and_gone_on(place: Path, cut: int, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run(place)
    file = whole.path
    blob = file.read_bytes()
    lines = blob.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:-cut])
    before = read_results(file)
    assert len(before.rows) == 3
    assert before.broken == len(lines[4]) - cut
    again = Benchmark(load_benchmark(place / "config.yaml")).run()
    assert "cut off" in capsys.readouterr().err
    assert again.broken == 0
    assert file.read_bytes().startswith(b"".join(lines[:4]))
    assert len(again.rows) == len(whole.rows)
    key = lambda r: (r["method"], r["slice"])  # noqa: E731
    for a, b in zip(sorted(whole.rows, key=key), sorted(again.rows, key=key), strict=True):
        assert a["values"] == b["values"]


def test_finished_means_finished(place: Path, monkeypatch: Any) -> None:
    run(place)
    monkeypatch.setattr(Benchmark, "_measure", lambda *_: pytest.fail("measured twice"))
    assert len(run(place).rows) == 7


def test_new_weights_are_measured_again_and_not_mixed(place: Path) -> None:
    old = run(place).of("x2", "scanner", "test/a")["peer"][1]
    torch.manual_seed(1)
    PeerModel(PeerConfig(peer={"architecture": "srcnn", "middle": 1})).save_pretrained(place / "peer-x2")
    results = run(place)
    assert len(results.rows) == 8
    assert results.of("x2", "scanner", "test/a")["peer"][1]["values"]["rmse_hu"] != old["values"]["rmse_hu"]


def test_a_line_that_is_no_result_is_named(place: Path) -> None:
    results = run(place)
    lines = results.path.read_text().splitlines()
    results.path.write_text("\n".join([lines[0], "{'no': json}", *lines[1:]]) + "\n")
    with pytest.raises(UhrctError, match=r"results\.jsonl: line 2 "):
        run(place)


def test_other_constants_are_not_mixed(place: Path, monkeypatch: Any) -> None:
    run(place)
    monkeypatch.setattr(benchmark_module, "constants", lambda: {"windows_hu": "others"})
    with pytest.raises(UhrctError, match="other constants"):
        run(place)


def test_methods_without_weights_are_left_out_with_a_word(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (place / "config.yaml").read_text().replace("peer-{protocol}", "nowhere")
    (place / "config.yaml").write_text(text)
    results = Benchmark(load_benchmark(place / "config.yaml")).run()
    assert "note: peer left out of x2" in capsys.readouterr().err
    assert set(results.of("x2", "scanner", "test/a")) == {"bicubic", "projected"}


def test_what_was_measured_outlives_its_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run(place)
    (place / "peer-x2").rename(place / "elsewhere")
    results = Benchmark(load_benchmark(place / "config.yaml")).run()
    assert "peer, x2: no weights here; what was measured with them stays" in capsys.readouterr().err
    assert len(results.rows) == len(before.rows)
    assert results.runs[-1]["methods"] == before.runs[-1]["methods"]  # in the configuration's order
    assert set(run(place).of("x2", "scanner", "test/a")) == {"bicubic", "projected", "peer"}  # once more


@pytest.mark.parametrize("changed", ["settings", "case", "weights of another scale"])
def test_what_was_measured_otherwise_does_not_stay(place: Path, monkeypatch: Any, changed: str) -> None:
    run(place)
    (place / "peer-x2").rename(place / "elsewhere")
    if changed == "settings":
        text = (place / "config.yaml").read_text()
        (place / "config.yaml").write_text(text.replace("slices: 1}", "slices: 1, seed: 7}"))
    elif changed == "case":
        volume = benchmark_module.io.read(Path())
        monkeypatch.setattr(benchmark_module.io, "read", lambda path: Volume(volume.hu + 1, volume.spacing_mm))
    else:
        peer = {"architecture": "srcnn", "middle": 1}
        PeerModel(PeerConfig(scale=(1, 4, 4), peer=peer)).save_pretrained(place / "peer-x2")
    assert {m["name"] for m in run(place).runs[-1]["methods"]} == {"bicubic", "projected"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind: bicubic", "kind: cubic"), "'bicubic': give weights, or kind"),
        (("kind: bicubic", "kindd: bicubic"), "kindd"),
        (("slices: 3", "slice: 3"), "unknown setting 'slice'"),
        (("slices: 3", "slices: 0"), "slices: 0 is no whole number from 1"),
        (("slices: 3", "volume_slices: many"), "volume_slices: 'many'"),
        (("[scanner]", "[blur]"), "degradations: 'blur'"),
        (("rmse_hu", "rmse"), "metrics: 'rmse'"),
        (("against: bicubic", "against: ours"), "against: 'ours'"),
        (("cases: [test/a]", "cases: [test/b]"), "test/b: no such case"),
        (("methods:", "methods: ["), "not valid YAML"),
    ],
)
def test_senseless_configurations(place: Path, change: tuple[str, str], message: str) -> None:
    (place / "config.yaml").write_text((place / "config.yaml").read_text().replace(*change, 1))
    with pytest.raises(UhrctError, match=message):
        run(place)


def test_weights_of_another_scale_are_refused(place: Path) -> None:
    with pytest.raises(UhrctError, match="protocol x4"):
        prepare(Method("peer", weights=str(place / "peer-x2")), "x4", (1, 4, 4), torch.device("cpu"), (16, 16))


def test_samples_of_a_peer_follow_the_seed(tmp_path: Path) -> None:
    sizes = {"width": 8, "multipliers": [1, 2], "window": 4, "steps": 4, "attend_from": 1}
    PeerModel(PeerConfig(peer={"architecture": "resshift", **sizes})).save_pretrained(tmp_path)
    lr, spacing = torch.randn(5, 8, 8), (1.0, 1.0, 1.0)

    def sample(seed: int) -> torch.Tensor:
        method = Method("resshift", weights=str(tmp_path), seed=seed)
        ready = prepare(method, "x2", (1, 2, 2), torch.device("cpu"), (8, 8))
        assert ready.facts["passes"] == 4
        return ready.restore(Acquisition((1, 2, 2)))(lr, spacing)

    assert sample(0).shape == (1, 16, 16)
    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))


@pytest.mark.parametrize("most", [1, 2, 5, 23, None])
def test_slow_methods_have_their_picture_on_the_slice_of_all(most: int | None) -> None:
    for n in (24, 95, 275):
        chosen = evenly_spaced(n, 24)
        some = benchmark_module._some(chosen, most, n)
        assert len(set(some)) == len(some) == (most or 24)
        assert set(some) <= set(chosen)
        assert benchmark_module.picture_slice(chosen, n) in some


def test_no_name_of_a_figure_covers_another() -> None:
    heights = _apart([0.9, 0.9, 0.1, 0.91, 0.5], 0.05)
    assert np.diff(sorted(heights)).min() >= 0.05 - 1e-5
    assert heights[2] == 0.1
    assert heights[4] == 0.5
    assert heights[0] < heights[1] < heights[3]


# --- cost on paper


def test_multiply_adds_by_hand() -> None:
    """Two 3x3 convolutions of the head and tail, one group of one block: counted on paper."""
    peer = {"architecture": "rcan", "groups": 1, "blocks": 1, "width": 16}
    c = complexity(PeerModel(PeerConfig(peer=peer)), lr_shape=(32, 32))
    attention = 2 * 16 / 32**2  # once an image
    by_hand = 9 * 16 + 4 * 9 * 16 * 16 + 9 * 16 * 64 + 4 * 9 * 16 + attention
    assert c.macs_per_lr_px == pytest.approx(by_hand)


def test_a_sample_costs_its_passes(tiny_model: Model) -> None:
    mean, sample, more = (complexity(tiny_model, steps=s) for s in (1, 4, 8))
    assert (mean.passes, sample.passes, more.passes) == (1, 5, 9)
    assert more.macs_per_lr_px - sample.macs_per_lr_px == pytest.approx(sample.macs_per_lr_px - mean.macs_per_lr_px)
    assert mean.parameters == sum(p.numel() for p in tiny_model.mean.parameters())
    assert sample.parameters == more.parameters > mean.parameters


def test_only_the_generator_in_use_counts() -> None:
    model = PeerModel(PeerConfig(peer={"architecture": "gan-circle"}))
    wanted = sum(p.numel() for p in model.peer.generators["to_high"].parameters())
    assert complexity(model, lr_shape=(16, 16)).parameters == wanted


# --- tables


def made_up(place: Path, values: dict[str, list[float | None]]) -> tuple[Any, BenchmarkConfig]:
    """A result file with these PSNRs."""
    methods = tuple(Method(name, kind="bicubic", seed=k) for k, name in enumerate(values))
    config = BenchmarkConfig(methods, place / "made-up.jsonl", against=next(iter(values)), metrics=("psnr_wide",))
    told = [{"name": m.name, "identity": m.identity(""), "protocol": "x2"} for m in methods]
    run = {"methods": told, "commit": "c", "device": "d", "time": "t", "constants": {}}
    lines = [{"run": run}]
    for m in methods:
        for z, v in enumerate(values[m.name]):
            where = {"protocol": "x2", "degradation": "scanner", "case": "test/a", "slice": z}
            where["identity"] = m.identity("")
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


def test_the_best_mean_is_bold(tmp_path: Path) -> None:
    scores, *_ = tables(*made_up(tmp_path, {"a": [30.0, 31.0], "b": [32.0, 31.0], "few": [40.0]}))
    assert [cells[2].startswith("**") for cells in scores.cells[1:]] == [False, True, False]


def test_undefined_everywhere_is_said(tmp_path: Path) -> None:
    scores, tests, _ = tables(*made_up(tmp_path, {"a": [30.0, 31.0], "b": [None, None]}))
    assert scores.cells[2][2] == tests.cells[1][1] == "undefined"


def test_report(place: Path) -> None:
    config = load_benchmark(place / "config.yaml")
    with pytest.raises(UhrctError, match="no results"):
        write_report(config, place / "report")
    run(place)
    text = (write_report(config, place / "report") / "tables.md").read_text()
    assert "| projected | 3 | " in text
    assert "Research use only" in text


def test_the_page_holds_everything(place: Path) -> None:
    run(place)
    folder = write_report(load_benchmark(place / "config.yaml"), place / "report", quiet=True)
    text = (folder / "report.html").read_text()
    drawn = {p.name for p in (folder / "figures").iterdir()}
    assert drawn == {f"x2-scanner-test-a-{kind}.png" for kind in ("boxes", "time", "vessels", "images-1")}
    assert text.count("data:image/png;base64,") == 4
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
    assert "<td>projected</td>" in text
    psnr = tables(read_results(place / "results.jsonl"), load_benchmark(place / "config.yaml"))[0].cells[1][2]
    mean, interval = psnr.strip("*").split(" ", 1)
    assert f'{mean}<br><span class="small">{interval}</span>' in text
