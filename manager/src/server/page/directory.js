// The peers as this page holds them: listed once, and from then on kept by the watch.

import { Problem, lines } from "./calls.js";

/** Peers that are held at the most, so that a browser's memory is bounded. */
export const HELD_MAX = 250_000;
const AGAIN_MS = 2_000;
/** Why a watch could not go on, by the word in its last event. */
const GONE = { too_slow: "The page was too slow for the watch", reopened: "The store was opened anew" };

/** Tells by `change` that peers changed and by `state` how it is with the list itself. */
export class Directory extends EventTarget {
  peers = new Map();
  /** `loading`, `live` or `lost`. */
  state = "loading";
  /** Whether there are more than are held. */
  isCut = false;
  trouble = "";
  #last = "";

  /** Lists and watches, again and again, until the page is gone. */
  async run() {
    for (;;) {
      try {
        const revision = await this.#list();
        this.#become("live");
        await this.#watch(revision);
      } catch (error) {
        if (error instanceof Problem && error.status === 410) continue;
        this.trouble = error.message;
        this.#become("lost");
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  #become(state) {
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  async #list() {
    const isFirst = this.peers.size === 0;
    const listed = isFirst ? this.peers : new Map();
    const stop = new AbortController();
    let from;
    let isCut = false;
    for await (const { revision, values } of lines("/v1/peers", stop.signal)) {
      from ??= revision;
      for (const peer of values) listed.set(peer.peer_id, peer);
      if (listed.size > HELD_MAX) {
        isCut = true;
        stop.abort();
        break;
      }
      if (isFirst) this.#changed();
    }
    this.#last = isCut ? [...listed.keys()].at(-1) : "";
    this.isCut = isCut;
    this.peers = listed;
    this.#changed();
    return from;
  }

  // Where the list was cut, what comes behind its end is left out here as well.
  #isHeld(id) {
    return !this.isCut || id <= this.#last;
  }

  async #watch(since) {
    for await (const { values } of lines(`/v1/peers?watch=true&since=${encodeURIComponent(since)}`)) {
      let isChanged = false;
      for (const event of values) {
        if (event.type === "gone") throw new Problem(410, GONE[event.reason] ?? GONE.too_slow);
        if (event.type === "delete") {
          isChanged = this.peers.delete(event.peer_id) || isChanged;
        } else if (event.peer && this.#isHeld(event.peer.peer_id)) {
          this.peers.set(event.peer.peer_id, event.peer);
          isChanged = true;
        }
      }
      if (isChanged) this.#changed();
    }
    throw new Error("the watch ended");
  }
}

const haystacks = new WeakMap();

/** What a search looks into. */
function haystack(peer) {
  let text = haystacks.get(peer);
  if (text === undefined) {
    const ports = Object.entries(peer.ports).map(([purpose, port]) => `${purpose}=${port} ${peer.ip}:${port}`);
    const labels = Object.entries(peer.labels).map(([key, value]) => `${key}=${value}`);
    text = [peer.name, peer.peer_id, peer.ip, ...ports, ...labels].join("\n").toLowerCase();
    haystacks.set(peer, text);
  }
  return text;
}

/** Addresses in the order of their numbers. */
function addressKey(ip) {
  return ip.includes(":") ? `~${ip}` : ip.split(".").map((part) => part.padStart(3, "0")).join(".");
}

/** Names in the order of the numbers in them: `files-2` before `files-10`. */
const natural = (text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));

const pairs = (map) => Object.entries(map).map(([key, value]) => `${key} ${value}`).join(", ");

const KEYS = {
  name: (peer) => natural(peer.name || peer.peer_id),
  ip: (peer) => addressKey(peer.ip),
  ports: (peer) => pairs(peer.ports),
  labels: (peer) => pairs(peer.labels),
  updated: (peer) => peer.updatedAt ?? "",
  contact: (peer) => peer.lastConnectionOn ?? "",
};

/** What peers were sorted by last: a list that changes by itself is sorted again and again. */
let sorted = { column: "", keys: new WeakMap() };

function keyOf(peer, column, writer) {
  // Who wrote a peer is called otherwise once more is known of the replicas.
  if (column === "by") return writer(peer);
  let key = sorted.keys.get(peer);
  if (key === undefined) {
    key = KEYS[column](peer);
    sorted.keys.set(peer, key);
  }
  return key;
}

/** The peers that have each word of `query`, sorted by a column; `writer` names who wrote one. */
export function select(peers, query, { column, isDescending }, writer) {
  if (sorted.column !== column) sorted = { column, keys: new WeakMap() };
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const keyed = [];
  for (const peer of peers.values()) {
    if (words.length > 0) {
      const text = haystack(peer);
      if (!words.every((word) => text.includes(word))) continue;
    }
    keyed.push([keyOf(peer, column, writer), peer]);
  }
  const sign = isDescending ? -1 : 1;
  const order = (a, b) => (a < b ? -sign : a > b ? sign : 0);
  keyed.sort(([a, left], [b, right]) => order(a, b) || (left.peer_id < right.peer_id ? -1 : 1));
  return keyed.map(([, peer]) => peer);
}
