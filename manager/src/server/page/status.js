// How the pod is: health, alarms, replicas, exchanges and pushes, asked for every few seconds.

import { call } from "./calls.js";
import { byId, count, make, plural, shortId, when } from "./dom.js";

const EVERY_MS = 2_000;
/** The replicas change seldom, and there may be many: unless they are looked at, so often will do. */
const REPLICAS_EVERY_MS = 15_000;
/** Replicas that are shown at the most. */
const ROWS_MAX = 500;

/** Tells by `change` that the replicas are known anew. */
export class Status extends EventTarget {
  #writers = new Map();
  #drawn = "";
  #replicas = null;
  #replicasAt = -Infinity;

  /** Asks, again and again, while the page can be seen. */
  async run() {
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
    for (;;) {
      if (!document.hidden) await this.look();
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }

  /** Who wrote a peer: a pod's name, or the beginning of the id it wrote under. */
  writer(peer, nameOf) {
    const origin = peer.version.split("-").slice(1).join("");
    const known = this.#writers.get(origin);
    if (known === undefined) return shortId(origin);
    return known.own ? "this pod" : nameOf(known.peer_id) ?? shortId(known.store ?? origin);
  }

  /** Asks once, and draws the part of the page that is looked at. */
  async look() {
    try {
      const status = await call("GET", "/v1/status");
      drawHealth(status);
      drawAlarms(status.alarms);
      const isShown = !byId("replicas").hidden;
      if (isShown || performance.now() - this.#replicasAt > REPLICAS_EVERY_MS) {
        this.#replicas = await call("GET", "/v1/replicas");
        this.#replicasAt = performance.now();
        this.#learn(this.#replicas);
      }
      if (isShown) drawReplicas(status, this.#replicas);
      if (!byId("activity").hidden) drawEvents(status);
    } catch (error) {
      const line = byId("health");
      line.className = "bad";
      line.textContent = `The manager cannot be asked (${error.message}): what is below may be old. Does the forwarded port still stand?`;
    }
  }

  #learn({ replicas, fenced }) {
    const plain = (id) => id.replaceAll("-", "");
    this.#writers = new Map([
      ...fenced.map((it) => [plain(it.origin), { peer_id: null, store: `${shortId(it.origin)} (writes no more)` }]),
      ...replicas.map((it) => [plain(it.origin), it]),
    ]);
    const drawn = JSON.stringify([...this.#writers].map(([id, it]) => [id, it.peer_id]));
    if (drawn !== this.#drawn) {
      this.#drawn = drawn;
      this.dispatchEvent(new Event("change"));
    }
  }
}

/** Sets a text only where it is another, so that a screen reader does not hear it each time. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function drawHealth({ name, ip, peer_id: id, records, sync, alarms, ready }) {
  say(byId("own-name"), name || id);
  say(byId("own-id"), name && name !== id ? id : "");
  const peers = sync === null ? "no sync has reported yet" : `reaches ${count(sync.reachable)} of ${plural(sync.known, "replica")}`;
  const differ = sync?.peers.filter((peer) => !peer.own && peer.equal === false).length ?? 0;
  const tables = sync && sync.reachable > 0 ? [differ === 0 ? "tables are equal" : `${plural(differ, "table")} differed when last heard of`] : [];
  const state = alarms.length > 0 ? plural(alarms.length, "alarm") : "no alarm";
  const line = byId("health");
  const isGood = ready && alarms.length === 0;
  line.className = isGood ? "good" : "bad";
  const deleted = records.tombstones > 0 ? `, ${count(records.tombstones)} deleted and still remembered` : "";
  const parts = [ready ? "Ready" : "Not ready", ip ?? "no record of its own yet", `${plural(records.live, "peer")}${deleted}`, peers, ...tables, state];
  say(line, parts.join(" · "));
}

let drawnAlarms = "[]";

function drawAlarms(alarms) {
  const text = JSON.stringify(alarms);
  if (text === drawnAlarms) return;
  drawnAlarms = text;
  byId("alarms").replaceChildren(...alarms.map(({ alarm, since, text, advice, about }) => make("article", { class: "alarm", "data-alarm": alarm },
    make("h3", {}, alarm.replaceAll("_", " ")),
    make("p", {}, text, " ", make("span", { class: "faint" }, "Since ", when(since), ".")),
    make("p", {}, advice),
    about.length > 0 ? make("ul", {}, ...about.map(({ who, reason }) => make("li", {}, make("code", {}, who), `: ${reason}`))) : null,
  )));
}

/** What both programs know of replicas, joined by their stores. */
function joined({ sync }, { replicas }) {
  const standing = new Map((sync?.peers ?? []).filter((peer) => !peer.own).map((peer) => [peer.store ?? peer.address, peer]));
  const rows = replicas.map((replica) => {
    const peer = standing.get(replica.store) ?? null;
    standing.delete(replica.store);
    return { replica, peer };
  });
  return [...rows, ...[...standing.values()].map((peer) => ({ replica: null, peer }))];
}

function drawReplicas(status, known) {
  const all = joined(status, known);
  const rows = all.slice(0, ROWS_MAX).map(({ replica, peer }) => {
    const isOwn = replica?.own ?? false;
    const name = (isOwn && (status.name || status.peer_id)) || (peer?.pod ?? peer?.peer_id ?? replica?.peer_id ?? replica?.store ?? replica?.origin ?? peer?.address);
    const state = () => {
      if (isOwn) return make("span", { class: "good" }, "this pod");
      if (peer === null) return make("span", { class: "faint" }, "not in sight");
      if (peer.reachable) return make("span", { class: "good" }, "reachable");
      return make("span", { class: "bad" }, peer.lastError ? `${peer.lastError} (${count(peer.failures)} in a row)` : "not met yet");
    };
    const table = () => {
      if (isOwn) return "";
      if (peer?.equal === undefined || peer?.equal === null) return make("span", { class: "faint" }, "unknown");
      return peer.equal ? make("span", { class: "good" }, "equal") : make("span", { class: "bad" }, "differed");
    };
    const heard = [peer?.okAt, peer?.heardAt].filter(Boolean).sort().at(-1) ?? replica?.heardAt;
    const skew = peer?.skewMs;
    return make("tr", {},
      make("td", {}, name, make("div", { class: "faint mono" }, shortId(replica?.store ?? peer?.store ?? ""))),
      make("td", { class: "mono" }, isOwn ? status.ip ?? "" : peer?.address ?? ""),
      make("td", {}, state()),
      make("td", {}, table()),
      make("td", {}, isOwn ? "" : when(heard)),
      make("td", { class: "wide" }, when(replica?.floor)),
      make("td", { class: "wide" }, when(replica?.publishedAt)),
      make("td", { class: "wide" }, skew === undefined || skew === null ? "" : `${skew > 0 ? "+" : ""}${count(skew)} ms`),
    );
  });
  byId("replica-rows").replaceChildren(...rows);
  const waits = known.heldBack ? `wait for ${known.heldBack.replica ?? "a replica that is not known yet"} (${known.heldBack.reason})` : "wait for nothing";
  const brake = known.braked ? " Nobody is taken for gone: the brake is on." : "";
  const more = all.length > rows.length ? ` The first ${count(rows.length)} of ${count(all.length)} replicas are shown.` : "";
  say(byId("floor-state"), `${plural(known.tombstones, "deleted record")} remembered here: they ${waits}.${brake}${more}`);
  const fenced = byId("fenced");
  fenced.hidden = known.fenced.length === 0;
  say(fenced.querySelector("summary"), `${plural(known.fenced.length, "id")} that will write no more`);
  fenced.querySelector("ul").replaceChildren(...known.fenced.map(({ origin, reason, since }) => make("li", {},
    make("code", {}, origin), ` ${reason.replaceAll("_", " ")} `, when(since))));
}

const EVENTS = {
  exchange: "exchange with", answered: "answered", push: "pushed to", pushed: "pushed by",
};

/** An exchange between equal tables: at rest there is one every few seconds. */
const isQuiet = ({ result, sent, received }) => result === "equal" && sent === 0 && received === 0;

function drawEvents({ sync, events }) {
  const shown = byId("quiet").checked ? events : events.filter((event) => !isQuiet(event));
  const quiet = events.length - shown.length;
  const without = quiet > 0 ? ` ${plural(quiet, "exchange")} between equal tables not shown.` : "";
  const told = sync === null ? "No sync has reported yet: it runs beside the manager, and says what it does."
    : `The latest ${count(shown.length)}, newest first.${without}`;
  say(byId("activity-state"), told);
  byId("event-rows").replaceChildren(...shown.map(({ at, kind, peer, result, sent, received, ms }) => make("tr", {},
    make("td", {}, when(at)), make("td", {}, EVENTS[kind] ?? kind), make("td", { class: "mono" }, peer),
    make("td", { class: /^(failed|refused)/.test(result) ? "bad" : undefined }, result),
    make("td", { class: "number" }, count(sent)), make("td", { class: "number" }, count(received)),
    make("td", { class: "number" }, `${count(ms)} ms`))));
}
