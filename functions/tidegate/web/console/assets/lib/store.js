// A value that components watch: `use()` renders the component again when `set` gives it another value.
import { useEffect, useState } from "./dom.js";

export function store(initial) {
  let value = initial;
  const watchers = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const watch of [...watchers]) watch(next);
    },
    watch(watcher) {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    use() {
      const [seen, setSeen] = useState(value);
      useEffect(() => {
        setSeen(value);
        watchers.add(setSeen);
        return () => watchers.delete(setSeen);
      }, []);
      return seen;
    },
  };
}
