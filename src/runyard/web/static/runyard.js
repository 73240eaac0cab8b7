// What every page needs of a script: moments in the viewer's zone, ages that go on, and a word when the service is away.
"use strict";

(() => {
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const short = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });

  function span(seconds) {
    if (seconds < 1) return "0 s";
    if (seconds < 60) return `${Math.floor(seconds)} s`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
    const hours = Math.floor(minutes / 60);
    if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
    return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  }

  function show(time) {
    const moment = new Date(time.dateTime);
    const seconds = (Date.now() - moment) / 1000;
    const kind = time.dataset.show;
    const text = kind === "at" ? short.format(moment)
      : kind === "for" ? span(seconds)
      : seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
    if (time.textContent !== text) time.textContent = text;
    if (!time.title) time.title = exact.format(moment);
  }

  const showAll = (root) => root.querySelectorAll("time[data-show]").forEach(show);

  document.addEventListener("DOMContentLoaded", () => {
    showAll(document);
    showButtons(document);
    if (location.hash === "#search") document.getElementById("search")?.focus();
    setInterval(() => showAll(document), 1000);
  });

  // -- what a viewer opened or wrote stays when the page moves
  const written = new WeakSet();
  document.addEventListener("input", (event) => written.add(event.target));
  if (window.Idiomorph) {
    window.Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => !(node.dataset && "still" in node.dataset);
    window.Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => {
      if (name === "open" && node.tagName === "DETAILS") return false;
      if ((name === "value" || name === "checked") && written.has(node)) return false;
      return !(name === "hidden" && node.dataset && node.dataset.copy);
    };
  }

  // -- copying, and the way to the search
  function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    getSelection().selectAllChildren(source);
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 2000); };
    if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(done, () => {});
    else if (document.execCommand("copy")) done(); // without TLS a browser offers nothing else
  }

  const showButtons = (root) => root.querySelectorAll("button[data-copy]").forEach((button) => { button.hidden = false; });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); } else location.assign("/jobs#search");
  });

  const connection = () => document.getElementById("connection");
  document.addEventListener("htmx:afterSwap", (event) => { showAll(event.target); showButtons(event.target); });
  document.addEventListener("htmx:sseOpen", () => { const word = connection(); if (word) word.hidden = true; });
  document.addEventListener("htmx:sseError", async () => {
    const word = connection();
    if (word) { word.hidden = false; word.textContent = "The service does not answer; trying again…"; }
    const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => null);
    if (answer && answer.type === "opaqueredirect") location.reload(); // the session is over: to the form, and back here
    else if (word && answer?.ok) word.textContent = "This page stands still for now; trying again…"; // too many are open
  });
  document.addEventListener("htmx:sseOpen", (event) => {
    event.detail.source?.addEventListener("gone", () => location.reload()); // it then says itself what became of it
  });
  document.addEventListener("htmx:sseBeforeMessage", () => { const word = connection(); if (word) word.hidden = true; });
})();
