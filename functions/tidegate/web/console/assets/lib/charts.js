// Requests, errors and latency over time, by uPlot, which is loaded with the first chart.
import { html, useEffect, useMemo, useRef, useState } from "./dom.js";
import { ms, rate, share } from "./format.js";
import { Empty } from "./ui.js";

let loading = null;

// uPlot's package has no minified module: its script defines a global name.
function loadUPlot() {
  loading ??= new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/console/vendor/uPlot.min.css" });
    const script = Object.assign(document.createElement("script"), { src: "/console/vendor/uPlot.iife.min.js" });
    script.onload = () => resolve(globalThis.uPlot);
    script.onerror = () => {
      loading = null;
      reject(new Error("the chart could not be loaded"));
    };
    document.head.append(style, script);
  });
  return loading;
}

const HEIGHT = 120;
const FEWEST = 24;
const PANELS = [
  { title: "Requests/s", keys: ["requests_per_s"], names: ["requests"], colours: ["--accent"], format: rate, fill: true, least: 1 },
  { title: "Errors", keys: ["error_share"], names: ["errors"], colours: ["--error"], format: share, fill: true, least: 0.01 },
  { title: "Latency", keys: ["p50_ms", "p99_ms"], names: ["p50", "p99"], colours: ["--accent", "--warning"], format: ms, least: 10 },
];

// A custom property may be `light-dark(…)`; a drawn element has the colour that holds.
function colour(element, name) {
  element.style.color = `var(${name})`;
  const value = getComputedStyle(element).color;
  element.style.color = "";
  return value;
}

function options(element, panel, width, say) {
  const of = (name) => colour(element, name);
  const axis = { stroke: of("--muted"), grid: { stroke: of("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width,
    height: HEIGHT,
    cursor: { sync: { key: "tidegate" }, y: false, points: { size: 6 } },
    legend: { show: false },
    padding: [8, 18, 0, 0],
    hooks: { setCursor: [(plot) => say(plot.cursor.idx)] },
    scales: { y: { range: (_plot, _low, high) => [0, Math.max(high * 1.1, panel.least)] } },
    axes: [
      { ...axis, size: 24, space: 70, values: (_plot, times) => times.map((time) => new Date(time * 1000).toISOString().slice(11, 16)) },
      { ...axis, size: 60, space: 30, values: (_plot, ticks) => ticks.map((tick) => panel.format(tick)) },
    ],
    series: [
      {},
      ...panel.names.map((label, index) => ({
        label,
        stroke: of(panel.colours[index]),
        fill: panel.fill ? of(panel.colours[index]).replace(")", " / 0.12)").replace(/rgb\(([^/]*), ([^/]*), ([^/]*) \//, "rgb($1 $2 $3 /") : undefined,
        width: 1.5,
        points: { show: false },
      })),
    ],
  };
}

// The figures below the cursor, else the last ones.
function Figures({ panel, columns, index }) {
  const at = index ?? columns[0].length - 1;
  return html`${panel.names.map((name, row) => html`<span key=${name} class="figure-of"><span class="swatch" style=${{ background: `var(${panel.colours[row]})` }}></span>${panel.names.length > 1 && `${name} `}${panel.format(columns[row + 1][at])}</span>`)}
    ${index !== null && html`<span class="note">${new Date(columns[0][at] * 1000).toISOString().slice(11, 19)} UTC</span>`}`;
}

function Panel({ panel, columns }) {
  const element = useRef(null);
  const [index, say] = useState(null);
  const plot = useRef(null);
  const latest = useRef(columns);
  latest.current = columns;
  useEffect(() => {
    let gone = false;
    let width = 0;
    const draw = async () => {
      const uPlot = await loadUPlot().catch(() => null);
      if (gone || !uPlot || !element.current) return;
      plot.current?.destroy();
      width = element.current.clientWidth;
      plot.current = new uPlot(options(element.current, panel, Math.max(width, 120), say), latest.current, element.current);
    };
    const resize = new ResizeObserver(() => {
      const now = element.current?.clientWidth;
      if (plot.current && now && now !== width) plot.current.setSize({ width: (width = now), height: HEIGHT });
    });
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    draw();
    resize.observe(element.current);
    addEventListener("themechange", draw);
    scheme.addEventListener("change", draw);
    return () => {
      gone = true;
      resize.disconnect();
      removeEventListener("themechange", draw);
      scheme.removeEventListener("change", draw);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(columns), [columns]);
  return html`<figure class="chart"><figcaption><span class=${panel.names.length > 1 ? "hidden" : ""}>${panel.title}</span> <${Figures} panel=${panel} columns=${columns} index=${index ?? null} /></figcaption><div ref=${element} aria-hidden="true"></div></figure>`;
}

// A stack that has just started has nothing to show of the time before.
export function firstStep(values = []) {
  const first = values.findIndex((value) => value !== null);
  return first < 0 ? 0 : Math.max(0, Math.min(first, values.length - FEWEST));
}

// A history of the API: `end` (Unix time), `step_s`, and a list of figures for each key.
export function Chart({ history }) {
  if (!history?.requests_per_s?.length) return html`<${Empty} title="Nothing is counted yet">The chart begins with the first figures.<//>`;
  return html`<${Panels} history=${history} />`;
}

function Panels({ history }) {
  const data = useMemo(() => {
    const { requests_per_s: requests, end, step_s: step } = history;
    const from = firstStep(requests);
    const times = requests.map((_, index) => end - (requests.length - 1 - index) * step).slice(from);
    return PANELS.map((panel) => [times, ...panel.keys.map((key) => history[key]?.slice(from) ?? times.map(() => null))]);
  }, [history.end, history.requests_per_s]);
  return html`<div class="charts">${PANELS.map((panel, index) => html`<${Panel} key=${panel.title} panel=${panel} columns=${data[index]} />`)}</div>`;
}
