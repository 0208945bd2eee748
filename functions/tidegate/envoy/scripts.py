"""The scripts of Envoy's Lua filters: what its other filters cannot do.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter
"""

from __future__ import annotations

from typing import Final

from tidegate.envoy.plans import CODE_HEADER, PLAN_HEADER

STEP_HEADER: Final = "x-tidegate-step"
"""The step of the endpoint that an attempt is sent to, from 0, in the request; in its answer, that of the endpoint that answered."""

MOVED_HEADER: Final = "x-tidegate-moved"
"""In a request whose path a script has set: its next attempt has the same headers."""

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
local function outcome_of(headers, step)
  local status = tonumber(headers:get(":status"))
  local code = tonumber(headers:get("grpc-status") or "0")
  if step == nil then
    return headers:get("{UNDECIDED_HEADER}") and "undecided" or (status >= 500 or code == 14 or code == 4) and "failed" or (status >= 400 or code ~= 0) and "refused" or "decided"
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
  if step == nil and headers:get("grpc-message") == "upstream request timeout" then
    -- Envoy says UNAVAILABLE, after which clients may send a request again.
    headers:replace("grpc-status", "4")
  end
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
  handle:streamInfo():dynamicMetadata():set("{METADATA}", "outcome", outcome_of(headers, step))
end
"""

ENTER: Final = _COMMON + _ENTER
"""For an answer that is not the decided target's success: which target answered, and the log's `outcome`."""

UNDECIDED: Final = """
function envoy_on_request(handle)
  -- The route was chosen before the resolver was asked.
  handle:clearRouteCache()
end
"""
"""For a request that no resolver has decided."""

_ASK: Final = f"""
local LARGEST = 2147483647
local MOST_FIELDS = 16384
local VARINT = "^[\\128-\\255]*[^\\128-\\255]"

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
    headers:replace("{MOVED_HEADER}", "true")
  end
end
"""

ASK: Final = _COMMON + _ASK
"""For an attempt at a server: the model of its step, over HTTP in the path and over gRPC behind the message."""

# Triton's own texts; see `tidegate.oip.error_texts`.
_JUDGE: Final = f"""
local LONGEST = 1024

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
  end
end
"""

JUDGE: Final = _COMMON + _JUDGE
"""For each answer of a server but a success: whether the next place is tried."""
