// Token text, unpacked and built when a generation is opened: eager spans would be megabytes of HTML.
(function () {
  const CHUNK = 2000; // the first piece; each next one doubles the text, so the browser lays it out only a few times
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const LEVELS = DIGITS.length - 1;
  const unpacked = new Map();

  // base64 of zlib of JSON; see report/tokens.py
  function unpack(number) {
    if (!unpacked.has(number)) {
      const bytes = Uint8Array.from(atob(data.tokens[number].packed), (character) => character.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      unpacked.set(number, new Response(stream).text().then(JSON.parse));
    }
    return unpacked.get(number);
  }

  function shown(token) {
    return visible(token).replaceAll("\t", "\u21e5\t").replaceAll("\n", "\u21b5\n");
  }

  // Weight of each token in 63rds of the largest one, -1 where the expert was not chosen.
  function levels(view, site) {
    const level = new Array(view.tokens.length).fill(-1);
    if (!view.set.gaps.length) return level;
    const weights = view.set.weights[site][view.index];
    let at = 0;
    let number = 0;
    for (const character of view.set.gaps[site][view.index]) {
      const gap = DIGITS.indexOf(character);
      at += gap;
      if (gap === LEVELS) continue;
      level[at] = DIGITS.indexOf(weights[number]);
      number += 1;
      at += 1;
    }
    return level;
  }

  function paint(view, from = 0) {
    const site = view.select ? Number(view.select.value) : 0;
    if (view.site !== site) [view.site, view.level] = [site, levels(view, site)];
    for (let i = from; i < view.panes[0].spans.length; i += 1) {
      const dim = i < view.start ? "prompt" : "";
      const level = view.level[i];
      view.panes[0].spans[i].className = level < 0 ? dim : `${dim} w${Math.min(7, Math.floor(level / LEVELS * 8))}`.trim();
      if (view.panes[1]) {
        const ends = (view.mark[i] && !view.mark[i - 1] ? " first" : "") + (view.mark[i] && !view.mark[i + 1] ? " last" : "");
        view.panes[1].spans[i].className = view.mark[i] ? `${dim} span${ends}`.trim() : dim;
      }
    }
    if (view.cursor >= 0) view.panes.forEach((pane) => pane.spans[view.cursor]?.classList.add("here"));
  }

  function build(view) {
    const from = view.panes[0].spans.length;
    const until = Math.min(from + Math.max(from, CHUNK), view.tokens.length);
    for (const pane of view.panes) {
      const piece = document.createDocumentFragment();
      for (let i = from; i < until; i += 1) {
        const span = document.createElement("span");
        span.textContent = shown(view.tokens[i]);
        span.tokenIndex = i;
        pane.spans.push(span);
        piece.append(span);
      }
      pane.text.append(piece);
    }
    paint(view, from);
    if (until < view.tokens.length) requestAnimationFrame(() => build(view));
  }

  // What stands at a token: in words, and framed in both texts.
  function point(view, index, scroll) {
    if (index === undefined || index < 0 || index >= view.panes[0].spans.length) return;
    for (const pane of view.panes) {
      pane.spans[view.cursor]?.classList.remove("here");
      pane.spans[index].classList.add("here");
      if (scroll) follow(pane.text, pane.spans[index]);
    }
    view.cursor = index;
    const part = index < view.start ? "prompt" : "answer";
    const said = [`Token ${index + 1} (${part})`];
    if (view.select) {
      const name = view.select.selectedOptions[0].textContent.trim();
      const level = view.level[index];
      const weight = (view.most[view.site] * level / LEVELS).toFixed(2);
      said.push(level < 0 ? `${name} was not chosen` : `gate weight of ${name} about ${weight}`);
    }
    if (view.panes[1]) said.push(view.mark[index] ? "marked by the probe" : "not marked");
    view.read.textContent = said.join("; ") + ".";
  }

  function follow(text, span) {
    const top = span.offsetTop; // from the top of the text, which is positioned
    if (top < text.scrollTop) text.scrollTop = top;
    if (top + span.offsetHeight > text.scrollTop + text.clientHeight) text.scrollTop = top + span.offsetHeight - text.clientHeight;
  }

  function keyed(view, event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const last = view.panes[0].spans.length - 1;
    let to = -1;
    if (event.key === "ArrowRight") to = Math.min(view.cursor + 1, last);
    else if (event.key === "ArrowLeft") to = Math.max(view.cursor - 1, 0);
    else if (event.key === "n") to = view.level.findIndex((level, i) => i > view.cursor && level >= 0);
    else if (event.key === "m") to = view.mark.findIndex((mark, i) => i > view.cursor && mark);
    else return;
    event.preventDefault();
    if (to >= 0) point(view, to, true);
    else view.read.textContent = "No more of them.";
  }

  function pane(view, box, label, text) {
    const part = document.createElement("div");
    const head = document.createElement("p");
    const body = document.createElement("div");
    part.className = "pane";
    head.className = "small";
    head.textContent = label;
    body.className = "text";
    body.dir = "auto";
    body.tabIndex = 0;
    body.setAttribute("role", "region");
    const named = box.closest(".example").querySelector("summary bdi").textContent; // two regions never share a name
    body.setAttribute("aria-label", `${text}. Question ${Number(box.closest(".examples").dataset.question) + 1}, ${named}`);
    body.addEventListener("pointerover", (event) => point(view, event.target.tokenIndex, false));
    body.addEventListener("keydown", (event) => keyed(view, event));
    body.addEventListener("scroll", () => {
      // the pane under the pointer or with the focus leads, the other follows
      if (!body.matches(":hover, :focus")) return;
      for (const other of view.panes) if (other.text !== body) other.text.scrollTop = body.scrollTop;
    });
    part.append(head, body);
    box.append(part);
    view.panes.push({ text: body, spans: [] });
  }

  function open(details, group, set, select) {
    const index = Number(details.dataset.example);
    const all = data.tokens[Number(group.dataset.question)];
    const tokens = set.tokens[index];
    const mark = new Array(tokens.length).fill(false);
    for (const [first, last] of set.spans[index]) mark.fill(true, Math.max(first, 0), Math.max(last, 0));
    const view = { index, set, select, tokens, mark, start: set.start[index], most: all.most, site: null, level: [], panes: [], cursor: -1 };
    view.read = document.createElement("p");
    view.read.className = "read small";
    view.read.setAttribute("aria-live", "polite");
    view.read.textContent = "Point at a token, or go through them by arrow keys.";
    const box = document.createElement("div");
    box.className = "panes";
    details.append(view.read, box);
    pane(view, box, "Chosen by the router", "Text of the generation: where the expert was chosen");
    if (set.spans.some((spans) => spans.length)) pane(view, box, "Marked by the probe", "Text of the generation: what the probe marked");
    build(view);
    return view;
  }

  document.querySelectorAll(".examples").forEach((group) => {
    const select = group.querySelector(".example-site");
    const views = [];
    group.querySelectorAll(".example").forEach((details) => details.addEventListener("toggle", () => {
      if (!details.open || details.dataset.built) return;
      details.dataset.built = "yes";
      unpack(Number(group.dataset.question)).then((set) => views.push(open(details, group, set, select)), () => {
        const said = document.createElement("p");
        said.className = "note";
        said.textContent = "This browser cannot unpack the text (it lacks DecompressionStream). A newer one can.";
        details.append(said);
      });
    }));
    if (select) select.addEventListener("change", () => views.forEach((view) => paint(view)));
  });

  // From a finding to the generations, with its expert chosen.
  document.querySelectorAll(".read-tokens").forEach((link) => link.addEventListener("click", () => {
    const group = document.querySelector(`.examples[data-key="${link.dataset.question}"]`);
    const select = group?.querySelector(".example-site");
    const option = select && Array.from(select.options).find((one) => one.textContent.trim() === link.dataset.site);
    if (option) {
      select.value = option.value;
      select.dispatchEvent(new Event("change"));
    }
    const first = group?.querySelector(".example");
    if (first) first.open = true;
  }));
})();
