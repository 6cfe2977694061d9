// The cells of each question: columns are unpacked when first asked for, and printed as the Python part prints them.
const MISSING = "\u2013";
const NO_ROW = 255;
const CHANCES = new Set(["q"]);

function unpacked(text, Kind) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer); // little-endian, as every browser's machine is
}

class Cells {
  constructor(raw) {
    Object.assign(this, { key: raw.key, label: raw.label, layers: raw.layers, words: raw.words, alpha: raw.alpha });
    this.raw = raw;
    this.starts = [0];
    for (const [, experts] of raw.layers) this.starts.push(this.starts.at(-1) + experts);
    this.total = this.starts.at(-1);
    this.kept = {};
    this.swaps = new Map(raw.swaps.map(([cell, ...values]) => [cell, values]));
  }

  once(name, make) {
    if (!Object.hasOwn(this.kept, name)) this.kept[name] = make();
    return this.kept[name];
  }

  get verdict() { return this.once("verdict", () => unpacked(this.raw.verdict, Uint8Array)); }
  get order() { return this.once("order", () => unpacked(this.raw.order, Uint32Array)); }
  get remarks() { return this.once("remarks", () => unpacked(this.raw.remark, Uint32Array)); }

  // One number for each cell, NaN where there is none. `N` and `F` are necessity and sufficiency in percent.
  column(name) {
    return this.once("column " + name, () => {
      if (Object.hasOwn(this.raw.columns, name)) return unpacked(this.raw.columns[name], CHANCES.has(name) ? Float64Array : Float32Array);
      const made = new Float32Array(this.total).fill(NaN);
      if (name === "N" || name === "F") {
        for (const [cell, values] of this.swaps) made[cell] = values[name === "N" ? 0 : 3] ?? NaN;
        return made;
      }
      const of = {
        W: ["entry", "valuation", (a, b) => a + b],
        dQ: ["Q1", "Q0", (a, b) => a - b],
        lq: ["q", "q", (q) => (q > 0 ? Math.min(300, Math.max(0, -Math.log10(q))) : q === 0 ? 300 : NaN)],
      }[name];
      const [left, right] = [this.column(of[0]), this.column(of[1])];
      return made.map((_, cell) => of[2](left[cell], right[cell]));
    });
  }

  place(cell) {
    let [low, high] = [0, this.layers.length];
    while (low + 1 < high) {
      const middle = (low + high) >> 1;
      if (this.starts[middle] <= cell) low = middle;
      else high = middle;
    }
    return { layer: low, expert: cell - this.starts[low] };
  }

  at(place) { return this.starts[place.layer] + place.expert; }

  site(cell) {
    const place = this.place(cell);
    return `L${this.layers[place.layer][0]}.E${place.expert}`;
  }

  id(cell) { return `${this.key}-${this.site(cell).replace(".", "")}`; }

  extent(cell) { return this.raw.extents[cell] ?? ""; }

  remark(cell) {
    const number = this.remarks[cell];
    return number ? this.raw.remarks[number - 1] : "";
  }
}

const questions = data.maps.map((raw) => new Cells(raw));

// Numbers in words, as moeprobe.report.figures has them. A tie is rounded to the even digit, as Python does.
const figures = {
  plain(value, digits) {
    const scaled = Math.abs(value) * 10 ** digits;
    const low = Math.floor(scaled);
    const text = scaled - low === 0.5 && low % 2 === 0 ? (low / 10 ** digits).toFixed(digits) : Math.abs(value).toFixed(digits);
    const [whole, part] = text.split(".");
    return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part ? "." + part : "");
  },
  number(value, digits = 3, sign = false) {
    if (Number.isNaN(value)) return MISSING;
    const text = figures.plain(value, digits);
    if (/^[0.,]*$/.test(text)) return text;
    return (value < 0 ? "\u2212" : sign ? "+" : "") + text;
  },
  share(value) { return Number.isNaN(value) ? MISSING : figures.number(100 * value, 1) + "\u00a0%"; },
  change(value, fine) {
    if (Number.isNaN(value) || !fine || value === 0) return figures.number(100 * value, 1, true);
    const digits = 2 - Math.floor(Math.log10(Math.abs(100 * value)));
    return figures.number(100 * value, Math.min(Math.max(digits, 0), 12), true);
  },
  signed(value) {
    if (Number.isNaN(value)) return MISSING;
    if (value === 0) return "0";
    const text = String(Number(Math.abs(value).toPrecision(3)));
    return (value < 0 ? "\u2212" : "+") + text.replace("e-", "e\u2212");
  },
  percent(value) {
    if (value === null || Number.isNaN(value)) return MISSING;
    const text = value === 0 ? "0" : Math.abs(value) < 0.05 ? "0.0" : figures.number(value, Math.abs(value) >= 9.95 ? 0 : 1);
    return text + "\u00a0%";
  },
  chance(value) {
    if (Number.isNaN(value)) return MISSING;
    if (value >= 0.001) return value.toFixed(3);
    if (value < 1e-300) return "under 10\u207b\u00b3\u2070\u2070";
    let exponent = Math.floor(Math.log10(value));
    let front = (value / 10 ** exponent).toFixed(1);
    if (front === "10.0") [front, exponent] = ["1.0", exponent + 1];
    const raised = String(exponent).replace("-", "\u207b").replace(/\d/g, (digit) => "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[digit]);
    return `${front}\u00b710${raised}`;
  },
};

// A badge of a verdict: its sign, its name and how much it is about, as text.
function badge(code, extent) {
  const [label, css, sign] = data.verdicts[code];
  const made = document.createElement("span");
  made.className = "badge v-" + css;
  const mark = document.createElement("span");
  mark.setAttribute("aria-hidden", "true");
  mark.textContent = sign;
  made.append(mark, ` ${label} ${extent}`.trimEnd());
  return made;
}
