// Runs before the page is drawn, so that a chosen theme does not flash. The choice is "light", "dark" or absent: the system's.
(() => {
  try {
    const chosen = localStorage.getItem("tidegate-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; the system's theme holds then.
  }
})();
