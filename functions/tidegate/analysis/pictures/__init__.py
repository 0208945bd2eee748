"""Pictures of rules as SVG text: well-formed, readable in light and dark, text as text, with an accessible title."""
