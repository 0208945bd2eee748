"""Everything that speaks AWS."""
