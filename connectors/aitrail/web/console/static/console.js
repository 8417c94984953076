// Loads the panels that are in view, and makes the frame comfortable. Without it everything is there as tables.
"use strict";
(() => {
  const root = document.documentElement;

  // --- theme
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches);
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        window.localStorage.setItem("aitrail-theme", root.dataset.theme);
      } catch {
        // not remembered, then
      }
      redrawAll();
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redrawAll());

  // --- frame
  const menu = document.getElementById("menu");
  if (menu) menu.addEventListener("click", () => menu.setAttribute("aria-expanded", String(menu.getAttribute("aria-expanded") !== "true")));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const find = document.getElementById("find");
      if (find) {
        event.preventDefault();
        find.focus();
      }
    }
    if (event.key === "Escape") closeHelp(null);
  });
  const closeHelp = (kept) => {
    for (const one of document.querySelectorAll("details.help[open]")) if (one !== kept) one.open = false;
  };
  document.addEventListener("click", (event) => {
    closeHelp(event.target.closest("details.help"));
    const row = event.target.closest("tr.go");
    if (row && !event.target.closest("a") && !String(window.getSelection())) {
      const link = row.querySelector("a[href]");
      if (link) link.click();
    }
  });
  // Empty fields say nothing; the address stays short.
  for (const form of document.querySelectorAll("form.filters")) {
    form.addEventListener("submit", () => {
      for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
      const range = form.elements.namedItem("range");
      if (range && range.value !== "custom") for (const name of ["since", "until"]) {
        const field = form.elements.namedItem(name);
        if (field) field.disabled = true;
      }
    });
    const range = form.elements.namedItem("range");
    if (range) range.addEventListener("change", () => {
      const exact = range.value === "custom";
      for (const field of form.querySelectorAll(".exact")) field.hidden = !exact;
      if (exact) form.elements.namedItem("since").focus();
      else form.requestSubmit();
    });
  }
  window.addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("form.filters :disabled")) field.disabled = false;
  });
  let asked = false;
  document.addEventListener("focusin", async (event) => {
    if (asked || !event.target.matches("input[list^='choices-']")) return;
    asked = true;
    const answer = await fetch("/api/choices", { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer || !answer.ok) return;
    for (const [name, values] of Object.entries(await answer.json())) {
      const list = document.getElementById(`choices-${name}`);
      if (list) list.replaceChildren(...values.map((value) => Object.assign(document.createElement("option"), { value })));
    }
  });

  // --- panels
  const panels = [...document.querySelectorAll("[data-panel]")].map((place) => ({
    place, body: place.querySelector(".body"), title: place.querySelector("h3").textContent, answer: null, chart: null, table: false,
  }));
  if (!panels.length || !window.aitrail) return;
  const AT_ONCE = 4;
  const waiting = [];
  let running = 0;

  function paint(panel) {
    if (panel.chart) panel.chart.dispose();
    panel.chart = null;
    const drawn = window.aitrail.draw(panel.answer, panel.body, panel.title, panel.table);
    panel.chart = drawn.chart || null;
    panel.place.dataset.state = drawn.state;
    const notes = [];
    if (panel.answer.present) notes.push("as of now, whatever the range");
    if (panel.answer.ignored.length) notes.push(`not narrowed by ${panel.answer.ignored.map((name) => name.replace("_id", "")).join(", ")}`);
    if (panel.answer.truncated) notes.push("only the first rows");
    if (notes.length && panel.answer.form !== "single") panel.body.append(window.aitrail.element("small", {}, notes.join("; ")));
  }
  function redrawAll() {
    for (const panel of panels) if (panel.answer) paint(panel);
  }
  async function load(panel) {
    panel.place.dataset.state = "loading";
    try {
      const answer = await fetch(panel.place.dataset.panel, { headers: { Accept: "application/json" } });
      if (answer.status === 401) {
        window.location.assign("/login");
        return;
      }
      const told = await answer.json();
      if (!answer.ok) throw new Error([told.error, told.hint].filter(Boolean).join("; "));
      panel.answer = told;
      paint(panel);
    } catch (error) {
      const again = window.aitrail.element("button", { type: "button" }, "Try again");
      again.addEventListener("click", () => enqueue(panel));
      const said = error instanceof TypeError ? "The console does not answer." : error.message;
      panel.body.replaceChildren(window.aitrail.element("p", { class: "state bad", role: "alert" }, said, again));
      panel.place.dataset.state = "error";
    }
  }
  function enqueue(panel) {
    waiting.push(panel);
    next();
  }
  async function next() {
    while (running < AT_ONCE && waiting.length) {
      running += 1;
      const panel = waiting.shift();
      load(panel).finally(() => {
        running -= 1;
        next();
      });
    }
  }
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      enqueue(panels.find((panel) => panel.place === entry.target));
    }
  }, { rootMargin: "250px" });
  const sized = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const panel = panels.find((one) => one.body === entry.target);
      if (panel && panel.chart) panel.chart.resize();
    }
  });
  for (const panel of panels) {
    seen.observe(panel.place);
    sized.observe(panel.body);
    const swap = panel.place.querySelector(".swap");
    if (swap) swap.addEventListener("click", () => {
      panel.table = !panel.table;
      swap.setAttribute("aria-pressed", String(panel.table));
      if (panel.answer) paint(panel);
    });
  }
})();
