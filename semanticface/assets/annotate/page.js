// The page of `semanticface annotate`. It shows one question at a time and moves on once the server confirms that the
// choice is stored. Runs once, with `element` the page's root.
const root = element.querySelector("#sf");
const find = (selector) => root.querySelector(selector);
const help = find(".sf-help");
const KEYS = {
  ArrowLeft: "a", a: "a", ArrowRight: "b", b: "b", s: "same", n: "neither", " ": "skip",
  u: "undo", Backspace: "undo", z: "zoom", "?": "help", h: "help",
};
const HEADLINES = {
  upper: "Whose <em>upper face</em> is closer to the picture?",
  lower: "Whose <em>lower face</em> is closer to the picture?",
  whole: "Whose <em>face</em> is closer to the picture?",
};
const TOO_SOON = 150; // milliseconds; an earlier key was meant for the previous pair
const RECONNECT = 1500; // milliseconds between attempts
const SLOWEST = 30; // seconds; a longer pause is not used to estimate the remaining time
const MAX_DURATIONS = 40;

let shown = null; // id of the question on the page
let shownAt = 0;
let busy = false;
let lastChoice = 0;
const durations = [];

async function ask(name, ...data) {
  const answer = await fetch("gradio_api/run/" + name, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ data }),
  });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return (await answer.json()).data[0];
}

function showError(text) {
  const box = find(".sf-alert");
  box.hidden = !text;
  box.textContent = text || "";
}

async function show(state) {
  const question = state.question;
  if (question && question.id !== shown) {
    const images = ["a", "reference", "b"].map((part) => [find(`.sf-${part} img`), question[part]]);
    // Decode all three before showing any, so that they change at the same time.
    await Promise.all(images.map(([, source]) => {
      const ready = new Image();
      ready.src = source;
      return ready.decode().catch(() => undefined);
    }));
    for (const [image, source] of images) image.src = source;
    find(".sf-ask").innerHTML = HEADLINES[question.area];
    root.dataset.area = question.area;
    shownAt = performance.now();
  }
  for (const marked of root.querySelectorAll(".sf-chosen, .sf-pressed")) marked.classList.remove("sf-chosen", "sf-pressed");
  shown = question ? question.id : null;
  const total = state.done + state.left;
  const bar = find(".sf-bar");
  bar.firstElementChild.style.width = total ? `${(100 * state.done) / total}%` : "100%";
  bar.setAttribute("aria-valuemax", total);
  bar.setAttribute("aria-valuenow", state.done);
  find(".sf-done").textContent = `${state.done} of ${total}`;
  find(".sf-left").textContent = timeLeft(state.left);
  find(".sf-who").textContent = `${state.annotator}, round ${state.round}`;
  find("[data-do=undo]").disabled = !state.can_undo;
  if (!question) showEnd(state);
  find(".sf-end").hidden = Boolean(question);
  root.dataset.done = state.done;
  root.dataset.question = shown || "";
  root.dataset.state = question ? "asking" : "end";
}

function timeLeft(left) {
  if (durations.length < 5 || !left) return "";
  const middle = [...durations].sort((one, other) => one - other)[durations.length >> 1];
  const minutes = (left * middle) / 60000;
  return minutes < 1.5 ? "about a minute left" : `about ${Math.round(minutes)} minutes left`;
}

function showEnd(state) {
  const count = state.done === 1 ? "1 question" : `${state.done} questions`;
  find(".sf-end-count").textContent = state.done
    ? `You answered ${count}. The next model learns from them.`
    : "There are no questions left: other annotators answered them, or there were none.";
  const list = find(".sf-figures");
  list.replaceChildren();
  for (const [name, hits, of] of state.consistency) {
    if (!of) continue;
    const item = document.createElement("div");
    item.append(Object.assign(document.createElement("dt"), { textContent: name }));
    item.append(Object.assign(document.createElement("dd"), { textContent: `${hits} of ${of}` }));
    list.append(item);
  }
}

async function update(request) {
  if (busy) return;
  busy = true;
  try {
    const state = await request();
    showError(state.error);
    await show(state);
  } catch (error) {
    await reconnect();
  }
  busy = false;
}

async function reconnect() {
  showError(
    "The server does not answer. Every confirmed choice is stored.\n" +
    "Run the same command again; this page reconnects by itself."
  );
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, RECONNECT));
    try {
      await ask("state");
      location.reload();
      return;
    } catch (error) {
      continue;
    }
  }
}

function choose(verdict) {
  const now = performance.now();
  if (busy || !shown || now - shownAt < TOO_SOON) return;
  find(`figure[data-verdict="${verdict}"]`)?.classList.add("sf-chosen");
  find(`button[data-verdict="${verdict}"]`).classList.add("sf-pressed");
  if (lastChoice && now - lastChoice < SLOWEST * 1000) durations.push(now - lastChoice);
  if (durations.length > MAX_DURATIONS) durations.shift();
  lastChoice = now;
  update(() => ask("answer", shown, verdict));
}

function act(what) {
  if (what === "help") {
    if (help.open) help.close();
    else help.showModal();
  } else if (what === "zoom") {
    const close = root.classList.toggle("sf-close");
    find("[data-do=zoom]").setAttribute("aria-pressed", close);
  } else if (what === "undo") {
    if (!find("[data-do=undo]").disabled) update(() => ask("undo"));
  } else {
    choose(what);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  // On a focused button, the space bar presses the button.
  if (event.key === " " && event.target instanceof HTMLButtonElement) return;
  const what = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!what || (help.open && what !== "help")) return;
  event.preventDefault();
  if (!event.repeat) act(what);
});
root.addEventListener("click", (event) => {
  const target = event.target.closest("[data-verdict], [data-do]");
  if (!target) return;
  target.blur();
  act(target.dataset.verdict || target.dataset.do);
});

update(() => ask("state")).then(() => {
  let seen = true;
  try {
    seen = localStorage.getItem("semanticface-help") === "seen";
    localStorage.setItem("semanticface-help", "seen");
  } catch (error) { /* storage is disabled: do not open the help */ }
  if (!seen && shown) act("help");
});
