"use strict";
// The page works without this: it adds sorting, filtering, the large view, keys and the second language.
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const texts = JSON.parse(one("#texts").textContent);
  const body = one("#exams"), viewer = one("#viewer"), list = one("#list"), stage = one("#stage");
  const rows = [...body.rows];
  const wide = matchMedia("(min-width: 75rem)");
  const state = { language: navigator.language.startsWith("ko") ? "ko" : "en", group: "all", search: "", sort: "rank",
    order: "ascending", key: "", boxes: true, heat: false, invert: false, reload: false };
  try { Object.assign(state, JSON.parse(sessionStorage.getItem("worklist"))); } catch { /* nothing kept, or not allowed to */ }
  const keep = () => { try { sessionStorage.setItem("worklist", JSON.stringify(state)); } catch { /* as above */ } };
  document.documentElement.classList.add("scripted");

  // --- texts ---
  const text = (key, values = {}) =>
    texts[key][state.language === "ko" ? 1 : 0].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  function translate(root) {
    for (const element of all("[data-t]", root)) {
      element.textContent = text(element.dataset.t, element.dataset.v ? JSON.parse(element.dataset.v) : {});
    }
    for (const element of all("[data-label]", root)) element.ariaLabel = text(element.dataset.label);
    for (const element of all("[data-placeholder]", root)) element.placeholder = text(element.dataset.placeholder);
  }
  let translated = "en";
  function setLanguage(language) {
    state.language = document.documentElement.lang = language;
    document.title = text("title");
    if (language !== translated) translate(document);
    translated = language;
    for (const button of all("[data-language]")) button.ariaPressed = String(button.dataset.language === language);
    show();
    enlarge(current());
  }

  // --- which rows, in which order ---
  const searchable = new Map(rows.map((row) => [row, ["file", "view", "acquired", "patient", "instance"]
    .map((name) => row.dataset[name]).join("\n").toLowerCase()]));
  const visible = () => [...body.rows].filter((row) => !row.hidden);
  function show() {
    const wanted = state.search.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = (state.group === "all" || row.classList.contains(state.group)) && searchable.get(row).includes(wanted);
      row.hidden = !fits;
      count += fits;
    }
    one("#shown").textContent = text("shown", { shown: count, all: rows.length });
    one("#empty").hidden = count > 0;
    for (const button of all("[data-group]")) button.ariaPressed = String(button.dataset.group === state.group);
  }
  const numeric = new Set(["rank", "probability", "marks", "boxes"]);
  function value(row, key) {
    if (key === "marks") return ["noted", "borderline", "ood"].reduce((sum, mark, at) => sum + (row.classList.contains(mark) << at), 0);
    return numeric.has(key) ? Number(row.dataset[key]) : row.dataset[key];
  }
  function sort() {
    const sign = state.order === "ascending" ? 1 : -1;
    const values = new Map(rows.map((row) => [row, value(row, state.sort)]));
    const compare = numeric.has(state.sort) ? (a, b) => a - b : new Intl.Collator(state.language, { numeric: true }).compare;
    const sorted = [...rows].sort((a, b) => {
      const [left, right] = [values.get(a), values.get(b)];
      if ((left === "") !== (right === "")) return left === "" ? 1 : -1; // missing values last
      return sign * compare(left, right) || a.dataset.rank - b.dataset.rank;
    });
    body.append(...sorted);
    for (const button of all("[data-sort]")) {
      const header = button.closest("th");
      if (button.dataset.sort === state.sort) header.ariaSort = state.order; else header.removeAttribute("aria-sort");
    }
    one("#sorting").value = state.sort;
  }
  function narrow(change) {
    Object.assign(state, change);
    show();
    if (wide.matches && current()?.hidden) select(visible()[0], false);
    keep();
  }
  function sortBy(key) {
    const first = one(`[data-sort="${key}"]`).dataset.first;
    const other = first === "ascending" ? "descending" : "ascending";
    state.order = state.sort === key && state.order === first ? other : first;
    state.sort = key;
    sort();
    keep();
  }

  // --- the large view ---
  const current = () => one('[aria-current="true"]', body);
  function fact(name, node, isWide = false) {
    const entry = document.createElement("div"), term = document.createElement("dt"), detail = document.createElement("dd");
    entry.classList.toggle("wide", isWide);
    term.textContent = name;
    detail.append(node);
    entry.append(term, detail);
    one("#facts").append(entry);
  }
  function copied(cell) {
    const whole = document.createElement("span");
    whole.className = cell.closest("tr").classList.contains("above") ? "above" : "below";
    whole.append(...[...cell.childNodes].filter((node) => !node.matches?.(".enlarge")).map((node) => node.cloneNode(true)));
    return whole;
  }
  function enlarge(row) {
    stage.replaceChildren();
    one("#facts").replaceChildren();
    one("#which").textContent = row ? `${row.dataset.rank} · ${one(".name-of-file", row).textContent}` : "";
    if (!row) return;
    const film = (one(".frame", row) ?? one(".missing", row)).cloneNode(true);
    const picture = one("img.picture", film);
    if (picture) {
      film.style.setProperty("--ratio", picture.getAttribute("width") / picture.getAttribute("height"));
      film.addEventListener("click", () => film.classList.toggle("peek"));
    }
    stage.append(film);
    for (const name of ["probability", "marks", "boxes", "acquired", "view", "patient"]) {
      const cell = one(`td.${name}`, row);
      if (cell) fact(text(name), copied(cell));
    }
    if (picture) {
      const [width, height] = ["width", "height"].map((name) => picture.getAttribute(name));
      fact(text("size"), text("pixels", { width, height }));
    }
    if (row.dataset.note) fact(text("note"), row.dataset.note, true);
    if (row.dataset.instance) fact("SOP Instance UID", row.dataset.instance, true);
    fact(text("file"), copied(one("td.file", row)), true);
  }
  function layers() {
    for (const button of all("[data-layer]")) {
      button.ariaPressed = String(state[button.dataset.layer]);
      viewer.classList.toggle(`show-${button.dataset.layer}`, state[button.dataset.layer]);
    }
  }
  function toggle(layer) {
    state[layer] = !state[layer];
    layers();
    keep();
  }
  function select(row, focus = true) {
    if (!row) return;
    const before = current();
    if (before) {
      before.removeAttribute("aria-current");
      before.tabIndex = -1;
    }
    row.setAttribute("aria-current", "true");
    row.tabIndex = 0;
    state.key = row.dataset.key;
    enlarge(row);
    row.scrollIntoView({ block: "nearest" });
    if (focus && !viewer.classList.contains("full")) row.focus({ preventScroll: true });
    keep();
  }
  function step(by) {
    const shown = visible(), at = shown.indexOf(current());
    select(at < 0 ? shown[0] : shown[Math.min(Math.max(at + by, 0), shown.length - 1)]);
  }
  function fill(on) {
    if (on && !current()) step(0);
    viewer.classList.toggle("full", on);
    list.inert = on;
    one(".top").inert = on;
    if (on) one("#close").focus(); else current()?.focus({ preventScroll: true });
  }

  // --- events ---
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr"), film = event.target.closest("button.film");
    if (film) film.ariaPressed = String(film.ariaPressed !== "true");
    select(row, !film);
    if (event.target.closest(".enlarge") || (!film && !wide.matches)) fill(true);
  });
  body.addEventListener("dblclick", () => fill(true));
  for (const button of all("[data-sort]")) button.addEventListener("click", () => sortBy(button.dataset.sort));
  for (const button of all("[data-layer]")) button.addEventListener("click", () => toggle(button.dataset.layer));
  for (const button of all("[data-language]")) button.addEventListener("click", () => { setLanguage(button.dataset.language); keep(); });
  for (const button of all("[data-group]")) button.addEventListener("click", () => narrow({ group: button.dataset.group }));
  one("#search").addEventListener("input", (event) => narrow({ search: event.target.value }));
  one("#sorting").addEventListener("change", (event) => sortBy(event.target.value));
  one("#previous").addEventListener("click", () => step(-1));
  one("#next").addEventListener("click", () => step(1));
  one("#enlarge").addEventListener("click", () => fill(true));
  one("#close").addEventListener("click", () => fill(false));
  one("#reload")?.addEventListener("change", (event) => { state.reload = event.target.checked; keep(); });
  const keys = {
    ArrowDown: () => step(1), ArrowUp: () => step(-1), j: () => step(1), k: () => step(-1),
    Home: () => step(-rows.length), End: () => step(rows.length),
    b: () => toggle("boxes"), g: () => toggle("heat"), i: () => toggle("invert"),
    "/": () => one("#search").focus(),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const full = viewer.classList.contains("full");
    if (key === "Escape" && full) return fill(false);
    if (key === "Escape" && target === one("#search")) return target.blur();
    if (target.matches("input, select")) return;
    if (key === "Enter" && target.matches("tr, body, .list")) fill(!full);
    else if (Object.hasOwn(keys, key)) keys[key]();
    else return;
    event.preventDefault();
  });

  one("#search").value = state.search;
  if (one("#reload")) {
    one("#reload").checked = state.reload;
    setInterval(() => { if (state.reload && !viewer.classList.contains("full")) location.reload(); }, 30000);
  }
  layers();
  if (state.sort !== "rank" || state.order !== "ascending") sort();
  setLanguage(state.language);
  const kept = rows.find((row) => row.dataset.key === state.key && !row.hidden);
  if (kept) select(kept, false); else if (wide.matches) select(visible()[0], false);
})();
