"use strict";
(() => {
  const rows = JSON.parse(document.getElementById("rows").textContent);
  const byId = (id) => document.getElementById(id);
  const answered = new Set();
  let at = 0;
  let saved = true;

  // textContent only: the text on a sheet is a stranger's
  const piece = (tag, text, name) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (name) made.className = name;
    return made;
  };

  const show = () => {
    const row = rows[at];
    byId("card").replaceChildren(
      piece("span", row.before, "beside"), piece("mark", row.text), piece("span", row.after, "beside"),
    );
    byId("progress").textContent = `${at + 1} of ${rows.length}; ${answered.size} answered${saved ? "" : ", not saved"}.`;
    const said = answered.has(at) ? row.label : undefined;
    byId("yes").setAttribute("aria-pressed", String(said === 1));
    byId("no").setAttribute("aria-pressed", String(said === 0));
    byId("skip").setAttribute("aria-pressed", String(said === null));
  };

  const move = (step) => {
    at = Math.min(rows.length - 1, Math.max(0, at + step));
    show();
  };

  const answer = (label) => {
    rows[at].label = label;
    answered.add(at);
    saved = false;
    move(1);
  };

  const save = () => {
    const lines = rows.map((row, index) => JSON.stringify({ ...row, label: answered.has(index) ? row.label : null }));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/jsonl" }));
    link.download = "labels-by-me.jsonl";
    link.click();
    URL.revokeObjectURL(link.href);
    saved = true;
    show();
  };

  const keys = {
    1: () => answer(1), y: () => answer(1), 0: () => answer(0), n: () => answer(0), s: () => answer(null),
    ArrowLeft: () => move(-1), ArrowRight: () => move(1),
  };
  document.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });
  byId("yes").addEventListener("click", () => answer(1));
  byId("no").addEventListener("click", () => answer(0));
  byId("skip").addEventListener("click", () => answer(null));
  byId("back").addEventListener("click", () => move(-1));
  byId("on").addEventListener("click", () => move(1));
  byId("save").addEventListener("click", save);
  show();
})();
