// What else is told: what is wrong, totals, the last minutes, affinity, events, and where a session is.
const MOST_WRONG = 5;    // backends that are named; more are counted
const MOST_EVENTS = 500;
let toldWrong = null;    // the backends that were wrong at the last look

function showTrouble() {
  const nobody = now.not_ready === "leaving" ? "This proxy is about to end: it accepts no new clients."
    : now.not_ready ? `No backend takes new sessions: whoever opens the chat now waits, and is refused after a while. ${adviceFor(now.backends)}` : "";
  hide($("nobody"), !nobody);
  put($("nobody"), nobody);
  const wrong = now.backends.filter(isWrong).sort((a, b) => stateOf(a).rank - stateOf(b).rank || a.since - b.since);
  hide($("broken"), !wrong.length);
  const lines = wrong.slice(0, MOST_WRONG).map((one) => `${one.name} is ${stateOf(one).word} ${whyOf(one)}`);
  if (wrong.length > MOST_WRONG) lines.push(`and ${count(wrong.length - MOST_WRONG, "more backend")}: choose “something is wrong” below to see all`);
  const list = $("broken-list");
  while (list.children.length > lines.length) list.lastChild.remove();
  lines.forEach((line, at) => put(list.children[at] ?? list.appendChild(make("li")), line));
  const names = wrong.map((one) => one.name), news = names.filter((name) => !(toldWrong ?? names).includes(name));
  toldWrong = names;
  if (news.length) $("announced").textContent = news.length > MOST_WRONG ? `${news.length} more backends are in trouble`
    : wrong.filter(({name}) => news.includes(name)).map((one) => `${one.name} is ${stateOf(one).word}: ${one.reason}`).join(". ");
}

function adviceFor(backends) {
  if (!backends.length) return "There are no backends.";
  const waiting = backends.filter(({health, admin_state: state, leaving}) => health === "healthy" && state !== "ready" && !leaving);
  return waiting.length ? `Press “Ready” of ${waiting.slice(0, 3).map(({name}) => name).join(", ")}${waiting.length > 3 ? " or another" : ""} to take some again.`
    : "See below what is wrong with each.";
}

// There where clients can wait in a queue: as `queue`, or `waiting` alone.
function waitingTiles({queue, waiting = queue?.waiting}) {
  const tiles = typeof waiting === "number" ? [["Wait for a place", whole(waiting)]] : [];
  if (queue?.turned_away) tiles.push(["Turned away since the start", whole(queue.turned_away)]);
  return tiles;
}

function showTotals() {
  const sum = (figure) => now.backends.reduce((total, one) => total + figure(one), 0);
  const takes = now.backends.filter((one) => one.takes_sessions).length;
  const tiles = [
    ["Backends that take sessions", `${takes} of ${now.backends.length}`], ["Sessions", whole(sum((one) => one.sessions))],
    ["Answering", whole(sum((one) => one.turns))], ["Requests/s", perSecond(sum((one) => rateOf(one).requests))],
    ["Frames/s", perSecond(sum((one) => rateOf(one).frames))], ...waitingTiles(now),
    ["Errors lately", whole(now.lately.counts.filter(isBad).reduce((total, one) => total + one.count, 0))],
  ];
  const list = $("totals");
  while (list.children.length > tiles.length) list.lastChild.remove();
  tiles.forEach(([title, value], at) => {
    const tile = list.children[at] ?? list.appendChild(make("div"));
    if (!tile.children.length) tile.append(make("dt"), make("dd"));
    put(tile.firstChild, title);
    put(tile.lastChild, value);
  });
  put($("version"), `${now.version}${now.build === "compiled" ? ", compiled" : ""}, ${count(now.backends.length, "backend")}`);
  const {state, phase, done, total, reason} = now.rollout;
  put($("rollout-state"), state === "idle" ? "" : `rollout ${state}: ${done} of ${total}${phase ? `, ${phase}` : ""}${reason ? `: ${reason}` : ""}`);
  const {wanted, low, high, reason: why} = now.replicas;
  put($("wanted-count"), `${wanted} wanted${low === null ? "" : ` of ${low} to ${high}`}: ${why}`);
  $("rollout").disabled = rolling || state === "running";
  hide($("rollout"), !now.backends.some(({pid}) => pid !== null));  // only replicas can be replaced
  hide($("api"), sessionStorage.getItem("token") !== null);  // a link does not send it
}

