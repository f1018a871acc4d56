// The page of `semanticface demo`. Runs once, with `element` the page's root. Everything that is shown comes from the
// lines of JSON that `semanticface predict` would write; all texts go in as text, never as markup.
const root = element.querySelector("#sf");
const find = (selector) => root.querySelector(selector);
const make = (kind, style = "", text = "") => Object.assign(document.createElement(kind), { className: style, textContent: text });
const picture = find(".sf-picture"), clip = find(".sf-clip"), camera = find(".sf-camera"), photo = find(".sf-photo");
const STEP = 250; // milliseconds between two readings of how far a clip is, and two changes of its words
const VISIBLE = 0.05;

let setup = null;
let head = null;
let answer = null; // what is on the page: { name, jsonl, csv, rows, times }
let last = null; // { name, blob } that was read last, for reading it again
let busy = false;
let live = null; // what following the webcam is known by, while it goes on
let following = Promise.resolve(); // the reading of a live frame that is under way
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

function complain(text, whole = false) {
  const box = find(".sf-alert");
  box.hidden = !text;
  box.firstElementChild.textContent = text || "";
  box.querySelector("button").hidden = !whole;
  if (text) box.scrollIntoView({ block: "nearest" });
}

function working(text, done = 0, of = 0) {
  find(".sf-busy").hidden = !text;
  find(".sf-busy span").textContent = text;
  const bar = find(".sf-busy progress");
  bar.hidden = !of;
  if (of) Object.assign(bar, { max: of, value: done });
}

// --- what is read -------------------------------------------------------------------------------------------------

const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

const emotion = () => setup.emotion && find(".sf-emotion input").checked;

// Reads a file and shows the answer. `quick` is for frames of a live camera: the picture itself is not shown.
async function read(name, blob, { whole = false, quick = false } = {}) {
  if (!setup) return;
  if (!quick) {
    stopFollowing();
    await following;
  }
  if (busy) {
    complain(`One moment, please: ${last.name} is still being read.`);
    return;
  }
  if (blob.size > setup.max_bytes) {
    complain(`${name}: ${Math.round(blob.size / 2 ** 20)} MiB, this page takes up to ${setup.max_bytes / 2 ** 20}. `
      + `Cut it shorter, or read it with: semanticface predict ${name} --out take.csv`);
    return;
  }
  busy = true;
  last = { name, blob };
  const job = crypto.getRandomValues(new Uint32Array(4)).join("-");
  let timer = 0;
  if (!quick) {
    complain("");
    present(blob);
    root.dataset.state = "reading";
    working("Reading");
    timer = setInterval(async () => {
      const [done, of] = await ask("progress", job).catch(() => [0, null]);
      if (done && busy) working(of ? `Reading frame ${done} of ${of}` : `Reading frame ${done}`, done, of || 0);
    }, STEP);
  }
  try {
    const said = await ask("read", name, await base64(blob), whole, emotion(), job);
    if (said.status === "ok") {
      root.dataset.state = "answer";
      show(said, quick);
    } else if (quick) {
      find(".sf-remark").hidden = false;
      find(".sf-remark").textContent = "No face in view.";
    } else {
      clear();
      complain(said.reason, said.status === "no_face" && !whole);
    }
  } catch (error) {
    clear();
    complain("The server did not answer. Look at the terminal in which semanticface demo runs, and try again.");
  } finally {
    clearInterval(timer);
    busy = false;
    if (!quick) working("");
    root.dataset.count = Number(root.dataset.count) + 1;
  }
}

// Shows the picture or clip itself, as large as the view allows, while it is being read.
function present(blob) {
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
  const seen = (on) => {
    shown.hidden = photo.hidden = !on;
    find(".sf-empty").hidden = on;
  };
  shown[moving ? "onloadedmetadata" : "onload"] = () => {
    seen(true);
    if (moving) frame(clip.videoWidth, clip.videoHeight);
    else frame(picture.naturalWidth, picture.naturalHeight);
  };
  shown.onerror = () => seen(false);
  shown.src = address;
}

function frame(width, height) {
  const view = photo.parentElement;
  const scale = Math.min(view.clientWidth / width, view.clientHeight / height);
  Object.assign(photo.style, { width: `${width * scale}px`, height: `${height * scale}px` });
  photo.dataset.width = width;
  photo.dataset.height = height;
  if (answer && !answer.live) outline(answer.rows[0].box);
}

function outline(box) {
  const mark = find(".sf-box");
  const { width, height } = photo.dataset;
  const whole = !box || (box[0] <= 0 && box[1] <= 0 && box[2] >= width && box[3] >= height);
  mark.hidden = whole || !width;
  if (mark.hidden) return;
  const share = (value, of) => `${(100 * value) / of}%`;
  Object.assign(mark.style, {
    left: share(box[0], width), top: share(box[1], height),
    width: share(box[2] - box[0], width), height: share(box[3] - box[1], height),
  });
}

// --- what is shown ------------------------------------------------------------------------------------------------

