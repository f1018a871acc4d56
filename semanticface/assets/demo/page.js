// The page of `semanticface demo`. Runs once, with `element` the page's root. All results come from the JSON lines of
// `semanticface predict`; all texts are inserted as text, never as markup.
const root = element.querySelector("#sf");
const find = (selector) => root.querySelector(selector);
const make = (tag, className = "", text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
const picture = find(".sf-picture"), clip = find(".sf-clip"), camera = find(".sf-camera"), photo = find(".sf-photo");
const STEP = 250; // milliseconds between two progress requests, and between two changes of the analysis
const VISIBLE = 0.05;

let setup = null;
let head = null;
let answer = null; // the displayed answer: { name, jsonl, csv, rows, times }
let last = null; // { name, blob } of the last file, to read it again
let busy = false;
let live = null; // identity of the current live session
let following = Promise.resolve(); // the pending request of a live frame
let shownAt = 0;
let address = "";

async function ask(name, ...data) {
  const reply = await fetch("gradio_api/run/" + name, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ data }),
  });
  if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
  return (await reply.json()).data[0];
}

function showError(text, whole = false) {
  const box = find(".sf-alert");
  box.hidden = !text;
  box.firstElementChild.textContent = text || "";
  box.querySelector("button").hidden = !whole;
  if (text) box.scrollIntoView({ block: "nearest" });
}

function showBusy(text, done = 0, of = 0) {
  find(".sf-busy").hidden = !text;
  find(".sf-busy span").textContent = text;
  const bar = find(".sf-busy progress");
  bar.hidden = !of;
  if (of) Object.assign(bar, { max: of, value: done });
}

// --- reading -----------------------------------------------------------------------------------------------------

const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

const emotion = () => setup.emotion && find(".sf-emotion input").checked;

// Reads a file and shows the answer. `quick` is for frames of the live webcam, which are not previewed.
async function read(name, blob, { whole = false, quick = false } = {}) {
  if (!setup) return;
  if (!quick) {
    stopFollowing();
    await following;
  }
  if (busy) {
    showError(`Please wait: ${last.name} is still being read.`);
    return;
  }
  if (blob.size > setup.max_bytes) {
    showError(`${name}: ${Math.round(blob.size / 2 ** 20)} MiB, this page takes up to ${setup.max_bytes / 2 ** 20}. `
      + `Shorten it, or read it with: semanticface predict ${name} --out take.csv`);
    return;
  }
  busy = true;
  last = { name, blob };
  const job = crypto.getRandomValues(new Uint32Array(4)).join("-");
  let timer = 0;
  if (!quick) {
    showError("");
    preview(blob);
    root.dataset.state = "reading";
    showBusy("Reading");
    timer = setInterval(async () => {
      const [done, of] = await ask("progress", job).catch(() => [0, null]);
      if (done && busy) showBusy(of ? `Reading frame ${done} of ${of}` : `Reading frame ${done}`, done, of || 0);
    }, STEP);
  }
  try {
    const reply = await ask("read", name, await base64(blob), whole, emotion(), job);
    if (reply.status === "ok") {
      root.dataset.state = "answer";
      show(reply, quick);
    } else if (quick) {
      find(".sf-remark").hidden = false;
      find(".sf-remark").textContent = "No face in view.";
    } else {
      clear();
      showError(reply.reason, reply.status === "no_face" && !whole);
    }
  } catch (error) {
    clear();
    showError("The server did not answer. Check the terminal in which semanticface demo runs, and try again.");
  } finally {
    clearInterval(timer);
    busy = false;
    if (!quick) showBusy("");
    root.dataset.count = Number(root.dataset.count) + 1;
  }
}

