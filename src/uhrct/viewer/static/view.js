// The page: what is loaded, and what buttons and keys do.
"use strict";

(async () => {
  const P = uhrctPanes;
  const $ = (id) => document.getElementById(id);
  const inOneFile = $("view") !== null;
  const panes = [];
  const state = { at: "", view: null, window: 0, plane: "axial", overlay: -1, opacity: 0.6, swipe: false, smooth: true, software: false };
  let tree = null, finding = -1, loading = Promise.resolve();

  /** Show what went wrong. Messages stay until something else is loaded. */
  function complain(text) {
    const line = document.createElement("div");
    line.textContent = text;
    $("messages").append(line);
  }

  /** The bytes of a part: from this file, or from the server. */
  async function bytes(name, at) {
    if (inOneFile) {
      const packed = Uint8Array.from(atob($(name).textContent), (c) => c.charCodeAt(0));
      return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    }
    const less = state.software ? `&most=${P.MOST_VOXELS_IN_SOFTWARE}` : "";
    const answer = await fetch(`${name.replace("-", "/")}?at=${at ?? ""}${less}`);
    if (!answer.ok) throw new Error(`the server refused (${answer.status})`);
    return answer.arrayBuffer();
  }

  async function described(at) {
    if (inOneFile) return JSON.parse($("view").textContent);
    return JSON.parse(new TextDecoder().decode(await bytes("view", at)));
  }

  /** Voxel (z, y, x) of the result -> mm. */
  function millimetres([z, y, x]) {
    return state.view.affine.slice(0, 3).map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
  }

  /** mm -> voxel (z, y, x) of the result; columns of the affine are orthogonal. */
  function voxel(mm) {
    const a = state.view.affine;
    return [2, 1, 0].map((column) => {
      let along = 0, length = 0;
      for (let row = 0; row < 3; row++) {
        along += a[row][column] * (mm[row] - a[row][3]);
        length += a[row][column] ** 2;
      }
      return Math.max(0, Math.round(along / length));
    });
  }

  const follow = P.link(() => panes.map((p) => p.nv).concat(tree ? [tree] : []));
  const reference = () => panes[state.view.reference];

  function element(tag, name, text) {
    const e = document.createElement(tag);
    e.className = name;
    if (text !== undefined) e.textContent = text;
    return e;
  }

  async function openPane(number) {
    const box = element("div", "pane"), caption = element("div", "caption");
    const label = element("b", "label"), size = element("span", "size"), hu = element("span", "hu");
    const holder = element("div", "holder"), canvas = element("canvas", "");
    caption.append(label, size, hu);
    holder.append(canvas);
    box.append(caption, holder);
    $("panes").append(box);
    const pane = { box, holder, canvas, label, size, hu, nv: null };
    pane.nv = await P.open(canvas, {}, () => complain(`${label.textContent}: the graphics card gave up; reload the page.`));
    pane.nv.sync = () => follow(pane.nv);
    pane.nv.onLocationChange = (place) => {
      const value = place.values && place.values.length ? place.values[0].value : NaN;
      pane.value = Number.isFinite(value) ? `${Math.round(value * 10) / 10} HU` : "";
      captions();
    };
    canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return;
      e.preventDefault();
      e.stopImmediatePropagation();
      P.zoom(pane.nv, e.deltaY < 0 ? P.ZOOM_STEP : 1 / P.ZOOM_STEP);
    }, { capture: true, passive: false });
    panes[number] = pane;
  }

  async function fill(pane, number) {
    const data = state.view.panes[number], { low, high } = state.view.windows[state.window];
    pane.size.textContent = data.size;
    pane.size.title = data.size;
    const nv = pane.nv;
    while (nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
    nv.setSliceType(P.PLANES[state.plane]); // an empty pane is drawn at once
    nv.addVolume(await P.image(await bytes(`image-${number}`, state.at), low, high, "gray", 1));
    if (!state.smooth) nv.setInterpolation(true);
  }

  function check() {
    for (const pane of panes) {
      const text = P.trouble(pane.nv);
      if (text) complain(`${pane.label.textContent}: ${text}. Show less: --box, --million-voxels or fewer volumes.`);
    }
  }

  /** Load a view: "" the first one, "whole", or a box around the voxel "z,y,x" of the result. */
  async function load(at, place) {
    document.body.dataset.ready = "no";
    $("messages").replaceChildren();
    $("text").textContent = "Loading.";
    try {
      state.at = at;
      state.software = P.drawsInSoftware();
      state.view = await described(at);
      for (let k = 0; k < state.view.panes.length; k++) {
        if (!panes[k]) await openPane(k);
        await fill(panes[k], k);
      }
      if (!$("overlay").options.length) controls();
      await drawOverlay();
      const start = place || (finding >= 0 ? state.view.findings[finding].place : state.view.place);
      for (const pane of panes) pane.nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
      P.jump(reference().nv, millimetres(start));
      if (state.view.mesh && !tree) await openTree();
      const why = state.software ? "This browser draws without a graphics card and shows less. " : "";
      $("text").textContent = (state.view.full ? "" : why) + state.view.text;
      check();
    } catch (error) {
      complain(`Nothing can be shown: ${error.message}.`);
      $("text").textContent = "";
    }
    refresh();
    document.body.dataset.ready = "yes";
  }

  async function openTree() {
    const nv = await P.open($("tree-canvas"), { show3Dcrosshair: true, isOrientCube: true, backColor: [0.03, 0.04, 0.05, 1] },
      () => complain("Surface: the graphics card gave up; reload the page."));
    nv.addMesh(await P.NVMesh.readMesh(await bytes("mesh"), "surface.mz3", nv.gl, 1, new Uint8Array([214, 92, 78, 255])));
    nv.setSliceType(4);
    nv.setRenderAzimuthElevation(180, 10);
    // linked from now on: before, its crosshair would move the others
    tree = nv;
    follow(reference().nv);
    nv.sync = () => follow(nv);
  }

  async function drawOverlay() {
    const nv = reference().nv, data = state.view.overlays[state.overlay];
    while (nv.volumes.length > 1) nv.removeVolume(nv.volumes[1]);
    $("legend").replaceChildren();
    if (!data) return;
    const volume = await P.image(await bytes(`overlay-${state.overlay}`, state.at), data.low, data.high,
      data.colormap || "gray", state.opacity);
    volume.colorbarVisible = false;
    if (data.labels.length) {
      const parts = [1, 3, 5].map((k) => [0, ...data.labels.map((l) => parseInt(l.colour.slice(k, k + 2), 16))]);
      volume.setColormapLabel({
        R: parts[0], G: parts[1], B: parts[2], A: [0, ...data.labels.map(() => 255)],
        I: [0, ...data.labels.map((_, k) => k + 1)], labels: ["", ...data.labels.map((l) => l.name)],
      });
      for (const label of data.labels) {
        const key = element("span", "key", label.name), spot = document.createElement("i");
        spot.style.background = label.colour;
        key.prepend(spot);
        $("legend").append(key);
      }
    } else {
      $("legend").append(element("span", "key", `${Number(data.low.toPrecision(2))} to ${data.high}`));
    }
    nv.addVolume(volume);
  }

  // What buttons and keys do. Each changes the state, then the panes.

  function setWindow(number) {
    state.window = number;
    const { low, high } = state.view.windows[number];
    for (const { nv } of panes) {
      nv.volumes[0].cal_min = low;
      nv.volumes[0].cal_max = high;
      nv.updateGLVolume();
    }
    refresh();
  }

  function setPlane(name) {
    state.plane = name;
    for (const { nv } of panes) nv.setSliceType(P.PLANES[name]);
    refresh();
  }

  function setSwipe(on) {
    state.swipe = on && panes.length > 1;
    $("divider")?.remove();
    const [first, second] = swiped();
    for (const pane of panes) pane.holder.classList.remove("above");
    first.holder.style.clipPath = "";
    if (state.swipe) {
      stack(first, second);
    } else if (first.holder.parentNode !== first.box) {
      first.box.append(first.holder);
    }
    refresh();
  }

  /** Scan over result; without a scan the first two panes. */
  const swiped = () => [panes[0], panes[state.view.reference] === panes[0] ? panes[1] ?? panes[0] : reference()];

  function stack(first, second) {
    const frame = second.holder;
    first.holder.classList.add("above");
    frame.append(first.holder);
    const divider = element("div", "");
    divider.id = "divider";
    const put = (share) => {
      const percent = 100 * Math.min(1, Math.max(0, share));
      divider.style.left = `${percent}%`;
      first.holder.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    };
    divider.addEventListener("pointerdown", (e) => divider.setPointerCapture(e.pointerId));
    divider.addEventListener("pointermove", (e) => {
      if (!divider.hasPointerCapture(e.pointerId)) return;
      const { left, width } = frame.getBoundingClientRect();
      put((e.clientX - left) / width);
    });
    frame.append(divider);
    put(0.5);
  }

  async function setOverlay(number) {
    state.overlay = number;
    await drawOverlay();
    refresh();
  }

  function setOpacity(value) {
    state.opacity = value;
    const nv = reference().nv;
    if (nv.volumes.length > 1) nv.setOpacity(1, value);
    refresh();
  }

  function setSmooth(on) {
    state.smooth = on;
    for (const { nv } of panes) nv.setInterpolation(!on);
    refresh();
  }

  const inside = (place) => place.every((k, a) => k >= state.view.region[0][a] && k < state.view.region[1][a]);

  function showFinding(number) {
    const all = state.view.findings;
    if (!all.length) return;
    const wanted = (number + all.length) % all.length, place = all[wanted].place;
    if (inOneFile && !inside(place)) return;
    finding = wanted;
    if (inside(place)) {
      P.jump(reference().nv, millimetres(place));
      refresh();
    } else {
      start(place.join(","), place);
    }
  }

  function start(at, place) {
    loading = loading.then(() => load(at, place));
    return loading;
  }

  function fullHere() {
    const nv = reference().nv, place = voxel(nv.frac2mm(nv.scene.crosshairPos));
    start(place.join(","), place);
  }

  function scroll(steps) {
    const nv = reference().nv, axis = { coronal: 1, sagittal: 0 }[state.plane] ?? 2;
    nv.moveCrosshairInVox(...[0, 1, 2].map((k) => (k === axis ? steps : 0)));
  }

  function zoomAll(factor) {
    P.zoom(reference().nv, factor);
  }

  const KEYS = {
    1: () => setWindow(0), 2: () => setWindow(1), 3: () => setWindow(2),
    a: () => setPlane("axial"), c: () => setPlane("coronal"), s: () => setPlane("sagittal"), m: () => setPlane("all"),
    x: () => setSwipe(!state.swipe), i: () => setSmooth(!state.smooth), 0: () => zoomAll(0),
    f: () => inOneFile || fullHere(), w: () => inOneFile || start("whole"),
    o: () => setOverlay(state.overlay + 1 < state.view.overlays.length ? state.overlay + 1 : -1),
    n: () => showFinding(finding + 1), p: () => showFinding(finding < 0 ? -1 : finding - 1),
    "+": () => zoomAll(P.ZOOM_STEP), "=": () => zoomAll(P.ZOOM_STEP), "-": () => zoomAll(1 / P.ZOOM_STEP),
    ArrowUp: () => scroll(1), ArrowDown: () => scroll(-1), PageUp: () => scroll(10), PageDown: () => scroll(-10),
  };

  function button(home, text, act) {
    const b = element("button", "", text);
    b.addEventListener("click", act);
    home.append(b);
    return b;
  }

  /** Buttons and lists that depend on what is shown. */
  function controls() {
    state.view.windows.forEach((w, k) => button($("windows"), `${w.name} (${k + 1})`, () => setWindow(k)));
    const names = { axial: "a", coronal: "c", sagittal: "s", all: "m" };
    for (const [name, key] of Object.entries(names)) button($("planes"), `${name} (${key})`, () => setPlane(name));
    $("overlay").append(new Option("none", -1), ...state.view.overlays.map((o, k) => new Option(o.name, k)));
    $("overlay").value = -1;
    state.view.findings.forEach((f, k) => {
      const item = document.createElement("li"), b = button(item, `${f.grade}: ${f.text}`, () => showFinding(k));
      b.style.setProperty("--grade", f.colour);
      b.append(element("small", "", `slice ${f.place[0]}, row ${f.place[1]}, column ${f.place[2]}`));
      $("findings").append(item);
    });
    $("swipe").hidden = panes.length < 2;
    $("resolution").hidden = inOneFile;
    $("overlays").hidden = !state.view.overlays.length;
    $("tree").hidden = !state.view.mesh;
    $("found").hidden = !state.view.findings.length;
    $("side").hidden = !state.view.mesh && !state.view.findings.length;
  }

  /** Labels and HU. In a swipe the second pane speaks for both. */
  function captions() {
    if (!state.view) return;
    const [first, second] = state.swipe ? swiped() : [];
    panes.forEach((pane) => {
      const pair = pane === second ? [first, second] : [pane];
      pane.label.textContent = pair.map((p) => state.view.panes[panes.indexOf(p)].label).join(" | ");
      pane.hu.textContent = pair.map((p) => p.value || "").join(" | ");
    });
  }

  function refresh() {
    if (!state.view) return;
    const press = (b, on) => b.setAttribute("aria-pressed", on);
    [...$("windows").children].forEach((b, k) => press(b, k === state.window));
    [...$("planes").children].forEach((b) => press(b, b.textContent.startsWith(state.plane)));
    press($("swipe"), state.swipe);
    press($("smooth"), !state.smooth);
    $("overlay").value = state.overlay;
    $("opacity").value = state.opacity;
    [...$("findings").children].forEach((item, k) => {
      press(item.firstChild, k === finding);
      item.firstChild.disabled = inOneFile && !inside(state.view.findings[k].place);
      item.firstChild.title = item.firstChild.disabled ? "This place is outside of the box in this file." : "";
    });
    const shown = panes.filter((p) => !(state.swipe && p === swiped()[0]));
    captions();
    panes.forEach((p) => { p.box.hidden = !shown.includes(p); });
    $("panes").style.gridTemplateColumns = `repeat(${shown.length > 3 ? 2 : shown.length}, minmax(0, 1fr))`;
  }

  // NiiVue has keys of its own; none of them shall act here
  for (const kind of ["keydown", "keyup"]) {
    window.addEventListener(kind, (e) => {
      const typed = e.target.matches?.("select") || (e.target.matches?.("input") && e.key.length > 1);
      if (typed || e.ctrlKey || e.metaKey || e.altKey) return;
      if (e.target.matches?.("canvas")) e.stopImmediatePropagation();
      const act = KEYS[e.key.length === 1 ? e.key.toLowerCase() : e.key];
      if (!act || kind === "keyup" || document.body.dataset.ready !== "yes" || !panes.length) return;
      e.preventDefault();
      act();
    }, true);
  }
  $("swipe").addEventListener("click", () => setSwipe(!state.swipe));
  $("smooth").addEventListener("click", () => setSmooth(!state.smooth));
  $("reset").addEventListener("click", () => zoomAll(0));
  $("full").addEventListener("click", fullHere);
  $("whole").addEventListener("click", () => start("whole"));
  $("overlay").addEventListener("change", (e) => {
    e.target.blur(); // letters are keys of the page again
    setOverlay(Number(e.target.value));
  });
  $("opacity").addEventListener("input", (e) => setOpacity(Number(e.target.value)));

  // for tests, and for looking into a page that misbehaves
  globalThis.uhrctView = { panes, state, tree: () => tree, pixels: (k) => P.pixels(panes[k].nv), check, millimetres };
  await start("");
})();
