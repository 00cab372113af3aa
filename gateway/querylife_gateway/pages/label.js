// The labelling page: one pair at a time, by keyboard. A judgement that was not acknowledged is kept and sent again.
"use strict";

const GRADES = [
  [3, "Exactly this"], [2, "Nearly: close in type and colour"], [1, "A little: right type or right colour"], [0, "No"], [null, "I cannot say"],
];
const KEYS = { 3: 3, 2: 2, 1: 1, 0: 0, s: null, S: null };
const UNSENT = "querylife-unsent-judgements";
const $ = (id) => document.getElementById(id);
const state = { rater: localStorage.getItem("querylife-rater") ?? "", pair: null, last: null, shownAt: 0, busy: false, timer: 0 };

function unsent() {
  return JSON.parse(localStorage.getItem(UNSENT) ?? "[]");
}

function remember(judgements) {
  localStorage.setItem(UNSENT, JSON.stringify(judgements));
}

/** Send what was not acknowledged yet, oldest first. */
async function flush() {
  for (let waiting = unsent(); waiting.length; waiting = unsent()) {
    try {
      await ask("/v1/label/judgements", waiting[0]);
    } catch (error) {
      if (![400, 404].includes(error.status)) throw error; // a pair that is no longer wanted would block the others
    }
    remember(waiting.slice(1));
  }
}

async function next() {
  state.busy = true;
  try {
    await flush();
    const answer = await ask("/v1/label/next", { rater: state.rater });
    show(answer);
  } catch (error) {
    const waiting = unsent().length;
    $("status").textContent = `${error.message}${waiting ? ` ${waiting} judgement${waiting > 1 ? "s are" : " is"} kept here until it does.` : ""}`;
    $("status").classList.add("failed");
    clearTimeout(state.timer);
    if (error.status !== 404 && error.status !== 401) state.timer = setTimeout(next, 1000 * (error.retryAfterS ?? 2));
    return;
  } finally {
    state.busy = false;
  }
  $("status").classList.remove("failed");
}

function show(answer) {
  state.pair = answer.pair;
  $("status").textContent = `${answer.done} judged by you, ${answer.pairs} pairs in all.`;
  $("pair").hidden = !answer.pair;
  $("message").hidden = Boolean(answer.pair);
  if (!answer.pair) return $("message").replaceChildren(make("p", {}, "Nothing is left for you to judge. Thank you."));
  state.shownAt = performance.now();
  draw(answer.pair);
}

function draw(pair) {
  $("query").textContent = pair.query;
  $("title").textContent = pair.attributes.title ?? "(no title)";
  $("type").textContent = pair.attributes.product_type ?? "";
  $("picture").replaceChildren(pictureOf(pair, ""));
}

function judge(grade) {
  if (!state.pair || state.busy) return;
  const seconds = Math.min(86400, (performance.now() - state.shownAt) / 1000);
  const judgement = { rater: state.rater, query: state.pair.query, id: state.pair.id, grade, seconds };
  remember([...unsent(), judgement]);
  state.last = state.pair;
  next();
}

/** Show the last pair again; its next judgement counts instead. */
function takeBack() {
  if (!state.last || state.busy) return;
  state.pair = state.last;
  state.last = null;
  $("pair").hidden = false;
  $("message").hidden = true;
  state.shownAt = performance.now();
  draw(state.pair);
}

function begin() {
  $("who").hidden = true;
  next();
}

$("grades").append(...GRADES.map(([grade, words]) => make("button", { type: "button", onclick: () => judge(grade) },
  make("kbd", {}, grade === null ? "S" : String(grade)), ` ${words}`)));
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  state.rater = $("rater").value.trim();
  if (!state.rater) return;
  localStorage.setItem("querylife-rater", state.rater);
  begin();
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in KEYS) judge(KEYS[event.key]);
  else if (event.key === "u" || event.key === "U") takeBack();
});
$("rater").value = state.rater;
if (state.rater) begin();
