// The picture: clients above, a box for each backend below, and sessions that move from box to box.
const FEW = 12;          // boxes that are large enough for words, with lines to them
const MOST_ARCS = 40;    // drawn at once; the list has all
const STAYS = 6000;      // milliseconds that an arc is seen
const MOST_MOVES = 200;  // lines of the list
const TOP = 36;          // height of the clients
const SIGNS = {good: "", warn: "!", bad: "×", out: "–"};
const reduced = matchMedia("(prefers-reduced-motion: reduce)");
const boxes = new Map(); // by name
let svg = null, layers = {}, plan = "";

// Where the boxes are, for so many in such a width.
function layout(number, width) {
  if (number <= FEW) {
    const across = Math.max(1, Math.min(number, Math.floor(width / 76)));
    return {across, wide: width / across, high: 64, from: TOP + 56, named: true};
  }
  const least = number <= 40 ? 80 : number <= 100 ? 44 : 30;
  const across = Math.max(1, Math.floor(width / least));
  return {across, wide: width / across, high: number <= 40 ? 44 : 26, from: TOP + 24, named: number <= 40};
}

function drawPlan(width) {
  const {across, wide, high, from, named} = layout(now.backends.length, width);
  const height = from + Math.ceil(now.backends.length / across) * (high + 8) + 4;
  svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img"});
  layers = {};
  for (const name of ["lines", "boxes", "moves"]) svg.append(layers[name] = draw("g", {}));
  svg.append(draw("rect", {class: "clients", x: 1, y: 1, width: width - 2, height: TOP - 8, rx: 6}));
  svg.append(layers.clients = draw("text", {x: width / 2, y: 19, "text-anchor": "middle"}));
  boxes.clear();
  now.backends.forEach(({name}, at) => {
    const x = (at % across) * wide + 3, y = from + Math.floor(at / across) * (high + 8), room = wide - 6;
    const group = draw("g", {class: "cell"}), edge = draw("rect", {x, y, width: room, height: high, rx: 4});
    const level = draw("rect", {class: "level", x: x + 1, width: room - 2, y: y + high, height: 0});
    const title = draw("title", {}), label = draw("text", {x: x + 6, y: y + 17}), figure = draw("text", {x: x + 6, y: y + 35});
    if (named) put(label, name.length > room / 7 ? `${name.slice(0, Math.floor(room / 7) - 1)}…` : name);
    else { figure.setAttribute("x", x + room / 2 - 4); figure.setAttribute("y", y + high / 2 + 4); }
    group.append(edge, level, title, label, figure);
    group.addEventListener("click", () => goTo(name));
    layers.boxes.append(group);
    let line = null;
    if (now.backends.length <= FEW && at < across) {
      const middle = x + room / 2;
      layers.lines.append(line = draw("path", {class: "line", d: `M ${width / 2} ${TOP - 8} C ${width / 2} ${TOP + 24}, ${middle} ${TOP + 16}, ${middle} ${y}`}));
    }
    boxes.set(name, {group, level, title, figure, line, x: x + room / 2, y: y + high / 2, bottom: y + high, high, named});
  });
  $("picture").replaceChildren(svg);
}

function showFlow() {
  const width = Math.max(240, Math.round($("picture").clientWidth));
  const wanted = `${width} ${now.backends.map(({name}) => name).join()}`;
  if (wanted !== plan) { plan = wanted; drawPlan(width); }
  const most = Math.max(1, ...now.backends.map(({sessions}) => sessions));
  const busiest = Math.max(1, ...now.backends.map((one) => rateOf(one).requests + rateOf(one).frames));
  const tones = {good: 0, warn: 0, bad: 0, out: 0};
  let sessions = 0;
  for (const one of now.backends) {
    const box = boxes.get(one.name), {word, tone} = stateOf(one), share = one.sessions / most;
    const key = `${tone} ${share.toFixed(2)} ${one.sessions} ${word}`;
    tones[tone] += 1;
    sessions += one.sessions;
    if (box.line) {
      const rate = rateOf(one).requests + rateOf(one).frames;
      const kind = rate > 0 ? "line busy" : "line", thick = (1 + 5 * rate / busiest).toFixed(1);
      if (box.line.getAttribute("class") !== kind) box.line.setAttribute("class", kind);
      if (box.line.getAttribute("stroke-width") !== thick) box.line.setAttribute("stroke-width", thick);
    }
    if (box.key === key) continue;
    box.key = key;
    box.group.setAttribute("class", `cell ${tone}`);
    box.level.setAttribute("y", box.bottom - 1 - share * (box.high - 2));
    box.level.setAttribute("height", share * (box.high - 2));
    box.title.textContent = `${one.name}: ${word}, ${count(one.sessions, "session")}`;
    box.figure.textContent = box.named ? `${SIGNS[tone]} ${whole(one.sessions)}`.trim() : SIGNS[tone];
  }
  const {good, warn, bad, out} = tones;
  const text = `${count(sessions, "session")} at ${count(now.backends.length, "backend")}`;
  put(layers.clients, text);
  svg.setAttribute("aria-label", `${text}: ${good} healthy, ${warn} degraded, ${bad} down, ${out} that take no new sessions`);
}

// Sessions have moved: a line of the list for each pair of backends, and an arc for those of this moment.
function haveMoved(moves) {
  const fresh = moves.filter(({at}) => now && now.at - at < 3).sort((a, b) => b.count - a.count);
  if (!document.hidden && svg) fresh.slice(0, MOST_ARCS).forEach(arc);
  for (const {at, origin, target, reason, count: number} of moves) {
    const item = make("li");
    item.append(make("span", `${clock(at)} `, "faint"), `${origin} → ${target}: ${count(number, "session")}, ${origin} ${plain(REASONS, reason)}`);
    $("moves").prepend(item);
  }
  while ($("moves").children.length > MOST_MOVES) $("moves").lastChild.remove();
}

function arc({origin, target, count: number}) {
  const from = boxes.get(origin) ?? {x: svg.viewBox.baseVal.width / 2, y: TOP / 2}, to = boxes.get(target);
  if (!to || layers.moves.children.length >= MOST_ARCS) return;
  const lift = Math.min(80, 24 + Math.abs(to.x - from.x) / 6);
  const over = {x: (from.x + to.x) / 2, y: Math.max(4, Math.min(from.y, to.y) - lift)};
  const group = draw("g", {class: "move"});
  group.append(draw("path", {class: "arc", d: `M ${from.x} ${from.y} Q ${over.x} ${over.y} ${to.x} ${to.y}`}));
  group.append(draw("text", {class: "arc-count", x: (from.x + 2 * over.x + to.x) / 4, y: (from.y + 2 * over.y + to.y) / 4 + 4, "text-anchor": "middle"}, whole(number)));
  layers.moves.append(group);
  setTimeout(() => group.remove(), STAYS);
  if (reduced.matches) return;
  const steps = Array.from({length: 13}, (_, step) => {
    const t = step / 12, x = (1 - t) ** 2 * from.x + 2 * t * (1 - t) * over.x + t ** 2 * to.x;
    const y = (1 - t) ** 2 * from.y + 2 * t * (1 - t) * over.y + t ** 2 * to.y;
    return {transform: `translate(${x}px, ${y}px)`};
  });
  for (let each = 0; each < Math.min(number, 5); each += 1) {
    const dot = draw("circle", {class: "dot", r: 5});
    group.append(dot);
    dot.animate(steps, {duration: 1200, delay: 150 * each, fill: "both", easing: "ease-in-out"});
  }
}

new ResizeObserver(() => { if (now) showFlow(); }).observe($("picture"));
