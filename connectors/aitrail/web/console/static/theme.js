// Before the first paint: the theme that the viewer chose here once; else the system's decides.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = window.localStorage.getItem("aitrail-theme");
  } catch {
    // storage is off: the system's theme it is
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  document.documentElement.classList.add("js");
})();
