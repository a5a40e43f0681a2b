// One peer, whole: what it says, why it is so, and, where that was asked for, to change or delete it.

import { call, peerPath } from "./calls.js";
import { byId, make, when } from "./dom.js";

export class PeerDialog {
  #directory;
  #writer;
  #closed;
  #id = null;

  /** Shows peers of `directory`; `closed` is told whose dialog was closed. */
  constructor(directory, writer, closed) {
    this.#directory = directory;
    this.#writer = writer;
    this.#closed = closed;
    byId("peer").addEventListener("close", () => {
      this.#closed(this.#id);
      this.#id = null;
    });
    directory.addEventListener("change", () => this.#follow());
  }

  /** Opens it for one peer. */
  open(id) {
    this.#id = id;
    this.#show();
    byId("peer").showModal();
  }

  // A record that changes while it is looked at is shown as it is now; one that is being edited is
  // left alone, and the condition on its version finds the other change.
  #follow() {
    const body = byId("peer-body");
    const peer = this.#directory.peers.get(this.#id);
    if (this.#id === null || body.dataset.mode !== "look" || body.dataset.version === peer?.version) return;
    this.#show();
  }

  #fill(mode, title, body, buttons) {
    byId("peer-title").textContent = title;
    const into = byId("peer-body");
    into.dataset.mode = mode;
    into.replaceChildren(...body);
    byId("peer-buttons").replaceChildren(...buttons);
    byId("peer-problem").textContent = "";
  }

  #show() {
    const id = this.#id;
    const peer = this.#directory.peers.get(id);
    const why = make("div", { id: "why" }, make("p", { class: "faint" }, "Asking why…"));
    const close = make("button", { type: "button", autofocus: true, click: () => byId("peer").close() }, "Close");
    if (peer === undefined) {
      this.#fill("look", id, [make("p", {}, "There is no such peer now: it was deleted."), why], [close]);
      byId("peer-body").dataset.version = "";
    } else {
      const buttons = [close];
      if (byId("changes").checked) {
        buttons.push(
          make("button", { type: "button", click: () => this.#edit(peer) }, "Edit…"),
          make("button", { type: "button", class: "danger", click: () => this.#askDelete(peer) }, "Delete…"),
        );
      }
      this.#fill("look", peer.name || id, [this.#facts(peer), why], buttons);
      byId("peer-body").dataset.version = peer.version;
    }
    this.#explain(id, why);
  }

  #facts(peer) {
    const list = (map, join) => {
      const entries = Object.entries(map).map(([key, value]) => make("span", { class: "tag" }, `${key}${join}${value}`));
      return entries.length > 0 ? entries : ["none"];
    };
    const facts = [
      ["peer_id", [peer.peer_id]],
      ["Address", [peer.ip]],
      ["Ports", list(peer.ports, " ")],
      ["Labels", list(peer.labels, "=")],
      ["Created", [when(peer.createdAt), ` ${peer.createdAt ?? ""}`]],
      ["Written", [when(peer.updatedAt), ` ${peer.updatedAt ?? ""}`]],
      ["Written by", [this.#writer(peer)]],
      ["Last contact", [when(peer.lastConnectionOn), ` ${peer.lastConnectionOn ?? ""}`]],
      ["Version", [make("code", {}, peer.version)]],
    ];
    return definitions(facts);
  }

  async #explain(id, into) {
    try {
      into.replaceChildren(...explanation(await call("GET", `${peerPath(id)}/explain`)));
    } catch (error) {
      into.replaceChildren(make("p", { class: "faint" }, `Why it is so cannot be told: ${error.message}`));
    }
  }

  #edit(peer) {
    const { name, ip, ports, labels } = peer;
    const text = make("textarea", { id: "edited", "aria-label": "The record as JSON", spellcheck: "false" });
    text.value = JSON.stringify({ name, ip, ports, labels }, null, 2);
    const save = async () => {
      let body;
      try {
        body = JSON.parse(text.value);
      } catch (error) {
        throw new Error(`This is no JSON: ${error.message}`);
      }
      await call("PUT", peerPath(peer.peer_id), { body, version: peer.version });
    };
    this.#fill("edit", `Edit ${peer.name || peer.peer_id}`, [
      make("p", {}, "What is saved here replaces the record in every pod."), text,
    ], [this.#does("Save", "", save), this.#back()]);
    text.focus();
  }

  #askDelete(peer) {
    const remove = () => call("DELETE", peerPath(peer.peer_id), { version: peer.version });
    const back = this.#back();
    this.#fill("delete", `Delete ${peer.name || peer.peer_id}?`, [
      make("p", {}, "It is deleted in every pod, and does not come back by itself."),
    ], [back, this.#does("Delete in every pod", "danger", remove)]);
    back.focus();
  }

  #back() {
    return make("button", { type: "button", click: () => this.#show() }, "Back");
  }

  #does(label, className, action) {
    const button = make("button", { type: "button", class: className, click: async () => {
      button.disabled = true;
      try {
        await action();
        byId("peer").close();
      } catch (error) {
        const isLost = error.status === 412;
        byId("peer-problem").textContent = isLost ? "It was changed meanwhile: go back, and look at what it says now." : error.message;
        button.disabled = false;
      }
    } }, label);
    return button;
  }
}

function definitions(facts) {
  return make("dl", {}, ...facts.flatMap(([term, values]) => [make("dt", {}, term), make("dd", {}, ...values)]));
}

const who = (replica) => replica?.name ?? replica?.peer_id ?? replica?.store ?? replica?.id ?? null;

const VIA = {
  write: "written through this pod's manager",
  push: "came by a push",
  exchange: "came by an exchange",
  store: "was in the store when this manager started",
};

const arrived = (it) => {
  const from = who(it.from);
  return `${VIA[it.via] ?? it.via}${from ? ` from ${from}` : ""}`;
};

function explanation(told) {
  const facts = [];
  if (told.state === "deleted") facts.push(["State", ["deleted, and remembered so that it does not come back"]]);
  if (told.origin) {
    const { own, fenced } = told.origin;
    const by = own ? "this pod" : who(told.origin);
    facts.push(["Written by", [by, fenced ? `, whose store writes no more under that id (${fenced})` : ""]]);
  }
  if (told.writtenAt) facts.push(["Written", [when(told.writtenAt), ` ${told.writtenAt}`]]);
  if (told.arrival) facts.push(["Came here", [when(told.arrival.at), ` ${arrived(told.arrival)}`]]);
  const events = (title, list) => (list?.length ? [make("h3", {}, title), make("ul", {}, ...list.map((it) => make("li", {},
    when(it.at), ` ${arrived(it)}: `, make("strong", {}, it.reason), it.text ? `: ${it.text}` : "")))] : []);
  return [
    make("h3", {}, "Why it is so"), definitions(facts),
    ...events("Lost against it", told.lost), ...events("Refused", told.refused),
  ];
}
