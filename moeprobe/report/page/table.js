// The table of experts: sorted, filtered and turned page by page here; without script its leading lines stand there.
const tables = new Map();
const lines = {}; // what a line says and what is saved of it
(function () {
  const PAGE = 100;
  const EXACT = /^L?(\d+)(?:\.E?(\d+))?$/i;

  // What each head sorts by: a column of the cells and whether a first press shows the largest first.
  const SORTS = [
    ["site", false], ["verdict", false], ["S1", true], ["S0", true], ["Q1", true], ["Q0", true], ["rate_difference", true],
    ["entry", true], ["valuation", true], ["auc", true], ["beyond_difference", true], ["q", false],
  ];

  class ExpertTable {
    constructor(section, cells) {
      this.cells = cells;
      this.place = section;
      this.table = section.querySelector("table.experts");
      this.body = this.table.tBodies[0];
      this.lines = new Map(Array.from(this.body.rows, (line) => [line.id, line]));
      this.status = section.querySelector(".table-status");
      this.sort = { name: "", down: false };
      this.page = 0;
      for (const name of ["find", "layer", "verdict", "level"]) this[name] = section.querySelector(`[data-filter=${name}]`);
      this.heads();
      this.controls();
      this.refresh();
      section.querySelector(".table-tools").hidden = false;
      section.querySelector(".table-pages").hidden = false;
    }

    heads() {
      Array.from(this.table.tHead.rows[0].cells).forEach((head, number) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...head.childNodes);
        const arrow = document.createElement("span");
        arrow.className = "arrow";
        arrow.setAttribute("aria-hidden", "true");
        button.append(arrow);
        head.append(button);
        button.addEventListener("click", () => {
          const [name, first] = SORTS[number];
          const again = this.sort.name === name;
          const done = again && this.sort.down !== first; // third press: the order of the report again
          this.sort = done ? { name: "", down: false } : { name, down: again ? !first : first };
          this.page = 0;
          this.refresh();
        });
      });
    }

    controls() {
      this.cells.layers.forEach(([number], index) => this.layer.append(new Option("L" + number, index)));
      const present = new Set(this.cells.verdict);
      data.verdicts.forEach(([label], code) => { if (present.has(code)) this.verdict.append(new Option(label, code)); });
      for (const one of [this.find, this.layer, this.verdict, this.level]) {
        one.addEventListener("input", () => { this.page = 0; this.refresh(); });
      }
      const turn = { first: () => 0, previous: () => this.page - 1, next: () => this.page + 1, last: () => Infinity };
      for (const [name, target] of Object.entries(turn)) {
        this.place.querySelector(`[data-turn=${name}]`).addEventListener("click", () => { this.page = target(); this.refresh(); });
      }
      this.place.querySelector("[data-clear]").addEventListener("click", () => this.clear());
      this.place.querySelector("[data-save]").addEventListener("click", () => save(this.cells, this.shown));
    }

    clear() {
      for (const one of [this.find, this.layer, this.verdict, this.level]) one.value = "";
      this.sort = { name: "", down: false };
      this.page = 0;
      this.refresh();
    }

    wanted() {
      const cells = this.cells;
      const text = this.find.value.trim().toLowerCase();
      const exact = EXACT.exec(text);
      const level = this.level.value === "" ? NaN : Number(this.level.value);
      const q = cells.column("q");
      const [from, until] = this.layer.value === "" ? [0, cells.total] : [Number(this.layer.value), Number(this.layer.value) + 1].map((i) => cells.starts[i]);
      const named = (cell) => {
        if (!text) return true;
        if (!exact) return cells.site(cell).toLowerCase().includes(text) || cells.remark(cell).toLowerCase().includes(text) ||
          data.verdicts[cells.verdict[cell]][0].toLowerCase().includes(text);
        const place = cells.place(cell);
        return cells.layers[place.layer][0] === Number(exact[1]) && (exact[2] === undefined || place.expert === Number(exact[2]));
      };
      return Array.from(cells.order).filter((cell) => cell >= from && cell < until &&
        (this.verdict.value === "" || cells.verdict[cell] === Number(this.verdict.value)) &&
        (Number.isNaN(level) || q[cell] <= level) && named(cell));
    }

    sorted(list) {
      const { name, down } = this.sort;
      if (!name) return list;
      const values = name === "site" ? null : name === "verdict" ? this.cells.verdict : this.cells.column(name);
      const sign = down ? -1 : 1;
      const value = (cell) => (values ? values[cell] : cell);
      return list.sort((a, b) => { // stable, and what has no value stands last either way
        const [left, right] = [value(a), value(b)];
        if (Number.isNaN(left) || Number.isNaN(right)) return Number.isNaN(left) - Number.isNaN(right);
        return sign * (left - right);
      });
    }

    refresh() {
      this.shown = this.sorted(this.wanted());
      const pages = Math.max(1, Math.ceil(this.shown.length / PAGE));
      this.page = Math.min(Math.max(this.page, 0), pages - 1);
      const from = this.page * PAGE;
      const list = this.shown.slice(from, from + PAGE);
      this.body.replaceChildren(...list.map((cell) => this.line(cell)));
      const span = list.length ? `${(from + 1).toLocaleString("en")} to ${(from + list.length).toLocaleString("en")} of ` : "";
      const all = this.cells.order.length;
      const left = this.shown.length < all ? ` (filtered from ${all.toLocaleString("en")})` : "";
      this.status.textContent = `${span}${this.shown.length.toLocaleString("en")} experts${left}`;
      for (const name of ["first", "previous"]) this.place.querySelector(`[data-turn=${name}]`).disabled = this.page === 0;
      for (const name of ["next", "last"]) this.place.querySelector(`[data-turn=${name}]`).disabled = this.page === pages - 1;
      Array.from(this.table.tHead.rows[0].cells).forEach((head, number) => {
        const on = this.sort.name === SORTS[number][0];
        head.setAttribute("aria-sort", on ? (this.sort.down ? "descending" : "ascending") : "none");
        head.querySelector(".arrow").textContent = on ? (this.sort.down ? " \u25bc" : " \u25b2") : "";
      });
    }

    // The line of a cell: the one that stands in the page already, or a new one.
    line(cell) {
      const id = this.cells.id(cell);
      if (!this.lines.has(id)) this.lines.set(id, this.made(cell, id));
      return this.lines.get(id);
    }

    made(cell, id) {
      const cells = this.cells;
      const line = document.createElement("tr");
      line.id = id;
      line.tabIndex = -1;
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = cells.site(cell);
      const verdict = document.createElement("td");
      verdict.className = "left verdict";
      verdict.append(badge(cells.verdict[cell], cells.extent(cell)));
      const remark = cells.remark(cell);
      if (remark) {
        const said = document.createElement("span");
        said.className = "small";
        const apart = document.createElement("bdi");
        apart.textContent = remark;
        said.append(apart);
        verdict.append(" ", said);
      }
      line.append(head, verdict, ...texts(cells, cell).map((text, number) => {
        const one = document.createElement("td");
        if (number === 4) one.className = "gap";
        one.textContent = text;
        return one;
      }));
      return line;
    }

    // Show the line of a cell and put the focus on it, whatever is filtered or on another page.
    go(cell) {
      if (!this.shown.includes(cell)) this.clear();
      this.page = Math.floor(this.shown.indexOf(cell) / PAGE);
      this.refresh();
      this.line(cell).focus();
    }
  }

  // The cells of a line as text, in the order of the columns after the verdict.
  function texts(cells, cell) {
    const value = (name) => cells.column(name)[cell];
    const fine = cells.words.fine;
    const bound = (name) => (fine ? figures.change(value(name), true).replace(/^\+/, "") : tenths(100 * value(name)));
    const space = fine ? " " : "\u00a0";
    const interval = Number.isNaN(value("low")) ? `[no${space}interval]` : `[${bound("low")},${space}${bound("high")}]`;
    const gap = Number.isNaN(value("rate_difference")) ? MISSING : `${figures.change(value("rate_difference"), fine)} ${interval}`;
    return [
      figures.share(value("S1")), figures.share(value("S0")), figures.number(value("Q1")), figures.number(value("Q0")), gap,
      figures.number(value("entry"), 3, true), figures.number(value("valuation"), 3, true), figures.number(value("auc"), 2),
      cells.words.raw ? figures.signed(value("beyond_difference")) : figures.change(value("beyond_difference"), fine),
      figures.chance(value("q")),
    ];
  }

  const tenths = (value) => figures.number(value, 1);

  // A text that a spreadsheet must not take for a formula.
  function harmless(text) {
    const safe = /^[=+\-@\t\r\n]/.test(text) ? "'" + text : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  const NAMES = ["S1", "S0", "Q1", "Q0", "rate_difference", "low", "high", "entry", "valuation", "auc", "beyond_difference", "t", "q"];
  const SWAPS = ["necessity", "necessity_low", "necessity_high", "sufficiency", "sufficiency_low", "sufficiency_high"];

  function csv(cells, list) {
    const heads = ["site", "layer", "expert", "verdict", ...NAMES.map((name) => ({ low: "rate_difference_low", high: "rate_difference_high" }[name] ?? name)),
      ...SWAPS.map((name) => name + "_percent"), "remark"];
    const number = (value) => (value === null || Number.isNaN(value) ? "" : String(Number(value.toPrecision(7))));
    const lines = list.map((cell) => {
      const place = cells.place(cell);
      const swaps = cells.swaps.get(cell) ?? SWAPS.map(() => null);
      return [cells.site(cell), cells.layers[place.layer][0], place.expert, harmless(data.verdicts[cells.verdict[cell]][0]),
        ...NAMES.map((name) => number(cells.column(name)[cell])), ...swaps.map(number), harmless(cells.remark(cell))].join(",");
    });
    return [heads.join(","), ...lines, ""].join("\r\n");
  }

  function save(cells, list) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff" + csv(cells, list)], { type: "text/csv;charset=utf-8" }));
    link.download = `experts-${cells.key}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  document.querySelectorAll(".expert-table").forEach((section) => {
    const cells = questions[Number(section.dataset.question)];
    tables.set(cells.key, new ExpertTable(section, cells));
  });
  Object.assign(lines, { csv, texts, harmless });

  // A link to a line that is not on the page that is shown leads there all the same.
  document.addEventListener("click", (event) => {
    const found = /^#(m\d+q\d+)-L(\d+)E(\d+)$/.exec(event.target.closest?.("a")?.getAttribute("href") ?? "");
    const table = found && tables.get(found[1]);
    if (!table) return;
    const layer = table.cells.layers.findIndex(([number]) => number === Number(found[2]));
    if (layer < 0) return;
    event.preventDefault();
    table.go(table.cells.at({ layer, expert: Number(found[3]) }));
  });

  // A link into something folded away opens it first.
  addEventListener("hashchange", open);
  function open() {
    const target = document.getElementById(location.hash.slice(1));
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    target?.scrollIntoView();
  }
  if (location.hash) open();
})();
