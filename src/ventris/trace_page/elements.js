"use strict";
// Elements, words and numbers, for every page of Ventris. Text goes in as text nodes, never as markup.

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

// Words and numbers

const shorten = (text, limit) => {
  const letters = [...text];
  return letters.length > limit ? `${letters.slice(0, limit - 1).join("")}…` : text;
};
const chance = (logp) => {
  const p = Math.exp(logp);
  return p >= 0.0995 ? p.toFixed(2) : p >= 0.0005 ? p.toFixed(3) : "<0.001";
};
const atMost = (logp) => Math.max(0.001, Math.exp(logp)).toFixed(3);
const percent = (share) => (share > 0 && share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const time = (micros) => (micros >= 1e6 ? `${(micros / 1e6).toFixed(2)} s` : micros >= 1e4
  ? `${Math.round(micros / 1e3)} ms` : micros >= 100 ? `${(micros / 1e3).toFixed(1)} ms` : `${micros} µs`);
const sum = (values) => values.reduce((total, value) => total + value, 0);
