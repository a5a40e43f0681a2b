// The list of peers: search, order, pages.

import { select } from "./directory.js";
import { byId, count, make, plural, when } from "./dom.js";

const PAGE = 50;
/** How long typing may go on until the list follows. */
const TYPING_MS = 80;
/** How often a list that changes by itself is drawn anew, for so many peers at the least. */
const PAUSES_MS = [[20_000, 1_000], [0, 200]];

export class PeersView {
  #directory;
  #writer;
  #open;
  #found = [];
  #from = 0;
  #order = { column: "name", isDescending: false };
  #timer = null;
  #drawnAt = 0;
  #versions = new Map();

  /** Shows `directory`; `writer` names who wrote a peer, `open` shows one whole. */
  constructor(directory, writer, open) {
    this.#directory = directory;
    this.#writer = writer;
    this.#open = open;
    directory.addEventListener("change", () => this.#later());
    directory.addEventListener("state", () => this.#later());
    byId("peers-tools").addEventListener("submit", (event) => event.preventDefault());
    byId("search").addEventListener("input", () => {
      this.#from = 0;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.draw(), TYPING_MS);
    });
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => this.#sortBy(button.dataset.sort));
    }
    const turn = { first: () => 0, previous: () => this.#from - PAGE, next: () => this.#from + PAGE, last: () => Infinity };
    for (const [id, to] of Object.entries(turn)) {
      byId(id).addEventListener("click", () => {
        this.#from = to();
        this.#drawRows();
      });
    }
  }

  #later() {
    if (this.#timer !== null) return;
    const size = this.#directory.peers.size;
    const [, pause] = PAUSES_MS.find(([least]) => size >= least);
    const wait = Math.max(0, this.#drawnAt + pause - performance.now());
    this.#timer = setTimeout(() => this.draw(), wait);
  }

  #sortBy(column) {
    const isDescending = column === this.#order.column ? !this.#order.isDescending : false;
    this.#order = { column, isDescending };
    this.#from = 0;
    for (const button of document.querySelectorAll("[data-sort]")) {
      const head = button.closest("th");
      if (button.dataset.sort === column) {
        head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      } else {
        head.removeAttribute("aria-sort");
      }
    }
    this.draw();
  }

  /** Draws all of it anew. */
  draw() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#found = select(this.#directory.peers, byId("search").value, this.#order, this.#writer);
    this.#drawRows();
    this.#drawnAt = performance.now();
  }

  #drawRows() {
    const found = this.#found;
    const lastPage = Math.max(0, Math.floor((found.length - 1) / PAGE) * PAGE);
    this.#from = Math.min(Math.max(0, this.#from), lastPage);
    const shown = found.slice(this.#from, this.#from + PAGE);
    const focused = document.activeElement?.dataset?.peer;
    byId("peer-rows").replaceChildren(...shown.map((peer) => this.#row(peer)));
    this.#versions = new Map(shown.map((peer) => [peer.peer_id, peer.version]));
    if (focused !== undefined) this.focus(focused);
    this.#say(shown.length);
  }

  /** Puts the focus on the row of a peer, if it is there. */
  focus(id) {
    document.querySelector(`[data-peer="${CSS.escape(id)}"]`)?.focus({ preventScroll: true });
  }

  #row(peer) {
    const open = make("button", {
      type: "button", class: "open", "data-peer": peer.peer_id, click: () => this.#open(peer.peer_id),
    }, peer.name || peer.peer_id);
    const tags = (map, join) => Object.entries(map).map(([key, value]) => make("span", { class: "tag" }, `${key}${join}${value}`));
    const before = this.#versions.get(peer.peer_id);
    const isFresh = before !== undefined && before !== peer.version;
    return make("tr", { class: isFresh ? "fresh" : undefined },
      make("td", {}, open, peer.name && peer.name !== peer.peer_id ? make("div", { class: "faint mono" }, peer.peer_id) : null),
      make("td", { class: "mono" }, peer.ip),
      make("td", { class: "wide" }, ...tags(peer.ports, " ")),
      make("td", { class: "wide" }, ...tags(peer.labels, "=")),
      make("td", {}, when(peer.updatedAt)),
      make("td", {}, when(peer.lastConnectionOn)),
      make("td", { class: "wide" }, this.#writer(peer)),
    );
  }

  #say(shown) {
    const { state, isCut, peers, trouble } = this.#directory;
    const of = this.#found.length === peers.size ? plural(peers.size, "peer") : `${count(this.#found.length)} of ${plural(peers.size, "peer")}`;
    const more = isCut ? ", those with the first ids: the table has more, and `udht-manager list` shows them" : "";
    const how = {
      loading: `Loading: ${count(peers.size)} so far…`,
      live: `${of}${more}, live`,
      lost: `${of}, as they were when the connection was lost (${trouble}); trying again`,
    }[state];
    const line = byId("peers-state");
    if (line.textContent !== how) line.textContent = how;
    line.classList.toggle("bad", state === "lost");
    const range = shown === 0 ? "none" : `${count(this.#from + 1)}–${count(this.#from + shown)} of ${count(this.#found.length)}`;
    byId("range").textContent = range;
    const isFirst = this.#from === 0;
    const isLast = this.#from + PAGE >= this.#found.length;
    byId("first").disabled = isFirst;
    byId("previous").disabled = isFirst;
    byId("next").disabled = isLast;
    byId("last").disabled = isLast;
  }
}
