"""The scripts of Envoy's Lua filters: what its other filters cannot do.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tidegate.envoy.plans import CODE_HEADER, PLAN_HEADER

STEP_HEADER: Final = "x-tidegate-step"
"""The step of the endpoint that an attempt is sent to, from 0, in the request; in its answer, that of the endpoint that answered."""

RETRY_HEADER: Final = "x-tidegate-retry"
"""In an answer of a server: why the next place is tried."""

UNDECIDED_HEADER: Final = "x-tidegate-undecided"
"""In Envoy's own answer to a request that no resolver has decided and nothing is declared for."""

FAILED_OPEN: Final = "x-envoy-auth-failure-mode-allowed"
"""Envoy's own header of a request that no resolver has decided."""

METADATA: Final = "tidegate"
"""The namespace of what the log needs to know of a request."""

# A plan is `asked|model|version;…`: from the answer of the resolver, or from the route of a request that no resolver decided.
_COMMON: Final = f"""
local function plan_of(handle)
  local decided = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  return decided and decided["{PLAN_HEADER}"] or handle:metadata():get("plan")
end

local function step_of(plan, wanted)
  local number = 0
  for step in string.gmatch(plan, "[^;]+") do
    if number == wanted then
      return string.match(step, "^([^|]*)|([^|]*)|([^|]*)$")
    end
    number = number + 1
  end
end
"""

_ENTER: Final = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  local data = handle:streamInfo():dynamicMetadata()
  local objective = string.match(headers:get(":path"), "^/v2/models/([^/?]+)")
  if objective == nil and string.sub(headers:get("content-type") or "", 1, 16) == "application/grpc" then
    objective = headers:get("tidegate-objective")
  end
  if objective then
    data:set("{METADATA}", "objective", string.sub(objective, 1, 256))
  end
  -- Replaced once there is an answer.
  data:set("{METADATA}", "outcome", "left")
  local trace = string.match(headers:get("traceparent") or "", "^00%-(%x+)%-%x+%-%x%x$")
  if trace and #trace == 32 then
    data:set("{METADATA}", "trace_id", trace)
  end
end

local function outcome_of(headers, step)
  local status = tonumber(headers:get(":status"))
  local code = tonumber(headers:get("grpc-status") or "0")
  if step == nil then
    return headers:get("{UNDECIDED_HEADER}") and "undecided" or (status >= 500 or code == 14) and "failed" or (status >= 400 or code ~= 0) and "refused" or "decided"
  end
  if headers:get("tidegate-reason") == "degraded" then
    return "degraded"
  end
  return headers:get("{RETRY_HEADER}") and "failed" or step > 0 and "fallback" or "answered"
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local code = headers:get("{CODE_HEADER}")
  if code and headers:get("grpc-status") then
    headers:replace("grpc-status", code)
  end
  local step = tonumber(headers:get("{STEP_HEADER}") or "")
  if step and step > 0 then
    local plan = plan_of(handle)
    if plan then
      local _, model, version = step_of(plan, step)
      headers:replace("tidegate-reason", "fallback")
      headers:replace("tidegate-model", model)
      if version == "" then
        headers:remove("tidegate-model-version")
      else
        headers:replace("tidegate-model-version", version)
      end
    end
  end
  if headers:get("{RETRY_HEADER}") == "not-served" and headers:get(":status") ~= "200" then
    headers:replace(":status", "503")
    headers:replace("retry-after", "1")
  end
  local data = handle:streamInfo():dynamicMetadata()
  data:set("{METADATA}", "outcome", outcome_of(headers, step))
  local version = tonumber(headers:get("tidegate-model-version") or "")
  if version then
    data:set("{METADATA}", "version", version)
  end
end
"""

ENTER: Final = _COMMON + _ENTER
"""For each request of a caller: what the log needs, and which target answered."""

DECIDED: Final = f"""
function envoy_on_request(handle)
  -- The route was chosen before the resolver was asked.
  if handle:headers():get("{FAILED_OPEN}") then
    handle:clearRouteCache()
  end
end
"""
"""For each request that may pass."""

# Triton's own texts; see `tidegate.oip.error_texts`.
_ATTEMPT: Final = f"""
local LONGEST = 1024
local LARGEST = 2147483647
local MOST_FIELDS = 16384
local VARINT = "^[\\128-\\255]*[^\\128-\\255]"

local function is_not_served(text)
  text = string.gsub(text, "^%[request id: [^%]]*%] ", "")
  local ensembles
  repeat
    text, ensembles = string.gsub(text, "^in ensemble '[^']*', ", "")
  until ensembles == 0
  local rest = string.match(text, "^Request for unknown model: '[^']*' (.*)$")
  if rest == nil then
    return false
  end
  rest = string.gsub(rest, "^version %d+ ", "")
  return rest == "is not found" or rest == "has no available versions" or rest == "is not at ready state"
end

