"""The page in a headless browser: what is drawn, and what keys, buttons and the mouse do."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewed import finding

from uhrct.viewer.page import page_in_one_file
from uhrct.viewer.study import WINDOWS_HU, Study

READY = "body[data-ready=yes]"
VIEW = "uhrctView"


@pytest.fixture(scope="module")
def served(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1200, "height": 600})
    page.set_default_timeout(120_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_selector(READY)
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def page(served: Any) -> Any:
    """The served page as it was at the start."""
    served.select_option("#overlay", "-1")
    if served.evaluate(f"{VIEW}.state.swipe"):
        served.keyboard.press("x")
    for key in ("1", "a", "0"):
        served.keyboard.press(key)
    jump(served, (4, 32, 30))
    assert served.inner_text("#messages") == ""
    return served


def jump(page: Any, place: tuple[int, int, int]) -> None:
    page.evaluate(
        f"place => uhrctPanes.jump({VIEW}.panes[{VIEW}.state.view.reference].nv, {VIEW}.millimetres(place))",
        list(place),
    )


#: pixels of a NiiVue as text: arrays of numbers take seconds
AS_TEXT = """nv => { const p = uhrctPanes.pixels(nv); let text = "";
  for (let k = 0; k < p.data.length; k += 32768) text += String.fromCharCode(...p.data.subarray(k, k + 32768));
  return [p.width, p.height, btoa(text)]; }"""


def drawn(page: Any, nv: str) -> np.ndarray:
    """What a NiiVue shows, (y, x, 3), row 0 on top."""
    width, height, text = page.evaluate(f"({AS_TEXT})({nv})")
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[::-1, :, :3]


def picture(page: Any, pane: int) -> np.ndarray:
    return drawn(page, f"{VIEW}.panes[{pane}].nv")


def places_mm(page: Any) -> np.ndarray:
    """Place of the crosshair of each pane."""
    return np.array(
        page.evaluate(f"{VIEW}.panes.map(({{ nv }}) => Array.from(nv.frac2mm(nv.scene.crosshairPos)).slice(0, 3))")
    )


def zooms(page: Any) -> list[list[float]]:
    return page.evaluate(f"{VIEW}.panes.map(p => Array.from(p.nv.scene.pan2Dxyzmm))")


def canvas(page: Any, pane: int) -> Any:
    return page.locator(".pane canvas").nth(pane)


def wait(page: Any) -> None:
    page.wait_for_timeout(400)
    page.wait_for_selector(READY)


def test_panes_show_different_pictures(page: Any) -> None:
    pictures = [picture(page, k) for k in range(3)]
    assert all(p.std() > 20 for p in pictures)
    for a in range(3):
        for b in range(a):
            assert (pictures[a] != pictures[b]).mean() > 0.05


def test_a_pane_shows_the_slice_with_the_right_side_up(page: Any, study: Study) -> None:
    """In order of the array: this patient lies head first on the back, so that x runs to the left of the patient."""
    low, high = WINDOWS_HU["lung"]
    expected = (np.clip(study.result.hu[4], low, high) - low) / (high - low)
    shown = picture(page, 1)[..., 0] / 255
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    # the body touches no edge of the slice: compare the extent of what is not black with that in the array
    inside = shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    lit = expected > 1 / 255
    y, x = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    wanted = expected[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    at = [np.linspace(0, n - 1, 40).round().astype(int) for n in (*inside.shape, *wanted.shape)]
    assert np.corrcoef(inside[np.ix_(at[0], at[1])].ravel(), wanted[np.ix_(at[2], at[3])].ravel())[0, 1] > 0.9
    mirrored = wanted[:, ::-1][np.ix_(at[2], at[3])]
    assert np.corrcoef(inside[np.ix_(at[0], at[1])].ravel(), mirrored.ravel())[0, 1] < 0.8


@pytest.mark.parametrize("place", [(4, 32, 30), (0, 51, 40), (7, 20, 63)])
def test_hu_are_those_of_the_voxel(page: Any, study: Study, place: tuple[int, int, int]) -> None:
    jump(page, place)
    z, y, x = place
    shown = page.locator(".hu").all_inner_texts()
    volumes = [p.volume.hu for p in study.panes]
    wanted = [volumes[0][z, y // 2, x // 2], volumes[1][place], volumes[2][place]]
    assert shown == [f"{hu} HU" for hu in wanted]


def test_a_click_moves_the_crosshair_of_all_panes(page: Any) -> None:
    before = places_mm(page)
    box = canvas(page, 0).bounding_box()
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.6 * box["height"])
    after = places_mm(page)
    assert np.abs(after[0] - before[0]).max() > 1
    assert np.allclose(after, after[0], atol=0.01)


def test_the_wheel_moves_through_the_slices_of_all_panes(page: Any) -> None:
    before = places_mm(page)
    canvas(page, 2).hover()
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(300)
    after = places_mm(page)
    assert abs(after[0, 2] - before[0, 2]) > 1
    assert np.allclose(after, after[0], atol=0.01)


def test_zoom_is_the_same_in_all_panes(page: Any) -> None:
    before = picture(page, 0)
    canvas(page, 1).hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.keyboard.press("+")
    found = np.array(zooms(page))
    assert found[0, 3] > 1.2
    assert np.allclose(found, found[0])
    assert (picture(page, 0) != before).mean() > 0.05
    page.keyboard.press("0")
    assert np.allclose(zooms(page), [0, 0, 0, 1])


def test_the_same_place_is_at_the_same_pixel(page: Any) -> None:
    """Zoomed in: the edge of the bone in scan and result coincide within a voxel of the scan."""
    jump(page, (4, 51, 40))
    for _ in range(4):
        page.keyboard.press("+")
    bright = [np.argwhere(picture(page, k)[..., 0] > 250).mean(0) for k in range(3)]
    pixel_mm = 64 * 0.8 / picture(page, 0).shape[0] / 1.15**4
    assert np.abs(np.array(bright) - bright[1]).max() * pixel_mm < 1.6


@pytest.mark.parametrize(("key", "name"), [("1", "lung"), ("2", "soft tissue"), ("3", "bone")])
def test_windows_by_key(page: Any, key: str, name: str) -> None:
    before = picture(page, 1)
    page.keyboard.press("2" if key == "1" else "1")
    page.keyboard.press(key)
    found = page.evaluate(f"{VIEW}.panes.map(p => [p.nv.volumes[0].cal_min, p.nv.volumes[0].cal_max])")
    assert found == [list(WINDOWS_HU[name])] * 3
    assert page.locator("#windows button[aria-pressed=true]").inner_text() == f"{name} ({key})"
    assert (key == "1") == bool((picture(page, 1) == before).all())


def test_windows_by_button(page: Any) -> None:
    page.click("#windows button:has-text('bone')")
    assert page.evaluate(f"{VIEW}.panes[0].nv.volumes[0].cal_max") == WINDOWS_HU["bone"][1]


def test_planes_by_key(page: Any) -> None:
    axial = picture(page, 1)
    for key in ("c", "s", "m"):
        page.keyboard.press(key)
        assert (picture(page, 1) != axial).mean() > 0.02


def coloured(image: np.ndarray) -> float:
    return float((np.ptp(image.astype(int), axis=-1) > 30).mean())


def test_overlays_colour_the_result_alone(page: Any) -> None:
    for number, word in ((0, "0.05 to 1"), (1, "doubtful")):
        page.select_option("#overlay", str(number))
        wait(page)
        assert coloured(picture(page, 1)) > 0.005
        assert coloured(picture(page, 0)) == coloured(picture(page, 2)) == 0
        assert word in page.inner_text("#legend")
    page.select_option("#overlay", "-1")
    wait(page)
    assert coloured(picture(page, 1)) == 0


def test_opacity_of_the_overlay(page: Any) -> None:
    page.keyboard.press("o")
    wait(page)

    def strength(value: str) -> float:
        page.fill("#opacity", value)
        return float(np.ptp(picture(page, 1).astype(int), axis=-1).mean())

    none, half, full = (strength(v) for v in ("0", "0.5", "1"))
    page.fill("#opacity", "0.6")
    assert none < 0.1 < half < full


def test_an_overlay_is_at_its_place(page: Any) -> None:
    page.select_option("#overlay", "1")
    wait(page)
    jump(page, (4, 50, 45))
    shown = np.ptp(picture(page, 1).astype(int), axis=-1) > 30
    spot = page.evaluate(f"{VIEW}.panes[1].nv.frac2canvasPos({VIEW}.panes[1].nv.scene.crosshairPos)")
    assert shown[round(spot[1]) - 3 : round(spot[1]) + 4, round(spot[0]) - 3 : round(spot[0]) + 4].all()


def test_swipe_shows_the_scan_on_one_side_of_the_edge(page: Any) -> None:
    page.keyboard.press("x")
    page.wait_for_timeout(300)
    box = page.locator("#divider").locator("..").bounding_box()

    def pane_at(share: float) -> int:
        x, y = box["x"] + share * box["width"], box["y"] + box["height"] / 2
        return page.evaluate(
            f"([x, y]) => {VIEW}.panes.findIndex(p => p.canvas === document.elementFromPoint(x, y))", [x, y]
        )

    assert (pane_at(0.3), pane_at(0.7)) == (0, 1)
    assert page.locator(".label").nth(1).inner_text() == "scan | result"
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 100)
    page.mouse.up()
    assert (pane_at(0.3), pane_at(0.7), pane_at(0.9)) == (0, 0, 1)
    page.keyboard.press("x")
    assert page.locator("#divider").count() == 0
    assert page.locator(".pane:visible").count() == 3


def test_findings_are_a_list_that_jumps(page: Any, study: Study) -> None:
    buttons = page.locator("#findings button")
    assert buttons.count() == 2
    assert "doubtful: vessels, 3.0 mm" in buttons.nth(0).inner_text()
    for k, f in enumerate(study.findings):
        buttons.nth(k).click()
        z, y, x = f.place
        a = study.result.affine
        assert np.allclose(places_mm(page), a[:3, :3] @ [x, y, z] + a[:3, 3], atol=0.01)
        assert buttons.nth(k).get_attribute("aria-pressed") == "true"
    page.keyboard.press("n")
    assert buttons.nth(0).get_attribute("aria-pressed") == "true"


def test_the_surface_is_drawn_and_linked(page: Any, study: Study) -> None:
    assert drawn(page, f"{VIEW}.tree()").std() > 5
    corners = np.array(page.evaluate(f"Array.from({VIEW}.tree().meshes[0].pts)")).reshape(-1, 3)
    assert np.allclose(corners, study.mesh[0] * [-1, -1, 1])
    jump(page, (4, 50, 12))
    there = page.evaluate(f"Array.from({VIEW}.tree().frac2mm({VIEW}.tree().scene.crosshairPos)).slice(0, 3)")
    assert np.allclose(there, places_mm(page)[1], atol=0.1)


def test_a_box_in_full_resolution_and_back(page: Any) -> None:
    page.keyboard.press("f")
    wait(page)
    assert "full resolution" in page.inner_text("#text")
    assert picture(page, 1).std() > 20
    page.keyboard.press("w")
    wait(page)
    assert page.inner_text("#messages") == ""


def test_the_note_is_visible(page: Any) -> None:
    assert page.locator("#note").is_visible()
    assert "not a medical device" in page.inner_text("#note").lower()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, study: Study, tmp_path: Path) -> Iterator[Opened]:
    """Open a study as one file, without a network."""
    contexts = []

    def call(shown: Study = study, box: str | None = None, script: str = "") -> Any:
        file = tmp_path / "page.html"
        file.write_text(page_in_one_file(shown, shown.first(box, small=True)))
        context = browser.new_context(offline=True, viewport={"width": 1000, "height": 500})
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector(READY)
        return page

    yield call
    for context in contexts:
        context.close()


def test_one_file_needs_no_network(opened: Opened, study: Study) -> None:
    page = opened(box="0:8,30:64,0:40")
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in page.asked if url.startswith("file:")]) == 1
    pictures = [picture(page, k) for k in range(3)]
    assert all(p.std() > 20 for p in pictures)
    assert (pictures[0] != pictures[1]).mean() > 0.05
    assert "box 0:8,30:64,0:40" in page.inner_text("#text")
    assert page.locator("#resolution").is_hidden()
    # the first finding lies outside of this box
    assert page.locator("#findings button").nth(0).is_disabled()
    assert page.locator("#findings button").nth(1).is_enabled()
    page.keyboard.press("2")
    assert (picture(page, 1) != pictures[1]).mean() > 0.05


def alone(study: Study) -> Study:
    return Study([study.panes[1]])


def test_a_picture_that_stays_empty_is_told(opened: Opened, study: Study) -> None:
    """NiiVue says nothing when the graphics memory does not suffice: here no voxel reaches it."""
    page = opened(alone(study), script="WebGL2RenderingContext.prototype.texSubImage3D = () => {};")
    assert "the picture is empty" in page.inner_text("#messages")


def test_a_lack_of_graphics_memory_is_told(opened: Opened, study: Study) -> None:
    script = """
      const real = WebGL2RenderingContext.prototype.getError;
      WebGL2RenderingContext.prototype.getError = function () { real.call(this); return this.OUT_OF_MEMORY; };"""
    assert "has not enough memory" in opened(alone(study), script=script).inner_text("#messages")


def test_a_browser_without_webgl_is_told(opened: Opened, study: Study) -> None:
    page = opened(alone(study), script="HTMLCanvasElement.prototype.getContext = () => null;")
    assert "no WebGL 2" in page.inner_text("#messages")


def test_air_alone_is_no_mistake(opened: Opened, study: Study) -> None:
    air = np.full((4, 32, 32), -1000, np.int16)
    page = opened(Study([type(study.panes[0])("result", type(study.result)(air, (1.0, 1.0, 1.0)))]))
    assert page.inner_text("#messages") == ""


def test_what_the_file_of_a_finding_says_is_no_html(opened: Opened, study: Study) -> None:
    odd = finding((1, 2, 3)).model_copy(update={"kind": "<img src=x onerror=alert(1)>"})
    page = opened(Study([study.panes[1]], findings=[odd]))
    assert "<img" in page.inner_text("#findings")
    assert page.locator("#findings img").count() == 0
