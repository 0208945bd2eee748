"""Whether a stage that is deployed can become what was synthesized: read both, compare, refuse with words."""
