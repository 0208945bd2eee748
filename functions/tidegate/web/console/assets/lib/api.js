// Requests to /v1: the operators' token, problem documents as errors, and reads that repeat while they are looked at.
import { useCallback, useEffect, useRef, useState } from "./dom.js";
import { decoded } from "./format.js";
import { store } from "./store.js";

const TOKEN = "tidegate-token";
const UNREACHABLE = "The gateway does not answer";

export const token = store(readToken());

export class Problem extends Error {
  constructor({ title, detail, status = 0, ...more }) {
    super(detail || title);
    Object.assign(this, { title, detail, status, more });
  }
}

// The token comes in the fragment, which no server sees, and leaves the address at once.
function readToken() {
  const match = /^#token=([^&]+)$/.exec(location.hash);
  if (match) {
    history.replaceState(null, "", location.pathname + location.search);
    const value = decoded(match[1]);
    keep(value);
    return value;
  }
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

function keep(value) {
  try {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    // Without storage the token lasts as long as the page.
  }
}

export function signIn(value) {
  keep(value);
  token.set(value);
}

export function signOut() {
  keep(null);
  token.set(null);
}

export async function send(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const options = { method, headers, signal, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: UNREACHABLE, detail: `${location.host} cannot be reached. Check that the stack runs: tidegate status` });
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

async function problemOf(response) {
  let document = {};
  try {
    document = await response.json();
  } catch {
    // Not JSON: the status says what is known.
  }
  const title = document.title || `The gateway answered ${response.status}`;
  return new Problem({ ...document, title, detail: document.detail || response.statusText || title, status: response.status });
}

export const getJson = async (path, options) => (await send(path, options)).json();
export const postJson = (path, body, options) => getJson(path, { ...options, method: "POST", body });

// What a path answers, read again every `everyMs` while the page is visible, and when `of` changes, on which it depends. An error
// keeps what was read before.
export function useRead(path, everyMs = 0, of) {
  const [state, setState] = useState({ data: null, error: null, path: null });
  const [turn, setTurn] = useState(0);
  const known = token.use();
  const timer = useRef(0);
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    const read = async () => {
      try {
        const data = await getJson(path, { signal: abort.signal });
        setState({ data, error: null, path });
      } catch (error) {
        if (abort.signal.aborted) return;
        setState((before) => ({ data: before.path === path ? before.data : null, error, path }));
      }
      if (everyMs && !abort.signal.aborted) timer.current = setTimeout(again, everyMs);
    };
    const again = () => (document.hidden ? (timer.current = setTimeout(again, everyMs)) : read());
    read();
    return () => {
      abort.abort();
      clearTimeout(timer.current);
    };
  }, [path, everyMs, known, turn]);
  const refresh = useCallback(() => setTurn((n) => n + 1), []);
  const before = useRef(of);
  useEffect(() => {
    if (before.current !== undefined && of !== before.current) refresh();
    before.current = of;
  }, [of]);
  const current = state.path === path;
  return { data: current ? state.data : null, error: current ? state.error : null, refresh };
}
