// The API and its stream: questions, wishes, the token, and a proxy that does not answer.
const SILENT = 5000;     // milliseconds without a word after which the proxy does not answer
const AGAIN = 1000;      // milliseconds until the next try
let seen = 0;            // the number of the last event
let since = null;        // when it was last heard, while it does not answer
let asked = Promise.resolve();  // the newest question to the operator, until it is answered
let rolling = false;     // whether a rollout is wished for, and the proxy has not answered yet
const wished = new Map();  // by backend: the newest wish that the proxy has not answered yet

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const headers = () => {
  const token = sessionStorage.getItem("token");
  return token ? {Authorization: `Bearer ${token}`} : {};
};
const say = (text) => { $("said").textContent = text; $("said").hidden = !text; };

async function ask(path, body) {
  const more = body === undefined ? {} : {"Content-Type": "application/json"};
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST", headers: {...headers(), ...more},
    body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(2 * SILENT),
  }).catch(() => { throw new Refused(0, "the proxy does not answer"); });
  const said = await answer.json().catch(() => null);  // a front has pages of its own
  if (!answer.ok || said === null)
    throw new Refused(answer.status, typeof said?.detail === "string" ? said.detail : `the answer was ${answer.status}`);
  return said;
}

// Whether the operator says yes to a question; Esc is no. One that comes while another is open waits for its turn.
function agrees(title, text, yes) {
  return asked = asked.catch(() => {}).then(() => {
    const box = $("question");
    $("question-title").textContent = title;
    $("question-text").textContent = text;
    $("question-yes").textContent = yes;
    box.returnValue = "";
    box.showModal();
    return new Promise((resolve) => box.addEventListener("close", () => resolve(box.returnValue === "yes"), {once: true}));
  });
}

async function wish(backend, what) {
  const {title, force, tells} = WISHES[what], {name} = backend, at = `api/backends/${encodeURIComponent(name)}/${what}`;
  if (wished.get(name)?.what === what) return;  // it was pressed twice
  const mine = {what};
  wished.set(name, mine);
  say("");
  try {
    if (what === "maintenance" && !await agrees(`Take ${name} out now?`, tells(backend), "Take it out")) return;
    try {
      await ask(at, {});
    } catch (error) {
      const [why, how] = error.message.split(" To do it all the same, ");  // how is told to the command line
      if (error.status !== 409 || !how) throw error;  // it cannot be done in any case
      if (!await agrees(`${title} ${name}?`, why, force)) return;
      await ask(at, {force: true});
    }
  } catch (error) { say(`Not done: ${error.message}`); } finally { if (wished.get(name) === mine) wished.delete(name); }
}

async function rollOut() {
  const text = "One after the other: a new replica is started, and when it is healthy an old one is drained and stopped.";
  if (!await agrees("Replace all replicas by new ones?", text, "Replace them")) return;
  say("");
  $("rollout").disabled = rolling = true;
  try { await ask("api/rollout", {}); } catch (error) { say(`Not done: ${error.message}`); } finally { rolling = false; }
}

async function learnLimits() {
  try { limits.drain = ago((await ask("api/config")).timeouts.drain); } catch { /* then it is called by its name */ }
}

function heard(block) {
  try { hear(block); } catch (error) { reportError(error); }  // a mistake of this page does not end the stream
}

function hear(block) {
  const fields = Object.fromEntries(block.split("\n").map((line) => {
    const colon = line.indexOf(": ");
    return [line.slice(0, colon), line.slice(colon + 2)];
  }));
  if (!fields.event) return;
  const data = JSON.parse(fields.data);
  if (fields.event === "overview") look(data);
  if (fields.event === "changes") look(merged(data));
  if (fields.event === "moves") haveMoved(data);
  if (fields.event === "event") happened(data);
}

function answers(yes) {
  since = yes ? null : since ?? Date.now() / 1000;
  hide($("trouble"), yes);
  if (!yes) put($("trouble"), `The proxy does not answer since ${clock(since)}. What you see is old; trying again.`);
}

async function follow() {
  const stop = new AbortController();
  let watch = setTimeout(() => stop.abort(), SILENT);
  try {
    const answer = await fetch(`api/stream?state=true&changes=true&after=${seen}`, {headers: headers(), signal: stop.signal});
    if (answer.status === 401) {
      if (sessionStorage.getItem("token") !== null) say("The proxy does not accept this token.");
      sessionStorage.removeItem("token");
      answers(true);
      $("login").hidden = false;
      return;  // until one is given
    }
    if (!answer.ok) throw new Error(answer.status);
    $("login").hidden = true;
    learnLimits();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "";;) {
      const {value, done} = await reader.read();
      if (done) break;
      clearTimeout(watch);
      watch = setTimeout(() => stop.abort(), SILENT);
      answers(true);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      blocks.forEach(heard);
    }
  } catch { /* as when it has ended */ } finally { clearTimeout(watch); }
  answers(false);
  forget();
  setTimeout(follow, AGAIN);
}
