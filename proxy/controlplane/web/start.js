// What is known now, and how it is kept up to date.
let now = null;          // the newest overview
let sampled = null;      // the overview that rates are counted from
const SAMPLE = 0.9;      // seconds between two of these: after an event the next overview comes sooner

// The overview with what has changed in it.
function merged({backends, ...rest}) {
  const different = new Map(backends.map((one) => [one.name, one]));
  return {...now, ...rest, backends: now.backends.map((one) => different.has(one.name) ? {...one, ...different.get(one.name)} : one)};
}

function sample() {
  if (sampled && now.at - sampled.at < SAMPLE) return;
  const seconds = sampled ? Math.max(now.at - sampled.at, 0.001) : 1;
  const before = new Map((sampled?.backends ?? []).map((one) => [one.name, one]));
  const perSecondOf = (one, was, what) => was ? Math.max(0, one[what] - was[what]) / seconds : 0;
  for (const one of now.backends) {
    const was = before.get(one.name), old = rates.get(one.name), probes = was ? one.probes - was.probes : 0;
    const requests = perSecondOf(one, was, "requests");
    const history = old?.history ?? [];
    if (history.push(requests) > KEPT) history.shift();
    rates.set(one.name, {
      requests, frames: perSecondOf(one, was, "frames"), history,
      probe: probes > 0 ? (one.probe_seconds - was.probe_seconds) / probes : old?.probe ?? null,
      cpu: one.cpu_seconds !== null && was?.pid === one.pid ? perSecondOf(one, was, "cpu_seconds") : null,
    });
  }
  for (const name of rates.keys()) if (!now.backends.some((one) => one.name === name)) rates.delete(name);
  sampled = now;
}

function look(overview) {
  now = overview;
  sample();
  if (!document.hidden) render();
}

function render() {
  hide($("view"), false);
  showTrouble();
  showTotals();
  showBackends();
  showFlow();
  showLately();
  showAffinity();
}

// What is shown stays; rates begin anew with the next stream.
function forget() {
  sampled = null;
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  if (!/^[!-~]+$/.test(token)) {  // it could not be sent, and not even be refused
    say("A token has no spaces and no characters outside ASCII: was something else copied?");
    return;
  }
  say("");
  sessionStorage.setItem("token", token);
  $("login").hidden = true;
  follow();
});
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = $("wanted").value.trim();
  if (wanted) findIt(wanted);
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("filter-text").addEventListener("input", filterRows);
$("filter-state").addEventListener("change", filterRows);
$("events-filter").addEventListener("submit", (event) => event.preventDefault());
$("events-text").addEventListener("input", filterEvents);
$("events-kind").addEventListener("change", filterEvents);
$("rollout").addEventListener("click", rollOut);
$("question-no").addEventListener("click", () => $("question").close("no"));
$("question-yes").addEventListener("click", ({detail}) => { if (detail < 2) $("question").close("yes"); });  // a double click is one answer
document.addEventListener("visibilitychange", () => { if (now && !document.hidden) render(); });
tellWords();
follow();