function show(said, quick) {
  const rows = said.jsonl.trim().split("\n").map((line) => JSON.parse(line));
  const good = rows.filter((row) => row.status === "ok");
  answer = { ...said, rows: good, times: good.map((row) => row.time || 0), live: quick };
  const checked = find(".sf-checked");
  checked.hidden = !said.checked || quick;
  if (said.checked) {
    const { holds, claims, wrong } = said.checked;
    checked.firstElementChild.textContent = `${holds} of ${claims} claims in these words hold for the numbers`;
    checked.lastElementChild.textContent = wrong.length ? `Not so: ${wrong.join("; ")}.` : "All of them do.";
  }
  const remark = find(".sf-remark");
  const pace = said.kind === "clip" ? `${rows.length} frames` : "Read";
  remark.textContent = [said.note && said.note + (said.note.endsWith(".") ? "" : "."), `${pace} in ${said.seconds.toFixed(2)} s.`].filter(Boolean).join(" ");
  remark.hidden = false;
  find(".sf-downloads").hidden = quick;
  shownAt = 0;
  // Words that go with a clip or webcam change too often to be read out.
  find(".sf-headline").setAttribute("aria-live", quick || said.kind === "clip" ? "off" : "polite");
  tell(good[0], said.kind === "clip");
  if (said.kind === "clip") play();
}

// What stood there was said of another picture.
function clear(state = "error") {
  answer = null;
  root.dataset.state = state;
  find(".sf-headline").textContent = "Nothing read";
  for (const part of [".sf-suggests", ".sf-checked", ".sf-remark", ".sf-downloads"]) find(part).hidden = true;
  find(".sf-regions").replaceChildren();
  head?.set({});
  measure({}, {});
}

// Puts one row onto head, bars and words.
function tell(row, atOnce) {
  head?.set(row.coefficients, atOnce);
  measure(row.coefficients, row.interval || {});
  word(row.analysis);
  if (!answer.live) outline(row.box);
}

function word(analysis) {
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

// The head, the bars and the words go with the clip as it plays, jumps or is dragged.
function play() {
  const playing = answer;
  clip.play().catch(() => undefined); // a browser that cannot show the clip, or will not start it by itself
  const began = performance.now();
  const length = playing.times.at(-1) + 0.04;
  const step = (now) => {
    if (answer !== playing) return;
    const shown = clip.error ? ((now - began) / 1000) % length : clip.currentTime;
    const place = Math.max(0, playing.times.findLastIndex((time) => time <= shown + 0.001));
    const row = playing.rows[place];
    if (playing.at !== place) {
      playing.at = place;
      head?.set(row.coefficients, true);
      measure(row.coefficients, row.interval || {});
      root.dataset.frame = row.frame;
    }
    if (now - shownAt > STEP && playing.told !== place) {
      shownAt = now;
      playing.told = place;
      word(row.analysis);
    }
    outline(row.box);
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
      if (action.side === "right") continue; // beside its left partner
      const row = make("div", "sf-row");
      const other = actions.find((each) => each.name === action.mirror);
      row.append(side(other, "sf-right", action.side === "both"), make("span", "", action.words), side(action, "sf-left"));
      group.append(row);
    }
    find(`.sf-groups > :${RIGHT.has(region) ? "last" : "first"}-child`).append(group);
  }
}

// An action on the midline is drawn to both sides, and told once.
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

function measure(values, interval) {
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

// --- the webcam ---------------------------------------------------------------------------------------------------

// While the webcam is on, picture and head are mirrors, as everybody knows themselves; what is read is not mirrored.
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
  complain("");
  try {
    camera.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: 640, height: 480 } });
  } catch (error) {
    complain(error.name === "NotAllowedError"
      ? "The browser does not let this page use the webcam. Allow it beside the address, and try again."
      : "No webcam was found. Choose a picture instead.");
    return;
  }
  clip.pause();
  clear("idle");
  delete photo.dataset.width;
  picture.hidden = clip.hidden = true;
  camera.hidden = photo.hidden = false;
  find(".sf-empty").hidden = find(".sf-box").hidden = true;
  camera.onloadedmetadata = () => frame(camera.videoWidth, camera.videoHeight);
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
  // Slate, take and subject, as Unreal Engine reads them off a recording's name.
  if (form === "csv") return save(`SemanticFace_1_${stem.replaceAll("_", "-")}.csv`, [answer.csv], "text/csv");
  const made = await ask("animation", answer.name, answer.jsonl);
  if (made.reason) return complain(made.reason);
  return save(`${stem}.glb`, [bytes(made.data)], "model/gltf-binary");
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

const doings = {
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

root.addEventListener("click", (event) => doings[event.target.closest("[data-do]")?.dataset.do]?.());
find(".sf-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  await take(file);
});
find(".sf-emotion input").addEventListener("change", () => {
  if (!emotion()) find(".sf-suggests").hidden = true; // at once, and the next answer has none
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
  if (photo.dataset.width && !photo.hidden) frame(Number(photo.dataset.width), Number(photo.dataset.height));
});

theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

async function begin() {
  try {
    setup = await ask("setup");
  } catch (error) {
    complain("The server did not answer. Reload the page in a moment.");
    return;
  }
  find(".sf-file").accept = setup.accept;
  find(".sf-emotion").hidden = !setup.emotion;
  find(".sf-model").textContent = `SemanticFace ${setup.version}, model ${setup.model}, `
    + `${(setup.parameters / 1e6).toFixed(1)} million parameters.`;
  buildBars();
  measure({}, {});
  buildExamples();
  root.dataset.ready = "page";
  try {
    const viewer = await import(new URL(`${root.dataset.assets}/viewer.js`, document.baseURI));
    head = await viewer.openHead(find(".sf-head"), bytes(await ask("head")).buffer);
    if (answer) head.set(answer.rows[0].coefficients, true);
    head.mirror(root.dataset.mirror === "true");
  } catch (error) {
    console.warn("no head:", error);
    find(".sf-head").hidden = true;
    find(".sf-nohead").hidden = false;
  }
  root.dataset.ready = "all";
}
begin();
