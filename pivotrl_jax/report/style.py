"""The report's style sheet and its one script: filter and sort of the pivots, search in all candidates."""

SCRIPT = """
(() => {
  const list = document.getElementById("pivots");
  if (!list) return;
  const at = id => document.getElementById(id);
  const rows = [...list.children].map(node => ({
    node, mean: Number(node.dataset.mean), order: Number(node.dataset.order), words: null}));
  const orders = {
    order: (a, b) => a.order - b.order,
    up: (a, b) => a.mean - b.mean || a.order - b.order,
    down: (a, b) => b.mean - a.mean || a.order - b.order};
  const narrow = () => {
    const wanted = at("filter").value.toLowerCase().split(/\\s+/).filter(Boolean), kind = at("kind").value;
    let count = 0;
    for (const row of rows) {
      row.words ??= row.node.textContent.toLowerCase();
      const otherKind = kind && row.node.dataset.kind !== kind;
      row.node.hidden = otherKind || !wanted.every(w => row.words.includes(w));
      count += !row.node.hidden;
    }
    at("shown").textContent = count + " of " + rows.length;
  };
  at("filter").addEventListener("input", narrow);
  at("kind").addEventListener("change", narrow);
  at("sort").addEventListener("change", () =>
    list.append(...[...rows].sort(orders[at("sort").value]).map(row => row.node)));
  at("controls").addEventListener("submit", event => event.preventDefault());
  at("controls").hidden = false;
  narrow();
})();
(() => {
  const at = id => document.getElementById(id);
  const list = at("candidates");
  if (!list) return;
  const STEP = 100, waiting = new Map();
  let rows = [], hits = [], shown = 0;
  const add = (parent, tag, name, words) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (words !== undefined) node.textContent = words;
    parent.append(node);
    return node;
  };
  window.pivotrlData = (name, value) => {
    for (const then of waiting.get(name) ?? []) then(value);
    waiting.delete(name);
  };
  const load = (name, then) => {
    if (waiting.has(name)) { waiting.get(name).push(then); return; }
    waiting.set(name, [then]);
    const script = document.createElement("script");
    script.src = "report_data/" + name + ".js";
    script.onerror = () => { waiting.delete(name); at("no-data").hidden = false; };
    script.onload = () => script.remove();
    document.head.append(script);
  };
  const fill = (place, detail) => {
    add(place, "p", "note", detail.about);
    add(place, "h4", "", "End of the prompt");
    if (detail.earlier) add(place, "p", "note", detail.earlier + " earlier messages left out.");
    for (const [role, said] of detail.messages) {
      const message = add(place, "div", "message");
      add(message, "b", "", role);
      add(message, "pre", "", said).dir = "auto";
    }
    add(place, "h4", "", "Demonstration");
    add(place, "pre", "gold", detail.gold).dir = "auto";
    add(place, "h4", "", "Sampled actions");
    if (!detail.actions.length) add(place, "p", "note", "No rollouts of this candidate.");
    for (const [grade, reward, times, reason, cut, said, why] of detail.actions) {
      const action = add(place, "div", "action " + grade), left = add(action, "div");
      add(left, "b", "reward", reward === null ? "–" : String(reward));
      add(left, "b", "", times > 1 ? " ×" + times + " " : " ");
      add(left, "code", "", reason);
      if (cut) add(left, "span", "", " (" + cut + ")");
      if (why) add(left, "div", "why", why);
      add(action, "pre", "", said).dir = "auto";
    }
    if (detail.others) add(place, "p", "note", detail.others + " further actions left out.");
  };
  const more = () => {
    for (const [id, tool, outcome, mean, file, place] of hits.slice(shown, shown + STEP)) {
      const node = add(list, "details", "candidate"), head = add(node, "summary");
      add(head, "span", "mean", mean === null ? "–" : mean.toFixed(2));
      add(head, "span", "kind", outcome);
      add(head, "span", "gist", id + "  " + tool);
      node.addEventListener("toggle", () => load(String(file).padStart(5, "0"),
        details => fill(add(node, "div", "inside"), details[place])), {once: true});
    }
    shown = Math.min(hits.length, shown + STEP);
    at("found").textContent = shown + " shown, " + hits.length + " found of " + rows.length;
    at("more").hidden = shown === hits.length;
  };
  const search = () => {
    const wanted = at("words").value.toLowerCase().split(/\\s+/).filter(Boolean);
    const outcome = at("outcome").value;
    hits = rows.filter(row => (!outcome || row[2] === outcome) && wanted.every(w => row[6].includes(w)));
    shown = 0;
    list.replaceChildren();
    more();
  };
  at("words").addEventListener("input", search);
  at("outcome").addEventListener("change", search);
  at("more").addEventListener("click", more);
  at("search").addEventListener("submit", event => event.preventDefault());
  load("index", value => {
    for (const row of value) row.push((row[0] + " " + row[1] + " " + row[2]).toLowerCase());
    rows = value;
    at("no-data").hidden = true;
    at("search").hidden = false;
    search();
  });
})();
"""

