// The backends: a card each while there are few, rows of a table that unfold when there are many.
const MOST_CARDS = 5;
const KEPT = 300;        // points of a chart: five minutes
const RESORTED = 5000;   // milliseconds after which rows follow their numbers again
const COLUMNS = [        // title, what it is sorted by, what is shown, and whether the largest comes first
  ["Backend", (one) => one.name, (one) => one.name, false],
  ["State", (one) => `${stateOf(one).rank} ${one.name}`, null, false],
  ["Sessions", (one) => one.sessions, (one) => sessionsOf(one), true],
  ["Answering", (one) => one.turns, (one) => whole(one.turns), true],
  ["Requests/s", (one) => rateOf(one).requests, (one) => perSecond(rateOf(one).requests), true],
  ["Frames/s", (one) => rateOf(one).frames, (one) => perSecond(rateOf(one).frames), true],
  ["First byte, 95 %", (one) => one.p95 ?? -1, (one) => one.p95 === null ? "-" : lasted(one.p95), true],
  ["Errors lately", (one) => one.troubles, (one) => whole(one.troubles), true],
];
const SORTED_BY = 1;     // trouble first
const shown = new Map(); // by name: its card or row
const names = new Intl.Collator("en", {numeric: true});
let described = 0;       // buttons with words beside them
let table = null, sortedBy = SORTED_BY, upside = false, sortedAt = 0, states = "";

const STILL = {requests: 0, frames: 0, probe: null, cpu: null, history: []};
const rates = new Map(); // by name
const rateOf = ({name}) => rates.get(name) ?? STILL;

// What was wished of a backend, and how far that is; "" while it is to be ready.
function wishOf({admin_state: state, drain, leaving}) {
  if (!drain) return state === "ready" ? "" : state;
  const word = drain.empty ? "drained" : `drains, ${Math.max(0, Math.ceil(drain.seconds_left))} s left`;
  return `${word}, ${drain.sent_away + drain.forced} sent away${leaving ? ", leaves the fleet then" : ""}`;
}

// How a backend is, in words: the tone is its colour, the rank puts what is wrong first.
function stateOf(backend) {
  const {health, reason, takes_sessions: takes} = backend, wished = wishOf(backend), also = wished && `; ${wished}`;
  if (health === "down" && !reason) return {word: `not met yet${also}`, tone: "out", rank: 3};
  if (health === "down") return {word: `down${also}`, tone: "bad", rank: 0};
  if (health === "degraded") return {word: `degraded${takes ? ", the last resort" : also}`, tone: "warn", rank: 1};
  if (wished) return {word: wished, tone: "out", rank: 2};
  return takes === false ? {word: "takes no new sessions", tone: "out", rank: 2} : {word: "healthy", tone: "good", rank: 4};
}
const whyOf = ({reason, since: at}) => reason ? `for ${ago(now.at - at)}: ${reason}` : "";
const sessionsOf = ({sessions, most_sessions: most}) => most ? `${whole(sessions)} of ${whole(most)}` : whole(sessions);
const isWrong = (one) => stateOf(one).rank < 2;

// What both a card and an unfolded row tell: figures, requests of the last minutes, what can be done, sessions.
class Detail {
  constructor(backend) {
    this.node = make("div");
    this.facts = make("dl", undefined, "facts");
    this.fields = {};
    for (const title of ["Sessions", "Answering", "Websockets", "Requests/s", "Frames/s", "First byte", "Probe",
      "Errors lately", "CPU", "Process", "Address"]) {
      const pair = make("div", undefined, title === "Address" ? "wide" : "");
      this.fields[title] = make("dd", "-");
      pair.append(make("dt", title), this.fields[title]);
      this.facts.append(pair);
    }
    this.chart = draw("svg", {class: "chart", viewBox: `0 0 ${KEPT} 100`, preserveAspectRatio: "none", role: "img"});
    this.line = draw("polyline", {});
    this.chart.append(this.line);
    const figure = make("figure");
    this.caption = make("figcaption");
    figure.append(this.chart, this.caption);
    this.actions = make("div", undefined, "actions");
    this.wishes = {};
    for (const [what, {title}] of Object.entries(WISHES)) {
      const press = button(title, () => wish(this.backend, what), `${title} ${backend.name}`);
      const line = make("div"), tells = make("small");
      tells.id = `tells-${described += 1}`;
      press.setAttribute("aria-describedby", tells.id);
      line.append(press, tells);
      this.actions.append(line);
      this.wishes[what] = {line, press, tells};
    }
    this.sessions = new SessionList(backend.name);
    this.node.append(this.facts, figure, this.actions, this.sessions.node);
  }

