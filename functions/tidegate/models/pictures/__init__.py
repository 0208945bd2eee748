"""Pictures of ensembles, as Mermaid text and as SVG."""