STYLE = """
:root { --ground: #f6f7f9; --card: #ffffff; --ink: #16191d; --muted: #5b6570; --line: #dde2e8;
  --call: #2563c9;
  --text: #d08422; --before: #a9b3be; --after: #1d8a6b; --mark: #b3267b; --good: #14724f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1215; --card: #181c21; --ink: #e8ebee;
  --muted: #9aa5b1;
  --line: #2c333b; --call: #6ea5ff; --text: #eba552; --before: #66717d; --after: #4cc49c; --mark: #f27cc0;
  --good: #5fd3a5; --bad: #ff8a80; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .2rem; letter-spacing: -.01em; }
h4 { font-size: .78rem; margin: 1.1rem 0 .35rem; color: var(--muted); text-transform: uppercase;
  letter-spacing: .05em; }
section { margin-top: 2.75rem; }
.lead { color: var(--muted); margin: 0 0 .9rem; max-width: 88ch; }
.note { color: var(--muted); font-size: .85rem; margin: .35rem 0; overflow-wrap: anywhere; }
.what { color: var(--muted); margin: 0; overflow-wrap: anywhere; }
.verdict { margin: 1.1rem 0 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--muted); border-radius: 8px; font-size: 1.08rem; max-width: 80ch; }
.verdict.good { border-left-color: var(--good); } .verdict.bad { border-left-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 195px), 1fr)); gap: .75rem;
  margin-top: 1.25rem; }
.tile, figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: .75rem .9rem; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.25; font-weight: 640; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: .82rem; color: var(--muted); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: .75rem;
  align-items: start; }
figure { margin: 0; padding: .8rem .9rem .6rem; min-width: 0; }
figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .4rem; }
svg { display: block; width: 100%; max-width: 560px; height: auto; margin: 0 auto; font-family: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem 1.1rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; max-width: 60ch; }
th { font-weight: 500; } thead th { color: var(--muted); font-size: .8rem; }
details.more { margin-top: .8rem; } details.more > summary { color: var(--muted); font-size: .9rem;
  cursor: pointer; }
pre, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .8rem; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext;
  line-height: 1.45; }
.cut { color: var(--muted); }
form { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; margin: .8rem 0 .4rem; }
label { font-size: .8rem; color: var(--muted); display: grid; gap: .2rem; }
label:first-child { flex: 1 1 16rem; }
input, select { font: inherit; font-size: .95rem; color: var(--ink); background: var(--card); width: 100%;
  border: 1px solid var(--line); border-radius: 7px; padding: .4rem .55rem; }
output { font-size: .85rem; color: var(--muted); padding-bottom: .5rem; }
:focus-visible { outline: 2px solid var(--call); outline-offset: 1px; }
#pivots, #candidates:not(:empty) { border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  background: var(--card); }
.pivot + .pivot, .candidate + .candidate { border-top: 1px solid var(--line); }
.pivot > summary { display: grid; grid-template-columns: 3rem 3.2rem minmax(8.5ch, 9.5rem) 1fr; gap: .75rem;
  align-items: baseline; padding: .5rem .9rem; cursor: pointer; list-style: none; }
.pivot > summary::-webkit-details-marker { display: none; }
.pivot > summary:hover, .pivot[open] > summary { background: var(--ground); }
.candidate > summary { display: grid; grid-template-columns: 3rem 7rem 1fr; gap: .75rem;
  align-items: baseline; padding: .4rem .9rem; cursor: pointer; }
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: 7px; padding: .4rem .9rem; cursor: pointer; }
.mean { font-variant-numeric: tabular-nums; font-weight: 640; }
.kind { font-size: .78rem; font-weight: 600; } .kind.call { color: var(--call); }
  .kind.text { color: var(--text); }
.marks { font-size: .74rem; letter-spacing: .06em; color: var(--muted); overflow-wrap: anywhere; }
.gist { font: .8rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  min-width: 0;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.inside { padding: .3rem .9rem 1.1rem; }
.message, .action { display: grid; grid-template-columns: 11rem minmax(0, 1fr); gap: .9rem;
  padding: .4rem 0;
  border-top: 1px solid var(--line); font-size: .85rem; }
.message { grid-template-columns: 5.5rem minmax(0, 1fr); } .message b { color: var(--muted);
  font-weight: 500; }
.gold, .action { border-left: 3px solid var(--line); padding-left: .75rem; }
.gold, .action.pass { border-left-color: var(--good); } .action.fail { border-left-color: var(--bad); }
.action.part { border-left-color: var(--text); }
.action > div { min-width: 0; overflow-wrap: anywhere; } .why { color: var(--muted); font-size: .8rem; }
.reward { font-variant-numeric: tabular-nums; } .pass .reward { color: var(--good); }
  .fail .reward { color: var(--bad); }
@media (max-width: 640px) {
  main { padding: 1.25rem .8rem 3rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tile b { font-size: 1.3rem; }
  .pivot > summary { grid-template-columns: 2.6rem 2.6rem 1fr; gap: .15rem .6rem; }
  .gist { grid-column: 1 / -1; }
  .action, .message { grid-template-columns: minmax(0, 1fr); gap: .2rem; }
}
@media print { .pivot { break-inside: avoid; } form { display: none; } }
"""
