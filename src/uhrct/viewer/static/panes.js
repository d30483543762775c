// Panes: NiiVue in a canvas each, linked by place and zoom, and checked after loading.
"use strict";

const uhrctPanes = (() => {
  const { Niivue, NVImage, NVMesh, DRAG_MODE, SLICE_TYPE, SHOW_RENDER } = globalThis.niivue;
  const PLANES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, all: SLICE_TYPE.MULTIPLANAR };
  const ZOOM_STEP = 1.15, LARGEST_ZOOM = 40;

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

  /** A new NiiVue in a canvas. Throws if the browser has no WebGL 2. */
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

  function isEven(picture) {
    const { data } = picture;
    for (let k = 4; k < data.length; k += 4) {
      if (data[k] !== data[0] || data[k + 1] !== data[1] || data[k + 2] !== data[2]) return false;
    }
    return true;
  }

  /** Whether voxels, as sent, show more than one grey level in the window of the pane. */
  function voxelsVary(nv) {
    const { img, cal_min: low, cal_max: high } = nv.volumes[0];
    const grey = (value) => Math.round((255 * (Math.min(high, Math.max(low, value)) - low)) / (high - low));
    const first = grey(img[0]), step = Math.max(1, Math.floor(img.length / 1e5));
    for (let k = 0; k < img.length; k += step) if (grey(img[k]) !== first) return true;
    return false;
  }

  /** What is wrong with a pane after loading; "" if nothing is. NiiVue itself says nothing when memory is short. */
  function trouble(nv) {
    const gl = nv.gl;
    if (gl.isContextLost()) return "the graphics card gave up (its memory may be full)";
    const error = gl.getError();
    if (error === gl.OUT_OF_MEMORY) return "the graphics card has not enough memory";
    if (error !== gl.NO_ERROR && error !== gl.INVALID_ENUM) return `the graphics card reports error ${error}`;
    if (voxelsVary(nv) && isEven(pixels(nv))) return "the picture is empty (memory of the graphics card may be full)";
    return "";
  }

  return { PLANES, ZOOM_STEP, open, image, link, zoom, jump, pixels, isEven, trouble, NVMesh };
})();
