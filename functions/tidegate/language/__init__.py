"""The rule language: YAML files to a program, and the program to the bytes of a bundle.

`directory` reads all files. Of each, `source` reads the YAML, `shape` checks it against `documents`, and then `semantics`
and `when` (rules), `fleet` (with the manifests of images), `layers` and `callers` check what it refers to. `no_effect` and
`spare_conditions` report settings that change nothing. `compiler` and `indexing` write the program as a bundle.

To add a key to a rule:

1. `documents.RuleSpec`: its shape. The JSON Schema follows: `tidegate rules schema`.
2. `semantics.ObjectiveCheck`: what it means; each mistake with its place and what would be right.
3. `rules/bundle/rule.py`: the field of `Rule`, and its kind in `RULE`.
4. `rules/actions.py`, where it changes what is decided; `indexing` and `rules/index.py`, where it changes what matches.
5. `docs/rules.md`, and a case in `tests/language/test_authors_errors.py` for each mistake.
"""
