"""`make demo`: the whole stack, real requests, and what happened to them."""
