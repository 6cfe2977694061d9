// Coloured tokens, built when a generation is opened: eager spans would be megabytes of HTML.
(function () {
  const CHUNK = 2000; // the first piece; each next one doubles the text, so the browser lays it out only a few times

  function shown(token) {
    return visible(token).replaceAll("\t", "\u21e5\t").replaceAll("\n", "\u21b5\n");
  }

  function shades(example, site, most) {
    const shade = new Array(example.tokens.length).fill(-1);
    if (!example.weights.length) return shade;
    const [indices, weights] = example.weights[site];
    indices.forEach((index, i) => { shade[index] = most > 0 ? Math.min(7, Math.floor(8 * weights[i] / most)) : 0; });
    return shade;
  }

  function marked(example) {
    const mark = new Array(example.tokens.length).fill(false);
    for (const [first, last] of example.spans) mark.fill(true, Math.max(first, 0), Math.max(last, 0));
    return mark;
  }

  function paint(view, from = 0) {
    const site = view.select ? Number(view.select.value) : 0;
    if (view.site !== site) [view.site, view.shade] = [site, shades(view.example, site, view.most[site] ?? 0)];
    for (let i = from; i < view.spans.length; i += 1) {
      const classes = [];
      if (i < view.example.start) classes.push("prompt");
      if (view.mark[i]) classes.push("span");
      if (view.shade[i] >= 0) classes.push("w" + view.shade[i]);
      view.spans[i].className = classes.join(" ");
    }
  }

  function build(view) {
    const from = view.spans.length;
    const until = Math.min(from + Math.max(from, CHUNK), view.example.tokens.length);
    const piece = document.createDocumentFragment();
    for (let i = from; i < until; i += 1) {
      const span = document.createElement("span");
      span.textContent = shown(view.example.tokens[i]);
      span.tokenIndex = i;
      view.spans.push(span);
      piece.append(span);
    }
    view.text.append(piece);
    paint(view, from);
    if (until < view.example.tokens.length) requestAnimationFrame(() => build(view));
  }

  function point(view, event) {
    const index = event.target.tokenIndex;
    if (index === undefined || !view.select) return;
    const [indices, weights] = view.example.weights[Number(view.select.value)];
    const at = indices.indexOf(index);
    const name = view.select.selectedOptions[0].textContent.trim();
    const part = index < view.example.start ? "prompt" : "answer";
    view.read.textContent = `Token ${index + 1} (${part}): ` +
      (at < 0 ? `${name} was not chosen.` : `gate weight of ${name} is ${weights[at].toFixed(3)}.`);
  }

  document.querySelectorAll(".examples").forEach((group) => {
    const set = data.tokens[Number(group.dataset.question)];
    const select = group.querySelector(".example-site");
    const views = [];
    group.querySelectorAll(".example").forEach((details) => details.addEventListener("toggle", () => {
      if (!details.open || details.dataset.built) return;
      details.dataset.built = "yes";
      const text = details.querySelector(".text");
      const example = set.examples[Number(details.dataset.example)];
      const view = { site: null, shade: [], example, text, select, most: set.most, mark: marked(example), spans: [], read: details.querySelector(".read") };
      view.read.hidden = !select;
      view.read.textContent = "Point at a token to read its gate weight.";
      text.tabIndex = 0;
      text.setAttribute("role", "region");
      text.setAttribute("aria-label", "Text of the generation");
      text.addEventListener("pointerover", (event) => point(view, event));
      views.push(view);
      build(view);
    }));
    if (select) select.addEventListener("change", () => views.forEach((view) => paint(view)));
  });
})();
