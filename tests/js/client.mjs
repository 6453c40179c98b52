// Many Socket.IO clients in one process, driven by the system tests.
//
// Commands come on standard input and reports go to standard output, one JSON object a line:
//   {"id", "op", "client", ...}  ->  {"id", "result"} or {"id", "error"}
// and by themselves {"client", "t", "event", "data"} and {"client", "t", "exchange"}.
// The process ends with its input.

import { randomUUID } from "node:crypto";
import http from "node:http";
import net from "node:net";
import { createInterface } from "node:readline";
import { io, NodeWebSocket, NodeXHR } from "socket.io-client";

const GOODBYE = 500; // milliseconds

const jars = new Map();
const clients = new Map();

const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const now = () => Date.now() / 1000;

// A browser's cookies for one site. Its methods are those that the library's own jar has, which is one
// per connection; this one is shared by the tabs of a browser.
class CookieJar {
  constructor() {
    this.values = new Map();
  }

  parseCookies(lines) {
    for (const line of lines ?? []) {
      const [pair, ...attributes] = line.split(";");
      const at = pair.indexOf("=");
      const name = pair.slice(0, at).trim();
      if (attributes.some((a) => /^\s*max-age=(0|-\d+)\s*$/i.test(a))) this.values.delete(name);
      else this.values.set(name, { value: pair.slice(at + 1).trim() });
    }
  }

  get cookies() {
    return this.values.entries();
  }

  get header() {
    return [...this.cookies].map(([name, { value }]) => `${name}=${value}`).join("; ");
  }

  addCookies(xhr) {
    if (this.values.size) {
      xhr.setDisableHeaderCheck(true);
      xhr.setRequestHeader("cookie", this.header);
    }
  }
}

// A tab's sockets. The library repeats a request whose kept-alive socket broke, and the loss would go
// unnoticed; so no new socket is opened either until the library has seen the loss.
class OpenAgent extends http.Agent {
  broken = false;

  // A POST that it repeats is never sent whole, and would hang; a request on a socket that was not used
  // before it does not repeat, so none counts as used.
  reuseSocket(socket) {
    socket.ref();
  }

  createConnection(options, done) {
    if (!this.broken) return super.createConnection(options, done);
    const socket = new net.Socket();
    process.nextTick(() => socket.destroy(new Error("cut by the test")));
    return socket;
  }
}

// What one tab owns: its sockets, its jar, its connection.
class Client {
  constructor(name, { url, jar }) {
    this.name = name;
    this.url = url;
    this.agent = new OpenAgent({ keepAlive: true });
    this.webSockets = new Set();
    if (jar && !jars.has(jar)) jars.set(jar, new CookieJar());
    this.jar = jar ? jars.get(jar) : null;
  }

  event(event, data) {
    report({ client: this.name, t: now(), event, data });
  }

  exchange(method, path, status, body = "") {
    report({ client: this.name, t: now(), exchange: { method, path, status, body } });
  }

  open({ path, auth, transports, delay }) {
    const classes = { polling: Polling, websocket: WebSocket };
    this.socket = io(this.url, {
      path,
      auth,
      transports: transports.map((name) => classes[name]),
      reconnectionDelay: delay * 1000,
      withCredentials: Boolean(this.jar),
      agent: this.agent,
      forceNew: true,
      tab: this,
    });
    this.socket.on("connect", () => {
      const engine = this.socket.io.engine;
      this.event("connect", engine.transport.name);
      engine.on("upgrade", (transport) => this.event("upgrade", transport.name));
    });
    this.socket.on("disconnect", (reason) => {
      this.agent.broken = false;
      this.event("disconnect", reason);
    });
    this.socket.on("connect_error", (error) => this.event("connect_error", String(error.message)));
    this.socket.onAny((event, data, answer) => {
      this.event(event, data);
      if (event === "ask") answer(replyToAsk());
    });
  }

  // As a browser, it asks once more where a kept connection turns out to be closed.
  async fetch(path, options) {
    try {
      return await fetch(this.url + path, options);
    } catch (error) {
      if (options.method !== "GET" || error.cause?.code !== "UND_ERR_SOCKET") throw error;
      return await fetch(this.url + path, options);
    }
  }