// Shows the picture or clip, as large as the view allows, while it is being read.
function preview(blob) {
  stopCamera();
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(blob);
  const moving = blob.type.startsWith("video/");
  const [shown, other] = moving ? [clip, picture] : [picture, clip];
  other.hidden = true;
  other.removeAttribute("src");
  clip.pause();
  find(".sf-box").hidden = find(".sf-downloads").hidden = true;
  delete photo.dataset.width;
  answer = null;
  const toggle = (on) => {
    shown.hidden = photo.hidden = !on;
    find(".sf-empty").hidden = on;
  };
  shown[moving ? "onloadedmetadata" : "onload"] = () => {
    toggle(true);
    if (moving) fit(clip.videoWidth, clip.videoHeight);
    else fit(picture.naturalWidth, picture.naturalHeight);
  };
  shown.onerror = () => toggle(false);
  shown.src = address;
}

function fit(width, height) {
  const view = photo.parentElement;
  const scale = Math.min(view.clientWidth / width, view.clientHeight / height);
  Object.assign(photo.style, { width: `${width * scale}px`, height: `${height * scale}px` });
  photo.dataset.width = width;
  photo.dataset.height = height;
  if (answer && !answer.live) showBox(answer.rows[0].box);
}

function showBox(box) {
  const mark = find(".sf-box");
  const { width, height } = photo.dataset;
  const whole = !box || (box[0] <= 0 && box[1] <= 0 && box[2] >= width && box[3] >= height);
  mark.hidden = whole || !width;
  if (mark.hidden) return;
  const percent = (value, of) => `${(100 * value) / of}%`;
  Object.assign(mark.style, {
    left: percent(box[0], width), top: percent(box[1], height),
    width: percent(box[2] - box[0], width), height: percent(box[3] - box[1], height),
  });
}

// --- the answer ---------------------------------------------------------------------------------------------------

function show(reply, quick) {
  const rows = reply.jsonl.trim().split("\n").map((line) => JSON.parse(line));
  const good = rows.filter((row) => row.status === "ok");
  answer = { ...reply, rows: good, times: good.map((row) => row.time || 0), live: quick };
  const checked = find(".sf-checked");
  checked.hidden = !reply.checked || quick;
  if (reply.checked) {
    const { holds, claims, wrong } = reply.checked;
    checked.firstElementChild.textContent = `${holds} of ${claims} claims of the analysis agree with the coefficients`;
    checked.lastElementChild.textContent = wrong.length ? `Contradicted: ${wrong.join("; ")}.` : "None is contradicted.";
  }
  const remark = find(".sf-remark");
  const count = reply.kind === "clip" ? `${rows.length} frames` : "Read";
  remark.textContent = [reply.note && reply.note + (reply.note.endsWith(".") ? "" : "."), `${count} in ${reply.seconds.toFixed(2)} s.`].filter(Boolean).join(" ");
  remark.hidden = false;
  find(".sf-downloads").hidden = quick;
  shownAt = 0;
  // The analysis of a clip or webcam changes too often for a screen reader.
  find(".sf-headline").setAttribute("aria-live", quick || reply.kind === "clip" ? "off" : "polite");
  showRow(good[0], reply.kind === "clip");
  if (reply.kind === "clip") play();
}

// Removes the answer of another picture.
function clear(state = "error") {
  answer = null;
  root.dataset.state = state;
  find(".sf-headline").textContent = "Nothing read";
  for (const part of [".sf-suggests", ".sf-checked", ".sf-remark", ".sf-downloads"]) find(part).hidden = true;
  find(".sf-regions").replaceChildren();
  head?.set({});
  showBars({}, {});
  showPose(null);
}

// Shows one row on the head, the bars and the analysis.
function showRow(row, atOnce) {
  head?.set(row.coefficients, atOnce, row.pose);
  showBars(row.coefficients, row.interval || {});
  showPose(row.pose);
  showAnalysis(row.analysis);
  if (!answer.live) showBox(row.box);
}

function showAnalysis(analysis) {
  if (!analysis) return;
  find(".sf-headline").textContent = analysis.expression_category;
  const hint = analysis.emotional_implication;
  find(".sf-suggests").hidden = hint == null;
  find(".sf-suggests b").textContent = hint ?? "";
  find(".sf-suggests").classList.toggle("sf-rest", hint === setup.unclear);
  const lines = [...Object.entries(analysis.muscle_movements), ["symmetry", analysis.symmetry]];
  find(".sf-regions").replaceChildren(...lines.map(([region, text]) => {
    const line = make("div", text === setup.relaxed[region] ? "sf-rest" : "");
    line.append(make("dt", "", region), make("dd", "", text));
    return line;
  }));
}

