"""What a user may write into a configuration and on the command line, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from uhrct.core.errors import UhrctError
from uhrct.training.config import TrainingConfig, load_recipe

RECIPE = """\
data: {batch: 4}
model: {mean: {image_width: 64}, denoiser: {}}
stages:
  - {stage: mean, share: 3}
  - {stage: denoiser, data: {batch: 2}, loss: {l1: 0}}
"""


def load(text: str, tmp_path: Path, *overrides: str) -> list[TrainingConfig]:
    (tmp_path / "a.yaml").write_text(text)
    return load_recipe(tmp_path / "a.yaml", list(overrides))


def test_no_file_and_an_empty_file_give_the_defaults(tmp_path: Path) -> None:
    assert load_recipe(None) == load("# nothing yet\n", tmp_path) == [TrainingConfig()]


def test_overrides_win_over_the_file_and_leave_its_other_settings(tmp_path: Path) -> None:
    text = "data: {batch: 4, crop: 20}\nmodel: {mean: {image_width: 64, image_blocks: 3}}\n"
    [config] = load(text, tmp_path, "data.batch=2", "model.mean.image_width=8", "model.structure.kind=frangi")
    assert (config.data.batch, config.data.crop) == (2, 20)
    assert config.model == {"mean": {"image_width": 8, "image_blocks": 3}, "structure": {"kind": "frangi"}}


def test_stages_share_the_settings_at_the_top(tmp_path: Path) -> None:
    mean, denoiser = load(RECIPE, tmp_path, "data.crop=20", "stages.denoiser.loss.l2=2")
    assert (mean.stage, mean.share, mean.data.batch, mean.data.crop, mean.loss.l1) == ("mean", 3, 4, 20, 1)
    assert (denoiser.share, denoiser.data.batch, denoiser.data.crop) == (1, 2, 20)
    assert (denoiser.loss.l2, denoiser.loss.l1, denoiser.model) == (2, 0, mean.model)
    [alone] = load(RECIPE, tmp_path, "stages=[denoiser]", "init=x2")
    assert (alone.stage, alone.data.batch, alone.loss.l1, alone.init) == ("denoiser", 2, 0, "x2")
    [changed] = load(RECIPE, tmp_path, "stages=[mean]", "stages.mean.loss.l1=7")
    assert (changed.stage, changed.loss.l1, changed.share) == ("mean", 7, 3)


@pytest.mark.parametrize("written", ["8e-4", "0.0008", "'8e-4'"])
def test_numbers_that_yaml_reads_as_words(tmp_path: Path, written: str) -> None:
    assert load(f"optimizer: {{learning_rate: {written}}}\n", tmp_path)[0].optimizer.learning_rate == 8e-4
    [config] = load_recipe(None, [f"optimizer.learning_rate={written}", "steps=1e3"])
    assert config.optimizer.learning_rate == 8e-4
    assert config.steps == 1000
    assert isinstance(config.steps, int)


def test_one_path_is_a_list_of_one() -> None:
    [config] = load_recipe(None, ["data.corpus=a", "data.validation=[b, c]"])
    assert (config.data.corpus, config.data.validation) == (("a",), ("b", "c"))
    assert load_recipe(None, ["data.validation="])[0].data.validation == ()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batches=4", "unknown setting batches; known: .*checkpoint_minutes"),
        ("data.batches=4", "unknown setting data.batches; known: .*batch"),
        ("model.mean.image_widht=4", "model: unknown setting mean.image_widht; known: .*image_width"),
        ("model.structure.kinds=vc", "model: unknown setting structure.kinds; known: .*kind"),
        ("model.mean.image_width=-4", "setting mean.image_width=-4: input should be greater than or equal to 1"),
        ("model.scale=[0,2,2]", "setting scale.0=0"),
        ("data", "key=value"),
        ("data.batch=many", "setting data.batch=many: .*number|integer"),
        ("data.batch=0", "setting data.batch=0: input should be greater than 0"),
        ("data.degraded=1.5", "less than or equal to 1"),
        ("steps=1.5", "setting steps=1.5: input should be a valid integer"),
        ("optimizer.learning_rate=nan", "setting optimizer.learning_rate=nan"),
        ("optimizer.name=sgd", "input should be 'adamw' or 'muon'"),
        ("loss.relative=perhaps", "boolean"),
        ("loss.structure_power=3", "input should be 1 or 2"),
        ("loss.structure_items=0", "greater than 0"),
        ("loss={structure_share: 0.1, structure_image: 0.1}", "set the same strength; give one of them"),
        ("model=3", "setting model=3"),
        ("stage=last", "input should be 'mean', 'denoiser', 'interval', 'estimator' or 'surrogate'"),
        ("data.batch.size=4", "a value, not a group"),
        ("init=3", "setting init=3"),
        ("data.corpus=5", "setting data.corpus=5"),
        ("seed=[", "not a YAML value"),
        ("stages=[mean, 3]", "give a list of groups"),
        ("stages=4", "setting stages=4"),
        ("stages=[{stage: mean}, {stage: mean}]", "two stages are called mean"),
        ("stages=[{stage: mean}, {stage: denoiser, init: x2}]", "set it at the top"),
        ("stages=[{stage: denoiser, loss: {lengths_share: 0.1}}]", "work in stage mean only"),
    ],
)
def test_senseless_settings(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UhrctError, match=message) as caught:
        load("data: {batch: 4}\n", tmp_path, override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.last.steps=4", "no stage last; there are mean, denoiser"),
        ("stages.mean=4", "name a setting of the stage"),
    ],
)
def test_stages_are_changed_by_their_names(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UhrctError, match=message):
        load(RECIPE, tmp_path, override)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"batch: [4\n", "not valid YAML"),
        (b"- 1\n- 2\n", "key: value"),
        (b"\xff\xfe\x00batch", "not valid YAML"),
        (None, "not readable"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "a.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UhrctError, match=message) as caught:
        load_recipe(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
