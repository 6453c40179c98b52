// The sessions of one backend: asked for when somebody opens the list, a page at a time.
const AT_ONCE = 50;      // sessions of a page
const RENEWED = 5000;    // milliseconds between two looks at an open list

class SessionList {
  constructor(name) {
    this.name = name;
    this.offset = 0;
    this.timer = null;
    this.looks = 0;  // how often was asked: the answer to an older question is of no use
    this.node = make("section");
    this.toggle = button("Sessions", () => this.turn(), `Sessions of ${name}`);
    this.toggle.setAttribute("aria-expanded", "false");
    this.body = make("div");
    this.body.hidden = true;
    this.told = make("p", "", "faint");
    const label = make("label", undefined, "check");
    this.all = make("input");
    this.all.type = "checkbox";
    this.all.addEventListener("change", () => this.show(0));
    label.append(this.all, "also those without a connection");
    this.table = make("table", undefined, "stacked");
    const head = make("thead"), titles = make("tr");
    for (const title of ["Session", "Connected by", "Age", "Here since", "App", "Last move"]) {
      const cell = make("th", title, title === "Last move" ? "words" : "");
      cell.scope = "col";
      titles.append(cell);
    }
    head.append(titles);
    this.rows = make("tbody");
    this.table.append(head, this.rows);
    this.back = button("Previous", () => this.show(this.offset - AT_ONCE), `Previous sessions of ${name}`);
    this.next = button("Next", () => this.show(this.offset + AT_ONCE), `Next sessions of ${name}`);
    const pages = make("div", undefined, "buttons");
    pages.append(this.back, this.next);
    this.body.append(label, this.told, this.table, pages);
    this.node.append(this.toggle, this.body);
  }

  turn() {
    this.body.hidden = !this.body.hidden;
    this.toggle.setAttribute("aria-expanded", String(!this.body.hidden));
    if (this.body.hidden) this.close(); else this.show(0);
  }

  close() {
    clearTimeout(this.timer);
    this.looks += 1;
    put(this.told, "");
    this.rows.replaceChildren();  // whoever opens it again does not read what was
  }

  async show(offset) {
    clearTimeout(this.timer);
    this.offset = Math.max(0, offset);
    const mine = this.looks += 1;
    const only = this.all.checked ? "" : "&connected=true";
    try {
      const page = await ask(`api/sessions?backend=${encodeURIComponent(this.name)}&offset=${this.offset}&limit=${AT_ONCE}${only}`);
      if (mine !== this.looks) return;
      if (!page.sessions.length && this.offset) return this.show(0);
      const to = this.offset + page.sessions.length;
      put(this.told, page.total ? `${this.offset + 1} to ${to} of ${count(page.total, "session")}` : "There are none.");
      this.rows.replaceChildren(...page.sessions.map((session) => this.row(session)));
      hide(this.table, !page.total);
      hide(this.back, !this.offset);  // hidden while there is nothing to go to
      hide(this.next, to >= page.total);
    } catch (error) {
      if (mine !== this.looks) return;
      put(this.told, `Not known: ${error.message}`);
    }
    if (!this.body.hidden && this.node.isConnected) this.timer = setTimeout(() => this.show(this.offset), RENEWED);
  }

  row({id, transport, began, since: here, answering, sent_away: leaves, moves, open}) {
    const now = Date.now() / 1000, row = make("tr"), move = moves.at(-1);
    const cells = [
      ["", id], ["by", transport ? `${transport}${open > 1 ? ` (${open})` : ""}` : "not connected"],
      ["age", ago(now - began)], ["here", ago(now - here)],
      ["app", leaves ? "has to leave" : answering ? "answering" : "at rest"],
      ["last move", move ? `${clock(move.at)} from ${move.origin}, which ${plain(REASONS, move.reason)}` : "never"],
    ];
    for (const [label, text] of cells) {
      const cell = make("td", text, label === "last move" ? "words" : "");
      if (label) cell.dataset.label = label;
      row.append(cell);
    }
    return row;
  }
}
