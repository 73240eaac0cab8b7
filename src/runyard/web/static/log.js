// The log of one attempt. It reads windows around what is looked at and follows what is printed from now on, so that a
// log of a gigabyte costs no more than a short one. A line's address is the offset of its first byte: it never moves.
"use strict";

(() => {
  const REFUSED_MS = 5000; // until a stream that was refused is asked for again
  const WINDOW = 128 * 1024; // bytes that are read at a time
  const LINES_MAX = 6000; // of one stream, in the page at a time
  const section = document.getElementById("log");
  if (!section) return;

  const decoder = () => new TextDecoder("utf-8", { fatal: false });
  const streams = new Map(); // "step\0stream" -> Stream
  const chosen = { attempt: 0 };
  let events = null;

  const query = (fields) => {
    const all = { tenant: section.dataset.tenant, ...fields };
    return new URLSearchParams(Object.entries(all).filter(([, value]) => value !== "" && value !== 0 && value != null));
  };
  const address = (tail, fields) => `${section.dataset.address}${tail}?${query(fields)}`;
  const follows = () => section.querySelector(".follow input").checked;

  // -- colours: SGR only; everything else that a terminal would obey is left out
  const CONTROL = /\x1b\[([0-9;]*)m|\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b./g;

  function paint(line, text, style) {
    let at = 0;
    const put = (piece) => {
      if (!piece) return;
      if (!style.size) line.append(piece);
      else {
        const span = document.createElement("span");
        span.className = [...style].join(" ");
        span.textContent = piece;
        line.append(span);
      }
    };
    for (const match of text.matchAll(CONTROL)) {
      put(text.slice(at, match.index));
      at = match.index + match[0].length;
      if (match[1] !== undefined) apply(style, match[1]);
    }
    put(text.slice(at));
  }

  function apply(style, codes) {
    const drop = (kind) => { for (const name of style) if (name.startsWith(kind)) style.delete(name); };
    const numbers = codes.split(";").map(Number);
    for (let index = 0; index < numbers.length; index += 1) {
      const code = numbers[index];
      if (code === 0) style.clear();
      else if (code === 1) style.add("sgr-bold");
      else if (code === 2) style.add("sgr-faint");
      else if (code === 3) style.add("sgr-italic");
      else if (code === 4) style.add("sgr-line");
      else if (code === 22) { style.delete("sgr-bold"); style.delete("sgr-faint"); }
      else if (code === 23) style.delete("sgr-italic");
      else if (code === 24) style.delete("sgr-line");
      else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) { drop("sgr-f"); style.add(`sgr-f${code % 10}`); }
      else if (code === 39) drop("sgr-f");
      else if ((code >= 40 && code <= 47) || (code >= 100 && code <= 107)) { drop("sgr-b"); style.add(`sgr-b${code % 10}`); }
      else if (code === 49) drop("sgr-b");
      else if (code === 38 || code === 48) index += numbers[index + 1] === 5 ? 2 : 4; // 256 and true colours: as plain
    }
  }

  // -- one stream of one step
  class Stream {
    constructor(step, name) {
      this.step = step;
      this.name = name;
      this.begin = 0; // [begin, end) of the stream is in the page, whole lines
      this.end = 0;
      this.size = 0;
      this.rest = new Uint8Array(0); // bytes of a last line that is not whole yet, from `end` on
      this.style = new Set();
      this.box = document.createElement("article");
      this.box.className = `stream ${name}`;
      const title = document.createElement("h3");
      const download = document.createElement("a");
      download.href = address("", { attempt: chosen.attempt, step, stream: name, download: 1 });
      download.textContent = "download";
      title.append(name === "stderr" ? `${step}, stderr ` : `${step} `, download);
      this.earlier = document.createElement("button");
      this.earlier.type = "button";
      this.earlier.className = "quiet";
      this.earlier.textContent = "Earlier lines";
      this.earlier.hidden = true;
      this.earlier.addEventListener("click", () => this.readEarlier());
      this.lines = document.createElement("div");
      this.lines.className = "lines";
      this.lines.tabIndex = 0;
      this.lines.setAttribute("role", "log");
      this.lines.setAttribute("aria-live", "off");
      this.lines.setAttribute("aria-label", `Output of ${step}, ${name}`);
      this.later = document.createElement("button");
      this.later.type = "button";
      this.later.className = "quiet";
      this.later.textContent = "Later lines";
      this.later.hidden = true;
      this.later.addEventListener("click", () => this.readLater());
      this.box.append(title, this.earlier, this.lines, this.later);
    }

    id(offset) { return `L-${this.step}-${this.name}-${offset}`; }

    line(bytes, offset, style) {
      const line = document.createElement("div");
      line.id = this.id(offset);
      const link = document.createElement("a");
      link.href = `#${encodeURIComponent(line.id)}`;
      link.className = "place";
      link.setAttribute("aria-label", `Link to the line at byte ${offset}`);
      line.append(link);
      paint(line, decoder().decode(bytes).replace(/\r$/, "").replace(/^.*\r/, ""), style);
      return line;
    }

    // Whole lines of `bytes`, which begins at `offset`: their elements, and what is left over.
    cut(bytes, offset, style) {
      const made = document.createDocumentFragment();
      let at = 0;
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, at)) {
        made.append(this.line(bytes.subarray(at, end), offset + at, style));
        at = end + 1;
      }
      return { made, at };
    }

    append(bytes) { // the bytes that follow what is in the page
      const all = new Uint8Array(this.rest.length + bytes.length);
      all.set(this.rest);
      all.set(bytes, this.rest.length);
      const stays = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight > 40;
      const { made, at } = this.cut(all, this.end, this.style);
      this.lines.querySelector(":scope > .open")?.remove();
      this.lines.append(made);
      this.end += at;
      this.rest = all.slice(at);
      if (this.rest.length) {
        const open = this.line(this.rest, this.end, new Set(this.style));
        open.classList.add("open");
        this.lines.append(open);
      }
      this.trim(true);
      this.show();
      if (follows() && !stays) this.lines.scrollTop = this.lines.scrollHeight;
    }

    prepend(bytes, offset) { // the bytes right before `begin`, from a line's start
      const height = this.lines.scrollHeight;
      const { made } = this.cut(bytes, offset, new Set());
      this.lines.prepend(made);
      this.begin = offset;
      this.trim(false);
      this.show();
      this.lines.scrollTop += this.lines.scrollHeight - height;
    }

    trim(atTop) { // keeps the page light: what is out of sight at the far end goes, and can be read again
      const surplus = this.lines.childElementCount - LINES_MAX;
      if (surplus <= 0) return;
      for (let count = 0; count < surplus; count += 1) {
        (atTop ? this.lines.firstElementChild : this.lines.lastElementChild).remove();
      }
      const offsetOf = (line) => Number(line.id.slice(line.id.lastIndexOf("-") + 1));
      if (atTop) this.begin = offsetOf(this.lines.firstElementChild);
      else {
        const last = this.lines.lastElementChild;
        this.end = offsetOf(last);
        last.remove();
        this.rest = new Uint8Array(0);
      }
    }

    show() {
      this.earlier.hidden = this.begin === 0;
      this.later.hidden = this.end + this.rest.length >= this.size;
    }

    note(words) {
      const line = document.createElement("div");
      line.className = "note";
      line.textContent = words;
      this.lines.append(line);
    }

    async read(from, to) { // [from, to): the part of it that is there, and where that begins
      const answer = await fetch(address("", { attempt: chosen.attempt, step: this.step, stream: this.name }), {
        headers: { Range: `bytes=${from}-${Math.max(from, to - 1)}` },
      });
      if (answer.status !== 206) return null;
      const begin = Number(answer.headers.get("Content-Range").match(/bytes (\d+)-/)[1]);
      return { begin, bytes: new Uint8Array(await answer.arrayBuffer()) };
    }

    async readTail() {
      const from = Math.max(0, this.size - WINDOW);
      const window = this.size ? await this.read(from, this.size) : null;
      if (!window) { this.begin = this.end = this.size; this.show(); return; }
      let skip = 0;
      if (window.begin > 0) skip = window.bytes.indexOf(10) + 1; // begin with a whole line
      this.begin = this.end = window.begin + skip;
      this.append(window.bytes.subarray(skip));
      this.lines.scrollTop = this.lines.scrollHeight;
    }

    async readEarlier() {
      const from = Math.max(0, this.begin - WINDOW);
      const window = await this.read(from, this.begin);
      if (!window) { this.begin = 0; this.show(); return; }
      const skip = window.begin > 0 ? window.bytes.indexOf(10) + 1 : 0;
      if (window.begin + window.bytes.length < this.begin) this.note(`${this.begin - window.begin - window.bytes.length} bytes are not there`);
      this.prepend(window.bytes.subarray(skip), window.begin + skip);
    }

    async readLater() {
      const at = this.end + this.rest.length;
      const window = await this.read(at, Math.min(this.size, at + WINDOW));
      if (!window) { this.end = this.size; this.show(); return; }
      if (window.begin > at) { this.note(`${window.begin - at} bytes are not there`); this.end = window.begin; this.rest = new Uint8Array(0); }
      this.append(window.bytes);
    }

    async goTo(offset) { // the line that begins at `offset`
      if (offset < this.begin || offset >= this.end || !document.getElementById(this.id(offset))) {
        this.lines.replaceChildren();
        this.rest = new Uint8Array(0);
        this.style = new Set();
        this.begin = this.end = offset;
        const window = await this.read(offset, Math.min(this.size, offset + WINDOW));
        if (window) { this.begin = this.end = window.begin; this.append(window.bytes); }
      }
      section.querySelectorAll(".marked").forEach((line) => line.classList.remove("marked"));
      const line = document.getElementById(this.id(offset));
      if (line) { line.classList.add("marked"); line.scrollIntoView({ block: "center" }); }
    }
  }

  function streamOf(step, name) {
    const key = `${step}\0${name}`;
    if (!streams.has(key)) {
      const made = new Stream(step, name);
      streams.set(key, made);
      section.querySelector(".streams").append(made.box);
      section.querySelector(".empty").hidden = true;
    }
    return streams.get(key);
  }

  // -- the attempt that is shown
  async function load(attempt) {
    events?.close();
    events = null;
    streams.clear();
    section.querySelector(".streams").replaceChildren();
    section.querySelector(".empty").hidden = false;
    const answer = await fetch(address("/streams", { attempt }));
    const told = await answer.json();
    if (!answer.ok) { section.querySelector(".empty").textContent = told.error.message; return; }
    chosen.attempt = told.attempt;
    offerAttempts();
    for (const info of told.streams) {
      const stream = streamOf(info.step, info.stream);
      stream.size = info.size;
      await stream.readTail();
    }
    follow(told.cursor);
    await goToHash();
  }

  function follow(cursor) {
    const mine = events = new EventSource(address("/events", { cursor }));
    events.addEventListener("error", () => { // refused, because too much is open: the browser asks no more by itself
      if (mine.readyState !== EventSource.CLOSED) return;
      setTimeout(() => { if (events === mine) follow(cursor); }, REFUSED_MS);
    });
    events.addEventListener("message", (event) => {
      cursor = event.lastEventId || cursor;
      const told = JSON.parse(event.data);
      if (chosen.attempt && told.attempt !== chosen.attempt) { // a further attempt began
        section.dataset.attempts = Math.max(Number(section.dataset.attempts), told.attempt);
        if (follows()) load(told.attempt); else offerAttempts();
        return;
      }
      chosen.attempt = told.attempt;
      const stream = streamOf(told.step, told.stream);
      const bytes = Uint8Array.from(atob(told.data), (char) => char.charCodeAt(0));
      const isNext = told.offset === stream.end + stream.rest.length;
      stream.size = Math.max(stream.size, told.offset + bytes.length);
      if (isNext) stream.append(bytes); else stream.show();
    });
    for (const kind of ["gap", "cut"]) {
      events.addEventListener(kind, (event) => {
        const told = JSON.parse(event.data);
        const stream = streamOf(told.step, told.stream);
        stream.note(`${told.to - told.offset} bytes ${kind === "cut" ? "were cut out: the log is longer than is kept" : "were lost"}`);
        stream.end = told.to;
        stream.rest = new Uint8Array(0);
        stream.size = Math.max(stream.size, told.to);
      });
    }
    events.addEventListener("end", () => events.close());
  }

  function offerAttempts() {
    const choice = section.querySelector(".attempt-choice");
    const count = Math.max(Number(section.dataset.attempts), chosen.attempt);
    choice.parentElement.hidden = count < 2;
    if (choice.length !== count) {
      choice.replaceChildren(...Array.from({ length: count }, (_, index) => new Option(String(index + 1))));
    }
    choice.value = String(chosen.attempt);
  }

  async function goToHash() {
    const match = decodeURIComponent(location.hash).match(/^#L-(.+)-(stdout|stderr)-(\d+)$/);
    if (!match) return;
    const stream = streams.get(`${match[1]}\0${match[2]}`);
    if (stream) await stream.goTo(Number(match[3]));
  }

  async function search(text) {
    const list = section.querySelector(".found");
    list.hidden = !text;
    if (!text) return;
    list.replaceChildren(Object.assign(document.createElement("li"), { textContent: "Searching…" }));
    const answer = await fetch(address("/search", { attempt: chosen.attempt, q: text }));
    const told = await answer.json();
    if (!answer.ok) { list.firstChild.textContent = told.error.message; return; }
    const items = told.found.map((place) => {
      const link = document.createElement("a");
      link.href = `#L-${encodeURIComponent(place.step)}-${place.stream}-${place.offset}`;
      link.textContent = place.line.replace(CONTROL, "") || " ";
      const item = document.createElement("li");
      item.append(`${place.step} `, link);
      return item;
    });
    const count = document.createElement("li");
    count.className = "dim";
    count.textContent = told.is_whole ? `${items.length} ${items.length === 1 ? "line" : "lines"}` : `the first ${items.length}; there may be more`;
    list.replaceChildren(count, ...items);
  }

  section.querySelector(".search").addEventListener("submit", (event) => {
    event.preventDefault();
    search(event.target.q.value);
  });
  section.querySelector(".search input").addEventListener("search", (event) => { if (!event.target.value) search(""); });
  section.querySelector(".attempt-choice").addEventListener("change", (event) => load(Number(event.target.value)));
  window.addEventListener("hashchange", goToHash);
  load(0);
})();
