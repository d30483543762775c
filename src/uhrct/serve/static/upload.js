// Files that a person chose or dropped -> requests. The names of the files stay in this page.
"use strict";

const uhrctUpload = (() => {
  const VOLUMES = [".nii.gz", ".nii", ".nrrd", ".mha"], ARCHIVE = ".zip", SLICE = ".dcm";
  // requests at the same time
  const PARALLEL = 3;

  /** The kind of a file by the end of its name; "" is perhaps a DICOM file without one. */
  function suffix(name) {
    const lower = name.toLowerCase();
    return [...VOLUMES, ARCHIVE, SLICE].find((s) => lower.endsWith(s)) ?? "";
  }

  const isSlice = (file) => ["", SLICE].includes(suffix(file.name));

  /** The files that make one scan, and a name for it. Throws if they make none. */
  function scan(files, folder) {
    const seen = files.filter((f) => !f.name.startsWith(".") && f.name.toUpperCase() !== "DICOMDIR");
    if (!seen.length) throw new Error("there is no file in it");
    const slices = seen.filter(isSlice), others = seen.filter((f) => !isSlice(f));
    if (slices.length && (folder || !others.length)) return { files: slices, name: folder || slices[0].name };
    if (seen.length === 1) return { files: seen, name: seen[0].name };
    throw new Error("choose one file, or a folder of DICOM files");
  }

  async function entries(entry) {
    if (entry instanceof File) return [entry];
    if (entry.isFile) return [await new Promise((good, bad) => entry.file(good, bad))];
    const reader = entry.createReader(), found = [];
    for (;;) {
      const some = await new Promise((good, bad) => reader.readEntries(good, bad));
      if (!some.length) return found;
      for (const each of some) found.push(...(await entries(each)));
    }
  }

  /** The files of a drop, those in folders too, and the name of the folder. */
  async function dropped(items) {
    const tops = [...items].filter((i) => i.kind === "file").map((i) => i.webkitGetAsEntry() ?? i.getAsFile());
    const folder = tops.length === 1 && tops[0].isDirectory ? tops[0].name : "";
    return { files: (await Promise.all(tops.map(entries))).flat(), folder };
  }

  /** Send one file; `moved(bytes)` is told how far it is. */
  function send(address, file, moved) {
    return new Promise((good, bad) => {
      const request = new XMLHttpRequest();
      request.open("POST", address);
      request.setRequestHeader("X-Uhrct", "1");
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.responseType = "json";
      request.upload.onprogress = (e) => moved(e.loaded);
      request.onload = () => request.status < 300 ? good(request.response) : bad(new Error(request.response?.error ?? `the server refused (${request.status})`));
      request.onerror = () => bad(new Error("the connection to the server broke; if the scan is larger than the server allows, see --max-gb"));
      request.send(file);
    });
  }

  /** Send all files of a scan, some at a time. Gives their names by the numbers that the server gave them. */
  async function sendAll(job, files, progress) {
    const waiting = [...files], names = {}, total = files.reduce((sum, f) => sum + f.size, 0);
    const sent = new Map();
    const one = async () => {
      for (let file = waiting.shift(); file; file = waiting.shift()) {
        const current = file;
        const answer = await send(`jobs/${job}/files?suffix=${encodeURIComponent(suffix(current.name))}`, current, (bytes) => {
          sent.set(current, bytes);
          progress([...sent.values()].reduce((a, b) => a + b, 0) / Math.max(total, 1));
        });
        names[answer.number] = current.name;
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, one));
    return names;
  }

  return { scan, dropped, sendAll };
})();
