// Preact and htm as one import: `html` tags templates, hooks are functions of the same name.
import { h, render, Fragment, createContext } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export { useCallback, useContext, useEffect, useErrorBoundary, useId, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.mjs";
export { h, render, Fragment, createContext };
export const html = htm.bind(h);
