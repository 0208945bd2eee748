"""Data types of numpy expressions that name their type."""

from __future__ import annotations

import ast

TYPES_OF_NUMPY: dict[str, tuple[str, ...]] = {
    "bool": ("TYPE_BOOL",), "uint8": ("TYPE_UINT8",), "uint16": ("TYPE_UINT16", "TYPE_BF16"),
    "uint32": ("TYPE_UINT32",), "uint64": ("TYPE_UINT64",), "int8": ("TYPE_INT8",), "int16": ("TYPE_INT16",),
    "int32": ("TYPE_INT32",), "int64": ("TYPE_INT64",), "float16": ("TYPE_FP16",), "float32": ("TYPE_FP32",),
    "float64": ("TYPE_FP64",), "object": ("TYPE_STRING",), "bytes": ("TYPE_STRING",), "str": (),
}  # fmt: skip
"""The data types of a config that a numpy type can be sent as."""

_ALIASES = {
    "bool_": "bool", "object_": "object", "bytes_": "bytes", "string_": "bytes", "str_": "str", "unicode_": "str",
    "half": "float16", "single": "float32", "double": "float64", "float": "float64", "float_": "float64",
    "byte": "int8", "ubyte": "uint8", "short": "int16", "ushort": "uint16", "intc": "int32", "uintc": "uint32",
    "longlong": "int64", "ulonglong": "uint64", "f2": "float16", "f4": "float32", "f8": "float64", "i1": "int8",
    "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
    "?": "bool", "O": "object", "S": "bytes", "U": "str", "f": "float32", "d": "float64",
}  # fmt: skip
_WITH_TYPE = {"array": 1, "asarray": 1, "zeros": 1, "ones": 1, "empty": 1, "full": 2, "arange": None, "fromiter": 1}
"""Functions of numpy that take a data type, and its position."""

_PASSED_ON = {"ascontiguousarray", "squeeze", "expand_dims", "atleast_1d", "atleast_2d", "copy"}
_METHODS_PASSED_ON = {"reshape", "copy", "squeeze", "transpose", "ravel", "flatten"}
_NUMPY = {"np", "numpy"}


def numpy_type(node: ast.expr) -> str | None:
    """Return the numpy type of an expression, as a key of TYPES_OF_NUMPY; None if it does not name one."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    name, base = node.func.attr, node.func.value
    if isinstance(base, ast.Name) and base.id in _NUMPY:
        if name in _PASSED_ON and node.args:
            given = _keyword(node, "dtype")
            return type_name(given) if given is not None else numpy_type(node.args[0])
        if name in _WITH_TYPE:
            given = _keyword(node, "dtype")
            position = _WITH_TYPE[name]
            if given is None and position is not None and position < len(node.args):
                given = node.args[position]
            if given is None and name in ("array", "asarray") and node.args and _is_text(node.args[0]):
                return "str"
            return type_name(given) if given is not None else None
        return None
    if name == "astype":
        given = node.args[0] if node.args else _keyword(node, "dtype")
        return type_name(given) if given is not None else None
    return numpy_type(base) if name in _METHODS_PASSED_ON else None


def type_name(node: ast.expr) -> str | None:
    """Return the numpy type that an expression names, such as `np.float32`, `"f4"` or `float`."""
    match node:
        case ast.Attribute(value=ast.Name(id="np" | "numpy")):
            name = node.attr
        case ast.Name(id="bool" | "float" | "object" | "bytes" | "str"):
            name = node.id
        case ast.Constant(value=str()):
            name = str(node.value).lstrip("<=|")
            name = name[0] if name[:1] in ("S", "U") and name[1:].isdecimal() else name
        case _:
            return None
    name = _ALIASES.get(name, name)
    return name if name in TYPES_OF_NUMPY else None


def is_scalar(node: ast.expr) -> bool:
    """Return whether an expression makes a single numpy value, such as `np.float32(1)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr != "object"
        and type_name(node.func) is not None
    )


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Tuple):
        return bool(node.elts) and all(_is_text(item) for item in node.elts)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
