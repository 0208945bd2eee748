"""Cases: contexts with their expected decisions, written beside the rules and run before the rules are live."""
