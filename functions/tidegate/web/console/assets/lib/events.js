// The overview, kept current: a stream of server-sent events read with fetch, as EventSource sends no Authorization;
// where the stream fails, the overview is polled, and the stream is tried again later.
import { Problem, getJson, send, token } from "./api.js";
import { store } from "./store.js";

const POLL_MS = 2000;
const STREAM_AGAIN_MS = 30_000;
const SILENT_MS = 10_000;
const HIDDEN_MS = 30_000;
const CHANGED_MS = 5000;

export const overview = store(null);
// States: connecting, live, stale, polling, lost, signed-out; `why` says why the overview is polled.
export const connection = store({ state: "connecting", error: null });

let generation = 0;
let changed = { flip: 0, until: 0 };

// The number of the flip that made live what is live.
export const useFlip = () => overview.use()?.live?.flip;

// After a change of one's own: what it made is shown at once, and not what was on its way before.
export async function refresh() {
  const read = await getJson("/v1/overview").catch(() => null);
  if (!read) return;
  changed = { flip: read.live?.flip ?? 0, until: Date.now() + CHANGED_MS };
  overview.set(read);
}

function show(read) {
  if (Date.now() > changed.until || (read.live?.flip ?? 0) >= changed.flip) overview.set(read);
}

export function start() {
  const mine = ++generation;
  const live = () => mine === generation;
  overview.set(null);
  connection.set({ state: token.get() ? "connecting" : "signed-out", error: null });
  if (token.get()) run(live);
}

async function run(live) {
  while (live()) {
    await shown();
    const error = await follow(live).catch((cause) => cause);
    if (!live()) return;
    if (error instanceof Problem && error.status === 401) {
      connection.set({ state: "signed-out", error });
      return;
    }
    if (!document.hidden) await poll(live, Date.now() + STREAM_AGAIN_MS, error?.detail ?? "the stream of events broke off");
  }
}

// A hidden page asks nothing: the gateway streams to a few viewers only.
const shown = () =>
  new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    look();
  });

// Read events until the stream ends, fails, or is silent for too long.
async function follow(live) {
  const abort = new AbortController();
  let watchdog = setTimeout(() => abort.abort(), SILENT_MS);
  let hiding = 0;
  const hide = () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => abort.abort(), HIDDEN_MS);
  };
  document.addEventListener("visibilitychange", hide);
  try {
    const response = await send("/v1/events", { signal: abort.signal });
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) throw new Error("no stream");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (live()) {
      const { done, value } = await reader.read();
      if (done || !live()) return null;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => abort.abort(), SILENT_MS);
      const events = (text + value).split(/\r?\n\r?\n/);
      text = events.pop();
      for (const event of events) receive(event);
    }
    return null;
  } finally {
    clearTimeout(watchdog);
    clearTimeout(hiding);
    document.removeEventListener("visibilitychange", hide);
    abort.abort();
  }
}

function receive(event) {
  const lines = event.split(/\r?\n/);
  const kind = lines.find((line) => line.startsWith("event:"))?.slice(6).trim();
  const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
  if (kind === "overview") {
    show(JSON.parse(data));
    connection.set({ state: "live", error: null });
  } else if (kind === "problem") {
    // The gateway streams, and the control plane does not answer: what is shown is of before.
    connection.set({ state: "stale", error: new Problem(JSON.parse(data)) });
  }
}

async function poll(live, until, why) {
  while (live() && Date.now() < until) {
    if (!document.hidden) {
      try {
        const read = await getJson("/v1/overview");
        if (!live()) return;
        show(read);
        connection.set({ state: "polling", error: null, why });
      } catch (error) {
        if (!live()) return;
        connection.set({ state: error.status === 401 ? "signed-out" : "lost", error });
        if (error.status === 401) return;
        // A gateway that is back has its stream back.
        until = Math.min(until, Date.now() + POLL_MS);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