// The head, the bars and the analysis follow the clip, also when the user seeks.
function play() {
  const playing = answer;
  clip.play().catch(() => undefined); // the browser cannot play the clip, or blocks autoplay
  const started = performance.now();
  const length = playing.times.at(-1) + 0.04;
  const step = (now) => {
    if (answer !== playing) return;
    const time = clip.error ? ((now - started) / 1000) % length : clip.currentTime;
    const index = Math.max(0, playing.times.findLastIndex((each) => each <= time + 0.001));
    const row = playing.rows[index];
    if (playing.at !== index) {
      playing.at = index;
      head?.set(row.coefficients, true, row.pose);
      showBars(row.coefficients, row.interval || {});
      showPose(row.pose);
      root.dataset.frame = row.frame;
    }
    if (now - shownAt > STEP && playing.analysisAt !== index) {
      shownAt = now;
      playing.analysisAt = index;
      showAnalysis(row.analysis);
    }
    showBox(row.box);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

// --- bars ---------------------------------------------------------------------------------------------------------

const bars = new Map();
const RIGHT = new Set(["mouth", "jaw", "tongue"]); // column: about half of the 52

function buildBars() {
  for (const [region, actions] of Object.entries(setup.regions)) {
    const group = make("section", "sf-group");
    group.dataset.region = region;
    const title = make("h3");
    const paired = actions.some((action) => action.side !== "both");
    title.append(make("span", "", paired ? "right" : ""), make("b", "", region), make("span", "", paired ? "left" : ""));
    group.append(title);
    for (const action of actions) {
      if (action.side === "right") continue; // next to its left partner
      const row = make("div", "sf-row");
      const other = actions.find((each) => each.name === action.mirror);
      row.append(side(other, "sf-right", action.side === "both"), make("span", "", action.words), side(action, "sf-left"));
      group.append(row);
    }
    find(`.sf-groups > :${RIGHT.has(region) ? "last" : "first"}-child`).append(group);
  }
}

// A midline action is drawn on both sides, but announced once.
function side(action, style, echo = false) {
  const box = make("span", `sf-side ${style}`);
  const track = make("span", "sf-track");
  const bar = make("i"), likely = make("i"), number = make("b");
  track.append(bar, likely);
  box.append(track, number);
  if (echo) {
    box.setAttribute("aria-hidden", "true");
  } else {
    box.setAttribute("role", "meter");
    box.setAttribute("aria-valuemin", "0");
    box.setAttribute("aria-valuemax", "1");
    box.setAttribute("aria-label", action.name);
    box.dataset.action = action.name;
  }
  box.title = action.facs.length ? `${action.name} (${action.facs.join(", ")})` : action.name;
  bars.set(`${action.name} ${style}`, { action, box, bar, likely, number, style, echo });
  return box;
}

function showBars(values, interval) {
  for (const { action, box, bar, likely, number, style, echo } of bars.values()) {
    const value = values[action.name] ?? 0;
    const range = interval[action.name];
    bar.style.width = `${100 * value}%`;
    const edge = style === "sf-left" ? "left" : "right";
    likely.style.width = range ? `${100 * (range[1] - range[0])}%` : "0";
    likely.style[edge] = range ? `${100 * range[0]}%` : "0";
    const partner = action.side === "both" ? value : Math.max(value, values[action.mirror] ?? 0);
    box.parentElement.classList.toggle("sf-on", partner >= VISIBLE);
    if (echo) continue;
    number.textContent = value.toFixed(2);
    box.setAttribute("aria-valuenow", value.toFixed(2));
    box.setAttribute("aria-valuetext", range
      ? `${value.toFixed(2)}, likely ${range[0].toFixed(2)} to ${range[1].toFixed(2)}` : value.toFixed(2));
  }
}

// --- rotations ----------------------------------------------------------------------------------------------------

const WAYS = { Yaw: ["right", "left"], Pitch: ["down", "up"], Roll: ["left", "right"] }; // of positive and negative angles
const FARTHEST = 60; // degrees: an end of the track
const rotations = new Map();

function buildPose() {
  for (const name of setup.rotations) {
    const row = make("div", "sf-row");
    const track = make("span", "sf-track");
    const bar = make("i"), number = make("b");
    track.append(bar);
    row.append(make("span", "", name.replace(/\B[A-Z]/g, " $&").toLowerCase()), track, number);
    track.setAttribute("role", "meter");
    track.setAttribute("aria-valuemin", -FARTHEST);
    track.setAttribute("aria-valuemax", FARTHEST);
    track.setAttribute("aria-label", name);
    row.dataset.rotation = name;
    rotations.set(name, { row, track, bar, number });
    find(".sf-pose").append(row);
  }
}

// The rotations of a row, of models that predict them.
function showPose(pose) {
  find(".sf-pose").hidden = !pose;
  if (!pose) return;
  for (const [name, { row, track, bar, number }] of rotations) {
    const degrees = Math.round(pose[name] * 180 / Math.PI);
    const way = WAYS[/Yaw|Pitch|Roll/.exec(name)[0]][degrees > 0 ? 0 : 1];
    const far = Math.min(Math.abs(degrees), FARTHEST) / FARTHEST * 50;
    // The subject's right is on the left, as in the picture.
    const leftwards = ["right", "down"].includes(way);
    Object.assign(bar.style, { left: `${leftwards ? 50 - far : 50}%`, width: `${far}%` });
    number.textContent = degrees ? `${Math.abs(degrees)}° ${way}` : "0°";
    track.setAttribute("aria-valuenow", degrees);
    track.setAttribute("aria-valuetext", number.textContent);
    row.classList.toggle("sf-on", Math.abs(degrees) > 2);
  }
}

// --- the webcam ---------------------------------------------------------------------------------------------------

// While the webcam is on, its picture and the head are displayed mirrored; the image that is read is not.
function mirrored(on) {
  root.dataset.mirror = on;
  head?.mirror(on);
  for (const line of root.querySelectorAll(".sf-sides")) {
    const [first, second] = line.children;
    [first.textContent, second.textContent] = on ? ["your left", "your right"] : ["subject’s right", "subject’s left"];
  }
  for (const name of ["frame", "live", "stop"]) find(`[data-do=${name}]`).hidden = !on;
  find("[data-do=camera]").hidden = find(".sf-tools label").hidden = on;
}

async function startCamera() {
  showError("");
  try {
    camera.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: 640, height: 480 } });
  } catch (error) {
    showError(error.name === "NotAllowedError"
      ? "The browser blocks the webcam for this page. Allow it next to the address, and try again."
      : "No webcam was found. Choose a picture instead.");
    return;
  }
  clip.pause();
  clear("idle");
  delete photo.dataset.width;
  picture.hidden = clip.hidden = true;
  camera.hidden = photo.hidden = false;
  find(".sf-empty").hidden = find(".sf-box").hidden = true;
  camera.onloadedmetadata = () => fit(camera.videoWidth, camera.videoHeight);
  mark("");
  mirrored(true);
}

