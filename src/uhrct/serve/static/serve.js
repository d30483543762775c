// The page: one card per scan, kept up to date by asking the server.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const POLL_MS = 700, IDLE_MS = 3000;
  const DENOISE = "0.75"; // the default, which is left to the server
  const ACTIVE = ["looking", "waiting", "running"];
  const STATES = {
    uploading: "Upload not complete", looking: "Looking for CT series", ready: "Ready to start", waiting: "Waits for its turn",
    running: "Running", done: "Done", failed: "Failed", cancelled: "Cancelled",
  };
  const cards = new Map(); // name of a job -> its card
  const mine = new Map(); // name of a job -> what only this page knows: its title, the names of its files, its upload
  let timer = null, most = Infinity, count = 0;

  async function ask(method, path, body) {
    const answer = await fetch(path, { method, headers: method === "GET" ? {} : { "X-Uhrct": "1" }, body });
    const said = answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : {};
    if (!answer.ok) throw new Error(said.error ?? `the server refused (${answer.status})`);
    return said;
  }

  function complain(error) {
    $("problem").textContent = error ? error.message : "";
  }

  /** Do something that a person asked for, show what was wrong with it, and look at once. */
  async function act(what) {
    complain(null);
    try {
      await what();
    } catch (error) {
      complain(error);
    }
    poll();
  }

  async function poll() {
    clearTimeout(timer);
    let active = true;
    try {
      const said = await ask("GET", "jobs");
      $("gone").hidden = true;
      most = said.most_bytes;
      show(said.jobs);
      active = said.jobs.some((job) => ACTIVE.includes(job.state)) || [...mine.values()].some((m) => m.upload !== null);
    } catch {
      $("gone").hidden = false;
      active = false;
    }
    clearTimeout(timer);
    timer = setTimeout(poll, active ? POLL_MS : IDLE_MS);
  }

  async function add(files, folder) {
    const scan = uhrctUpload.scan(files, folder), size = scan.files.reduce((sum, f) => sum + f.size, 0);
    if (size > most) throw new Error(`the scan has ${(size / 1e9).toFixed(1)} GB, of at most ${most / 1e9} GB; start uhrct serve with a larger --max-gb`);
    const { name } = await ask("POST", "jobs");
    const own = { title: scan.name, names: {}, upload: 0 };
    mine.set(name, own);
    poll();
    try {
      own.names = await uhrctUpload.sendAll(name, scan.files, (share) => {
        own.upload = share;
        if (cards.has(name)) uploadShown(cards.get(name), own);
      });
      await ask("POST", `jobs/${name}/look`);
    } catch (error) {
      await ask("DELETE", `jobs/${name}`).catch(() => {});
      if (mine.has(name)) throw error; // not if the person deleted it
    } finally {
      own.upload = null;
    }
  }

  // Cards

  function newCard(job) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const part = (selector) => card.querySelector(selector);
    const path = `jobs/${job.name}`;
    card.number = ++count;
    part(".view").href = `${path}/view/`;
    part(".result").href = `${path}/result`;
    part(".report").href = `${path}/report`;
    part(".cancel").addEventListener("click", () => act(() => ask("POST", `${path}/cancel`)));
    part(".delete").addEventListener("click", () => act(async () => {
      mine.delete(job.name);
      await ask("DELETE", path);
      $("choose-file").focus();
    }));
    part(".again").addEventListener("click", () => {
      card.open = true;
      part("form").hidden = false;
      part(".again").hidden = true;
      part("[name=scale]").focus();
    });
    part("[name=denoise]").addEventListener("input", (e) => { part(".share").textContent = Number(e.target.value).toFixed(2); });
    part("form").addEventListener("submit", (e) => {
      e.preventDefault();
      act(() => ask("POST", `${path}/start`, JSON.stringify(wish(part("form")))));
    });
    $("scans").prepend(card);
    return card;
  }

  function wish(form) {
    const data = new FormData(form);
    return {
      series: Number(data.get("series") ?? 1), scale: data.get("scale"), quality: data.get("quality"),
      format: data.get("format"), denoise: data.get("denoise") === DENOISE ? null : Number(data.get("denoise")), audit: data.has("audit"), untilt: data.has("untilt"),
    };
  }

  function show(jobs) {
    const here = new Set(jobs.map((job) => job.name));
    for (const [name, card] of cards) {
      if (!here.has(name)) {
        card.remove();
        cards.delete(name);
      }
    }
    for (const job of jobs) {
      if (!cards.has(job.name)) cards.set(job.name, newCard(job));
      update(cards.get(job.name), job, mine.get(job.name));
    }
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
    return element;
  }

  function update(card, job, own) {
    const part = (selector) => card.querySelector(selector);
    const title = own ? own.title : `Scan ${card.number}`;
    const files = job.files === 1 ? "1 file" : `${job.files} files`;
    setText(part(".name"), `${title} (${files}, ${job.megabytes} MB)`);
    const good = job.state !== "ready" || job.series.some((s) => s.number && !s.problem);
    const place = !good ? "Cannot be processed" : job.state === "running" && job.stage ? `${job.stage[0].toUpperCase()}${job.stage.slice(1)}` : STATES[job.state];
    setText(part(".state"), own?.upload !== null && own?.upload !== undefined ? "Uploading" : place);
    const active = ACTIVE.includes(job.state);
    part(".work").hidden = !active;
    part(".cancel").hidden = !active;
    if (active) {
      const bar = part("progress");
      if (job.state === "running" && job.total) bar.value = job.done / job.total;
      else bar.removeAttribute("value");
      setText(part(".left"), job.state === "running" && job.total ? `${Math.floor(job.done + 1e-6)} of ${job.total}${job.left && ", "}${job.left}` : "");
    }
    if (own?.upload !== null && own?.upload !== undefined) uploadShown(card, own);
    part(".error").hidden = !job.error;
    setText(part(".error"), named(job.error, own));
    part(".outcome").hidden = job.state !== "done";
    lines(part(".summary"), job.summary);
    part(".said").hidden = !job.plan.length && !job.notes.length;
    lines(part(".plan"), job.plan);
    lines(part(".notes"), job.notes.map((note) => named(note, own)));
    if (card.run !== job.run) card.open = false; // a new result takes the place of the form
    card.run = job.run;
    const done = job.state === "done", startable = job.series.length > 0 && !active;
    part("form").hidden = !startable || (done && !card.open);
    part(".again").hidden = !startable || !done || card.open;
    if (job.series.length && !card.listed) list(card, job);
  }

  function uploadShown(card, own) {
    card.querySelector(".work").hidden = false;
    card.querySelector("progress").value = own.upload;
    setText(card.querySelector(".left"), `${Math.round(100 * own.upload)} %`);
  }

  /** Messages name files by number; this page knows how they are called. */
  function named(text, own) {
    return text.replace(/\b(\d{6})(\.dcm)?\b/g, (all, number) => own?.names[Number(number)] ?? all);
  }

  function lines(list, texts) {
    if (list.shown === texts.join("\n")) return;
    list.shown = texts.join("\n");
    list.replaceChildren(...texts.map((text) => setText(document.createElement("li"), text)));
  }

  /** The series of a scan. A person chooses if there are several, or if the only one has a problem. */
  function list(card, job) {
    card.listed = true;
    const good = job.series.filter((s) => !s.problem && s.number);
    card.querySelector(".tilt").hidden = !job.series.some((s) => s.needs);
    card.querySelector("[name=untilt]").checked = good.length > 0 && Boolean(good[0].needs);
    card.querySelector(".start").disabled = !good.length;
    const fields = card.querySelector(".series");
    fields.hidden = job.series.length === 1 && !job.series[0].problem && !job.series[0].notes.length && !job.series[0].needs;
    job.series.forEach((s) => fields.append(row(s, s === good[0], mine.get(job.name))));
  }

  function row(series, chosen, own) {
    const label = document.createElement("label"), radio = document.createElement("input"), text = document.createElement("span");
    Object.assign(radio, { type: "radio", name: "series", value: series.number, checked: chosen, disabled: Boolean(series.problem) });
    const facts = [series.size && `${series.size} voxels`, series.spacing && `${series.spacing} mm`, series.plane, series.scanner];
    text.textContent = [series.number && `${series.number}:`, series.description || series.text].filter(Boolean).join(" ");
    text.append(small([series.description && series.text, ...facts].filter(Boolean).join(", "), ""));
    if (series.problem) text.append(small(named(`Cannot be processed: ${series.problem}`, own), "problem"));
    if (series.needs) text.append(small(`Needs ${series.needs}`, "problem"));
    for (const note of series.notes) text.append(small(note, ""));
    label.append(radio, text);
    return label;
  }

  function small(text, kind) {
    const element = document.createElement("small");
    element.className = kind;
    return setText(element, text);
  }

  // Choosing and dropping

  for (const [button, input] of [["choose-file", "file"], ["choose-folder", "folder"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      const files = [...$(input).files];
      $(input).value = "";
      if (files.length) act(() => add(files, input === "folder" ? files[0].webkitRelativePath.split("/")[0] : ""));
    });
  }
  for (const kind of ["dragover", "dragleave", "drop"]) {
    window.addEventListener(kind, (e) => {
      e.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind !== "drop") return;
      const found = uhrctUpload.dropped(e.dataTransfer.items); // the items are gone after this event
      act(async () => {
        const { files, folder } = await found;
        await add(files, folder);
      });
    });
  }
  poll();
})();
