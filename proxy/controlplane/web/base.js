"use strict";
// What all other scripts use: nodes, and numbers and times as people read them.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

const make = (tag, text, kind) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const button = (text, press, label) => {
  const node = make("button", text);
  node.type = "button";
  if (label) node.setAttribute("aria-label", label);
  node.addEventListener("click", press);
  return node;
};
const draw = (tag, attributes, text) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
// A page of 200 backends has thousands of words, of which few change in a second: only those are written.
const told = new WeakMap();
const put = (node, text, kind) => {
  const key = kind === undefined ? String(text) : `${kind}\n${text}`;
  if (told.get(node) === key) return;
  told.set(node, key);
  node.textContent = text;
  if (kind !== undefined) node.className = kind;
};
const hide = (node, yes) => { if (node.hidden !== yes) node.hidden = yes; };

const whole = (number) => Math.round(number).toLocaleString("en");
const count = (number, one, many = `${one}s`) => `${whole(number)} ${number === 1 ? one : many}`;
const perSecond = (rate) => rate < 1000 ? rate.toFixed(1) : whole(rate);
const lasted = (seconds) => seconds < 1 ? `${(1000 * seconds).toFixed(1)} ms` : `${seconds.toFixed(1)} s`;
const ago = (seconds) => seconds < 90 ? `${Math.max(0, Math.round(seconds))} s`
  : seconds < 5400 ? `${Math.round(seconds / 60)} min`
  : seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
const clock = (seconds) => {
  const date = new Date(seconds * 1000), today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString() : date.toLocaleString();
};
