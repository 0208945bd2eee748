"""What recorded requests get from the rules: streams in, counts and tests out. Pure but for reading the given stream."""