function stopFollowing() {
  live = null;
  find("[data-do=live]").setAttribute("aria-pressed", "false");
}

function stopCamera() {
  stopFollowing();
  if (!camera.srcObject) return;
  for (const each of camera.srcObject.getTracks()) each.stop();
  camera.srcObject = null;
  camera.hidden = true;
  photo.hidden = true;
  find(".sf-empty").hidden = false;
  mirrored(false);
}

function grab() {
  const canvas = Object.assign(document.createElement("canvas"), { width: camera.videoWidth, height: camera.videoHeight });
  canvas.getContext("2d").drawImage(camera, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

async function follow() {
  if (live) return stopFollowing();
  const mine = live = {};
  find("[data-do=live]").setAttribute("aria-pressed", "true");
  while (live === mine) {
    const shot = await grab();
    if (live !== mine) break;
    following = read("webcam.jpg", shot, { quick: true });
    await following;
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}

// --- downloads ----------------------------------------------------------------------------------------------------

function save(name, parts, type) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function download(form) {
  const stem = answer.name.replace(/\.[^.]*$/, "");
  if (form === "jsonl") return save(`${stem}.jsonl`, [answer.jsonl], "application/jsonl");
  // Slate, take and subject, as Unreal Engine parses them from a recording's name.
  if (form === "csv") return save(`SemanticFace_1_${stem.replaceAll("_", "-")}.csv`, [answer.csv], "text/csv");
  const reply = await ask("animation", answer.name, answer.jsonl);
  if (reply.reason) return showError(reply.reason);
  return save(`${stem}.glb`, [bytes(reply.data)], "model/gltf-binary");
}

// --- start --------------------------------------------------------------------------------------------------------

function mark(file) {
  for (const button of root.querySelectorAll(".sf-examples button")) {
    button.setAttribute("aria-pressed", button.dataset.file === file);
  }
}

async function take(file) {
  if (!file) return;
  mark("");
  await read(file.name, file);
}

function buildExamples() {
  for (const { file, kind } of setup.examples) {
    const button = make("button");
    const source = `${root.dataset.assets}/examples/${file}`;
    const moving = file.endsWith(".webm");
    button.type = "button";
    button.dataset.file = file;
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Example: ${kind}`);
    button.title = kind;
    if (moving) button.dataset.clip = "";
    button.append(Object.assign(make("img"), { src: moving ? source.replace(".webm", ".jpg") : source, alt: "" }));
    button.addEventListener("click", async () => {
      mark(file);
      await read(file, await (await fetch(source)).blob());
    });
    find(".sf-examples").append(button);
  }
}

const handlers = {
  camera: startCamera,
  frame: async () => read("webcam.jpg", await grab()),
  live: follow,
  stop: stopCamera,
  front: () => head?.front(),
  theme: () => theme(root.dataset.theme === "dark" ? "light" : "dark"),
  whole: () => last && read(last.name, last.blob, { whole: true }),
  jsonl: () => download("jsonl"),
  csv: () => download("csv"),
  glb: () => download("glb"),
};

function theme(name) {
  root.dataset.theme = name;
  document.documentElement.style.background = name === "dark" ? "#121418" : "#f4f2ee";
}

root.addEventListener("click", (event) => handlers[event.target.closest("[data-do]")?.dataset.do]?.());
find(".sf-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  await take(file);
});
find(".sf-emotion input").addEventListener("change", () => {
  if (!emotion()) find(".sf-suggests").hidden = true; // at once: the next answer has none
  if (last && answer && !answer.live && !camera.srcObject) read(last.name, last.blob);
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  root.addEventListener(kind, (event) => {
    event.preventDefault();
    find(".sf-in").classList.toggle("sf-over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData?.files[0]));
window.addEventListener("resize", () => {
  if (photo.dataset.width && !photo.hidden) fit(Number(photo.dataset.width), Number(photo.dataset.height));
});

theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

async function start() {
  try {
    setup = await ask("setup");
  } catch (error) {
    showError("The server did not answer. Reload the page in a moment.");
    return;
  }
  find(".sf-file").accept = setup.accept;
  find(".sf-emotion").hidden = !setup.emotion;
  find(".sf-model").textContent = `SemanticFace ${setup.version}, model ${setup.model}, `
    + `${(setup.parameters / 1e6).toFixed(1)} million parameters.`;
  buildBars();
  buildPose();
  showBars({}, {});
  buildExamples();
  root.dataset.ready = "page";
  try {
    const viewer = await import(new URL(`${root.dataset.assets}/viewer.js`, document.baseURI));
    head = await viewer.openHead(find(".sf-head"), bytes(await ask("head")).buffer);
    if (answer) head.set(answer.rows[0].coefficients, true, answer.rows[0].pose);
    head.mirror(root.dataset.mirror === "true");
  } catch (error) {
    console.warn("no head:", error);
    find(".sf-head").hidden = true;
    find(".sf-nohead").hidden = false;
  }
  root.dataset.ready = "all";
}
start();
