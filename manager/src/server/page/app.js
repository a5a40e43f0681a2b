// The page of one pod: starts its parts and shows one of them at a time.

import { Directory } from "./directory.js";
import { byId } from "./dom.js";
import { PeerDialog } from "./peer.js";
import { PeersView } from "./peers.js";
import { Status } from "./status.js";

const PARTS = ["peers", "replicas", "activity", "calls"];

function show() {
  const asked = location.hash.slice(1);
  const part = PARTS.includes(asked) ? asked : PARTS[0];
  for (const id of PARTS) byId(id).hidden = id !== part;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

const directory = new Directory();
const status = new Status();
const nameOf = (id) => (id === null || id === undefined ? null : directory.peers.get(id)?.name || id);
const writer = (peer) => status.writer(peer, nameOf);
let view = null;
const dialog = new PeerDialog(directory, writer, (id) => view.focus(id));
view = new PeersView(directory, writer, (id) => dialog.open(id));
status.addEventListener("change", () => view.draw());

byId("quiet").addEventListener("change", () => status.look());
window.addEventListener("hashchange", () => {
  show();
  status.look();
});
show();
directory.run();
status.run();
