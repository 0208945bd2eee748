// The shell: navigation, who is signed in, how current the page is, and the page of the address.
import { html, render, useEffect, useErrorBoundary, useLayoutEffect, useRef, useState } from "./lib/dom.js";
import { signIn, signOut, token } from "./lib/api.js";
import { connection, overview, start } from "./lib/events.js";
import { decoded, short } from "./lib/format.js";
import { BASE, Link, go, place, to } from "./lib/router.js";
import { Empty, Failure, Status, Time } from "./lib/ui.js";

const PAGES = [
  ["", "Overview", () => import("./pages/overview.js"), "M2 9h5V2H2Zm7 5h5V7H9ZM2 14h5v-3H2ZM9 2v3h5V2Z"],
  ["objectives", "Objectives", () => import("./pages/objective.js"), "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13Zm0 3.4a3.1 3.1 0 1 1 0 6.2 3.1 3.1 0 0 1 0-6.2Z"],
  ["playground", "Playground", () => import("./pages/playground.js"), "M4 2v12l10-6Z"],
  ["rules", "Rules", () => import("./pages/rules.js"), "M4 2v9.2M12 4.8V7c0 2-8 1.6-8 4.2M4 2.2a1.6 1.6 0 1 1 0 .1Zm0 10.4a1.6 1.6 0 1 1 0 .1ZM12 3a1.6 1.6 0 1 1 0 .1Z"],
  ["models", "Models", () => import("./pages/models.js"), "M8 1.4 14 4.6v6.8L8 14.6 2 11.4V4.6Zm0 6.5L2.3 4.8M8 7.9l5.7-3.1M8 7.9v6.4"],
  ["fleet", "Fleet", () => import("./pages/fleet.js"), "M2 2.5h12v4H2Zm0 7h12v4H2Zm2-5h1.4M4 11.5h1.4"],
];
const OPEN = new Set(["playground"]);
const CONNECTIONS = {
  connecting: ["off", "Connecting"],
  live: ["ok", "Live"],
  stale: ["warning", "Not current"],
  polling: ["info", "Polling"],
  lost: ["error", "Not reachable"],
  "signed-out": ["off", "Signed out"],
};

function Navigation({ section }) {
  return html`<nav class="pages" aria-label="Pages"><ul>${PAGES.map(
    ([key, title, , icon]) => html`<li key=${key}><${Link} to=${key ? to(key) : BASE} current=${key === section}>
      <svg class="page-icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d=${icon} /></svg><span>${title}</span>
    <//></li>`,
  )}</ul></nav>`;
}

function ThemeSwitch() {
  const root = document.documentElement;
  const [theme, setTheme] = useState(root.dataset.theme ?? "system");
  const choose = (event) => {
    const chosen = event.currentTarget.value;
    setTheme(chosen);
    if (chosen === "system") delete root.dataset.theme;
    else root.dataset.theme = chosen;
    try {
      localStorage.setItem("tidegate-theme", chosen);
    } catch {
      // The choice then lasts as long as the page.
    }
    dispatchEvent(new Event("themechange"));
  };
  return html`<label class="theme"><span class="hidden">Theme</span><select value=${theme} onChange=${choose}>
    <option value="system">System</option><option value="light">Light</option><option value="dark">Dark</option>
  </select></label>`;
}

function Bar() {
  const { state } = connection.use();
  const seen = overview.use();
  const known = token.use();
  const [kind, text] = CONNECTIONS[state];
  return html`<header class="bar">
    <a class="brand" href=${BASE}><img src="/console/icon.svg" width="22" height="22" alt="" /><span>Tidegate</span></a>
    <div class="now">
      ${seen?.live && html`<span class="revision wide">Revision <code title=${seen.live.revision}>${short(seen.live.revision)}</code> live since <${Time} at=${seen.live.since} /></span>`}
      <span role="status"><${Status} kind=${kind}>${text}<//></span>
      <${ThemeSwitch} />
      ${known && html`<button type="button" class="quiet" onClick=${signOut}>Sign out</button>`}
    </div>
  </header>`;
}

function SignIn({ error }) {
  const submit = (event) => {
    event.preventDefault();
    const value = new FormData(event.currentTarget).get("token").trim();
    if (value) signIn(value);
  };
  return html`<div class="sign-in card">
    <h1 tabIndex="-1">Sign in</h1>
    <p>This page needs the operators’ token of the stack. <code>tidegate console</code> prints a link that has it.</p>
    ${error?.status === 401 && token.get() && html`<p class="failure" role="alert">The token was refused: it is of another stack, or the stack was started again since.</p>`}
    <form onSubmit=${submit}>
      <label for="token">Operators’ token</label>
      <input id="token" name="token" type="password" autocomplete="current-password" required spellcheck=${false} />
      <button type="submit" class="primary">Sign in</button>
    </form>
    <p class="note">The token stays in this tab, and is sent to this host only. Callers’ pages need none: <${Link} to=${to("playground")}>playground<//>.</p>
  </div>`;
}

// The page's module, once it is loaded; the last page stays until then.
function Page({ section, parts }) {
  const [broken, mend] = useErrorBoundary();
  const [loaded, setLoaded] = useState({});
  const page = PAGES.find(([key]) => key === section);
  useEffect(() => {
    if (section === "history") go(to("rules", "history"), { replace: true });
  }, [section]);
  useLayoutEffect(() => {
    mend();
    if (page) page[2]().then((module) => setLoaded({ section, View: module.default }), (error) => setLoaded({ section, error }));
  }, [section]);
  if (!page) return html`<div class="page"><h1 tabIndex="-1">No such page</h1><${Empty} title="The console has no page at this address"><${Link} to=${BASE}>Go to the overview<//><//></div>`;
  if (broken) return html`<div class="page"><h1 tabIndex="-1">${page[1]}</h1><${Failure} error=${{ title: "This page failed to draw", detail: `${broken}` }} retry=${mend} /></div>`;
  if (loaded.error) return html`<div class="page"><h1 tabIndex="-1">${page[1]}</h1><${Failure} error=${{ title: "This page could not be loaded", detail: "Check that the stack runs, then reload the page." }} retry=${() => location.reload()} /></div>`;
  if (loaded.section !== section) return html`<div class="waiting" role="status">Reading …</div>`;
  return html`<${loaded.View} parts=${parts} />`;
}

const sectionOf = (path) => {
  const parts = path.slice(BASE.length).split("/").filter(Boolean).map(decoded);
  return parts.length ? parts : [""];
};

function App() {
  const { path } = place.use();
  const known = token.use();
  const { state, error } = connection.use();
  const main = useRef(null);
  const first = useRef(true);
  const [section, ...parts] = sectionOf(path);
  useLayoutEffect(start, [known]);
  // After a change of the page, the reader continues at its heading.
  useLayoutEffect(() => {
    if (!first.current) main.current?.focus({ preventScroll: true });
    first.current = false;
  }, [path]);
  const locked = !OPEN.has(section) && state === "signed-out";
  return html`<a class="skip" href="#main">Skip to the page</a>
    <${Bar} />
    <${Navigation} section=${section} />
    <main id="main" tabIndex="-1" ref=${main}>${locked ? html`<${SignIn} error=${error} />` : html`<${Page} key=${section} section=${section} parts=${parts} />`}</main>`;
}

// The module of the first page is on its way while the frame is drawn; where it fails, the page says so.
PAGES.find(([key]) => key === sectionOf(location.pathname)[0])?.[2]().catch(() => {});

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
