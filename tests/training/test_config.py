"""What a user may write into a training's YAML and behind it, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from uhrct.core.errors import UhrctError
from uhrct.training.config import TrainingConfig, load_config


def test_no_file_gives_the_defaults() -> None:
    assert load_config(None) == TrainingConfig()


def test_overrides_win_over_the_file_and_leave_its_other_settings(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("batch: 4\ncrop: 20\nmodel: {mean: {image_width: 64, image_blocks: 3}}\n")
    config = load_config(file, ["batch=2", "model.mean.image_width=8", "model.structure.kind=frangi"])
    assert (config.batch, config.crop) == (2, 20)
    assert config.model == {"mean": {"image_width": 8, "image_blocks": 3}, "structure": {"kind": "frangi"}}


@pytest.mark.parametrize("written", ["8e-4", "0.0008", "'8e-4'"])
def test_numbers_that_yaml_reads_as_words(tmp_path: Path, written: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"learning_rate: {written}\n")
    assert load_config(file).learning_rate == 8e-4
    assert load_config(None, [f"learning_rate={written}", "steps=1e3"]).learning_rate == 8e-4


def test_whole_numbers_are_int_and_paths_tuples() -> None:
    config = load_config(None, ["steps=1e3", "corpus=a", "validation=[b, c]"])
    assert config.steps == 1000
    assert isinstance(config.steps, int)
    assert (config.corpus, config.validation) == (("a",), ("b", "c"))
    assert load_config(None, ["validation="]).validation == ()


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert load_config(tmp_path / "a.yaml") == TrainingConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batches=4", "unknown setting 'batches'; known: .*batch"),
        ("batch", "key=value"),
        ("batch=many", "not a number"),
        ("batch=0", "at least 1"),
        ("crop=-3", "at least 1"),
        ("steps=1.5", "whole number"),
        ("steps=true", "whole number"),
        ("learning_rate=nan", "give a number"),
        ("relative=perhaps", "true or false"),
        ("model=3", "group of settings"),
        ("stage=last", "choose from mean, denoiser"),
        ("batch.size=4", "a value, not a group"),
        ("init=3", "setting init=3"),
        ("corpus=5", "list of paths"),
        ("seed=[", "not a YAML value"),
    ],
)
def test_senseless_settings(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text("batch: 4\n")
    with pytest.raises(UhrctError, match=message) as caught:
        load_config(tmp_path / "a.yaml", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"batch: [4\n", "not valid YAML"), (b"- 1\n- 2\n", "key: value"), (b"\xff\xfe\x00batch", "not valid YAML")],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UhrctError, match=message) as caught:
        load_config(tmp_path / "a.yaml")
    assert str(tmp_path / "a.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match="not readable"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UhrctError, match="not readable"):
        load_config(tmp_path)


def test_the_configurations_that_ship_are_valid() -> None:
    found = (Path(__file__).parents[2] / "configs").rglob("*.yaml")
    shipped = [p for p in found if not p.name.startswith("benchmark")]
    assert shipped
    for file in shipped:
        load_config(file)
