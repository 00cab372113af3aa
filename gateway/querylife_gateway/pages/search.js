// The search page: searches while one types; the address holds query and filters.
"use strict";

const DEBOUNCE_MS = 90;
const SLOW_MS = 500;
const K = 48;
const EXAMPLES = ["red dress", "something to carry my laptop", "white sneakers", "gift for a man who hikes", "blue jeans"];
const FACETS = ["product_type", "articleType", "colour", "color", "baseColour", "gender", "brand", "season", "usage"];
const COLOURS = ["colour", "color", "baseColour"];
const NAMES = { product_type: "Type", articleType: "Type", baseColour: "Colour", color: "Colour" };
const $ = (id) => document.getElementById(id);

const state = { query: "", where: {}, correct: true, index: null, running: null, timer: 0 };

function readAddress() {
  const parameters = new URLSearchParams(location.search);
  state.query = parameters.get("q") ?? "";
  state.where = {};
  for (const [name, value] of parameters) {
    if (name !== "q") (state.where[name] ??= []).push(value);
  }
}

function writeAddress() {
  const parameters = new URLSearchParams();
  if (state.query) parameters.set("q", state.query);
  for (const [name, values] of Object.entries(state.where)) values.forEach((value) => parameters.append(name, value));
  const text = parameters.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

function say(text, failed = false) {
  $("status").replaceChildren(...(Array.isArray(text) ? text : [text]));
  $("status").classList.toggle("failed", failed);
}

function tell(...children) {
  $("message").replaceChildren(...children);
  $("message").hidden = children.length === 0;
}

function show(products) {
  $("results").replaceChildren(...products.map(card));
}

async function search() {
  state.running?.abort();
  writeAddress();
  const query = state.query.trim();
  if (!query) return showStart();
  const running = (state.running = new AbortController());
  const slow = setTimeout(() => say("Still searching …"), SLOW_MS);
  $("results").classList.add("pending");
  const started = performance.now();
  try {
    const where = Object.keys(state.where).length ? state.where : null;
    const answer = await ask("/v1/search", { query, k: K, where, correct: state.correct }, running.signal);
    showAnswer(answer, performance.now() - started);
  } catch (error) {
    if (error.name !== "AbortError") showFailure(error);
  } finally {
    clearTimeout(slow);
    if (state.running === running) $("results").classList.remove("pending");
  }
}

function showAnswer(answer, milliseconds) {
  tell();
  show(answer.products);
  const number = answer.products.length;
  const found = number === K ? `The best ${K}` : `${number} product${number === 1 ? "" : "s"}`;
  const parts = [`${found} in ${Math.round(milliseconds)} ms.`];
  if (answer.corrected !== null) {
    const asTyped = () => { state.correct = false; search(); $("query").focus(); };
    parts.push(" Results for ", make("b", {}, answer.corrected), ". Search for ",
      make("button", { class: "link", type: "button", onclick: asTyped }, answer.query), " instead.");
  }
  say(parts);
  if (number === 0) {
    tell(make("p", {}, "No product passes these filters."), make("button", { type: "button", onclick: clearFilters }, "Clear filters"));
  }
}

function showStart() {
  $("results").classList.remove("pending");
  show([]);
  const count = state.index?.count ?? 0;
  if (state.index && !state.index.searches) {
    say("");
    return tell(make("p", {}, "This gateway searches no index: it was started without --store."));
  }
  say(count ? `${count.toLocaleString("en")} products. Type what you are looking for.` : "");
  const use = (example) => () => { $("query").value = state.query = example; state.correct = true; search(); };
  tell(make("p", {}, "For example:"), make("div", { class: "chips" },
    ...EXAMPLES.map((example) => make("button", { type: "button", onclick: use(example) }, example))));
}

function showFailure(error) {
  if (error.status === 401) return showSignIn();
  say(error.status === 429 ? "The gateway is busy." : "The search failed.", true);
  const again = make("button", { type: "button", class: "main", onclick: search }, "Try again");
  tell(make("p", {}, error.message), again);
  show([]);
  if (error.retryAfterS) {
    clearTimeout(state.timer);
    state.timer = setTimeout(search, 1000 * error.retryAfterS);
  }
}

function showSignIn() {
  say("");
  tell();
  show([]);
  $("signin").hidden = false;
  $("key").focus();
}

function label(product) {
  return product.attributes.title ?? product.attributes.product_type ?? product.id;
}

function card(product, place) {
  const title = label(product);
  const picture = make("div", { class: "picture" }, pictureOf(product, title));
  const kind = [product.attributes.product_type, ...COLOURS.map((name) => product.attributes[name])].filter(Boolean);
  const score = make("div", { class: "score", title: "Probability that the product answers the query" },
    make("span", { class: "bar" }, make("i", { style: null })), make("span", {}, product.score.toFixed(2)));
  score.querySelector("i").style.width = percent(product.score);
  const about = make("div", { class: "about" }, make("h2", {}, title), make("span", { class: "quiet" }, kind.join(" · ")), score);
  if (state.index?.explains) about.append(...whyButton(product, picture));
  return make("li", { class: "product", tabindex: place === 0 ? 0 : -1, "aria-label": `${place + 1}: ${title}` },
    make("span", { class: "rank", "aria-hidden": "true" }, String(place + 1)), picture, about);
}

function whyButton(product, picture) {
  const box = make("div", { class: "why-box", hidden: true });
  const query = $("status").querySelector("b")?.textContent ?? state.query.trim();
  const button = make("button", { class: "why link", type: "button", "aria-expanded": "false",
    "aria-label": `Why ${label(product)}` }, "Why?");
  button.addEventListener("click", async () => {
    const opens = box.hidden;
    box.hidden = !opens;
    button.setAttribute("aria-expanded", String(opens));
    picture.querySelector("canvas")?.remove();
    if (!opens) return;
    if (!box.hasChildNodes()) box.textContent = "…";
    try {
      const why = await ask("/v1/why", { query, id: product.id });
      box.replaceChildren(...whyLines(why));
      if (why.heat && !box.hidden) picture.append(heatMap(why.heat, picture.querySelector("img")));
    } catch (error) {
      box.textContent = error.message;
    }
  });
  return [button, box];
}

const SHARES = { title: "Title and type", picture: "Picture", title_in_picture: "Title, looked up in the picture" };
const WITHOUT = { title: "without the title", picture: "without the picture", product_type: "without the type" };

function whyLines(why) {
  const total = Object.values(why.shares).reduce((sum, share) => sum + Math.abs(share), 0) || 1;
  const shares = make("dl", {});
  for (const [name, share] of Object.entries(why.shares)) {
    const part = Math.abs(share) / total;
    const bar = make("i", { class: share < 0 ? "minus" : "" });
    bar.style.width = percent(part);
    shares.append(make("dt", {}, SHARES[name]), make("dd", {}, `${share / total < -0.005 ? "−" : ""}${percent(part)}`), make("div", { class: "bar" }, bar));
  }
  const without = make("dl", {}, make("dt", {}, "Score"), make("dd", {}, why.probability.toFixed(2)));
  for (const [name, score] of Object.entries(why.without)) {
    without.append(make("dt", {}, WITHOUT[name]), make("dd", {}, score.toFixed(2)));
  }
  return [shares, without];
}

/** heat: rows of numbers in [0, 1], over the square that the model saw: the picture, centred on white. */
function heatMap(heat, image) {
  const side = heat.length;
  const canvas = make("canvas", { width: 200, height: 250, "aria-hidden": "true" });
  const small = make("canvas", { width: side, height: side });
  const pixels = small.getContext("2d").createImageData(side, side);
  heat.flat().forEach((value, place) => {
    pixels.data.set([255, 255 - 170 * value, 255 - 235 * value, 255], 4 * place);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [width, height] = [image?.naturalWidth || 1, image?.naturalHeight || 1];
  const scale = Math.min(200 / width, 250 / height);
  const square = scale * Math.max(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.drawImage(small, (200 - square) / 2, (250 - square) / 2, square, square);
  return canvas;
}

function showFacets() {
  const values = state.index.values;
  const offered = FACETS.filter((name) => values[name] && !(name === "articleType" && values.product_type));
  $("facets").replaceChildren(...offered.map((name) => facet(name, values[name])));
  showActive();
}

function facet(name, values) {
  const labels = Object.entries(values).map(([value, count]) => {
    const box = make("input", { type: "checkbox", name, value });
    box.checked = state.where[name]?.includes(value) ?? false;
    box.addEventListener("change", () => toggle(name, value, box.checked));
    const swatch = COLOURS.includes(name) ? make("span", { class: "swatch" }) : null;
    if (swatch) swatch.style.background = colourOf(value);
    return make("label", {}, box, swatch, make("span", {}, value), make("span", {}, count.toLocaleString("en")));
  });
  return make("fieldset", {}, make("legend", {}, NAMES[name] ?? name[0].toUpperCase() + name.slice(1)),
    make("div", { class: "values", tabindex: 0, role: "group", "aria-label": NAMES[name] ?? name }, ...labels));
}

/** The CSS colour that a shop's word for it means best. */
function colourOf(value) {
  const words = value.toLowerCase().split(/\W+/);
  const guesses = [words.join(""), ...words];
  return guesses.find((guess) => CSS.supports("color", guess)) ?? "conic-gradient(red, gold, green, blue, red)";
}

function toggle(name, value, isOn) {
  const others = (state.where[name] ?? []).filter((other) => other !== value);
  const chosen = isOn ? [...others, value] : others;
  if (chosen.length) state.where[name] = chosen;
  else delete state.where[name];
  showActive();
  search();
}

function showActive() {
  const number = Object.values(state.where).flat().length;
  $("active").textContent = number ? `(${number})` : "";
  $("clear").hidden = number === 0;
}

function clearFilters() {
  state.where = {};
  showFacets();
  search();
}

/** Arrow keys go from product to product; "/" goes to the query, Escape leaves a product for it. */
function onKey(event) {
  const inField = event.target.matches("input");
  if (event.key === "/" && !inField) {
    event.preventDefault();
    $("query").focus();
    return;
  }
  const cards = [...$("results").children];
  const here = cards.indexOf(event.target.closest?.("li.product"));
  if (event.key === "Escape" && here >= 0) return $("query").focus();
  if (event.key === "ArrowDown" && event.target === $("query") && cards.length) return go(event, cards, 0);
  if (here < 0 || !event.target.matches("li.product")) return;
  const columns = getComputedStyle($("results")).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -here, End: cards.length - 1 - here };
  if (event.key === "Enter") return event.target.querySelector("button.why")?.click();
  if (event.key === "ArrowUp" && here < columns) { event.preventDefault(); return $("query").focus(); }
  if (event.key in steps) go(event, cards, Math.max(0, Math.min(cards.length - 1, here + steps[event.key])));
}

function go(event, cards, place) {
  event.preventDefault();
  cards.forEach((other) => { other.tabIndex = -1; });
  cards[place].tabIndex = 0;
  cards[place].focus();
  cards[place].scrollIntoView({ block: "nearest" });
}

async function start() {
  try {
    state.index = await ask("/v1/index");
  } catch (error) {
    return showFailure(error);
  }
  $("facts").textContent = state.index.count ? `${state.index.count.toLocaleString("en")} products, ranked by ${state.index.model}` : "";
  $("query").placeholder = "Search";
  const links = [["/compare", "Compare", state.index.searches], ["/label", "Judge", state.index.evaluates]];
  $("pages").replaceChildren(...links.filter((link) => link[2]).map(([href, words]) => make("a", { href }, words)));
  showFacets();
  search();
  if (state.index.searches && !state.index.count) setTimeout(start, 1500); // what is in the index is still being read
}

readAddress();
$("query").value = state.query;
if (matchMedia("(max-width: 720px)").matches) $("filters").open = false;
$("form").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(state.timer); search(); });
$("query").addEventListener("input", () => {
  clearTimeout(state.timer);
  state.query = $("query").value;
  state.correct = true;
  state.timer = setTimeout(search, DEBOUNCE_MS);
});
$("clear").addEventListener("click", clearFilters);
$("signin").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await ask("/session", { key: $("key").value });
    $("signin").hidden = true;
    $("key").value = "";
    start();
  } catch (error) {
    $("signin-failed").textContent = error.message;
  }
});
document.addEventListener("keydown", onKey);
start();
