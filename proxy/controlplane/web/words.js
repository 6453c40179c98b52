// The proxy's own words, said plainly. What is not here is shown as it is called in the metrics.
const plain = (words, word) => words[word] ?? word.replaceAll("_", " ");

const REASONS = {  // why a session moved: what its backend was
  down: "was down", gone: "had left the fleet", maintenance: "was taken out", avoided: "did not accept in time",
  sent_away: "was being emptied (drain, rollout or rebalance)", alone: "was not known to other proxies",
};
const EVIDENCE = {
  sid: "By the pin of the connection", session: "By the session id", chainlit_cookie: "By Chainlit's cookie",
  pin_cookie: "By the pin cookie", client: "By address and browser, nothing else",
};
const OUTCOMES = {
  pinned: "to the backend it names", located: "to the backend that said it holds the session",
  placed: "a new session, placed", moved: "to another backend, its own takes it no more",
  rehomed: "moved at once, the first guess was wrong", void: "told to connect anew, its backend takes it no more",
};
const ASKED_FOR = {session: "This session is ", sid: "This connection is ", pin: "What has this pin is "};
const MEASURED = {
  prompt: "First byte of pages, files and connects", first_byte: "First byte of everything, polls wait for news",
  connect: "Opening a connection to a backend", probe: "A probe: how soon an idle question is answered",
  hand_over: "A hand-over: until the session went on elsewhere",
};
const GROUPS = {
  answer: "Requests that failed", aborted: "Requests whose client left", upstream: "Trouble with backends", limit: "Clients over a limit",
  odd_id: "Refused for an odd id", held: "Requests that were held while nobody could take them",
  retry: "Requests that were tried again", internal: "Mistakes of the proxy (please report them)",
  hand_over: "Hand-overs", move: "Sessions that moved, because their backend",
};
const WRONG = new Set(["answer", "upstream", "limit", "odd_id", "internal"]);
const ROUTINE = new Set(["idle", "tunnel_idle"]);  // limits that are there to tidy up
const isBad = ({group, what}) => WRONG.has(group) && !ROUTINE.has(what);
const COUNTED = {
  answer: {
    backend_5xx: "a backend answered with 500 or more",
    proxy_5xx: "the proxy answered with 500 or more",
  },
  upstream: {
    ConnectRefused: "connection refused", ConnectFailed: "no connection", HandshakeFailed: "no TLS",
    ConnectTimeout: "did not accept in time", UpstreamClosed: "closed the connection too early",
    UpstreamTimeout: "did not answer in time", BadResponse: "an answer that breaks the protocol",
  },
  limit: {
    descriptors: "no file descriptors left: connections had to wait", connections: "all connections are in use",
    connections_per_client: "too many connections", requests_per_second: "too many requests a second",
    sessions_per_minute: "too many new sessions a minute", idle: "idle connections, closed",
    tunnel_idle: "silent websockets, closed",
  },
  held: {
    connected: "went on: their session was back", back: "went on: a backend was back",
    in_vain: "in vain: the time was up", too_many: "not held: too many wait",
  },
  hand_over: {
    done: "went on elsewhere, their clients stayed connected", no_hooks: "connected anew: sessions are not shared",
    refused: "connected anew: refused by the next backend", broken: "connected anew: it broke again and again",
    late: "connected anew: nobody took them in time", left: "the client had left",
  },
  move: REASONS,
  aborted: {all: "before it had its answer"},
  retry: {all: "at another backend, or once more"},
};
const WISHES = {
  drain: {
    title: "Drain", force: "Drain it all the same",
    tells: ({sessions}) => `No new sessions. ${sessions ? `${count(sessions, "session")} here` : "Nobody is here: it is empty at once"}${
      sessions ? ` ${sessions === 1 ? "moves" : "move"} elsewhere when at rest, at the latest after ${limits.drain}.` : "."}`,
  },
  ready: {
    title: "Ready", force: "Make it ready all the same",
    tells: () => "It takes new sessions again, few at first.",
  },
  maintenance: {
    title: "Maintenance", force: "Take it out all the same",
    tells: ({sessions}) => `Out at once. ${sessions ? `${count(sessions, "session")} ${sessions === 1 ? "moves" : "move"} now, in the middle of an answer too.`
      : "Nobody is here."}`,
  },
};
const limits = {drain: "timeouts.drain"};  // in words, once the configuration is known

const WORDS = [
  ["Backend", "One Chainlit instance behind the proxy."],
  ["Session", "One chat: a tab from its page load on. Its backend has it in memory, so all of its requests go there."],
  ["Answering", "Sessions whose app is answering now: nobody is moved in the middle of that, unless there is no time left."],
  ["Healthy, degraded, down", "Healthy backends answer probes. A degraded one accepts connections and does not answer: it keeps its sessions and gets no new ones. One that is down is left by its sessions at once. See “Health” in docs/operations.md."],
  ["Drain, ready, maintenance", "What you wish of a backend. One that drains gets no new sessions and is left by those it has as they come to rest. In maintenance it is left at once. See “Drain and maintenance” in docs/operations.md."],
  ["Hand-over", "Another backend goes on with a session while its client stays connected. It needs shared sessions. See docs/hand-over.md."],
  ["Pin", "What a browser or a connection brings along to tell its backend. See docs/affinity.md."],
  ["Probe", "The proxy asks each backend again and again whether it answers. One that answers late has an app that blocks its event loop."],
  ["First byte", "From a request's head to that of its answer."],
  ["Limits", "How much of the proxy one client may use. See docs/limits.md."],
];

function tellWords() {
  for (const [word, meaning] of WORDS) $("words").append(make("dt", word), make("dd", meaning));
}
