"""The conformance corpus: cases that every engine of Tidegate's bundles must decide alike; see docs/conformance.md."""
