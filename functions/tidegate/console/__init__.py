"""What operators see and do in the console, as plain JSON values; `web/console/` makes HTTP of it."""
