// The layer x expert map: one canvas, a cursor for mouse and keyboard, and a live region that reads the cell.
(function () {
  const canvas = document.getElementById("map-canvas");
  if (!questions.length) return;
  const widget = document.getElementById("map-widget");
  const read = document.getElementById("map-read");
  const live = document.getElementById("map-live");
  const GUTTER = 40;
  const TOP = 20;
  const CAUSAL = 3; // verdicts below this index are causal
  const QUIET = 6; // verdicts from this index on are no finding
  const FAINT = 0.22; // how much of its colour a cell keeps that is no finding and was not tested
  const FADED = new Set(["d", "W", "Q", "t", "b"]); // measures whose colours chance alone makes look strong
  const CROWD = 500; // so many cells that the largest 0.5 % may lie beyond the end of the scale
  let map = questions[0];
  let measure = "d";
  let cursor = { layer: 0, expert: 0 };
  let hover = null;
  let box = null;
  let ground = null; // all cells, drawn once for each change; pointer and cursor only add outlines

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const points = (value) => `${figures.change(value, map.words.fine)} points`;
  const percent = (value) => figures.percent(value);

  // What can be shown: the column, how its numbers read, the words of its two ends, and what it means.
  const MEASURES = {
    d: { column: "rate_difference", say: points, ends: ["chosen less", "chosen more"], mean: () => map.words.meaning },
    W: { column: "W", say: (v) => figures.number(v, 4, true), ends: ["less weight", "more weight"],
      mean: () => "Change of the mean gate weight over all tokens, \u0394W: how often it is chosen times how strongly." },
    Q: { column: "dQ", say: (v) => figures.number(v, 3, true), ends: ["weaker when chosen", "stronger when chosen"],
      mean: () => "Change of the gate weight where it was chosen, Q\u2081 \u2212 Q\u2080. No value where one side never chose it." },
    t: { column: "t", say: (v) => figures.number(v, 2, true), ends: ["against", "with"],
      mean: () => "The difference in units of its own uncertainty: the t (or z) of the test that decides, words held fixed where the design says so." },
    b: { column: "beyond_difference", say: (v) => (map.words.raw ? figures.signed(v) : points(v)), ends: ["less", "more"],
      mean: () => map.words.beyond },
    q: { column: "lq", say: (v) => v.toFixed(1), ends: ["0", ""],
      mean: () => "The larger, the smaller the expected share of false discoveries: 1.3 is q = 0.05, 3 is q = 0.001." },
    N: { column: "N", say: percent, ends: ["the other way", "all of the effect"],
      mean: () => "How much of the effect goes away when the expert\u2019s contribution is taken from the other prompt. Hatched: not tested." },
    F: { column: "F", say: percent, ends: ["the other way", "all of the effect"],
      mean: () => "How much of the effect its contribution brings into the other prompt. Hatched: not tested." },
    v: { mean: () => "Every sign has its own shape as well as its colour." },
  };
  const fade = document.getElementById("map-fade");
  const notable = (cell) => map.verdict[cell] < QUIET || map.swaps.has(cell);
  const swapped = () => measure === "N" || measure === "F";
  const values = () => map.column(MEASURES[measure].column);

  function layout() {
    const widest = Math.max(...map.layers.map(([, experts]) => experts));
    const room = canvas.parentElement.clientWidth - GUTTER - 14;
    const width = clamp(room / widest, 3, 46);
    const height = map.layers.length <= 2 ? 40 : clamp(Math.floor(560 / map.layers.length), 13, 30);
    const scale = window.devicePixelRatio || 1;
    box = { width, height, scale, full: Math.ceil(GUTTER + width * widest + 4), tall: TOP + height * map.layers.length + 4, widest };
    canvas.style.width = box.full + "px";
    canvas.style.height = box.tall + "px";
    for (const one of [canvas, ground]) {
      one.width = Math.round(box.full * scale);
      one.height = Math.round(box.tall * scale);
    }
    const pen = ground.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    return pen;
  }

  // The end of the scale, and whether some cells lie beyond it.
  function extent() {
    if (swapped()) {
      let most = 0;
      for (const value of values()) if (Math.abs(value) > most) most = Math.abs(value);
      return [100, most > 100];
    }
    const sizes = Array.from(values(), Math.abs).filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
    const most = sizes.at(-1) ?? 0;
    const least = { d: map.words.fine ? Number.MIN_VALUE : 0.01, q: 2, t: 2 }[measure] ?? Number.MIN_VALUE;
    const cut = sizes.length > CROWD ? sizes[Math.floor(0.995 * (sizes.length - 1))] : most;
    return [Math.max(cut, least), most > Math.max(cut, least)];
  }

  function painter() {
    if (measure === "v") {
      const colours = data.verdicts.map(([, css]) => cssColour("--c-" + css));
      return (value) => colours[value];
    }
    const [most] = extent();
    const colour = ramp(measure === "q" ? "--s" : "--d");
    return measure === "q" ? (value) => colour(value / most) : (value) => colour(0.5 + value / most / 2);
  }

  function hatch(pen) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const brush = tile.getContext("2d");
    brush.fillStyle = cssColour("--card");
    brush.fillRect(0, 0, 8, 8);
    brush.strokeStyle = cssColour("--void");
    brush.lineWidth = 1.5;
    for (const from of [-8, 0, 8]) {
      brush.beginPath();
      brush.moveTo(from, 8);
      brush.lineTo(from + 8, 0);
      brush.stroke();
    }
    return pen.createPattern(tile, "repeat");
  }

  function rectangle(place) {
    const gap = box.width >= 8 ? 1 : 0;
    const left = Math.round(GUTTER + place.expert * box.width); // whole pixels: no seams between narrow cells
    const right = Math.round(GUTTER + (place.expert + 1) * box.width);
    return [left, TOP + place.layer * box.height, right - left - gap, box.height - 1];
  }

  function outline(pen, place, colour, thick, away) {
    const [x, y, w, h] = rectangle(place);
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.strokeRect(x - away, y - away, w + 2 * away, h + 2 * away);
  }

  function drawCells(pen) {
    const colour = painter();
    const numbers = measure === "v" ? map.verdict : values();
    const blank = swapped() ? hatch(pen) : cssColour("--void");
    const faded = fade.checked && FADED.has(measure);
    const ink = cssColour("--ink");
    const onColour = data.verdicts.map(([, css]) => (css === "sufficient" ? "#ffffff" : "#101316"));
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = "12px " + cssColour("--sans");
    map.layers.forEach(([, experts], layer) => {
      for (let expert = 0; expert < experts; expert += 1) {
        const value = numbers[map.starts[layer] + expert];
        const none = Number.isNaN(value) || (measure === "v" && value === NO_ROW);
        const [x, y, w, h] = rectangle({ layer, expert });
        pen.fillStyle = none ? blank : colour(value);
        if (faded && !none && !notable(map.starts[layer] + expert)) pen.globalAlpha = FAINT;
        pen.fillRect(x, y, w, h);
        pen.globalAlpha = 1;
        const sign = none ? (swapped() ? "" : "/") : measure === "v" ? data.verdicts[value][2] : "";
        if (sign && w >= 11) {
          pen.fillStyle = none || value >= QUIET ? ink : onColour[value];
          pen.fillText(sign, x + w / 2, y + h / 2 + 1);
        }
      }
    });
  }

  function drawAxes(pen) {
    pen.fillStyle = cssColour("--muted");
    pen.font = "12px " + cssColour("--sans");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const skip = Math.ceil(14 / box.height);
    map.layers.forEach(([number], layer) => {
      if (layer % skip === 0) pen.fillText("L" + number, GUTTER - 6, TOP + (layer + 0.5) * box.height);
    });
    pen.textAlign = "center";
    const step = [1, 2, 4, 8, 16, 32, 64, 128].find((size) => size * box.width >= 34) || 256;
    for (let expert = 0; expert < box.widest; expert += step) {
      pen.fillText("E" + expert, GUTTER + (expert + 0.5) * box.width, TOP / 2 - 1);
    }
  }

  function drawGround() {
    ground ||= document.createElement("canvas");
    const pen = layout();
    drawCells(pen);
    drawAxes(pen);
    const ink = cssColour("--ink");
    for (const cell of map.swaps.keys()) {
      const causal = map.verdict[cell] < CAUSAL;
      outline(pen, map.place(cell), ink, causal ? 3 : 1.5, causal ? 1 : 0);
    }
  }

  function draw() {
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(ground, 0, 0);
    pen.setTransform(box.scale, 0, 0, box.scale, 0, 0);
    if (hover) outline(pen, hover, cssColour("--ink"), 1, 1);
    if (document.activeElement === canvas) {
      outline(pen, cursor, cssColour("--card"), 5, 2);
      outline(pen, cursor, cssColour("--accent"), 3, 2);
    }
  }

  function drawLegend() {
    const verdicts = measure === "v";
    document.getElementById("map-key").hidden = !verdicts;
    document.getElementById("map-scale").hidden = verdicts;
    const shown = MEASURES[measure];
    const none = verdicts || swapped() ? "" : " Grey, with a slash where there is room: no value.";
    const pale = fade.checked && FADED.has(measure) ? " Pale: not associated, so its colour may be chance." : "";
    fade.parentElement.hidden = !FADED.has(measure);
    document.getElementById("map-meaning").textContent = shown.mean() + pale + none;
    if (verdicts) return;
    const [most, beyond] = extent();
    const end = shown.say(most).replace(/^\+/, "") + (beyond ? " or more" : "");
    const sequential = measure === "q";
    document.getElementById("map-low").textContent = sequential ? "0" : `${shown.ends[0]}, \u2212${end}`;
    document.getElementById("map-high").textContent = sequential ? end : `+${end}, ${shown.ends[1]}`;
    const strip = document.getElementById("map-ramp");
    const colour = ramp(sequential ? "--s" : "--d");
    strip.width = 128;
    strip.height = 1;
    const pen = strip.getContext("2d");
    for (let x = 0; x < 128; x += 1) {
      pen.fillStyle = colour(x / 127);
      pen.fillRect(x, 0, 1, 1);
    }
  }

  function describe(place) {
    const cell = map.at(place);
    const name = map.site(cell);
    if (map.verdict[cell] === NO_ROW) return `${name}: no data.`;
    const number = (column) => map.column(column)[cell];
    const q = Number.isNaN(number("q")) ? "not tested" : "q " + figures.chance(number("q"));
    const parts = [`${name}: ${`${data.verdicts[map.verdict[cell]][0]} ${map.extent(cell)}`.trimEnd()}. Chosen for ${figures.share(number("S1"))} of the tokens ` +
      `${map.words.one}, ${figures.share(number("S0"))} ${map.words.other}; ${map.words.gap} ${points(number("rate_difference"))}; ${q}.`];
    const shown = MEASURES[measure];
    if (shown.column && !["d", "q", "N", "F"].includes(measure)) {
      const value = number(shown.column);
      parts.push(`${names[measure]}: ${Number.isNaN(value) ? "no value" : shown.say(value)}.`);
    }
    if (map.swaps.has(cell)) {
      const [necessity, , , sufficiency] = map.swaps.get(cell);
      parts.push(`Swapped: necessity ${percent(necessity)}, sufficiency ${percent(sufficiency)}.`);
    } else if (swapped()) parts.push("Not tested by interchange.");
    return parts.join(" ");
  }

  function move(layer, expert) {
    cursor.layer = clamp(layer, 0, map.layers.length - 1);
    cursor.expert = clamp(expert, 0, map.layers[cursor.layer][1] - 1);
    read.textContent = live.textContent = describe(cursor);
    draw();
    const [x] = rectangle(cursor);
    const frame = canvas.parentElement;
    if (x < frame.scrollLeft + GUTTER || x > frame.scrollLeft + frame.clientWidth - 40) frame.scrollLeft = x - frame.clientWidth / 2;
  }

  function nextNotable() {
    const from = map.at(cursor);
    for (let ahead = 1; ahead <= map.total; ahead += 1) {
      const cell = (from + ahead) % map.total;
      if (notable(cell)) {
        const place = map.place(cell);
        return move(place.layer, place.expert);
      }
    }
    live.textContent = "No expert is associated or tested.";
  }

  function toTable() {
    const cell = map.at(cursor);
    if (map.verdict[cell] === NO_ROW) read.textContent = live.textContent = describe(cursor) + " It has no line in the table.";
    else tables.get(map.key).go(cell);
  }

  const keys = {
    ArrowLeft: () => move(cursor.layer, cursor.expert - 1),
    ArrowRight: () => move(cursor.layer, cursor.expert + 1),
    ArrowUp: () => move(cursor.layer - 1, cursor.expert),
    ArrowDown: () => move(cursor.layer + 1, cursor.expert),
    Home: () => move(cursor.layer, 0),
    End: () => move(cursor.layer, Infinity),
    PageUp: () => move(cursor.layer - 10, cursor.expert),
    PageDown: () => move(cursor.layer + 10, cursor.expert),
    n: nextNotable,
    N: nextNotable,
    Enter: toTable,
  };

  function placeOf(event) {
    const frame = canvas.getBoundingClientRect();
    const layer = Math.floor((event.clientY - frame.top - TOP) / box.height);
    const expert = Math.floor((event.clientX - frame.left - GUTTER) / box.width);
    const inside = layer >= 0 && layer < map.layers.length && expert >= 0 && expert < map.layers[layer][1];
    return inside ? { layer, expert } : null;
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    if (place && hover && place.layer === hover.layer && place.expert === hover.expert) return;
    if (!place && !hover) return;
    hover = place;
    if (place) read.textContent = describe(place);
    draw();
  });
  canvas.addEventListener("pointerleave", () => { hover = null; draw(); });
  canvas.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place) move(place.layer, place.expert);
  });
  canvas.addEventListener("dblclick", (event) => { if (placeOf(event)) toTable(); });
  canvas.addEventListener("focus", () => move(cursor.layer, cursor.expert));
  canvas.addEventListener("blur", draw);
  const names = {};
  document.querySelectorAll("input[name=map-measure]").forEach((choice) => {
    names[choice.value] = choice.parentElement.textContent.trim();
    choice.addEventListener("change", () => {
      measure = choice.value;
      refresh();
    });
  });
  fade.addEventListener("change", refresh);
  const question = document.getElementById("map-question");
  if (question) question.addEventListener("change", () => {
    map = questions[Number(question.value)];
    cursor = { layer: 0, expert: 0 };
    hover = null;
    refresh();
  });

  function refresh() {
    const label = `Map of layers and experts: ${map.layers.length} by ${Math.max(...map.layers.map(([, n]) => n))}, ${map.label}`;
    canvas.setAttribute("aria-label", label);
    document.querySelectorAll("input[value=N], input[value=F]").forEach((one) => { one.disabled = map.swaps.size === 0; });
    if (swapped() && map.swaps.size === 0) {
      document.querySelector("input[value=d]").click(); // fires change, and so comes back here
      return;
    }
    drawGround();
    draw();
    drawLegend();
  }
  widget.hidden = false;
  refresh();
  for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", refresh);
  let seen = canvas.parentElement.clientWidth;
  new ResizeObserver(() => {
    const width = canvas.parentElement.clientWidth;
    if (width !== seen) { seen = width; drawGround(); draw(); }
  }).observe(canvas.parentElement);
})();