-- Return a reader of a message's fields, which comes in parts; called without one, it tells whether a field has just ended.
local function reader()
  local held, skip, left, is_bad = "", 0, MOST_FIELDS, false
  return function(bytes)
    if bytes == nil then
      return not is_bad and held == "" and skip == 0
    end
    local data, at = held .. bytes, 1
    held = ""
    while not is_bad do
      local taken = math.min(skip, #data - at + 1)
      at, skip = at + taken, skip - taken
      if at > #data then
        return
      end
      local kind = string.byte(data, at) % 8
      local _, last = string.find(data, VARINT, at)
      local first = last and last + 1
      if last and (kind == 0 or kind == 2) then
        _, last = string.find(data, VARINT, first)
      end
      if last == nil then
        held, is_bad = string.sub(data, at), #data - at > 20
        return
      end
      if kind == 1 or kind == 5 then
        skip = kind == 1 and 8 or 4
      elseif kind == 2 then
        for each = last, first, -1 do
          skip = skip * 128 + string.byte(data, each) % 128
        end
      end
      at, left = last + 1, left - 1
      is_bad = kind == 3 or kind == 4 or kind > 5 or skip > LARGEST or left < 0
    end
  end
end

-- Of a unary call, the first message alone goes on, with `added` behind its last byte. What follows it is dropped: a server would take it
-- for the end of the message, in which the last name of a model counts. A message that ends within a field never ends: that field would
-- take in `added`.
local function append(handle, added)
  -- A message has five bytes before it: whether it is compressed, and its length (https://grpc.github.io/grpc/core/md_doc__p_r_o_t_o_c_o_l-_h_t_t_p2.html).
  local held, left, read = "", nil, reader()
  for chunk in handle:bodyChunks() do
    local bytes = tostring(chunk:getBytes(0, chunk:length()))
    local before = ""
    if left == nil then
      held, bytes = held .. bytes, ""
      if #held >= 5 then
        local flag, a, b, c, d = string.byte(held, 1, 5)
        left = ((a * 256 + b) * 256 + c) * 256 + d
        bytes = string.sub(held, 6)
        -- A length that overflows would be that of another message.
        local size = math.min(left + #added, LARGEST)
        before = string.char(flag, math.floor(size / 16777216), math.floor(size / 65536) % 256, math.floor(size / 256) % 256, size % 256)
      end
    end
    if left ~= nil then
      bytes = string.sub(bytes, 1, left)
      left = left - #bytes
      read(bytes)
      bytes = before .. bytes
      if left == 0 then
        bytes, added = bytes .. (read() and added or ""), ""
      end
    end
    chunk:setBytes(bytes)
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local plan = plan_of(handle)
  local step = tonumber(headers:get("{STEP_HEADER}") or "0")
  if plan == nil then
    return
  end
  local asked = step_of(plan, step)
  if asked == nil then
    return
  end
  if string.sub(headers:get("content-type") or "", 1, 16) == "application/grpc" then
    append(handle, (string.gsub(asked, "%x%x", function(digits) return string.char(tonumber(digits, 16)) end)))
  else
    headers:replace(":path", asked)
  end
end

local function has_next(handle, step)
  local plan = plan_of(handle)
  return plan ~= nil and step_of(plan, step + 1) ~= nil
end

local function reason_of(handle, headers)
  local status = headers:get(":status")
  local step = tonumber(headers:get("{STEP_HEADER}") or "0")
  if status == "200" then
    local code = headers:get("grpc-status")
    if code == nil or code == "0" then
      return nil
    end
    local text = string.gsub(headers:get("grpc-message") or "", "%%(%x%x)", function(digits)
      return string.char(tonumber(digits, 16))
    end)
    if is_not_served(text) then
      return "not-served"
    end
    return (code == "14" or (code == "13" and has_next(handle, step))) and "failed" or nil
  end
  if status == "400" or status == "404" or status == "503" then
    if tonumber(headers:get("content-length") or "0") <= LONGEST then
      local body = handle:body()
      local text = body and string.match(tostring(body:getBytes(0, body:length())), '^{{"error":%s*"(.*)"}}%s*$')
      if text and is_not_served(text) then
        return "not-served"
      end
    end
  end
  if status == "502" or status == "503" or status == "504" or (status == "500" and has_next(handle, step)) then
    return "failed"
  end
end

function envoy_on_response(handle)
  local reason = reason_of(handle, handle:headers())
  -- Those from before the body was read cannot be used any more.
  local headers = handle:headers()
  if reason then
    headers:replace("{RETRY_HEADER}", reason)
  else
    headers:remove("{RETRY_HEADER}")
  end
end
"""

ATTEMPT: Final = _COMMON + _ATTEMPT
"""For each attempt at a server: the model of its step, over HTTP in the path and over gRPC behind the message; and whether the next place
is tried."""

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
    handle:respond({[":status"] = "403", ["content-type"] = "application/json"}, '{"error":"the token lacks the scope"}')
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
