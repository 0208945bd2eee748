// Addresses below /console, by the History API. A page's module is loaded when it is first visited.
import { html, useLayoutEffect } from "./dom.js";
import { store } from "./store.js";

export const BASE = "/console";

export const place = store(here());

function here() {
  return { path: location.pathname.replace(/\/+$/, "") || "/", query: new URLSearchParams(location.search), hash: location.hash };
}

export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", address);
  place.set(here());
  if (!replace) scrollTo(0, 0);
}

addEventListener("popstate", () => place.set(here()));

// Links are handled here, once: those of the console that open in this tab.
addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href]");
  if (!link || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !(url.pathname + "/").startsWith(BASE + "/")) return;
  if (url.pathname === location.pathname && url.search === location.search && url.hash) return;
  event.preventDefault();
  go(url.pathname + url.search + url.hash);
});

export const to = (...parts) => [BASE, ...parts.filter((part) => part !== "").map(encodeURIComponent)].join("/");

export function Link({ to: address, current, children, ...rest }) {
  return html`<a href=${address} aria-current=${current ? "page" : undefined} ...${rest}>${children}</a>`;
}

export function useTitle(title) {
  // With the page, not after it is painted: a reader's software says the title when the page changes.
  useLayoutEffect(() => {
    document.title = `${title} · Tidegate`;
  }, [title]);
}
