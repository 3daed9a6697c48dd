"use strict";
// Two parts: values under the pointer on curves, and the browser of candidates. What comes from data becomes
// text nodes and nothing else.
(() => {
  const at = id => document.getElementById(id);
  const add = (parent, tag, name, words) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (words !== undefined) node.textContent = words;
    parent.append(node);
    return node;
  };

  // ---- curves

  const hover = svg => {
    const {box: [left, right, bottom, top], x: [x0, x1], y: [y0, y1], lines} = JSON.parse(svg.dataset.curve);
    const words = add(svg.parentNode.querySelector("figcaption"), "span", "value");
    const shape = (tag, name) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      node.setAttribute("class", name);
      svg.append(node);
      return node;
    };
    const set = (node, values) => Object.entries(values).forEach(pair => node.setAttribute(...pair));
    const rule = shape("line", "rule"), dots = lines.map(() => shape("circle", "dot"));
    const shown = on => { for (const node of [rule, ...dots]) node.style.display = on ? "" : "none"; };
    const place = step => left + (step - x0) / (x1 - x0) * (right - left);
    shown(false);
    svg.addEventListener("pointermove", event => {
      const frame = svg.getBoundingClientRect();
      const x = (event.clientX - frame.left) / frame.width * svg.viewBox.baseVal.width;
      const wanted = x0 + (x - left) / (right - left) * (x1 - x0), said = [];
      let near = null;
      shown(true);
      lines.forEach(([name, steps, values], i) => {
        let best = 0;
        steps.forEach((step, k) => {
          if (Math.abs(step - wanted) < Math.abs(steps[best] - wanted)) best = k;
        });
        const value = values[best], inReach = value !== null && wanted <= steps.at(-1) + (x1 - x0) / 20;
        if (near === null || Math.abs(steps[best] - wanted) < Math.abs(near - wanted)) near = steps[best];
        if (inReach) said.push((name ? name + " " : "") + value);
        dots[i].style.display = inReach ? "" : "none";
        if (!inReach) return;
        const y = bottom + (value - y0) / (y1 - y0) * (top - bottom);
        set(dots[i], {cx: place(steps[best]), cy: y, r: 3});
      });
      set(rule, {x1: place(near), x2: place(near), y1: bottom, y2: top});
      words.textContent = "step " + near + ": " + (said.join(", ") || "no value");
    });
    svg.addEventListener("pointerleave", () => { shown(false); words.textContent = ""; });
  };
  for (const svg of document.querySelectorAll("svg[data-curve]")) hover(svg);

  // ---- what a sample changes in the demonstration, word by word

  const MOST = 250000; // pairs of words that are compared; longer texts are shown without marks
  // [mark, text] pieces: "same", "gone" (in `before` only) and "new" (in `after` only); null for long texts
  const difference = (before, after) => {
    const split = text => text.match(/[\p{L}\p{N}_]+|\s+|[^]/gu) ?? [];
    const a = split(before), b = split(after);
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
    const n = a.length - start - end, m = b.length - start - end;
    if (n * m > MOST) return null;
    const width = m + 1, common = new Uint32Array((n + 1) * width); // of what follows i and j
    for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) {
      common[i * width + j] = a[start + i] === b[start + j] ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
    const pieces = [];
    const put = (mark, text) => {
      if (pieces.length && pieces.at(-1)[0] === mark) pieces.at(-1)[1] += text;
      else if (text) pieces.push([mark, text]);
    };
    put("same", a.slice(0, start).join(""));
    for (let i = 0, j = 0; i < n || j < m;) {
      if (i < n && j < m && a[start + i] === b[start + j]) { put("same", a[start + i]); i++; j++; }
      else if (i < n && (j === m || common[(i + 1) * width + j] >= common[i * width + j + 1])) {
        put("gone", a[start + i++]);
      } else put("new", b[start + j++]);
    }
    put("same", a.slice(a.length - end).join(""));
    return pieces;
  };

  // ---- candidates

  const list = at("candidates");
  if (!list) return;
  const STEP = 100, MARKS = {1: "●", 0: "○", p: "◐"};
  const HERE = "#c=", TAGS = {same: "span", gone: "del", new: "ins"};
  let tools = [], outcomes = [], reasons = [], changes = [], rows = [], hits = [], shown = 0, sampled = false;

  const waiting = new Map(), inside = at("data") && JSON.parse(at("data").textContent);
  window.pivotrlData = (name, value) => {
    for (const then of waiting.get(name) ?? []) then(value);
    waiting.delete(name);
  };
  const load = (name, then) => {
    if (inside) { then(inside[name]); return; }
    if (waiting.has(name)) { waiting.get(name).push(then); return; }
    waiting.set(name, [then]);
    const script = document.createElement("script");
    script.src = "report_data/" + name + ".js";
    script.onerror = () => { waiting.delete(name); at("no-data").hidden = false; };
    script.onload = () => script.remove();
    document.head.append(script);
  };

  const words = (parent, name, text) => {
    const node = add(parent, "pre", name, text);
    node.dir = "auto";
    return node;
  };
  const compare = (node, gold, said) => {
    const pieces = at("diff").checked && gold !== said ? difference(gold, said) : null;
    node.replaceChildren();
    for (const [mark, text] of pieces ?? [["same", said]]) add(node, TAGS[mark], "", text);
  };
  const fill = (place, row, detail) => {
    const about = add(place, "p", "note");
    add(about, "code", "", row.id);
    add(about, "span", "", " · " + detail.about + " · ");
    add(about, "a", "", "link to this candidate").href = HERE + encodeURIComponent(row.id);
    add(place, "h4", "", "End of the prompt");
    if (detail.earlier) add(place, "p", "note", detail.earlier + " earlier messages left out.");
    for (const [role, said] of detail.messages) {
      const message = add(place, "div", "message");
      add(message, "b", "", role);
      words(message, "", said);
    }
    add(place, "h4", "", "Demonstration");
    words(place, "gold", detail.gold);
    if (!detail.after) { samples(place, "Sampled actions", detail, detail.gold); return; }
    const pair = add(place, "div", "pair");
    samples(add(pair, "div"), "Sampled before training", detail, detail.gold, "mean " + mean_of(row.mean));
    samples(add(pair, "div"), "Sampled after training", detail.after, detail.gold, detail.after.about);
  };
  const samples = (place, title, {actions, others}, gold, about) => {
    if (!actions.length) { add(place, "p", "note", "Nothing was sampled here."); return; }
    add(place, "h4", "", title);
    if (about) add(place, "p", "note", about);
    for (const [grade, reward, times, reason, note, said, why, comparable] of actions) {
      const action = add(place, "div", "action " + grade), left = add(action, "div");
      add(left, "b", "reward", reward === null ? "–" : String(reward));
      add(left, "b", "", times > 1 ? " ×" + times + " " : " ");
      add(left, "code", "", reason);
      if (note) add(left, "div", "why", note);
      if (why) add(left, "div", "why", why);
      const text = words(action, "", said);
      if (!comparable) continue;
      compare(text, gold, said);
      at("diff").addEventListener("change", () => compare(text, gold, said));
    }
    if (others) add(place, "p", "note", others + " further samples left out.");
  };
  const mean_of = mean => mean === null ? "–" : mean.toFixed(2);
  const marks_of = marks => [...marks].map(mark => MARKS[mark]).join("");
  const both = (row, before, after) => before + (row.after ? " → " + after() : "");
  const show = row => {
    const node = add(list, "details", "candidate"), head = add(node, "summary");
    row.node = node;
    if (sampled) {
      add(head, "span", "mean", both(row, mean_of(row.mean), () => mean_of(row.after.mean)));
      add(head, "span", "outcome", outcomes[row.outcome]);
    }
    add(head, "span", row.call ? "kind call" : "kind text", row.call ? "call" : "text");
    if (sampled) {
      add(head, "span", "marks", both(row, marks_of(row.marks), () => marks_of(row.after.marks)));
    }
    add(head, "span", "gist", row.gist);
    add(head, "span", "id", row.id);
    node.addEventListener("toggle", () => load(String(row.file).padStart(5, "0"), details =>
      fill(add(node, "div", "inside"), row, details[row.place])), {once: true});
  };
  const more = () => {
    for (const row of hits.slice(shown, shown + STEP)) show(row);
    shown = Math.min(hits.length, shown + STEP);
    at("found").textContent = shown + " shown, " + hits.length + " found of " + rows.length;
    at("more").hidden = shown === hits.length;
  };
  const list_of = (found, alone) => {
    for (const row of hits) row.node = null;
    hits = found;
    shown = 0;
    list.replaceChildren();
    more();
    at("reset").hidden = !alone;
  };

  const known = (a, b, sign) => a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * (a - b);
  const rise = row => !row.after || row.mean === null || row.after.mean === null ? null : row.after.mean - row.mean;
  const orders = {
    outcome: (a, b) => a.outcome - b.outcome,
    file: () => 0,
    up: (a, b) => known(a.mean, b.mean, 1),
    down: (a, b) => known(a.mean, b.mean, -1),
    rise: (a, b) => known(rise(a), rise(b), -1),
    fall: (a, b) => known(rise(a), rise(b), 1),
    early: (a, b) => a.turn - b.turn,
    late: (a, b) => b.turn - a.turn};
  const bound = id => at(id).value === "" ? null : Number(at(id).value);
  const between = (value, low, high) =>
    (low === null || (value !== null && value >= low)) && (high === null || (value !== null && value <= high));
  const search = () => {
    const wanted = at("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [outcome, reason, change, tool] = ["outcome", "reason", "change", "tool"].map(bound);
    const turns = ["turn-from", "turn-to"].map(bound), means = ["mean-from", "mean-to"].map(bound);
    const order = orders[at("sort").value];
    list_of(rows.filter(row => (outcome === null || row.outcome === outcome)
      && (tool === null || row.tool === tool)
      && (reason === null || row.reasons.includes(reason))
      && (change === null || row.after?.changes.includes(change))
      && between(row.turn, ...turns) && between(row.mean, ...means)
      && wanted.every(word => row.words.includes(word))).sort((a, b) => order(a, b) || a.order - b.order), false);
  };
  const choices = (id, names, numbers) => {
    const counts = new Map();
    for (const number of numbers) counts.set(number, (counts.get(number) ?? 0) + 1);
    [...counts].sort((a, b) => id === "outcome" ? a[0] - b[0] : b[1] - a[1]).forEach(([number, count]) => {
      add(at(id), "option", "", names[number] + " (" + count + ")").value = String(number);
    });
    at(id).parentNode.hidden = counts.size < 2;
  };
  // #c=ID opens a candidate: in the list if it is there, else alone
  const follow = () => {
    if (!location.hash.startsWith(HERE)) return;
    let id = location.hash.slice(HERE.length);
    try { id = decodeURIComponent(id); } catch { /* as it stands */ }
    const row = rows.find(row => row.id === id);
    if (!row) { at("found").textContent = "No candidate has the id of this link: " + id; return; }
    if (!row.node) list_of([row], true);
    row.node.open = true;
    row.node.scrollIntoView();
  };

  for (const id of ["words", "turn-from", "turn-to", "mean-from", "mean-to"]) at(id).addEventListener("input", search);
  for (const id of ["outcome", "reason", "change", "tool", "sort"]) at(id).addEventListener("change", search);
  at("more").addEventListener("click", more);
  at("reset").addEventListener("click", search);
  at("search").addEventListener("submit", event => event.preventDefault());
  window.addEventListener("hashchange", follow);
  load("index", index => {
    ({tools, outcomes, reasons, changes} = index);
    rows = index.rows.map(([id, tool, outcome, mean, turn, call, marks, why, gist, after, file, place], order) => ({
      id, tool, outcome, mean, turn, call, marks, reasons: why, gist, file, place, order, node: null,
      after: after && {mean: after[0], marks: after[1], changes: after[2]},
      words: (id + " " + tools[tool] + " " + outcomes[outcome] + " " + gist).toLowerCase()}));
    choices("outcome", outcomes, rows.map(row => row.outcome));
    choices("tool", tools, rows.map(row => row.tool));
    choices("reason", reasons, rows.flatMap(row => row.reasons));
    choices("change", changes, rows.flatMap(row => row.after?.changes ?? []));
    sampled = rows.some(row => row.marks);
    at("means").hidden = !sampled;
    at("turns").hidden = new Set(rows.map(row => row.turn)).size < 2;
    if (!sampled) list.className = "unsampled";
    if (rows.some(row => row.after)) list.className = "again";
    at("no-data").hidden = true;
    at("search").hidden = false;
    search();
    follow();
  });
})();
