"use strict";
// Everything a record says is put on the page by textContent; nothing here parses markup.
(() => {
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const make = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Theme: as the system says, or as chosen.
  const theme = document.getElementById("theme");
  const kept = { get() { try { return localStorage.getItem("zoo-theme"); } catch { return null; } },
                 set(value) { try { localStorage.setItem("zoo-theme", value); } catch { /* a page from a file may not */ } } };
  const paint = (name) => {
    document.documentElement.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
  };
  const themes = ["auto", "light", "dark"];
  paint(themes.includes(kept.get()) ? kept.get() : "auto");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    paint(next);
    kept.set(next);
  });

  // Sorting: numbers by value, names as people count, what has no value last.
  const words = new Intl.Collator("en", { numeric: true });
  for (const board of all("table.board")) {
    const heads = all("thead th", board);
    heads.forEach((head, at) => head.querySelector("button").addEventListener("click", (event) => {
      const button = event.currentTarget;
      const was = head.getAttribute("aria-sort");
      const first = button.dataset.better === "higher" ? "descending" : "ascending";
      const now = was === "none" ? first : was === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", now);
      const sign = now === "ascending" ? 1 : -1;
      const isText = "text" in button.dataset;
      const rows = all("tbody tr", board).map((row) => ({ row, value: row.children[at].dataset.v }));
      rows.sort((a, b) => {
        if (a.value === undefined || b.value === undefined) return (a.value === undefined) - (b.value === undefined);
        return sign * (isText ? words.compare(a.value, b.value) : Number(a.value) - Number(b.value));
      });
      board.tBodies[0].append(...rows.map((r) => r.row));
    }));
  }

  // Filters: every word must be in the row, every choice must be its own.
  for (const form of all("form[data-filters]")) {
    const rows = all("tbody tr", document.getElementById(form.dataset.filters));
    const apply = () => {
      const asked = form.querySelector("[data-find]").value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        // Not of its numbers: who looks for "ddim 30" means the steps.
        const text = [row.cells[0].textContent, ...Object.values(row.dataset)].join(" ").toLowerCase();
        const fits = all("select", form).every((s) => !s.value || row.getAttribute(`data-${s.dataset.facet}`) === s.value);
        row.hidden = !(fits && asked.every((word) => text.includes(word)));
        shown += !row.hidden;
      }
      form.querySelector("output").textContent = `${shown} of ${rows.length} shown`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  // Long tables and walls of pictures: the first few, until all are asked for.
  for (const long of all("[data-few]")) {
    const button = make("button", "more", `Show all ${long.children.length}`);
    button.type = "button";
    long.classList.add("few");
    button.addEventListener("click", () => { long.classList.remove("few"); button.remove(); });
    (long.closest(".scroll") ?? long).after(button);
  }

  // What a mark is, at once and also by touch; the browser's own title comes late and never on a phone.
  const tip = make("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  for (const mark of all(".mark, rect.bar")) {
    const title = mark.querySelector("title");
    if (!title) continue;
    const text = title.textContent;
    const show = () => {
      const at = mark.getBoundingClientRect();
      title.textContent = "";
      tip.textContent = text;
      tip.hidden = false;
      const left = Math.min(Math.max(8, at.x + at.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
      const above = at.y - tip.offsetHeight - 8;
      tip.style.left = `${left}px`;
      tip.style.top = `${above > 0 ? above : at.bottom + 8}px`;
    };
    const hide = () => { tip.hidden = true; title.textContent = text; };
    mark.addEventListener("pointerenter", show);
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("click", show);
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Pictures, larger.
  const large = document.getElementById("large");
  for (const button of all(".zoom")) {
    button.addEventListener("click", () => {
      const image = button.querySelector("img");
      large.querySelector("div").replaceChildren(image.cloneNode());
      large.querySelector("p").textContent = image.alt;
      large.showModal();
    });
  }
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });

  // Where the reader is.
  const links = new Map(all("nav a").map((a) => [a.getAttribute("href").slice(1), a]));
  if ("IntersectionObserver" in window) {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const a of links.values()) { a.classList.remove("here"); a.removeAttribute("aria-current"); }
        const here = links.get(entry.target.id);
        here.classList.add("here");
        here.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-25% 0px -70% 0px" });
    all("main section").forEach((s) => seen.observe(s));
  }

  // Run against run: cells meet by the number of their column only.
  const data = document.getElementById("data");
  if (!data) return;
  const { columns, rows } = JSON.parse(data.textContent);
  const [a, b] = all("[data-side]");
  const many = new Set(rows.map((r) => r.run)).size > 1;
  for (const side of [a, b]) {
    const groups = new Map();
    rows.forEach((row, i) => {
      if (!groups.has(row.group)) {
        const group = make("optgroup");
        group.label = row.group;
        groups.set(row.group, group);
      }
      const option = make("option", "", many ? `${row.name} — ${row.run}` : row.name);
      option.value = i;
      groups.get(row.group).append(option);
    });
    side.append(...groups.values());
  }
  const shared = (i, j) => Object.keys(rows[i].cells).filter((c) => c in rows[j].cells).length;
  a.value = 0;
  b.value = rows.reduce((best, _, i) => (i > 0 && shared(0, i) > shared(0, best) ? i : best), 1);
  const say = (x) => (x === 0 ? "0" : Math.abs(x) >= 100 ? x.toFixed(0) : x.toPrecision(3));
  const compare = () => {
    const [one, two] = [rows[a.value], rows[b.value]];
    const table = make("table", "plain");
    const head = table.createTHead().insertRow();
    for (const name of ["", "A", "B", "B / A"]) {
      const cell = make(name ? "th" : "td", "number", name);
      if (name) cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    const line = (name, below) => {
      const row = body.insertRow();
      const first = make("th", "", name.replaceAll("_", " "));
      first.scope = "row";
      for (const text of below) if (text) first.append(make("span", "terms", text));
      row.append(first);
      return row;
    };
    const reading = (ratio, text) => {
      const cell = make("td", "number", ratio);
      cell.append(make("span", "terms", text));
      return cell;
    };
    const names = Object.keys({ ...one.asked, ...two.asked });
    for (const name of names.filter((n) => one.asked[n] !== two.asked[n])) {
      const row = line(name, []);
      for (const side of [one, two]) row.append(make("td", "number said", side.asked[name] ?? "–"));
      row.append(reading("", "set otherwise"));
    }
    const alone = [];
    columns.forEach((column, i) => {
      const [x, y] = [one.cells[i], two.cells[i]];
      if (!x !== !y) alone.push(`${column.name}${column.cost ? "" : ` (${column.key})`}: ${x ? "A" : "B"} alone`);
      if (!x || !y) return;
      const row = line(column.name, [column.key, column.terms]);
      // The rule of zoo/bench/report/standing.py: quality by both margins, what the clock tells by twice the spread of repeats.
      const noise = column.timed ? 2 * Math.max(one.noise ?? 0, two.noise ?? 0) : 0;
      const apart = Math.abs(x.v - y.v);
      const silent = column.once || (!column.cost && (x.d === null || y.d === null));
      const within = silent || (!column.cost && apart <= Math.hypot(x.d, y.d)) ||
        (noise > 0 && apart <= noise * Math.max(Math.abs(x.v), Math.abs(y.v)));
      const bBetter = column.better === "higher" ? y.v > x.v : y.v < x.v;
      const clear = column.better && apart > 0 && !within;
      row.append(make("td", clear && !bBetter ? "number win" : "number", x.t));
      row.append(make("td", clear && bBetter ? "number win" : "number", y.t));
      row.append(reading(x.v === 0 ? "–" : say(y.v / x.v), apart === 0 ? "equal" : silent ? (column.once ? "measured once" : "no error bar") : within ? "within the noise" :
        !column.better ? "" : bBetter ? "B is better" : "A is better"));
    });
    const parts = [table];
    if (one.place !== two.place) parts.push(make("p", "aside", "Measured in different places: speed and memory are not compared."));
    if (alone.length) parts.push(make("p", "aside", `Not comparable, since only one has it under its key: ${alone.join("; ")}.`));
    document.getElementById("compared").replaceChildren(...parts);
  };
  const sides = document.getElementById("sides");
  sides.addEventListener("input", compare);
  sides.addEventListener("submit", (event) => event.preventDefault());
  sides.querySelector("[data-swap]").addEventListener("click", () => {
    [a.value, b.value] = [b.value, a.value];
    compare();
  });
  compare();
})();
