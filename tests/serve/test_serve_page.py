"""The page of `uhrct serve` in a headless browser: from the upload to the download."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_files import PATIENT, make_series
from pydicom import Dataset
from serving import Client

from uhrct import io
from uhrct.upscaling.files import write_result
from uhrct.upscaling.plan import UpscaleSettings, make_plan

PATIENCE_MS = 180_000
ALIVE = "article.scan"


@pytest.fixture
def page(browser: Any, client: Client) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1000, "height": 800}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.asked = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    context.on("request", lambda request: page.asked.append(request.url))
    page.goto(client.address)
    yield page
    context.close()
    assert [text for text in wrong if "ERR_FAILED" not in text] == []
    assert [url for url in page.asked if not url.startswith((client.address, "data:", "blob:"))] == []
    assert [url for url in page.asked if "DOE" in url] == []


#: mean and spread of the grey levels of each pane
LEVELS = """() => uhrctView.panes.map((_, k) => { const { data } = uhrctView.pixels(k);
  let sum = 0, squares = 0; for (let i = 0; i < data.length; i += 4) { sum += data[i]; squares += data[i] ** 2; }
  const n = data.length / 4; return [sum / n, Math.sqrt(squares / n - (sum / n) ** 2)]; })"""


def test_from_upload_to_download(page: Any, scan_file: Path, tmp_path: Path) -> None:
    assert page.inner_text("#note") == "Research use only; not a medical device."
    page.set_input_files("#file", scan_file)
    page.wait_for_selector("form:not([hidden])")
    assert "DOE_JANE.nii.gz (1 file" in page.inner_text(".name")
    page.select_option("[name=quality]", "best")  # long enough to be seen while it works
    page.fill("[name=denoise]", "0.25")
    assert page.inner_text(".share") == "0.25"
    # what the page shows while it works
    page.evaluate("""() => { window.seen = []; new MutationObserver(() => {
        for (const name of [".state", ".left"]) window.seen.push(document.querySelector(name)?.textContent ?? ""); })
      .observe(document.querySelector("#scans"), { subtree: true, childList: true, characterData: true }); }""")
    page.click(".start")
    page.wait_for_selector(".outcome:not([hidden])")
    seen = page.evaluate("window.seen")
    assert any(text.startswith("Computing 6 slices") for text in seen)
    assert any(" of 6" in text for text in seen)
    assert "PSF" in page.inner_text(".plan")
    assert page.locator(".notes li").count() > 0
    with page.context.expect_page() as opened:
        page.click(".view")
    viewer = opened.value
    viewer.wait_for_selector("body[data-ready=yes]")
    (mean_a, spread_a), (mean_b, spread_b) = viewer.evaluate(LEVELS)
    assert min(spread_a, spread_b) > 20
    assert (mean_a, spread_a) != (mean_b, spread_b)
    assert viewer.inner_text("#messages") == ""
    assert "DOE" not in viewer.title() + page.title()
    with page.expect_download() as loaded:
        page.click(".result")
    loaded.value.save_as(tmp_path / "got.nii.gz")
    scan = io.read(scan_file)
    plan = make_plan(scan, UpscaleSettings(quality="best", denoise=0.25, device="cpu"))
    write_result(plan, scan, tmp_path / "own.nii.gz", quiet=True)
    got, own = io.read(tmp_path / "got.nii.gz"), io.read(tmp_path / "own.nii.gz")
    assert np.array_equal(got.hu, own.hu)
    with page.expect_download() as loaded:
        page.click(".report")
    assert json.loads(Path(loaded.value.path()).read_text())["settings"]["denoise"] == 0.25
    page.click(".delete")
    page.wait_for_selector(ALIVE, state="detached")


def test_a_folder_with_two_series(page: Any, client: Client, tmp_path: Path) -> None:
    study = tmp_path / "DOE"
    make_series(study / "a", shape=(3, 40, 32), seed=1, number=1)
    make_series(study / "b", shape=(4, 40, 32), seed=2, number=2, edit=lambda k, _: k != 1)
    (study / ".hidden").write_text("not to be sent")
    (study / "README").write_text("no DICOM")
    page.set_input_files("#folder", study)
    page.wait_for_selector("form:not([hidden])")
    rows = page.locator(".series label")
    assert rows.count() == 2
    assert "3 x 40 x 32 voxels" in rows.nth(0).inner_text()
    assert rows.nth(0).locator("input").is_checked()
    assert rows.nth(1).locator("input").is_disabled()
    assert "Cannot be processed" in rows.nth(1).inner_text()
    assert page.inner_text(".name").startswith("DOE (7 files")
    assert PATIENT not in page.content()
    assert {p.suffix for p in client.stored()} == {"", ".dcm"}


def test_what_is_no_ct_is_told_with_the_name_of_the_file(page: Any, tmp_path: Path) -> None:
    def as_mr(_: int, ds: Dataset) -> None:
        ds.Modality = "MR"

    make_series(tmp_path / "mr", shape=(3, 40, 32), name="slice-{}.dcm", edit=as_mr)
    page.set_input_files("#folder", tmp_path / "mr")
    page.wait_for_selector(".series .problem")
    assert re.search(r"slice-\d\.dcm is MR, not CT; uhrct works on CT in HU", page.inner_text(".series"))
    assert page.inner_text(".state") == "Cannot be processed"
    assert page.locator(".start").is_disabled()


def test_files_that_make_no_scan_are_refused_in_the_page(page: Any, scan_file: Path, client: Client) -> None:
    page.set_input_files("#file", [scan_file, scan_file])
    page.wait_for_function("document.querySelector('#problem').textContent !== ''")
    assert page.inner_text("#problem") == "choose one file, or a folder of DICOM files"
    assert client.ask("GET", "jobs").said["jobs"] == []


def test_a_drop_is_an_upload(page: Any) -> None:
    page.evaluate("""() => { const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(1000)], "DOE.nrrd"));
      const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      document.querySelector("#drop").dispatchEvent(event); }""")
    page.wait_for_selector(".series .problem, .error:not([hidden])")
    assert "DOE.nrrd (1 file" in page.inner_text(".name")


def test_the_page_works_by_keyboard(page: Any, scan_file: Path) -> None:
    page.on("filechooser", lambda _: None)  # the browser needs a moment until it hands choosers over
    page.wait_for_timeout(500)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose-file"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(scan_file)
    page.wait_for_selector("form:not([hidden])")
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(e => e.name || e.className || e.id)(document.activeElement)"))
    assert reached >= {"scale", "quality", "format", "denoise", "audit", "main start", "delete"}
    page.focus(".delete")
    page.keyboard.press("Enter")
    page.wait_for_selector(ALIVE, state="detached")
    assert page.evaluate("document.activeElement.id") == "choose-file"


def test_everything_has_a_name_for_screen_readers(page: Any, scan_file: Path) -> None:
    page.set_input_files("#file", scan_file)
    page.wait_for_selector("form:not([hidden])")
    without = page.evaluate("""() => [...document.querySelectorAll("button, a, input, select, progress")]
      .filter((e) => !(e.textContent.trim() || e.labels?.length || e.getAttribute("aria-label")))
      .map((e) => e.outerHTML)""")
    assert without == []
    assert page.get_attribute("html", "lang") == "en"
    assert page.get_attribute(".state", "role") == "status"
    assert page.get_attribute("#problem", "role") == "alert"


def test_a_server_that_has_ended_is_told(page: Any) -> None:
    page.route("**/jobs", lambda route: route.abort())
    page.wait_for_selector("#gone:not([hidden])")
    assert page.inner_text("#gone").strip()
    page.unroute("**/jobs")
    page.wait_for_selector("#gone", state="hidden")
    assert not page.is_visible("#gone")
