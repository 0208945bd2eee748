"""The script of Envoy's Lua filter that checks the claims of callers' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_CALLER: Final = """
local function accepts(found, wanted)
  if type(found) ~= "table" then
    return wanted[found or ""] == true
  end
  for _, each in pairs(found) do
    if wanted[each] then
      return true
    end
  end
  return false
end

local function has_scope(claims)
  if next(SCOPES) == nil then
    return true
  end
  local found = claims["scope"] or claims["scp"]
  if type(found) ~= "string" then
    return accepts(found, SCOPES)
  end
  for each in string.gmatch(found, "%S+") do
    if SCOPES[each] then
      return true
    end
  end
  return false
end

-- What no header can hold names no caller.
local function name_of(value)
  return type(value) == "string" and string.match(value, "^[ -~]+$") or nil
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if OPEN[string.match(headers:get(":path") or "", "^[^?]*")] then
    return
  end
  local verified = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn")
  local claims = verified and verified["claims"]
  local audience = claims and (claims["aud"] or claims["client_id"])
  if claims == nil or not accepts(audience, AUDIENCE) then
    handle:respond({[":status"] = "401"}, "")
    return
  end
  if not has_scope(claims) then
    handle:respond({[":status"] = "403"}, "the token lacks the scope")
    return
  end
  local name = name_of(claims[CLAIM]) or name_of(claims["sub"])
  if name then
    headers:replace("tidegate-caller", name)
  end
end
"""


def token_script(open_paths: Sequence[str], audience: Sequence[str], scopes: Sequence[str], claim: str) -> str:
    """Return the script that checks the claims of a verified token and names its caller."""
    sets = {"OPEN": open_paths, "AUDIENCE": audience, "SCOPES": scopes}
    tables = "".join(
        f"local {name} = {{{', '.join(f'[{_quoted(each)}] = true' for each in values)}}}\n"
        for name, values in sets.items()
    )
    return f"{tables}local CLAIM = {_quoted(claim)}\n{_CALLER}"


def _quoted(text: str) -> str:
    """Return a text of printable ASCII as a literal of Lua."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