  show(backend) {
    this.backend = backend;
    const {requests, frames, probe, cpu, history} = rateOf(backend), {fields} = this;
    put(fields["Sessions"], sessionsOf(backend));
    put(fields["Answering"], whole(backend.turns));
    put(fields["Websockets"], whole(backend.tunnels));
    put(fields["Requests/s"], perSecond(requests));
    put(fields["Frames/s"], perSecond(frames));
    put(fields["First byte"], backend.p50 === null ? "-" : `${lasted(backend.p50)}, 95 % ${lasted(backend.p95)}`);
    put(fields["Probe"], probe === null ? "-" : `${(1000 * probe).toFixed(1)} ms`);
    put(fields["Errors lately"], whole(backend.troubles));
    put(fields["CPU"], cpu === null ? "-" : `${Math.round(100 * cpu)} %`);
    put(fields["Process"], backend.pid ?? "-");
    for (const title of ["CPU", "Process"]) hide(fields[title].parentNode, backend.pid === null);  // of replicas alone
    put(fields["Address"], backend.url);
    const focused = this.actions.contains(document.activeElement);
    for (const [what, {line, tells}] of Object.entries(this.wishes)) {
      const useless = backend.admin_state === what || (backend.leaving && what !== "drain");
      hide(line, useless);
      if (!useless) put(tells, WISHES[what].tells(backend));
    }
    if (focused && document.activeElement.closest("[hidden]"))  // what was pressed has gone
      Object.values(this.wishes).find(({line}) => !line.hidden)?.press.focus();
    const most = Math.max(1, ...history), from = KEPT - history.length;
    this.line.setAttribute("points", history.map((rate, x) => `${from + x},${(98 - 96 * rate / most).toFixed(1)}`).join(" "));
    const span = history.length < 60 ? `${history.length} s` : `${Math.floor(history.length / 60)} min`;
    put(this.caption, `Requests/s, up to ${most.toFixed(1)}, last ${span}`);
    this.chart.setAttribute("aria-label", `Requests a second, now ${requests.toFixed(1)}, at most ${most.toFixed(1)}`);
  }

  close() {
    this.sessions.close();
  }
}

class Card {
  constructor(backend) {
    this.node = make("article");
    const head = make("header");
    this.state = make("strong");
    this.why = make("p");
    this.detail = new Detail(backend);
    head.append(make("h3", backend.name), this.state);
    this.node.append(head, this.why, this.detail.node);
  }

  show(backend) {
    const {word, tone} = stateOf(backend);
    if (this.node.className !== `card ${backend.health}`) this.node.className = `card ${backend.health}`;
    this.node.dataset.tone = tone;
    put(this.state, word, tone);
    put(this.why, whyOf(backend), tone);
    hide(this.why, !backend.reason);
    this.detail.show(backend);
  }

  remove() {
    this.detail.close();
    this.node.remove();
  }
}

class Row {
  constructor(backend) {
    this.node = make("tr");
    this.more = null;  // the row below, once it was unfolded
    this.open = button(backend.name, () => this.turn());
    this.open.className = "name";
    this.open.setAttribute("aria-expanded", "false");
    this.cells = COLUMNS.map(([title, , tells], at) => {
      const cell = make("td");
      if (at > 1) cell.dataset.label = title;
      if (!tells) cell.className = "words";
      this.node.append(cell);
      return cell;
    });
    this.cells[0].append(this.open);
    this.state = make("strong");
    this.why = make("div");
    this.cells[1].append(this.state, this.why);
  }

  turn() {
    const unfold = !this.more;
    this.open.setAttribute("aria-expanded", String(unfold));
    if (unfold) {
      this.more = make("tr", undefined, "detail");
      const cell = make("td");
      cell.colSpan = COLUMNS.length;
      this.detail = new Detail(this.backend);
      cell.append(this.detail.node);
      this.more.append(cell);
      this.node.after(this.more);
      this.detail.show(this.backend);
    } else this.fold();
  }

