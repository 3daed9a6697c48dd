// Runs the report's script on a page of stand-ins: node browser_in_node.js report.js data.json < steps
"use strict";
const fs = require("fs"), vm = require("vm");
const [script, data] = process.argv.slice(2).map(file => fs.readFileSync(file, "utf8"));
const asked = JSON.parse(fs.readFileSync(0, "utf8"));

class Node {
  constructor(tag) {
    Object.assign(this, {tag, children: [], own: "", heard: {}, className: "", value: "", dataset: {}, style: {}});
  }
  get textContent() { return this.own + this.children.map(child => child.textContent).join(""); }
  set textContent(words) { this.children = []; this.own = words; }
  append(...nodes) { for (const node of nodes) { node.parentNode = this; this.children.push(node); this.added?.(node); } }
  replaceChildren() { this.children = []; this.own = ""; }
  remove() {}
  scrollIntoView() {}
  addEventListener(name, then) { (this.heard[name] ??= []).push(then); }
  tell(name) { for (const then of this.heard[name] ?? []) then({preventDefault() {}}); }
  set open(on) { if (on && !this.isOpen) { this.isOpen = true; this.tell("toggle"); } }
  get all() { return [this, ...this.children.flatMap(child => child.all)]; }
}

const named = {};
const names = ["search", "words", "outcome", "reason", "change", "tool", "turn-from", "turn-to", "mean-from", "mean-to",
  "turns", "means", "sort", "diff", "found", "reset", "more", "no-data", "candidates"];
for (const name of names) new Node("label").append(named[name] = new Node(name));
named.sort.value = asked.sort ?? "outcome";
named.diff.checked = true;
if (!asked.files) (named.data = new Node("script")).textContent = data;
const head = new Node("head"), window = new Node("window");
head.added = node => {
  const name = node.src.match(/^report_data\/(\w+)\.js$/)[1];
  window.pivotrlData(name, JSON.parse(data)[name]);
};
const document = {
  head,
  getElementById: name => named[name] ?? null,
  createElement: tag => new Node(tag),
  querySelectorAll: () => []};

const state = () => ({
  found: named.found.textContent,
  rows: named.candidates.children.map(node => ({
    id: node.all.find(one => one.className === "id").textContent,
    outcome: node.all.find(one => one.className === "outcome")?.textContent ?? null,
    open: Boolean(node.isOpen),
    text: node.textContent,
    links: node.all.filter(one => one.tag === "a").map(one => one.href),
    samples: node.all.filter(one => one.className.startsWith("action "))
      .map(one => one.children.at(-1).children.map(piece => [piece.tag, piece.textContent]))}))});

vm.runInNewContext(script, {document, window, location: {hash: asked.hash}});
const states = [state()];
for (const [what, name, value] of asked.steps) {
  const node = named[name];
  if (what === "click") node.tell("click");
  else if (what === "check") { node.checked = value; node.tell("change"); }
  else {
    const option = node.children.find(one => one.textContent.startsWith(value + " ("));
    node.value = option ? option.value : value;
    node.tell("input");
    node.tell("change");
  }
  states.push(state());
}
console.log(JSON.stringify(states));
