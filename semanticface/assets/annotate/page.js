// The page of `semanticface annotate`. It shows one question at a time and goes on when the server says that the choice
// is stored, never before. Runs once, with `element` the page's root.
const root = element.querySelector("#sf");
const find = (selector) => root.querySelector(selector);
const help = find(".sf-help");
const KEYS = {
  ArrowLeft: "a", a: "a", ArrowRight: "b", b: "b", s: "same", n: "neither", " ": "skip",
  u: "undo", Backspace: "undo", z: "zoom", "?": "help", h: "help",
};
const HEADLINES = {
  upper: "Whose <em>upper face</em> is nearer to the picture?",
  lower: "Whose <em>lower face</em> is nearer to the picture?",
  whole: "Whose <em>face</em> is nearer to the picture?",
};
// Nobody has judged a pair after so few milliseconds: such a key was meant for the pair before.
const TOO_SOON = 150;
const AGAIN = 1500;
const SLOWEST = 30; // seconds between two choices that still count as work
const REMEMBERED = 40;

let shown = null; // id of the question on the page
let shownAt = 0;
let busy = false;
let lastChoice = 0;
const paces = [];

async function ask(name, ...data) {
  const answer = await fetch("gradio_api/run/" + name, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ data }),
  });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return (await answer.json()).data[0];
}

function alertWith(text) {
  const box = find(".sf-alert");
  box.hidden = !text;
  box.textContent = text || "";
}

async function show(state) {
  const question = state.question;
  if (question && question.id !== shown) {
    const images = ["a", "reference", "b"].map((part) => [find(`.sf-${part} img`), question[part]]);
    // Decoded before any is shown, so that all three change at once.
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
  for (const lit of root.querySelectorAll(".sf-chosen, .sf-pressed")) lit.classList.remove("sf-chosen", "sf-pressed");
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
  if (paces.length < 5 || !left) return "";
  const middle = [...paces].sort((one, other) => one - other)[paces.length >> 1];
  const minutes = (left * middle) / 60000;
  return minutes < 1.5 ? "about a minute left" : `about ${Math.round(minutes)} minutes left`;
}

function showEnd(state) {
  const count = state.done === 1 ? "1 question" : `${state.done} questions`;
  find(".sf-end-count").textContent = state.done
    ? `You answered ${count}. That is what the next model learns from.`
    : "There is nothing left to ask: others have answered the questions, or there were none.";
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

async function during(work) {
  if (busy) return;
  busy = true;
  try {
    const state = await work();
    alertWith(state.error);
    await show(state);
  } catch (error) {
    await reconnect();
  }
  busy = false;
}

async function reconnect() {
  alertWith(
    "The server does not answer. Every choice that you saw go by is stored.\n" +
    "Start the same command again; this page goes on by itself."
  );
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
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
  if (lastChoice && now - lastChoice < SLOWEST * 1000) paces.push(now - lastChoice);
  if (paces.length > REMEMBERED) paces.shift();
  lastChoice = now;
  during(() => ask("answer", shown, verdict));
}

function act(what) {
  if (what === "help") {
    if (help.open) help.close();
    else help.showModal();
  } else if (what === "zoom") {
    const close = root.classList.toggle("sf-close");
    find("[data-do=zoom]").setAttribute("aria-pressed", close);
  } else if (what === "undo") {
    if (!find("[data-do=undo]").disabled) during(() => ask("undo"));
  } else {
    choose(what);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  // On a button that was reached with Tab, the space bar presses the button.
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

during(() => ask("state")).then(() => {
  let met = true;
  try {
    met = localStorage.getItem("semanticface-help") === "seen";
    localStorage.setItem("semanticface-help", "seen");
  } catch (error) { /* storage is switched off: no welcome */ }
  if (!met && shown) act("help");
});