  async request({ method, path, json, upload, headers, timeout }) {
    const options = { method, headers: { ...headers }, signal: AbortSignal.timeout(timeout * 1000) };
    if (this.jar?.values.size) options.headers.cookie = this.jar.header;
    if (upload) {
      options.body = new FormData();
      options.body.append("file", new Blob([upload.content], { type: "text/plain" }), upload.name);
    } else if (json !== null) {
      options.body = JSON.stringify(json);
      options.headers["content-type"] = "application/json";
    }
    let status = 0;
    let body;
    try {
      const response = await this.fetch(path, options);
      this.jar?.parseCookies(response.headers.getSetCookie());
      body = await response.text();
      status = response.status;
    } catch (error) {
      body = String(error.cause ?? error);
    }
    this.exchange(method, path, status, status >= 400 || !status ? body : "");
    return { status, body };
  }

  // What has come by now was heard, though this process may not have had its turn since.
  async cut() {
    await new Promise(setImmediate);
    this.agent.broken = Boolean(this.socket?.connected);
    this.agent.destroy();
    for (const socket of this.webSockets) socket.terminate();
    this.webSockets.clear();
  }

  // Says goodbye, and does not wait for long to be heard.
  async close() {
    clients.delete(this.name);
    const engine = this.socket?.io.engine;
    if (engine && engine.readyState !== "closed") {
      const closed = new Promise((done) => engine.once("close", done));
      this.socket.disconnect();
      await Promise.race([closed, new Promise((done) => setTimeout(done, GOODBYE))]);
    } else this.socket?.disconnect();
    await this.cut();
  }
}

// The library's transports with the tab's jar, and every exchange reported.
class Polling extends NodeXHR {
  request(options = {}) {
    const tab = this.opts.tab;
    if (tab.jar) this.socket._cookieJar = tab.jar;
    const request = super.request(options);
    const { pathname, search } = new URL(this.uri(), tab.url);
    const method = options.method ?? "GET";
    request.on("success", () => tab.exchange(method, pathname + search, 200));
    request.on("error", (status, xhr) => {
      const code = typeof status === "number" ? status : 0;
      tab.exchange(method, pathname + search, code, xhr?.responseText || String(status));
    });
    return request;
  }
}

class WebSocket extends NodeWebSocket {
  createSocket(uri, protocols, options) {
    const tab = this.opts.tab;
    if (tab.jar) this.socket._cookieJar = tab.jar;
    const socket = super.createSocket(uri, protocols, options);
    const { pathname, search } = new URL(uri);
    let opened = false;
    socket.on("upgrade", (response) => {
      opened = true;
      tab.jar?.parseCookies(response.headers["set-cookie"]);
      tab.exchange("GET", pathname + search, 101);
    });
    socket.on("error", (error) => {
      const status = /Unexpected server response: (\d+)/.exec(error.message)?.[1];
      if (!opened) tab.exchange("GET", pathname + search, Number(status ?? 0), error.message);
    });
    socket.on("close", () => tab.webSockets.delete(socket));
    tab.webSockets.add(socket);
    return socket;
  }
}

function replyToAsk() {
  const createdAt = new Date().toISOString();
  return { id: randomUUID(), name: "user", type: "user_message", output: "yes", createdAt };
}

async function run({ op, client: name, ...options }) {
  let client = clients.get(name);
  if (!client) {
    client = new Client(name, options);
    clients.set(name, client);
  }
  if (op === "open") return client.open(options);
  if (op === "emit") return void client.socket.emit(options.event, ...(options.data === null ? [] : [options.data]));
  if (op === "request") return client.request(options);
  if (op === "cut") return client.cut();
  if (op === "close") return client.close();
  throw new Error(`unknown operation ${op}`);
}

// Bytes, which JSON does not know.
const revived = (_, value) => (typeof value?.base64 === "string" ? Buffer.from(value.base64, "base64") : value);

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { id, ...command } = JSON.parse(line, revived);
    run(command).then(
      (result) => report({ id, result }),
      (error) => report({ id, error: String(error.stack) }),
    );
  })
  .on("close", () => process.exit(0));