  fold() {
    this.detail?.close();
    this.more?.remove();
    this.more = this.detail = null;
  }

  show(backend) {
    this.backend = backend;
    const {word, tone} = stateOf(backend);
    if (this.node.className !== backend.health) this.node.className = backend.health;
    put(this.state, word, tone);
    put(this.why, whyOf(backend), tone);
    COLUMNS.forEach(([, , tells], at) => { if (at && tells) put(this.cells[at], tells(backend)); });
    this.detail?.show(backend);
  }

  hide(yes) {
    hide(this.node, yes);
    if (this.more) hide(this.more, yes);
  }

  remove() {
    this.fold();
    this.node.remove();
  }
}

function makeTable() {
  table = make("table");
  const head = make("thead"), titles = make("tr");
  COLUMNS.forEach(([title], at) => {
    const cell = make("th", undefined, at === 1 ? "words" : "");
    cell.scope = "col";
    cell.append(button(title, () => {
      upside = sortedBy === at && !upside;
      sortedBy = at;
      sortRows(true);
    }));
    titles.append(cell);
  });
  head.append(titles);
  table.append(head, make("tbody"));
  $("backends").append(table);
}

// Rows keep their places while somebody is among them, unless it was asked for.
function sortRows(asked) {
  const [, key, , most] = COLUMNS[sortedBy], down = most !== upside;
  table.querySelectorAll("th").forEach((cell, at) => {
    if (at === sortedBy) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
  const body = table.tBodies[0];
  if (!asked && (body.contains(document.activeElement) || body.matches(":hover"))) return;
  sortedAt = Date.now();
  const rows = now.backends.map((one) => [key(one), one.name]).sort(([a, aName], [b, bName]) => {
    const order = typeof a === "number" ? a - b : names.compare(a, b);
    return (down ? -order : order) || names.compare(aName, bName);
  });
  const order = rows.flatMap(([, name]) => { const {node, more} = shown.get(name); return more ? [node, more] : [node]; });
  if (order.some((node, at) => body.children[at] !== node)) body.append(...order);
}

function filterRows() {
  const wanted = $("filter-text").value.trim().toLowerCase(), state = $("filter-state").value;
  let matching = 0;
  for (const one of now.backends) {
    const text = `${one.name} ${one.url} ${one.reason} ${stateOf(one).word}`.toLowerCase();
    const fits = text.includes(wanted) && (!state || (state === "wrong" ? isWrong(one) : one.takes_sessions === (state === "takes")));
    shown.get(one.name).hide(!fits);
    matching += fits;
  }
  put($("filter-count"), `${matching} of ${now.backends.length}`);
}

function showBackends() {
  const many = now.backends.length > MOST_CARDS;
  if (many !== (table !== null)) {  // cards become rows, or rows cards
    for (const one of shown.values()) one.remove();
    shown.clear();
    table?.remove();
    table = null;
    if (many) makeTable();
  }
  $("backends").className = many ? "many" : "cards";
  if (many) $("backends").tabIndex = 0; else $("backends").removeAttribute("tabindex");  // what scrolls is reached by keys
  hide($("filter"), !many);
  const there = new Set(now.backends.map(({name}) => name));
  for (const [name, one] of shown) if (!there.has(name)) { one.remove(); shown.delete(name); }
  let fresh = false;
  for (const backend of now.backends) {
    if (!shown.has(backend.name)) {
      shown.set(backend.name, many ? new Row(backend) : new Card(backend));
      if (!many) $("backends").append(shown.get(backend.name).node);
      fresh = true;
    }
    shown.get(backend.name).show(backend);
  }
  if (!many) return;
  const before = states;
  states = now.backends.map((one) => stateOf(one).rank).join();
  if (fresh) sortRows(true);
  else if (states !== before || Date.now() - sortedAt > RESORTED) sortRows(false);
  filterRows();
}

// Show a backend that was pointed at elsewhere on the page.
function goTo(name) {
  const one = shown.get(name);
  if (!one) return;
  if (one instanceof Row) {
    one.hide(false);
    if (!one.more) one.turn();
    one.open.focus();
  }
  one.node.scrollIntoView({block: "center"});
}
