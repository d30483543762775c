// Panes: NiiVue in a canvas each, linked by place and zoom, and checked after loading.
"use strict";

const uhrctPanes = (() => {
  const { Niivue, NVImage, NVMesh, DRAG_MODE, SLICE_TYPE, SHOW_RENDER } = globalThis.niivue;
  const PLANES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, all: SLICE_TYPE.MULTIPLANAR };
  const ZOOM_STEP = 1.15, LARGEST_ZOOM = 40;
  // points along each side of a slice that are looked at after loading
  const SAMPLES = 64;

  const OPTIONS = {
    isRadiologicalConvention: true, sagittalNoseLeft: true, isSliceMM: false, crosshairWidth: 0.5, crosshairGap: 12,
    crosshairWidthUnit: "mm", crosshairColor: [1, 0.78, 0.27, 0.7], backColor: [0, 0, 0, 1], dragAndDropEnabled: false,
    loadingText: "", multiplanarShowRender: SHOW_RENDER.NEVER, viewModeHotKey: "", clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "", logLevel: "error", isAntiAlias: false, trustCalMinMax: true, fontMinPx: 12,
    mouseEventConfig: {
      leftButton: { primary: DRAG_MODE.crosshair },
      rightButton: DRAG_MODE.pan,
      centerButton: DRAG_MODE.pan,
    },
  };

  // a processor needs about .5 s to fill the texture of a million voxels (benchmarks/view_start.py)
  const MOST_VOXELS_IN_SOFTWARE = 4e6;

  /** Whether WebGL runs on the processor. Throws if the browser has no WebGL 2. */
  function drawsInSoftware() {
    const gl = document.createElement("canvas").getContext("webgl2");
    if (!gl) throw new Error("this browser has no WebGL 2; use another, or switch on hardware acceleration");
    const info = gl.getExtension("WEBGL_debug_renderer_info");
    const name = gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
    gl.getExtension("WEBGL_lose_context")?.loseContext();
    return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
  }

  /** A new NiiVue in a canvas. */
  async function open(canvas, options, lost) {
    canvas.addEventListener("webglcontextlost", lost);
    const nv = new Niivue({ ...OPTIONS, ...options });
    await nv.attachToCanvas(canvas, false);
    return nv;
  }

  async function image(buffer, low, high, colormap, opacity) {
    return NVImage.new(buffer, "volume.nii", colormap, opacity, null, low, high, true);
  }

  /** Keep crosshair and zoom of all panes equal, whichever of them changed. */
  function link(all) {
    let busy = false;
    const follow = (from) => {
      if (busy) return;
      busy = true;
      try {
        const mm = from.volumes.length || from.meshes.length ? from.frac2mm(from.scene.crosshairPos) : null;
        for (const to of all()) {
          if (to === from || !mm || !(to.volumes.length || to.meshes.length)) continue;
          to.scene.crosshairPos = to.mm2frac(mm);
          if (to.volumes.length && from.volumes.length) to.scene.pan2Dxyzmm = from.scene.pan2Dxyzmm.slice();
          to.drawScene();
          to.createOnLocationChange();
        }
      } finally {
        busy = false;
      }
    };
    return follow;
  }

  // A place mm stands at the fraction (mm * zoom + pan - first) / (last - first) of the picture.

  /** Zoom by a factor; the crosshair stays where it is on the screen. */
  function zoom(nv, factor) {
    const pan = nv.scene.pan2Dxyzmm, mm = nv.frac2mm(nv.scene.crosshairPos);
    const wanted = Math.min(LARGEST_ZOOM, Math.max(1, pan[3] * factor));
    for (let k = 0; k < 3; k++) pan[k] = wanted === 1 ? 0 : pan[k] + (pan[3] - wanted) * mm[k];
    pan[3] = wanted;
    nv.drawScene();
  }

  /** Move the crosshair to a place, and a zoomed picture so that the place is in its middle. */
  function jump(nv, mm) {
    const pan = nv.scene.pan2Dxyzmm, middle = nv.frac2mm([0.5, 0.5, 0.5]);
    nv.scene.crosshairPos = nv.mm2frac(mm);
    for (let k = 0; k < 3; k++) pan[k] = pan[3] === 1 ? 0 : middle[k] - pan[3] * mm[k];
    nv.drawScene();
    nv.createOnLocationChange();
  }

  /** The pixels of a pane without crosshair and letters, as NiiVue draws them now. */
  function pixels(nv) {
    const { crosshairWidth, isOrientationTextVisible } = nv.opts;
    nv.opts.crosshairWidth = 0;
    nv.opts.isOrientationTextVisible = false;
    const sync = nv.sync;
    nv.sync = () => {};
    nv.drawScene();
    const gl = nv.gl, width = gl.drawingBufferWidth, height = gl.drawingBufferHeight;
    const out = new Uint8Array(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, out);
    nv.opts.crosshairWidth = crosshairWidth;
    nv.opts.isOrientationTextVisible = isOrientationTextVisible;
    nv.drawScene();
    nv.sync = sync;
    return { width, height, data: out };
  }

  /** How many grey levels the voxels of this slice have in the window of the pane, and how many colours it shows. */
  function levels(nv) {
    const volume = nv.volumes[0], { cal_min: low, cal_max: high } = volume;
    const across = { [SLICE_TYPE.CORONAL]: 1, [SLICE_TYPE.SAGITTAL]: 0 }[nv.opts.sliceType] ?? 2;
    const [a, b] = [0, 1, 2].filter((axis) => axis !== across);
    const { width, height, data } = pixels(nv);
    const place = Array.from(nv.scene.crosshairPos), sent = new Set(), drawn = new Set();
    for (let i = 0; i < SAMPLES; i++) {
      for (let j = 0; j < SAMPLES; j++) {
        place[a] = (i + 0.5) / SAMPLES;
        place[b] = (j + 0.5) / SAMPLES;
        const value = volume.getValue(...nv.frac2vox(place)), at = nv.frac2canvasPos(place);
        sent.add(Math.round((255 * (Math.min(high, Math.max(low, value)) - low)) / (high - low)));
        const [x, y] = (at ?? [-1, -1]).map(Math.floor);
        if (x < 0 || y < 0 || x >= width || y >= height) continue;
        const k = 4 * ((height - 1 - y) * width + x);
        drawn.add(65536 * data[k] + 256 * data[k + 1] + data[k + 2]);
      }
    }
    return { sent: sent.size, drawn: drawn.size };
  }

  /** What is wrong with a pane after loading; "" if nothing is. NiiVue itself says nothing when memory is short. */
  function trouble(nv) {
    const gl = nv.gl;
    if (gl.isContextLost()) return "the graphics card gave up (its memory may be full)";
    const error = gl.getError();
    if (error === gl.OUT_OF_MEMORY) return "the graphics card has not enough memory";
    if (error !== gl.NO_ERROR && error !== gl.INVALID_ENUM) return `the graphics card reports error ${error}`;
    const { sent, drawn } = levels(nv);
    if (sent > 2 && drawn < 2) return "the picture is empty (memory of the graphics card may be full)";
    return "";
  }

  return { PLANES, ZOOM_STEP, MOST_VOXELS_IN_SOFTWARE, drawsInSoftware, open, image, link, zoom, jump, pixels, trouble, NVMesh };
})();