let latelyKey = "";
function showLately() {
  const key = JSON.stringify(now.lately);
  if (key === latelyKey) return;
  latelyKey = key;
  const {seconds, times, counts} = now.lately, span = `In the last ${ago(seconds)}.`;
  put($("lately-span"), span);
  const body = $("times").tBodies[0];
  $("times").className = "stacked";
  body.replaceChildren(...times.filter((one) => one.count).map((one) => {
    const row = make("tr");
    row.append(make("td", plain(MEASURED, one.what)));
    for (const [label, text] of [["how many", whole(one.count)], ["half", lasted(one.p50)], ["95 %", lasted(one.p95)], ["99 %", lasted(one.p99)]]) {
      const cell = make("td", text);
      cell.dataset.label = label;
      row.append(cell);
    }
    return row;
  }));
  hide($("times"), !body.children.length);
  const wrong = counts.some(isBad);
  put($("counts-span"), wrong ? span : `${span} Nothing went wrong, and nobody was over a limit.`);
  const groups = Object.keys(GROUPS).map((group) => [group, counts.filter((one) => one.group === group).sort((a, b) => b.count - a.count)]);
  $("counts").replaceChildren(...groups.filter(([, found]) => found.length).flatMap(([group, found]) => {
    const list = make("ul");
    list.append(...found.map((one) => make("li", `${plain(COUNTED[group] ?? {}, one.what)}: ${whole(one.count)}`)));
    return [make("h3", GROUPS[group]), list];
  }));
}

let affinityKey = "";
function showAffinity() {
  const counts = now.decisions.filter((one) => one.count).sort((a, b) => b.count - a.count), key = JSON.stringify(counts);
  if (key === affinityKey) return;
  affinityKey = key;
  const most = Math.max(1, ...counts.map((one) => one.count));
  $("affinity").replaceChildren(...counts.map(({evidence, outcome, count: number}) => {
    const lost = ["sid", "session"].includes(evidence) && ["moved", "void"].includes(outcome);  // cookies are guesses
    const row = make("div", undefined, lost ? "row lost" : "row"), meter = make("meter");
    meter.max = most;
    meter.value = number;
    meter.setAttribute("aria-hidden", "true");
    row.append(make("span", `${plain(EVIDENCE, evidence)}: ${plain(OUTCOMES, outcome)}`), meter, make("span", whole(number), "number"));
    return row;
  }));
}

function happened(event) {
  if (event.id <= seen) $("events").replaceChildren();  // the proxy was started again
  seen = event.id;
  const item = make("li");
  item.dataset.kind = event.kind;
  item.append(make("span", `${clock(event.at)} `, "faint"), `${event.backend || (event.kind === "backend" ? "" : event.kind.replaceAll("_", " "))} ${event.text}`.trim());
  if (event.lines.length) item.append(make("pre", event.lines.join("\n")));
  const kinds = $("events-kind");
  if (![...kinds.options].some(({value}) => value === event.kind)) kinds.add(new Option(event.kind.replaceAll("_", " "), event.kind));
  hide(item, !isWanted(item));
  $("events").prepend(item);
  while ($("events").children.length > MOST_EVENTS) $("events").lastChild.remove();
}

const isWanted = (item) => item.textContent.toLowerCase().includes($("events-text").value.trim().toLowerCase())
  && ["", item.dataset.kind].includes($("events-kind").value);
const filterEvents = () => { for (const item of $("events").children) hide(item, !isWanted(item)); };

let searches = 0;
async function findIt(wanted) {
  const search = searches += 1;
  const tell = (...lines) => { if (search === searches) $("found").replaceChildren(...lines); };  // unless a newer one began
  tell();  // what was found before is no answer to this one
  try {
    const {kind, backend, holds, why, session} = await ask(`api/where/${encodeURIComponent(wanted)}`);
    const here = session?.backend === backend && backend ? ` since ${clock(session.since)}` : "";
    const lines = [make("p", `${ASKED_FOR[kind]}${backend ? `at ${backend}${here}` : "at no backend yet"}: ${why}.`)];
    if (!holds) lines.push(make("p", "It moves when it is next heard of.", "warn"));
    if (session) {
      const by = session.transport ? `connected by ${session.transport}, ${count(session.open, "connection")}` : "not connected";
      lines.push(make("p", `Session ${session.id}: ${by}, first heard of ${clock(session.began)}, ${session.answering ? "its app is answering" : "at rest"}.`, "faint"));
      for (const {at, origin, target, reason} of session.moves)
        lines.push(make("p", `${clock(at)} moved from ${origin}, which ${plain(REASONS, reason)}, to ${target}.`));
    }
    tell(...lines);
  } catch (error) { tell(make("p", error.message)); }
}
