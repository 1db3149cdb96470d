-- Slipway's conditions follow kstatus; what a person decided to hold is Suspended, not broken.
local function condition(kind)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, found in ipairs(obj.status.conditions) do
      if found.type == kind then
        return found
      end
    end
  end
  return {}
end

local function health(status, message)
  return { status = status, message = message or "" }
end

local seen = obj.status ~= nil and tonumber(obj.status.observedGeneration) or nil
if seen == nil or seen < tonumber(obj.metadata.generation or 0) then
  return health("Progressing", "waiting for the operator to look at the newest spec")
end

local ready = condition("Ready")
local stalled = condition("Stalled")
local reconciling = condition("Reconciling")

if ready.status == "True" then
  return health("Healthy", ready.message)
end
if stalled.status == "True" then
  if stalled.reason == "RolledBack" or stalled.reason == "Aborted" then
    return health("Suspended", stalled.message)
  end
  return health("Degraded", stalled.message)
end
if reconciling.status == "True" and reconciling.reason == "Paused" then
  return health("Suspended", reconciling.message)
end
return health("Progressing", reconciling.message or ready.message or obj.status.summary)
