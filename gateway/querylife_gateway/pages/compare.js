// Two rankings of one query side by side: another collection of the store (a model that is rolled out), or other settings.
"use strict";

const K = 24;
const $ = (id) => document.getElementById(id);
const SETTINGS = { hybrid: "with words", correct: "corrected" };
const sides = ["A", "B"].map((name, place) => ({ name, collection: "active", hybrid: place === 1, correct: true }));
let running = null;
let timer = 0;

function head(side) {
  const collection = make("select", { "aria-label": `Collection of ${side.name}` },
    ...["active", "candidate", "previous"].map((name) => make("option", { value: name }, name)));
  collection.value = side.collection;
  collection.addEventListener("change", () => { side.collection = collection.value; search(); });
  const boxes = Object.entries(SETTINGS).map(([name, words]) => {
    const box = make("input", { type: "checkbox" });
    box.checked = side[name];
    box.addEventListener("change", () => { side[name] = box.checked; search(); });
    return make("label", {}, box, words);
  });
  return make("div", { class: "side-head" }, make("h2", {}, side.name), collection, ...boxes);
}

function card(product, place, isOnly) {
  const title = product.attributes.title ?? product.attributes.product_type ?? product.id;
  return make("li", { class: isOnly ? "product only" : "product" }, make("span", { class: "rank", "aria-hidden": "true" }, String(place + 1)),
    make("div", { class: "picture" }, pictureOf(product, title)),
    make("div", { class: "about" }, make("h3", {}, title), make("span", { class: "quiet" }, product.score.toFixed(2))));
}

async function search() {
  running?.abort();
  const query = $("query").value.trim();
  history.replaceState(null, "", query ? `?q=${encodeURIComponent(query)}` : location.pathname);
  if (!query) return;
  const signal = (running = new AbortController()).signal;
  try {
    const answers = await Promise.all(sides.map(({ collection, hybrid, correct }) =>
      ask("/v1/search", { query, k: K, collection, hybrid, correct }, signal)));
    const ids = answers.map((answer) => new Set(answer.products.map((product) => product.id)));
    answers.forEach((answer, side) => {
      const cards = answer.products.map((product, place) => card(product, place, !ids[1 - side].has(product.id)));
      sides[side].list.replaceChildren(...cards);
    });
    const shared = [...ids[0]].filter((id) => ids[1].has(id)).length;
    $("status").classList.remove("failed");
    $("status").textContent = `${shared} of ${K} products on both sides; a frame marks those on one side only.`;
  } catch (error) {
    if (error.name === "AbortError") return;
    $("status").textContent = error.message;
    $("status").classList.add("failed");
    sides.forEach((side) => side.list.replaceChildren());
  }
}

for (const side of sides) {
  side.list = make("ol", { class: "results" });
  $("sides").append(make("section", { "aria-label": `Ranking ${side.name}` }, head(side), side.list));
}
$("query").value = new URLSearchParams(location.search).get("q") ?? "";
$("query").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });
$("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
search();
