"""Cases: contexts and what they must decide, written beside the rules and run before the rules are live."""
